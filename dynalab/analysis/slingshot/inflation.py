"""Numerical feature inflation (Liu et al. 2026, arXiv 2605.06152): with a spike at its end, or without any.

Where the gradient of the own class is rounded away in float32, the gradients by logit no longer cancel. What is left of
their sum pushes the mean row of the last layer, W_G, against the mean feature, mu_G, and mu_G against W_G, so that both
grow, away from each other. A row shows it where over the window of steps before it nine tenths of the rows have a
`gradient_imbalance` of 1e-3 or more, both norms have grown by a hundredth at least, and the cosine of W_G and mu_G has
come to -.7. While examples are being fitted, norms grow and gradients are rounded as well: the cosine then came to -.2
on digits and -.46 on modular addition, in controls that do not inflate, and to -.82 to -.99 before slingshots. Rows
whose windows overlap are one event, which begins at the later one of the norms' minima in the first window. With a
loss in float64 there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dynalab.core.runs import Run, Series

KIND = "inflation"
IMBALANCE, COSINE, NORMS = (
    "gradient_imbalance",
    "class_feature_cosine",
    ("class_mean_norm", "feature_mean_norm"),
)
# Share of a window's rows that have the imbalance, growth of either norm over it, cosine at its end, and its rows.
MOST, GROWTH, OPPOSED, ROWS = 0.9, 0.01, -0.7, 8


@dataclass(frozen=True)
class Stretch:
    """Rows over which both norms grow while the gradients by logit do not cancel."""

    onset: float  # step at which they begin to grow
    end: float | None  # last step; None where the series ends before
    imbalance: float  # median imbalance
    growth: tuple[float, float]  # of W_G and of mu_G, shares
    rounded: float | None  # median share of the examples whose loss is exactly 0; None without that column

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
        channels: Channel -> its series; without the imbalance, the cosine and both norms there is none.
        window: Steps over which norms have to grow, of `ROWS` rows at least.
        least: Imbalance that counts.
    """
    double = (run.config.get("train") or {}).get("loss_dtype") == "float64"
    if double or any(name not in channels for name in (IMBALANCE, COSINE, *NORMS)):
        return
    steps, values = channels[IMBALANCE].steps, channels[IMBALANCE].values
    if len(steps) < ROWS:
        return
    *norms, cosine = (
        np.interp(steps, channels[name].steps, channels[name].values) for name in (*NORMS, COSINE)
    )
    window = max(window, ROWS * float(np.median(np.diff(steps))))
    first = np.searchsorted(steps, steps - window, side="right") - 1
    rows = np.flatnonzero(first >= 0)
    before = first[rows]
    many = np.concatenate([[0], np.cumsum(values >= least)])
    share = (many[rows + 1] - many[before]) / (rows + 1 - before)
    grown = np.all(
        [(norm[rows] >= (1 + GROWTH) * norm[before]) & (norm[before] > 0) for norm in norms], axis=0
    )
    shown = rows[(share >= MOST) & grown & (cosine[rows] <= OPPOSED)]
    for own in np.split(shown, np.flatnonzero(first[shown[1:]] > shown[:-1]) + 1):
        if not len(own):
            continue
        begin, last = first[own[0]], own[-1]
        begin += max(int(norm[begin : own[0] + 1].argmin()) for norm in norms)
        zeros = channels.get("zero_loss_fraction")
        inside = np.empty(0) if zeros is None else zeros.between(steps[begin], steps[last])
        w, mu = (float(norm[last] / norm[begin] - 1) for norm in norms)
        yield Stretch(
            onset=float(steps[begin]),
            end=None if last == len(steps) - 1 else float(steps[last]),
            imbalance=float(np.median(values[begin : last + 1])),
            growth=(w, mu),
            rounded=float(np.median(inside)) if len(inside) else None,
        )
