"""Models and test sets with planted parts of the spread of accuracy.

Model s is right on example i with probability Phi(MEAN + d_i + l_i a_s): d_i is how easy the example is, a_s how good
the model, l_i how much that matters there. The variance of true accuracies and what n examples add to it are integrals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from dynalab.analysis.examples.crossed import Answers

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


@cache
def planted(share: float, n: int, models: str = "normal", matters: str = "all") -> Planted:
    """Return models that have a share of the variance with n examples."""
    if share == 0:
        return Planted(0.0, models, matters)
    width = brentq(lambda width: Planted(width, models, matters).share(n) - share, 1e-4, 3.0)
    return Planted(width, models, matters)


@dataclass(frozen=True)
class Alike:
    """Two settings that are right on equally many of all examples that there might be.

    Attributes:
        runs: Of the first and of the second.
        n: Examples of the test set, which all runs share.
        width: Standard deviation of how good the seeds of a setting are.
        models: Which of `MODELS`.
        own: Standard deviation of how easy an example is for one setting alone: 0 where settings do not differ at all.
        hard: Whether most examples are easy for all and few are hard; else their ease has a normal distribution.
        shared: Share of the variance between seeds that is the seed's in both settings.
        better: By how many standard deviations of its seeds the second is better; they are then alike no more, but in
            what they disagree on.
    """

    runs: tuple[int, int]
    n: int
    width: float = 0.1
    models: str = "normal"
    own: float = 0.0
    hard: bool = True
    shared: float = 0.0
    better: float = 0.0

    def draw(self, rng: np.random.Generator) -> tuple[list[Answers], float]:
        """Return the two settings, and by how much the second is right on more of these very examples."""
        if self.hard:
            easy = rng.random(self.n) < 0.85
            ease = np.where(easy, 3.2 + 0.5 * rng.normal(size=self.n), 0.8 * rng.normal(size=self.n) - 0.2)
        else:
            ease = MEAN + EASE * rng.normal(size=self.n)
        law = MODELS[self.models]
        both = law(rng.random(max(self.runs)))
        tested, means = [], []
        for place, size in enumerate(self.runs):
            own = ease + self.own * rng.normal(size=self.n)
            seeds = np.sqrt(1 - self.shared) * law(rng.random(size)) + np.sqrt(self.shared) * both[:size]
            good = self.width * (seeds[:, None] + self.better * place)
            right = own + good + rng.standard_normal((size, self.n), np.float32) > 0
            first = 0 if self.shared or not place else self.runs[0]
            labels = tuple(f"s{first + i:04d}" for i in range(size))
            tested.append(Answers(labels, right, np.ones_like(right)))
            means.append(
                float(norm.cdf(own + self.width * law(GRID[::20])[:, None]).mean()) if self.own else 0.0
            )
        return tested, means[1] - means[0]


# What is to be known of the two settings.
KINDS: dict[str, dict[str, Any]] = {
    "hard examples": {},
    "alike seeds": {"width": 0.0},
    "skewed": {"models": "skewed"},
    "examples of all sorts": {"hard": False},
    "unlike settings": {"own": 0.7},
    "unlike settings, skewed": {"own": 0.7, "models": "skewed"},
    "unlike settings, examples of all sorts": {"own": 0.7, "hard": False},
    "seeds alike in both": {"shared": 0.6},
    "the second better": {"better": 2.0},
}


def alike() -> dict[str, Alike]:
    """Return settings alike, by what they are in words."""
    return {
        f"{runs[0]} and {runs[1]} runs, {n:,} examples: {kind}": Alike(runs, n, **about)
        for runs in ((5, 5), (8, 8), (20, 20), (5, 20))
        for n in (200, 1000)
        for kind, about in KINDS.items()
        if not ("shared" in about and (runs[0] != runs[1] or runs[0] < 6))
    }
