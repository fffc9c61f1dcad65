"""What is said of detours: a row a state in words, the delays with their intervals, and what an R² is worth here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynalab.analysis.hmm.claims import doubt
from dynalab.analysis.hmm.findings import Detour, DetourModel, Findings, PublishedModel, known
from dynalab.analysis.hmm.tables import counted, runs_cell, state_cell, state_words
from dynalab.core.words import count, listed, p_equals, p_value, signed
from dynalab.show.blocks import Block, Cell, Dots, Say, Table

# Fewer runs than this on a side can only show large delays (as the analysis has it).
FEW = 5


def blocks(findings: Findings, *, figures: bool) -> Iterator[Block]:
    """Yield the part on detours; nothing where the analysis did not ask."""
    rows, total = findings.detours, len(findings.states)
    if not rows:
        return
    model = known(findings.detour_model) or DetourModel()
    tested = [row for row in rows if row.p_adjusted is not None]
    if not tested:
        yield Say(_untested(rows, total, model.min_visits))
    else:
        yield _table(findings, rows, model.min_visits)
        if figures:
            yield _figure(tested, total, doubt(findings))
    yield from _explained(findings, rows, model)


def _untested(rows: Sequence[Detour], total: int, least: int) -> str:
    """Why no state can be tested, in a sentence."""
    why: dict[str, list[str]] = {}
    for row in rows:
        reason = verdict(row, total, least).removeprefix("not tested").removeprefix(": ")
        why.setdefault(reason or "not tested", []).append(str(row.state))
    said = "; ".join(f"{listed(states)} ({reason})" for reason, states in why.items())
    return f"**Detours:** no state can be tested, for none is both visited and done without by {least} runs: {said}."


def headline(findings: Findings, total: int) -> list[str]:
    """Return which states are detours in sentences; nothing where none could be tested."""
    tested = [row for row in findings.detours or () if row.p_adjusted is not None]
    detours = [row for row in tested if row.verdict]
    lines = []
    for row in detours:
        visits = "" if row.visits is None else f"{counted(row.visits, total)}, "
        lines.append(
            f"State {row.state} is a **detour**: {visits}{effect(row)} steps, adjusted p "
            f"{p_equals(row.p_adjusted)}."
        )
    if tested and not detours:
        lines.append(f"No detour is shown ({count(len(tested), 'state')} tested).")
    return lines


def verdict(row: Detour, total: int, least: int) -> str:
    """Return what the test says of a state of `total` runs, tested with `least` on a side, in words."""
    visits = row.visits
    if row.verdict:
        return "detour"
    if row.p_adjusted is None:
        if visits == total:
            return "not tested: every run passes it"
        if visits == 0:
            return "not tested: no run visits it before it converges"
        if row.reason:
            return f"not tested: {row.reason}"
        if visits is not None and min(visits, total - visits) < least:
            return f"not tested: fewer than {least} runs on one side"
        return "not tested"
    if row.reason:
        return f"no: {row.reason}"
    low, high = row.interval or (None, None)
    if (low is not None and low > 0) or (high is not None and high < 0):
        # The interval is of this state alone.
        return "not shown once p is adjusted over the tested states"
    few = visits is not None and min(visits, total - visits) < FEW
    return "no delay shown" + (", but few runs: only a large one could be" if few else "")


def effect(row: Detour) -> str:
    """Return a state's cost with its interval."""
    if row.effect_steps is None:
        return "\u2013" if row.p_adjusted is None else "no estimate"
    low, high = ("open" if bound is None else signed(bound) for bound in row.interval or (None, None))
    factor = known(row.effect_ratio)
    ratio = "" if factor is None else f" (\u00d7{factor:.2f})"
    return f"{signed(row.effect_steps)}{ratio} [{low} to {high}]"


def _table(findings: Findings, rows: Sequence[Detour], least: int) -> Table:
    words, total, why = state_words(findings), len(findings.states), doubt(findings)
    cells = []
    for row in rows:
        tone = "" if row.p_adjusted is not None else "quiet"
        said = f"cannot tell: {why}" if why and row.p_adjusted is not None else verdict(row, total, least)
        cells.append(
            [
                state_cell(row.state, findings.n_states),
                words[row.state],
                None if row.visits is None else runs_cell(row.visits, total),
                Cell(row.effect_steps, effect(row), tone),
                Cell(row.p_adjusted, p_value(row.p_adjusted), tone),
                Cell(said, tone="found" if row.verdict and not why else tone),
            ]
        )
    header = ["state", "what it is", "visited by", "cost in steps [95%]", "adjusted p", "verdict"]
    caption = (
        "**Detours:** states that some runs do without, and that delay those that pass through. Runs that visit a "
        "state before they converge are compared with the runs that do not; the cost is how many steps later the "
        "visitors converge."
    )
    return Table(header, cells, caption, sortable=False)


