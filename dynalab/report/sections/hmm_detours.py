"""Detours on the page: a row a state in words, the delays with their intervals, and what an R² is worth here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.report.blocks import Block, Cell, Picture, Table, Words, cell
from dynalab.report.sections.hmm_words import state_words
from dynalab.report.words import count, listed, p_equals, p_value
from dynalab.show import plots as figures
from dynalab.show.plots.effects import signed
from dynalab.show.plots.style import state_colours

# Fewer runs than this on a side can only show large delays (as the analysis has it).
FEW = 5


def blocks(data: Mapping[str, Any], total: int) -> list[Block]:
    """Return the part of the page on detours; nothing where the analysis did not ask.

    Args:
        data: The plain values of an analysis `hmm`.
        total: Number of runs.
    """
    rows = data.get("detours")
    if not rows:
        return []
    model = data.get("detour_model") or {}
    tested = [row for row in rows if row.get("p_adjusted") is not None]
    least = int(model.get("min_visits") or 3)
    if not tested:
        return [Words(_untested(rows, total, least)), *_explained(model, data)]
    return [_table(rows, data, total, least), _picture(tested, total), *_explained(model, data)]


def _untested(rows: Sequence[Mapping[str, Any]], total: int, least: int) -> str:
    """Why no state can be tested, in a sentence."""
    why: dict[str, list[str]] = {}
    for row in rows:
        reason = verdict(row, total, least).removeprefix("not tested").removeprefix(": ")
        why.setdefault(reason or "not tested", []).append(str(row["state"]))
    said = "; ".join(f"{listed(states)} ({reason})" for reason, states in why.items())
    return f"**Detours:** no state can be tested, for none is both visited and done without by {least} runs: {said}."


def summary(data: Mapping[str, Any], total: int) -> list[str]:
    """Return which states are detours in a sentence; nothing where none could be tested.

    Args:
        data: The plain values of an analysis `hmm`.
        total: Number of runs.
    """
    tested = [row for row in data.get("detours") or () if row.get("p_adjusted") is not None]
    found = [row for row in tested if row.get("verdict")]
    lines = []
    for row in found:
        visits = "" if row.get("visits") is None else f"{row['visits']:,} of {count(total, 'run')}, "
        lines.append(
            f"State {row['state']} is a **detour**: {visits}{effect(row)} steps, adjusted p "
            f"{p_equals(row['p_adjusted'])}."
        )
    if tested and not found:
        lines.append(f"No detour is shown ({count(len(tested), 'state')} tested).")
    return lines


def verdict(row: Mapping[str, Any], total: int, least: int) -> str:
    """Return what the test says of a state, in words.

    Args:
        row: One of `detours`.
        total: Number of runs.
        least: Runs on a side below which nothing is tested.
    """
    visits = row.get("visits")
    if row.get("verdict"):
        return "detour"
    if row.get("p_adjusted") is None:
        if visits == total:
            return "not tested: every run passes it"
        if visits == 0:
            return "not tested: no run visits it before it converges"
        if row.get("reason"):
            return f"not tested: {row['reason']}"
        if visits is not None and min(visits, total - visits) < least:
            return f"not tested: fewer than {least} runs on one side"
        return "not tested"
    if row.get("reason"):
        return f"no: {row['reason']}"
    low, high = row.get("interval") or (None, None)
    if (low is not None and low > 0) or (high is not None and high < 0):
        # The interval is of this state alone.
        return "not shown once p is adjusted over the tested states"
    few = visits is not None and min(visits, total - visits) < FEW
    return "no delay shown" + (", but few runs: only a large one could be" if few else "")


def effect(row: Mapping[str, Any]) -> str:
    """Return a state's cost with its interval."""
    if row.get("effect_steps") is None:
        return "\u2013" if row.get("p_adjusted") is None else "no estimate"
    low, high = row.get("interval") or (None, None)
    ratio = f" (\u00d7{row['effect_ratio']:.2f})" if row.get("effect_ratio") is not None else ""
    return f"{signed(row['effect_steps'])}{ratio} [{_bound(low)} to {_bound(high)}]"


def _bound(value: float | None) -> str:
    return "open" if value is None else signed(value)


