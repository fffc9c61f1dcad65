"""Order among 5,000 stored runs, and 1,000 long ones written to one Parquet file, against their bounds.

The runs are one small ensemble of parity, trained with what training leaves behind (series, checkpoints, snapshots) and
copied under other ids at other rates, each copy with tables of its own. The long ones have twenty made-up metrics.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from report_fakes import make_ensemble

from benches.base import Options, Row, Subject
from benches.many import Cost, command
from dynalab.store.paths import OutputPaths
from dynalab.store.table import refresh

SEEDS = 20
WORDS = (
    "task=parity",
    "task.n=20",
    "model.hidden=[16]",
    "eval.every=1",
    "train.steps=100",
    "compute.width=10",
)
COMMANDS: Mapping[str, tuple[float, Sequence[str]]] = {
    "runs list": (1, ("runs", "list")),
    "a filter over a last metric": (2, ("runs", "list", "-f", "final.test_loss>0.9")),
    "runs query over runs": (
        2,
        ("runs", "query", 'SELECT ensemble, median("final.test_loss") FROM runs GROUP BY 1'),
    ),
    "runs query over their rows": (
        2,
        ("runs", "query", "SELECT step, avg(test_loss) FROM metrics GROUP BY 1 ORDER BY 1"),
    ),
    "runs du": (3, ("runs", "du")),
    "runs gc": (3, ("runs", "gc")),
}
EXPORT_SECONDS = 20


def store(outputs: Path, ensembles: int) -> None:
    """Store so many ensembles: one is trained, the others are its copies."""
    command(["train", *WORDS, f"seed=0..{SEEDS - 1}", "optimizer.lr=0.1", "-q"], outputs)
    (trained,) = (path for path in (outputs / "parity").iterdir() if path.is_dir())
    task, slug = trained.parent.name, trained.name.rpartition("-")[0]
    for place in range(1, ensembles):
        digest = hashlib.sha256(str(place).encode()).hexdigest()[:10]
        paths = OutputPaths(outputs).ensemble(task, slug, digest)
        shutil.copytree(trained, paths.root, ignore=shutil.ignore_patterns("metrics*.parquet"))
        text = paths.config.read_text()
        assert text.count("lr: 0.1\n") == 1
        paths.config.write_text(text.replace("lr: 0.1\n", f"lr: {0.1 + 0.001 * place:.6g}\n"))
        refresh(paths)


def store_long(outputs: Path, ensembles: int, runs: int, rows: int) -> None:
    """Store ensembles of runs with twenty metrics, and their tables."""
    rng, steps = np.random.default_rng(0), 10 * np.arange(rows)
    for place in range(ensembles):
        values = {"train_loss": rng.random((runs, rows)), "test_loss": rng.random((runs, rows))}
        values |= {f"metric_{number}": rng.random((runs, rows)) for number in range(18)}
        rate = f"optimizer.lr={0.001 * (place + 1):.3g}"
        words = ["task=grokking", rate]
        made = make_ensemble(
            outputs, n_runs=runs, steps=steps, values=values, overrides=words, slug=f"lr_{place}"
        )
        refresh(made.paths)


def measured(words: Sequence[str], outputs: Path, pairs: int) -> tuple[list[float], dict[str, list[float]]]:
    """Run a command so many times: its CPU seconds, and what else is told of it."""
    costs: list[Cost] = [command(words, outputs) for _ in range(pairs)]
    told = {"elapsed": [cost.seconds for cost in costs], "GB at most": [cost.peak / 1e9 for cost in costs]}
    return [cost.cpu for cost in costs], told


def measure(options: Options) -> list[Row]:
    """Measure every command once a pair."""
    return [*_order(options), *_export(options)]


def _order(options: Options) -> Iterator[Row]:
    ensembles = 3 if options.quick else 250
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        options.say(f"storing {ensembles * SEEDS:,} runs")
        store(Path(folder), ensembles)
        for name, (bar, words) in COMMANDS.items():
            what = f"{ensembles * SEEDS:,} stored runs: {name}"
            options.say(what)
            cpu, told = measured(words, Path(folder), options.pairs)
            yield Row(f"{what}, CPU seconds", "a second", cpu, None if options.quick else bar, False, told)


def _export(options: Options) -> Iterator[Row]:
    ensembles, runs, rows = (2, 2, 50) if options.quick else (10, 100, 5000)
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        what = f"runs export of {ensembles * runs:,} runs, {rows:,} rows, 20 metrics, to Parquet"
        options.say(f"storing for {what}")
        outputs = Path(folder, "outputs")
        store_long(outputs, ensembles, runs, rows)
        options.say(what)
        words = ("runs", "export", "@all", "--force", "--to", f"{folder}/all.parquet")
        cpu, told = measured(words, outputs, options.pairs)
        bar = None if options.quick else EXPORT_SECONDS
        yield Row(f"{what}, CPU seconds", "a second", cpu, bar, False, told)


SUBJECT = Subject(
    "order", "5,000 stored runs: list, filter, query, du, gc; export of 1,000 long ones", measure
)
