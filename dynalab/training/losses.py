"""The losses of updates: kept on the device, folded in blocks into what rows, divergence and spikes want of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynalab.core.columns import OF_UPDATES
from dynalab.training.spikes import Spikes

_MOST = 64


class Losses:
    """The losses of S runs.

    Args:
        width: Number of runs, S.
        device: Where the losses are.
        spikes: What looks for spikes, where something is measured at them.

    Attributes:
        diverged_step: First update whose loss was NaN or infinite, -1 where there is none, shape (S,); as of the last
            `fold`.
        spikes: What looks for spikes.
    """

    def __init__(self, width: int, device: torch.device, spikes: Spikes | None) -> None:
        self.diverged_step = torch.full((width,), -1, dtype=torch.int64, device=device)
        # The largest, and the last losses, of no update; neither is written into.
        self._least = torch.full((width,), -torch.inf, dtype=torch.float64, device=device)
        self._largest, self._nothing = self._least, torch.full_like(self._least, torch.nan)
        self._recent: list[Tensor] = []  # (n, S) each
        self._last: Tensor | None = None
        self.spikes = spikes

    def add(self, losses: Tensor, step: int) -> None:
        """Take the losses (S,) of the update `step` -> `step + 1`, or (n, S) of it and those that follow it."""
        several = losses.view(-1, losses.shape[-1])
        if sum(map(len, self._recent)) + len(several) > _MOST:
            self.fold(step)
        self._recent.append(several)
        self._last = several[-1]

    def fold(self, step: int) -> None:
        """Fold the losses of the last updates, up to `step`, into their maximum and into the step of divergence."""
        if not self._recent:
            return
        rows = torch.cat(self._recent) if len(self._recent) > 1 else self._recent[0]
        largest = rows.amax(0).to(torch.float64)
        self._largest = torch.maximum(self._largest, largest)
        if self.spikes is not None:
            self.spikes.add(largest)
        finite = rows.isfinite()
        self._recent.clear()
        # A card is not waited for.
        if rows.device.type == "cpu" and finite.all():
            return
        bad = ~finite
        first = bad.to(torch.int8).argmax(0) + (step - len(rows) + 1)
        fresh = bad.any(0) & (self.diverged_step < 0)
        self.diverged_step = torch.where(fresh, first, self.diverged_step)

    def row(self, step: int) -> dict[str, Tensor]:
        """Return the last loss and the largest since the last row, (S,) each, NaN where there was no update."""
        # Not the last of those to be folded: others may have folded them at this step.
        last = self._nothing if self._last is None else self._last.to(torch.float64)
        self.fold(step)
        largest = torch.where(self._largest == self._least, self._nothing, self._largest)
        self._largest = self._least
        return dict(zip(OF_UPDATES, (last, largest), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, name -> (S, ...); after a `fold`."""
        found = {"loss_max": self._largest, "diverged_step": self.diverged_step}
        spikes = self.spikes.tensors() if self.spikes is not None else {}
        return {**found, **{f"spikes/{name}": value for name, value in spikes.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned; the row of that step is written before, with its last loss."""
        self._recent.clear()
        self._last = None
        self._largest, self.diverged_step = tensors["loss_max"], tensors["diverged_step"]
        kept = {name.removeprefix("spikes/"): x for name, x in tensors.items() if name.startswith("spikes/")}
        if self.spikes is not None and kept:
            self.spikes.load(kept)
