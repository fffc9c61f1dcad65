"""Updates a second by width, on a card and on all cores of the CPU beside it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cards.base import ROOT, Bench, Check, Outcome, loop_of
from cards.cases import SPEED

WIDTHS = (1, 20, 200, 1000)


def rate(loop: Any, seconds: float, most: int, device: str) -> tuple[float, int]:
    """Return the seconds of an update."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    began = time.perf_counter()
    # Of which the fourth is captured.
    for _ in range(5):
        loop.update()
        wait()
        if time.perf_counter() - began > 3:
            break
    began, steps = time.perf_counter(), 0
    while steps < most:
        loop.update()
        steps += 1
        if steps % 8 == 0 or steps < 8:
            wait()
            if time.perf_counter() - began > seconds:
                break
    wait()
    return (time.perf_counter() - began) / steps, steps


def speed(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that times updates over widths, and on all cores of the CPU beside it."""

    def check(bench: Bench) -> Outcome:
        import gc

        import torch

        widths = (1, 2, 4) if bench.dry else WIDTHS
        times: dict[int, float] = {}
        memory: dict[int, float] = {}
        slow = ""
        for width in widths:
            if times and max(times.values()) * width / max(times) > 4:
                slow = f"; {width} wide left out: a step would take seconds"
                break
            if not bench.dry:
                torch.cuda.reset_peak_memory_stats()
            try:
                loop = loop_of([*SPEED[name], "probes=[]"], width, bench.device)
                times[width], _ = rate(loop, 0.1 if bench.dry else 1.0, 2000, bench.device)
            except torch.OutOfMemoryError:
                slow = f"; {width} wide does not fit"
                break
            if not bench.dry:
                memory[width] = torch.cuda.max_memory_allocated() / 2**30
            del loop
            gc.collect()
            if not bench.dry:
                torch.cuda.empty_cache()
        base = times[widths[0]]
        slower = next((width for width in widths if times.get(width, 0.0) > 1.5 * base), None)
        cpu = _cpu_rate(name, bench)
        told = ", ".join(f"S {w}: {1 / t:.0f} steps/s" for w, t in times.items())
        told += (
            f"; a step is slower by half from S {slower}" if slower else "; a step is never slower by half"
        )
        best = max(w / t for w, t in times.items())
        told += (
            f"; at best {best:,.0f} seed steps/s, {best / cpu:.1f} times all cores of the CPU ({cpu:,.0f})"
            + slow
        )
        more = {"seconds": times, "cpu_seed_steps": cpu, "memory_gib": memory}
        return Outcome("-", told, True, more)

    return check


def _cpu_rate(name: str, bench: Bench) -> float:
    """Return the updates times seeds a second of a worker a core, each with the stack that the planner would give."""
    count = 2 if bench.dry else len(os.sched_getaffinity(0))
    width = 2 if bench.dry else math.ceil(200 / count)
    seconds = 0.2 if bench.dry else 2.0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", "cards", "--rate", name, str(width), str(seconds)]
    start = partial(subprocess.Popen, words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    workers = [start() for _ in range(count)]
    return sum(width / float(worker.communicate()[0].split()[-1]) for worker in workers)


CHECKS = [Check(f"speed: {name}", speed(name), 100, alone=True) for name in SPEED]
