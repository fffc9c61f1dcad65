"""What became of a sheet's claims at a scale, as it is stored: `outputs/reproduce/<name>-<scale>/result.json`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct

from dynalab.core.atomic import storing, write_json
from dynalab.core.errors import StoreError
from dynalab.core.records import finite
from dynalab.core.words import listed, spoken
from dynalab.reproduce.sheet import SCALES, ScaleName
from dynalab.reproduce.statistics import Bounds
from dynalab.reproduce.verdict import Verdict
from dynalab.store.names import is_name, refuse_links
from dynalab.store.paths import OutputPaths
from dynalab.store.read import read_json

SCHEMA_VERSION = 1
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a claim."""

    id: str  # its name in the sheet
    says: str  # in a sentence
    published: str | float | None  # what the paper has; null where the sheet does not say
    section: str  # of the paper, or a figure of it
    statistic: str  # what was measured
    unit: str = ""  # what that is counted in, `steps`; empty of shares, ratios and plain numbers
    region: Bounds  # where it has to lie; null: no bound
    measured: float | None  # the estimate; null where there is none
    interval: Bounds | None  # 95%; a bound of null lies beyond what was seen
    n: int  # rows that entered
    verdict: Verdict  # `agrees`, `disagrees`, `undecided` or `not_at_this_scale`
    why: str  # in words


class Removed(Struct, frozen=True, kw_only=True):
    """What became of the main claim with its cause taken away."""

    removes: str  # the cause
    claim: str  # name of the main claim
    verdict: Verdict  # `agrees` is a failure of the check
    measured: float | None  # as of a claim
    interval: Bounds | None  # as of a claim
    n: int  # rows that entered
    why: str  # in words


class Failed(Struct, frozen=True, kw_only=True):
    """What failed."""

    command: str  # its name in the sheet; `claim` where a name in one stands in no result; or `removal`
    words: str  # what it does; the claim's name; or what is removed
    why: str  # in words


class Reproduction(Struct, frozen=True, kw_only=True):
    """A whole sheet at a scale."""

    name: str  # of the sheet
    scale: ScaleName  # `ci`, `cpu` or `paper`
    title: str  # a sentence
    paper: str  # authors and year; empty where the sheet names none
    arxiv: str  # its number there; empty likewise
    main: str  # name of the main claim
    claims: tuple[Outcome, ...]
    removals: tuple[Removed, ...]
    failed: tuple[Failed, ...]
    ensembles: tuple[str, ...]  # ids of those that the claims are about
    analyses: tuple[str, ...]  # ids of theirs
    removed: tuple[str, ...]  # ids of the ensembles of removals alone
    # ids of the runs of removals alone in the claims' ensembles, of other seeds
    removed_runs: tuple[str, ...] = ()
    commit: str  # that the sheet was written against
    sheet: str  # hash of the sheet
    dynalab: str  # version

    @property
    def exit_code(self) -> int:
        """3 where a claim disagrees or has a name that is none, a command failed, or a removal agrees; else 0."""
        return 3 if self.failed or any(claim.verdict == "disagrees" for claim in self.claims) else 0

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(finite(msgspec.to_builtins(self)))


def write(outputs: Path, made: Reproduction) -> Reproduction | None:
    """Store a reproduction; what says the same already is left as it stands.

    Returns:
        What the sheet came to before it was changed, which is kept beside the result; None where it is as it was.

    Raises:
        StoreError: A file cannot be written.
    """
    paths = OutputPaths(outputs)
    path = paths.reproduction(made.name, made.scale)
    refuse_links(path.parent.parent, path.parent, path)
    before = None
    if path.is_file():
        # What is damaged is written anew.
        with contextlib.suppress(StoreError):
            before = read(path)
    if before is not None and _document(before) == _document(made):
        return None
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    before = before if before is not None and before.sheet != made.sheet else None
    if before is not None:
        kept = paths.reproduction(made.name, made.scale, before.sheet)
        refuse_links(kept)
        write_json(kept, _document(before))
    write_json(path, _document(made))
    return before


def _document(made: Reproduction) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, **made.as_json()}


def changed(before: Reproduction, made: Reproduction) -> str:
    """Return a line about a sheet that is not as it was: where what it came to is kept, and how verdicts differ."""
    was, now = ({claim.id: spoken(claim.verdict) for claim in item.claims} for item in (before, made))
    moved = [
        f"{name} was {was[name]} and is {now.get(name, 'gone')}" for name in was if was[name] != now.get(name)
    ]
    kept = OutputPaths(Path()).reproduction(made.name, made.scale, before.sheet)
    return (
        f"the sheet {made.name} has changed since it was tried at scale {made.scale} (its hash was {before.sheet} and "
        f"is {made.sheet}): {listed(moved, 4) if moved else 'its verdicts are the same'}; {kept} keeps what it was"
    )


def read(path: Path) -> Reproduction:
    """Read a reproduction, perhaps a stranger's.

    Raises:
        StoreError: It is damaged.
    """
    document = read_json(path)
    try:
        if not isinstance(document, Mapping) or not isinstance(document.get("schema_version"), int):
            raise ValueError("it has no schema_version")
        made = msgspec.convert(document, Reproduction)
        if path.parent.name != f"{made.name}-{made.scale}":
            raise ValueError(f"it is {made.name}-{made.scale}")
        if not is_name(made.sheet):
            raise ValueError("it does not say of which sheet it is")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}; `dynalab reproduce` makes it again") from error
    return made


def find(outputs: Path, name: str) -> Path | None:
    """Return the file of a reproduction by the name of its folder, `thilak2022-cpu`; None where there is none."""
    sheet, _, scale = name.rpartition("-")
    if scale not in SCALES:
        return None
    known = {path.parent.name: path for path in OutputPaths(outputs).stored_reproductions()}
    return known.get(f"{sheet}-{scale}")
