"""`train.modes`: weights that are given up one after another to the modes that they move with (embedded CMD).

After Brokman et al. 2024 (arXiv 2312.13247), as their code has it. Training is as usual in the warm-up, after which
each run's modes are fixed. From then on, every `modes_every` steps, slopes and offsets are brought up to date, and
weights that were embedded are set to a_i w_ref + b_i with the a_i and b_i that they were embedded with. Every
`modes_window` of these times the weights whose a_i and b_i changed least since the last such time, a share
`modes_share` of all, are embedded as well; references never are. In between, embedded weights move as all do, and
gradients and moments stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynalab.config.schema import Train
from dynalab.core.columns import OF_EMBEDDING
from dynalab.core.errors import ConfigError
from dynalab.core.online import OnlineModes


class Embedding:
    """Embeds weights of S runs.

    Args:
        train: The section `train` of the configuration, with a number of modes.
        trained: Name -> weights (S, ...), of those that are trained.

    Attributes:
        embedded: Which weights are, shape (S, P), bool; None before any is.
    """

    embedded: Tensor | None

    def __init__(self, train: Train, trained: Mapping[str, Tensor]) -> None:
        assert train.modes is not None
        self._keys = train
        self._params = [param.detach() for param in trained.values()]
        self._sizes = [param[0].numel() for param in self._params]
        self.load({})

    def next_due(self, step: int) -> int:
        """Return the next step after `step` at which weights are taken into modes."""
        every = self._keys.modes_every
        return step - step % every + every

    def take(self, step: int, lost: Tensor | None) -> None:
        """Embed after `step` updates; `lost` says which runs have diverged, (S,), where any has."""
        if step % self._keys.modes_every:
            return
        weights = torch.cat([param.unsqueeze(-1).flatten(1) for param in self._params], 1)
        modes = self._modes
        found = modes.of is not None
        modes.take(weights)
        if modes.of is None:
            return
        if not found:
            self._slope, self._offset = modes.coefficients()
            self.embedded = torch.zeros_like(modes.of, dtype=torch.bool)
        elif (modes.rows - self._keys.modes_warmup) % self._keys.modes_window == 0:
            self._choose()
        assert self.embedded is not None
        moved = self.embedded if lost is None else self.embedded & ~lost[:, None]
        made = modes.reconstruct(weights, self._slope, self._offset).to(weights.dtype)
        after = made.where(moved, weights).split(self._sizes, 1)
        for param, own in zip(self._params, after, strict=True):
            param.copy_(own.view(param.shape))

    def _choose(self) -> None:
        """Embed the weights whose slopes and offsets have changed least."""
        slope, offset = self._modes.coefficients()
        taken, references = self.embedded, self._modes.references
        assert taken is not None and references is not None
        change = (slope - self._slope).square() + (offset - self._offset).square()
        never = taken.scatter(1, references, True)
        order = change.masked_fill(never, torch.inf).argsort(dim=1, stable=True)
        count = max(1, round(self._keys.modes_share * change.shape[1]))
        chosen = torch.zeros_like(taken).scatter(1, order[:, :count], True) & ~never
        # Those that were embedded keep theirs.
        self._slope, self._offset = self._slope.where(taken, slope), self._offset.where(taken, offset)
        self.embedded = taken | chosen

    def row(self) -> dict[str, Tensor]:
        """Return the columns of a row, each (S,), float64."""
        if self.embedded is None:
            share = torch.zeros(len(self._params[0]), dtype=torch.float64, device=self._params[0].device)
        else:
            share = self.embedded.sum(1, dtype=torch.float64) / self.embedded.shape[1]
        return dict.fromkeys(OF_EMBEDDING, share)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: name -> (S, ...), and a number of rows."""
        held = self._modes.tensors()
        if self.embedded is not None:
            held |= {"slope": self._slope, "offset": self._offset, "embedded": self.embedded.to(torch.uint8)}
        return held

    def load(self, held: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned; begin anew where that is nothing."""
        keys = self._keys
        assert keys.modes is not None
        self._modes = OnlineModes(self._sizes, keys.modes, keys.modes_warmup)
        self._modes.load(held)
        self._modes.reserve(len(self._params[0]), self._params[0])
        self.embedded = held["embedded"].bool() if "embedded" in held else None
        if self.embedded is not None:
            self._slope, self._offset = held["slope"].clone(), held["offset"].clone()


def embedding_of(
    train: Train, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Embedding | None:
    """Return what embeds weights, None where nothing does.

    Raises:
        ConfigError: The optimizer evaluates other weights than it moves.
    """
    if train.modes is None:
        return None
    if getattr(optimizer, "slow", None) is not None:
        raise ConfigError(
            f"train.modes={train.modes}: replaces the weights that are trained, and this optimizer evaluates others; "
            "legal: every optimizer but lookahead"
        )
    return Embedding(train, trained)
