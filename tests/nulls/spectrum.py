"""Spectra without a negative eigenvalue beyond those near zero, as the probe `spectrum` sees them."""

from __future__ import annotations

import numpy as np

from dynalab.curvature.bins import edges, shares, widths

SIZE, PRODUCTS = 200, 30
GRID = edges(1e-4, 1e4, 4)


def flat(seeds: range, near_zero: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, shape (S,), and shares of the bins, shape (S, B), one a seed.

    A few eigenvalues stand out above; the others are 0 up to a part, positive of all sizes, or of both signs up to a
    part of `near_zero` of the largest. Lanczos quadrature sees them from a start in a random direction.
    """
    import torch

    from dynalab.curvature.lanczos import Lanczos

    spectra, starts = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        top = 10 ** rng.uniform(-1, 3)
        reach = near_zero * top * rng.uniform(0.05, 1)
        bulk = (
            np.where(rng.random(SIZE) < 0.7, 0.0, top * 10 ** rng.uniform(-5, -1, SIZE)),
            top * 10 ** rng.uniform(-6, -1, SIZE),
            reach * np.cos(np.pi * rng.random(SIZE)),
        )[seed % 3]
        bulk[: rng.integers(1, 11)] = top * rng.uniform(0.1, 1)
        bulk[0] = top
        spectra.append(bulk)
        starts.append(rng.normal(size=SIZE))
    values = torch.from_numpy(np.stack(spectra))
    lanczos = Lanczos(lambda rows: rows * values, torch.from_numpy(np.stack(starts)))
    for _ in range(PRODUCTS):
        lanczos.grow()
    nodes, vectors = lanczos.decomposed()
    residuals = lanczos.betas[-1][:, None] * vectors[:, -1].abs()
    weights = vectors[:, 0].square()
    spread = widths(nodes.numpy(), residuals.numpy())
    seen = [shares(*row, GRID) for row in zip(nodes.numpy(), weights.numpy(), spread, strict=True)]
    return values.max(1).values.numpy(), np.stack(seen)
