"""Whether a seed's bits are its own with the network and on the machine at hand: tried before it is claimed.

A few updates and a row of a seed alone, three times, with weights, running statistics and inputs laid 0, 16 and 32
bytes off their places: kernels that choose by alignment round differently then, and nothing that follows is exact. And
once beside as many others as planned: kernels that choose by width.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynalab.config.ensemble import EnsembleConfig, from_tree
from dynalab.core.streams import Streams
from dynalab.networks.stack import Stack
from dynalab.optim.lines import whole
from dynalab.probes import spectra
from dynalab.training.cadence import cadence
from dynalab.training.loop import Loop
from dynalab.training.planner import ADDRESS, DRAWN, HOLD, RUN_BY_RUN

UPDATES = 3
# Length that schedules are told.
TOTAL = 1000
# Bytes; 64 is what torch aligns memory to, and the widest vector that kernels load.
SHIFTS = (0, 16, 32)
# What the trial may take: so many seconds, or this share of the training that it is for, up to so many. They are those
# that this thread works: on a busy machine the answer is the same.
SECONDS, SHARE, MOST_SECONDS = 5.0, 0.02, 120.0


def exactness(
    config: Mapping[str, Any],
    width: int,
    run_steps: float,
    folders: Sequence[str] = (),
    compile: bool | None = False,
) -> str | None:
    """Try whether bits hold on this machine's CPU. Fails no training: what is wrong with a configuration shows there.

    Args:
        config: The ensemble's configuration, as `EnsembleConfig.as_dict` gives it.
        width: Runs side by side in the widest shard that is planned.
        run_steps: Updates of single runs that each worker will make.
        folders: A user's plug-in folders.
        compile: As `compute.compile`.

    Returns:
        `HOLD`; `RUN_BY_RUN`: only where every run is trained by itself; `ADDRESS`: not even then; `DRAWN`: not even
        where the same is done twice, as where a plug-in draws from no stream. None where to try it would take too long,
        or where it cannot be trained.
    """
    paths = [Path(folder) for folder in folders]
    # What a plug-in draws from torch's own generator is drawn again in training.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            return _Trial(from_tree(config, paths), width, run_steps, paths, compile).verdict()
        except Exception:
            return None


class _TooLong(Exception):
    """The trial would take longer than it is worth."""


class _Trial:
    """One trial; arguments as of `exactness`."""

    def __init__(
        self,
        config: EnsembleConfig,
        width: int,
        run_steps: float,
        folders: Sequence[Path],
        compile: bool | None,
    ) -> None:
        self._config, self._folders, self._compile = config, folders, compile
        self._width, self._run_steps = width, run_steps
        # Seconds of an update of one run.
        self._step = 0.0

    def verdict(self) -> str:
        """Return what the trial comes to; raises `_TooLong`."""
        last = self._width - 1
        # Last, or last but one: an odd number of networks into the stack, so that it lies at another alignment than the
        # first unless all are aligned.
        odd = max(last - self._width % 2, 0)
        # What rows are made by is compiled where it is not yet, as training would: that is no part of what is timed.
        spectra.code()
        (alone,) = self._bits([odd], first=True)
        for shift in SHIFTS[1:]:
            began = time.thread_time()
            if self._bits([odd], shift) != [alone]:
                # Kernels are the same the second time in the same place; what is drawn from elsewhere is not.
                return ADDRESS if self._bits([odd]) == [alone] else DRAWN
            self._afford(time.thread_time() - began)
        if not last:
            return HOLD
        wide = self._bits(range(self._width))
        others = {0, last} - {odd}
        same = wide[odd] == alone and all([wide[seed]] == self._bits([seed]) for seed in others)
        return HOLD if same else RUN_BY_RUN

    def _bits(self, seeds: Sequence[int], shift: int = 0, first: bool = False) -> list[bytes]:
        """Return what the rows and weights of seeds side by side hold after some updates, all laid `shift` bytes off.

        The first part of the trial gives up where all of it would take too long by what this takes.
        """
        streams = [Streams.from_seed(seed) for seed in seeds]
        loop = Loop(self._config, streams, TOTAL, torch.device("cpu"), self._folders, compile=self._compile)
        # A row of everything, whatever the cadences.
        always = cadence(1)
        loop.measuring.eval_grid = always
        loop.measuring.items = [
            item if item.grid.name == "never" else dataclasses.replace(item, grid=always)
            for item in loop.measuring.items
        ]
        if shift:
            _shift(loop.stack, shift)
            if loop.averaging is not None:
                loop.averaging.edited(0)
        clock = [time.thread_time()]
        for _ in range(UPDATES):
            loop.advance(TOTAL)
            clock.append(time.thread_time())
            # The first update of a process builds what later ones reuse.
            if first and len(clock) > 2:
                self._step = (clock[-1] - clock[-2]) / loop.stack.width
                self._afford(UPDATES * (clock[-1] - clock[-2]))
        rows = loop.rows()
        if first:
            self._afford(time.thread_time() - clock[1])
        tensors = [value for row in rows.values() for value in row.values()]
        tensors += loop.tensors(len(streams))[0].values()
        return [b"".join(_bytes(tensor[run]) for tensor in tensors) for run in range(len(streams))]

    def _afford(self, seconds: float) -> None:
        """Give up where the trial is not worth what it would take, by what a run alone takes."""
        needed = seconds * (len(SHIFTS) + 2 + self._width / 2)
        if needed > min(max(SECONDS, SHARE * self._run_steps * self._step), MOST_SECONDS):
            raise _TooLong


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def _shift(stack: Stack, n_bytes: int) -> None:
    """Lay a stack's weights and buffers, and from now on its inputs, so many bytes off where they would be."""
    for tensor in (*stack.params.values(), *stack.buffers.values()):
        tensor.data = _shifted(tensor.data, n_bytes)
    for name in ("forward", "vjp"):
        setattr(stack, name, _on_shifted(getattr(stack, name), n_bytes))


def _on_shifted(function: Callable[..., Any], n_bytes: int) -> Callable[..., Any]:
    return lambda inputs, *args, **keys: function(_shifted(inputs, n_bytes), *args, **keys)


def _shifted(tensor: Tensor, n_bytes: int) -> Tensor:
    """Return a copy of the same strides (inputs that all runs share stay shared) at an address that is so far off."""
    if tensor.numel() == 0:
        return tensor
    sizes, strides, offset = tensor.size(), tensor.stride(), n_bytes // tensor.element_size()
    span = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    # torch lays new memory at multiples of 64. What fills the last vector is there as it would be.
    copy = torch.zeros(offset + whole(span), dtype=tensor.dtype)
    copy[offset : offset + span].copy_(tensor.detach().as_strided((span,), (1,)))
    return copy.as_strided(sizes, strides, offset)
