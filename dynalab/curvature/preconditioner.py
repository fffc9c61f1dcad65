"""What an adaptive optimizer divides its direction by, in the update to come.

With P = diag(sqrt(nu) + eps), and for Adam both bias corrections in it,
P = (1 - beta1^t) diag(sqrt(nu_t / (1 - beta2^t)) + eps) (Cohen et al. 2022, arXiv 2207.14484, section 2), the update
is theta - eta P^-1 m, m being the plain moving average of gradients. nu_t is taken with the gradient of that update in
it, as the update meets it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from dynalab.core.state import Upcoming
from dynalab.curvature.layout import Layout
from dynalab.curvature.thresholds import inner_of, is_adaptive

State = Mapping[str, Mapping[str, Tensor]]


def preconditioner(optimizer: Any, state: State, upcoming: Upcoming) -> dict[str, Tensor] | None:
    """Return the diagonal of P, name -> (S, ...), or None for an optimizer that is not adaptive.

    Args:
        optimizer: Its typed configuration.
        state: Its tensors before the update; empty before the first one (and after Lookahead's reset).
        upcoming: The update.
    """
    if not is_adaptive(optimizer):
        return None
    # Adam that is begun anew within a cycle of Lookahead has its first correction in the threshold instead.
    fold = getattr(optimizer, "inner_state", "keep") != "reset"
    inner = inner_of(optimizer)
    diagonal = {}
    for name, gradient in upcoming.gradients.items():
        own = state.get(name, {})
        weight = upcoming.weights[name]
        coupled = decay_of(inner, weight)
        g = gradient + coupled * weight if coupled and inner.name != "adamw" else gradient
        if inner.name == "rmsprop":
            diagonal[name] = _rmsprop(inner, own, g)
        else:
            diagonal[name] = _adam(inner, own, g, fold)
    return diagonal


def decay_of(optimizer: Any, weight: Tensor) -> float:
    """Return the weight decay of one stacked parameter (S, ...)."""
    return 0.0 if optimizer.decay == "matrices" and weight.dim() <= 2 else float(optimizer.weight_decay)


def coupled_decay(
    optimizer: Any, params: Mapping[str, Tensor], moved: Container[str], clip: Tensor, layout: Layout
) -> Tensor | None:
    """Return the weight decay inside the gradient of every parameter of some runs, (R, width); None without.

    Args:
        optimizer: Its typed configuration.
        params: The runs' weights, name -> (R, ...).
        moved: Names of those that the update moves; what has no gradient is not decayed.
        clip: Factors (R,) of clipping, which scales the gradient of the loss, not the decay that comes after it.
        layout: Says how rows lie.
    """
    inner = inner_of(optimizer)
    if not inner.weight_decay or inner.name == "adamw":
        return None
    on = {
        name: param.new_ones(param.shape) * (name in moved and bool(decay_of(inner, param)))
        for name, param in params.items()
    }
    rows = layout.rows(on)
    return rows * (inner.weight_decay / clip).to(rows.dtype)[:, None]


def _adam(config: Any, own: Mapping[str, Tensor], g: Tensor, fold: bool) -> Tensor:
    beta1, beta2 = config.betas
    count = float(own["step"]) + 1 if "step" in own else 1.0
    before = own.get("exp_avg_sq")
    nu = (1 - beta2) * g.square() + (0.0 if before is None else beta2 * before)
    if config.amsgrad and "max_exp_avg_sq" in own:
        nu = torch.maximum(nu, own["max_exp_avg_sq"])
    denominator = (nu / (1 - beta2**count)).sqrt() + config.eps
    return denominator * (1 - beta1**count) if fold else denominator


def _rmsprop(config: Any, own: Mapping[str, Tensor], g: Tensor) -> Tensor:
    before = own.get("square_avg")
    nu = (1 - config.alpha) * g.square() + (0.0 if before is None else config.alpha * before)
    if config.centered:
        mean = own.get("grad_avg")
        nu = nu - ((1 - config.alpha) * g + (0.0 if mean is None else config.alpha * mean)).square()
        nu = nu.clamp(min=0.0)
    return nu.sqrt() + config.eps
