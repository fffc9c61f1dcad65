"""Processes that make the checks: one that fails, hangs or spoils its card costs its own process alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from cards.base import OUT, ROOT, Bench, Check, place
from cards.results import Results
from dynalab.core.machine import choose_kernels

LANES = 4
# Seconds of the budget that are kept for what is timed.
KEPT = 120.0


def serve(checks: Sequence[Check], dry: bool, lane: str) -> int:
    """Make the checks whose names come on the standard input, and answer each in a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # JAX shares the card, and its share is not to be all of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    choose_kernels()
    import torch

    from dynalab.networks.settings import as_trained

    bench = Bench(dry, OUT / ("dry" if dry else "work") / lane)
    known = {check.name: check for check in checks}
    threads = max(len(os.sched_getaffinity(0)) // LANES, 1)
    if not dry and not torch.cuda.is_available():
        answers.write(json.dumps({"ready": False, "why": "torch finds no CUDA device"}) + "\n")
        return 2
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        name, began = line.strip(), time.perf_counter()
        result: dict[str, Any]
        with as_trained(threads):
            try:
                found = known[name].make(bench)
                result = dataclasses.asdict(found)
            except BaseException as error:
                frames = traceback.extract_tb(error.__traceback__)
                last = (str(error).splitlines() or [""])[0][:300]
                result = {
                    "ok": False,
                    "must": "no error",
                    "measured": f"{type(error).__name__}: {last} at {place(frames)}",
                    "trace": "".join(traceback.format_exception(error))[-4000:],
                }
        result |= {"seconds": round(time.perf_counter() - began, 1), "usable": _usable(dry)}
        answers.write(json.dumps(result, default=str) + "\n")
        if not result["usable"]:
            break
    answers.flush()
    os._exit(0)


def _usable(dry: bool) -> bool:
    """Return whether the card still answers this process."""
    import gc

    import torch

    gc.collect()
    if dry:
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        return False
    return True


class Lane:
    """A process that makes one check after another, begun anew where it was lost."""

    def __init__(self, name: str, dry: bool) -> None:
        self._name, self._dry = name, dry
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def make(self, check: Check, limit: float) -> dict[str, Any]:
        """Make a check within so many seconds."""
        began = time.monotonic()
        process = self._started(limit)
        if isinstance(process, dict):
            return process
        assert process.stdin is not None
        try:
            process.stdin.write(check.name + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        result = self._answer(limit)
        if result is None:
            lost = process.poll()
            self.close()
            why = f"no answer within {limit:.0f} s" if lost is None else f"its process ended with {lost}"
            result = {"ok": False, "must": "an answer", "measured": why}
        elif not result.pop("usable", True):
            result["measured"] += "; the card was unusable afterwards"
            self.close()
        return {**result, "seconds": round(time.monotonic() - began, 1)}

    def _started(self, limit: float) -> subprocess.Popen[str] | dict[str, Any]:
        if self._process is not None:
            return self._process
        words = [sys.executable, "-m", "cards", "--serve", self._name, *(["--dry"] if self._dry else [])]
        log = (OUT / f"lane-{self._name}.log").open("a")
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        self._lines = queue.Queue()
        threading.Thread(target=_read, args=(process, self._lines), daemon=True).start()
        self._process = process
        ready = self._answer(max(limit, 60))
        if ready is None or not ready["ready"]:
            self.close()
            why = "it did not start" if ready is None else str(ready["why"])
            return {"ok": False, "must": "a process", "measured": why, "seconds": 0.0}
        return process

    def _answer(self, limit: float) -> dict[str, Any] | None:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            return None
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def close(self) -> None:
        """End the process and what it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def run(chosen: Sequence[Check], results: Results, seconds: float, dry: bool, lanes: int) -> list[str]:
    """Make checks within a budget; return the names of those that time was not left for."""
    end = time.monotonic() + seconds
    left: list[str] = []

    def work(lane: Lane, waiting: queue.SimpleQueue[Check], end: float) -> None:
        while True:
            try:
                check = waiting.get_nowait()
            except queue.Empty:
                break
            rest = end - time.monotonic()
            if rest < 5:
                left.append(check.name)
                continue
            results.add(check.name, lane.make(check, min(check.limit, rest)))
        lane.close()

    for alone, count in ((False, lanes), (True, 1)):
        waiting: queue.SimpleQueue[Check] = queue.SimpleQueue()
        some = [check for check in chosen if check.alone == alone]
        for check in some:
            waiting.put(check)
        names = [f"{'alone' if alone else 'beside'}-{number}" for number in range(min(count, len(some)))]
        until = end if alone or not any(check.alone for check in chosen) else end - min(KEPT, seconds / 3)
        threads = [threading.Thread(target=work, args=(Lane(name, dry), waiting, until)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return left
