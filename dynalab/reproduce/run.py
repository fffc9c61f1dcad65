"""A claim sheet at a scale: its commands carried out, its claims judged, its removals held against the main one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError
from dynalab.core.progress import counted
from dynalab.core.version import __version__
from dynalab.reproduce.check import check
from dynalab.reproduce.commands import Done, Read, Run, Step, carry_out, read, steps_of
from dynalab.reproduce.documents import analysed, trained
from dynalab.reproduce.paths import require_names
from dynalab.reproduce.result import Failed, Outcome, Removed, Reproduction, changed, write
from dynalab.reproduce.rows import Document, rows_of, why_none
from dynalab.reproduce.shapes import Shape, joined, of_value
from dynalab.reproduce.sheet import Claim, Scale, ScaleName, Sheet, SheetError
from dynalab.reproduce.sources import needed, read_by
from dynalab.reproduce.statistics import Estimate, estimate
from dynalab.reproduce.verdict import Judged, judge
from dynalab.reproduce.words import TRAIN


def scale_of(name: str, sheet: Sheet, scale: ScaleName) -> Scale:
    """Return a sheet's scale, or raise a `ConfigError`: it has no such."""
    if scale not in sheet.scales:
        raise ConfigError(f"reproduce {name} --scale {scale}: the sheet has {listing(sheet.scales)}")
    return sheet.scales[scale]


@dataclass(frozen=True)
class Planned:
    """A sheet at a scale, read and checked: nothing has been trained.

    Attributes:
        steps: Its commands.
        under: Those that the main claim needs under each of its removals; steps that both have are equal.
        read: All of these, read.
        untold: Claim -> what results may hold, where a path leads through what only results can tell.
    """

    steps: list[Step]
    under: list[list[Step]]
    read: Read
    untold: dict[str, Shape]

    @property
    def every(self) -> list[Step]:
        """All commands, each once."""
        return list(dict.fromkeys([*self.steps, *(step for context in self.under for step in context)]))


def plan(name: str, sheet: Sheet, scale: ScaleName, run: Run) -> Planned:
    """Read a sheet's commands at a scale, and check its claims against them.

    Raises:
        SheetError: No result of its commands could be what a claim is about.
        ConfigError: The sheet has no such scale, or a command cannot be used.
    """
    chosen, main = scale_of(name, sheet, scale), sheet.claims[sheet.main_claim]
    steps, contexts = steps_of(chosen.commands), [steps_of(chosen.under(item)) for item in chosen.removals]
    under = [needed(main, context) for context in contexts]
    found = read([*steps, *(step for context in under for step in context)], run)
    return Planned(steps, under, found, check(sheet, scale, steps, under, found))


def reproduce(name: str, sheet: Sheet, scale: ScaleName, run: Run) -> Reproduction:
    """Carry a sheet out at a scale, and store what becomes of its claims.

    What is stored is not computed again, so the same call goes on where another was interrupted.

    Raises:
        ConfigError: As `plan`; nothing has been trained.
        KeyboardInterrupt: It was stopped; the state is saved.
        DynalabError: Nothing can be trained, or stored, at all.
    """
    planned = plan(name, sheet, scale, run)
    steps, under, main = planned.steps, planned.under, sheet.claims[sheet.main_claim]
    done = carry_out(planned.read, run)
    lost = dict(_lost(sheet, planned.untold, done))
    claims = [
        _outcome(key, claim, *_judged(claim, scale, steps, done, lost.get(key)))
        for key, claim in counted([*sheet.claims.items()], "claims", "judging")
    ]
    removals, failed = [], [Failed(command=s.name, words=s.text, why=why) for s, why in done.failed.items()]
    failed += [Failed(command="claim", words=key, why=why) for key, why in lost.items()]
    for removal, context in zip(sheet.scales[scale].removals, under, strict=True):
        found, judged = _judged(main, scale, context, done, lost.get(sheet.main_claim))
        removals.append(
            Removed(
                removes=removal.removes,
                claim=sheet.main_claim,
                verdict=judged.verdict,
                measured=found.value,
                interval=found.interval,
                n=found.n,
                why=judged.why,
            )
        )
        if judged.verdict == "agrees":
            why = f"the claim {sheet.main_claim} agrees without its cause: {judged.why}"
            failed.append(Failed(command="removal", words=removal.removes, why=why))
    own, runs = _ids(steps, done)
    others, more = _ids([step for context in under for step in context], done)
    made = Reproduction(
        name=name,
        scale=scale,
        title=sheet.title,
        paper=str(sheet.source or ""),
        arxiv=sheet.source.arxiv if sheet.source else "",
        main=sheet.main_claim,
        claims=tuple(claims),
        removals=tuple(removals),
        failed=tuple(failed),
        ensembles=own,
        analyses=tuple(
            dict.fromkeys(
                f"{r.kind}-{r.id}" for s in steps for r, _ in done.results.get(s, ()) if not r.unstored
            )
        ),
        removed=tuple(item for item in others if item not in own),
        removed_runs=tuple(run for run in more if run not in runs and run.partition("/")[0] in own),
        commit=sheet.commit,
        sheet=hashlib.sha256(msgspec.json.encode(sheet)).hexdigest()[:10],
        dynalab=__version__,
    )
    if before := write(run.outputs, made):
        run.warn(changed(before, made))
    return made


