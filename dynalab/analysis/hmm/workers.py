"""Many independent fits over processes, with one thread each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Task = TypeVar("Task")
Done = TypeVar("Done")

# Estimated seconds of one core below which processes do not pay: two take about 1.5 s to start and import.
WORTH_PROCESSES = 4.0


def _pinned(work: Callable[[Task], Done], task: Task) -> Done:
    """Do the work with one thread: more would oversubscribe the cores and change the last bits of sums."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        return work(task)


def spread(
    work: Callable[[Task], Done], tasks: Sequence[Task], costs: Sequence[float], workers: int | None
) -> list[Done]:
    """Do all tasks, in processes where that pays; the results do not depend on how many.

    Processes come from joblib's loky (which scikit-learn brings): the standard library's spawn context runs
    the caller's main module again, which fails in notebooks, in `python -` and in scripts without a guard.

    Args:
        work: What to do with a task; must be picklable.
        tasks: The tasks.
        costs: Estimate of each task's seconds on one core.
        workers: Processes; None for one per usable core, or none at all for little work.

    Returns:
        What the tasks yield, in their order.
    """
    import joblib  # type: ignore[import-untyped]

    if workers is None:
        workers = joblib.cpu_count() if sum(costs) > WORTH_PROCESSES else 1
    if min(workers, len(tasks)) <= 1:
        return [_pinned(work, task) for task in tasks]
    # Longest first, so that no worker sits on the largest fit while the others are done.
    order = sorted(range(len(tasks)), key=lambda i: -costs[i])
    with joblib.parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
        done = joblib.Parallel(max_nbytes=None, batch_size=1)(
            joblib.delayed(_pinned)(work, tasks[i]) for i in order
        )
    found = dict(zip(order, done, strict=True))
    return [found[i] for i in range(len(tasks))]
