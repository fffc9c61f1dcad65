"""Losses and accuracy of tasks with one label an example; every function keeps the runs apart.

Two conventions of the squared error on one-hot targets are about, and every sharpness depends on which it is:
`half_squared_error` is that of the edge-of-stability papers (Cohen et al. 2021, arXiv 2103.00065), `mean_squared_error`
that of `torch.nn.MSELoss`, which is 2 / C times it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.core.columns import Column, Columns

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("cross_entropy", "stablemax", "mse")
STABLEMAX = (
    "stablemax: cross-entropy with exp(z) of the softmax replaced by z + 1, by 1 / (1 - z) where z < 0"
)
ACCURACY = Column("share of the examples whose largest output is the target's", "1")


def columns(mse: str) -> Columns:
    """Return what a classification records, given what its `mse` is."""
    about = (
        f"mean over examples of -ln p(target), p being softmax (`cross_entropy`) or `stablemax` of the outputs f, or "
        f"{mse} (`mse`)"
    )
    return {"loss": Column(about, "nats an example; 1 (`mse`)"), "accuracy": ACCURACY}


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean cross-entropy (S,), over all columns of logits (S, B, C), for labels (S, B)."""
    return surprisals(outputs, targets).mean(1)


def stablemax(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean (S,) of -ln s(z_y) / sum_k s(z_k), from logits z (S, B, C) and labels (S, B)."""
    return surprisals(stable(outputs), targets).mean(1)


def stable(outputs: Tensor) -> Tensor:
    """Return ln s of logits, whose softmax is StableMax (Prieto et al. 2025, arXiv 2501.04697).

    s(z) = z + 1 for z >= 0 and 1 / (1 - z) below, so ln s(z) is ln(1 + |z|) with the sign of z: no s is ever formed
    that could be too large or too small for its type.
    """
    import torch

    # By `where` and not by abs and sign, whose derivative at 0 would be 0 and not 1.
    least = outputs >= 0
    size = torch.where(least, outputs, -outputs).log1p()
    return torch.where(least, size, -size)


def surprisals(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return -ln softmax(z)_y of every example, (S, B), from logits (S, B, C) and labels (S, B)."""
    from torch.nn.functional import cross_entropy as examplewise

    flat = examplewise(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def cross_entropy_and_gradient(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return `cross_entropy` (S,), to the bit, and its gradient by the logits, softmax less one-hot over B, (S, B, C).

    On a CPU run by run, so that what passes go over stays in the cache; autograd goes over all runs twice as often,
    once to fill memory with zeros. On a card all runs at once: it would wait for the next run's kernels.
    """
    import torch

    if outputs.device.type != "cpu":
        return all_at_once(outputs, targets)
    runs, count, classes = outputs.shape
    chosen, gradient = outputs.new_empty(runs, count, 1), outputs.new_empty(runs, count, classes)
    less = outputs.new_full((1, 1), -1.0).expand(count, 1)
    for logits, own, wanted, kept in zip(outputs, gradient, targets[..., None], chosen, strict=True):
        torch.log_softmax(logits.contiguous(), 1, out=own)
        torch.gather(own, 1, wanted, out=kept)
        own.exp_().scatter_add_(1, wanted, less).mul_(1 / count)
    return chosen.neg_().squeeze(2).mean(1), gradient


def all_at_once(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `cross_entropy_and_gradient` does, of all runs in one pass."""
    import torch

    wanted, count = targets[..., None], targets.shape[1]
    gradient = torch.log_softmax(outputs, 2)
    losses = gradient.gather(2, wanted).squeeze(2).neg_().mean(1)
    less = outputs.new_full((1, 1, 1), -1.0).expand(wanted.shape)
    return losses, gradient.exp_().scatter_add_(2, wanted, less).mul_(1 / count)


# Losses that see how probable each example's label is; `mse` has a convention of each task's own.
OF_LABELS = {"cross_entropy": cross_entropy, "stablemax": stablemax}


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean (S,) over examples of half the SUM over outputs of (o - onehot)^2."""
    return _squares(outputs, targets).sum(2).mean(1) / 2


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean (S,) over examples AND outputs of (o - onehot)^2."""
    return _squares(outputs, targets).mean((1, 2))


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share (S,), float64, of examples whose largest output (S, B, C) is the target's (S, B)."""
    import torch

    return correct(outputs, targets).to(torch.float64).mean(1)


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return which examples' largest output (S, B, C) is the target's (S, B), shape (S, B), bool."""
    return outputs.max(2).indices == targets


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    # One-hot without F.one_hot, which reads its input back to check it.
    wanted = outputs.new_zeros(outputs.shape).scatter_(2, targets[..., None], 1.0)
    return (outputs - wanted).square()
