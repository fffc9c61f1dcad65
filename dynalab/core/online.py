"""Correlation modes of S runs while they train: a warm-up that is kept, then running sums (arXiv 2312.13247).

Rows are taken one at a time. After the first so many the modes of every run are found in them, for good; from then on
slopes and offsets are those of least squares over all rows so far, by two sums a weight. Nothing reduces over runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.modes import Fit, decompose

if TYPE_CHECKING:
    from torch import Tensor


class OnlineModes:
    """The modes of S runs with P weights each.

    Args:
        sizes: Weights of each tensor, in their order; P is their sum.
        count: Modes of a run; there are fewer where fewer can be told apart.
        warmup: Rows that they are found in.

    Attributes:
        rows: Rows that were taken.
        references: The weights that the modes are known by, shape (S, M), places among P; None in the warm-up.
        of: The mode of each weight, shape (S, P), from 0 on; None in the warm-up.
    """

    _spread: Tensor

    def __init__(self, sizes: Sequence[int], count: int, warmup: int) -> None:
        self._sizes, self._count, self._warmup = tuple(sizes), count, warmup
        self.rows = 0
        self.references: Tensor | None = None
        self.of: Tensor | None = None
        self._kept: Tensor | None = None
        self._fit: Fit[Tensor] | None = None

    def reserve(self, runs: int, weights: Tensor) -> None:
        """Hold what the first rows of S runs take, so that a trial meets its memory; of the type of `weights`."""
        if self._kept is None and self._fit is None:
            self._kept = weights.new_zeros(runs, self._warmup, sum(self._sizes))

    def take(self, weights: Tensor) -> None:
        """Take a row in, shape (S, P); what is not finite, of runs that diverge, counts as 0."""

        weights = weights.where(weights.isfinite(), 0.0)
        if self._fit is not None:
            self._add(weights)
        else:
            self.reserve(len(weights), weights)
            assert self._kept is not None
            self._kept[:, self.rows] = weights
        self.rows += 1
        if self._fit is None and self.rows == self._warmup:
            self._find()

    def _find(self) -> None:
        import torch

        kept = self._kept
        assert kept is not None
        n_modes = min(self._count, kept.shape[2])
        references = np.zeros((len(kept), n_modes), np.int64)
        of = np.zeros((len(kept), kept.shape[2]), np.int64)
        for run, rows in enumerate(kept):
            # The same places are sampled whichever runs are beside it.
            path = rows.to("cpu", torch.float64).numpy()
            modes = decompose(path, self._sizes, n_modes, np.random.default_rng(0))
            references[run] = modes.references[0]
            references[run, : len(modes.references)], of[run] = modes.references, modes.of
        self._begin(*(torch.from_numpy(x).to(kept.device) for x in (references, of)))
        assert self._fit is not None
        for row in kept.unbind(1):
            self._add(row)
        self._kept = None

    def _add(self, weights: Tensor) -> None:
        """Add a row to the sums."""
        import torch

        assert self._fit is not None
        row = weights.to(torch.float64)
        self._fit.take(row.flatten())
        rows = self._fit.count
        away = (row - self._fit.mean.view(row.shape)).square().sum(1)
        # The squared deviations from the mean grow by those from the new mean, n / (n - 1) times.
        self._spread = self._spread + away * (rows / (rows - 1)) if rows > 1 else torch.zeros_like(away)

    def _begin(self, references: Tensor, of: Tensor) -> None:
        """Lay the runs' weights one behind another."""
        import torch

        self.references, self.of = references, of
        runs = torch.arange(len(of), device=of.device)[:, None]
        behind = (of + runs * references.shape[1]).flatten()
        self._fit = Fit(behind, (references + runs * of.shape[1]).flatten())

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Return slope and offset of each weight, both (S, P), float64, once modes were found."""
        assert self._fit is not None and self.of is not None
        slope, offset = self._fit.coefficients()
        return slope.view(self.of.shape), offset.view(self.of.shape)

    def found(self) -> Tensor:
        """Return the number of modes of each run, (S,), float64."""
        import torch

        assert self.of is not None
        return self.of.amax(1).to(torch.float64) + 1

    def r_squared(self) -> Tensor:
        """Return the share of the weights' squared deviations that the modes explain, (S,), float64.

        NaN where nothing moves.
        """
        assert self._fit is not None and self.of is not None
        slope, _ = self._fit.coefficients()
        explained = (slope * self._fit.product).view(self.of.shape).sum(1)
        return explained / self._spread

    def reconstruct(self, weights: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
        """Return weights (S, P), float64, of slopes and offsets, where the references are as in `weights` (S, P)."""
        import torch

        assert self.references is not None and self.of is not None
        now = weights.gather(1, self.references).to(torch.float64)
        return slope * now.gather(1, self.of) + offset

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: name -> (S, ...), and the number of rows."""
        import torch

        held: dict[str, Tensor] = {"rows": torch.tensor(self.rows)}
        if self._kept is not None and self.rows:
            held["kept"] = self._kept[:, : self.rows].contiguous()
        if self._fit is not None and self.references is not None and self.of is not None:
            shape = self.of.shape
            held |= {"references": self.references, "of": self.of}
            held |= {"mean": self._fit.mean.view(shape), "product": self._fit.product.view(shape)}
            held["spread"] = self._spread
        return held

    def load(self, held: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned; begin anew where that is nothing."""
        self.rows = int(held["rows"].item()) if "rows" in held else 0
        self._kept = self._fit = self.references = self.of = None
        if "kept" in held:
            kept = held["kept"]
            self.rows = kept.shape[1]
            self._kept = kept.new_zeros(len(kept), self._warmup, kept.shape[2])
            self._kept[:, : self.rows] = kept
        if "of" in held:
            self._begin(held["references"], held["of"])
            assert self._fit is not None
            # The sums go on in place, and checkpoints are another's.
            self._fit.mean, self._fit.product = (
                held["mean"].flatten().clone(),
                held["product"].flatten().clone(),
            )
            self._fit.count, self._spread = self.rows, held["spread"]
