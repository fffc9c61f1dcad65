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

LOSSES = ("cross_entropy", "mse")
ACCURACY = Column("share of the examples whose largest output is the target's", "1")


def columns(mse: str) -> Columns:
    """Return what a classification records, given what its `mse` is."""
    about = f"mean over examples of -ln p(target) (`cross_entropy`), or {mse} (`mse`), f the outputs"
    return {"loss": Column(about, "nats an example; 1 (`mse`)"), "accuracy": ACCURACY}


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each run's mean cross-entropy (S,), over all columns of logits (S, B, C), for labels (S, B)."""
    from torch.nn.functional import cross_entropy as examplewise

    flat = examplewise(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape).mean(1)


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
