"""Crossed designs in which one stream has no effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from designs import simulate

from dynalab.analysis.base import Convergence, Group

# Shares of variance: of the stream without effect, of the other one, of what both decide together.
PLANTED = (0.0, 0.4, 0.6)
SPACING = 10
STREAMS = ("init", "order", "split")


def idle(seed: int) -> np.ndarray:
    """Return standardised values of 6 x 6 cells, whose first stream has no effect."""
    return simulate((6, 6), PLANTED[:2], PLANTED[2], seed)


def crossed(values: np.ndarray, last: int) -> Group:
    """Runs of a crossed design that converge at given steps, one a cell, or never within `last` steps."""
    steps = np.arange(0, last + 1, SPACING)
    runs = {
        "-".join(map("{}{}".format, STREAMS, cell)): {"test_accuracy": np.where(steps >= at, 0.95, 0.1)}
        for cell, at in np.ndenumerate(values)
    }
    return replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))
