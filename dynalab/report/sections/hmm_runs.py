"""How the runs of a hidden Markov model differ, in sentences: by paths, and by where they spend their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynalab.report.blocks import Block, Words
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
        "Runs on different paths **converge at different steps**"
        if p < ALPHA
        else "**No difference** of the convergence step between paths is shown"
    )
    rank = found.get("p_log_rank")
    never = any(row["censored"] for row in data.get("convergence") or ())
    broken = (
        " A run that ends before it converges breaks its path off, and may stand in a row of its own for that."
        if never
        else ""
    )
    beside = "" if rank is None else f"; log-rank test p {p_equals(rank)}"
    return [
        Words(
            f"{said}: p {p_equals(p)} by permutation of {found['runs']:,} of {count(total, 'run')} over the "
            f"{len(found['paths'])} paths that at least two take (rows {which}){beside}.{broken}",
            "note",
        )
    ]


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
