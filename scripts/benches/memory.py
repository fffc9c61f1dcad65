"""A thousand seeds of parity: time linear in the seeds, memory bounded by the width of a shard."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from benches.base import Options, Row, Subject, dynalab, gather
from benches.parity import WORDS
from dynalab.core.machine import cores

_SECONDS = 0.05
_MARGIN = 1.1


def watch(pid: int) -> Callable[[], int]:
    """Follow the workers of a command, forks of its child; what is returned ends it and sums their peaks, in bytes.

    A process' own peak (VmHWM) never falls, so the last that was seen of each counts.
    """
    peaks: dict[int, int] = {}
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_SECONDS):
            for child in _workers(pid):
                peaks[child] = max(peaks.get(child, 0), _peak(child))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def end() -> int:
        stop.set()
        thread.join()
        return sum(peaks.values())

    return end


def _workers(pid: int) -> list[int]:
    return [worker for child in _children(pid) for worker in _children(child)]


def _children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid and b"dynalab.worker" in command:
                found.append(int(entry))
    return found


def _peak(pid: int) -> int:
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def measure(options: Options) -> list[Row]:
    """Train many seeds, few, and as many as the workers hold at once."""
    many, few, steps = (40, 4, 20) if options.quick else (1000, 20, 2000)
    words = [*WORDS, f"train.steps={steps}"]
    times, peaks, seconds, held = [], [], [], {}
    for pair in range(options.pairs):
        options.say(f"{many} seeds of parity, pair {pair + 1} of {options.pairs}")
        large = dynalab([*words, f"seed=0..{many - 1}"], watch)
        small = dynalab([*words, f"seed=0..{few - 1}"])
        times.append(large.seconds / small.seconds * few / many)
        # One shard for each worker, as wide as the widest of the thousand: what its width asks for.
        width = max(large.widths)
        bound = dynalab(
            [
                *words,
                f"seed=0..{width * cores() - 1}",
                f"compute.width={width}",
                f"compute.workers={cores()}",
            ],
            watch,
        )
        peaks.append(large.peak_bytes / bound.peak_bytes)
        seconds.append({f"{many} seeds": large.seconds, f"{few} seeds": small.seconds})
        held = {"many": large.peak_bytes / 2**20, "bound": bound.peak_bytes / 2**20, "width": width}
    what = f"{many:,} seeds of parity, {steps:,} steps"
    bar = None if options.quick else _MARGIN
    note = f"workers' peaks add up to {held['many']:.0f} MiB, with one shard of {held['width']} a worker to "
    note += f"{held['bound']:.0f} MiB"
    return [
        Row(what, f"{many // few} times {few} seeds", times, bar, at_least=False, seconds=gather(seconds)),
        Row(
            f"{what}, memory",
            "one shard a worker, as wide",
            peaks,
            bar,
            at_least=False,
            note=note,
        ),
    ]


SUBJECT = Subject("thousand", "1,000 seeds of parity against 20, in time and in memory", measure)
