"""A claim sheet at a scale: its commands carried out, its claims judged, its removals held against the main one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError
from dynalab.core.version import __version__
from dynalab.reproduce.commands import Done, Run, Step, carry_out, steps_of
from dynalab.reproduce.documents import analysed, reads_rows, trained
from dynalab.reproduce.result import Failed, Outcome, Removed, Reproduction, write
from dynalab.reproduce.rows import Document, rows_of
from dynalab.reproduce.sheet import TRAIN, Claim, Scale, ScaleName, Sheet
from dynalab.reproduce.statistics import Estimate, estimate
from dynalab.reproduce.verdict import Judged, judge


def scale_of(name: str, sheet: Sheet, scale: ScaleName) -> Scale:
    """Return a sheet's scale, or raise a `ConfigError`: it has no such."""
    if scale not in sheet.scales:
        raise ConfigError(f"reproduce {name} --scale {scale}: the sheet has {listing(sheet.scales)}")
    return sheet.scales[scale]


def plan(scale: Scale) -> tuple[list[Step], list[list[Step]]]:
    """Return the steps of a scale, and those under each of its removals; steps that both have are equal."""
    return steps_of(scale.commands), [steps_of(scale.under(removal)) for removal in scale.removals]


def reproduce(name: str, sheet: Sheet, scale: ScaleName, run: Run) -> Reproduction:
    """Carry a sheet out at a scale, and store what becomes of its claims.

    What is stored is not computed again, so the same call goes on where another was interrupted.

    Raises:
        ConfigError: The sheet has no such scale, or a command cannot be used.
        KeyboardInterrupt: It was stopped; the state is saved.
        DynalabError: Nothing can be trained, or stored, at all.
    """
    chosen = scale_of(name, sheet, scale)
    steps, under = plan(chosen)
    main = sheet.claims[sheet.main_claim]
    needed = [_needed(main, context) for context in under]
    done = carry_out([*steps, *(step for context in needed for step in context)], run)
    claims = [
        _outcome(key, claim, *_judged(claim, scale, steps, done)) for key, claim in sheet.claims.items()
    ]
    removals, failed = [], [Failed(command=s.name, words=s.text, why=why) for s, why in done.failed.items()]
    for removal, context in zip(chosen.removals, needed, strict=True):
        found, judged = _judged(main, scale, context, done)
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
    own, others = _ensembles(steps, done), _ensembles([s for context in needed for s in context], done)
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
        ensembles=tuple(own),
        analyses=tuple(dict.fromkeys(f"{r.kind}-{r.id}" for s in steps for r, _ in done.results.get(s, ()))),
        removed=tuple(item for item in others if item not in own),
        commit=sheet.commit,
        sheet=hashlib.sha256(msgspec.json.encode(sheet)).hexdigest()[:10],
        dynalab=__version__,
    )
    write(run.outputs, made)
    return made


def _needed(claim: Claim, steps: Sequence[Step]) -> list[Step]:
    """Return the steps that a claim reads, and what they build on."""
    return list(dict.fromkeys(item for step in _read_by(claim, steps) for item in step.and_above()))


def _read_by(claim: Claim, steps: Sequence[Step]) -> list[Step]:
    """Return the steps whose results a claim reads."""
    if claim.rows.analysis == TRAIN:
        named = claim.where.get("command")
        return [step for step in steps if step.words.verb != "analyze" and named in (None, step.name)]
    named = claim.where.get("analysis")
    return [step for step in steps if step.words.kind == claim.rows.analysis and named in (None, step.name)]


def _broken(claim: Claim, steps: Sequence[Step], done: Done) -> list[Step]:
    """Return the steps that failed on the way to a claim; what it leaves out by `where` does not matter to it."""
    named = claim.where.get("command")
    return [
        step
        for step in _needed(claim, steps)
        if step in done.failed and (step.words.verb == "analyze" or named in (None, step.name))
    ]


def _judged(claim: Claim, scale: ScaleName, steps: Sequence[Step], done: Done) -> tuple[Estimate, Judged]:
    """Return what was measured of a claim, and its verdict; a claim whose command failed has none."""
    if scale in claim.not_at:
        return Estimate(None, None, 0), Judged("not_at_this_scale", claim.not_at[scale])
    found = Estimate(None, None, 0)
    try:
        found = estimate(claim, rows_of(claim, _documents(claim, steps, done)))
    except ConfigError as error:
        return found, Judged("undecided", f"it cannot be computed: {error}")
    if broken := _broken(claim, steps, done):
        return found, Judged("undecided", f"its command {broken[0].name} failed: {done.failed[broken[0]]}")
    return found, judge(claim, found)


def _documents(claim: Claim, steps: Sequence[Step], done: Done) -> list[Document]:
    """Return the results that a claim reads."""
    read = _read_by(claim, steps)
    if claim.rows.analysis == TRAIN:
        rows = reads_rows([claim.rows.each, claim.rows.value, *claim.rows.terms.values()])
        listed = [trained(step.name, done.asked.get(step, []), rows) for step in read]
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
        region=claim.agrees,
        measured=found.value,
        interval=found.interval,
        n=found.n,
        verdict=judged.verdict,
        why=judged.why,
    )


def _ensembles(steps: Sequence[Step], done: Done) -> list[str]:
    return list(dict.fromkeys(item.ensemble.id for step in steps for item in done.asked.get(step, ())))
