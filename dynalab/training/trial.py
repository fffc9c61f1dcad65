"""What a worker tries before there is anything to train: a second or two on networks that are thrown away.

Requests and answers are plain values, as JSON has them.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dynalab.config.ensemble import from_stored, from_tree
from dynalab.config.schema import Compute
from dynalab.core.machine import file_memory, free_memory, job_memory
from dynalab.core.plugins import named
from dynalab.core.streams import Streams
from dynalab.networks.build import network_of
from dynalab.store.runfile import Run
from dynalab.training.exactness import exactness
from dynalab.training.handover import rehearse_way
from dynalab.training.jobplan import Survey, plan_jobs
from dynalab.training.loop import Loop
from dynalab.training.measuring import needs_of
from dynalab.training.planner import MEMORY_SHARE, Timing, Trial, are_by_torch, is_short
from dynalab.training.provenance import cpu_type
from dynalab.training.segments import segments

# Seconds of steps measured for a layout; the first step is apart, since it builds what later ones reuse.
SECONDS = 0.15
LEAST_STEPS, MOST_STEPS = 3, 400
_WARM_UP = 3


def _loop(
    config: Mapping[str, Any],
    width: int,
    steps: int,
    device: torch.device,
    folders: Sequence[str],
    exact: bool,
    compile: bool | None,
) -> Loop:
    """Return a training of the seeds 0 to `width` - 1."""
    paths = [Path(folder) for folder in folders]
    streams = [Streams.from_seed(seed) for seed in range(width)]
    return Loop(from_tree(config, paths), streams, steps, device, paths, exact=exact, compile=compile)


def trial(
    config: Mapping[str, Any],
    layouts: Sequence[tuple[int, int]],
    run_steps: float,
    device: str,
    folders: Sequence[str] = (),
    exact: bool = True,
    compile: bool | None = False,
) -> dict[str, Any]:
    """Time layouts (width, threads), the narrowest first: it tells how much memory a wider one takes.

    Args:
        config: The ensemble's configuration, as `EnsembleConfig.as_dict` gives it.
        layouts: What to try; one of several threads is tried without `exact`.
        run_steps: Updates of single runs that each worker will make; little work is tried with one layout alone.
        device: Where.
        folders: A user's plug-in folders.
        exact: As `compute.exact`.
        compile: As `compute.compile`; null leaves several threads to torch where one is tried beside.

    Returns:
        The fields of a `Trial`, timings in the order tried; layouts that would not fit in memory are left out.
    """
    where = torch.device(device)
    before, base = torch.get_num_threads(), _peak(where)
    timings: list[Timing] = []
    run_bytes, peaks, compilable = 0.0, list[float](), False
    free = _free(where)
    try:
        for width, threads in sorted(layouts):
            if free and width * run_bytes > MEMORY_SHARE * free:
                break
            torch.set_num_threads(threads)
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats(where)
            code = False if compile is None and threads > 1 and are_by_torch(layouts) else compile
            loop = _loop(config, width, MOST_STEPS, where, folders, exact and threads == 1, code)
            seconds, compilable = _seconds(loop) / width, not compile and loop.is_compilable
            del loop
            gc.collect()
            timings.append(Timing(width, threads, seconds))
            peaks.append(_peak(where))
            run_bytes = max(run_bytes, (peaks[-1] - base) / width)
            if is_short(seconds, run_steps, len(layouts)):
                break
    finally:
        torch.set_num_threads(before)
    if where.type != "cuda":
        return dataclasses.asdict(Trial(tuple(timings), run_bytes, compilable=compilable))
    if len(peaks) > 1 and peaks[1] > peaks[0]:
        # Without what a card holds for any number of runs, as the workspaces of its libraries.
        run_bytes = (peaks[1] - peaks[0]) / (timings[1].width - timings[0].width)
    # Again: a plug-in may have left this process less than there is.
    return dataclasses.asdict(Trial(tuple(timings), run_bytes, min(free or 0, room(device) or 0)))


def room(device: str) -> int | None:
    """Return the bytes of memory that are free on a device."""
    return _free(torch.device(device))


@named
def rehearse(
    config: Mapping[str, Any],
    runs: Sequence[Mapping[str, int]],
    steps: int,
    device: str,
    folders: Sequence[str] = (),
    exact: bool = True,
) -> None:
    """Go through what training of some runs, stream -> seed each, begins with: parts, data, an update, an evaluation.

    Probes that are plug-ins are measured once. Of a fork the way there is gone first, its edit included.

    Raises:
        DynalabError: What training would refuse, in its words.
    """
    paths = [Path(folder) for folder in folders]
    members = [Run(f"s{place:04d}", place, dict(streams)) for place, streams in enumerate(runs)]
    # What a fork's parent was trained with is looked for; of a configuration that was composed just now, any source.
    asked = from_stored(config, paths) if config.get("origin") else from_tree(config, paths)
    way = segments(asked, members, steps, paths)
    loop = rehearse_way(way, torch.device(device), paths, exact=exact)
    for split in ("train", "test"):
        loop.measuring.evaluate(split)
    loop.measuring.measure_own()
    if steps:
        loop.update()


def size(config: Mapping[str, Any], folders: Sequence[str] = ()) -> int:
    """Return the bytes of one run's weights and buffers, averaged ones too, as a snapshot keeps them."""
    paths = [Path(folder) for folder in folders]
    typed = from_stored(config, paths)
    network = network_of(typed, Streams.from_seed(0), paths)
    own = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    return own if typed.average is None else 2 * own


