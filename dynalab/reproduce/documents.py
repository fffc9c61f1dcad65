"""Results as claims read them: what `train --json` and `analyze --json` say, of the runs and steps that were asked for.

An ensemble may hold more than a sheet asks for, more seeds and more steps: nothing of that enters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.reproduce.rows import Document, keys_of
from dynalab.reproduce.words import TRAIN
from dynalab.store.final import final_of
from dynalab.store.reader import Ensemble
from dynalab.store.recorded import has_begun
from dynalab.store.results import Result
from dynalab.store.runfile import STATUSES
from dynalab.store.stored import StoredRun

# What `train --json` says of a run.
_FIELDS = ("id", "seed", "status", "steps", "requested_steps", "summary")
_LANDMARKS = ("memorised_step", "generalised_step", "diverged_step")


@dataclass(frozen=True)
class Asked:
    """What a command asked for of one ensemble, and has.

    Attributes:
        ensemble: The ensemble.
        labels: Of the runs.
        steps: Their length.
    """

    ensemble: Ensemble
    labels: tuple[str, ...]
    steps: int

    @property
    def runs(self) -> list[StoredRun]:
        """The runs, those that are stored."""
        by_label = self.ensemble.by_label
        return [by_label[label] for label in self.labels if label in by_label]

    @property
    def is_longer(self) -> bool:
        """Whether a run went on beyond what was asked for."""
        return any(run.steps > self.steps for run in self.runs)


def trained(command: str, asked: Sequence[Asked], paths: Collection[str]) -> list[Document]:
    """Return what became of the runs of a command, a document an ensemble; and what these paths read of their rows."""
    rows, final = (any(re.search(rf"\b{name}\b", path) for path in paths) for name in ("rows", "final"))
    documents = []
    for item in asked:
        ensemble = item.ensemble
        runs = [_run(item, run, final) for run in item.runs]
        for run, recorded in zip(runs, _rows(item), strict=True) if rows else ():
            run["rows"] = recorded
        tree = {"id": ensemble.id, "config": ensemble.config, "runs": runs}
        own = {ensemble.id: {**keys_of(ensemble.config), "command": command}}
        documents.append(Document(TRAIN, tree, own, _seeds([item])))
    return documents


def analysed(command: str, result: Result, asked: Sequence[Asked], trained_by: Mapping[str, str]) -> Document:
    """Return a stored analysis as a document; `trained_by` has ensemble, or run -> the command that trained it."""
    own: dict[str, dict[str, Any]] = {
        item.ensemble.id: {
            **keys_of(item.ensemble.config),
            "command": trained_by.get(item.ensemble.id),
            "analysis": command,
        }
        for item in asked
    }
    runs = {run.id: {"command": trained_by.get(run.id)} for item in asked for run in item.runs}
    return Document(result.kind, result.data, own | runs, _seeds(asked))


def _seeds(asked: Sequence[Asked]) -> dict[str, int | None]:
    return {run.id: run.seed for item in asked for run in item.runs}


def _run(asked: Asked, run: StoredRun, final: bool) -> dict[str, Any]:
    """Return a run as it stood at the length that was asked for; `final`: with the last row of every metric."""
    fields: dict[str, Any] = {name: getattr(run, name) for name in _FIELDS}
    if run.summary is None:
        return fields
    if run.steps <= asked.steps:
        # What was stored of before has those of the evaluation's grid alone.
        return {**fields, "summary": {**run.summary, **_final(asked, run)}} if final else fields
    passed = {name: run.summary.get(name) for name in _LANDMARKS}
    known = {
        name: step if step is not None and step <= asked.steps else None for name, step in passed.items()
    }
    summary = {**run.summary, **known, **_final(asked, run)}
    status = "diverged" if known["diverged_step"] is not None else "done"
    return {**fields, "status": status, "steps": asked.steps, "summary": summary}


def _final(asked: Asked, run: StoredRun) -> dict[str, Any]:
    """Return the last rows of a run, `final` and `final_steps`, at the length that was asked for."""
    grids = []
    for cadence in asked.ensemble.cadences():
        if has_begun(run, cadence):
            rows = asked.ensemble.records(run, cadence)
            ended = asked.steps if run.diverged_step is None else min(asked.steps, run.diverged_step - 1)
            grids.append((rows[rows["step"] <= ended], run.index))
    grids = [(rows, index) for rows, index in grids if len(rows)]
    return final_of(grids) if grids else {"final": None}


def _rows(asked: Asked) -> list[list[dict[str, Any]]]:
    """Return the recorded rows of every run: `step` and each metric that was recorded at it."""
    groups = asked.ensemble.group(STATUSES, [run.id for run in asked.runs]).until(asked.steps)
    found = {run.id: run for run in groups.runs}
    listed = []
    for stored in asked.runs:
        rows: dict[int, dict[str, Any]] = {}
        for name, series in found[stored.id].series.items() if stored.id in found else ():
            for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                rows.setdefault(step, {"step": step})[name] = _plain(value)
        listed.append([rows[step] for step in sorted(rows)])
    return listed


def _plain(value: float | np.floating[Any]) -> float | None:
    """Return a number as JSON has it."""
    return float(value) if math.isfinite(value) else None
