"""The classes that know where everything lies; nothing else joins file names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

# Beginning of the names of series that hold one run's rows alone, those that its spikes forced.
FORCED = "forced"


def forced_cadence(label: str) -> str:
    """Return the name of the series of the rows that a run's spikes forced."""
    return f"{FORCED}-{label}"


@dataclass(frozen=True)
class OutputPaths:
    """The outputs folder."""

    root: Path

    @property
    def last(self) -> Path:
        """What the last `train` or `import` composed."""
        return self.root / "last.json"

    @property
    def analyses(self) -> Path:
        """The folder of analyses."""
        return self.root / "analysis"

    @property
    def reports(self) -> Path:
        """The folder of reports."""
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        """The folder of tracebacks of dynalab's own bugs."""
        return self.root / "logs"

    def analysis(self, kind: str, digest: str) -> AnalysisPaths:
        """Return the folder of one analysis."""
        return AnalysisPaths(self.analyses / f"{kind}-{digest}")

    def report(self, name: str) -> Path:
        """Return the folder of one report."""
        return self.reports / name

    def ensemble(self, task: str, slug: str, digest: str) -> EnsemblePaths:
        """Return the folder that a new ensemble gets."""
        return EnsemblePaths(self.root / task / f"{slug}-{digest}")

    def ensembles(self) -> list[EnsemblePaths]:
        """Return every ensemble's folder, in order of their names."""
        reserved = {self.analyses.name, self.reports.name, self.logs.name}
        found = []
        for task in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if task.is_dir() and task.name not in reserved and not task.name.startswith("."):
                found += [EnsemblePaths(folder) for folder in sorted(task.iterdir()) if folder.is_dir()]
        return [paths for paths in found if paths.config.is_file() or paths.shards()]


@dataclass(frozen=True)
class EnsemblePaths:
    """An ensemble's folder, `outputs/<task>/<slug>-<hash>/`."""

    root: Path

    @property
    def digest(self) -> str:
        """The identity hash, from the folder's name."""
        return self.root.name.rpartition("-")[2]

    @property
    def task(self) -> str:
        """Name of the task, from the folder's name."""
        return self.root.parent.name

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def overrides(self) -> Path:
        """The words that chose it."""
        return self.root / "overrides.yaml"

    @property
    def lock(self) -> Path:
        """Held while shards are laid out."""
        return self.root / "lock"

    def metrics(self, cadence: str | None = None) -> Path:
        """Return the table that users open: of the evaluation grid, or of another cadence."""
        return self.root / (f"metrics-{cadence}.parquet" if cadence else "metrics.parquet")

    def shard(self, name: str) -> ShardPaths:
        """Return a shard's folder by name."""
        return ShardPaths(self.root / name)

    def shards(self) -> list[ShardPaths]:
        """Return every shard's folder, in order of their names; parts of a shard that is being split do not count."""
        found = [ShardPaths(folder) for folder in sorted(self.root.glob("shard-*")) if folder.is_dir()]
        unborn = {name for paths in found for name in paths.parts()}
        return [paths for paths in found if paths.root.name not in unborn]


@dataclass(frozen=True)
class ShardPaths:
    """A shard's folder, `shard-<first>-<last>-<n>/`."""

    root: Path

    @property
    def ensemble(self) -> EnsemblePaths:
        """The ensemble that it belongs to."""
        return EnsemblePaths(self.root.parent)

    @property
    def run(self) -> Path:
        """What the shard is, how far it is and who trained it."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the one writer."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """What the worker had to say."""
        return self.root / "log.txt"

    @property
    def error(self) -> Path:
        """The traceback of a failed attempt."""
        return self.root / "error.txt"

    @property
    def split(self) -> Path:
        """The names of the parts that this shard is being split into; once the folder is gone, they count."""
        return self.root / "split.json"

    @property
    def aside(self) -> Path:
        """Where the folder is moved to be removed, so that no half-removed shard is ever seen."""
        return self.root.with_name(f".{self.root.name}.split")

    def parts(self) -> list[str]:
        """Return the names in `split`, none where it is missing or damaged."""
        try:
            return [str(name) for name in json.loads(self.split.read_bytes())["parts"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    @property
    def series_folder(self) -> Path:
        """The folder of series."""
        return self.root / "series"

    def series(self, cadence: str) -> Path:
        """Return the series of one cadence."""
        return self.series_folder / f"{cadence}.npy"

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of checkpoints."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> CheckpointPaths:
        """Return the checkpoint of a step."""
        return CheckpointPaths(self.checkpoint_folder / f"step-{step:08d}")

    def checkpoints(self) -> list[CheckpointPaths]:
        """Return every checkpoint that has its marker, oldest first."""
        found = [CheckpointPaths(folder) for folder in sorted(self.checkpoint_folder.glob("step-????????*"))]
        return [paths for paths in found if paths.root.name[5:].isdigit() and paths.state.is_file()]

    @property
    def snapshot_folder(self) -> Path:
        """The folder of weights kept for analysis."""
        return self.root / "snapshots"

    def snapshot(self, step: int) -> Path:
        """Return the weights kept at a step."""
        return self.snapshot_folder / f"step-{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """Return step -> weights kept."""
        return {int(path.stem[5:]): path for path in sorted(self.snapshot_folder.glob("step-*.safetensors"))}


@dataclass(frozen=True)
class CheckpointPaths:
    """A checkpoint's folder; `state.json`, written last, is the marker that it is whole."""

    root: Path

    @property
    def step(self) -> int:
        """The step it was taken at."""
        return int(self.root.name[5:])

    @property
    def model(self) -> Path:
        """Stacked weights."""
        return self.root / "model.safetensors"

    @property
    def optim(self) -> Path:
        """Stacked optimizer tensors."""
        return self.root / "optim.safetensors"

    @property
    def state(self) -> Path:
        """Step, row counts, checksums."""
        return self.root / "state.json"


@dataclass(frozen=True)
class AnalysisPaths:
    """An analysis' folder, `analysis/<kind>-<hash>/`."""

    root: Path

    @property
    def result(self) -> Path:
        """The result, plain values."""
        return self.root / "result.json"

    def table(self, name: str) -> Path:
        """Return one of its tables."""
        return self.root / f"{name}.parquet"

    def tables(self) -> dict[str, Path]:
        """Return name -> table."""
        return {path.stem: path for path in sorted(self.root.glob("*.parquet"))}
