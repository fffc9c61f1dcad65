"""Checkpoints from elsewhere: measured one after another, and noted where they stand; none of them is copied."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.words import count
from dynalab.imports import places
from dynalab.imports.counted import Measured, Shapes, counted, measure, said, shapes_of
from dynalab.imports.forms import read_rows
from dynalab.imports.model import Model, build
from dynalab.imports.rows import Rows, check_pieces
from dynalab.imports.runs import Imported, runs_of
from dynalab.imports.store import Order, Outcome, check_name, store
from dynalab.models.describe import WeightSelection, describe, kinds_of, layers_of
from dynalab.store import elsewhere
from dynalab.store.references import File, References

if TYPE_CHECKING:
    from torch import Tensor

# Stands in for the metrics while only runs and steps are read.
_NOTHING = "\0"


@dataclass(frozen=True)
class Reading:
    """How checkpoints are read.

    Attributes:
        weights: Regular expression that the names of weights have something of; None: the usual rule.
        model: `module:function`, or a function, that makes the network that they are weights of.
    """

    weights: str | None = None
    model: str | Callable[[], Any] | None = None


def import_checkpoints(
    words: Sequence[str],
    outputs: Path,
    name: str | None = None,
    order: Order | None = None,
    reading: Reading | None = None,
    argv: Sequence[str] = (),
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Import checkpoints: their weight statistics are stored, and where they stand, for what asks for weights later.

    Args:
        words: Patterns, files and folders, or one table with a column of paths.
        outputs: The outputs folder.
        name: What the ensemble is called; default: what the runs have in common.
        order: What else is said of their metrics; of its form which columns of a table are run and step.
        reading: How they are read.
        argv: The command, for the record.
        tell: Is told how many checkpoints of how many are measured.

    Raises:
        ConfigError: A checkpoint cannot be read, or is not of the same network as the others; nothing is stored.
        NothingMatched: There is no checkpoint.
        StoreError: The outputs folder cannot be written.
    """
    order, reading = order or Order(), reading or Reading()
    if name is not None:
        check_name(name, name)
    frame, form, column, doubts = places.find(words, order.form)
    rows = read_rows(
        frame.drop(columns=column).assign(**{_NOTHING: 0.0}), form, "run" if form.split is None else ""
    )
    check_pieces(rows, form)
    del rows.columns[_NOTHING]
    rows.doubts += doubts
    paths = [Path(path) for path in frame[column]]
    _require_once(rows, paths)
    try:
        checkpoints = [places.files_of(path) for path in paths]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror})") from error
    for path in (file for files in checkpoints for file in files):
        if not str(path).isprintable():
            raise ConfigError(f"{str(path)!r}: a path that cannot be shown; rename it")
    reader = _Reader(reading)
    found: list[Measured] = []
    for files in checkpoints:
        tell(len(found), len(checkpoints))
        found.append(reader.measure(files))
    _fill(rows, found)
    rows.doubts.append(reader.said)
    imported = _referring(runs_of(rows, order.changes), rows, found, checkpoints, reader.references)
    computed = {order.changes.renamed.get(metric, metric) for metric in reader.computed}
    imported = replace(imported, computed=frozenset(computed))
    default = _name_of([run.name for run in imported.runs], paths)
    about = {"files": list(words), "form": "checkpoints", "options": [*reader.words, *order.words()]}
    (outcome,) = store([imported], outputs, check_name(name or default, name), about, order, argv)
    return outcome


def _fill(rows: Rows, found: Sequence[Measured]) -> None:
    """Give rows what was measured of their checkpoints."""
    for metric in dict.fromkeys(metric for item in found for metric in item.values):
        if metric in rows.columns:
            rows.notes.append(f"column {metric} of the table left out: it is computed from the checkpoints")
        rows.columns[metric] = np.array([item.values.get(metric, np.nan) for item in found])
    if bad := [place for place, item in enumerate(found) if not item.finite]:
        where = f"run {rows.names[bad[0]]} at step {rows.steps[bad[0]]:,}{' and others' if bad[1:] else ''}"
        rows.doubts.append(
            f"weights of {count(len(bad), 'checkpoint')} are not finite and are left out: {where}"
        )


def _referring(
    imported: Imported,
    rows: Rows,
    found: Sequence[Measured],
    checkpoints: Sequence[Sequence[Path]],
    references: References,
) -> Imported:
    """Return runs with where their checkpoints stand, and what these hold."""
    labels = {run.name: run.label for run in imported.runs}
    kept: dict[str, dict[int, list[File]]] = {label: {} for label in labels.values()}
    contents: list[tuple[str, int, str]] = []
    for place in np.lexsort((rows.steps, rows.names.astype(str))):
        run, step = str(rows.names[place]), int(rows.steps[place])
        if found[place].finite:
            kept[labels[run]][step] = [_file(path) for path in checkpoints[place]]
            contents.append((run, step, found[place].content))
    return replace(imported, references=replace(references, runs=kept), contents=tuple(contents))


