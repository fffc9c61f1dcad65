"""Keys of `dynalab analyze slingshot`."""

from __future__ import annotations

from dataclasses import dataclass

from dynalab.config.schema import require


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the analysis.

    Attributes:
        window: Steps that a loss' own level and a norm's slope are taken over; 40 rows at least.
        rise: Decades that a spike rises above the level.
        zero_fraction: Share of the training examples whose loss is rounded to 0 before a slingshot, at least.
        eps: Largest epsilon of an adaptive optimizer that slingshots.
        steps: Look only at rows up to this step.
    """

    window: int = 200
    rise: float = 2.0
    zero_fraction: float = 0.05
    eps: float = 1e-6
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.window >= 1, "window", self.window, "an integer of at least 1")
        require(0 < self.rise < float("inf"), "rise", self.rise, "a positive number of decades")
        require(0 <= self.zero_fraction <= 1, "zero_fraction", self.zero_fraction, "a share from 0 to 1")
        require(self.eps >= 0, "eps", self.eps, "a number of at least 0")
        require(self.steps is None or self.steps >= 0, "steps", self.steps, "an integer of at least 0")
