"""Lookahead (Zhang et al. 2019, arXiv 1907.08610, algorithm 1) around another optimizer.

Slow weights phi start at theta. After every k steps of the inner optimizer, phi <- phi + alpha (theta - phi) and
theta <- phi. What is evaluated, probed and kept as snapshots is phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.schema import require
from dynalab.optim.base import Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INNER_STATES = ("keep", "reset", "pullback")


@dataclass(frozen=True, kw_only=True)
class Config(Wrapper):
    """Lookahead's own fields; the inner optimizer's stand beside them.

    Attributes:
        inner: The inner optimizer; the task's own by default.
        k: Inner steps between two synchronisations.
        alpha: Size of the slow step, in (0, 1].
        inner_state: What becomes of the inner optimizer's moments at a synchronisation: `keep` them, `reset` them, or
            `pullback`: interpolate them with those of the last synchronisation, as the weights are.
    """

    hashes_tuned: ClassVar[bool] = True

    name: str = "lookahead"
    k: int = 5
    alpha: float = 0.5
    inner_state: str = "keep"

    def __post_init__(self) -> None:
        """Check ranges, the inner optimizer's as well."""
        super().__post_init__()
        require(self.k >= 1, "optimizer.k", self.k, "an integer of at least 1")
        require(0 < self.alpha <= 1, "optimizer.alpha", self.alpha, "a number in (0, 1]")
        known = self.inner_state in INNER_STATES
        require(known, "optimizer.inner_state", self.inner_state, ", ".join(INNER_STATES))


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the inner optimizer over stacked parameters and wrap it."""
    from dynalab.optim.wrapped import Lookahead

    return Lookahead(config.build_inner(params), config.k, config.alpha, config.inner_state)
