"""Steps a second over widths and numbers of workers, measured in processes of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dynalab.config.command import Request, Settings
from dynalab.core.errors import DynalabError, RunsFailed
from dynalab.core.machine import cores
from dynalab.launch.process import python, worker_environment

WIDTHS = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Cell:
    """One way to lay the work out, and how fast it was.

    Attributes:
        width: Seeds side by side in each worker.
        workers: Processes at a time.
        steps_per_second: Updates of one worker's stack, the mean over workers.
        seed_steps_per_second: Updates times seeds of all workers together.
    """

    width: int
    workers: int
    steps_per_second: float
    seed_steps_per_second: float

    @property
    def ask(self) -> str:
        """The words that ask for it."""
        return f"compute.width={self.width} compute.workers={self.workers}"


def worker_counts(most: int) -> list[int]:
    """Return the numbers of workers to try: all up to four, then doublings, and the largest."""
    doublings = [4 << power for power in range(most.bit_length()) if 4 << power < most]
    return sorted({*range(1, min(most, 4) + 1), *doublings, most})


class _Timer:
    """A process that times stacks."""

    def __init__(self, first: dict[str, Any]) -> None:
        # As long-lived as the process itself.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            python("dynalab.training.throughput"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=worker_environment(first["threads"]),
        )
        self.send(**first)

    def send(self, **values: Any) -> None:
        assert self.process.stdin is not None
        # A process that is gone has no answer either, which says more.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(values) + "\n")
            self.process.stdin.flush()

    def answer(self, what: str) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            DynalabError: The process refused, or it died while it did `what`.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            last = f": {said[-1]}" if said else ""
            raise RunsFailed(f"a worker died (exit code {code}) {what}{last}")
        found = json.loads(line)
        if found["event"] == "refused":
            error = DynalabError(found["message"])
            error.exit_code = found["exit_code"]
            raise error
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def measure(
    request: Request,
    settings: Settings,
    seconds: float,
    say: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Time every width with every number of workers; `compute.*` narrows both.

    Args:
        request: What is trained.
        settings: Its `compute.*`, device and plug-in folders.
        seconds: About how long each.
        say: Told of each cell as soon as it is measured.

    Raises:
        DynalabError: The configuration cannot be trained, or a worker died.
    """
    compute = settings.compute
    widths: Sequence[int] = (compute.width,) if compute.width else WIDTHS
    # On CUDA one worker trains all, as in training.
    most = 1 if settings.device.startswith("cuda") else cores()
    counts = [compute.workers] if compute.workers else worker_counts(most)
    first = {
        "config": request.config.as_dict(),
        "folders": [str(folder) for folder in settings.folders],
        "steps": request.steps,
        "device": settings.device,
        "threads": compute.threads or 1,
        "exact": compute.exact,
    }
    cells = []
    with _timers(max(counts), first) as timers:
        for width in widths:
            for timer in timers:
                timer.send(width=width)
            for timer in timers:
                timer.answer(f"building {width} seeds side by side")
            for count in counts:
                for timer in timers[:count]:
                    timer.send(seconds=seconds)
                found = [timer.answer(f"training {width} seeds side by side") for timer in timers[:count]]
                rates = [item["steps"] / item["seconds"] for item in found]
                cells.append(Cell(width, count, sum(rates) / count, sum(rates) * width))
                say(cells[-1])
    return cells


@contextlib.contextmanager
def _timers(count: int, first: dict[str, Any]) -> Iterator[list[_Timer]]:
    timers: list[_Timer] = []
    try:
        timers += [_Timer(first) for _ in range(count)]
        for timer in timers:
            timer.answer("starting")
        yield timers
    finally:
        for timer in timers:
            timer.end()
