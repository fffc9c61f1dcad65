"""The part of the page on hidden progress: shown for every ensemble that recorded the probe `parity`'s columns."""

from __future__ import annotations

import numpy as np

from dynalab.analysis.convergence import convergence_step
from dynalab.report import figures
from dynalab.report.blocks import Block, Picture
from dynalab.report.gather import Shown
from dynalab.report.words import count, listed, quartiles, step_phrase

ACCURACY = "test_accuracy"
# Column -> (label, level above which it tells the coordinates apart). The first that was recorded is marked.
MEASURES = {"parity_fourier": ("Fourier coefficient", 4.0), "parity_separation": ("movement", 2.0)}
# A guess among two labels is right half of the time; 1,024 examples make 0.55 three standard errors.
LEAVES = 0.55
# Rows on end that hold a level: one may do so by chance.
PERSISTENCE = 3


def crossings(steps: np.ndarray, values: np.ndarray, level: float) -> list[float | None]:
    """Return the step from which each run, a row of (S, T), holds a level for three rows on end; None for never."""
    return [convergence_step(steps, row, level, "up", PERSISTENCE) for row in values]


def lead(earlier: list[float | None], later: list[float | None]) -> tuple[int, int]:
    """Return in how many runs the first event comes before the second, and how many had either."""
    pairs = [
        (np.inf if a is None else a, np.inf if b is None else b)
        for a, b in zip(earlier, later, strict=True)
        if (a, b) != (None, None)
    ]
    return sum(a < b for a, b in pairs), len(pairs)


def blocks(shown: Shown) -> list[Block]:
    """Return the figure, where accuracy and a measure of progress were recorded on the same steps."""
    steps = shown.steps.get(ACCURACY)
    names = [name for name in MEASURES if name in shown.values]
    if steps is None:
        return []
    names = [name for name in names if np.array_equal(shown.steps[name], steps)]
    if not names:
        return []
    accuracy = shown.values[ACCURACY]
    label, level = MEASURES[names[0]]
    apart, left = crossings(steps, shown.values[names[0]], level), crossings(steps, accuracy, LEAVES)
    middles = {f"{label} above {level:g}": _middle(apart), f"accuracy above {LEAVES:g}": _middle(left)}
    figure = figures.hidden_progress(
        steps, accuracy, {MEASURES[name][0]: shown.values[name] for name in names}, leaves=LEAVES, level=level,
        marked=middles, diverged=shown.diverged, log_steps=shown.log_steps,
    )  # fmt: skip
    first, either = lead(apart, left)
    spread = " Line: median over runs; band: quartiles; thin lines: single runs." if len(accuracy) > 2 else ""
    meaning = {
        "parity_fourier": "the network's Fourier coefficient on the relevant coordinates over that on as many others",
        "parity_separation": "how far weights of relevant coordinates have moved from initialisation over the others",
    }
    caption = (
        f"**Hidden progress.** Below: {listed([meaning[name] for name in names])}; each a ratio that is near 1 as long "
        f"as nothing tells the coordinates apart.{spread} {label} above {level:g} for {PERSISTENCE} rows on end "
        f"{step_phrase(apart)}; accuracy above {LEAVES:g} {step_phrase(left)}; the first came earlier in "
        f"**{first:,} of {count(either, 'run')}** that had either."
    )
    alt = (
        f"Accuracy, and {listed([MEASURES[name][0] for name in names])} of relevant against other coordinates"
    )
    return [Picture("hidden-progress", figure, caption, alt)]


def _middle(steps: list[float | None]) -> float | None:
    found = quartiles(steps)
    return found[1] if found and np.isfinite(found[1]) else None
