"""The keys of `dynalab analyze variance`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from dynalab.analysis.convergence import ConvergenceKeys
from dynalab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys of the analysis of variance.

    Attributes:
        log_time: Split the variance of the logarithm of the convergence step.
        steps: Look only at rows up to this step; later convergence is censored.
        draws: Draws behind the intervals.
        seed: Of the draws.
        convergence: What counts as converged.
    """

    log_time: bool = False
    steps: int | None = None
    draws: int = 4000
    seed: int = 0
    convergence: ConvergenceKeys = field(default_factory=ConvergenceKeys)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.draws < 100:
            raise ConfigError(f"draws={self.draws}: must be 100 or more")
        if self.steps is not None and self.steps < 0:
            raise ConfigError(f"steps={self.steps}: must be 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: must be 0 or more")