def _require_once(rows: Rows, paths: Sequence[Path]) -> None:
    known: dict[tuple[str, int], Path] = {}
    for name, step, path in zip(rows.names, rows.steps, paths, strict=True):
        other = known.setdefault((str(name), int(step)), path)
        if other is not path:
            raise ConfigError(
                f"run {name} has two checkpoints of step {step:,}: {other} and {path} (two runs? {{run}} in a pattern "
                "tells them apart)"
            )


def _file(path: Path) -> File:
    try:
        return File.of(path)
    except StoreError as error:
        raise ConfigError(str(error)) from error


def _name_of(runs: Sequence[str], paths: Sequence[Path]) -> str:
    """Return what runs are called together: the beginning of their names, else the folder that all are in."""
    if len(runs) == 1:
        return runs[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*runs, strict=False))
    common = "".join(letters[0] for letters in same)
    common = re.sub(r"[-_./=]*(seed[-_.=]*\d*)?[-_./=]*$", "", common, flags=re.I)
    folder = os.path.basename(os.path.commonpath([os.path.abspath(path) for path in paths]))
    return common if len(common) > 1 else folder


class _Reader:
    """Measures checkpoints that are all of one network, that of the first where none is named."""

    def __init__(self, reading: Reading) -> None:
        self._model: Model | None = None if reading.model is None else build(reading.model)
        self._pattern: re.Pattern[str] | None = None
        if reading.weights is not None:
            try:
                self._pattern = re.compile(reading.weights)
            except re.error as error:
                raise ConfigError(
                    f"--weights {reading.weights}: not a regular expression ({error})"
                ) from error
        self._selection: WeightSelection | None = None
        self._shapes: Shapes = {}
        self._first: Path | None = None
        model = None if self._model is None else self._model.name
        self._options = {"--weights": reading.weights, "--model": model}
        self.computed: dict[str, None] = {}
        self.said = ""

    @property
    def words(self) -> list[str]:
        """The options of the command that say the same."""
        return [word for name, value in self._options.items() if value for word in (name, value)]

    @property
    def references(self) -> References:
        """What counts, without the files."""
        if self._model is None:
            return References(self._shapes, {})
        layers, kinds = (
            {
                part: some
                for part, members in parts.items()
                if (some := [n for n in members if n in self._shapes])
            }
            for parts in (layers_of(self._model.network), kinds_of(self._model.network))
        )
        return References(self._shapes, {}, layers, kinds)

    def measure(self, files: Sequence[Path]) -> Measured:
        """Measure a checkpoint.

        Raises:
            ConfigError: It cannot be read, or is of another network than the first.
        """
        try:
            tensors = elsewhere.read(files)
        except StoreError as error:
            raise ConfigError(str(error)) from error
        try:
            selection, tensors = self._counted(tensors, files[0])
        except ConfigError as error:
            raise ConfigError(f"{files[0]}: {error}") from error
        found = measure(tensors, selection, list(self._shapes))
        self.computed |= dict.fromkeys(found.values)
        if self._model is not None and found.finite:
            return replace(found, values=found.values | self._model.measure())
        return found

    def _counted(self, tensors: dict[str, Tensor], path: Path) -> tuple[WeightSelection, dict[str, Tensor]]:
        """Return what counts of a checkpoint, the same as of the first one, and the tensors that have it."""
        names = list(tensors)
        if self._model is not None:
            parameters = self._model.load(tensors)
            tensors = {name: value.detach() for name, value in self._model.network.named_parameters()}
        shapes = shapes_of(tensors)
        if self._model is not None and self._pattern is None:
            selection = describe(self._model.network)
        else:
            selection = counted(shapes, self._pattern)
        matrices = tuple(matrix for matrix in selection.matrices if matrix.parameter in shapes)
        selection = replace(selection, matrices=matrices)
        weights = [matrix.parameter for matrix in selection.matrices]
        if not weights:
            pattern = "" if self._pattern is None else f"; --weights {self._pattern.pattern} fits none"
            raise ConfigError(
                f"no weights: no tensor of floating-point numbers with two or more axes counts{pattern} "
                f"(there are {listing(names, 6)})"
            )
        known = parameters if self._model is not None else [*weights, *selection.biases]
        kept = {name: shapes[name] for name in shapes if name in known}
        if self._selection is None:
            self._selection, self._shapes, self._first = selection, kept, path
            how = "by their names" if self._model is None else "as the network of --model says"
            how = how if self._pattern is None else f"by --weights {self._pattern.pattern}"
            self.said = said(selection, names, how)
        elif kept != self._shapes:
            raise ConfigError(_apart(kept, self._shapes, self._first))
        return selection, tensors


def _apart(own: Shapes, others: Shapes, first: Path | None) -> str:
    """Return how the weights of a checkpoint are other ones than those of the first."""
    name = next(name for name in dict.fromkeys([*others, *own]) if own.get(name) != others.get(name))
    here, there = (
        f"shape {shapes[name]}" if name in shapes else "no such weights" for shapes in (own, others)
    )
    how = "networks of other weights are imported each under a name of its own"
    return f"{name}: {here}, and {there} in {first}; {how}"
