"""The edge of stability (Cohen et al. 2021, arXiv 2103.00065; adaptive optimizers: 2022, arXiv 2207.14484).

Whether the sharpness of a run rose to the threshold above which its optimizer is unstable, when it arrived, how long it
hovered there and whether it left. Importing this package imports no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.analysis.eos.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dynalab.analysis.base import Outcome, Trajectories

__all__ = ["COLUMNS", "STATUSES", "VERSION", "Config", "analyse", "describe"]

VERSION = 4
STATUSES = ("done", "diverged")
COLUMNS = (
    *("sharpness", "preconditioned_sharpness", "stability_threshold", "edge_ratio", "sharpness_residual"),
    *("preconditioned_residual", "grad_norm", "train_loss", "batch_loss"),
    *("curvature_probe_size", "curvature_probe_training"),
)


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Say of every run whether, when and how it was at the edge of stability.

    Args:
        trajectories: The runs, on whatever grids of steps.
        config: Keys of the analysis.

    Returns:
        Result, a table of ratios, and warnings.

    Raises:
        NothingMatched: The runs have no sharpness.
    """
    from dynalab.analysis.eos import outcome

    return outcome.analyse(trajectories, config)


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return a stored result in a few lines for a terminal."""
    from dynalab.analysis.eos import words

    return words.describe(result)
