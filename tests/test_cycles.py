"""Rows within a cycle of Lookahead repeat by construction: no analysis reads them as something that training does."""

from __future__ import annotations

import numpy as np
import pytest

from dynalab import train
from dynalab.analysis import eos, hmm, periods, slingshot
from dynalab.analysis.base import Group, Run, Series, Trajectories, Trajectory
from dynalab.analysis.cycle import at_ends, cycle_of, groups_at_ends
from dynalab.analysis.hmm import paper
from dynalab.analysis.hmm.features import extract
from dynalab.analysis.hmm.online import decode
from dynalab.analysis.hmm.outcome import infer
from dynalab.config.keys import Stored
from dynalab.core.records import plain, restore

LAST = 600
WHOLE = "Lookahead moves the weights that rows show every"


def lookahead(k):
    return {
        "optimizer": {"name": "lookahead", "inner": "sgd", "k": k, "lr": 0.1},
        "train": {"batch_size": "full"},
    }


def runs(k, every, last=LAST, names=("l2", "var_w"), count=3):
    """Walks that are seen through slow weights: at every row those of the last synchronisation."""
    steps = np.arange(0, last + 1, every)
    found = []
    for run in range(count):
        walk = np.random.default_rng(run).normal(size=(last + 1, len(names))).cumsum(axis=0) + 100
        found.append(Trajectory(f"e/s{run:04d}", steps, walk[steps // k * k], run, "done", lookahead(k)))
    return Trajectories("e", names, tuple(found))


@pytest.mark.parametrize(("k", "every", "apart"), [(5, 1, 5), (5, 2, 10), (4, 6, 12), (6, 4, 12), (7, 1, 7)])
@pytest.mark.parametrize("preset", [extract, paper.extract])
def test_the_states_see_the_ends_of_cycles(k, every, apart, preset):
    found = preset(runs(k, every), hmm.Config())
    assert found.cycle == k and set(np.diff(found.steps[0])) == {apart}
    total, kept = 3 * (LAST // every + 1), 3 * (LAST // apart + 1)
    (said,) = [line for line in found.warnings if line.startswith(WHOLE)]
    assert f"every {k} steps: {kept} of {total} rows are taken, at multiples of {k}" in said
    # What was left out held nothing else: the features are those of runs that were recorded so.
    sparse = preset(runs(k, apart), hmm.Config())
    assert sparse.cycle == 1 and not any(line.startswith(WHOLE) for line in sparse.warnings)
    assert all(np.array_equal(a, b) for a, b in zip(found.values, sparse.values, strict=True))


def test_few_rows_are_kept_and_warned_of_unless_the_others_repeat_them():
    same, cycle, (said,) = at_ends(few := runs(7, 100, 3000), ("l2",))
    assert same is few and cycle == 1 and "78 of 93 rows are within a cycle" in said and "their place" in said
    short, cycle, _ = at_ends(runs(5, 1, 30), ("l2",))
    assert cycle == 5 and short.runs[0].steps.tolist() == [0, 5, 10, 15, 20, 25, 30]


def test_others_are_left_alone():
    for config in ({}, {"optimizer": {"name": "sgd"}}, lookahead(1), {"optimizer": {"name": "mine", "k": 3}}):
        assert cycle_of(config) == 1
    on_grid = runs(5, 10)
    assert at_ends(on_grid, ("l2",)) == (on_grid, 1, [])
    # Rows that have none of the columns are another metric's.
    values = np.array(runs(5, 2).runs[0].values)
    values[np.arange(len(values)) % 5 > 0, 0] = np.nan
    mixed = Trajectories(
        "e", ("l2", "var_w"), (Trajectory("e/0", np.arange(0, 601, 2), values, 0, "done", lookahead(5)),)
    )
    assert at_ends(mixed, ("l2",))[1] == 1 and at_ends(mixed, ("var_w",))[1] == 5


def test_pooled_runs_have_rows_at_the_ends_of_all_their_cycles():
    plain = Trajectory(
        "f/s0000", np.arange(0, 601), np.zeros((601, 2)), 0, "done", {"optimizer": {"name": "sgd"}}
    )
    both = Trajectories("e", ("l2", "var_w"), (*runs(4, 1).runs, *runs(6, 1).runs, plain))
    found, cycle, _ = at_ends(both, ("l2",))
    assert cycle == 12 and all(run.steps.tolist() == list(range(0, 601, 12)) for run in found.runs)


def test_the_largest_loss_since_the_last_row_stays_so():
    steps = np.arange(8)
    values = np.column_stack([[np.nan, 1, 9, 2, 3, 4, 5, 99], steps])
    run = Trajectory("e/0", steps, values).at_multiples(3, ("train_loss_max", "l2"))
    assert run.steps.tolist() == [0, 3, 6] and run.values[:, 1].tolist() == [0, 3, 6]
    assert np.isnan(run.values[0, 0]) and run.values[1:, 0].tolist() == [9, 5]


def test_rows_that_repeat_do_not_hide_the_noise_of_the_edge():
    """Between rows that mostly repeat no noise is seen, and what is noise is taken for arrivals and departures."""
    k, steps = 5, np.arange(0, 4001)
    seen = steps // k * k
    rng = np.random.default_rng(3)
    noise = np.exp(rng.normal(0, 0.15, len(steps)))[seen]
    ratio = np.minimum(0.1 * np.exp(seen / 868.6), 1.0) * noise

    def judged(every):
        columns = {"0": {"edge_ratio": ratio[::every]}}
        return eos.analyse([Group.of(columns, steps[::every], config=lookahead(k))], eos.Config())

    found, sparse = judged(1), judged(k)
    assert found.runs == sparse.runs and found.runs[0].verdict == "at_edge"
    assert found.warnings[0].startswith(WHOLE) and not sparse.warnings


def test_slingshots_and_periods_read_the_same_rows():
    names = ("train_loss", "last_layer_norm", "scale_invariant_norm")
    for kind in (slingshot, periods):
        dense, sparse = (
            kind.analyse([as_group(runs(5, every, names=names))], kind.Config()) for every in (1, 5)
        )
        assert dense.runs == sparse.runs
        assert [line.startswith(WHOLE) for line in dense.warnings[:1]] == [True]
        assert not any(line.startswith(WHOLE) for line in sparse.warnings)


def as_group(trajectories):
    made = [
        Run(
            run.run,
            {n: Series.of(run.steps, run.values[:, i]) for i, n in enumerate(trajectories.metrics)},
            run.steps,
            run.config,
        )
        for run in trajectories.runs
    ]
    return Group("e", tuple(made), trajectories.metrics)


def test_groups_are_thinned_as_trajectories_are():
    for k, every in ((5, 2), (4, 6), (7, 100), (5, 10)):
        whole = runs(k, every, 3000, names=("l2", "train_loss_max"))
        thin, _, notes = at_ends(whole, ("l2",))
        (group,), more = groups_at_ends([as_group(whole)], ("l2",))
        assert more == notes
        for mine, theirs in zip(group.runs, thin.runs, strict=True):
            assert mine.grid.tolist() == theirs.steps.tolist()
            np.testing.assert_array_equal(mine.table(thin.metrics), theirs.values)


def test_new_runs_are_decoded_on_the_rows_that_the_model_was_fitted_to():
    config = hmm.Config(n_states=2, stability=False, baselines=False)
    fitted = infer(runs(5, 1), config)
    assert fitted.cycle == 5
    later = runs(5, 1, last=100)
    again = decode(later, hmm.Config(decode_with=Stored.of("hmm-x", fitted))).states
    assert [run.steps for run in again] == [list(range(0, 101, 5))] * 3
    # A model of before saw all rows.
    before = restore(hmm.Findings, {key: value for key, value in plain(fitted).items() if key != "cycle"})
    every = decode(later, hmm.Config(decode_with=Stored.of("hmm-x", before))).states
    assert len(every[0].steps) == 101


def test_a_trained_run_repeats_its_rows_within_a_cycle(outputs):
    words = ["task=grokking", "task.modulus=5", "model.width=4", "train.steps=12", "launcher=inline"]
    words += [
        "eval.every=1",
        "probe.weights.every=1",
        "optimizer=lookahead",
        "optimizer.k=4",
        "compute.width=2",
    ]
    (ensemble,) = train(words)
    found = ensemble.trajectories()
    (run,) = found.runs
    l2 = run.values[:, found.metrics.index("l2")]
    assert (l2 == l2[run.steps // 4 * 4]).all() and len(np.unique(l2)) == 4
    assert at_ends(found, ("l2",))[0].runs[0].steps.tolist() == [0, 4, 8, 12]
