"""Lookahead (Zhang et al. 2019, arXiv 1907.08610, algorithm 1) around another optimizer.

Slow weights phi start at theta. After every k steps of the inner optimizer, phi <- phi + alpha (theta - phi) and
theta <- phi. What is evaluated, probed and kept as snapshots is phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import key
from dynalab.optim.base import Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INNER_STATES = ("keep", "reset", "pullback")

TITLE = "Lookahead around {inner}, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(Wrapper):
    """Lookahead's own fields; the inner optimizer's stand beside them."""

    hashes_tuned: ClassVar[bool] = True

    name: str = "lookahead"
    inner: str = key(
        "sgd",
        "the optimizer inside, whose keys stand beside these; null: the task's own",
        kind="an optimizer or null",
    )
    k: int = key(5, "inner steps between two synchronisations", least=1)
    alpha: float = key(0.5, "size of the slow step", above=0, most=1)
    inner_state: str = key(
        "keep",
        "the inner optimizer's moments at a synchronisation; pullback: interpolated with those of the last one, as the "
        "weights are",
        one_of=INNER_STATES,
    )


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the inner optimizer over stacked parameters and wrap it."""
    from dynalab.optim.wrapped import Lookahead

    return Lookahead(config.build_inner(params), config.k, config.alpha, config.inner_state)
