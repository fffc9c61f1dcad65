"""Where to compute."""

from __future__ import annotations

import re

from dynalab.core.errors import ConfigError
from dynalab.core.words import count


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
