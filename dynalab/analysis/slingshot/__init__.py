"""Slingshots: which spikes of the loss are the cycle of Thilak et al. 2022 (arXiv 2206.04817), and what the others are.

Importing this package imports no numpy: the command line reads `Config` when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.analysis.slingshot.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dynalab.analysis.base import Outcome, Trajectories

__all__ = ["COLUMNS", "STATUSES", "VERSION", "Config", "analyse", "describe"]

VERSION = 4
STATUSES = ("done", "diverged")
# The first two are needed; what each of the others adds is said in `kinds`.
NEEDED = ("train_loss", "last_layer_norm")
CHANNELS = (
    *("train_accuracy", "zero_loss_fraction", "median_margin", "min_margin", "class_feature_cosine"),
    *("grad_norm", "last_layer_update_norm"),
)
COLUMNS = (
    *(*NEEDED, *CHANNELS, "train_loss_max", "batch_loss", "edge_ratio"),
    *("gradient_curvature", "stability_threshold", "scale_invariant_norm"),
)


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Find the spikes of every run's loss and say what each was.

    Args:
        trajectories: The runs, on whatever grids of steps.
        config: Keys of the analysis.

    Returns:
        Result, a table of the events, and warnings.

    Raises:
        NothingMatched: The runs have no training loss or no norm of the last layer.
    """
    from dynalab.analysis.slingshot import outcome

    return outcome.analyse(trajectories, config)


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return a stored result in a few lines for a terminal."""
    from dynalab.analysis.slingshot import words

    return words.describe(result)
