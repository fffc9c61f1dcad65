"""Clipping of each run's gradient by its own norm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dynalab.optim.ascent import joint_norm


def clip_scale(gradients: Sequence[Tensor], norm: float) -> Tensor:
    """Return the factor with which each run's gradient has at most a norm (Pascanu et al. 2013), (S,), float64.

    Args:
        gradients: Shapes (S, ...).
        norm: Largest norm over all parameters of one run.
    """
    return (norm / (joint_norm(gradients) + 1e-6)).clamp(max=1.0)


def scaled(gradients: Sequence[Tensor], scale: Tensor) -> tuple[Tensor, ...]:
    """Multiply gradients (S, ...) by a factor a run, (S,)."""
    return tuple(g * scale.to(g.dtype).view(-1, *[1] * (g.dim() - 1)) for g in gradients)
