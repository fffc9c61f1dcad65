"""Stored analyses: result.json and tables in Parquet, in a folder that appears whole and is found by id."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config import registry
from dynalab.core.atomic import making, replacing, write_json
from dynalab.core.errors import ConfigError, NothingMatched, StoreError
from dynalab.core.records import finite, restore
from dynalab.core.words import clean, count, listed
from dynalab.store.names import is_name
from dynalab.store.paths import AnalysisPaths, OutputPaths
from dynalab.store.read import check, mapping, positive, read_bytes, read_json, text, whole
from dynalab.store.stored import StoredEnsemble

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
# The kind of what two stored analyses say beside each other; nobody asks for it by this name.
CONTRAST = "contrast"


@dataclass(frozen=True)
class Result:
    """One stored analysis, as `dynalab.load("hmm-7ebafd365b")` opens it.

    `result["paths"]` is a plain value of the result (`result.data` has all that result.json holds, with the keys of the
    command's `--json`), `result.table("states")` one of its tables as a pandas data frame, `result.frames()` all of
    them. Nothing is computed, and nothing but JSON and Parquet is read.

    Attributes:
        unstored: Why it could not be stored, as in a folder that is read-only; empty where it is.
        kept: The tables of one that could not.
    """

    paths: AnalysisPaths
    data: Mapping[str, Any]
    unstored: str = ""
    kept: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        runs = f"{count(len(self.data['inputs']), 'run')} of " if self.data.get("inputs") else ""
        warnings = f", {count(len(self.warnings), 'warning')}" if self.warnings else ""
        return clean(f"Result({self.kind}-{self.id}, {runs}{listed(self.ensembles, 3)}{warnings})")

    def _repr_html_(self) -> str:
        from dynalab.store import notebook

        return notebook.result(self)

    @property
    def id(self) -> str:
        """Its identity hash."""
        return self.paths.digest

    @property
    def kind(self) -> str:
        """`hmm`, ..."""
        return self.paths.kind

    @property
    def ensemble(self) -> str:
        """The ensemble it is about, or the first of several."""
        return str(self.data["ensemble"])

    @property
    def ensembles(self) -> list[str]:
        """Every ensemble it is about."""
        return list(self.data.get("ensembles") or [self.ensemble])

    @property
    def across(self) -> bool:
        """Whether it is about several ensembles together."""
        return len(self.ensembles) > 1

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting it."""
        return list(self.data["warnings"])

    @property
    def failed(self) -> list[str]:
        """What failed where it was made, so that it is of the others: the same command makes it again."""
        return list(self.data.get("failed") or ())

    @cached_property
    def value(self) -> Any:
        """Its findings, typed, tables included; None where they cannot be restored.

        That is so where the analysis is not there (a plug-in's), or had other findings in the version that made it.
        """
        try:
            return self._restore()
        except (ConfigError, AttributeError, ValueError):
            return None

    @cached_property
    def headline(self) -> str | None:
        """What it comes to, in a sentence, with `**` around bold words; None where its analysis cannot say."""
        try:
            module = registry.find("analysis", self.kind, registry.search_path()).module
            blocks = () if self.value is None else module.show(self.value, ())
            return next((block.text for block in blocks if getattr(block, "headline", False)), None)
        except Exception:
            # A stranger's file, read by anybody's module: what is wrong with it is for `view` to say.
            return None

    def restored(self) -> Any:
        """Return its findings, typed; a `StoreError` where they cannot be restored."""
        with reading(self):
            return self._restore() if self.value is None else self.value

    def _restore(self) -> Any:
        kind, form = self.kind, "Findings"
        if kind == CONTRAST:
            kind, form = str(self.data["of"][0]).rpartition("-")[0], "Contrast"
        module, names = registry.find("analysis", kind, registry.search_path()).module, self.tables()
        return restore(
            getattr(module, form), self.data, lambda name: self.table(name) if name in names else None
        )

    def __getitem__(self, key: str) -> Any:
        if key not in self.data:
            raise KeyError(f"{self.kind}-{self.id} has no {key}; there are {', '.join(self.data)}")
        return self.data[key]

    def tables(self) -> list[str]:
        """Return the names of its tables."""
        return list(self.kept if self.unstored else self.paths.tables())

    def table(self, name: str) -> pd.DataFrame:
        """Return a table as a data frame; a `ConfigError` where there is none, a `StoreError` where it is damaged."""
        import pandas as pd
        import pyarrow as pa

        if name not in self.tables():
            raise ConfigError(
                f"{name}: this analysis has no such table; there are {', '.join(self.tables())}"
            )
        if self.unstored:
            return self.kept[name]
        path = self.paths.table(name)
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException) as error:
            raise StoreError(f"{path} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return every table as a data frame, by name."""
        return {name: self.table(name) for name in self.tables()}


def write_result(
    paths: AnalysisPaths, data: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], *, replace: bool = True
) -> Result:
    """Store an analysis; its folder appears whole, in the place of one that stands there if `replace` says so.

    Where the folder cannot be written the result is whole all the same, and says why it is not stored.
    """
    document = {"schema_version": SCHEMA_VERSION, **finite(data)}
    try:
        paths.refuse_links()
        with making(paths.root, replace=replace) as folder:
            made = AnalysisPaths(folder)
            for name, table in tables.items():
                with replacing(made.table(name)) as temporary:
                    table.to_parquet(temporary, index=False)
            write_json(made.result, document)
    except StoreError as error:
        return Result(paths, document, f"{paths.root.name} is not stored: {error}", tables)
    return Result(paths, document)


