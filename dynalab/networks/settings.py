"""Torch's settings while something is computed that has the bits of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def whole_float32() -> None:
    """Have cards compute in float32 what is float32: torch lets cuDNN round convolutions to TF32, of 10 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def as_trained(threads: int) -> Iterator[None]:
    """Compute with so many threads, whole float32 and no denormals, as workers do; torch's settings are put back."""
    before = torch.get_num_threads()
    rounded = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(threads)
    whole_float32()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = rounded
