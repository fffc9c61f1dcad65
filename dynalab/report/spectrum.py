"""The part of the page on the spectral density: shown for every ensemble that recorded the probe `spectrum`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynalab.curvature.bins import columns_of, edges
from dynalab.report import figures
from dynalab.report.blocks import Block, Picture
from dynalab.report.figures.spectrum import ROWS
from dynalab.report.gather import Shown
from dynalab.report.words import count

# Of the probe's configuration, where config.yaml leaves it out.
BINS = {"low": 1e-4, "high": 1e4, "per_decade": 4}


def grid_of(config: Any) -> np.ndarray:
    """Return the edges of the bins that a resolved configuration says."""
    said = (config.get("probe") or {}).get("spectrum") or {}
    chosen = {name: said.get(name) or default for name, default in BINS.items()}
    return edges(float(chosen["low"]), float(chosen["high"]), int(chosen["per_decade"]))


def blocks(shown: Shown) -> list[Block]:
    """Return the figure, where shares of bins were recorded that fit the configuration."""
    names = columns_of(list(shown.values))
    grid = grid_of(shown.ensemble.config) if names else np.empty(0)
    if not names or len(names) != len(grid) - 1:
        return []
    steps = shown.steps[names[0]]
    maps = np.stack([shown.values[name] for name in names], axis=2)
    some = np.isfinite(maps).all(axis=2)
    drawn = [index for index in range(len(shown.runs)) if some[index].any()][:ROWS]
    if not drawn:
        return []
    top = "sharpness" if "sharpness" in shown.values else "eigenvalue_max"
    # The threshold of an adaptive optimizer is one of the preconditioned Hessian, which this is not.
    limit = None if "preconditioned_sharpness" in shown.values else shown.values.get("stability_threshold")
    figure = figures.spectral_density(
        [shown.runs[index].label for index in drawn],
        [steps[some[index]] for index in drawn],
        [maps[index][some[index]] for index in drawn],
        grid,
        largest=[(shown.steps[top], shown.values[top][index]) for index in drawn],
        threshold=None
        if limit is None
        else [(shown.steps["stability_threshold"], limit[index]) for index in drawn],
    )
    part = f" ({len(drawn)} of {count(len(shown.runs), 'run')})" if len(drawn) < len(shown.runs) else ""
    caption = (
        f"**Spectral density of the Hessian over time{part}.** A column a row of the probe, a bin a share of the "
        "eigenvalues; logarithmic on either side of 0. Most lie near 0, where bins are finer than what is resolved; "
        "a few stand out above."
    )
    return [Picture("spectrum", figure, caption, "Eigenvalues of the Hessian over training, as a map")]
