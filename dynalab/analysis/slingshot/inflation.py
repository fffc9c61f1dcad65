"""Numerical feature inflation (Liu et al. 2026, arXiv 2605.06152): with a spike at its end, or without any.

Where the gradient of the own class is rounded away in float32, the gradients by logit no longer cancel. What is left of
their sum pushes the mean row of the last layer, W_G, against the mean feature, mu_G, and mu_G against W_G, so that both
grow exponentially. A row shows it where over the window of steps before it nine tenths of the rows have a
`gradient_imbalance` of 1e-3 or more and both norms have grown: by a hundredth at least, and in the window's second half
not less than in its first. Features and weights that grow while examples are being fitted grow ever more slowly.
Measured on 200 digits and an epsilon of 1e-5, where nothing inflates: by half as much in the second half. Rows whose
windows overlap are one event, which begins at the later one of the norms' minima in the first window. With a loss in
float64 there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dynalab.core.runs import Run, Series

KIND = "inflation"
IMBALANCE, NORMS = "gradient_imbalance", ("class_mean_norm", "feature_mean_norm")
# Share of a window's rows that have the imbalance, growth of either norm over it, its least growth in the second half
# over that in the first, and rows that a window has at least.
MOST, GROWTH, STEADY, ROWS = 0.9, 0.01, 0.9, 8


@dataclass(frozen=True)
class Stretch:
    """Rows over which both norms grow while the gradients by logit do not cancel."""

    onset: float  # step at which they begin to grow
    end: float | None  # last step; None where the series ends before
    imbalance: float  # median imbalance
    growth: tuple[float, float]  # of W_G and of mu_G, shares
    opposed: bool | None  # whether they point away from each other; None where that was not recorded
    rounded: float | None  # median share of the examples whose loss is exactly 0; None likewise

    def reason(self, spike: float | None) -> str:
        """Return what was seen, in words; `spike` is the step of the onset of one that ended it."""
        rows, features = (f"{100 * share:.3g}%" for share in self.growth)
        ended = "no spike" if spike is None else f"a spike at step {spike:,.0f}"
        return (
            f"the gradients by logit sum to {100 * self.imbalance:.2g}% of their size, W_G grew by {rows} and mu_G by "
            f"{features}, and {ended} followed"
        )


def stretches(run: Run, channels: Mapping[str, Series], window: float, least: float) -> Iterator[Stretch]:
    """Yield the inflations of a run.

    Args:
        run: The run, whose configuration says the precision of its loss.
        channels: Channel -> its series; without the imbalance and both norms there is none.
        window: Steps over which norms have to grow, of `ROWS` rows at least.
        least: Imbalance that counts.
    """
    double = (run.config.get("train") or {}).get("loss_dtype") == "float64"
    if double or any(name not in channels for name in (IMBALANCE, *NORMS)):
        return
    steps, values = channels[IMBALANCE].steps, channels[IMBALANCE].values
    if len(steps) < ROWS:
        return
    norms = np.stack([np.interp(steps, channels[name].steps, channels[name].values) for name in NORMS])
    window = max(window, ROWS * float(np.median(np.diff(steps))))
    first, half = (np.searchsorted(steps, steps - span, side="right") - 1 for span in (window, window / 2))
    rows = np.flatnonzero(first >= 0)
    before, middle = first[rows], half[rows]
    many = np.concatenate([[0], np.cumsum(values >= least)])
    share = (many[rows + 1] - many[before]) / (rows + 1 - before)
    with np.errstate(divide="ignore", invalid="ignore"):
        early, late = (np.log(norms[:, b] / norms[:, a]) for a, b in ((before, middle), (middle, rows)))
        grows = (early + late >= np.log1p(GROWTH)) & (late >= STEADY * early)
    shown = rows[(share >= MOST) & grows.all(0)]
    for own in np.split(shown, np.flatnonzero(first[shown[1:]] > shown[:-1]) + 1):
        if not len(own):
            continue
        begin, last = first[own[0]], own[-1]
        begin += max(int(norm[begin : own[0] + 1].argmin()) for norm in norms)
        inside = {
            name: channels[name].between(steps[begin], steps[last] + 1)
            for name in ("class_feature_cosine", "zero_loss_fraction")
            if name in channels
        }
        medians = {name: float(np.median(found)) for name, found in inside.items() if len(found)}
        cosine = medians.get("class_feature_cosine")
        yield Stretch(
            onset=float(steps[begin]),
            end=None if last == len(steps) - 1 else float(steps[last]),
            imbalance=float(np.median(values[begin : last + 1])),
            growth=(
                float(norms[0, last] / norms[0, begin] - 1),
                float(norms[1, last] / norms[1, begin] - 1),
            ),
            opposed=None if cosine is None else cosine < 0,
            rounded=medians.get("zero_loss_fraction"),
        )
