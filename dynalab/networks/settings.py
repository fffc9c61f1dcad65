"""Torch's settings while something is computed that has the bits of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def as_trained(threads: int) -> Iterator[None]:
    """Compute with so many threads and without denormals, as workers do; torch's settings are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
