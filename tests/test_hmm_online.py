"""Runs under a stored model: filtering against the sum over all paths, no look-ahead, and which runs enter."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_fakes import make_ensemble, steps_of, training
from scipy.special import logsumexp
from test_hmm_inference import frame_log_density, random_model
from test_import import table

import dynalab
from dynalab.analysis.hmm import Config
from dynalab.analysis.hmm.model import from_plain, to_plain
from dynalab.analysis.hmm.online import decode, filter_runs
from dynalab.cli.app import run as command
from dynalab.config.keys import Stored
from dynalab.errors import ConfigError, NothingMatched
from dynalab.store import runfile
from dynalab.store.lock import Lock

QUICK = {"n_states": 3, "restarts": 2, "workers": 1, "stability": False, "baselines": False}


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize(("n_states", "length"), [(1, 1), (2, 6), (3, 6)])
def test_filtering_is_the_sum_over_all_paths(emission, n_states, length):
    rng = np.random.default_rng([7, n_states, length])
    plain = json.loads(json.dumps(to_plain(random_model(emission, n_states, 2, rng))))
    model = from_plain(plain)
    x = rng.normal(size=(length, 2))
    (found,) = filter_runs(model, [x])
    scale = [(feature["mean"], feature["sd"]) for feature in plain["features"]]
    z = np.column_stack([(x[:, i] - mean) / sd for i, (mean, sd) in enumerate(scale)])
    logs = np.array([[frame_log_density(plain, z, t, k) for k in range(n_states)] for t in range(length)])
    before = 0.0
    with np.errstate(divide="ignore"):
        start, moves = np.log(plain["start"]), np.log(plain["transitions"])
    for t in range(length):
        joint = np.full(n_states, -np.inf)
        for path in itertools.product(range(n_states), repeat=t + 1):
            total = start[path[0]] + sum(logs[i, k] for i, k in enumerate(path))
            total += sum(moves[a, b] for a, b in itertools.pairwise(path))
            joint[path[-1]] = np.logaddexp(joint[path[-1]], total)
        evidence = logsumexp(joint)
        np.testing.assert_allclose(found.posterior[t], np.exp(joint - evidence), atol=1e-12)
        np.testing.assert_allclose(found.predictive[t], evidence - before, rtol=1e-10)
        before = evidence
    assert found.states.tolist() == found.posterior.argmax(axis=1).tolist()


@pytest.fixture
def fitted(outputs):
    ensemble = dynalab.import_runs(table(6), "old", run="run", step="step")
    return dynalab.analyze("hmm", ensemble, **QUICK)


def test_nothing_looks_ahead(fitted, outputs):
    new = table(3, seed=5)
    whole = dynalab.import_runs(new, "whole", run="run", step="step")
    part = dynalab.import_runs(new[new["step"] <= 60], "part", run="run", step="step")
    long, short = (dynalab.analyze("hmm", one, decode_with=fitted.id) for one in (whole, part))
    steps = dynalab.analyze("hmm", whole, decode_with=f"hmm-{fitted.id[:6]}", steps=60)
    for a, b, c in zip(long["states"], short["states"], steps["states"], strict=True):
        rows = len(b["steps"])
        assert rows < len(a["steps"]) and b["steps"] == a["steps"][:rows] == c["steps"]
        # Nothing that comes later changes what was said before (but for rounding in longer matrix products).
        np.testing.assert_allclose(b["posterior"], a["posterior"][:rows], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(b["posterior"], c["posterior"], rtol=1e-9, atol=1e-12)
        assert b["held_out"] and np.allclose(np.sum(b["posterior"], axis=1), 1)
    assert long["config"]["decode_with"] == f"hmm-{fitted.id}" and long["decoded_with"] == fitted.id
    # The normalisation is the model's: a shifted run is far from all states, not recentred.
    shifted = dynalab.import_runs(new.assign(scale=new["scale"] + 50), "far", run="run", step="step")
    far = dynalab.analyze("hmm", shifted, decode_with=fitted.id)
    assert far["heldout_ll_per_frame"] < long["heldout_ll_per_frame"] - 10
    assert "3 of 3 runs do what the model has not seen" in " ".join(far.warnings)
    assert "has not seen" not in " ".join(long.warnings)
    # What the states are, and what tells them apart, is told as on the model's own page.
    assert far["state_profiles"] == fitted["state_profiles"]
    told = {(edge["from"], edge["to"]): edge["features"] for edge in fitted["edges"]}
    again = {(edge["from"], edge["to"]): edge["features"] for edge in long["edges"]}
    assert told.keys() & again.keys()
    assert all(again[way] == told[way] for way in told.keys() & again.keys())


def test_result_tables_and_likelihood(fitted, outputs):
    fresh = dynalab.import_runs(table(3, seed=5), "new", run="run", step="step")
    result = dynalab.analyze("hmm", fresh, decode_with=fitted.id)
    frame = result.table("states")
    assert list(frame.columns) == [
        "run",
        "step",
        "state",
        "log_predictive",
        *(f"posterior_{k}" for k in range(3)),
    ]
    per_run = frame.groupby("run")["log_predictive"].mean()
    assert per_run.tolist() == pytest.approx([item["ll_per_frame"] for item in result["states"]], rel=1e-12)
    assert result["heldout_ll_per_frame"] == pytest.approx(per_run.mean())
    assert result["model_heldout_ll_per_frame"] == fitted["selection"][0]["heldout_ll_per_frame"]
    # Unseen runs of the same kind are as likely as the held-out ones were.
    assert abs(result["heldout_ll_per_frame"] - result["model_heldout_ll_per_frame"]) < 3
    # The model's own runs: the filtering path ends where Viterbi's does, and the likelihood is not called held out.
    own = dynalab.analyze("hmm", "old", decode_with=fitted.id)
    assert own["heldout_ll_per_frame"] is None and "took part in the fit" in " ".join(own.warnings)
    frames = sum(len(item["steps"]) for item in own["states"])
    total = sum(item["ll_per_frame"] * len(item["steps"]) for item in own["states"])
    assert total == pytest.approx(fitted["log_likelihood"], rel=1e-9) and frames == len(own.table("states"))


def two_cadences(seed: int) -> pd.DataFrame:
    """Runs with a change of dynamics half-way, whose metric b is recorded at every second row of a."""
    rng, rows = np.random.default_rng(seed), []
    for run in range(4):
        a = b = 0.0
        for t in range(121):
            late = t > 60
            a, b = (
                0.9 * a + 0.3 * late + 0.1 * rng.normal(),
                0.9 * b + (-0.2 if late else 0.05) + 0.1 * rng.normal(),
            )
            rows.append({"run": f"r{run}", "step": 10 * t, "a": a, "b": np.nan if t % 2 else b})
    return pd.DataFrame(rows)


def test_rows_of_a_second_cadence_are_not_missing(outputs):
    old = dynalab.import_runs(two_cadences(0), "slow", run="run", step="step")
    fit = dynalab.analyze("hmm", old, **QUICK | {"n_states": 2}, metrics=["a", "b"])
    own = dynalab.analyze("hmm", old, decode_with=fit.id)
    assert fit["missing_rows"] == own["missing_rows"] == 0
    for there, here in zip(fit["states"], own["states"], strict=True):
        assert there["steps"] == here["steps"] == list(range(0, 1201, 20))
        # Filtering sees a change a row or two later than Viterbi's path, and nothing else.
        assert np.mean(np.array(there["states"]) == np.array(here["states"])) > 0.9
        assert set(here["states"]) == {0, 1}
    new = two_cadences(1)
    whole = dynalab.import_runs(new, "whole", run="run", step="step")
    part = dynalab.import_runs(new[new["step"] <= 600], "part", run="run", step="step")
    long, short = (dynalab.analyze("hmm", one, decode_with=fit.id) for one in (whole, part))
    for a, b in zip(long["states"], short["states"], strict=True):
        assert b["steps"] == a["steps"][:31] and b["states"] == a["states"][:31]


def test_what_comes_later_does_not_say_which_rows_before_are_missing(fitted, outputs):
    new = table(2, seed=5)
    # Every second row is whole from the fifth on: over all of them most lack one between.
    place = new["step"] // 5
    new.loc[(place == 3) | (place > 5) & (place % 2 == 0), "loss"] = np.nan
    whole = dynalab.import_runs(new, "whole", run="run", step="step")
    kept = [
        dynalab.analyze("hmm", whole, decode_with=fitted.id, steps=n)["states"] for n in (25, 35, 80, 120)
    ]
    assert kept[-1][0]["steps"][:9] == [0, 5, 10, 15, 20, 25, 30, 35, 45]
    for some in kept:
        for a, b in zip(some, kept[-1], strict=True):
            rows = len(a["steps"])
            assert a["steps"] == b["steps"][:rows]
            np.testing.assert_allclose(a["posterior"], b["posterior"][:rows], rtol=1e-9, atol=1e-12)


def test_the_model_is_whole_in_json(fitted):
    stored = json.loads(fitted.paths.result.read_text())["model"]
    k, m = 3, len(stored["features"])
    assert {key: np.shape(stored[key]) for key in ("A", "b", "covariances", "transitions", "start")} == {
        "A": (k, m, m), "b": (k, m), "covariances": (k, m, m), "transitions": (k, k), "start": (k,),
    }  # fmt: skip
    assert {tuple(item) for item in stored["features"]} == {("name", "log", "mean", "sd")}
    assert np.shape(stored["first"]["covariance"]) == (m, m) and not list(fitted.paths.root.glob("*.pkl"))


@pytest.mark.parametrize("status", ["partial", "running"])
def test_runs_still_training(outputs: Path, capsys, status):
    old = make_ensemble(outputs, n_runs=6)
    keys = {"metrics": ["l2", "test_accuracy", "train_loss"], **QUICK, "n_states": 2}
    fit = dynalab.analyze("hmm", old, **keys)
    steps = steps_of(120)
    half = make_ensemble(
        outputs, n_runs=3, steps=steps, values=training(3, steps, 9), status=status,
        overrides=["task=grokking", "optimizer.lr=0.01"], slug="half",
    )  # fmt: skip
    locks = [Lock(shard.lock) for shard in half.paths.shards()] if status == "running" else []
    for lock in locks:
        lock.__enter__()
    assert {run.status for run in half.runs} == {status}
    with pytest.raises(NothingMatched, match=status):
        dynalab.analyze("hmm", half, **keys)
    assert command(["analyze", "hmm", half.id, f"decode_with=hmm-{fit.id[:5]}", "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)["analyses"]
    assert [item["steps"][-1] for item in first["states"]] == [120] * 3
    assert first["inputs"][0]["steps"] == 120
    # The landmark is not reached yet, which is censoring and not lateness.
    assert {item["censored"] for item in first["convergence"]} <= {True, False}
    for lock in locks:
        lock.__exit__(None, None, None)
    # More rows: another result.
    (shard,) = half.paths.shards()
    record = runfile.read(shard)
    record.settle("done")
    record.steps = 130
    for run in record.runs:
        run.steps = 130
    runfile.write(shard, record)
    assert command(["analyze", "hmm", half.id, f"decode_with={fit.id}"]) == 0
    said = capsys.readouterr()
    assert f"with the states of hmm-{fit.id}" in said.out and first["id"] not in said.out
    # Newer ones that were decoded hold no model.
    again = dynalab.analyze("hmm", half, decode_with="@last")
    assert again.data["config"]["decode_with"] == f"hmm-{fit.id}"


def test_a_model_that_looks_ahead_is_refused(fitted):
    ahead = replace(fitted.value, model={**fitted.value.model, "normalisation": "per run"})
    with pytest.raises(ConfigError, match="looks ahead"):
        decode(dynalab.load("old").trajectories(), Config(decode_with=Stored.of("hmm-x", ahead)))
    with pytest.raises(ConfigError, match="decode_with=x: the stored analysis is not at hand"):
        decode(dynalab.load("old").trajectories(), Config(decode_with="x"))


@pytest.mark.usefixtures("undrawn")
def test_refusals(fitted, outputs, capsys):
    with pytest.raises(ConfigError, match="n_states=2: nothing is fitted"):
        dynalab.analyze("hmm", "old", decode_with=fitted.id, n_states=2)
    with pytest.raises(NothingMatched, match="no stored analysis"):
        dynalab.analyze("hmm", "old", decode_with="ffffffffff")
    decoded = dynalab.analyze("hmm", "old", decode_with=fitted.id)
    with pytest.raises(ConfigError, match="holds no model"):
        dynalab.analyze("hmm", "old", decode_with=decoded.id)
    other = dynalab.import_runs(table().drop(columns="scale"), "other", run="run", step="step")
    with pytest.raises(NothingMatched, match="scale"):
        dynalab.analyze("hmm", other, decode_with=fitted.id)
    sparse = dynalab.import_runs(table().query("step % 10 == 0"), "sparse", run="run", step="step")
    assert "10 steps apart" in " ".join(dynalab.analyze("hmm", sparse, decode_with=fitted.id).warnings)
    gaps = table(seed=3)
    gaps.loc[gaps.index[[3, 4]], "loss"] = np.nan
    lost = dynalab.analyze(
        "hmm", dynalab.import_runs(gaps, "gaps", run="run", step="step"), decode_with=fitted.id
    )
    assert "2 of" in " ".join(lost.warnings) and len(lost["states"][0]["steps"]) == 30
    # A fit is shown beside what was decoded with it, neither hides the other.
    assert command(["report", "old", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["analyses"]
    assert sorted(item["id"] for item in shown) == sorted([fitted.id, decoded.id])
