"""Keys of `dynalab analyze eos`."""

from __future__ import annotations

from dataclasses import dataclass

from dynalab.config.schema import require


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the analysis.

    Attributes:
        low: Smallest ratio of sharpness to threshold that counts as at the edge.
        high: Largest one.
        leave: A run has left the edge after five rows in a row below this ratio.
        rise: How many times the ratio rises from its minimum before it can arrive at the edge.
        skip: Steps at the beginning that are not looked at, for adaptive optimizers: their preconditioned sharpness
            begins far above the threshold and falls within the first steps.
        steps: Look only at rows up to this step.
    """

    low: float = 0.9
    high: float = 1.25
    leave: float = 0.8
    rise: float = 1.25
    skip: int = 10
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 < self.low <= 1, "low", self.low, "a ratio above 0, at most 1")
        require(self.high > 1, "high", self.high, "a ratio above 1")
        require(0 < self.leave < 1, "leave", self.leave, "a ratio between 0 and 1")
        require(self.rise >= 1, "rise", self.rise, "a factor of at least 1")
        require(self.skip >= 0, "skip", self.skip, "an integer of at least 0")
        require(self.steps is None or self.steps >= 0, "steps", self.steps, "an integer of at least 0")
