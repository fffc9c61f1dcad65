"""Claims against the commands of a sheet, before anything is trained: what no result could have is refused.

A name that is none gives null, and null can agree: that no run has a `generalized_step` is true of every run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.core.words import listed
from dynalab.reproduce.commands import Read, Step
from dynalab.reproduce.expression import Expression
from dynalab.reproduce.paths import require_names
from dynalab.reproduce.rows import never_is, written
from dynalab.reproduce.shapes import Shape, joined, of_analysis, of_training
from dynalab.reproduce.sheet import Claim, ScaleName, Sheet, SheetError, placed
from dynalab.reproduce.sources import Source, needed, read_by, sources
from dynalab.reproduce.words import TRAIN


def check(
    sheet: Sheet, scale: ScaleName, steps: Sequence[Step], under: Sequence[Sequence[Step]], read: Read
) -> dict[str, Shape]:
    """Refuse claims that no result of their commands could be about, and removals that leave the main one as it is.

    Args:
        sheet: The sheet.
        scale: One of its scales.
        steps: The commands.
        under: Those under each of the removals.
        read: All of these, read.

    Returns:
        Name -> what results may hold, of claims whose paths lead through what only the results themselves can tell.

    Raises:
        SheetError: Something in a claim, or a removal, cannot be.
    """
    untold: dict[str, Shape] = {}
    for name, claim in sheet.claims.items():
        if scale in claim.not_at:
            continue
        with placed("claims", name):
            shape = _checked(claim, steps, read)
            if not require_names(claim, shape):
                untold[name] = shape
    name, main = sheet.main_claim, sheet.claims[sheet.main_claim]
    for place, context in enumerate(under) if scale not in main.not_at else ():
        with placed("scales", scale, "removals", str(place)):
            if needed(main, context) == needed(main, steps):
                names = listed([step.name for step in needed(main, steps)])
                raise SheetError(
                    f"the main claim {name} needs {names}, of which it replaces none", "commands"
                )
            try:
                require_names(main, _checked(main, context, read))
            except ConfigError as error:
                raise ConfigError(f"under it the main claim {name} is about nothing: {error}") from error
    return untold


def _checked(claim: Claim, steps: Sequence[Step], read: Read) -> Shape:
    """Return what the results that a claim reads may hold."""
    kept = _kept(claim, sources(claim, steps, read))
    if claim.by is not None:
        _require_levels(claim, kept)
    for place, text in ((("rows", "formula"), claim.rows.formula), (("x",), claim.x)):
        if text:
            with placed(*place):
                _require_numbers(Expression(text), claim, kept)
    if claim.x is not None:
        _require_several(Expression(claim.x), kept)
    if claim.rows.analysis == TRAIN:
        return of_training(joined(item.config for item in kept), joined(item.columns for item in kept))
    return joined(of_analysis(read.analyses[step][0].module) for step in read_by(claim, steps))


def _kept(claim: Claim, given: Sequence[Source]) -> list[Source]:
    """Return the sources that `where` leaves."""
    kept = list(given)
    for key, wanted in claim.where.items():
        with placed("where", key):
            if not any(item.has(key) for item in given):
                raise ConfigError(f"no run has this key{_near(key, given)}")
            if not any(item.may_be(key, wanted) for item in given):
                raise ConfigError(never_is(key, wanted, _values(key, given)))
        kept = [item for item in kept if item.may_be(key, wanted)]
    if not kept:
        wanted = listed([f"{key}={written(value)}" for key, value in claim.where.items()])
        raise SheetError(f"no run has {wanted} together" if given else "nothing is trained", "where")
    return kept


def _require_levels(claim: Claim, kept: Sequence[Source]) -> None:
    """Refuse a comparison of what is not there."""
    assert claim.by is not None and claim.of is not None
    with placed("by"):
        _require_key(claim.by, kept)
    for level in claim.of:
        if not any(item.may_be(claim.by, level) for item in kept):
            names = _values("command", kept)
            raise SheetError(never_is(claim.by, level, _values(claim.by, kept), names), "of")
    if claim.pair:
        one, other = (
            _values("seed", [item for item in kept if item.may_be(claim.by, level)]) for level in claim.of
        )
        if not set(one) & set(other):
            a, b = map(written, claim.of)
            raise SheetError(
                f"no seed is of both: {a} has {listing(map(written, one))}; {b} none of these", "pair"
            )


def _require_numbers(expression: Expression, claim: Claim, kept: Sequence[Source]) -> None:
    for name in expression.names:
        if name in claim.rows.terms:
            continue
        _require_key(name, kept, [*claim.rows.terms])
        for value in _values(name, kept):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{name} in {expression.text!r} is {written(value)}, and no number")


def _require_several(expression: Expression, kept: Sequence[Source]) -> None:
    """Refuse an x that is the same in all runs, as far as that is known."""
    known = [{name: item.values(name) for name in expression.names} for item in kept]
    if all(values and len(values) == 1 for names in known for values in names.values()):
        found = {
            expression.value({name: values[0] for name, values in names.items() if values}) for names in known
        }
        if len(found) < 2:
            raise SheetError(
                f"{expression.text!r} is {written(found.pop())} in all runs; two values are needed", "x"
            )


def _require_key(key: str, kept: Sequence[Source], terms: Sequence[str] = ()) -> None:
    lacking = [item for item in kept if not item.has(key)]
    if len(lacking) == len(kept):
        also = f"; terms are {listing(terms)}" if terms else ""
        raise ConfigError(f"{key} is no key of a run{_near(key, kept, terms)}{also}")
    if lacking:
        names = listed(list(map(written, _values("command", lacking))))
        raise ConfigError(f"{key} is no key of what {names} trained; where: {{KEY: VALUE}} leaves it out")


def _values(key: str, given: Iterable[Source]) -> list[Any]:
    """Return the values of a key that are known."""
    found = [value for item in given for value in item.values(key) or ()]
    return [value for place, value in enumerate(found) if value not in found[:place]]


def _near(key: str, given: Iterable[Source], more: Collection[str] = ()) -> str:
    """Return the key that may be meant, or all that are."""
    legal = {name for item in given for name in item.keys}.union(more)
    return did_you_mean(key, legal) or f"; there are {listing(legal)}"
