"""Many independent fits over processes, with one thread each."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, TypeVar

from dynalab.analysis.hmm import compiled
from dynalab.core.machine import cores
from dynalab.core.progress import listener

Task = TypeVar("Task")
Done = TypeVar("Done")

# Estimated seconds of one core below which a second process does not pay: it takes about as long to start and import,
# beside this one, and more waves follow as a rule.
WORTH_PROCESSES = 0.3
# Of processes that are started: one thread each, and nothing is imported from the working directory; what they import
# from is sent to them.
ENVIRONMENT = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
    ),
    "PYTHONSAFEPATH": "1",
}
# Seconds without work after which a process ends.
IDLE = 300


@dataclass(frozen=True)
class Wave:
    """Tasks that do not wait for each other, the work that is done on each, and estimates of its seconds on a core."""

    work: Callable[[Any], Any]
    tasks: Sequence[Any]
    costs: Sequence[float]


def abreast(searches: Sequence[Generator[Wave, list[Any], Done]], workers: int | None) -> list[Done]:
    """Carry on several searches, each of which asks for one wave after another, and return what they come to.

    What they ask for at one time is done together, so that nobody waits for the longest task of each.
    """
    found: dict[int, Done] = {}
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(searches)))
    while answers:
        waves: dict[int, Wave] = {}
        for index, answer in answers.items():
            try:
                waves[index] = next(searches[index]) if answer is None else searches[index].send(answer)
            except StopIteration as end:
                found[index] = end.value
        tasks = [partial(wave.work, task) for wave in waves.values() for task in wave.tasks]
        costs = [cost for wave in waves.values() for cost in wave.costs]
        done = iter(spread(_call, tasks, costs, workers) if tasks else [])
        answers = {index: [next(done) for _ in wave.tasks] for index, wave in waves.items()}
    return [found[index] for index in range(len(searches))]


def _call(task: Callable[[], Done]) -> Done:
    return task()


def spread(
    work: Callable[[Task], Done], tasks: Sequence[Task], costs: Sequence[float], workers: int | None
) -> list[Done]:
    """Do all tasks, in processes where that pays; the results do not depend on how many, nor on who is told.

    The work must be picklable; `costs` are estimates of each task's seconds on one core; `workers` is None for one per
    usable core, or none but this process for little work.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if workers is None:
        workers = cores() if sum(costs) > WORTH_PROCESSES else 1
    tell = _teller(tasks[0] if work is _call else work, len(tasks))
    # More threads would oversubscribe the cores and change the last bits of sums.
    with threadpool_limits(limits=1):
        if min(workers, len(tasks)) <= 1:
            return [tell(work(task)) for task in tasks]
        # Longest first, so that nobody sits on the largest fit while the others are done.
        order = sorted(range(len(tasks)), key=lambda i: -costs[i])
        with TemporaryDirectory(prefix="dynalab-") as folder:
            shared = Path(folder, "work.pickle")
            with shared.open("wb") as file:
                pickle.dump((compiled.used(), work, list(tasks)), file, protocol=5)
            return _together(work, tasks, order, min(workers, len(tasks)) - 1, str(shared), tell)


def _together(
    work: Callable[[Task], Done],
    tasks: Sequence[Task],
    order: Sequence[int],
    others: int,
    shared: str,
    tell: Callable[[Done], Done],
) -> list[Done]:
    """Do the tasks in this order, in other processes and meanwhile in this one, which need not wait until they start.

    Processes are loky's (joblib has it, which scikit-learn brings): the standard library's spawn context runs the
    caller's main module again, which fails in notebooks, in `python -` and in scripts without a guard.
    """
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

    pool = get_reusable_executor(max_workers=others, timeout=IDLE, env=ENVIRONMENT)
    waiting, lock = deque(order), Lock()
    handed: dict[int, Future[Done]] = {}
    done: dict[int, Done] = {}

    def hand_out() -> None:
        """Hand the next task to a process."""
        with lock:
            if not waiting:
                return
            index = waiting[0]
            future = handed[index] = pool.submit(_do, shared, index)
            # Where no process takes it any more, this one does it.
            waiting.popleft()
        future.add_done_callback(come_back)

    def come_back(future: Future[Done]) -> None:
        """Tell that one is done, and hand out another one, as soon as it is, whatever this process is doing."""
        if future.cancelled():
            return
        if future.exception() is None:
            tell(future.result())
            hand_out()
        else:
            # What is left comes to nothing.
            with lock:
                waiting.clear()

    try:
        for _ in range(others):
            hand_out()
        while True:
            with lock:
                if not waiting:
                    break
                index = waiting.popleft()
            done[index] = tell(work(tasks[index]))
        done |= {index: future.result() for index, future in handed.items()}
    except BaseException as error:
        # Nobody is handed more; what others do is given up where this was interrupted, and else comes to nothing.
        with lock:
            waiting.clear()
        if not isinstance(error, Exception):
            pool.shutdown(kill_workers=True)
        raise
    return [done[index] for index in range(len(tasks))]


def _do(shared: str, index: int) -> Any:
    """Do one task of the work in a file, in a process of its own."""
    work, tasks = _read(shared)
    return work(tasks[index])


@lru_cache(maxsize=1)
def _read(shared: str) -> tuple[Callable[[Any], Any], Sequence[Any]]:
    """Return what all tasks share, which is sent once, and the tasks, and fit as the process does that asks."""
    with open(shared, "rb") as file:
        made, work, tasks = pickle.load(file)
    compiled.use(made)
    return work, tasks


def _teller(work: Any, total: int) -> Callable[[Done], Done]:
    """Return a function that hands on what it is given, and tells the listener that one more is done."""
    heard = listener()
    if heard is None:
        return lambda one: one
    while isinstance(work, partial):
        work = work.func
    name, done, lock = work.__module__.rpartition(".")[2], 0, Lock()
    heard(name, done, total)

    def tell(one: Done) -> Done:
        nonlocal done
        with lock:
            done += 1
            heard(name, done, total)
        return one

    return tell
