"""How many states: the scores of every number that was tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dynalab.show.plots.labels import footnote
from dynalab.show.plots.style import CYCLE, INK, MUTED, Size, is_narrow, new_figure, polish, redrawable


@redrawable
def model_selection(
    n_states: Sequence[int],
    heldout: Sequence[float | None],
    errors: Sequence[float | None],
    bic: Sequence[float | None],
    chosen: int,
    *,
    converged: Sequence[bool] | None = None,
    paired: bool = False,
    size: Size | None = None,
) -> Figure:
    """Draw the held-out log-likelihood per frame with its standard error, and BIC, against the number of states.

    Args:
        n_states: The K that were tried, shape (N,).
        heldout: Held-out log-likelihood per frame, shape (N,); None where nothing was held out.
        errors: Its standard error, shape (N,); if `paired`, that of the difference to the best K over the same runs.
        bic: BIC of the fit on all runs, shape (N,).
        chosen: The K that was taken.
        converged: Whether each fit converged, shape (N,); those that did not are hollow.
        paired: The line to be reached is then the best itself, not one standard error of the mean below it.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    k = np.asarray(n_states, dtype=int)
    score, error, criterion = (np.array(item, dtype=float) for item in (heldout, errors, bic))
    whole = np.ones(len(k), bool) if converged is None else np.asarray(converged, dtype=bool)
    panels = [name for name, item in (("score", score), ("bic", criterion)) if np.isfinite(item).any()]
    figure = new_figure(7.6 if len(panels) > 1 else 4.2, 2.6, size, stacked=0.9 * max(len(panels), 1))
    for index, name in enumerate(panels):
        rows, columns = (len(panels), 1) if is_narrow(figure) else (1, len(panels))
        ax = figure.add_subplot(rows, columns, index + 1)
        if name == "score":
            # The highest is taken, or nearly: above its error bar there is room.
            _panel(ax, k, score, whole, chosen, score + np.nan_to_num(error))
            ax.errorbar(
                k, score, yerr=np.nan_to_num(error), fmt="none", ecolor=CYCLE[0], elinewidth=1.1, capsize=2.5
            )
            ax.set_title("held-out log-likelihood per frame")
            best = int(np.nanargmax(score))
            if np.isfinite(error[best]) and len(k) > 1:
                least = score[best] - (0.0 if paired else error[best])
                ax.axhline(least, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
                # On the side that is farther from the chosen K, whose name may lie on it.
                right = 2 * chosen < k.min() + k.max()
                ax.annotate(
                    "best" if paired else "best - 1 SE", (int(right), least), (-3 if right else 3, 3),
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha="right" if right else "left", va="bottom", fontsize=7, color=MUTED,
                )  # fmt: skip
        else:
            _panel(ax, k, criterion, whole, chosen)
            ax.set_title("BIC (lower is better)")
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    notes = [] if whole.all() else ["hollow: the fit has not converged"]
    if len(k) > 1 and chosen == k.max():
        notes.append(f"capped: the largest number of states tried ({chosen}) was chosen, more may fit better")
    footnote(figure, notes)
    return figure


def _panel(
    ax: Axes,
    k: np.ndarray,
    values: np.ndarray,
    whole: np.ndarray,
    chosen: int,
    tops: np.ndarray | None = None,
) -> None:
    """Draw one curve; the chosen K is named above `tops`, or below the curve."""
    colour = CYCLE[0]
    ax.plot(k, values, color=colour, linewidth=1.2, zorder=2)
    ax.scatter(k[whole], values[whole], s=22, color=colour, zorder=3)
    ax.scatter(k[~whole], values[~whole], s=22, facecolor="white", edgecolor=colour, linewidth=1.1, zorder=3)
    here = np.flatnonzero((k == chosen) & np.isfinite(values))
    if len(here):
        ax.scatter(k[here], values[here], s=105, facecolor="none", edgecolor=INK, linewidth=1.2, zorder=4)
        place = values[here[0]] if tops is None else tops[here[0]]
        ax.annotate(
            f"{chosen} chosen", (k[here[0]], place), (0, -9 if tops is None else 9), ha="center",
            textcoords="offset points", va="top" if tops is None else "bottom", fontsize=7.5,
        )  # fmt: skip
    polish(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("number of states")
    ax.margins(x=0.1, y=0.2)