def read_result(paths: AnalysisPaths) -> Result:
    """Read an analysis, or raise a `StoreError`: it is damaged."""
    data = read_json(paths.result)
    try:
        check(data, _RESULT)
        if missing := [key for key in ("id", "kind", "ensemble", "warnings") if key not in data]:
            raise ValueError(f"it has no {missing[0]}")
        if (data["kind"], data["id"]) != (paths.kind, paths.digest):
            raise ValueError(f"it is {data['kind']}-{data['id']}")
    except ValueError as error:
        raise StoreError(f"{paths.result} is damaged: {error}") from error
    return Result(paths, data)


_RESULT = {
    "schema_version": whole,
    **dict.fromkeys(("id", "kind", "ensemble"), is_name),
    "ensembles": ([is_name],),
    "warnings": [text],
    "failed": [text],
    "config": (mapping(lambda value: True),),
    "inputs": ([{"run": text, "steps": (whole,), "attempt": (positive,)}],),
    "version": whole,
    "tables": [is_name],
    **dict.fromkeys(("created", "dynalab", "decoded_with"), (text,)),
}


@contextlib.contextmanager
def reading(result: Result) -> Iterator[None]:
    """Read what only the module of an analysis knows the form of; another form is a `StoreError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise StoreError(
            f"{result.paths.result} is damaged: it is no result of analyze {result.kind} ({error!r}); "
            f"`dynalab analyze {result.kind} --force` with its runs and keys makes it again"
        ) from error


def whole_result(paths: AnalysisPaths) -> Result | None:
    """Return an analysis if it is stored and whole, tables included; otherwise it has to be made again."""
    try:
        result = read_result(paths)
    except StoreError:
        return None
    return result if set(result.data.get("tables", ())) <= set(result.tables()) else None


def results(outputs: Path, ensembles: Sequence[str] | None = None, kind: str | None = None) -> list[Result]:
    """Return stored analyses, oldest first, of a kind and about some ensembles, where these are given.

    `damaged_results` names those that cannot be read.
    """
    readable = []
    for paths in OutputPaths(outputs).stored_analyses():
        if kind is None or paths.kind == kind:
            with contextlib.suppress(StoreError):
                readable.append(read_result(paths))
    if ensembles is not None:
        readable = [result for result in readable if {*result.ensembles} & {*ensembles}]
    return sorted(readable, key=lambda result: str(result.data.get("created", "")))


def damaged_results(outputs: Path, ensembles: Sequence[str] | None = None) -> list[str]:
    """Return a line about each stored analysis that cannot be read.

    Args:
        outputs: The outputs folder.
        ensembles: Only those that name one of these ensembles in what is left of them, or name none.
    """
    lines = []
    for paths in OutputPaths(outputs).stored_analyses():
        try:
            read_result(paths)
        except StoreError as error:
            if ensembles is None or not (about := _ensembles_of(paths)) or {*about} & {*ensembles}:
                lines.append(f"{error}; {_again(paths)}")
    return lines


def find_result(outputs: Path, ref: str) -> Result:
    """Return the analysis with an id (`hmm-<hash>` or the hash, or a prefix of it).

    Raises:
        NothingMatched: There is none, or several.
        StoreError: It is damaged.
    """
    paths = find_analysis(outputs, ref)
    try:
        return read_result(paths)
    except StoreError as error:
        raise StoreError(f"{error}; {_again(paths)}") from error


def find_analysis(outputs: Path, ref: str) -> AnalysisPaths:
    """Return the folder of the analysis with an id, whole or damaged; `NothingMatched` for none, or several."""
    found = _meant(outputs, ref)
    if len(found) != 1:
        count = "several analyses have" if found else "no stored analysis has"
        raise NothingMatched(f"{ref}: {count} this id; see `dynalab runs list --analyses`")
    return found[0]


def tell_apart(outputs: Path, refs: Sequence[str]) -> tuple[list[str], list[AnalysisPaths]]:
    """Return which of some references are to runs or ensembles, and the analyses that the others are to.

    Raises:
        ConfigError: The beginning of an id may be either's.
        NothingMatched: One may be several analyses'.
    """
    kept = [StoredEnsemble(paths) for paths in OutputPaths(outputs).ensembles()] if refs else []
    whole = {item.id for item in kept} | {name for item in kept for name in item.known_names}
    rest, chosen = [], []
    for ref in refs:
        if ref.startswith("@") or ref in whole or not is_analysis(outputs, ref):
            rest.append(ref)
            continue
        if ensembles := [item.id for item in kept if item.id.startswith(ref)]:
            raise ConfigError(
                f"{ref} is ambiguous: the ensemble {ensembles[0]}, the analysis {find_analysis(outputs, ref).root.name}"
            )
        chosen.append(find_analysis(outputs, ref))
    return rest, list(dict.fromkeys(chosen))


def _meant(outputs: Path, ref: str) -> list[AnalysisPaths]:
    """Return the analyses whose folder it is, or whose id begins so, with its kind or without."""
    return [
        paths
        for paths in OutputPaths(outputs).stored_analyses()
        if paths.root.name.startswith(ref)
        or paths.digest.startswith(ref)
        or os.path.abspath(paths.root) == os.path.abspath(ref)
    ]


def is_analysis(outputs: Path, ref: str) -> bool:
    """Return whether a stored analysis, whole or damaged, has this id."""
    return bool(_meant(outputs, ref))


def _ensembles_of(paths: AnalysisPaths) -> list[str]:
    """Return the ensembles that a damaged result.json still names; they stand near its beginning."""
    try:
        text = read_bytes(paths.result, most=1 << 16).decode(errors="replace")
    except StoreError:
        return []
    match = re.search(r'"ensembles": \[([^\]]*)', text) or re.search(r'"ensemble": ("[^"]*")', text)
    return re.findall(r'"([^"]+)"', match[1]) if match else []


def _again(paths: AnalysisPaths) -> str:
    made = "report" if paths.kind == CONTRAST else f"analyze {paths.kind}"
    return f"the `dynalab {made}` that made it makes it again"
