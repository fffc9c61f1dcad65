"""`analyze examples` of several settings: errors against jackknife and simulation, disagreement by hand, words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from collisions import collisions_of
from groups import of_examples
from nulls.examples import Alike

from dynalab.analysis import examples
from dynalab.analysis.command import findings_of
from dynalab.analysis.examples import Config, Findings, analyse
from dynalab.analysis.examples.crossed import Answers, difference, errors_of
from dynalab.analysis.examples.disagreement import agreements, disagreement
from dynalab.config.registry import find
from dynalab.core.records import plain, restore, tables
from dynalab.errors import NothingMatched
from dynalab.report.choice import choose, key_words
from dynalab.show import terminal
from dynalab.show.blocks import Dots, Say

END = np.array([10])


def answers(right: np.ndarray, first: int = 0, held: np.ndarray | None = None) -> Answers:
    labels = tuple(f"s{first + i:04d}" for i in range(len(right)))
    held = np.ones_like(right) if held is None else held
    return Answers(labels, right & held, held)


def setting(name: str, right: np.ndarray, hash_: int = 1, **config):
    """A group of runs with one row of examples, right is (S, n)."""
    runs = {f"s{i:04d}": row[None] for i, row in enumerate(right)}
    group = of_examples(runs, END, [hash_] * len(right))
    made = tuple(replace(run, id=f"{name}/{run.label}", config=config) for run in group.runs)
    return replace(group, id=name, runs=made)


def jackknife(values: np.ndarray) -> float:
    return float((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())


@pytest.mark.parametrize("paired", [False, True])
def test_errors_are_those_of_the_jackknife_over_examples_and_over_runs(paired):
    (one, other), _ = Alike((7, 7 if paired else 9), 60, width=0.8, own=1.5, hard=False).draw(
        np.random.default_rng(0)
    )
    if paired:
        found = errors_of([(other.values.values - one.values.values, other.added - one.added)])
        runs = jackknife(
            np.array([np.delete(other.right.mean(1) - one.right.mean(1), s).mean() for s in range(7)])
        )
    else:
        found = errors_of([(item.values.values, item.added) for item in (other, one)])
        runs = sum(
            jackknife(np.array([np.delete(item.right.mean(1), s).mean() for s in range(len(item.right))]))
            for item in (one, other)
        )
    gap = other.right.mean(0) - one.right.mean(0)
    left = np.array([np.delete(gap, i).mean() for i in range(60)])
    assert found.examples + found.both == pytest.approx(jackknife(left))
    assert found.seeds + found.both == pytest.approx(runs) and found.seeds > 0


@pytest.mark.parametrize("size", [None, 80])
def test_the_variance_on_new_examples_is_that_of_the_difference(size):
    """Also where every run draws examples of its own, as seeds of a split do."""
    rng, case = np.random.default_rng(3), Alike((6, 8), 200, width=0.2, own=0.7)
    gaps, totals = [], []
    for _ in range(250):
        (one, other), _ = case.draw(rng)
        if size is not None:
            held = [rng.permuted(np.arange(200) < size * np.ones((n, 1)), axis=1) for n in case.runs]
            one, other = answers(one.right, 0, held[0]), answers(other.right, 6, held[1])
        found = errors_of([(item.values.values, item.added) for item in (other, one)])
        gaps.append(other.values.values.mean() - one.values.values.mean())
        totals.append(found.total)
    # The relative error of a variance of 250 is 9%.
    assert np.mean(totals) == pytest.approx(np.mean(np.square(gaps)), rel=0.25)


def test_on_new_examples_no_claim_is_surer_than_on_this_test_set():
    rng = np.random.default_rng(2)
    for case in (Alike((5, 5), 200), Alike((8, 8), 200, shared=0.9, width=0.3), Alike((5, 9), 200, own=1.0)):
        (one, other), _ = case.draw(rng)
        found = difference(one, other)
        low, high = found.interval
        assert None not in found.here.interval
        assert low <= found.here.interval[0] and high >= found.here.interval[1] and found.p >= found.here.p
    same = answers(np.tile(np.arange(9) < 5, (4, 1)))
    assert difference(same, same).p == 1.0 and difference(same, same).interval == (None, None)
    assert difference(answers(same.right[:1]), same) is None
    # Of runs of which most are right on all it is not known how often one is not.
    at_end = answers(np.arange(9) < np.array([9, 9, 9, 5])[:, None])
    found = difference(answers(np.arange(9) < np.array([3, 5, 6, 7])[:, None], 4), at_end)
    assert found.interval == found.here.interval == (None, None) and found.p < 1


def test_the_excess_is_what_settings_disagree_on_beyond_seeds():
    rng = np.random.default_rng(2)
    # All runs of equal accuracy, that nothing is to be taken out for.
    one, other = (
        answers(rng.permuted(np.tile(np.arange(40) < 30, (5, 1)), axis=1), first) for first in (0, 5)
    )
    found = disagreement(one, other, False)
    apart = [[(x != y).mean() for y in other.right] for x in one.right]
    own = [
        np.mean([(x[i] != x[j]).mean() for i in range(5) for j in range(i)]) for x in (one.right, other.right)
    ]
    assert found.between == pytest.approx(np.mean(apart)) and found.within == pytest.approx(own)
    assert found.excess == pytest.approx(np.mean(apart) - np.mean(own)) and found.p > 0.05
    # The same accuracies, by other examples.
    first, last = (np.tile(places < 30, (5, 1)) for places in (np.arange(40), np.arange(40)[::-1]))
    turned = disagreement(answers(first), answers(last, 5), False)
    assert turned.excess == pytest.approx(0.5) and turned.p < 0.02
    # The same runs in another order: no permutation is less far from no difference.
    assert disagreement(one, answers(one.right[::-1], 5), False).p == 1


def test_where_accuracies_do_not_overlap_disagreement_is_not_tested():
    low, high = (np.random.default_rng(0).random((6, 300)) < share for share in (0.3, 0.9))
    found = disagreement(answers(low), answers(high, 6), False)
    assert found.p is None and found.excess is None and "overlap" in found.reason
    assert "fewer than 4" in disagreement(answers(low[:3]), answers(high, 6), False).reason
    held = np.tile(np.arange(300) < 150, (6, 1))
    assert "share no example" in disagreement(answers(low, 0, held), answers(low, 6, ~held), False).reason
    halves = np.array([np.arange(300) < 100, np.arange(300) >= 100])
    alike, _ = agreements(low[:2] & halves, halves)
    assert np.isnan(alike[0, 1]) and alike[0, 0] == 1


def test_what_is_said_of_a_test_set_is_not_said_of_new_examples():
    """Settings that are each better on examples of their own: seeds agree, the examples do not."""
    (one, other), gap = Alike((20, 20), 200, own=1.5).draw(np.random.default_rng(1))
    groups = [
        setting("a" * 10, one.right, optimizer={"name": "sgd"}),
        setting("b" * 10, other.right, optimizer={"name": "adam"}),
    ]
    found = analyse(groups, Config())
    (pair,) = found.pairs
    assert pair.this_test_set.verdict == "differ" and pair.new_examples.verdict == "cannot_tell"
    assert pair.estimate == pytest.approx(other.right.mean() - one.right.mean()) and pair.examples == 200
    assert pair.this_test_set.interval[0] < gap < pair.this_test_set.interval[1]
    assert pair.variance.examples > 0.5 and sum(vars(pair.variance).values()) == pytest.approx(1)
    assert pair.churn.verdict == "more"
    blocks = list(examples.show(found, groups))
    head = next(block.text for block in blocks if isinstance(block, Say))
    assert "whether it would be on new examples cannot be told" in head and "adam" in head
    (figure,) = (block for block in blocks if isinstance(block, Dots))
    assert figure.labels == ["adam less sgd, this test set", "adam less sgd, new examples"]
    assert figure.marked == [True, False] and collisions_of(blocks) == []
    text = json.dumps(plain(found), allow_nan=False)
    assert json.dumps(plain(restore(Findings, json.loads(text), tables(found).get))) == text
    turned = analyse([groups[1], groups[0]], Config()).pairs[0]
    assert turned.estimate == pytest.approx(-pair.estimate) and turned.new_examples.p == pytest.approx(
        pair.new_examples.p
    )


def test_pairs_are_judged_together_and_poor_settings_are_not():
    rng = np.random.default_rng(0)
    right = [rng.random((n, 300)) < share for n, share in ((8, 0.6), (8, 0.9), (1, 0.7), (2, 0.6))]
    groups = [setting(f"{place:010d}", own, optimizer={"lr": place}) for place, own in enumerate(right)]
    found = analyse(groups, Config())
    assert found.settings[0].label == "lr 1" and len(found.pairs) == 6
    first, single, few = found.pairs[0], found.pairs[1], found.pairs[2]
    # Holm over six, of which three have too few runs to be anything.
    assert first.new_examples.p_adjusted == pytest.approx(6 * first.new_examples.p)
    assert first.new_examples.verdict == "differ" and first.churn.p is None
    assert single.estimate is None and "8 and 1 run with examples" in single.new_examples.reason
    assert "too few" in few.new_examples.reason
    assert list(terminal.lines(examples.show(found, [])))


def test_settings_of_other_examples_are_compared_on_those_that_both_hold_out():
    rng = np.random.default_rng(0)
    from test_examples import Drawn

    groups = []
    for place, first in enumerate((0, 30, 200)):
        group = setting(
            f"{place:010d}", rng.random((5, 100)) < 0.5 + 0.1 * place, place, optimizer={"lr": place}
        )
        runs = tuple(replace(run, learner=Drawn(np.arange(first, first + 100))) for run in group.runs)
        groups.append(replace(group, runs=runs))
    found = analyse(groups, Config())
    assert [pair.examples for pair in found.pairs] == [70, 0, 0]
    shared = [groups[0].runs, groups[1].runs]
    rows = [np.unpackbits(run.blocks["examples"].values[0], count=100) for runs in shared for run in runs]
    assert found.pairs[0].estimate == pytest.approx(
        np.mean([row[:70] for row in rows[5:]]) - np.mean([row[30:] for row in rows[:5]])
    )
    assert "0 and 0 runs with examples that both" in found.pairs[1].new_examples.reason
    assert any("on those that both do, 0 to 70" in line for line in found.warnings)
    assert list(terminal.lines(examples.show(found, [])))


def test_settings_of_two_tasks_are_refused():
    right = np.ones((2, 8), bool)
    groups = [setting("a", right, task={"name": "digits"}), setting("b", right, task={"name": "mnist"})]
    with pytest.raises(NothingMatched, match="of one task, and these are of digits and mnist"):
        findings_of(groups, find("analysis", "examples"), Config())


def test_a_sweep_is_analysed_one_by_one_and_together_and_a_report_shows_both(here, outputs):
    words = [
        "task=digits",
        "task.n_train=60",
        "task.n_test=90",
        "model=mlp",
        "model.hidden=[8]",
        "train.steps=20",
    ]
    words += ["eval.every=10", "seed=0..4", "compute.workers=1", "optimizer=sgd,adam", "seed_streams.split=0"]
    assert here("train", *words, "probes=[weights,gradients,examples]", "probe.examples.every=10").code == 0
    one, other, both = here("analyze", "examples", "--json").json["analyses"]
    assert (
        not one["pairs"]
        and not other["pairs"]
        and sorted(both["ensembles"]) == sorted([one["ensemble"], other["ensemble"]])
    )
    (pair,) = both["pairs"]
    assert abs(pair["estimate"]) == pytest.approx(
        abs(one["summary"]["accuracy"] - other["summary"]["accuracy"])
    )
    assert here("analyze", "examples", "pool=true", "--json").json["analyses"][0]["id"] == both["id"]
    shown = choose(outputs, one["ensemble"], ()).shown
    assert {result.id for result in shown if result.kind == "examples"} == {one["id"], both["id"]}
    assert not any("pool=true" in key_words(result) for result in shown)