def _figure(tested: Sequence[Detour], total: int, why: str) -> Dots:
    return Dots(
        name="detours",
        caption=(
            "**How much later the visitors of a state converge** than the other runs "
            f"({f'no detour can be told: {why}' if why else 'orange: a detour'}). The line "
            "holds the delays that the rank test does not refuse, with censored runs; an arrow: training ended before "
            "the bound was seen. p: the larger of two, Gehan's rank test by permutation of the runs and the log-rank "
            "test counted from a run's entry on (Mantel and Byar; a run that takes long has more time to visit), "
            "adjusted over the tested states (Benjamini and Hochberg). Where the second does not refuse it, a line "
            "reaches down to 0."
        ),
        alt="Delay of the visitors of each state in steps: "
        + "; ".join(f"state {row.state} {effect(row)}" for row in tested),
        labels=[f"state {row.state}" for row in tested],
        values=[row.effect_steps for row in tested],
        intervals=[row.interval for row in tested],
        marked=[row.verdict and not why for row in tested],
        notes=[
            f"{'' if row.visits is None else f'{counted(row.visits, total)}, '}p {p_equals(row.p_adjusted)}"
            for row in tested
        ],
        unit="steps",
    )


def _explained(findings: Findings, rows: Sequence[Detour], model: DetourModel) -> Iterator[Block]:
    """Two regressions of the convergence step, each beside the R2 that it has where there is nothing to find."""
    converged = {row.step for row in findings.convergence or () if row.step is not None}
    # Without different steps there is nothing to explain.
    if len(rows) < 2 or len(converged) < 2:
        return
    cells = []
    # A version that had it for left-out runs held R2 against that of another regression.
    if model.r2 is not None and known(model.loo_r2) is None:
        states = listed([str(k) for k in model.states])
        cells.append(
            [
                f"visits to the tested states ({states})",
                Cell(model.r2, _r2(model.r2)),
                _null(model.null_r2, model.null_r2_95),
                "a run visits as likely as any that takes as long: time to visit alone",
            ]
        )
    said = model.published
    if said and said.r2 is not None:
        cells.append(
            [
                "share of training in every state, as published",
                Cell(said.r2, _r2(said.r2)),
                _null(said.accounting_r2, said.accounting_r2_95),
                "early states exchanged between the runs: accounting alone",
            ]
        )
    if not cells:
        return
    header = [
        f"{'logarithm of the ' if model.log_time else ''}convergence step regressed on",
        "R\u00b2",
        "R\u00b2 where nothing delays: median (95% below)",
        "how that is made",
    ]
    caption = "How much of the convergence step the states explain"
    if model.censored:
        caption += (
            f"; {count(model.censored, 'run')} never converged: of visits it is by likelihood, over all runs"
        )
    yield Table(header, cells, caption, sortable=False)
    if said and (lines := _doubts(said, rows)):
        yield Say(" ".join(lines), note=True)


def _r2(value: float) -> str:
    """Two digits, and near 1 two digits of what is missing."""
    digits = 2
    while digits < 5 and 0 < 1 - value < 2 * 10.0**-digits:
        digits += 1
    return f"{value:.{digits}f}"


def _null(middle: float | None, high: float | None) -> str | None:
    if middle is None:
        return None
    return _r2(middle) if high is None else f"{_r2(middle)} ({_r2(high)})"


def _doubts(said: PublishedModel, rows: Sequence[Detour]) -> list[str]:
    """What the published regression is worth here, in words."""
    middle, high = said.accounting_r2, said.accounting_r2_95
    if said.r2 is None or middle is None:
        return []
    more = "" if high is None or said.r2 > high else ", and the regression as published no more"
    lines = [
        f"Accounting alone gives an R\u00b2 of {_r2(middle)}{more}: time before convergence is time in the states "
        "before it, so the shares add up to the answer whether or not a state delays."
    ]
    named = [str(k) for k in said.detours]
    if named and named != [str(row.state) for row in rows if row.verdict]:
        word = "state" if len(named) == 1 else "states"
        lines.append(
            f"The published rule (some run converges without the state, and its coefficient is positive) would call "
            f"{word} {listed(named)} {'a detour' if len(named) == 1 else 'detours'}."
        )
    return lines