def survey(
    config: Mapping[str, Any],
    n_runs: int,
    compute: Mapping[str, Any],
    device: str,
    cpus: int,
    layouts: Sequence[tuple[int, int]],
    run_steps: float,
    folders: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure all that a plan for a cluster's jobs asks of the machine that a job has.

    Args:
        config: The ensemble's configuration, as `EnsembleConfig.as_dict` gives it.
        n_runs: New runs.
        compute: The fields of a `Compute`.
        device: Where.
        cpus: Processors of a job.
        layouts: As of `trial`.
        run_steps: Updates of single runs that each job will make.
        folders: A user's plug-in folders.

    Returns:
        The fields of a `Survey`, but for `kinds`.
    """
    options = Compute(**compute)
    on_card = device.startswith("cuda")
    found = trial(config, layouts, run_steps, device, folders, options.exact, options.compile)
    free = free_memory()
    if free and not job_memory():
        # Nothing keeps the jobs beside this one from the rest.
        free = int(free * min(cpus / (os.cpu_count() or cpus), 1.0))
    timings = found["timings"]
    known = Survey(
        Trial(**found),
        socket.gethostname(),
        torch.cuda.get_device_name(device) if on_card else cpu_type(),
        os.environ.get("SLURM_JOB_PARTITION"),
        None if on_card else free,
        size=size(config, folders),
        cut=len(timings) < len(layouts) and is_short(timings[-1].seconds, run_steps, len(layouts)),
    )
    if options.exact and not on_card:
        width = max(plan_jobs(n_runs, options, device, cpus, known).widths)
        bits = exactness(config, width, run_steps, folders, options.compile)
        known = dataclasses.replace(known, bits=bits)
    return dataclasses.asdict(known)


class Stopwatch:
    """Trains a stack and times it, as `dynalab bench` asks."""

    _loop: Loop | None = None

    def build(
        self,
        width: int,
        config: Mapping[str, Any],
        steps: int,
        device: str,
        folders: Sequence[str],
        exact: bool,
        compile: bool | None,
    ) -> None:
        """Build a stack of the seeds 0 to `width` - 1, and warm it up."""
        # What it had before is let go first.
        self._loop = None
        self._loop = loop = _loop(config, width, steps, torch.device(device), folders, exact, compile)
        loop.rows()
        for _ in range(_WARM_UP):
            loop.advance(MOST_STEPS)
            loop.rows()
        _wait(loop.device)

    def time(self, seconds: float) -> tuple[int, float]:
        """Train on for about so many seconds; returns (updates, seconds they took).

        It ends on the grid of evaluation where that is near, so that every update pays its share of it.
        """
        loop = self._loop
        assert loop is not None
        began, first = time.perf_counter(), loop.step
        while True:
            loop.advance(loop.step + MOST_STEPS)
            loop.rows()
            elapsed = time.perf_counter() - began
            if elapsed > seconds and (loop.step in loop.measuring.eval_grid or elapsed > 2 * seconds):
                break
        _wait(loop.device)
        return loop.step - first, time.perf_counter() - began


def _seconds(loop: Loop) -> float:
    """Return the least seconds that a step took, rows left out; a busy machine only adds."""
    if loop.device.type == "cuda":
        # For the memory of a row with everything on.
        loop.updates.make(needs_of(loop.measuring.items))
        loop.measuring.measure_all()
    loop.advance(MOST_STEPS)
    loop.advance(MOST_STEPS)
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < LEAST_STEPS or (time.perf_counter() < end and len(taken) < MOST_STEPS):
        began, first = time.perf_counter(), loop.step
        loop.advance(first + MOST_STEPS)
        _wait(loop.device)
        taken.append((time.perf_counter() - began) / (loop.step - first))
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    # A fork has a library in memory from the first use on, which is no run's.
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 - file_memory()


def _free(device: torch.device) -> int | None:
    if device.type != "cuda":
        return free_memory()
    free, total = torch.cuda.mem_get_info(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda where: 1.0)(device)
    return int(min(free, share * total))


# What a launcher can be asked for by name.
TRIALS: dict[str, Callable[..., Any]] = {
    "trial": trial,
    "exactness": exactness,
    "rehearse": rehearse,
    "room": room,
    "size": size,
    "survey": survey,
}
