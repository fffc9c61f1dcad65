"""Correlation modes: exact where they are there, least squares, and what their networks are held against."""

import shutil

import numpy as np
import pytest
import torch
from collisions import collisions_of
from groups import of_weights
from safetensors.torch import save_file

import dynalab
from dynalab.analysis import modes as analysis
from dynalab.analysis import stored as tables
from dynalab.analysis.modes import judge, summary
from dynalab.analysis.modes.decomposition import Decomposition
from dynalab.analysis.modes.findings import Mean, RunFindings, Summary
from dynalab.analysis.modes.judge import Scores
from dynalab.analysis.modes.settings import Setting, settings
from dynalab.core.modes import Clusters, Fit, Modes, assign, decompose, reconstruct, sample, units


def made(modes=3, weights=400, steps=40, seed=0):
    """Return trajectories (T, N) that are affine in so many walks, and the mode of each weight."""
    rng = np.random.default_rng(seed)
    walks = np.cumsum(rng.normal(size=(steps, modes)), axis=0)
    of = rng.integers(modes, size=weights)
    slope = rng.choice([-1.0, 1.0], size=weights) * rng.uniform(0.2, 3.0, size=weights)
    return walks[:, of] * slope + rng.normal(size=weights) * 5, of


def fitted(rows, modes):
    fit = Fit(modes.of, modes.references)
    for row in rows:
        fit.take(row)
    return fit.coefficients()


@pytest.mark.parametrize("modes", [1, 3, 6])
def test_weights_of_a_few_modes_are_taken_apart_exactly(modes):
    rows, truth = made(modes)
    found = decompose(rows, [100, 290, 10], modes, np.random.default_rng(0), sampled=200)
    assert len(found.references) == modes
    # One mode of the truth is one mode of what is found, under whichever number.
    assert len({(a, b) for a, b in zip(truth, found.of, strict=True)}) == modes
    slope, offset = fitted(rows, found)
    again = np.stack([reconstruct(slope, offset, found.of, row[found.references]) for row in rows])
    np.testing.assert_allclose(again, rows, atol=1e-9)


def test_more_modes_than_there_are_come_out_as_those_there_are():
    rows, _ = made(3)
    found = decompose(rows, [400], 10, np.random.default_rng(0))
    assert len(found.references) == 3
    assert Clusters(rows).most == 3


def test_running_sums_are_least_squares_and_tensors_do_as_arrays():
    rng = np.random.default_rng(1)
    # Far from 0 by more than they move, where plain sums of squares lose their digits.
    rows = np.cumsum(rng.normal(size=(60, 50)), axis=0) * 1e-3 + rng.normal(size=50) * 100
    modes = decompose(rows, [50], 4, rng)
    slope, offset = fitted(rows, modes)
    for weight in range(50):
        reference = rows[:, modes.references[modes.of[weight]]]
        # Least squares by another way, about the means so that it is well conditioned itself.
        x, y = reference - reference.mean(), rows[:, weight] - rows[:, weight].mean()
        a = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
        assert slope[weight] == pytest.approx(a, rel=1e-9, abs=1e-9)
        line = rows[:, weight].mean() + a * x
        np.testing.assert_allclose(slope[weight] * reference + offset[weight], line, rtol=1e-9)
    fit = Fit(torch.as_tensor(modes.of), torch.as_tensor(modes.references))
    for row in torch.as_tensor(rows):
        fit.take(row)
    for one, other in zip(fit.coefficients(), (slope, offset), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-12)


def test_runs_one_behind_another_have_modes_of_their_own():
    several = [made(2, 60, seed=seed)[0] for seed in range(3)]
    modes = [decompose(rows, [60], 2, np.random.default_rng(0)) for rows in several]
    fit = Fit(
        np.concatenate([own.of + 2 * run for run, own in enumerate(modes)]),
        np.concatenate([own.references + 60 * run for run, own in enumerate(modes)]),
    )
    for row in np.concatenate(several, axis=1):
        fit.take(row)
    alone = [fitted(rows, own) for rows, own in zip(several, modes, strict=True)]
    for part, found in enumerate(fit.coefficients()):
        np.testing.assert_array_equal(found, np.concatenate([own[part] for own in alone]))


def test_weights_that_never_move_are_their_offset_and_found_no_mode():
    rows, _ = made(2, 40)
    rows[:, ::4] = 0.1
    modes = decompose(rows, [40], 2, np.random.default_rng(0))
    slope, offset = fitted(rows, modes)
    assert not set(modes.references) & set(range(0, 40, 4))
    np.testing.assert_array_equal(slope[::4], 0.0)
    np.testing.assert_array_equal(offset[::4], 0.1)
    # Nor where nothing moves at all.
    still = np.full((5, 7), 0.3)
    modes = decompose(still, [7], 3, np.random.default_rng(0))
    slope, offset = fitted(still, modes)
    np.testing.assert_array_equal(reconstruct(slope, offset, modes.of, still[0][modes.references]), 0.3)


