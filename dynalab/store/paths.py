"""The classes that know where everything lies; nothing else joins file names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from dynalab.core.errors import StoreError
from dynalab.store.names import ANALYSIS, CADENCE, ENSEMBLE, NAME, SHARD, STEP, TASK, inside, refuse_links
from dynalab.store.read import read_bytes, read_json


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

    @property
    def imports_lock(self) -> Path:
        """Held while a table is imported."""
        return self.root / "imported" / "lock"

    def analysis(self, kind: str, digest: str) -> AnalysisPaths:
        """Return the folder of one analysis."""
        return AnalysisPaths(self.analyses / f"{kind}-{digest}")

    def report(self, name: str) -> Path:
        """Return the folder of one report."""
        return self.reports / name

    def stored_analyses(self) -> list[AnalysisPaths]:
        """Return every analysis' folder, in order of their names."""
        found = [AnalysisPaths(folder) for folder in inside(self.analyses, ANALYSIS)]
        return [paths for paths in found if paths.result.is_file()]

    def ensemble(self, task: str, slug: str, digest: str) -> EnsemblePaths:
        """Return the folder that a new ensemble gets."""
        return EnsemblePaths(self.root / task / f"{slug}-{digest}")

    def ensembles(self) -> list[EnsemblePaths]:
        """Return every ensemble's folder, in order of their names; of several with one hash the one to be read.

        That is the one in the folder of its task, where training goes on; the others are its `copies`.
        """
        reserved = {self.analyses.name, self.reports.name, self.logs.name}
        tasks = [folder for folder in inside(self.root, TASK) if folder.name not in reserved]
        same: dict[str, list[EnsemblePaths]] = {}
        for paths in (paths for task in tasks for paths in self._ensembles(task)):
            same.setdefault(paths.digest, []).append(paths)
        chosen = []
        for one, *others in same.values():
            if others:
                one, *others = sorted([one, *others], key=lambda paths: not paths.is_at_home())
                one = replace(one, copies=tuple(paths.root for paths in others))
            chosen.append(one)
        return sorted(chosen, key=lambda paths: paths.root)

    def of_task(self, task: str, digest: str) -> EnsemblePaths | None:
        """Return the folder of a task's ensemble with an identity hash, the one that readers take; None for none."""
        found = (paths for paths in self._ensembles(self.root / task) if paths.digest == digest)
        return next(found, None)

    def _ensembles(self, task: Path) -> list[EnsemblePaths]:
        found = [EnsemblePaths(folder) for folder in inside(task, ENSEMBLE)]
        return [paths for paths in found if paths.is_ours()]


@dataclass(frozen=True)
class EnsemblePaths:
    """An ensemble's folder, `outputs/<task>/<slug>-<hash>/`.

    Attributes:
        root: The folder.
        copies: Other folders whose names end in the same hash.
    """

    root: Path
    copies: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """The identity hash, from the folder's name."""
        return self.root.name.rpartition("-")[2]

    @property
    def task(self) -> str:
        """Name of the task, from the folder's name."""
        return self.root.parent.name

    def is_ours(self) -> bool:
        """Return whether it holds an ensemble, perhaps a damaged one; a number of ten digits looks like a hash."""
        begun = any(os.path.lexists(ShardPaths(folder).run) for folder in inside(self.root, SHARD))
        return begun or self.is_at_home()

    def is_at_home(self) -> bool:
        """Return whether it lies in the folder of the task that its configuration names."""
        try:
            return f"\n  name: {self.task}\n".encode() in read_bytes(self.config)
        except StoreError:
            return False

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

    def refuse_links(self) -> None:
        """Check that the folder is in the outputs folder, before something is written in it.

        Raises:
            StoreError: It, or its task's, is a link.
        """
        refuse_links(self.root.parent, self.root)

    def shards(self) -> list[ShardPaths]:
        """Return every shard's folder, in order of their names; parts of a shard that is being split do not count."""
        found = [ShardPaths(folder) for folder in inside(self.root, SHARD) if folder.is_dir()]
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
        """Return the names in `split`, none where it is missing or damaged, or names what cannot be a part."""
        try:
            names = list(read_json(self.split)["parts"]) if self.split.exists() else []
        except (StoreError, LookupError, TypeError):
            return []
        own = [name for name in names if isinstance(name, str) and SHARD.fullmatch(name)]
        return own if own == names and self.root.name not in own and all(map(self._made, own)) else []

    def _made(self, name: str) -> bool:
        """Return whether the shard of a name is no other than a part of this one, half made or whole."""
        run = ShardPaths(self.root.with_name(name)).run
        try:
            return not os.path.lexists(run) or bool(read_json(run)["plan"]["split_from"] == self.root.name)
        except (StoreError, LookupError, TypeError):
            return False

    def refuse_links(self) -> None:
        """Check that everything of the shard is in its folder, before something is written in it.

        Raises:
            StoreError: A file or folder of it, or a folder above in the outputs folder, is a link.
        """
        self.ensemble.refuse_links()
        refuse_links(self.root, *self.root.rglob("*"))

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

    def cadences(self) -> list[str]:
        """Return the names of the series that are there."""
        return [path.stem for path in inside(self.series_folder, CADENCE, ".npy")]

    def checkpoint(self, step: int) -> CheckpointPaths:
        """Return the checkpoint of a step."""
        return CheckpointPaths(self.checkpoint_folder / f"step-{step:08d}")

    def checkpoints(self) -> list[CheckpointPaths]:
        """Return every checkpoint that has its marker, oldest first."""
        found = [CheckpointPaths(folder) for folder in _by_step(self.checkpoint_folder).values()]
        return [paths for paths in found if paths.state.is_file()]

    @property
    def snapshot_folder(self) -> Path:
        """The folder of weights kept for analysis."""
        return self.root / "snapshots"

    def snapshot(self, step: int) -> Path:
        """Return the weights kept at a step."""
        return self.snapshot_folder / f"step-{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """Return step -> weights kept, in order of the steps."""
        return _by_step(self.snapshot_folder, ".safetensors")


def _by_step(folder: Path, suffix: str = "") -> dict[int, Path]:
    """Return step -> what is named by it in a folder; from 10^8 steps on names do not sort as their numbers do."""
    found = {int(path.name[5:].removesuffix(suffix)): path for path in inside(folder, STEP, suffix)}
    return dict(sorted(found.items()))


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
    def kind(self) -> str:
        """The kind of analysis, from the folder's name."""
        return self.root.name.rpartition("-")[0]

    @property
    def digest(self) -> str:
        """The identity hash, from the folder's name."""
        return self.root.name.rpartition("-")[2]

    def refuse_links(self) -> None:
        """Check that the folder is in the outputs folder, before something is written in it.

        Raises:
            StoreError: It, or the folder of analyses, is a link.
        """
        refuse_links(self.root.parent, self.root)

    @property
    def result(self) -> Path:
        """The result, plain values."""
        return self.root / "result.json"

    def table(self, name: str) -> Path:
        """Return one of its tables."""
        return self.root / f"{name}.parquet"

    def tables(self) -> dict[str, Path]:
        """Return name -> table."""
        return {path.stem: path for path in inside(self.root, NAME, ".parquet")}
