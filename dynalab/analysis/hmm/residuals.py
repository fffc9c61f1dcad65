"""Whether rows depend on each other beyond what states say: then a further state wins likelihood by that alone.

Given its state and the row before (states of dynamics) or its state (states of level), a row is independent of all
before it. Where it is not, held-out likelihood prefers states that cut one phase into pieces, however many runs there
are: that is no error of chance, so no test of the likelihoods sees it. What is left of rows does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.model import Model

# A correlation is named that is larger than this by two standard errors.
LEAST = 0.1


@dataclass(frozen=True)
class Residuals:
    """What is left of a row beside what is left of the row before, where both are in one stay of a state.

    `correlation` is over all features, whitened by the covariance of the state; None without pairs of rows.
    """

    correlation: float | None
    pairs: int

    @property
    def depend(self) -> bool:
        """Whether rows depend on those before: of independent ones the correlation's error is 1 over root of pairs."""
        return self.correlation is not None and self.correlation - 2 / np.sqrt(self.pairs) > LEAST


def residuals(model: Model, frames: Frames, paths: Sequence[np.ndarray]) -> Residuals:
    """Return how residuals of neighbouring rows go together, of the frames of all runs and their states (T,)."""
    states, predicted = np.concatenate(paths), np.zeros(len(frames.levels), bool)
    predicted[frames.regressed] = True
    left = np.zeros_like(frames.levels)
    for state, whiten in enumerate(model.parameters.emission.maps):
        rows = np.flatnonzero(predicted & (states == state))
        left[rows] = (whiten @ frames.columns[:, rows]).T
    same = (states[1:] == states[:-1]) & predicted[1:] & predicted[:-1]
    same[frames.firsts[1:] - 1] = False
    after, before = left[1:][same], left[:-1][same]
    size = float(np.sqrt((after**2).sum() * (before**2).sum()))
    return Residuals(float((after * before).sum()) / size if size > 0 else None, int(same.sum()))
