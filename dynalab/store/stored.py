"""What is stored, without its arrays: enough to list, filter and plan, and nothing that is slow to import."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.forks import names_parent
from dynalab.core.words import clean, count, states
from dynalab.store import runfile, tags
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.read import check, mapping, number, positive, read_bytes, read_yaml, text, whole

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig

# The folder of ensembles that were trained elsewhere, in the place of a task, and the one series that their runs have.
IMPORTED = "imported"
IMPORTED_CADENCE = "imported"


_SECTION = (mapping(lambda value: True),)
# What readers look at, and of which type; the parts' own keys are theirs to check.
_CONFIG = {
    **dict.fromkeys(("task", "model", "optimizer", "schedule", "train", "probe", "snapshots"), _SECTION),
    "seed_streams": (
        mapping(
            lambda seeds: seeds is None or all(map(whole, seeds if isinstance(seeds, list) else [seeds]))
        ),
    ),
    "levels": (mapping((number,)),),
    "probes": ([text],),
    "eval": ({"every": positive},),
    "convergence": (
        {"metric": (text,), "threshold": (number,), "direction": (text,), "persistence": (positive,)},
    ),
    "parent": (names_parent,),
    "edit": _SECTION,
    "average": _SECTION,
    "origin": _SECTION,
    "sources": (mapping(text),),
    "import": (
        {
            **dict.fromkeys(("names", "files", "options"), ([text],)),
            **dict.fromkeys(("file", "form", "run", "step", "family"), (text,)),
            "settings": (mapping(lambda value: isinstance(value, int | float | str)),),
        },
    ),
}


@dataclass(frozen=True)
class StoredRun:
    """A run as it is stored, the newest attempt of its label; what is not said here is as in run.json."""

    id: str  # `<ensemble>/<label>`.
    seed: int | None
    status: str
    # Of a run that has not ended as far as its rows tell: training may go on from before, from its newest checkpoint.
    steps: int
    requested_steps: int
    summary: dict[str, Any] | None  # None also where the shard goes on to more steps.
    shard: ShardPaths
    index: int  # Its place in the shard.
    attempt: int
    started: str | None
    record: runfile.Shard  # The shard's run.json, brought up to the rows.

    def __repr__(self) -> str:
        reached = {
            name: (self.summary or {}).get(f"{name}_step")
            for name in ("memorised", "generalised", "diverged")
        }
        landmarks = "".join(f", {name} at {step:,}" for name, step in reached.items() if step is not None)
        return clean(f"StoredRun({self.id}, {self.status}, {count(self.steps, 'step')}{landmarks})")

    @property
    def label(self) -> str:
        """Last part of the id."""
        return self.id.rpartition("/")[2]

    @property
    def diverged_step(self) -> int | None:
        """When it diverged, or None."""
        return (self.summary or {}).get("diverged_step")


class StoredEnsemble:
    """One stored configuration and all its runs.

    Attributes:
        id: Its identity hash.
        path: Its folder.
        warnings: What was found damaged and is left out, and what has the same hash and is not read.
        damaged: Names of shards that are left out.
    """

    def __init__(self, path: Path | EnsemblePaths) -> None:
        self.paths = path if isinstance(path, EnsemblePaths) else EnsemblePaths(Path(path))
        self.path = self.paths.root
        self.id = self.paths.digest
        self.warnings = [
            f"{copy} has the hash of {self.path.name} and is not read; shards that are moved from there are"
            for copy in self.paths.copies
        ]
        self.damaged: list[str] = []

    def __repr__(self) -> str:
        parts = [self.id, self.task, self.slug, f"fork of {self.parent}" if self.is_fork else ""]
        about = ", ".join(part for part in parts if part not in ("", "default"))
        return clean(f"{type(self).__name__}({about}, {states(run.status for run in self.runs)})")

    def _repr_html_(self) -> str:
        from dynalab.store import notebook

        return notebook.ensemble(self)

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The resolved configuration, or a `StoreError`: it is damaged."""
        tree = read_yaml(self.paths.config, self._config_text)
        try:
            check(tree, _CONFIG)
            for section in self._sections:
                if not isinstance(tree.get(section), dict):
                    raise ValueError(f"it has no section {section}")
        except ValueError as error:
            raise StoreError(f"{self.paths.config} is damaged: {error}") from error
        return tree

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; of a fork without that of its parent, which `tree` has as `origin`.

        Raises:
            StoreError: It is damaged.
        """
        return {key: value for key, value in self.tree.items() if key != "origin"}

    def typed_config(self, folders: Sequence[Path] = ()) -> EnsembleConfig:
        """Return the configuration, typed, given the command's plug-in folders.

        Raises:
            StoreError: It is missing or damaged.
            ConfigError: A plug-in is gone or has changed since the ensemble was made.
        """
        from dynalab.config.ensemble import from_stored

        try:
            return from_stored(self.tree, folders)
        except ConfigError as error:
            raise ConfigError(f"{self.paths.root.name}: {error}") from error

    @cached_property
    def _config_text(self) -> bytes:
        """The bytes of config.yaml, of which as much is checked as needs no parser."""
        data = read_bytes(self.paths.config)
        complete = all(f"\n{section}:".encode() in b"\n" + data for section in self._sections)
        if not complete or not data.endswith(b"\n"):
            raise StoreError(f"{self.paths.config} is damaged: it is cut off, or no configuration")
        return data

    @property
    def _sections(self) -> tuple[str, ...]:
        """Sections that every reader needs, and the one that is written last."""
        return ("import",) if self.imported else ("eval", "levels")

    @cached_property
    def parent(self) -> str | None:
        """The ensemble and the step that a fork starts from, `ID@STEP`; None for any other."""
        # Most are no forks, and reading YAML is slow.
        parent = self.config.get("parent") if b"\nparent:" in self._config_text else None
        return None if parent is None else str(parent)

    @property
    def is_fork(self) -> bool:
        """Whether it goes on from another's state; of a damaged configuration that is not known."""
        try:
            return self.parent is not None
        except StoreError:
            return False

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.paths.task

    @property
    def slug(self) -> str:
        """Readable part of the folder's name: how it differs from its task's defaults, or what it was imported as."""
        return self.path.name.rpartition("-")[0]

    @property
    def imported(self) -> bool:
        """Whether its runs were trained elsewhere."""
        return self.paths.task == IMPORTED

    @property
    def names(self) -> list[str]:
        """What an imported ensemble is called; others have no names."""
        about = self.config.get("import") if self.imported else None
        return [str(name) for name in about.get("names") or ()] if isinstance(about, dict) else []

    @property
    def known_names(self) -> list[str]:
        """Its names; none where its configuration is damaged."""
        try:
            return self.names
        except StoreError:
            return []

    @cached_property
    def runs(self) -> list[StoredRun]:
        """The runs, newest attempt of each, in order of seed and label; damaged shards are left out and named."""
        newest: dict[str, StoredRun] = {}
        held: set[tuple[str, int]] = set()
        lost: list[tuple[ShardPaths, str]] = []
        for paths in self.paths.shards():
            try:
                shard = runfile.read(paths)
            except StoreError as error:
                lost.append((paths, str(error)))
                continue
            if shard.status not in runfile.FINAL:
                _bring_up(paths, shard)
            for index, run in enumerate(shard.runs):
                held.add((run.label, shard.attempt))
                if run.label not in newest or newest[run.label].attempt < shard.attempt:
                    about = (run.seed, run.status, run.steps, shard.requested_steps, run.summary)
                    place = (paths, index, shard.attempt, shard.started, shard)
                    newest[run.label] = StoredRun(f"{self.id}/{run.label}", *about, *place)
        runs = sorted(newest.values(), key=lambda run: (run.seed is None, run.seed or 0, run.label))
        attempts = {run.label: run.attempt for run in runs}
        for paths, why in lost:
            if not runfile.Lost.of(paths.root.name, attempts, held).replaced(attempts):
                self.leave_out(paths.root.name, why)
        return runs

    @cached_property
    def tags(self) -> tags.Tags:
        """What a user tagged; nothing where that is damaged, which the warnings say."""
        try:
            return tags.read(self.paths)
        except StoreError as error:
            self.leave_out(self.paths.tags.name, str(error))
            return {}

    @cached_property
    def by_label(self) -> dict[str, StoredRun]:
        """Label -> run."""
        return {run.label: run for run in self.runs}

    def leave_out(self, name: str, why: str) -> None:
        """Note, once, that a shard or a file is damaged and will not be read."""
        if name not in self.damaged:
            self.damaged.append(name)
            self.warnings.append(f"{why}; {self.id}/{name} is left out")


def _bring_up(paths: ShardPaths, shard: runfile.Shard) -> None:
    """Bring what was read of a shard that has not ended up to its rows: run.json is written with checkpoints only."""
    # NumPy would be a third of the time that a list of ended runs takes.
    from dynalab.store import series

    rows = [row for name in paths.cadences() if (row := series.last_row(paths.series(name)))]
    step, wall = max(rows, default=(0, 0.0))
    step = min(step, shard.requested_steps)
    attempt: dict[str, Any] = shard.attempts[-1] if shard.attempts else {}
    unended = not attempt.get("ended")
    for run in shard.runs:
        if run.status not in runfile.FINAL:
            run.steps = max(run.steps, step)
            if unended or shard.status == "failed":
                # One that is there is of fewer steps.
                run.summary = None
    if unended and step > (attempt.get("step") or 0):
        attempt["step"] = step
        with contextlib.suppress(ValueError, TypeError):
            attempt["seconds"] = max(
                wall - datetime.fromisoformat(attempt.get("started", "")).timestamp(), 0.0
            )
