"""The training map: states from left to right in the order of entry, and the ways that runs took between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path

from dynalab.show.plots.style import INK, MUTED, Size, new_figure, redrawable, state_colours, text_on

if TYPE_CHECKING:
    import networkx as nx

# Height of an arc for each state that it leaps, in the distance of two states.
RISE = 0.3
FORK = "#D55E00"
# Runs that make a direction one of a fork, as in `analysis.hmm.claims`.
LEAST_RUNS = 2


def state_graph(
    n_states: int,
    edges: Sequence[Mapping[str, Any]],
    occupancy: Sequence[float] | None = None,
    runs: Sequence[int] | None = None,
) -> nx.DiGraph:
    """Return the map as a graph.

    Args:
        n_states: K.
        edges: `{from, to, runs, ...}`; other keys become attributes. Stays in a state are left out.
        occupancy: Share of all rows spent in each state, shape (K,).
        runs: Number of runs that visit each state, shape (K,).
    """
    # Its import takes as long as drawing a figure.
    import networkx as nx

    graph = nx.DiGraph()
    for state in range(n_states):
        share = 1.0 / n_states if occupancy is None else float(occupancy[state])
        graph.add_node(state, occupancy=share, runs=0 if runs is None else int(runs[state]))
    for edge in edges:
        if edge["from"] != edge["to"]:
            graph.add_edge(int(edge["from"]), int(edge["to"]), runs=int(edge["runs"]))
    return graph


def forks(graph: nx.DiGraph) -> list[int]:
    """Return the states that at least two runs each leave in different directions, as far as a graph can tell.

    Which way a run leaves a state first only its path tells: `analysis.hmm.claims.forks`, which the page draws.
    """
    ways = {state: [runs for *_, runs in graph.out_edges(state, data="runs")] for state in graph}
    return [state for state, runs in ways.items() if sum(n >= LEAST_RUNS for n in runs) > 1]


@redrawable
def training_map(
    n_states: int,
    edges: Sequence[Mapping[str, Any]],
    n_runs: int,
    *,
    occupancy: Sequence[float] | None = None,
    runs: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    forked: Collection[tuple[int, int]] | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw the training map.

    States stand from left to right in the order in which training enters them. An edge is as wide as the share of
    runs that take it; leaps go in arcs above the states, returns in arcs below, and a fork's edges are coloured.

    Args:
        n_states: K.
        edges: `{from, to, runs}` of every change of state that some run makes.
        n_runs: All runs.
        occupancy: Share of all rows spent in each state, shape (K,); the nodes' sizes.
        runs: Number of runs that visit each state, shape (K,).
        captions: Text under each state, K lines of words.
        forked: The edges that belong to a fork, (from, to); None takes those that leave one of `forks`.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    ways = {
        (int(edge["from"]), int(edge["to"])): int(edge["runs"])
        for edge in edges
        if edge["from"] != edge["to"]
    }
    leap = max((b - a for a, b in ways if b - a > 1), default=0)
    back = max((a - b for a, b in ways if a > b), default=0)
    # In units of the distance of two states, which is an inch and a half where there is room.
    width = 6.6 if size is None else size[0] - 0.3
    unit = float(np.clip(width / max(n_states - 0.2, 1), 0.72 if size is None else 0.0, 1.5))
    top = max(_height(leap), 0.22) + 0.22
    bottom = _height(back) + 0.3 if back else 0.36
    rows = max((text.count("\n") + 1 for text in captions), default=0) if captions else 0
    # Captions that are wider than the distance of two states stand in several rows, in turn.
    letters = max((len(line) for text in captions or () for line in text.split("\n")), default=0)
    levels = min(max(int(np.ceil(0.0575 * letters / unit)), 1), n_states)
    low = -bottom - 0.16 * rows * levels / unit
    figure = new_figure(unit * (n_states - 0.2) + 0.3, (top - low) * unit + 0.15, size, fixed=True)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    ax.set_xlim(-0.6, n_states - 0.4)
    ax.set_ylim(low, top)
    ax.set_aspect("equal")
    split = set(forked or ())
    if forked is None:
        graph = state_graph(n_states, edges)
        split = set(graph.out_edges(forks(graph)))
    shares = [1.0 / n_states] * n_states if occupancy is None else occupancy
    radius = {state: 0.13 + 0.14 * float(np.sqrt(shares[state])) for state in range(n_states)}
    for (a, b), count in sorted(ways.items(), key=lambda item: abs(item[0][1] - item[0][0]), reverse=True):
        _draw_edge(ax, a, b, count, n_runs, radius, FORK if (a, b) in split else "#8a92a0", unit)
    for state, colour in enumerate(state_colours(n_states)):
        circle = Circle((state, 0), radius[state], facecolor=colour, edgecolor=INK, linewidth=0.8, zorder=5)
        circle.set_gid(f"state-{state}")
        ax.add_patch(circle)
        ax.text(
            state, 0, str(state), ha="center", va="center", fontsize=10.5, weight="bold", color=text_on(colour),
            zorder=6,
        )  # fmt: skip
        if captions:
            # Those at the ends stay within the figure.
            end = -1 if state == 0 else 1 if state == n_states - 1 else 0
            end = end if levels > 1 else 0
            below = bottom + 0.16 * rows * (state % levels) / unit
            ax.text(
                state + 0.56 * end, -below, captions[state], ha=("center", "right", "left")[end], va="top",
                fontsize=7, color=MUTED, linespacing=1.35, zorder=5,
            )  # fmt: skip
    return figure


def _height(span: int) -> float:
    """Height of the arc over `span` states: less than linear for many, so that the map stays flat."""
    return RISE * (span if span <= 4 else 4 + 0.6 * (span - 4)) if span else 0.0


def _draw_edge(
    ax: Axes, a: int, b: int, runs: int, n_runs: int, radius: Mapping[int, float], colour: str, unit: float
) -> None:
    share = runs / max(n_runs, 1)
    width = (0.8 + 2.6 * share) * min(1.0, 0.45 + 0.5 * unit)
    span = b - a
    if span == 1:
        start, end = (a + radius[a], 0.0), (b - radius[b], 0.0)
        path, label = Path([start, end]), ((start[0] + end[0]) / 2, 0.06 + 0.02 * share)
    else:
        # Through its apex at +-height: above for leaps, below for returns.
        height = _height(abs(span)) * (1 if span > 0 else -1)
        t = np.linspace(0, 1, 81)
        # Steeper at its ends than a parabola, so that it clears the labels beside the states.
        x, y = a + span * t, height * (1 - np.abs(2 * t - 1) ** 3)
        clear = (np.hypot(x - a, y) > radius[a] + 0.02) & (np.hypot(x - b, y) > radius[b] + 0.03)
        points = np.column_stack([x[clear], y[clear]])
        path, label = Path(points), ((a + b) / 2, height)
    head = 2.2 + 0.85 * width
    arrow = FancyArrowPatch(
        path=path, arrowstyle=f"-|>,head_length={1.7 * head:.2f},head_width={head:.2f}", mutation_scale=1,
        color=colour, linewidth=width, shrinkA=0, shrinkB=0, joinstyle="miter", capstyle="butt",
        zorder=2 + share, alpha=0.95,
    )  # fmt: skip
    arrow.set_gid(f"edge-{a}-{b}")
    ax.add_patch(arrow)
    ax.text(
        *label, f"{runs:,}/{n_runs:,}" if unit < 1.1 else f"{runs:,} of {n_runs:,}", ha="center",
        va="bottom" if span == 1 else "center", fontsize=7.5 if unit > 1 else 6.5, color=INK, zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2} if span != 1 else None,
    )  # fmt: skip
