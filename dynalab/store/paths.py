"""The classes that know where everything lies; nothing else joins file names."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dynalab.core.errors import StoreError
from dynalab.store.names import ANALYSIS, CADENCE, ENSEMBLE, NAME, SHARD, STEP, TASK, inside, refuse_links
from dynalab.store.read import read_bytes, read_json


class _Place:
    """A file or folder of one name in the folder `root`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Any, _: object) -> Path:
        return folder.root / self.name


# Folders beside those of tasks.
_NO_TASKS = ("analysis", "reports", "reproduce", "logs")


@dataclass(frozen=True)
class OutputPaths:
    """The outputs folder."""

    root: Path

    last = _Place("last.json")  # What the last `train` or `import` composed.
    analyses = _Place("analysis")
    reports = _Place("reports")
    reproductions = _Place("reproduce")
    logs = _Place("logs")  # Tracebacks of dynalab's own bugs.
    imports_lock = _Place("imported/lock")  # Held while a table is imported.
    commands = _Place(
        ".training"
    )  # Of each command that trains, what and how; hidden: gone when the command is.
    jobs = _Place(".jobs")  # What was submitted to a scheduler, and what its jobs printed.

    def analysis(self, kind: str, digest: str) -> AnalysisPaths:
        """Return the folder of one analysis."""
        return AnalysisPaths(self.analyses / f"{kind}-{digest}")

    def reproduction(self, name: str, scale: str, before: str = "") -> Path:
        """Return the file with what became of a sheet's claims at a scale; `before`: its hash at another time."""
        return self.reproductions / f"{name}-{scale}" / f"result{before and f'-{before}'}.json"

    def stored_reproductions(self) -> list[Path]:
        """Return the files of all reproductions, in order of their names."""
        found = (folder / "result.json" for folder in inside(self.reproductions, NAME))
        return [path for path in found if path.is_file()]

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
        tasks = [folder for folder in inside(self.root, TASK) if folder.name not in _NO_TASKS]
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

    def named(self) -> list[tuple[str, str, str]]:
        """Return task, slug and hash of every folder that is named like an ensemble's; nothing in it is looked at."""
        found = []
        for task in inside(self.root, TASK):
            with contextlib.suppress(OSError):
                for name in os.listdir(task) if task.name not in _NO_TASKS else ():
                    if ENSEMBLE.fullmatch(name):
                        slug, _, digest = name.rpartition("-")
                        found.append((task.name, slug, digest))
        return found

    def of_task(self, task: str, digest: str) -> EnsemblePaths | None:
        """Return the folder of a task's ensemble with an identity hash, the one that readers take; None for none."""
        found = (paths for paths in self._ensembles(self.root / task) if paths.digest == digest)
        return next(found, None)

    def _ensembles(self, task: Path) -> list[EnsemblePaths]:
        found = [EnsemblePaths(folder) for folder in inside(task, ENSEMBLE)]
        return [paths for paths in found if paths.is_ours()]


@dataclass(frozen=True)
class _Hashed:
    """A folder whose name ends in an identity hash."""

    root: Path

    @property
    def digest(self) -> str:
        """The identity hash."""
        return self.root.name.rpartition("-")[2]

    def refuse_links(self) -> None:
        """Raise a `StoreError` where the folder or the one above is a link, before something is written in it."""
        refuse_links(self.root.parent, self.root)


@dataclass(frozen=True)
class EnsemblePaths(_Hashed):
    """An ensemble's folder, `outputs/<task>/<slug>-<hash>/`.

    Attributes:
        root: The folder.
        copies: Other folders whose names end in the same hash.
    """

    copies: tuple[Path, ...] = field(default=(), compare=False)

    config = _Place("config.yaml")  # Resolved.
    overrides = _Place("overrides.yaml")  # The words that chose it.
    tags = _Place("tags.json")  # Words by which a user finds it, or runs of it, again.
    lock = _Place("lock")  # Held while shards are laid out.
    checkpoints = _Place("checkpoints.json")  # Of an imported ensemble: where its checkpoints stand.

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

    def metrics(self, cadence: str | None = None) -> Path:
        """Return the table that users open: of the evaluation grid, or of another cadence."""
        return self.root / (f"metrics-{cadence}.parquet" if cadence else "metrics.parquet")

    def text(self, what: str, digest: str) -> Path:
        """Return a file on the code that trained, by its hash: its `patch`, or the `packages` that it had."""
        return self.root / {"patch": f"code-{digest}.diff", "packages": f"packages-{digest}.txt"}[what]

    def shard(self, name: str) -> ShardPaths:
        """Return a shard's folder by name."""
        return ShardPaths(self.root / name)

    def shards(self) -> list[ShardPaths]:
        """Return every shard's folder, in order of their names; parts of a shard that is being split do not count."""
        found = [ShardPaths(folder) for folder in inside(self.root, SHARD) if folder.is_dir()]
        unborn = {name for paths in found for name in paths.parts()}
        return [paths for paths in found if paths.root.name not in unborn]


