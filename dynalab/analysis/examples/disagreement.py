"""Whether runs of two settings disagree on more examples than seeds of one setting do.

Two seeds of one setting are right on different examples, though on as many; that is the measure for how different two
settings are. But runs of other accuracy disagree for that alone. So disagreements, which are squared distances, are
split as sums of squares are in an analysis of covariance (McArdle and Anderson 2001): what accuracy explains,
linearly, is taken out of both, and what the setting explains of the rest is held against what it explains when the
rests are exchanged between runs (Freedman and Lane 1983). Where accuracies hardly overlap it cannot be told what is
theirs, and nothing is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynalab.analysis.examples.crossed import Answers, together
from dynalab.core.means import ROUNDING

FEWEST = 4  # runs of either setting
# Share of the variance of accuracies between settings from which on it is not told what is accuracy's.
APART = 0.8
DRAWS = 1999
TIE = 1e-9


@dataclass(frozen=True)
class Disagreement:
    """Shares of the common examples on which two runs disagree, means over pairs of runs.

    Attributes:
        within: Of runs of the first setting, and of the second; None of one run.
        between: Of runs of one and of the other.
        excess: How many more that is than within the settings, at equal accuracy; None where it is not tested.
        p: That it is no more; None likewise.
        reason: Why it is not tested.
    """

    within: tuple[float | None, float | None]
    between: float | None
    excess: float | None = None
    p: float | None = None
    reason: str = ""


def agreements(right: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return on which share of the examples that two runs share they agree, and would by chance, (S, S) each.

    Where they share none it is NaN.
    """
    x, h = right.astype(np.float32), held.astype(np.float32)
    # float32 counts exactly up to 2^24 examples.
    n, both, p = ((a @ b.T).astype(float) for a, b in ((h, h), (x, x), (x, h)))
    n[n == 0] = np.nan
    return (n - p - p.T + 2 * both) / n, (p * p.T + (n - p) * (n - p.T)) / n**2


def disagreement(one: Answers, other: Answers, paired: bool) -> Disagreement:
    """Compare two settings; where runs are `paired`, by their labels, they are exchanged within these."""
    if paired:
        one, other = together(one, other)
    n = len(one.labels)
    right, held = (
        np.concatenate([getattr(item, name) for item in (one, other)]) for name in ("right", "held")
    )
    distances = 1 - agreements(right, held)[0]
    within = tuple(
        _mean(part[np.triu_indices(len(part), 1)]) for part in (distances[:n, :n], distances[n:, n:])
    )
    found = Disagreement((within[0], within[1]), _mean(distances[:n, n:]))
    if min(n, len(other.labels)) < FEWEST:
        return Disagreement(found.within, found.between, reason=f"fewer than {FEWEST} runs of a setting")
    if np.isnan(distances).any():
        return Disagreement(found.within, found.between, reason="some runs share no example")
    accuracy = np.concatenate([one.values.values, other.values.values])
    label = np.repeat([0.0, 1.0], [n, len(other.labels)])
    covariate, contrast = _orthogonal(accuracy, label)
    if contrast @ contrast < (1 - APART) * ((label - label.mean()) ** 2).sum():
        return Disagreement(found.within, found.between, reason="their accuracies hardly overlap")
    excess, p = _tested(distances, covariate, contrast, n if paired else None)
    return Disagreement(found.within, found.between, excess, p)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _orthogonal(accuracy: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return accuracies about their mean, of length 1, or 0 where they do not vary, and what they leave of labels."""
    covariate, contrast = accuracy - accuracy.mean(), label - label.mean()
    size = float(np.linalg.norm(covariate))
    covariate = covariate / size if size > TIE else 0 * covariate
    return covariate, contrast - covariate * (covariate @ contrast)


def _tested(
    distances: np.ndarray, covariate: np.ndarray, contrast: np.ndarray, n_pairs: int | None
) -> tuple[float, float]:
    """Return what the setting adds to the squared distances, and its p by permutation of the rests."""
    size = len(distances)
    centre = np.eye(size) - 1 / size
    rest = np.eye(size) - np.outer(covariate, covariate)
    products = rest @ (-centre @ distances @ centre / 2) @ rest
    unit = contrast / np.linalg.norm(contrast)
    total = float(np.trace(products))

    def explained(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of squares of the setting and of what is left, (B,), with the rests in some orders."""
        of = [np.einsum("bi,bi->b", part[order] @ products, part[order]) for part in (unit, covariate)]
        return of[0], total - of[0] - of[1]

    own, left = (float(value[0]) for value in explained(np.arange(size)[None]))
    freedom = size - 2 - int(covariate.any())
    excess = (own - left / freedom) / float(contrast @ contrast)
    if total <= TIE:
        return excess, 1.0
    rng = np.random.default_rng(0)
    if n_pairs is None:
        orders = rng.permuted(np.broadcast_to(np.arange(size), (DRAWS, size)), axis=1)
    else:
        turned = (np.arange(size) + n_pairs) % size
        swapped = np.tile(rng.random((DRAWS, n_pairs)) < 0.5, 2)
        orders = np.where(swapped, turned, np.arange(size))
    drawn, others = explained(orders)
    # Of settings that are alike to the bit it should be 0, and all orders are beyond it.
    beyond = int((drawn * left >= own * others * (1 - TIE) - ROUNDING * total**2).sum())
    return excess, (1 + beyond) / (1 + DRAWS)
