"""Lanczos' method for S symmetric operators at once, with full reorthogonalisation (twice, Giraud et al. 2005).

The runs share every product and nothing else: a run's result is taken when that run has converged, whatever its
neighbours still do, so it does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

# Vectors that are kept at first; the store doubles as needed.
_FIRST = 16
# On a device that computes while the host goes on, convergence is looked at (which waits) once in so many products.
_BLOCK = 4


@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenvalues of each run's operator, in descending order.

    Attributes:
        values: Shape (S, k), float64; NaN where the operator is not finite.
        vectors: Shape (S, k, width), of norm 1.
        residuals: ||A u - lambda u||, shape (S, k), float64.
        products: Products until each run had converged, shape (S,), on the host.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: Tensor


class Lanczos:
    """A Krylov basis and the tridiagonal matrix, grown a product at a time.

    Attributes:
        alphas: Diagonals so far, each (S,), float64.
        betas: Off-diagonals so far, likewise; the last one belongs to the next vector.
        broken: Which runs met a number that is not finite, shape (S,), bool.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        """Begin with vectors (S, width) of any length but 0."""
        self._product = product
        norm = lengths(start)
        self.broken = ~norm.isfinite() | (norm == 0)
        safe = torch.where(self.broken, 1.0, norm).to(start.dtype)
        first = torch.where(self.broken[:, None], 0.0, start / safe[:, None])
        self._basis = start.new_zeros(start.shape[0], _FIRST, start.shape[1])
        self._basis[:, 0] = first
        self.alphas: list[Tensor] = []
        self.betas: list[Tensor] = []

    @property
    def basis(self) -> Tensor:
        """The vectors that were multiplied, shape (S, m, width)."""
        return self._basis[:, : len(self.alphas)]

    def grow(self) -> None:
        """Make one product and the next vector."""
        m = len(self.alphas) + 1
        w = self._product(self._basis[:, m - 1])
        own = self._basis[:, :m]
        w, first = _orthogonal(w, own)
        w, second = _orthogonal(w, own)
        alpha = (first[:, -1] + second[:, -1]).to(torch.float64)
        beta = lengths(w)
        self.broken = self.broken | ~(alpha.isfinite() & beta.isfinite())
        self.alphas.append(torch.where(self.broken, 0.0, alpha))
        self.betas.append(torch.where(self.broken, 0.0, beta))
        if m == self._basis.shape[1]:
            self._basis = torch.cat([self._basis, torch.zeros_like(self._basis)], dim=1)
        none = self.betas[-1] == 0
        safe = torch.where(none, 1.0, self.betas[-1]).to(w.dtype)
        self._basis[:, m] = torch.where(none[:, None], 0.0, w / safe[:, None])

    def retire(self, done: Tensor) -> None:
        """Let runs have vectors of zeros from here on, whose products need not be computed: done (S,), bool."""
        self._basis[done.to(self._basis.device), len(self.alphas)] = 0.0

    def decomposed(self) -> tuple[Tensor, Tensor]:
        """Return the Ritz values (S, m), ascending, and the matrix of their coordinates (S, m, m), columns.

        On the host: a card would take the small matrices one by one.
        """
        numbers = torch.stack([*self.alphas, *self.betas], dim=1).cpu()
        diagonal, off = numbers.split(len(self.alphas), dim=1)
        matrix = torch.diag_embed(diagonal)
        if len(self.alphas) > 1:
            off = off[:, :-1]
            matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors


def largest(
    product: Product, start: Tensor, k: int = 1, *, tolerance: float = 1e-3, most: int = 40, size: int = 0
) -> Eigenpairs:
    """Return the k largest (algebraic) eigenvalues and their vectors.

    Args:
        product: Maps rows (S, width) to rows (S, width); symmetric, the runs apart.
        start: Shape (S, width). A warm start should keep a random part, or a new largest eigenvalue is missed where
            two cross.
        k: How many.
        tolerance: Largest residual, relative to the eigenvalue.
        most: Most products; what has not converged then is returned with the residual that it has.
        size: Dimension of the operators, where rows are filled up; 0: the width.
    """
    runs = start.shape[0]
    size = size or start.shape[1]
    k, most = min(k, size), min(max(most, k + 1), size)
    lanczos = Lanczos(product, start)
    block = 1 if start.device.type == "cpu" else _BLOCK
    done = torch.zeros(runs, dtype=torch.bool)
    values = torch.full((runs, k), torch.nan, dtype=torch.float64)
    residuals = torch.full((runs, k), torch.nan, dtype=torch.float64)
    products = torch.zeros(runs, dtype=torch.int64)
    coordinates: list[Tensor] = [torch.empty(0)] * runs
    for m in range(1, most + 1):
        lanczos.grow()
        if m < k or (m % block and m != most):
            continue
        ritz, parts = lanczos.decomposed()
        beta, broken = lanczos.betas[-1].cpu(), lanczos.broken.cpu()
        ritz, parts = ritz[:, -k:].flip(1), parts[:, :, -k:].flip(2)
        left = beta[:, None] * parts[:, -1].abs()
        good = (left <= tolerance * ritz.abs()).all(1) | broken | (m == most)
        for run in (good & ~done).nonzero()[:, 0].tolist():
            values[run], residuals[run], products[run] = ritz[run], left[run], m
            coordinates[run] = parts[run].T
        done |= good
        if bool(done.all()):
            break
        if bool(done.any()):
            lanczos.retire(done)
    broken = lanczos.broken.cpu()
    values[broken], residuals[broken] = torch.nan, torch.nan
    # Run by run, each with as many vectors as it needed itself.
    vectors = torch.stack(
        [own.to(start) @ lanczos.basis[run, : own.shape[1]] for run, own in enumerate(coordinates)]
    )
    vectors = torch.where(broken.to(start.device)[:, None, None], 0.0, vectors)
    return Eigenpairs(values.to(start.device), vectors, residuals.to(start.device), products)


def lengths(rows: Tensor) -> Tensor:
    """Return the norm of every row of (S, width), shape (S,), summed in float64."""
    return rows.to(torch.float64).square().sum(1).sqrt()


def unit(rows: Tensor) -> Tensor:
    """Scale rows (S, width) to norm 1; a row of zeros, or one that is not finite, becomes zeros."""
    norm = lengths(rows)
    good = norm.isfinite() & (norm > 0)
    safe = torch.where(good, norm, 1.0).to(rows.dtype)
    return torch.where(good[:, None], rows / safe[:, None], 0.0)


def _orthogonal(w: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Take from w (S, width) its parts along the basis (S, m, width); return the rest and the parts (S, m)."""
    parts = torch.bmm(basis, w[:, :, None])[:, :, 0]
    return w - torch.bmm(parts[:, None], basis)[:, 0], parts
