"""Lookahead (Zhang et al. 2019, arXiv 1907.08610, algorithm 1) around another optimizer.

Slow weights phi start at theta. After every k steps of the inner optimizer, phi <- phi + alpha (theta - phi) and
theta <- phi. What is evaluated, probed and kept as snapshots is phi.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from dynalab.config import registry
from dynalab.config.schema import require
from dynalab.config.typed import typed
from dynalab.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INNER_STATES = ("keep", "reset", "pullback")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Lookahead's own fields, and the inner optimizer's beside them, so that `optimizer.lr` means the same everywhere.

    Attributes:
        inner: The inner optimizer; a task's YAML names its own.
        k: Inner steps between two synchronisations.
        alpha: Size of the slow step, in (0, 1].
        inner_state: What becomes of the inner optimizer's moments at a synchronisation: `keep` them, `reset` them, or
            `pullback`: interpolate them with those of the last synchronisation, as the weights are.
        inner_alpha: The `alpha` of an inner RMSprop.
    """

    name: str = "lookahead"
    inner: str = "sgd"
    k: int = 5
    alpha: float = 0.5
    inner_state: str = "keep"
    lr: float | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    betas: Any = None
    eps: float | None = None
    weight_decay: float | None = None
    amsgrad: bool | None = None
    decay: str | None = None
    rho: float | None = None
    centered: bool | None = None
    inner_alpha: float | None = None

    def __post_init__(self) -> None:
        """Check ranges, the inner optimizer's as well."""
        require(self.k >= 1, "optimizer.k", self.k, "an integer of at least 1")
        require(0 < self.alpha <= 1, "optimizer.alpha", self.alpha, "a number in (0, 1]")
        require(
            self.inner_state in INNER_STATES,
            "optimizer.inner_state",
            self.inner_state,
            ", ".join(INNER_STATES),
        )
        self.inner_config()

    def inner_config(self) -> Any:
        """Return the inner optimizer's typed configuration.

        Raises:
            ConfigError: There is no such optimizer, or it has no field that was set.
        """
        if self.inner == "lookahead":
            raise ConfigError("optimizer.inner=lookahead: expected another optimizer")
        part = registry.find("optimizer", self.inner)
        own = ("name", "inner", "k", "alpha", "inner_state")
        said = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in own}
        # The slow step has the paper's name; the smoothing that torch calls alpha too stands beside it.
        said["alpha"] = said.pop("inner_alpha")
        known = {item.name for item in fields(part.config_class)}
        for name, value in said.items():
            if value is not None and name not in known:
                word = "inner_alpha" if name == "alpha" else name
                raise ConfigError(
                    f"optimizer.{word}={value}: the inner optimizer {self.inner} has no such key"
                )
        return typed(
            part.config_class, {key: value for key, value in said.items() if key in known}, "optimizer"
        )


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the inner optimizer over stacked parameters and wrap it."""
    from dynalab.optim.wrapped import Lookahead

    inner = registry.find("optimizer", config.inner).build(config.inner_config(), params)
    return Lookahead(inner, config.k, config.alpha, config.inner_state)
