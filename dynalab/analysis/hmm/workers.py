"""Many independent fits over processes, with one thread each."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

from dynalab.core.machine import cores

Task = TypeVar("Task")
Done = TypeVar("Done")

# Estimated seconds of one core below which processes do not pay: two take about 1.5 s to start and import.
WORTH_PROCESSES = 4.0

# What the fits are for, how many are done, and of how many.
Listener: TypeAlias = Callable[[str, int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def telling(listener: Listener) -> Iterator[None]:
    """Tell how far `spread` has come while the block lasts, before the first and after every fit."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _pinned(work: Callable[[Task], Done], task: Task) -> Done:
    """Do the work with one thread: more would oversubscribe the cores and change the last bits of sums."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        return work(task)


def spread(
    work: Callable[[Task], Done], tasks: Sequence[Task], costs: Sequence[float], workers: int | None
) -> list[Done]:
    """Do all tasks, in processes where that pays; the results do not depend on how many, nor on who is told.

    Processes come from joblib's loky (which scikit-learn brings): the standard library's spawn context runs the
    caller's main module again, which fails in notebooks, in `python -` and in scripts without a guard. The work must be
    picklable; `costs` are estimates of each task's seconds on one core; `workers` is None for one per usable core, or
    none at all for little work.
    """
    import joblib  # type: ignore[import-untyped]

    if workers is None:
        workers = min(joblib.cpu_count(), cores()) if sum(costs) > WORTH_PROCESSES else 1
    tell = _teller(work, len(tasks))
    if min(workers, len(tasks)) <= 1:
        return [tell(_pinned(work, task)) for task in tasks]
    # Longest first, so that no worker sits on the largest fit while the others are done.
    order = sorted(range(len(tasks)), key=lambda i: -costs[i])
    with (
        _safe_path(),
        joblib.parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1),
    ):
        # In the order of the tasks: what comes early waits for what was begun before it, which is the longer.
        done = joblib.Parallel(max_nbytes=None, batch_size=1, return_as="generator")(
            joblib.delayed(_pinned)(work, tasks[i]) for i in order
        )
        try:
            found = {i: tell(one) for i, one in zip(order, done, strict=True)}
        finally:
            # Interrupted: that the rest is given up goes without saying.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                done.close()
    return [found[i] for i in range(len(tasks))]


@contextmanager
def _safe_path() -> Iterator[None]:
    """Have processes that are started not import from the working directory; what they import from is sent to them."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _teller(work: Callable[[Task], Done], total: int) -> Callable[[Done], Done]:
    """Return a function that hands on what it is given, and tells the listener that one more is done."""
    listener = _listener.get()
    if listener is None:
        return lambda one: one
    inner: Any = getattr(work, "func", work)
    name, done = inner.__module__.rpartition(".")[2], 0
    listener(name, done, total)

    def tell(one: Done) -> Done:
        nonlocal done
        done += 1
        listener(name, done, total)
        return one

    return tell