def _broken(claim: Claim, steps: Sequence[Step], done: Done) -> list[Step]:
    """Return the steps that failed on the way to a claim; what it leaves out by `where` does not matter to it."""
    named = claim.where.get("command")
    return [
        step
        for step in needed(claim, steps)
        if step in done.failed and (step.words.verb == "analyze" or named in (None, step.name))
    ]


def _lost(sheet: Sheet, untold: Mapping[str, Shape], done: Done) -> Iterator[tuple[str, str]]:
    """Yield claims with names that stand in none of the sheet's results of their kind, and which these are."""
    every = [*done.asked, *done.results]
    for key, shape in untold.items():
        claim = sheet.claims[key]
        # By what no command is named; a claim of two sides has to have something there.
        bare = msgspec.structs.replace(claim, where={}, by=claim.by and "ensemble")
        seen = joined(of_value(item.tree) for item in _documents(bare, every, done))
        try:
            require_names(claim, shape.filled(seen))
        except SheetError as error:
            yield key, str(error)


def _judged(
    claim: Claim, scale: ScaleName, steps: Sequence[Step], done: Done, lost: str | None
) -> tuple[Estimate, Judged]:
    """Return what was measured of a claim, and its verdict; a claim whose command failed has none.

    Args:
        claim: The claim.
        scale: The scale.
        steps: The commands.
        done: What came of them.
        lost: The names in it that no result has, in words.
    """
    if scale in claim.not_at:
        return Estimate(None, None, 0), Judged("not_at_this_scale", claim.not_at[scale])
    found = Estimate(None, None, 0)
    if lost:
        return found, Judged("undecided", f"it cannot be computed: {lost}")
    try:
        documents = _documents(claim, steps, done)
        rows = rows_of(claim, documents)
        found = estimate(claim, rows) if rows else Estimate(None, None, 0, why_none(claim, documents))
    except ConfigError as error:
        return found, Judged("undecided", f"it cannot be computed: {error}")
    if broken := _broken(claim, steps, done):
        return found, Judged("undecided", f"its command {broken[0].name} failed: {done.failed[broken[0]]}")
    return found, judge(claim, found)


def _documents(claim: Claim, steps: Sequence[Step], done: Done) -> list[Document]:
    """Return the results that a claim reads."""
    read = read_by(claim, steps)
    if claim.rows.analysis == TRAIN:
        paths = [path for _, path in claim.rows.paths()]
        listed = [trained(step.name, done.asked.get(step, []), paths) for step in read]
        return [document for some in listed for document in some]
    # What several commands ask for is the one's that the claim names; else the first's.
    first = sorted(steps, key=lambda step: step.name != claim.where.get("command"))
    asked_by = [(step.name, item) for step in reversed(first) for item in done.asked.get(step, ())]
    by = {key: name for name, item in asked_by for key in (item.ensemble.id, *(run.id for run in item.runs))}
    return [
        analysed(step.name, result, asked, by)
        for step in read
        for result, asked in done.results.get(step, ())
    ]


def _outcome(key: str, claim: Claim, found: Estimate, judged: Judged) -> Outcome:
    return Outcome(
        id=key,
        says=claim.says,
        published=claim.published,
        section=claim.section,
        statistic=claim.statistic,
        unit=claim.unit,
        region=claim.agrees,
        measured=found.value,
        interval=found.interval,
        n=found.n,
        verdict=judged.verdict,
        why=judged.why,
    )


def _ids(steps: Sequence[Step], done: Done) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the ensembles, and of the runs, that steps asked for."""
    asked = [item for step in steps for item in done.asked.get(step, ())]
    runs = (run.id for item in asked for run in item.runs)
    return tuple(dict.fromkeys(item.ensemble.id for item in asked)), tuple(dict.fromkeys(runs))
