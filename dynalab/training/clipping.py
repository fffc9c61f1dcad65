"""Clipping of each run's gradient by its own norm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from dynalab.optim.ascent import along_runs, joint_norm


def clip_scale(gradients: Iterable[Tensor], norm: float) -> Tensor:
    """Return what scales each run's gradient to at most a norm (Pascanu et al. 2013), (S,), float64."""
    return (norm / (joint_norm(gradients) + 1e-6)).clamp(max=1.0)


def scaled(gradients: Sequence[Tensor | None], scale: Tensor) -> tuple[Tensor | None, ...]:
    """Multiply gradients (S, ...) by a factor a run, (S,); there may be none of a parameter."""
    return tuple(None if g is None else g * along_runs(scale, g) for g in gradients)