def _table(rows: Sequence[Mapping[str, Any]], data: Any, total: int, least: int) -> Table:
    colours, words = state_colours(data["n_states"]), state_words(data)
    cells = []
    for row in rows:
        k = row["state"]
        tone = "" if row.get("p_adjusted") is not None else "quiet"
        visits = row.get("visits")
        cells.append(
            [
                Cell(str(k), float(k), swatch=colours[k]),
                cell(words[k]),
                Cell(f"{visits:,} of {total:,}", float(visits), True) if visits is not None else cell(None),
                Cell(effect(row), row.get("effect_steps"), True, tone),
                Cell(p_value(row.get("p_adjusted")), row.get("p_adjusted"), True, tone),
                cell(verdict(row, total, least), tone="found" if row.get("verdict") else tone),
            ]
        )
    header = ["state", "what it is", "visited by", "cost in steps [95%]", "adjusted p", "verdict"]
    caption = (
        "**Detours:** states that some runs do without, and that delay those that pass through. Runs that visit a "
        "state before they converge are compared with the runs that do not; the cost is how many steps later the "
        "visitors converge."
    )
    return Table(header, cells, caption)


def _picture(tested: Sequence[Mapping[str, Any]], total: int) -> Picture:
    figure = figures.effect_rows(
        [f"state {row['state']}" for row in tested],
        [row.get("effect_steps") for row in tested],
        [row.get("interval") for row in tested],
        found=[bool(row.get("verdict")) for row in tested],
        notes=[
            f"{row['visits']:,} of {total:,} runs, p {p_equals(row['p_adjusted'])}"
            if row.get("visits") is not None
            else f"p {p_equals(row['p_adjusted'])}"
            for row in tested
        ],
    )
    caption = (
        "**How much later the visitors of a state converge** than the other runs (orange: a detour). The line holds "
        "the delays that the rank test does not refuse, with censored runs; an arrow: training ended before the bound "
        "was seen. p: the larger of two, Gehan's rank test by permutation of the runs and the log-rank test counted "
        "from a run's entry on (Mantel and Byar; a run that takes long has more time to visit), adjusted over the "
        "tested states (Benjamini and Hochberg). Where the second does not refuse it, a line reaches down to 0."
    )
    words = "; ".join(f"state {row['state']} {effect(row)}" for row in tested)
    return Picture("detours", figure, caption, f"Delay of the visitors of each state in steps: {words}")


def _explained(model: Mapping[str, Any], data: Mapping[str, Any]) -> list[Block]:
    """Two regressions of the convergence step, each beside the R2 that it has where there is nothing to find."""
    cells = []
    rows = data["detours"]
    converged = {row["step"] for row in data.get("convergence") or () if not row["censored"]}
    # Without different steps there is nothing to explain.
    if len(rows) < 2 or len(converged) < 2:
        return []
    # A version that had it for left-out runs held R2 against that of another regression.
    if model.get("r2") is not None and "loo_r2" not in model:
        states = listed([str(k) for k in model.get("states") or ()])
        cells.append(
            [
                cell(f"visits to the tested states ({states})"),
                _share(model["r2"]),
                cell(_null(model.get("null_r2"), model.get("null_r2_95"))),
                cell("a run visits as likely as any that takes as long: time to visit alone"),
            ]
        )
    said = model.get("published") or {}
    if said.get("r2") is not None:
        cells.append(
            [
                cell("share of training in every state, as published"),
                _share(said["r2"]),
                cell(_null(said.get("accounting_r2"), said.get("accounting_r2_95"))),
                cell("early states exchanged between the runs: accounting alone"),
            ]
        )
    if not cells:
        return []
    header = [
        f"{'logarithm of the ' if model.get('log_time') else ''}convergence step regressed on",
        "R\u00b2",
        "R\u00b2 where nothing delays: median (95% below)",
        "how that is made",
    ]
    caption = "How much of the convergence step the states explain"
    if model.get("censored"):
        caption += f"; {count(model['censored'], 'run')} never converged: of visits it is by likelihood, over all runs"
    blocks: list[Block] = [Table(header, cells, caption)]
    if lines := _doubts(said, rows):
        blocks.append(Words(" ".join(lines), "note"))
    return blocks


def _share(value: float | None) -> Cell:
    return cell(None) if value is None else Cell(_r2(value), value, True)


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


def _doubts(said: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the published regression is worth here, in words."""
    if said.get("r2") is None or said.get("accounting_r2") is None:
        return []
    middle, high = said["accounting_r2"], said.get("accounting_r2_95")
    more = "" if high is None or said["r2"] > high else ", and the regression as published no more"
    lines = [
        f"Accounting alone gives an R\u00b2 of {_r2(middle)}{more}: time before convergence is time in the states "
        "before it, so the shares add up to the answer whether or not a state delays."
    ]
    named = [str(k) for k in said.get("detours") or ()]
    ours = [str(row["state"]) for row in rows if row.get("verdict")]
    if named and named != ours:
        word = "state" if len(named) == 1 else "states"
        lines.append(
            f"The published rule (some run converges without the state, and its coefficient is positive) would call "
            f"{word} {listed(named)} {'a detour' if len(named) == 1 else 'detours'}."
        )
    return lines
