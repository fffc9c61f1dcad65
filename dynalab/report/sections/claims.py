"""What holds of the published claims on latent states: of one setting, and of settings beside each other, in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from dynalab.analysis import claims
from dynalab.analysis.command import contrast
from dynalab.errors import StoreError
from dynalab.report.blocks import Block, Table, Words, cell
from dynalab.report.gather import Shown
from dynalab.report.words import count, listed, number, p_value
from dynalab.store.results import Result

# Changes of state per state from which on states are said to flicker.
FLICKER = 4
# With more settings a table of pairs would be read by nobody.
MOST = 6
ARROW = "\u00a0\u2192 "
PAPER = "Hu et al., TMLR 2023"


def table(data: Mapping[str, Any]) -> Table | Words:
    """Return the table of claims on one setting.

    Args:
        data: The plain values of an analysis `hmm`; of one of an older version, which holds no `claims`, it is said how
            they are had.
    """
    found = data.get("claims")
    if found is None:
        again = f"`dynalab analyze hmm {data.get('ensemble', '')}`"
        return Words(
            f"This older analysis says nothing of the published claims ({PAPER}); {again} does.", "note"
        )
    rows = [
        [cell("runs fork: they first leave a state in different directions"), *_forks(found, data)],
        [cell("detours: states that some runs skip, and that delay convergence"), *_detours(found, data)],
        [cell("convergence times are spread out"), *_spread(found["spread"])],
        [cell("runs spend their training in different states (dissimilarity)"), *_apart(data)],
    ]
    header = ["published claim", "here", "by these runs, with 95% intervals"]
    return Table(header, rows, f"What holds of the published claims here ({PAPER})")


def forked(data: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return the edges (from, to) of the forks that the table of claims counts, and no others.

    Args:
        data: The plain values of an analysis `hmm`; in one of an older version, without `claims`, they are counted.
    """
    known = data.get("claims")
    found = claims.forks(claims.paths(data)) if known is None else known["forks"]
    return [
        (item["state"], way["to"])
        for item in found
        if item["fork"]
        for way in item["directions"]
        if way["runs"] >= claims.LEAST_RUNS
    ]


