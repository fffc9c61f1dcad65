"""An iteration of EM: what parameters say of frames, and the better parameters that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.hmm import inference, starts
from dynalab.analysis.hmm.emissions import Emission, Prior, log_density, log_penalty, maximise
from dynalab.analysis.hmm.frames import Frames

# A state with less than one frame's worth of posterior is dead.
DEAD = 1.0


@dataclass(frozen=True)
class Parameters:
    """Everything an HMM of K states is: start (K,) and transition probabilities (K, K), and what the states emit."""

    start: np.ndarray
    transitions: np.ndarray
    emission: Emission

    @property
    def n_states(self) -> int:
        """K."""
        return len(self.start)


def _probabilities(counts: np.ndarray, prior: Prior) -> np.ndarray:
    """Start (K,) or transition (K, K) probabilities from expected counts; never 0, except left to right."""
    raised = counts + prior.counts
    if raised.ndim == 2:
        raised = raised + prior.sticky * np.eye(len(raised))
        if prior.ordered:
            raised = np.triu(raised)
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def m_step(
    frames: Frames,
    prior: Prior,
    emission: Emission,
    posterior: np.ndarray,
    first: np.ndarray,
    pairs: np.ndarray,
    *,
    before: bool = True,
) -> Parameters:
    """Maximise the penalised expected likelihood, given expected starts `first` (K,) and transitions `pairs` (K, K).

    `emission`, of the iteration before, hands on the first frames' Gaussian and, with `before`, covariances that must
    not be undercut; posteriors have shape (N, K).
    """
    weights, covariances = maximise(frames, posterior, prior, emission if before else None)
    start, transitions = _probabilities(first, prior), _probabilities(pairs, prior)
    if prior.independent:
        start = _probabilities(posterior.sum(axis=0), prior)
        transitions = np.repeat(start[None], len(start), axis=0)
    return Parameters(start, transitions, replace(emission, weights=weights, covariances=covariances))


def penalty(parameters: Parameters, prior: Prior) -> float:
    """Log-penalty of all parameters, nats."""
    logs = np.log(np.maximum(parameters.transitions, 1e-300))
    if prior.independent:
        chain = prior.counts * np.log(parameters.start).sum()
    else:
        allowed = np.triu(logs).sum() if prior.ordered else logs.sum()
        chain = prior.counts * (np.log(parameters.start).sum() + allowed)
        chain += prior.sticky * np.trace(logs)
    return float(chain) + log_penalty(parameters.emission, prior)


class Iterations:
    """EM in parts, in NumPy: of each iteration `likelihood`, `dead`, where states are dead `reseed`, then `advance`."""

    def __init__(self, frames: Frames, prior: Prior, parameters: Parameters) -> None:
        """Begin at given parameters."""
        self.frames, self.prior, self._parameters = frames, prior, parameters
        self._found: inference.Expectation | None = None

    @property
    def parameters(self) -> Parameters:
        """The parameters of this iteration."""
        return self._parameters

    def likelihood(self, last: bool) -> float:
        """Log-likelihood of all frames, nats; of the `last` iteration nothing else is asked."""
        p, lengths = self.parameters, self.frames.lengths
        density = log_density(self.frames, p.emission)
        if self.prior.independent:
            self._found = inference.expect_independent(p.start, density, lengths)
        elif last:
            return float(inference.score(p.start, p.transitions, density, lengths).sum())
        else:
            self._found = inference.expect(p.start, p.transitions, density, lengths)
        return self._found.log_likelihood

    def penalty(self) -> float:
        """Log-penalty of the parameters, nats."""
        return penalty(self.parameters, self.prior)

    def expected(self) -> inference.Expectation:
        """What the parameters say of every frame."""
        assert self._found is not None
        return self._found

    def dead(self) -> list[int]:
        """States with less than a frame."""
        posterior = self.expected().posterior
        held = np.ones(len(self.frames.regressed)) @ self.frames.predicted(posterior)
        return np.flatnonzero(held < DEAD).tolist()

    def reseed(self, states: Sequence[int]) -> None:
        """Give states other frames."""
        found = self.expected()
        predictive = found.predictive.copy()
        # Nothing is amiss where nothing is said.
        predictive[self.frames.skipped] = np.inf
        posterior = starts.reseed(found.posterior, states, predictive, self.frames.lengths)
        self._found = replace(found, posterior=posterior)

    def advance(self) -> None:
        """Go on to the parameters that follow."""
        found = self.expected()
        emission = self.parameters.emission
        self._parameters = m_step(
            self.frames, self.prior, emission, found.posterior, found.starts, found.pairs
        )
