"""Models and test sets with planted parts of the spread of accuracy.

Model s is right on example i with probability Phi(MEAN + d_i + l_i a_s): d_i is how easy the example is, a_s how good
the model, l_i how much that matters there. The variance of true accuracies and what n examples add to it are integrals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

MEAN, EASE = 1.5, 1.5
# How good models are, in units of their standard deviation, by quantile.
MODELS = {
    "normal": norm.ppf,
    "skewed": lambda q: -np.log1p(-q) - 1,
    "two kinds": lambda q: np.where(q < 0.5, -1.0, 1.0),
}
# How much it matters, on equal shares of the examples.
MATTERS = {"all": (1.0,), "half": (0.0, 2.0)}
GRID = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Planted:
    """A distribution of models and examples.

    Attributes:
        width: Standard deviation of a_s.
        models: Which of `MODELS`.
        matters: Which of `MATTERS`.
    """

    width: float
    models: str = "normal"
    matters: str = "all"

    def probabilities(self) -> np.ndarray:
        """Return P(right) by model and example on a grid of quantiles, shape (400, E)."""
        good = self.width * MODELS[self.models](GRID)
        d = EASE * norm.ppf(GRID[::4])
        return np.concatenate(
            [norm.cdf(MEAN + d + loading * good[:, None]) for loading in MATTERS[self.matters]], axis=1
        )

    def variances(self, n: int) -> tuple[float, float]:
        """Return the variance of true accuracies, and what n shared examples add to it."""
        p = self.probabilities()
        own = float(p.mean(1).var())
        mean = p.mean(0)
        return own, (float((mean * (1 - mean)).mean()) - own) / n

    def share(self, n: int) -> float:
        """Return the models' share of the variance with n examples."""
        own, test = self.variances(n)
        return own / (own + test)

    def draw(self, n_models: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return which of n examples models are right on, shape (n_models, n), bool."""
        good = self.width * MODELS[self.models](rng.random(n_models))
        d = EASE * rng.standard_normal(n)
        loading = rng.choice(MATTERS[self.matters], n)
        # One normal number more an example and model, in the place of a probability.
        return MEAN + d + loading * good[:, None] + rng.standard_normal((n_models, n), np.float32) > 0


def planted(share: float, n: int, models: str = "normal", matters: str = "all") -> Planted:
    """Return models that have a share of the variance with n examples."""
    if share == 0:
        return Planted(0.0, models, matters)
    width = brentq(lambda width: Planted(width, models, matters).share(n) - share, 1e-4, 3.0)
    return Planted(width, models, matters)
