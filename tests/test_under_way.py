"""Runs that have not ended: their steps are those of their rows, wherever they are listed, and no summary is older."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from report_fakes import ATTEMPT, make_ensemble, no_drawing, read_page, steps_of

import dynalab
from dynalab.store import runfile, series
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble

# As a worker leaves it until it ends: rows up to 1,500, a checkpoint of 500, 3,000 asked for.
OPEN = {key: value for key, value in ATTEMPT.items() if key not in ("ended", "seconds", "train_seconds")}

Make = Callable[..., Ensemble]


@pytest.fixture
def make(outputs: Path) -> Iterator[Make]:
    """Store an ensemble whose run.json was written before its last rows; `alive` holds its lock."""
    with ExitStack() as stack:

        def make(status: str = "running", alive: bool = True, **changes: Any) -> Ensemble:
            steps = steps_of(1500, 100)
            ensemble = make_ensemble(outputs, n_runs=3, steps=steps, status="done")
            (paths,) = ensemble.paths.shards()
            shard = runfile.read(paths)
            shard.status, shard.steps, shard.requested_steps = status, 500, 3000
            for run in shard.runs:
                run.status, run.steps = status, 500
            shard.attempts.append({**OPEN, "step": 500, "seconds": 5.0})
            runfile.write(paths, dataclasses.replace(shard, **changes))
            if alive:
                stack.enter_context(Lock(paths.lock, beats=False))
            return Ensemble(ensemble.paths)

        yield make


def test_a_run_that_trains_has_the_steps_of_its_rows(
    here: Cli, make: Make, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = make()
    assert [(run.status, run.steps) for run in ensemble.runs] == [("running", 1500)] * 3
    assert [run.steps for run in dynalab.load(ensemble.id).runs] == [1500] * 3
    assert here("runs", "list").out.count("1500/3000") == 3
    assert here("runs", "list", "-e").out.splitlines()[1].split()[-2] == "1500"
    found = here("runs", "list", "-f", "status=running steps>1400", "--json").json["runs"]
    assert [(run["steps"], run["requested_steps"], run["summary"]) for run in found] == [
        (1500, 3000, None)
    ] * 3
    shown = here("runs", "show", "--json").json["ensembles"][0]
    assert {run["steps"] for run in shown["runs"]} == {1500}
    assert shown["shards"][0]["attempts"][-1]["step"] == 1500
    no_drawing(monkeypatch)
    assert here("report", "--name", "x").code == 0
    page = read_page(outputs / "reports" / "x" / "index.html")
    assert "3 running, 1,500 steps" in page.text and "s0000 (step 1,500)" in page.text
    assert [row[3] for row in page.table("run", "seed", "status", "steps")] == ["1,500 of 3,000"] * 3
    # An earlier process ended, and this one has not.
    assert "from 2026-11-22 01:44:37 UTC" in page.text and "01:45:59" not in page.text


@pytest.mark.parametrize("status", ["running", "crashed", "partial", "failed"])
def test_one_that_was_killed_too(make: Make, status: str) -> None:
    ensemble = make(status, alive=False)
    expected = "crashed" if status == "running" else status
    assert [(run.status, run.steps, run.summary) for run in ensemble.runs] == [(expected, 1500, None)] * 3


def test_a_summary_of_fewer_steps_is_none_of_a_run_that_goes_on(outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=2)
    (paths,) = ensemble.paths.shards()
    shard = runfile.read(paths)
    # More steps were asked for, and nothing has begun.
    shard.requested_steps = 900
    shard.settle("partial")
    runfile.write(paths, shard)
    before = StoredEnsemble(ensemble.paths).runs
    assert [(run.steps, (run.summary or {})["final"]["step"]) for run in before] == [(200, 200)] * 2
    shard.attempts.append(OPEN)
    shard.settle("crashed")
    shard.runs[1].status, shard.runs[1].steps = "diverged", 120
    runfile.write(paths, shard)
    one, lost = StoredEnsemble(ensemble.paths).runs
    assert one.summary is None and one.steps == 200
    assert lost.summary is not None and (lost.status, lost.steps) == ("diverged", 120)


def test_steps_between_two_rows_count(outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=2, status="partial")
    (paths,) = ensemble.paths.shards()
    shard = runfile.read(paths)
    for run in shard.runs:
        run.steps = 205
    runfile.write(paths, shard)
    assert [run.steps for run in StoredEnsemble(ensemble.paths).runs] == [205, 205]


def test_the_time_of_a_process_that_has_not_ended_is_that_of_its_last_row(make: Make) -> None:
    ensemble = make()
    (paths,) = ensemble.paths.shards()
    path = paths.series(ensemble.eval_cadence)
    rows = np.array(series.read(path))
    rows["wall"] = 1_795_311_877.0 + 0.1 * rows["step"]
    path.unlink()
    writer = series.SeriesWriter(path, series.metrics_of(rows.dtype), 3)
    writer.append(rows["step"], rows["wall"], {name: rows[name] for name in series.metrics_of(rows.dtype)})
    writer.close()
    assert series.last_row(path) == (1500, pytest.approx(rows["wall"][-1]))
    attempt = StoredEnsemble(ensemble.paths).runs[0].record.attempts[-1]
    assert attempt["step"] == 1500 and attempt["seconds"] == pytest.approx(150.0)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "text", "no rows", "a folder"])
def test_where_no_row_can_be_read_run_json_counts(make: Make, damage: str) -> None:
    ensemble = make()
    (paths,) = ensemble.paths.shards()
    path = paths.series(ensemble.eval_cadence)
    header = path.read_bytes()[: path.read_bytes().index(b"\n") + 1]
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(
            {"empty": b"", "cut off": header[:80], "text": b"x" * 500, "no rows": header}[damage]
        )
    assert [run.steps for run in StoredEnsemble(ensemble.paths).runs] == [500] * 3


def test_rows_are_not_counted_beyond_what_was_asked(make: Make) -> None:
    assert [run.steps for run in make(requested_steps=1200).runs] == [1200] * 3


def test_of_runs_that_ended_no_series_is_opened(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    monkeypatch.setattr(ShardPaths, "cadences", lambda self: pytest.fail("a series was looked for"))
    assert [run.steps for run in StoredEnsemble(ensemble.paths).runs] == [200] * 4


def test_what_is_stored_stays_as_it_is(make: Make, here: Cli) -> None:
    ensemble = make(alive=False)
    (paths,) = ensemble.paths.shards()
    before = paths.run.read_bytes()
    assert here("runs", "list").code == 0
    assert paths.run.read_bytes() == before and json.loads(before)["runs"][0]["summary"] is not None
