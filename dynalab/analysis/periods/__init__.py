"""Periods of batch normalisation with weight decay, and the three regimes of training on the sphere.

Lobacheva et al. 2021 (arXiv 2106.15739): weight decay shrinks the norm rho of scale-invariant weights, the effective
rate eta / rho^2 grows until training destabilises, rho jumps up, and it begins again. Kodryan et al. 2022 (arXiv
2209.03695): with rho held fixed the effective rate decides between convergence, a chaotic equilibrium and divergence.
Importing this package imports no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dynalab.analysis.base import Outcome, Trajectories

__all__ = ["COLUMNS", "STATUSES", "VERSION", "Config", "analyse", "describe"]

VERSION = 2
STATUSES = ("done", "diverged")
COLUMNS = ("scale_invariant_norm", "effective_gradient_norm", "train_loss", "batch_loss", "train_loss_max")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the analysis.

    Attributes:
        jump: Rise of the log norm that begins an event.
        window: Steps that it is taken over; a row at least.
        tolerance: How far the slope of the log norm between events may be from rate times weight decay, as a share.
        steps: Look only at rows up to this step.
    """

    jump: float = 0.1
    window: int = 25
    tolerance: float = 0.1
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 < self.jump < float("inf"), "jump", self.jump, "a positive number")
        require(self.window >= 1, "window", self.window, "an integer of at least 1")
        require(0 < self.tolerance < 1, "tolerance", self.tolerance, "a share between 0 and 1")
        require(self.steps is None or self.steps >= 0, "steps", self.steps, "an integer of at least 0")


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Find the periods of every run, or its regime where the norm is held fixed.

    Args:
        trajectories: The runs, on whatever grids of steps.
        config: Keys of the analysis.

    Returns:
        Result, a table of the events, and warnings.

    Raises:
        NothingMatched: The runs have no norm of scale-invariant weights.
    """
    from dynalab.analysis.periods import outcome

    return outcome.analyse(trajectories, config)


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return a stored result in a few lines for a terminal."""
    lines = [f"{len(result['runs'])} runs"]
    for run in result["runs"][:20]:
        name = run["run"].rpartition("/")[2]
        if run["regime"] is not None:
            lines.append(f"  {name}: {run['regime']} ({run['reason']})")
            continue
        at = ", ".join(f"{event['onset_step']:,}" for event in run["events"])
        period = f", period {run['period_steps']:,.0f} steps" if run["period_steps"] else ""
        lines.append(
            f"  {name}: {run['verdict']}{f', events at {at}' if at else ''}{period} ({run['reason']})"
        )
    if len(result["runs"]) > 20:
        lines.append(f"  and {len(result['runs']) - 20} more runs")
    return lines