@dataclass(frozen=True)
class ShardPaths:
    """A shard's folder, `shard-<first>-<last>-<n>/`."""

    root: Path

    run = _Place("run.json")  # What the shard is, how far it is and who trained it.
    progress = _Place("progress.json")  # How far it is at this moment; there while it is trained.
    lock = _Place("lock")  # Held by the one writer.
    job = _Place("job.json")  # How it is to be trained, where it was made ready for `dynalab worker`.
    log = _Place("log.txt")  # What the worker had to say.
    error = _Place("error.txt")  # The traceback of a failed attempt.
    # The names of the parts that this shard is being split into; once its folder is gone, they count.
    split = _Place("split.json")
    series_folder = _Place("series")
    checkpoint_folder = _Place("checkpoints")
    snapshot_folder = _Place("snapshots")

    @property
    def ensemble(self) -> EnsemblePaths:
        """The ensemble that it belongs to."""
        return EnsemblePaths(self.root.parent)

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
        valid = all(isinstance(name, str) and SHARD.fullmatch(name) for name in names)
        return names if valid and self.root.name not in names and all(map(self._made, names)) else []

    def _made(self, name: str) -> bool:
        """Return whether the shard of a name is no other than a part of this one, half made or whole."""
        run = ShardPaths(self.root.with_name(name)).run
        try:
            return not os.path.lexists(run) or bool(read_json(run)["plan"]["split_from"] == self.root.name)
        except (StoreError, LookupError, TypeError):
            return False

    def refuse_links(self) -> None:
        """Raise a `StoreError` where a file or folder of the shard, or one above in the outputs folder, is a link."""
        self.ensemble.refuse_links()
        refuse_links(self.root, *self.root.rglob("*"))

    def series(self, cadence: str) -> Path:
        """Return the series of one cadence."""
        return self.series_folder / f"{cadence}.npy"

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

    def snapshot(self, step: int) -> Path:
        """Return the weights kept for analysis at a step."""
        return self.snapshot_folder / f"step-{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """Return step -> weights kept for analysis, in order of the steps."""
        return _by_step(self.snapshot_folder, ".safetensors")


def _by_step(folder: Path, suffix: str = "") -> dict[int, Path]:
    """Return step -> what is named by it in a folder; from 10^8 steps on names do not sort as their numbers do."""
    found = {int(path.name[5:].removesuffix(suffix)): path for path in inside(folder, STEP, suffix)}
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class CheckpointPaths:
    """A checkpoint's folder, named by its step."""

    root: Path

    model = _Place("model.safetensors")  # Stacked weights.
    optim = _Place("optim.safetensors")  # Stacked optimizer tensors.
    state = _Place("state.json")  # Written last: the marker that the checkpoint is whole.

    def series(self, cadence: str) -> Path:
        """Return a series that is to take the place of the shard's with this checkpoint; mostly there is none."""
        return self.root / f"{cadence}.npy"

    @property
    def step(self) -> int:
        """The step it was taken at."""
        return int(self.root.name[5:])


@dataclass(frozen=True)
class AnalysisPaths(_Hashed):
    """An analysis' folder, `analysis/<kind>-<hash>/`."""

    result = _Place("result.json")  # Plain values.

    @property
    def kind(self) -> str:
        """The kind of analysis."""
        return self.root.name.rpartition("-")[0]

    def table(self, name: str) -> Path:
        """Return one of its tables."""
        return self.root / f"{name}.parquet"

    def tables(self) -> dict[str, Path]:
        """Return name -> table."""
        return {path.stem: path for path in inside(self.root, NAME, ".parquet")}