def test_the_sample_is_half_by_tensor_and_half_by_size():
    drawn = sample([10, 990], 100, np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn)
    # 25 + .5 of the small one are more than it has.
    assert (drawn < 10).sum() == 10
    assert (drawn >= 10).sum() == pytest.approx(74, abs=1)
    np.testing.assert_array_equal(sample([3, 4], 10, np.random.default_rng(0)), np.arange(7))


def test_correlations_are_those_of_numpy():
    rows, _ = made(3, 20)
    rows += np.random.default_rng(2).normal(size=rows.shape)
    _, alike = assign(rows, rows[:, [4]])
    np.testing.assert_allclose(alike, np.abs(np.corrcoef(rows.T)[4]), atol=1e-12)
    assert np.isfinite(units(np.ones((4, 3)))).all()


def plain_modes(rows, count):
    """The modes of all weights, and what they make of every snapshot, by the pure functions."""
    found = np.arange(len(rows)) % 4 != 2
    references = Clusters(rows[found]).references(count)
    of, _ = assign(rows, rows[:, references])
    modes = Modes(of, references)
    slope, offset = fitted(rows, modes)
    again = np.stack([reconstruct(slope, offset, modes.of, row[modes.references]) for row in rows])
    variance = ((rows - rows.mean(0)) ** 2).sum()
    return modes, 1 - ((rows - again) ** 2).sum() / variance


@pytest.mark.parametrize("block", [1 << 22, 21 * 23, 1])
def test_blocks_of_stored_weights_have_the_modes_of_the_whole(monkeypatch, block):
    rows, _ = made(3, 205, 21)
    rows = (rows + 0.5 * np.random.default_rng(3).normal(size=rows.shape)).astype(np.float32)
    monkeypatch.setattr(tables, "BLOCK", block)
    group = of_weights({"s0000": rows}, np.arange(0, 210, 10))
    found = analysis.analyse([group], analysis.Config(modes=3))
    (run,) = found.runs
    # In the order of the stored tensors: the matrix first.
    own = np.concatenate([rows[:, 5:], rows[:, :5]], axis=1).astype(float)
    modes, r2 = plain_modes(own, 3)
    assert run.r2 == pytest.approx(r2, abs=1e-9)
    assert sorted(found.modes["weights"]) == sorted(np.bincount(modes.of))
    assert list(found.modes["weights"]) == sorted(found.modes["weights"], reverse=True)
    assert (run.modes, run.weights, run.stored) == (3, 205, 2 * 205 + 52 + 3 * 21)
    names = {f"layer.weight[{at}]" if at < 200 else f"head.bias[{at - 200}]" for at in modes.references}
    assert set(found.modes["reference"]) == names
    layers = found.parts[found.parts["of"] == "layer"]
    assert layers["weights"].sum() == 205 and layers.groupby("part")["share"].sum().to_list() == [1, 1]
    # As many principal components as fit into these floats: one, its share by another way.
    values = np.linalg.svd(own - own.mean(0), compute_uv=False) ** 2
    assert run.pca_r2 == pytest.approx(values[0] / values.sum(), abs=1e-9)


def test_held_out_snapshots_choose_as_many_modes_as_there_are():
    rows, _ = made(3, 205, 41)
    rows = rows + 0.3 * np.random.default_rng(3).normal(size=rows.shape)
    found = analysis.analyse([of_weights({"s0000": rows}, np.arange(41))], analysis.Config())
    (run,) = found.runs
    assert run.modes == 3 and run.r2 > 0.99 > run.counts[1].r2
    # What is held out counts: a fit of noise alone holds less of it than of what it was fitted to.
    noise = np.random.default_rng(4).normal(size=(21, 205))
    (run,) = analysis.analyse([of_weights({"s0000": noise}, np.arange(21))], analysis.Config(modes=20)).runs
    assert run.r2 > 0.15 and run.heldout_r2 < 0.02


def test_the_smallest_number_within_a_standard_error_is_chosen():
    def chosen(errors):
        return Decomposition([], np.zeros(3), np.array(errors, float), np.ones(3), [], None).chosen()

    assert chosen([[9, 9, 9], [1, 5, 1], [1, 1, 4]]) == 1
    assert chosen([[9, 9, 9], [3, 3, 3], [1, 1, 1]]) == 2
    # Of a single snapshot there is no error, and the best is taken.
    assert chosen([[9], [1.1], [1]]) == 2


