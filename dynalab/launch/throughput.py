"""Steps a second over widths and numbers of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynalab.config.command import Request, Settings
from dynalab.core.machine import cores
from dynalab.launch.local import Launcher

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
    cells = []
    pool = Launcher(max(counts), compute.threads or 1)
    try:
        work = {
            "config": request.config.as_dict(),
            "steps": request.steps,
            "device": pool.device(settings.device),
            "folders": settings.folders,
            "exact": compute.exact,
            "compile": compute.compile,
        }
        for width in widths:
            seeds = f"{width} seeds side by side"
            pool.together(max(counts), f"building {seeds}", "build", width=width, **work)
            for count in counts:
                found = pool.together(count, f"training {seeds}", "time", seconds=seconds)
                rates = [steps / taken for steps, taken in found]
                cells.append(Cell(width, count, sum(rates) / count, sum(rates) * width))
                say(cells[-1])
    finally:
        pool.kill()
    return cells
