"""How the runs of a hidden Markov model differ, in sentences: by paths, and by where they spend their training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.report.blocks import Block, Words
from dynalab.report.sections.hmm_tables import ARROW
from dynalab.report.words import count, listed, number, p_equals

ALPHA = 0.05


def paths_compared(data: Mapping[str, Any], total: int) -> list[Block]:
    """Return whether runs on different paths converge at different steps, in a sentence."""
    found = data.get("path_comparison")
    if not found:
        return []
    p = found["p"]
    which = listed([str(place + 1) for place in found["paths"]])
    said = (
        "Runs that part **converge at different steps**"
        if p < ALPHA
        else "**No difference** of the convergence step between paths is shown"
    )
    n = found.get("left_out") or 0
    left = (
        f" {count(n, 'run')} that never converged {'is' if n == 1 else 'are'} left out: the path to convergence is not "
        "known."
        if n
        else ""
    )
    partings = found.get("partings")
    if partings is None:
        # Of a version that compared paths up to the end of training.
        return [Words("How paths differ in convergence was tested otherwise by this older analysis.", "note")]
    places = listed([f"{_after(one['after'])} to {listed([str(k) for k in one['to']])}" for one in partings])
    many = f", times the {len(partings)} places where they part" if len(partings) > 1 else ""
    return [
        Words(
            f"{said}: p {p_equals(p)} over {found['runs']:,} of {count(total, 'run')} that part {places} "
            f"(rows {which}). It is the larger of two: ranks by permutation, and the log-rank test counted from the "
            f"parting on{many}. "
            f"Paths end at convergence, and one that is the beginning of another is not compared with it.{left}",
            "note",
        )
    ]


def _after(states: Sequence[int]) -> str:
    """Where runs part."""
    return f"after {ARROW.join(map(str, states))}" if states else "at the start"


def alike(data: Mapping[str, Any]) -> list[Block]:
    """Return how differently runs spend their training, in a sentence."""
    found = data.get("dissimilarity") or {}
    apart = found.get("total_variation") or {}
    # With one state there is nothing to differ in.
    if apart.get("value") is None or data["n_states"] == 1:
        return []
    text = (
        f"**Dissimilarity of the runs: {number(_three(apart['value']))}**{_within(apart)}. It is the share of the rows "
        "that two runs spend in different states, on the mean over pairs (0: alike, 1: no state in common); another "
        "pace on the same path counts as well as another path."
    )
    if ground := found.get("wasserstein"):
        some = "" if ground["runs"] == apart["runs"] else f", over {ground['runs']} runs drawn from them"
        text += (
            f" Weighed by how far apart the states' means are: {number(_three(ground['value']))}{_within(ground)} "
            f"standard deviations of the metrics{some}."
        )
    return [Words(text, "note")]


def _three(value: float) -> float:
    return float(f"{value:.3g}")


def _within(found: Mapping[str, Any]) -> str:
    bounds = found.get("interval")
    return "" if bounds is None else f" [{number(_three(bounds[0]))} to {number(_three(bounds[1]))}]"