def flickering(data: Mapping[str, Any]) -> str:
    """Return a sentence that warns of states which runs enter over and over; nothing where they do not.

    Args:
        data: The plain values of an analysis `hmm`.
    """
    changes = [sum(a != b for a, b in pairwise(run["states"])) for run in data["states"]]
    middle = statistics.median(changes)
    if middle <= FLICKER * len({state for run in data["states"] for state in run["states"]}):
        return ""
    return (
        f"Runs change state {middle:,.0f} times on the median: such states flicker, and paths, forks and detours say "
        "little."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _range(bounds: Sequence[float | None] | None) -> str:
    """Bounds to three digits; one that censoring leaves open says so."""
    if bounds is None:
        return "no interval"
    low, high = ("open" if bound is None else number(_round(bound)) for bound in bounds)
    return f"{low} to {high}"


def _round(value: float) -> float:
    """Three digits; of a larger number all before the point."""
    return float(round(value)) if abs(value) >= 100 else float(f"{value:.3g}")


def _said(holds: bool, otherwise: str) -> Any:
    """Whether a claim is seen to hold; the colour is that of forks and detours in the figures."""
    return cell(True, tone="found") if holds else cell(otherwise)


def _shares(bounds: Sequence[float]) -> str:
    return f"{_percent(bounds[0])} to {_percent(bounds[1])}"


def _forks(found: Mapping[str, Any], data: Mapping[str, Any]) -> list[Any]:
    if data.get("n_states") == 1:
        return [cell("not tested", tone="quiet"), cell("a single state has nothing to fork into")]
    ways = []
    for item in found["forks"]:
        directions = [
            f"{way['runs']} to {way['to']} ({_shares(way['interval'])})" for way in item["directions"]
        ]
        rare = "" if item["fork"] else ", a single run, so no fork"
        ways.append(
            f"of {count(item['runs'], 'run')} that leave state {item['state']}, {listed(directions)}{rare}"
        )
    lines = [_off(found["off_path"], bool(data.get("convergence"))), *ways]
    if flicker := flickering(data):
        return [cell("states flicker", tone="quiet"), cell(f"{lines[0]}. {flicker}")]
    return [_said(any(item["fork"] for item in found["forks"]), "none seen"), cell("; ".join(lines))]


def _off(off: Mapping[str, Any], watched: bool) -> str:
    """How many runs leave the most common path."""
    if not off["of"]:
        return "no run converged, so that no path is whole"
    which = "converged " if watched else ""
    until = " up to there" if watched else ""
    return (
        f"{off['runs']} of {count(off['of'], f'{which}run')} ({_shares(off['interval'])}) do not take the most common "
        f"path{until}; {count(off['paths'], 'distinct path')}"
    )


def _detours(found: Mapping[str, Any], data: Mapping[str, Any]) -> list[Any]:
    if found["detours"] is None:
        return [cell("\u2013", tone="quiet"), cell("not tested by this analysis")]
    rows = data["detours"]
    tested = [row for row in rows if row.get("p_adjusted") is not None]
    if not tested:
        return [
            cell("not tested", tone="quiet"),
            cell("no state is visited by enough runs and skipped by enough runs to be tested"),
        ]
    lines = []
    for row in tested:
        interval = f" ({_range(row['interval'])})" if row.get("interval") else ""
        effect = row.get("effect_steps")
        size = "no estimate" if effect is None else f"{number(_round(effect))} steps{interval}"
        verdict = "" if row.get("verdict") else " (not shown)"
        lines.append(f"state {row['state']}{verdict}: {size}, adjusted p = {row['p_adjusted']:.2g}")
    if rest := len(rows) - len(tested):
        lines.append(f"{count(rest, 'other state')} cannot be tested: too few runs visit it, or skip it")
    return [_said(bool(found["detours"]["states"]), "none shown"), cell("; ".join(lines))]


def _spread(found: Mapping[str, Any] | None) -> list[Any]:
    if found is None:
        return [
            cell("\u2013", tone="quiet"),
            cell("nothing says when a run has converged (convergence.metric=)"),
        ]
    if found["censored"] == found["runs"]:
        return [cell("not tested", tone="quiet"), cell(f"none of {count(found['runs'], 'run')} converged")]
    low, high = found["quartiles"]
    lines = [
        f"median step {_step(found['median'])} [quartiles {_step(low)} to {_step(high)}]",
        "coefficient of variation "
        + (
            "not known"
            if found["cv"] is None
            else f"{number(_round(found['cv']))} ({_range(found['cv_interval'])})"
        ),
    ]
    if found["censored"]:
        lines.append(f"{found['censored']} of {count(found['runs'], 'run')} did not converge")
    return [cell("a matter of degree", tone="quiet"), cell("; ".join(lines))]


def _apart(data: Mapping[str, Any]) -> list[Any]:
    found = (data.get("dissimilarity") or {}).get("total_variation") or {}
    if found.get("value") is None or data.get("n_states") == 1:
        return [
            cell("\u2013", tone="quiet"),
            cell("nothing to compare: a single run, a single state, or an older analysis"),
        ]
    text = f"{number(_round(found['value']))} ({_range(found['interval'])}), from 0, alike, to 1, no state in common"
    return [cell("a matter of degree", tone="quiet"), cell(text)]


def _step(value: float | None) -> str:
    return "never" if value is None else number(_round(value))


def _fits(shown: Sequence[Shown]) -> list[Result | None]:
    """The analysis of each setting that is compared, the first with all others; None for one that has none."""
    found = [
        next(
            (
                result
                for result in item.results
                if result.kind == "hmm"
                and result.data.get("paths")
                and not (result.across or result.data.get("decoded_with"))
            ),
            None,
        )
        for item in shown
    ]
    return found if 2 <= sum(result is not None for result in found) <= MOST else []


def contrasts(shown: Sequence[Shown], outputs: Path) -> tuple[dict[str, Result], list[str]]:
    """Return the comparisons of the first setting with each other, stored, before the page is drawn.

    Args:
        shown: The ensembles on the page.
        outputs: The outputs folder, where those that are not stored yet come to be.

    Returns:
        Id of the other setting's analysis -> comparison; and a line about each that could not be made.
    """
    fits = [result for result in _fits(shown) if result is not None]
    found, refused = {}, []
    for other in fits[1:]:
        try:
            found[other.id] = contrast(fits[0], other, outputs)
        except StoreError as error:
            refused.append(f"{error}; hmm-{fits[0].id} and hmm-{other.id} are not compared")
    return found, refused


def comparison(shown: Sequence[Shown], titles: Sequence[str], contrasts: Mapping[str, Result]) -> list[Block]:
    """Return the blocks that compare the claims between settings: each with the first.

    Args:
        shown: The ensembles on the page.
        titles: What each is called.
        contrasts: What `contrasts` has of them.
    """
    fits = [
        (title, result) for title, result in zip(titles, _fits(shown), strict=False) if result is not None
    ]
    if not contrasts:
        return []
    reference, first = fits[0]
    rows, doubts = [], set()
    for title, other in fits[1:]:
        if other.id not in contrasts:
            continue
        found = contrasts[other.id].data
        rows += [
            [cell(title), *row]
            for row in (
                _row("share of runs off the most common path, difference", found, "off_path"),
                _row("spread of convergence steps, ratio of coefficients of variation", found, "spread"),
                _row("median convergence step, ratio", found, "speed"),
            )
        ]
        doubts |= _doubts(first.data, other.data, found)
    blocks: list[Block] = [
        Table(
            ["setting", "what is compared", f"against {reference}", "95% interval", "p"],
            rows,
            f"The published claims, setting against setting ({PAPER}): a ratio below 1 is narrower, or faster, "
            f"than {reference}",
        )
    ]
    text = (
        "Intervals: of shares by Newcombe, wide enough for the common path being found in the same runs; of the ratio "
        "of spreads from those of the two (Bonett), of medians by bootstrap over runs. p: Fisher's exact test of the "
        "shares, permutations of the runs for spread and median (Gehan's ranks, with runs that never converged); they "
        "are not corrected for the number of rows."
    )
    blocks.append(Words(" ".join([text, *sorted(doubts)]), "note"))
    return blocks


def _row(what: str, compared: Mapping[str, Any], name: str) -> list[Any]:
    found = compared[name]
    if found is None:
        return [cell(what), cell(None), cell(f"not known: {compared['reasons'][name]}"), cell(None)]
    if name == "off_path":
        value = f"{100 * found['difference']:+.0f} percentage points"
        interval = f"{100 * found['interval'][0]:+.0f} to {100 * found['interval'][1]:+.0f}"
    else:
        ratio = found["ratio"]
        value = "not known: under half of the runs converged" if ratio is None else number(_round(ratio))
        interval = _range(found["interval"])
    return [cell(what), cell(value), cell(interval, tone="whole"), cell(p_value(found["p"]), tone="whole")]


def _doubts(first: Mapping[str, Any], other: Mapping[str, Any], found: Mapping[str, Any]) -> set[str]:
    """What may look like a difference of the settings and is none."""
    doubts = {
        "Each setting has states of its own, so paths are compared by how often runs leave the common one, not "
        "state by state."
    }
    if found["left_out"]:
        doubts.add("The paths of runs that did not converge are not known, and are left out.")
    rules = [item.get("convergence_rule") for item in (first, other)]
    if rules[0] != rules[1] and all(rules):
        doubts.add("The settings converge by different rules.")
    rows = [max(len(run["states"]) for run in item["states"]) for item in (first, other)]
    if max(rows) > 1.5 * min(rows):
        doubts.add(
            f"The runs differ in their number of rows ({rows[0]:,} and {rows[1]:,}), and fewer rows tell fewer states "
            "apart."
        )
    return doubts