def test_averages_are_sums_of_snapshots_with_shares_of_their_own():
    steps = 12
    rows = np.random.default_rng(0).normal(size=(steps, 5)).cumsum(0)
    centred = rows - rows.mean(0)
    components = np.linalg.svd(centred)[0]

    def network(*setting):
        return Setting(*setting).shares(steps, components) @ rows

    np.testing.assert_allclose(network("last"), rows[-1])
    np.testing.assert_allclose(network("swa", 4), rows[-4:].mean(0))
    np.testing.assert_allclose(network("lawa", 3, 2), rows[[-1, -3, -5]].mean(0))
    ema = rows[0]
    for row in rows[1:]:
        ema = 0.75 * ema + 0.25 * row
    np.testing.assert_allclose(network("ema", 4), ema)
    # All components are the last weights, one is the last along the first.
    np.testing.assert_allclose(network("pca", 5), rows[-1])
    direction = np.linalg.svd(centred)[2][0]
    np.testing.assert_allclose(network("pca", 1), rows.mean(0) + centred[-1] @ direction * direction)
    sizes = {setting: setting.stored(1000, steps) for setting in settings(steps, [3])}
    assert (
        sizes[Setting("last")]
        == sizes[Setting("ema", 5)]
        == sizes[Setting("swa", 1)]
        == sizes[Setting("swa", 12)]
        == 1000
    )
    assert sizes[Setting("lawa", 3, 5)] == 3000 and sizes[Setting("pca", 2)] == 3024
    assert sizes[Setting("modes", 3)] == 2250 + 36 and Setting("lawa", 3, 10) not in sizes
    assert Setting("modes", 300).stored(1000, 1) == 2500 + 300


def scored(gaps, tuning=None, metric="accuracy"):
    """What is told of networks of last weights, two windows of SWA, LAWA too large, and modes with such advantages."""
    tried = [Setting("last"), Setting("swa", 2), Setting("swa", 5), Setting("lawa", 5), Setting("modes", 3)]
    gaps = np.asarray(gaps)
    judged = 0.9 + 0.01 * np.random.default_rng(0).normal(size=(len(gaps), 1)) + np.zeros((len(gaps), 5))
    judged[:, 4] += gaps
    judged[:, 3] += 1
    better = np.zeros((len(gaps), 5)) if tuning is None else np.tile(tuning, (len(gaps), 1))
    runs = [f"s{row:04d}" for row in range(len(gaps))]
    stored = np.array([[setting.stored(1000, 20) for setting in tried]] * len(gaps))
    scores = Scores(runs, metric, tried, better, judged, stored, np.full(len(gaps), 1000))
    findings = {run: RunFindings(run, "measured", "") for run in runs}
    return judge.judged(Summary(len(gaps), 3, *[None] * 4), findings, scores, np.full(len(gaps), 4), None)


def test_modes_are_judged_against_the_best_average_of_no_more_floats():
    noise = np.linspace(-0.002, 0.002, 12)
    summary, runs = scored(noise + 0.02, tuning=[0, 0, 1, 9, 0])
    # LAWA holds five copies: more than modes take, however good.
    assert [method.method for method in summary.methods] == ["modes", "last", "swa"]
    assert (summary.average, summary.methods[2].size, summary.verdict) == ("swa", 5, "better")
    assert summary.methods[0].stored_per_weight == pytest.approx(2.31)
    assert set(runs["s0000"].scores) == {"modes", "last", "swa", "average"}
    pair = summary.pairs[1]
    assert pair.estimate == pytest.approx(0.02) and pair.interval[0] == pytest.approx(
        0.02 - 2.201 * noise.std(ddof=1) / 12**0.5, rel=1e-3
    )
    # All signs the same: 2 of 4,096, of two tests.
    assert (pair.p, pair.p_adjusted) == (2 / 4096, 4 / 4096)
    assert (
        scored(noise - 0.02)[0].verdict == "worse"
        and scored(noise + 0.02, metric="loss")[0].verdict == "worse"
    )
    assert scored(noise)[0].verdict == "equivalent" and scored(np.zeros(6))[0].verdict == "equivalent"
    told = scored(10 * noise)[0]
    assert told.verdict == "cannot_tell" and told.reason == "the interval reaches beyond 0.005"
    few = scored([0.02, 0.021, 0.022])[0]
    assert few.verdict == "cannot_tell" and few.reason == "with 3 runs no p among 2 pairs is below 0.5"
    # With more floats LAWA is there.
    assert "lawa" not in told.budgets[0].methods and "lawa" in told.budgets[-1].methods


