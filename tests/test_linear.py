"""What commands cost as an ensemble grows: so many looks at the disk a shard, whatever the number of its seeds."""

from __future__ import annotations

import collections
import io
import os
from pathlib import Path

import numpy as np
import pytest

from dynalab.analysis.command import gather as gather_inputs
from dynalab.cli.app import run
from dynalab.config.analysis import read_analysis
from dynalab.config.command import read_command
from dynalab.errors import StoreError
from dynalab.launch.layout import lay_out
from dynalab.report.gather import gather
from dynalab.store import runfile, series
from dynalab.store.find import select
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.training.planner import Plan

WORDS = ["task=grokking", "task.modulus=11", "model.width=8", "train.steps=40", "eval.every=10"]
WORDS += ["probe.weights.every=20", "launcher=inline"]
GRIDS = {"every-10": ["train_loss", "test_accuracy"], "every-20": ["l2", "lambda_max", "last_layer_norm"]}


def store(outputs: Path, n_shards: int, width: int) -> list[str]:
    """Make an ensemble as training leaves it, without training; return the command's words."""
    words = [*WORDS, f"seed=0..{n_shards * width - 1}"]
    (request,) = read_command(words, outputs=str(outputs)).requests
    plan = Plan(1, 1, (width,) * n_shards, "as is")
    for paths in lay_out(OutputPaths(outputs), request, lambda _: plan).work:
        shard = runfile.read(paths)
        for cadence, names in GRIDS.items():
            steps = np.arange(0, 41, int(cadence[6:]))
            writer = series.SeriesWriter(paths.series(cadence), names, width)
            writer.append(steps, steps * 0.0, {name: np.ones((len(steps), width)) for name in names})
            mark = writer.sync()
            writer.close()
            shard.marks[cadence] = [mark.rows, mark.crc]
        shard.settle("done")
        shard.steps = 40
        for member in shard.runs:
            member.steps, member.summary = 40, {"final": None}
        runfile.write(paths, shard)
    return words


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Counts what is asked of the file system about the test's folder."""
    counted: collections.Counter[str] = collections.Counter()

    def counting(module: object, name: str) -> None:
        real = getattr(module, name)

        def asked(path: object, *args: object, **keys: object) -> object:
            counted[name] += str(path).startswith(str(tmp_path))
            return real(path, *args, **keys)

        monkeypatch.setattr(module, name, asked)

    for name in ("stat", "scandir", "listdir", "open"):
        counting(os, name)
    counting(io, "open")
    return counted


def commands(outputs: Path, words: list[str]) -> dict[str, object]:
    def opened() -> Ensemble:
        return select(outputs, ["@all"], None, Ensemble)[0][0]

    def inputs(kind: str) -> None:
        part, config = read_analysis(kind, [])
        ensemble = opened()
        list(gather_inputs([(ensemble, ensemble.runs)], part, config))

    def shown() -> None:
        ensemble = opened()
        gather(ensemble, ensemble.runs, [])

    ident = opened().id
    said = ["--outputs", str(outputs)]
    return {
        "train": lambda: run(["train", *words, *said]),
        "dry run": lambda: run(["train", *words, "--dry-run", "--json", *said]),
        "list": lambda: run(["runs", "list", *said]),
        "show": lambda: run(["runs", "show", ident, *said]),
        "diff": lambda: run(["runs", "diff", ident, ident, *said]),
        "rm": lambda: run(["runs", "rm", f"{ident}/s0000", "--json", *said]),
        "export": lambda: run(["runs", "export", ident, "--to", f"{outputs}.csv", *said]),
        "slingshot": lambda: inputs("slingshot"),
        "variance": lambda: inputs("variance"),
        "report": shown,
        "group": lambda: [
            run.series[name] for run in opened().group().runs for name in ("train_loss", "l2", "lambda_max")
        ],
    }


def test_looks_at_the_disk_are_so_many_a_shard(tmp_path, looks, capsys):
    found: dict[str, list[int]] = {}
    for n_shards, width in ((1, 2), (1, 20), (2, 2), (3, 2)):
        outputs = tmp_path / f"{n_shards}-{width}"
        words = store(outputs, n_shards, width)
        # Now the tables are written.
        assert run(["train", *words, "--outputs", str(outputs)]) == 0
        for name, command in commands(outputs, words).items():
            looks.clear()
            command()
            found.setdefault(name, []).append(looks.total())
    capsys.readouterr()
    for name, (one, many, two, three) in found.items():
        assert many == one > 0, f"{name}: more looks for more seeds of a shard"
        assert three - two == two - one, f"{name}: looks are not in proportion to shards"


def test_a_damaged_shard_is_looked_at_once(tmp_path, looks):
    store(tmp_path, 1, 6)
    ((ensemble, runs),) = select(tmp_path, ["@all"], None, Ensemble)
    path = runs[0].shard.series("every-10")
    path.write_bytes(path.read_bytes()[:-8])
    looks.clear()
    for item in runs:
        with pytest.raises(StoreError, match="checksum"):
            ensemble.records(item, "every-10")
    assert looks["open"] == 1


def test_columns_are_looked_up_once_an_ensemble(tmp_path, monkeypatch):
    store(tmp_path, 2, 5)
    ((ensemble, _),) = select(tmp_path, ["@all"], None, Ensemble)
    asked = []
    monkeypatch.setattr(Ensemble, "cadences", lambda self: asked.append(1) or list(GRIDS))
    assert all({"l2", "train_loss"} <= set(run.series) for run in ensemble.group().runs)
    assert ensemble.array("l2").shape == (10, 3) and len(ensemble.frame()) == 10 * 5
    assert asked == [1]


def test_a_frame_has_the_columns_of_its_runs(tmp_path):
    store(tmp_path, 2, 2)
    ((ensemble, runs),) = select(tmp_path, ["@all"], None, Ensemble)
    frame = ensemble.frame([runs[0].id, runs[3].id])
    assert list(frame.columns) == ["run", "seed", "step", "train_loss", "test_accuracy"]
    assert frame["run"].tolist() == [runs[0].id] * 5 + [runs[3].id] * 5
    assert frame["seed"].tolist() == [0] * 5 + [3] * 5 and frame["seed"].dtype == "Int64"
    assert frame["step"].tolist() == [0, 10, 20, 30, 40] * 2 and frame.index.tolist() == list(range(10))


def test_references_to_single_runs_are_read_once_each(tmp_path):
    store(tmp_path, 1, 4)
    ((ensemble, runs),) = select(tmp_path, ["@all"], None, Ensemble)
    refs = [runs[2].id, runs[1].id, runs[2].id, ensemble.id]
    ((_, chosen),) = select(tmp_path, refs, None, Ensemble)
    assert [item.label for item in chosen] == ["s0002", "s0001", "s0000", "s0003"]


def test_of_a_damaged_shard_every_run_goes_on(tmp_path):
    words = store(tmp_path, 1, 3)
    ((_, runs),) = select(tmp_path, ["@all"], None, Ensemble)
    runs[0].shard.series("every-20").unlink()
    (request,) = read_command([*words, "train.steps=20"], outputs=str(tmp_path)).requests
    layout = lay_out(OutputPaths(tmp_path), request, lambda _: Plan(1, 1, (), "none"))
    assert layout.laid == ["s0000", "s0001", "s0002"] and not layout.done and not layout.cut_off
    assert layout.work == [runs[0].shard] and len(layout.warnings) == 1
    shard = runfile.read(runs[0].shard)
    assert (shard.requested_steps, shard.status) == (40, "partial")
