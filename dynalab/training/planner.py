"""The plan: how many workers, how many seeds side by side in each."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from dynalab.config.schema import Compute

# Beyond this, wider stacks gain nothing on a CPU and cost memory.
MOST_WIDTH = 32


@dataclass(frozen=True)
class Plan:
    """How new runs are laid out.

    Attributes:
        workers: Processes at a time.
        threads: Threads of each.
        widths: Seeds of each new shard; their sum is the number of runs.
        reason: One line for the user.
    """

    workers: int
    threads: int
    widths: tuple[int, ...]
    reason: str


def cores() -> int:
    """Return the number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def plan(n_runs: int, compute: Compute, device: str = "cpu", shared_by: int = 1) -> Plan:
    """Lay out new runs.

    Args:
        n_runs: How many there are.
        compute: The user's overrides.
        device: On CUDA one worker trains all.
        shared_by: Number of ensembles in the command; with many, each needs fewer shards to keep the workers busy.
    """
    cuda = device.startswith("cuda")
    workers = compute.workers or (1 if cuda else cores())
    threads = compute.threads or 1
    if compute.width:
        width, why = compute.width, f"compute.width={compute.width}"
    elif cuda:
        width, why = max(n_runs, 1), "one stack on the device"
    else:
        shards = max(1, math.ceil(workers / shared_by))
        width = min(max(1, math.ceil(n_runs / shards)), MOST_WIDTH)
        why = f"compute.workers={workers}" if compute.workers else "at most a worker a core"
    count = math.ceil(n_runs / width) if n_runs else 0
    small, larger = divmod(n_runs, count) if count else (0, 0)
    widths = tuple(small + (index < larger) for index in range(count))
    busy = max(min(workers, count * shared_by), 1)
    words = [
        f"{number} {word}{'s' * (number != 1)}"
        for number, word in ((busy, "worker"), (threads, "thread"), (width, "seed"))
    ]
    reason = f"{words[0]} of {words[1]}, {words[2]} wide ({why})"
    return Plan(workers, threads, widths, reason)
