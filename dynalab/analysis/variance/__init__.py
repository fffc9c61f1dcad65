"""Causes of a spread: how much of it in convergence time comes from each of the crossed random streams.

For ensembles of `design=crossed`, whose runs are labelled by the seeds of their streams (`init3-order1`). Importing
this package imports nothing heavy: the command line reads `Config` when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.analysis.variance.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dynalab.analysis.base import Outcome, Trajectories

__all__ = ["VERSION", "Config", "analyse", "describe"]

VERSION = 2


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Split the variance of the convergence step of a crossed design by its sources.

    Args:
        trajectories: The runs of a crossed design.
        config: Keys of the analysis.

    Raises:
        NothingMatched: The runs are no crossed design.
        ConfigError: They are of several, or too few of them converged.
    """
    from dynalab.analysis.variance import outcome

    return outcome.analyse(trajectories, config)


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return a stored result in a few lines for a terminal."""
    unit, mean = (" in logarithm", "geometric mean") if result["log_time"] else (" steps", "mean")
    lines = [
        f"{result['cells']} runs, {' x '.join(f'{n} {name}' for name, n in result['levels'].items())}: "
        f"{result['convergence_rule']['metric']} converges at step {_text(result['mean_step'])} ({mean}), "
        f"standard deviation {_text(result['sd'])}{unit}"
    ]
    for row in result["shares"]:
        if row["share"] is None:
            continue
        low, high = row["interval"]
        lines.append(f"  {row['source']:9} {row['share']:.0%} of the variance (95%: {low:.0%} to {high:.0%})")
    return lines


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}"
