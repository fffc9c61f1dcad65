"""Running statistics of a network's norms, estimated anew for weights that they were not gathered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.optim.ascent import along_runs

Tensors = Mapping[str, Tensor]

# Those of torch's norms, and of dynalab's.
_NAMES = ("running_mean", "running_var")


def statistics_of(buffers: Iterable[str]) -> list[str]:
    """Return which of a network's buffers are running statistics."""
    return [name for name in buffers if name.rpartition(".")[2] in _NAMES]


def refreshed(
    own: Tensors, batches: Iterable[Batch], moved: Callable[[Tensors, Batch], Tensors]
) -> dict[str, Tensor]:
    """Return buffers (S, ...) whose running statistics are means over pieces of examples.

    A piece counts by its number of examples; as in training, the variance of a piece is the unbiased one. A network
    that keeps no statistics gets its buffers back.

    Args:
        own: Its buffers, name -> (S, ...).
        batches: The pieces, such as training would accept as batches.
        moved: Returns the buffers that it is given as a training pass with a piece leaves them.
    """
    names = statistics_of(own)
    sums = {name: torch.zeros_like(own[name], dtype=torch.float64) for name in names}
    total, shares = 0, dict[str, Tensor]()
    with torch.no_grad():
        zeros = {name: torch.zeros_like(own[name]) for name in names}
        for batch in batches if names else ():
            # A pass moves a statistic r to (1 - m) r + m s, where s is the batch's: from 0 it comes to m s.
            once = moved({**own, **zeros}, batch)
            if not shares:
                # And from there to (2 - m) m s, which tells m, the network's own affair.
                twice = moved({**own, **{name: once[name] for name in names}}, batch)
                shares = {name: _share(once[name], twice[name]) for name in names}
            for name in names:
                sums[name] += batch.size * once[name].double() / shares[name]
            total += batch.size
    means = {name: (sums[name] / total).to(own[name].dtype) for name in names}
    return {**own, **means}


def _share(once: Tensor, twice: Tensor) -> Tensor:
    """Return how much of a batch's statistic a pass takes, m, shape (S, 1, ...), from m s and (2 - m) m s."""
    first, second = (x.double().unsqueeze(-1).flatten(1) for x in (once, twice))
    power = first.square().sum(1)
    share = torch.where(power > 0, 2 - (first * second).sum(1) / power, 1.0)
    return along_runs(share, once.double())