WORDS = ["task=digits", "task.n_train=60", "task.n_test=101", "model.hidden=[8]", "train.batch_size=20"]
WORDS += ["eval.every=5", "launcher=inline", "snapshots.every=5", "model.norm=batch"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Runs with batch normalisation of which one is longer than the others, and some of too few snapshots."""
    outputs = tmp_path_factory.mktemp("modes") / "outputs"
    dynalab.train([*WORDS, "train.steps=10", "seed=5"], outputs=outputs)
    dynalab.train([*WORDS, "train.steps=30", "seed=0"], outputs=outputs)
    dynalab.train([*WORDS, "train.steps=20", "seed=1"], outputs=outputs)
    return outputs


def _id(outputs):
    """The ensemble of several shards."""
    shards = {path.name[-10:]: len(list(path.glob("shard-*"))) for path in outputs.glob("digits/*")}
    return max(shards, key=lambda name: shards[name])


def test_networks_are_run_as_stacks_with_statistics_of_their_own(outputs):
    ensemble = dynalab.load(_id(outputs), outputs=outputs)
    group = ensemble.group()
    found = dynalab.analyze("modes", ensemble).value
    rows = {run.run: run for run in found.runs}
    assert [run.verdict for run in found.runs] == ["measured"] * 2 + ["insufficient_data"]
    assert found.summary.metric == "accuracy" and found.summary.runs == 2
    assert collisions_of(analysis.show(found, [group])) == []
    networks = found.networks
    for run in group.runs[:2]:
        steps = run.weights.grid
        alone = type(group)(group.id, (run,)).stack(steps[-1])
        mean = {
            name: torch.from_numpy(
                np.stack([run.weights.at(step)[name] for step in steps[-3:]]).mean(0)[None]
            )
            for name in alone.trained
        }
        buffers = alone.refresh_statistics(mean, alone.examples("train"))
        whole = float(alone.measures(mean, alone.examples("test"), buffers)["accuracy"])
        own = networks[(networks["run"] == run.id) & (networks["method"] == "swa") & (networks["size"] == 3)]
        # 51 of the 101 held-out examples are those that windows are chosen by.
        assert 51 * own["tuning"].item() + 50 * own["judged"].item() == pytest.approx(101 * whole)
        assert rows[run.id].last_step == steps[-1]
    # Either way of choosing their number; with one mode there is nothing to choose.
    one = dynalab.analyze("modes", ensemble, modes=1, choose="examples", networks=False).value
    assert one.summary.metric is None and one.summary.modes == 1 and one.networks is None


def test_the_command_says_what_is_missing(outputs, tmp_path, here):
    shutil.copytree(outputs, tmp_path / "outputs")
    words = ("--outputs", str(tmp_path / "outputs"))
    answer = here("analyze", "modes", _id(outputs), "steps=0", *words)
    assert answer.code == 4 and "kept at 1 step, and modes take 4" in answer.err, answer.err
    answer = here("analyze", "modes", _id(outputs), "steps=10", *words)
    assert (
        answer.code == 4
        and "kept at 3 steps, and modes take 4: dynalab train ... snapshots.every=20" in answer.err
    )
    answer = here("analyze", "modes", _id(outputs), "modes=9", "rows=5", *words)
    assert answer.code == 0 and "with which as many paths are alike by chance" in answer.err + answer.out
    assert here("analyze", "modes", _id(outputs), "modes=0", *words).code == 2


def test_checkpoints_from_elsewhere_have_modes_and_no_networks(tmp_path, here):
    rows, _ = made(2, 60, 6)
    for seed in range(2):
        for step, row in enumerate(torch.from_numpy(rows + seed).float().contiguous()):
            path = tmp_path / f"run-seed{seed}" / f"step{step}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_file(
                {"a.weight": row[:40].reshape(5, 8).clone(), "b.weight": row[40:].reshape(4, 5).clone()}, path
            )
    outputs = ("--outputs", str(tmp_path / "outputs"))
    assert (
        here(
            "import",
            "--checkpoints",
            str(tmp_path / "run-{run}" / "step{step}.safetensors"),
            "--name",
            "x",
            *outputs,
        ).code
        == 0
    )
    answer = here("analyze", "modes", *outputs)
    assert answer.code == 0, answer.err
    assert "**" not in answer.out and "2 modes hold 100% of how the weights vary" in answer.out
    assert "no network is run: modes are not held against averages" in answer.err + answer.out


def test_no_interval_of_an_accuracy_goes_beyond_0_and_1():
    assert summary._interval(Mean(4, 0.9995, (0.998, 1.001)), 1.0) == "0.9995 [0.998, 1]"
    assert summary._interval(Mean(3, 0.0048, (-0.0038, 0.0134)), 1.0) == "0.0048 [0, 0.0134]"


def test_gaps_that_cancel_are_0():
    one = np.array([0.5, 0.8, 0.3])
    other = np.roll(one, 2)
    assert float((one - other).mean()) != 0 == judge._test(one, other)[1]
