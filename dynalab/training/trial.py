"""The planner's trial: a second or two of the real step, in a worker, on networks that are thrown away."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.machine import free_memory
from dynalab.core.streams import Streams
from dynalab.training.loop import Loop
from dynalab.training.planner import MEMORY_SHARE, Timing, Trial, is_short

# Seconds of steps measured for a layout; the first step is apart, since it builds what later ones reuse.
SECONDS = 0.15
LEAST_STEPS, MOST_STEPS = 3, 400
# Examples of a batch that a rehearsal looks at.
FEW = 2


def trial(
    config: EnsembleConfig,
    layouts: Sequence[tuple[int, int]],
    run_steps: float,
    device: torch.device,
    folders: Sequence[Path] = (),
    exact: bool = True,
) -> Trial:
    """Time layouts, the narrowest first: it tells how much memory a wider one takes.

    Args:
        config: The ensemble's configuration.
        layouts: (width, threads) to try.
        run_steps: Updates of single runs that each worker will make; little work is tried with one layout alone.
        device: Where.
        folders: A user's plug-in folders.
        exact: As `compute.exact`; a layout of several threads is tried without in any case.

    Returns:
        The timings, in the order tried; layouts that would not fit in memory are left out.
    """
    before, base = torch.get_num_threads(), _peak(device)
    timings: list[Timing] = []
    run_bytes, peaks = 0.0, list[float]()
    free = _free(device)
    try:
        for width, threads in sorted(layouts):
            if free and width * run_bytes > MEMORY_SHARE * free:
                break
            torch.set_num_threads(threads)
            seconds = _seconds(config, width, device, folders, exact and threads == 1) / width
            timings.append(Timing(width, threads, seconds))
            peaks.append(_peak(device))
            run_bytes = max(run_bytes, (peaks[-1] - base) / width)
            if is_short(seconds, run_steps, len(layouts)):
                break
    finally:
        torch.set_num_threads(before)
    if device.type != "cuda":
        return Trial(tuple(timings), run_bytes)
    if len(peaks) > 1 and peaks[1] > peaks[0]:
        # Without what a card holds for any number of runs, as the workspaces of its libraries.
        run_bytes = (peaks[1] - peaks[0]) / (timings[1].width - timings[0].width)
    # Again: a plug-in may have left this process less than there is.
    return Trial(tuple(timings), run_bytes, min(free or 0, _free(device) or 0))


def rehearse(
    config: EnsembleConfig,
    runs: Sequence[Mapping[str, int]],
    steps: int,
    device: torch.device,
    folders: Sequence[Path] = (),
    exact: bool = True,
) -> None:
    """Go through what training begins with, on networks that are thrown away: parts, data, an update, an evaluation.

    Args:
        config: The ensemble's configuration.
        runs: Stream -> seed, of the runs that it would begin with.
        steps: Length of training, for schedules that depend on it.
        device: Where.
        folders: A user's plug-in folders.
        exact: As `compute.exact`.

    Raises:
        DynalabError: What training would refuse, in its words.
    """
    # A lone run would be measured in a process of its own.
    pair = [*runs, *runs][:2]
    streams = [Streams(**seeds) for seeds in pair]
    loop = Loop(config, streams, steps, device, folders, exact=exact, examples=FEW)
    for split in ("train", "test"):
        loop.evaluate(split)
    if steps:
        loop.update()
    loop.close()


def _seconds(
    config: EnsembleConfig, width: int, device: torch.device, folders: Sequence[Path], exact: bool
) -> float:
    """Return the least seconds that a step of `width` runs took, rows left out; a busy machine only adds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    streams = [Streams.from_seed(seed) for seed in range(width)]
    loop = Loop(config, streams, MOST_STEPS, device, folders, exact=exact)
    if device.type == "cuda":
        # For the memory that it takes.
        loop.rows()
    loop.update()
    loop.update()
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < LEAST_STEPS or (time.perf_counter() < end and len(taken) < MOST_STEPS):
        began = time.perf_counter()
        loop.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    del loop
    gc.collect()
    return min(taken)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def _free(device: torch.device) -> int | None:
    if device.type != "cuda":
        return free_memory()
    free, total = torch.cuda.mem_get_info(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda where: 1.0)(device)
    return int(min(free, share * total))
