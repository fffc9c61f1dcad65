"""What the model says of every frame, feature by feature: gradients of posteriors, likelihood ratios, drifts.

For linear-Gaussian emissions x_t | z_t=k ~ N(m_k, S_k), where m_k is the state's mean (`level`) or A_k x_{t-1} + b_k
(`ar`), the filtering posterior's log-gradient in the newest frame is closed (Hu et al., 2023, appendix A, equation for
d log p(s_t | z_1:t) / d z_t):

    g_{t,k} = S_k^-1 (m_k - x_t) - sum_h p(z_t=h | x_1:t) S_h^-1 (m_h - x_t).

The sum over states is one vector in feature space for every frame; the published code sums over features as well,
evaluates one frame too early and takes the absolute value after averaging, so its rankings differ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dynalab.analysis.hmm import inference
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.model import Model

# A fixed point is only named where the dynamics pull toward it: the largest |eigenvalue| of A must be below this.
ATTRACTING = 0.9999


def _of_states(model: Model, frames: Frames, value: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """A value of every state and its prediction of the regressed frames (R, M), shape (N, K, M); else 0."""
    weights = model.parameters.emission.weights
    out = np.zeros((len(frames.levels), *weights.shape[:2]))
    for k, w in enumerate(weights):
        out[frames.regressed, k] = value(k, frames.design[:, : frames.inputs] @ w.T)
    return out


def forces(model: Model, frames: Frames) -> np.ndarray:
    """S_k^-1 (m_k - x_t) of every frame and state, shape (N, K, M), in normalised features.

    First frames of `ar` have no state-dependent density: 0.
    """
    covariances, targets = model.parameters.emission.covariances, frames.design[:, frames.inputs :]

    def force(k: int, predicted: np.ndarray) -> np.ndarray:
        # In units of the targets; a division by the unit makes it a gradient in normalised features.
        return np.asarray(np.linalg.solve(covariances[k], (predicted - targets).T).T / frames.unit)

    return _of_states(model, frames, force)


def posterior_gradient(model: Model, frames: Frames) -> np.ndarray:
    """d log p(z_t=k | x_1:t) / d x_t in normalised features, shape (N, K, M)."""
    p = model.parameters
    filtered = inference.filtering(p.start, p.transitions, model.log_density(frames), frames.lengths)
    force = forces(model, frames)
    return np.asarray(force - np.einsum("nk,nkm->nm", filtered, force)[:, None, :])


def marginal_log_density(model: Model, frames: Frames) -> np.ndarray:
    """Log-density of every feature alone under every state, shape (N, K, M), nats; 0 in first frames of `ar`.

    Differences between states say which feature tells them apart. Unlike the gradient, which is divided by the
    covariance, they are not ruled by directions in which collinear features hardly vary.
    """
    covariances, targets = model.parameters.emission.covariances, frames.design[:, frames.inputs :]

    def density(k: int, predicted: np.ndarray) -> np.ndarray:
        variance = np.diagonal(covariances[k])
        constant = np.log(2 * np.pi * variance)
        return np.asarray(-0.5 * ((predicted - targets) ** 2 / variance + constant + 2 * np.log(frames.unit)))

    return _of_states(model, frames, density)


def model_drifts(model: Model, frames: Frames) -> np.ndarray:
    """(A_k - I) x_{t-1} + b_k of every frame and state (`ar`), shape (N, K, M), z-units per row; 0 in first frames."""
    return _of_states(model, frames, lambda k, predicted: predicted * frames.unit)


def fixed_points(model: Model) -> np.ndarray:
    """Where each state's dynamics come to rest under `ar`, x* = (I - A_k)^-1 b_k, shape (K, M), z-units.

    NaN for a state whose dynamics do not pull toward a point (an eigenvalue of A_k on the unit circle or outside).
    """
    weights = model.parameters.emission.weights * model.unit[:, None]
    size = weights.shape[1]
    out = np.full(weights.shape[:2], np.nan)
    for k, w in enumerate(weights):
        if np.abs(np.linalg.eigvals(w[:, :-1] + np.eye(size))).max() < ATTRACTING:
            out[k] = np.linalg.solve(-w[:, :-1], w[:, -1])
    return out
