"""The published pipeline: hmmlearn's own fits to the last digit, its selection, and where hmmlearn would fail."""

import json
import warnings

import numpy as np
import pytest
from hmm_simulate import simulate
from hmmlearn.hmm import GaussianHMM

from dynalab.analysis import hmm
from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm import paper, paper_em
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.frames import stack
from dynalab.analysis.hmm.model import from_plain
from dynalab.analysis.hmm.outcome import infer
from dynalab.core.records import plain
from dynalab.show import terminal
from dynalab.show.blocks import Code


def z_runs(seed=0, n_runs=4, rows=60, size=5):
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(2, size))
    return [
        paper.normalise(
            rng.normal(size=(rows, 2)).cumsum(axis=0) @ loading + 0.1 * rng.normal(size=(rows, size))
        )
        for _ in range(n_runs)
    ]


def hmmlearn_fit(frames, n_states, seed, covariance, n_iter=32, tol=1e-2):
    model = GaussianHMM(n_states, covariance, random_state=seed, n_iter=n_iter, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frames.levels, frames.lengths)


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("n_states", [1, 3])
def test_fits_equal_hmmlearn(covariance, n_states):
    frames = stack(z_runs(), "level", np.ones(5))
    theirs = hmmlearn_fit(frames, n_states, 7, covariance)
    begun = paper_em.initialise(frames.levels, n_states, 7, covariance)
    ours = paper_em.run(frames, begun, 32, 1e-2, covariance)
    assert len(ours.history) == len(theirs.monitor_.history) and ours.repairs == 0
    np.testing.assert_allclose(ours.history, list(theirs.monitor_.history), rtol=1e-9)
    p = ours.parameters
    np.testing.assert_allclose(p.emission.weights[:, :, 0], theirs.means_, atol=1e-6)
    np.testing.assert_allclose(p.emission.covariances, theirs.covars_, atol=1e-6)
    np.testing.assert_allclose(p.transitions, theirs.transmat_, atol=1e-6)
    np.testing.assert_allclose(p.start, theirs.startprob_, atol=1e-6)


def test_selection_equals_the_published_loop():
    values = [x * 3 + 1 for x in z_runs(seed=1, n_runs=10, rows=40)]
    config = Config(preset="paper", max_states=3, restarts=2, workers=1)
    found = paper.select(values, config)
    z = [paper.normalise(x) for x in values]
    from sklearn.model_selection import train_test_split

    train, held = train_test_split(range(10), test_size=0.2, random_state=0)
    frames = stack([z[i] for i in sorted(train)], "level", np.ones(5))
    others = np.concatenate([z[i] for i in sorted(held)])
    assert found.validation == sorted(held) and len(held) == 2
    for row in found.rows:
        k = row.n_states
        fits = [hmmlearn_fit(frames, k, seed, "full") for seed in paper.restart_seeds(config, k)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bic = np.mean([fit.bic(others, [40, 40]) for fit in fits])
            aic = np.mean([fit.aic(others, [40, 40]) for fit in fits])
            best = max(fit.score(others, [40, 40]) for fit in fits)
        np.testing.assert_allclose([row.bic, row.aic], [bic, aic], rtol=1e-6)
        np.testing.assert_allclose(row.heldout_ll_per_frame, best / 80, rtol=1e-6)
    assert found.n_states == min(found.rows, key=lambda row: row.bic).n_states


def test_normalisation_is_of_the_whole_run_and_runs_with_gaps_are_left_out():
    from scipy.stats import zscore

    rng = np.random.default_rng(2)
    x = rng.normal(size=(1200, 3)) * [1, 5, 1e6]
    np.testing.assert_allclose(paper.normalise(x), zscore(x, axis=0), atol=1e-12)
    gap = x.copy()
    gap[5, 1] = np.nan
    flat = x.copy()
    flat[:, 2] = 7.0
    runs = tuple(Trajectory(f"e/{i}", np.arange(1200), v) for i, v in enumerate((x, gap, flat)))
    found = paper.extract(
        Trajectories("e", ("a", "b", "c"), runs), Config(preset="paper", metrics=["a", "b", "c"])
    )
    assert found.runs == ("e/0", "e/2") and len(found.steps[0]) == 1000
    assert any("1 run with missing values left out: e/1" in note for note in found.warnings)
    assert any("taken as 0 there: c" in note for note in found.warnings)


def test_repairs_only_where_hmmlearn_fails():
    frames = stack([np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)], "level", np.ones(2))
    begun = paper_em.initialise(frames.levels, 4, 1, "full")
    fit = paper_em.run(frames, begun, 32, 1e-2, "full")
    assert fit.repairs > 0
    for array in (fit.parameters.start, fit.parameters.transitions, fit.parameters.emission.covariances):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(fit.parameters.transitions.sum(axis=1), 1)
    assert np.linalg.eigvalsh(fit.parameters.emission.covariances).min() > 0


def test_the_preset_from_end_to_end():
    truth = simulate("level", 3, n_runs=10, n_rows=60, seed=3)
    config = hmm.Config(preset="paper", max_states=3, restarts=2, workers=1)
    outcome = infer(truth.trajectories, config)
    result = json.loads(json.dumps(plain(outcome), allow_nan=False))
    assert result["preset"] == "paper" and result["settings"]["preset_values"]["first_rows"] == 1000
    assert [row["over"] for row in result["stability"]] == ["restarts"]
    assert [row["name"] for row in result["baselines"]][:1] == ["ar hmm"]
    model = from_plain(result["model"])
    for run, stored in zip(truth.trajectories.runs, result["states"], strict=True):
        assert model.decode([run.values])[0].tolist() == stored["states"]
    means = np.array(result["model"]["means"])
    for edge in result["edges"]:
        for feature in edge["features"]:
            column = result["metrics"].index(feature["name"])
            np.testing.assert_allclose(feature["change"], (means[edge["to"]] - means[edge["from"]])[column])
    blocks = list(hmm.show(outcome, ()))
    assert "ar hmm" in "\n".join(terminal.lines(blocks))
    (settings,) = [block.text for block in blocks if isinstance(block, Code)]
    assert "preset: paper" in settings and "covars_prior: 0.01" in settings
