"""Where to compute, and what goes there and back. A card is not waited for where that can be helped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dynalab.core.errors import ConfigError
from dynalab.core.words import count

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Bytes that are copied from a card by way of pinned memory, at most: torch keeps it, in powers of two.
MOST_PINNED = 1 << 28


def resolve_device(asked: str, cuda_devices: int) -> str:
    """Return the device that `device=` means on this machine.

    Raises:
        ConfigError: It is not there.
    """
    if asked == "auto":
        return "cuda" if cuda_devices else "cpu"
    if asked != "cpu" and not re.fullmatch(r"cuda(:\d+)?", asked):
        raise ConfigError(f"device={asked}: expected cpu, cuda, cuda:N or auto")
    if asked != "cpu":
        index = int(asked.partition(":")[2] or 0)
        if index >= cuda_devices:
            there = count(cuda_devices, "CUDA device") if cuda_devices else "no CUDA device"
            raise ConfigError(f"device={asked}: this machine has {there}; use device=cpu or device=auto")
    return asked


def as_here() -> Callable[[], None]:
    """Return what gives a thread the card of this one: each begins with the first of the machine."""
    import torch

    if not torch.cuda.is_available():
        return lambda: None
    card = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(card)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host where a device copies it from while the host goes on."""
    import torch

    return tensor.pin_memory() if device.type == "cuda" and torch.cuda.is_available() else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return what was made on the host on a device; a card copies it from pinned memory, while the host goes on."""
    return pinned(tensor, device).to(device, non_blocking=True)


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the host; a card copies them one behind the other and is waited for once."""
    import torch

    on_card = [tensor for tensor in tensors.values() if tensor.device.type == "cuda"]
    pinned = sum(tensor.nbytes for tensor in on_card) <= MOST_PINNED
    found = {name: tensor.detach().to("cpu", non_blocking=pinned) for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in on_card} if pinned else ():
        torch.cuda.current_stream(device).synchronize()
    return found
