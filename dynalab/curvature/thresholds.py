"""Above which curvature an optimizer is unstable: the threshold T of lambda on a quadratic lambda x^2 / 2.

One routine serves every optimizer. With its preconditioner frozen each is a linear recurrence of (x, m):

    g = (lambda + coupled) x;  m' = momentum m + gain g;  x' = (1 - rate decoupled) x - rate d

with d = m', or g + momentum m' (Nesterov). Around it Lookahead (Zhang et al. 2019) makes a cycle of k such steps. T is
the first lambda at which the spectral radius of the cycle's matrix exceeds 1. Closed forms that follow, eta the rate
and b the momentum: 2 / eta for gradient descent, (2 + 2 b) / eta heavy ball, (2 + 2 b) / ((1 + 2 b) eta) Nesterov
(Cohen et al. 2021, arXiv 2103.00065, appendix B), (2 + 2 b) / ((1 - b) eta) for Adam, lambda then being the largest
eigenvalue of P^-1/2 H P^-1/2 (Cohen et al. 2022, arXiv 2207.14484).

SAM is not linear: at gradient norm g and radius rho its update meets lambda (1 + rho lambda / g) in place of lambda,
so that T solves a quadratic equation (Long and Bartlett 2023, arXiv 2309.12488). No torch is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

ADAPTIVE = ("adam", "adamw", "rmsprop")
# Points of a scan for the first instability, before bisection.
_SCAN = 2000


@dataclass(frozen=True)
class Recurrence:
    """An optimizer as a linear recurrence, its preconditioner frozen and divided out.

    Attributes:
        rate: Learning rate, eta.
        momentum: Factor of the old momentum.
        gain: Factor of the gradient in the momentum: 1 - dampening, or 1 - beta1.
        nesterov: Whether the gradient is added to the momentum a second time.
        coupled: Weight decay inside the gradient.
        decoupled: Weight decay beside it, multiplied by the rate.
        k: Steps of a Lookahead cycle.
        alpha: Size of its slow step.
        inner_state: What becomes of the momentum at its end: `keep`, `reset`, `pullback`.
        correction: Divide the rate by 1 - momentum^j in step j of a cycle (Adam's, begun anew after a reset).
    """

    rate: float
    momentum: float = 0.0
    gain: float = 1.0
    nesterov: bool = False
    coupled: float = 0.0
    decoupled: float = 0.0
    k: int = 1
    alpha: float = 1.0
    inner_state: str = "keep"
    correction: bool = False


def recurrence(optimizer: Any, factor: float = 1.0) -> Recurrence | None:
    """Return the recurrence of an optimizer of dynalab, None for one that is not known.

    Args:
        optimizer: Its configuration: the typed one, or a mapping of the same fields (of config.yaml).
        factor: Of the schedule, on the rate.
    """
    name = _field(optimizer, "name")
    if name == "lookahead":
        inner = inner_of(optimizer)
        found = recurrence(inner, factor)
        if found is None:
            return None
        state = _field(optimizer, "inner_state", "keep")
        return replace(
            found,
            k=int(_field(optimizer, "k", 5)),
            alpha=float(_field(optimizer, "alpha", 0.5)),
            inner_state=state,
            correction=state == "reset" and _field(inner, "name") in ("adam", "adamw"),
        )
    if name == "sam" and _field(optimizer, "inner", "sgd") != "sgd":
        return None
    rate = float(_field(optimizer, "lr", _RATES.get(str(name), 0.1))) * factor
    decay = float(_field(optimizer, "weight_decay", 0.01 if name == "adamw" else 0.0))
    momentum = float(_field(optimizer, "momentum", 0.0))
    if name in ("sgd", "sam"):
        # torch ignores dampening without momentum.
        gain = 1 - float(_field(optimizer, "dampening", 0.0)) if momentum else 1.0
        return Recurrence(rate, momentum, gain, bool(_field(optimizer, "nesterov", False)), coupled=decay)
    if name == "rmsprop":
        # The preconditioner stands before torch's momentum, so the decay meets it as the gradient does.
        return Recurrence(rate, momentum)
    if name in ("adam", "adamw"):
        beta = float(_field(optimizer, "betas", (0.9, 0.999))[0])
        return Recurrence(rate, beta, 1 - beta, decoupled=decay if name == "adamw" else 0.0)
    return None


_RATES = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-2}


def displaced(optimizer: Any, train: Any) -> str:
    """Return what takes an update away from its optimizer's recurrence, as one types it; empty where nothing does.

    Args:
        optimizer: Its configuration, typed or a mapping.
        train: That of `train.*`, likewise.
    """
    if _field(optimizer, "orthogonal", False):
        return "optimizer.orthogonal=true"
    clamp = _field(train, "norm_clamp")
    return "" if clamp is None else f"train.norm_clamp={clamp:g}"


def inner_of(optimizer: Any) -> Any:
    """Return the configuration of the optimizer inside Lookahead, or the optimizer itself."""
    if _field(optimizer, "name") != "lookahead":
        return optimizer
    if hasattr(optimizer, "inner_config"):
        return optimizer.inner_config()
    own = {key: value for key, value in optimizer.items() if key not in ("k", "alpha", "inner_state")}
    return {**own, "name": optimizer["inner"]}


def is_adaptive(optimizer: Any) -> bool:
    """Return whether the threshold is one of the preconditioned Hessian."""
    return _field(inner_of(optimizer), "name") in ADAPTIVE


def threshold(found: Recurrence) -> float:
    """Return the first lambda at which the recurrence is unstable; infinite at a rate of 0.

    With decay inside the gradient lambda is that of the loss without the L2 term, as the probe measures it.
    """
    if found.rate <= 0:
        return float("inf")
    # In units of 1 / rate, so that a schedule meets the same number again and again.
    scaled = replace(found, rate=1.0, coupled=0.0, decoupled=found.rate * found.decoupled)
    return _first_unstable(scaled) / found.rate - found.coupled


def ascended_threshold(descent: float | np.ndarray, rho: float, norm: np.ndarray) -> np.ndarray:
    """Return SAM's threshold at radius rho, in the shape of the gradient's `norm`; 0 at a norm of 0.

    It is the lambda with lambda (1 + rho lambda / norm) = `descent`, that of the optimizer that takes SAM's gradient.
    """
    norm = np.asarray(norm, dtype=np.float64)
    if rho == 0:
        return np.broadcast_to(np.asarray(descent, dtype=np.float64), norm.shape).copy()
    # The root in a form without cancellation: 2 T / (1 + sqrt(1 + 4 rho T / g)).
    with np.errstate(divide="ignore"):
        return 2 * descent / (1 + np.sqrt(1 + 4 * rho * descent / norm))


def cycle(found: Recurrence, lambdas: np.ndarray) -> np.ndarray:
    """Return the matrix of one cycle for every lambda: (L,) to (L, 2, 2), acting on (x, m)."""
    lambdas = np.asarray(lambdas, dtype=np.float64)
    total = np.broadcast_to(np.eye(2), (*lambdas.shape, 2, 2))
    for step in range(1, found.k + 1):
        rate = found.rate / (1 - found.momentum**step) if found.correction else found.rate
        total = _step(found, lambdas, rate) @ total
    mixed = np.array(total)
    mixed[..., 0, :] = found.alpha * total[..., 0, :] + (1 - found.alpha) * np.array([1.0, 0.0])
    if found.inner_state == "reset":
        mixed[..., 1, :] = 0.0
    elif found.inner_state == "pullback":
        mixed[..., 1, :] = found.alpha * total[..., 1, :] + (1 - found.alpha) * np.array([0.0, 1.0])
    return mixed


def radius(found: Recurrence, lambdas: np.ndarray) -> np.ndarray:
    """Return the spectral radius of a cycle for every lambda, shape (L,)."""
    return np.abs(np.linalg.eigvals(cycle(found, lambdas))).max(-1)


def _step(found: Recurrence, lambdas: np.ndarray, rate: float) -> np.ndarray:
    g = lambdas + found.coupled
    matrix = np.empty((*lambdas.shape, 2, 2))
    matrix[..., 1, 0], matrix[..., 1, 1] = found.gain * g, found.momentum
    direction = matrix[..., 1, :] * (found.momentum if found.nesterov else 1.0)
    matrix[..., 0, :] = -rate * direction
    matrix[..., 0, 0] += 1 - rate * found.decoupled - (rate * g if found.nesterov else 0.0)
    return matrix


@lru_cache(maxsize=4096)
def _first_unstable(found: Recurrence) -> float:
    """Scan for the first lambda whose cycle grows, and bisect; Lookahead's radius is not monotone in lambda."""
    low, high = 0.0, 2.1 * (1 + found.momentum) / max(found.gain, 1e-12)
    for _ in range(40):
        grid = np.linspace(low, high, _SCAN + 1)[1:]
        unstable = radius(found, grid) > 1 + 1e-9
        if unstable.any():
            place = int(unstable.argmax())
            low, high = (grid[place - 1] if place else low), grid[place]
            break
        low, high = high, 2 * high
    else:
        return float("inf")
    for _ in range(60):
        middle = (low + high) / 2
        if radius(found, np.array([middle]))[0] > 1 + 1e-12:
            high = middle
        else:
            low = middle
    return float((low + high) / 2)


def _field(optimizer: Any, name: str, default: Any = None) -> Any:
    value = optimizer.get(name) if isinstance(optimizer, Mapping) else getattr(optimizer, name, None)
    return default if value is None else value


def partly_decayed(optimizer: Any) -> bool:
    """Return whether decay inside the gradient of SGD (or of SAM, or within Lookahead) is on some parameters alone."""
    inner = inner_of(optimizer)
    partly = getattr(inner, "decay", "all") == "matrices" and bool(getattr(inner, "weight_decay", 0.0))
    return partly and not is_adaptive(optimizer)
