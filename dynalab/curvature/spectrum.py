"""Traces and spectral densities from Hessian-vector products.

Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017; Ghorbani et al. 2019, arXiv 1901.10159): from a random
start v of +-1, m steps with full reorthogonalisation; the Ritz values are nodes and the squared first coordinates
weights of a quadrature of the density seen by v. Without reorthogonalisation converged eigenvalues come back as
copies, and outliers must not be counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynalab.curvature.lanczos import Lanczos, Product
from dynalab.curvature.layout import Layout


@dataclass(frozen=True)
class Quadrature:
    """The spectrum of S operators as weighted nodes, of V random starts; on the host.

    Attributes:
        nodes: Shape (S, V, m), float64.
        weights: Shape (S, V, m); those of each start sum to 1.
        residuals: How far from each node an eigenvalue lies at most, shape (S, V, m).
    """

    nodes: Tensor
    weights: Tensor
    residuals: Tensor


def quadrature(
    product: Product, layout: Layout, like: Tensor, *, steps: int = 80, starts: int = 10, seed: int = 0
) -> Quadrature:
    """Estimate the spectra of S operators.

    Args:
        product: Maps rows (S, width) to rows (S, width).
        layout: How parameters lie in rows.
        like: A tensor with S rows, on the device and in the precision of the rows.
        steps: Lanczos steps, m; at most the dimension.
        starts: Random starts, V; the same for every run.
        seed: Of the starts.
    """
    steps = min(steps, layout.size)
    nodes, weights, residuals = [], [], []
    for start in range(starts):
        row = layout.signs(seed * 7919 + start, like)
        lanczos = Lanczos(product, row.expand(like.shape[0], -1).clone())
        for _ in range(steps):
            lanczos.grow()
        values, vectors = lanczos.decomposed()
        bad, beta = lanczos.broken.cpu()[:, None], lanczos.betas[-1].cpu()[:, None]
        nodes.append(torch.where(bad, torch.nan, values))
        weights.append(torch.where(bad, torch.nan, vectors[:, 0].square()))
        residuals.append(torch.where(bad, torch.nan, beta * vectors[:, -1].abs()))
    return Quadrature(torch.stack(nodes, 1), torch.stack(weights, 1), torch.stack(residuals, 1))


def hutchinson(
    product: Product, layout: Layout, like: Tensor, *, starts: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the trace (S,), float64, and its standard error (S,).

    Exact, with an error of 0, where there are no more parameters than `starts`: then the unit vectors are taken
    (Hutchinson 1990 otherwise).
    """
    if layout.size <= starts:
        total = torch.zeros(like.shape[0], dtype=torch.float64, device=like.device)
        for place in range(layout.size):
            unit = torch.zeros_like(like)
            unit[:, place] = 1.0
            total = total + product(unit)[:, place].to(torch.float64)
        return total, torch.zeros_like(total)
    each = []
    for start in range(starts):
        row = layout.signs(seed * 7919 + start, like)
        each.append((product(row.expand(like.shape[0], -1).clone()) * row).to(torch.float64).sum(1))
    values = torch.stack(each, 1)
    error = values.std(1) / starts**0.5 if starts > 1 else torch.full_like(values[:, 0], torch.nan)
    return values.mean(1), error
