"""The whole analysis: simulated truth, reproducibility, hostile input, and the result's words."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hmm_simulate import simulate
from sklearn.metrics import adjusted_rand_score

from dynalab.analysis import hmm
from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.features import extract, fit_scaler
from dynalab.analysis.hmm.model import from_plain
from dynalab.analysis.hmm.outcome import infer
from dynalab.analysis.hmm.tasks import Task, solve
from dynalab.core.records import plain, tables
from dynalab.errors import ConfigError, DynalabError
from dynalab.show import terminal
from dynalab.show.blocks import Say

BARE = {"workers": 1, "stability": False, "baselines": False}
QUICK = {"restarts": 4, "folds": 3, "max_states": 5, **BARE}


def agreement(simulated, result):
    decoded = np.concatenate([one["states"] for one in result["states"]])
    return adjusted_rand_score(np.concatenate(simulated.states), decoded)


@pytest.mark.parametrize(
    ("kind", "n_states", "seed"), [("level", 3, 0), ("level", 3, 1), ("ar", 3, 0), ("ar", 3, 1)]
)
def test_recovers_the_simulated_states(kind, n_states, seed):
    truth = simulate(kind, n_states, n_runs=20, n_rows=100, seed=seed)
    outcome = infer(truth.trajectories, hmm.Config(emission=kind, **QUICK))
    assert plain(outcome)["n_states"] == n_states
    assert agreement(truth, plain(outcome)) > 0.9
    assert plain(outcome)["paths"][0]["states"] == [0, 1, 2]


def test_autoregression_separates_levels_too():
    truth = simulate("level", 5, n_runs=12, n_rows=120, seed=0)
    config = hmm.Config(emission="ar", **{**QUICK, "n_states": 5})
    result = plain(infer(truth.trajectories, config))
    assert agreement(truth, result) > 0.9
    assert [row["n_states"] for row in result["selection"]] == [5]


def test_ragged_runs_on_different_grids_with_a_detour():
    truth = simulate("level", 4, n_runs=10, n_rows=100, seed=3, detour=2, share=0.4, ragged=True)
    runs = list(truth.trajectories.runs)
    runs[0] = replace(runs[0], steps=runs[0].steps * 2)
    ensemble = replace(truth.trajectories, runs=tuple(runs))
    outcome = infer(ensemble, hmm.Config(emission="level", **QUICK))
    assert plain(outcome)["n_states"] == 4 and agreement(truth, plain(outcome)) > 0.9
    visits = sum((s == 2).any() for s in truth.states)
    assert sorted(p["runs"] for p in plain(outcome)["paths"]) == sorted([visits, 10 - visits])


def test_result_does_not_depend_on_workers_and_repeats():
    truth = simulate("ar", 2, n_runs=4, n_rows=30, seed=4)
    config = hmm.Config(
        restarts=2, folds=2, max_states=2, n_iter=8, workers=1, metrics=["l2", "mean_w", "trace"]
    )
    first, again, two = (plain(infer(truth.trajectories, replace(config, workers=w))) for w in (1, 1, 2))
    assert json.dumps(first) == json.dumps(again)
    assert json.dumps(first) == json.dumps(two)
    other = plain(infer(truth.trajectories, replace(config, seed=1)))
    assert json.dumps(first) != json.dumps(other)


def test_folds_learn_nothing_from_the_runs_they_hold_out():
    truth = simulate("ar", 2, n_runs=4, n_rows=40, seed=5)
    config = hmm.Config(emission="ar", restarts=2, **BARE)
    features = extract(truth.trajectories, config)
    fold = np.array([0, 0, 1, 1])
    moved = [x if f == 1 else x * 3 + 7 for x, f in zip(features.values, fold, strict=True)]
    ours = solve(Task(2, 0), features.values, features.steps, fold, config)
    theirs = solve(Task(2, 0), moved, features.steps, fold, config)
    for name in ("weights", "covariances", "first_mean"):
        np.testing.assert_array_equal(
            getattr(ours.fit.parameters.emission, name), getattr(theirs.fit.parameters.emission, name)
        )


def test_emission_auto_takes_what_says_more_of_unseen_runs():
    for kind in ("level", "ar"):
        truth = simulate(kind, 2, n_runs=6, n_rows=60, seed=2)
        config = hmm.Config(folds=2, restarts=2, max_states=2, **BARE)
        result = plain(infer(truth.trajectories, config))
        assert config.emission == "auto" and result["emission"] == kind
        scores = {row["emission"]: row["heldout_ll_per_frame"] for row in result["emissions"]}
        assert max(scores, key=scores.__getitem__) == kind
        best = max(row["heldout_ll_per_frame"] for row in result["selection"])
        assert scores[kind] == best
    one = type(truth.trajectories)("e", truth.trajectories.metrics, truth.trajectories.runs[:1])
    assert plain(infer(one, config))["emission"] == "ar"


def test_result_keys_tables_and_convergence():
    truth = simulate("level", 2, n_runs=4, n_rows=30, seed=6)
    runs = tuple(
        replace(r, values=np.column_stack([r.values, np.linspace(0, 1 - 0.4 * (i == 3), len(r.steps))]))
        for i, r in enumerate(truth.trajectories.runs)
    )
    ensemble = Trajectories(
        "e",
        (*truth.trajectories.metrics, "test_accuracy"),
        runs,
        Convergence("test_accuracy", 0.9),
        ("1 run left out: diverged",),
    )
    outcome = infer(ensemble, hmm.Config(emission="level", max_states=3, **BARE))
    result = json.loads(json.dumps(plain(outcome), allow_nan=False))
    contract = {
        "n_states",
        "selection",
        "state_order",
        "states",
        "transitions",
        "edges",
        "paths",
        "convergence",
    }
    assert contract <= set(result)
    assert all(result[key] is None for key in ("stability", "baselines")), "null: not computed"
    assert next(terminal.lines(hmm.show(outcome, ()))).startswith("Hidden Markov model of 4 runs")
    keys = {"n_states", "heldout_ll_per_frame", "se", "behind_best", "behind_se", "bic", "converged"}
    assert keys == set(result["selection"][0])
    assert [one["censored"] for one in result["convergence"]] == [False, False, False, True]
    assert outcome.warnings[0] == "1 run left out: diverged"
    assert any("each run is held out alone" in line for line in outcome.warnings)
    assert set(tables(outcome)) == {"states", "selection", "transitions", "edges", "convergence"}
    states = tables(outcome)["states"]
    assert list(states.columns) == ["run", "step", "state"] and len(states) == 120
    assert tables(outcome)["convergence"]["step"].isna().tolist() == [False, False, False, True]
    np.testing.assert_allclose(np.sum(result["transitions"]["probabilities"], axis=1), 1)
    assert np.sum(result["transitions"]["counts"]) == 4 * 29
    for run, stored in zip(runs, result["states"], strict=True):
        assert stored["run"] == run.run and stored["steps"] == run.steps.tolist()
    # Canonical: states are numbered by first entry.
    entries = [p["mean_first_step"] for p in result["state_profiles"]]
    assert entries == sorted(entries)
    # The stored model decodes to the stored states.
    model = from_plain(result["model"])
    features = extract(ensemble, hmm.Config(emission="level"))
    for path, stored in zip(model.decode(features.values), result["states"], strict=True):
        assert path.tolist() == stored["states"]


def test_bic_and_log_likelihood_by_formula():
    truth = simulate("level", 2, n_runs=3, n_rows=30, seed=7)
    config = hmm.Config(emission="level", n_states=2, **BARE, metrics=["mean_w", "median_w"])
    result = plain(infer(truth.trajectories, config))
    count = 1 + 2 + 2 * 2 + 2 * 3
    expected = -2 * result["log_likelihood"] + count * np.log(90)
    np.testing.assert_allclose(result["selection"][0]["bic"], expected)
    z = fit_scaler([r.values[:, 3:5] for r in truth.trajectories.runs])
    assert result["model"]["features"][0]["mean"] == z.mean[0]


def walk(rows, size, seed=0):
    return np.random.default_rng([seed, rows, size]).normal(size=(rows, size)).cumsum(axis=0)


def hostile():
    outlier = [walk(40, 3, i) for i in range(4)]
    outlier[2][7, 1] = 1e6
    huge_outlier = [walk(40, 3, i) for i in range(4)]
    huge_outlier[0][7, 1] = 1e300
    alternating = np.column_stack([np.arange(40) % 2, np.arange(40) // 20]).astype(float)
    rng = np.random.default_rng(1)
    return {
        "constant column": [np.column_stack([walk(30, 2, i), np.ones(30)]) for i in range(3)],
        "duplicated columns": [np.repeat(walk(30, 2, i), 2, axis=1) for i in range(3)],
        "all constant": [np.ones((20, 2)) for _ in range(3)],
        "fewer rows than states": [walk(3, 2, i) for i in range(3)],
        "one run": [walk(60, 3)],
        "one short run": [walk(2, 3)],
        "one frame": [walk(1, 3)],
        "one frame a run": [walk(1, 3, i) for i in range(5)],
        "mixed lengths": [walk(n, 3) for n in (1, 2, 40, 3)],
        "huge": [walk(30, 3, i) * 1e300 for i in range(3)],
        "scales apart": [walk(30, 3, i) * [1e200, 1, 1e-200] for i in range(3)],
        "outlier": outlier,
        "huge outlier": huge_outlier,
        "steps and levels": [alternating.copy() for _ in range(3)],
        "identical runs": [walk(30, 3)] * 3,
        "fewer rows than columns": [walk(6, 12, i) for i in range(3)],
        "only one run moves": [np.ones((30, 2)), np.ones((30, 2)), walk(30, 2)],
        "exact mixtures": [walk(30, 2, i) @ rng.normal(size=(2, 6)) for i in range(3)],
        "big offset": [1e8 + 1e-2 * walk(30, 2, i) for i in range(3)],
    }


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("name", list(hostile()))
def test_hostile_input_ends_in_a_result_or_one_line(name, emission):
    runs = hostile()[name]
    metrics = tuple("abcdefghijkl"[: runs[0].shape[1]])
    ensemble = Trajectories(
        "e", metrics, tuple(Trajectory(f"e/{i}", np.arange(len(x)), x) for i, x in enumerate(runs))
    )
    config = hmm.Config(
        metrics=list(metrics), emission=emission, max_states=3, restarts=2, folds=2, n_iter=25, **BARE
    )
    try:
        outcome = infer(ensemble, config)
    except DynalabError as error:
        assert "\n" not in str(error)
        assert name in ("all constant", "one frame", "one frame a run")
    else:
        json.dumps(plain(outcome), allow_nan=False)
        assert not any("objective fell" in line for line in outcome.warnings)
        if len(runs) == 1:
            assert any("BIC" in line for line in outcome.warnings)


def test_more_states_than_the_data_have():
    truth = simulate("level", 2, n_runs=2, n_rows=10, seed=8)
    outcome = infer(truth.trajectories, hmm.Config(emission="level", n_states=15, restarts=2, **BARE))
    json.dumps(plain(outcome), allow_nan=False)
    visited = {s for one in plain(outcome)["states"] for s in one["states"]}
    # Visited states come first.
    assert visited == set(range(len(visited)))
    if len(visited) < 15:
        assert any("no run visits" in line for line in outcome.warnings)


def test_largest_number_of_states_warns():
    truth = simulate("level", 3, n_runs=6, n_rows=60, seed=9)
    outcome = infer(truth.trajectories, hmm.Config(emission="level", **{**QUICK, "max_states": 2}))
    assert any("raise max_states" in line for line in outcome.warnings)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"emission": "levels"}, "emission=levels.*ar or level.*did you mean level"),
        ({"covariance": "banded"}, "covariance=banded.*full, tied, diag or lowrank"),
        ({"preset": "paper", "emission": "ar"}, "emission=ar.*preset=paper"),
        ({"preset": "paper", "sticky": 1.0}, "sticky.*preset=paper"),
        ({"n_iter": 0}, "n_iter=0.*at least 1"),
        ({"preset": "papers"}, "preset=papers.*did you mean paper"),
        ({"n_states": 0}, "n_states=0.*at least 1"),
        ({"folds": 1}, "folds=1.*at least 2"),
        ({"workers": 0}, "workers=0"),
        ({"tol": 0.0}, "tol=0"),
        ({"common": -1.0}, "common=-1.*at least 0"),
        ({"metrics": []}, "metrics"),
    ],
)
def test_keys_that_cannot_be_meant(keys, words):
    with pytest.raises(ConfigError, match=words):
        hmm.Config(**keys)


def test_importing_the_package_is_cheap_and_analysing_imports_no_torch(tmp_path):
    code = (
        "import sys, dynalab.analysis.hmm as h; h.Config(); "
        "print([m for m in ('hmmlearn', 'pandas', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_workers_from_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        f"import sys; sys.path.append({str(Path(__file__).parent)!r})\n"
        "from dynalab.analysis import hmm\n"
        "from dynalab.analysis.hmm.outcome import infer\n"
        "from hmm_simulate import simulate\n"
        "t = simulate('level', 2, n_runs=3, n_rows=20).trajectories\n"
        "found = infer(t, hmm.Config(max_states=2, restarts=2, baselines=False, workers=2))\n"
        "print(found.n_states, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False" and done.stderr == ""


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_missing_cells_make_no_state_of_their_own(share):
    """One more of 3% to 6% of the rows was found right after the gaps while these rows were one unit of time."""
    truth, rng = simulate("ar", 2, 8, 60, seed=3).trajectories, np.random.default_rng(3)
    runs = tuple(
        replace(run, values=np.where(rng.uniform(size=run.values.shape) < share, np.nan, run.values))
        for run in truth.runs
    )
    config = Config(
        metrics=["l1", "mean_w", "trace"],
        max_states=4,
        restarts=2,
        baselines=False,
        stability=False,
        workers=1,
    )
    found = infer(replace(truth, runs=runs), config)
    assert found.n_states == 2 and len(found.paths) == 1, "as without"
    seen = [truth.metrics.index(name) for name in found.metrics]
    missing = sum(int(np.isnan(run.values[:, seen]).any(axis=1).sum()) for run in runs)
    said = " ".join(block.text for block in hmm.show(found, ()) if isinstance(block, Say))
    # Rows without values at a run's ends are left out.
    assert 0 < found.missing_rows <= missing
    assert f"{480 - missing:,} rows (and {found.missing_rows} missing between them)" in said
