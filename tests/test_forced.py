"""Rows of single runs, those that spikes force: one series a shard, through recording, splitting and reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save
from test_linear import store

from dynalab.errors import StoreError
from dynalab.store import checkpoint, runfile, series
from dynalab.store.carve import branch, split
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.names import FORCED, forced_cadence
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.series import Mark, SeriesWriter
from dynalab.store.table import refresh
from dynalab.training.recorder import Recorder

# Step, place of the run and value of some rows; the checkpoint of step 20 vouches for the first three.
ROWS = [(10, 0, 1.0), (10, 2, 2.0), (20, 1, 3.0), (30, 0, 4.0), (30, 2, 5.0)]


def recorded(paths: ShardPaths, n_runs: int, diverged: list[int]) -> dict[str, Mark]:
    """Record `ROWS` beside a regular grid; return the marks of step 20."""
    recorder, bad = Recorder(paths, n_runs, {}), torch.tensor(diverged)
    marks: dict[str, Mark] = {}
    for step in (0, 10, 20, 30, 40):
        recorder.add("every-10", step, {"train_loss": torch.full((n_runs,), float(step))})
        for at, place, value in ROWS:
            if at == step:
                recorder.add_forced(step, place, {"sharpness": torch.tensor(value), "edge": torch.ones(())})
        recorder.flush(bad)
        marks = recorder.sync() if step == 20 else marks
    recorder.close()
    return marks


def begun(tmp_path: Path) -> tuple[EnsemblePaths, ShardPaths]:
    """A shard of three runs that was cut off at step 20, with rows beyond its checkpoint."""
    store(tmp_path, 1, 3)
    (root,) = tmp_path.glob("grokking/*")
    paths = EnsemblePaths(root)
    (shard,) = paths.shards()
    for file in shard.series_folder.iterdir():
        file.unlink()
    marks = recorded(shard, 3, [-1, -1, -1])
    tensors = save({"w": np.arange(3.0)})
    checkpoint.save_bytes(shard, CheckpointState(20, marks), tensors, tensors)
    record = runfile.read(shard)
    record.settle("partial")
    record.steps, record.marks = 20, {name: [mark.rows, mark.crc] for name, mark in marks.items()}
    runfile.write(shard, record)
    return paths, shard


def values(ensemble: Ensemble) -> dict[str, list[tuple[int, float]]]:
    rows = {run.label: ensemble.forced_rows(run) for run in ensemble.runs}
    return {
        label: list(zip(own["step"].tolist(), own["sharpness"].tolist(), strict=True))
        for label, own in rows.items()
        if len(own)
    }


def test_a_shard_has_one_series_with_a_value_a_row(tmp_path):
    paths = ShardPaths(tmp_path)
    recorded(paths, 3, [30, -1, -1])
    assert sorted(path.stem for path in paths.series_folder.iterdir()) == ["every-10", FORCED]
    rows = series.read(paths.series(FORCED))
    assert rows.dtype.names == ("step", "wall", "run", "sharpness", "edge") and rows["sharpness"].shape == (
        5,
    )
    assert rows[["step", "run"]].tolist() == [(step, place) for step, place, _ in ROWS]
    # From its divergence on, a run's values mean nothing.
    np.testing.assert_array_equal(rows["sharpness"], [1, 2, 3, np.nan, 5])


@pytest.mark.parametrize("order", [[(10, 1), (10, 0)], [(10, 1), (10, 1)], [(20, 0), (10, 1)]])
def test_rows_out_of_order_are_damage(tmp_path, order):
    writer = SeriesWriter(tmp_path / "forced.npy", ["a"], None)
    steps, runs = np.array(order).T
    writer.append(steps, steps * 0.0, {"run": runs, "a": steps})
    writer.close()
    with pytest.raises(StoreError, match="do not ascend"):
        series.read(tmp_path / "forced.npy")


def test_parts_and_forks_take_the_rows_of_their_runs(tmp_path):
    ensemble, shard = begun(tmp_path)
    fork = EnsemblePaths(tmp_path / "grokking" / "fork-0123456789")
    fork.root.mkdir()
    branch([Ensemble(ensemble).runs[2]], 20, fork, 40, {"s0002": {"init": 2}})
    (other,) = fork.shards()
    assert series.read(other.series(FORCED))[["step", "run", "sharpness"]].tolist() == [(10, 0, 2.0)]
    assert checkpoint.newest_whole(other)[0] is not None

    first, second = split(shard, 2)
    assert series.read(first.series(FORCED))["sharpness"].tolist() == [1.0, 4.0]
    assert series.read(second.series(FORCED))[["step", "run", "sharpness"]].tolist() == [
        (10, 1, 2.0),
        (20, 0, 3.0),
        (30, 1, 5.0),
    ]
    rows = []
    for part in (first, second):
        found, state, warnings = checkpoint.newest_whole(part)
        assert found is not None and state is not None and not warnings
        rows.append(state.marks[FORCED].rows)
    assert rows == [1, 2]
    found = values(Ensemble(ensemble))
    assert found == {"s0000": [(10, 1), (30, 4)], "s0001": [(20, 3)], "s0002": [(10, 2), (30, 5)]}


def as_before(shard: ShardPaths) -> None:
    """Store the forced rows as they once were, a series a run with a column of every run."""
    rows, record = series.read(shard.series(FORCED)), runfile.read(shard)
    found, state, _ = checkpoint.newest_whole(shard)
    marks = {name: mark for name, mark in state.marks.items() if name != FORCED}
    for place, run in enumerate(record.runs):
        own = rows[rows["run"] == place]
        name = forced_cadence(run.label)
        writer = SeriesWriter(shard.series(name), ["sharpness", "edge"], 3)
        for row in own:
            columns = {metric: np.full((1, 3), np.nan) for metric in ("sharpness", "edge")}
            for metric, column in columns.items():
                column[0, place] = row[metric]
            writer.append(row["step"][None], row["wall"][None], columns)
            if row["step"] <= 20:
                marks[name] = writer.sync()
        writer.close()
    shard.series(FORCED).unlink()
    tensors = found.model.read_bytes()
    checkpoint.save_bytes(shard, CheckpointState(20, marks), tensors, tensors)
    record.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
    runfile.write(shard, record)


def test_series_of_before_are_read_and_gone_on_from(tmp_path):
    ensemble, shard = begun(tmp_path)
    now = values(Ensemble(ensemble))
    as_before(shard)
    assert values(Ensemble(ensemble)) == now
    assert Ensemble(ensemble).cadences() == ["every-10"]
    # Training goes on from the checkpoint: what it does not vouch for goes, and new rows come in the one series.
    _, state, _ = checkpoint.newest_whole(shard)
    recorder = Recorder(shard, 3, state.marks)
    assert values(Ensemble(ensemble)) == {"s0000": [(10, 1)], "s0001": [(20, 3)], "s0002": [(10, 2)]}
    for step, place, value in ROWS[3:]:
        recorder.add_forced(step, place, {"sharpness": torch.tensor(value), "edge": torch.ones(())})
    recorder.flush(torch.full((3,), -1))
    recorder.close()
    again = Ensemble(ensemble)
    assert values(again) == now
    refresh(ensemble)
    table = pd.read_parquet(ensemble.metrics(FORCED))
    assert table[["run", "step", "sharpness"]].to_numpy().tolist() == [
        [f"{again.id}/{label}", step, value] for label, rows in now.items() for step, value in rows
    ]
    assert table["seed"].tolist() == [0, 0, 1, 2, 2]
