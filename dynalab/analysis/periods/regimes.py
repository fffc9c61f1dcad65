"""The three regimes of training on the sphere at a fixed effective rate (Kodryan et al. 2022, arXiv 2209.03695)."""

from __future__ import annotations

import math

import numpy as np

# Change of the loss from the second quarter to the last above which it stands still, and below which it still falls.
STILL, FALLS = 0.95, 0.9
# Angle a step, in radians, from which on training is no descent any more.
CHAOTIC, DIVERGES = 0.03, 1.0
# Share of ln(classes) that counts as guessing; a loss below INTERPOLATES is convergence whatever else.
GUESSES, INTERPOLATES = 0.9, 1e-2


def regime_of(
    loss: np.ndarray, angle: float, classes: int | None, gradient: np.ndarray | None = None
) -> tuple[str, str]:
    """Return `convergence`, `chaotic_equilibrium`, `divergence` or `transition`, and why.

    Longer training moves the boundary between the first two down: a loss that stands still may yet fall.

    Args:
        loss: Training loss over the whole run, shape (T,), finite.
        angle: Effective rate times the median effective gradient norm: radians a step.
        classes: Number of classes, where it is known.
        gradient: Effective gradient norm, shape (T',).
    """
    from scipy.stats import ks_2samp

    quarter = max(len(loss) // 4, 1)
    second, last = loss[quarter : 2 * quarter], loss[-quarter:]
    middle, final = float(np.median(second)), float(np.median(last))
    ratio = final / middle if middle > 0 else 0.0
    said = f"loss {middle:.3g} to {final:.3g} from the second quarter to the last, {angle:.2g} rad a step"
    if angle > DIVERGES or (classes and final >= GUESSES * math.log(classes)):
        return "divergence", said
    falling = (
        gradient is not None
        and len(gradient) >= 8
        and float(np.median(gradient[-(len(gradient) // 4) :]))
        < float(np.median(gradient[len(gradient) // 4 : len(gradient) // 2]))
    )
    if ratio < FALLS or (final < INTERPOLATES and falling):
        return "convergence", said
    if ratio >= STILL and CHAOTIC < angle <= DIVERGES:
        # The spread about the median stands still as well: halves of the last half, thinned to hardly correlated rows.
        tail = loss[-2 * quarter :][:: max(len(loss) // 200, 1)]
        half = len(tail) // 2
        spread = [np.abs(part - np.median(part)) for part in (tail[:half], tail[half:])]
        if ks_2samp(*spread).pvalue > 0.001:
            return "chaotic_equilibrium", said
    return "transition", said
