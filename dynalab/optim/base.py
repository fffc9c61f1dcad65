"""What an optimizer module holds: `Config` (a dataclass) and `build(config, params) -> torch.optim.Optimizer`.

`params` are stacked parameters, shape (S, ...), of S runs that must not touch: the update has to be elementwise.
torch's `foreach` and plain forms are; its `fused` SGD is not bit-exact on CPU (measured: the vector tail of a stacked
tensor rounds differently, so a seed's bits would depend on its place in the stack).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dynalab.config.schema import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DECAYS = ("all", "matrices")


def check_rate(lr: float | None) -> None:
    """Check a learning rate."""
    require(lr is None or lr >= 0, "optimizer.lr", lr, "a number of at least 0")


def check_decay(weight_decay: float, decay: str) -> None:
    """Check a weight decay and what it is applied to."""
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "a number of at least 0")
    require(decay in DECAYS, "optimizer.decay", decay, "all, or matrices (no decay on biases and norms)")


def check_betas(betas: tuple[float, float]) -> None:
    """Check the two decay rates of Adam's moments."""
    inside = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(inside, "optimizer.betas", list(betas), "two numbers in [0, 1)")


def grouped(params: list[Tensor], decay: str) -> list[Any]:
    """Return parameters as torch's optimizers take them: one group, or matrices and the rest without decay.

    Args:
        params: Stacked parameters, shape (S, ...).
        decay: `all` or `matrices`.
    """
    if decay == "all":
        return params
    matrices = [param for param in params if param.dim() > 2]
    rest = [param for param in params if param.dim() <= 2]
    groups: list[Any] = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def evaluated(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights (or buffers) that are evaluated and probed: an optimizer's slow ones where it has them."""
    slow = getattr(optimizer, "slow", None)
    return tensors if slow is None else {name: slow.get(tensor, tensor) for name, tensor in tensors.items()}


def state_of(optimizer: torch.optim.Optimizer, param: Tensor) -> dict[str, Tensor]:
    """Return the tensors that an optimizer holds for a parameter."""
    own = getattr(optimizer, "state_of", None)
    state = own(param) if own else optimizer.state.get(param, {})
    return {key: value for key, value in state.items() if hasattr(value, "dim")}


def load_state(optimizer: torch.optim.Optimizer, param: Tensor, state: dict[str, Tensor]) -> None:
    """Give an optimizer back the tensors that it held for a parameter."""
    own = getattr(optimizer, "load_state", None)
    if own:
        own(param, state)
    else:
        optimizer.state[param] = state
