"""The plan: how many workers with how many threads, and how many runs side by side in each.

Without measurements the runs are spread evenly over a worker a core. A trial of the real step (`trial.py`) can say
that narrower stacks are faster (activations that outgrow the cache) or wider ones (a step so small that calling its
kernels takes as long as they do), that memory does not hold so many runs, or, where bits may depend on threads, that
one worker with all cores beats a worker a core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dynalab.config.schema import Compute
from dynalab.core.machine import cores
from dynalab.core.words import count

# Beyond the first, wider stacks gain little on a CPU and cost memory: they have to be faster by a trial. Sparse parity
# takes 26 us a step and run 25 wide, 20 us 100 wide, and 21 us 200 wide.
MOST_WIDTH, WIDEST = 32, 128
# A layout that is not the usual one must be faster by this much: trials are short, machines are noisy.
WORTH = 1.08
# Seconds of work a worker; what is done sooner is not worth a choice.
SHORT = 8.0
# Share of the free memory that a command may plan to fill.
MEMORY_SHARE = 0.6
# What a trial says of a seed's bits (`exactness.py`), as run.json records it: they are its own; they are its own where
# each run is trained by itself; they depend on where in memory its numbers lie; they are others each time.
HOLD, RUN_BY_RUN, ADDRESS, DRAWN = "hold", "hold run by run", "differ by address", "differ each time"


class Timing(NamedTuple):
    """The seconds of one step of one run, with so many runs side by side and so many threads."""

    width: int
    threads: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A short trial of the real step.

    Attributes:
        timings: The layouts that were tried.
        run_bytes: Memory that one more run in a stack takes, bytes; 0 where it could not be seen.
        free_bytes: Free memory of the GPU, bytes; None on a CPU.
        compilable: Whether compiled code can make the updates, and was not asked to.
    """

    timings: tuple[Timing, ...]
    run_bytes: float = 0.0
    free_bytes: int | None = None
    compilable: bool = False

    def seconds(self, width: int, threads: int) -> float | None:
        """Return the time of a step and run, from the nearest width that was tried with so many threads."""
        same = [timing for timing in self.timings if timing.threads == threads]
        if not same:
            return None
        return min(same, key=lambda timing: abs(math.log(timing.width / width))).seconds


@dataclass(frozen=True)
class Plan:
    """How new runs are laid out.

    Attributes:
        workers: Processes at a time.
        threads: Threads of each.
        widths: Runs of each new shard; their sum is the number of runs.
        reason: One line for the user.
        step_seconds: Measured time of a step and run, where there was a trial.
        bits: `HOLD`, `RUN_BY_RUN`, `ADDRESS` or `DRAWN`; None where it was not tried.
        why: What it was chosen by, as the line has it.
        compilable: As of the trial.
        by_torch: Whether several threads were tried and found worth it: compiled code has one.
    """

    workers: int
    threads: int
    widths: tuple[int, ...]
    reason: str
    step_seconds: float | None = None
    bits: str | None = None
    why: str = ""
    compilable: bool = False
    by_torch: bool = False


@dataclass(frozen=True)
class _Choice:
    """A way to lay out: so many runs wide, in so many workers of so many threads each.

    There are a multiple of `spread` shards, or one a run: so many workers share an ensemble, and none is to idle.
    """

    width: int
    workers: int
    threads: int
    spread: int = 1


def is_short(step_seconds: float, run_steps: float, n_layouts: int) -> bool:
    """Return whether work is over before further layouts are worth a trial; a choice of threads alone is quick.

    A step and run of the first of `n_layouts` took so long, and each worker will make `run_steps` of them.
    """
    return step_seconds * run_steps < (SHORT if n_layouts > 2 else SHORT / 8)


def are_by_torch(layouts: Sequence[tuple[int, int]]) -> bool:
    """Return whether torch makes the updates of those (width, threads) that have several threads.

    It does where one thread, which is all that compiled code has, is tried beside, so that the faster is found.
    """
    return len({threads for _, threads in layouts}) > 1


def to_try(
    n_runs: int, compute: Compute, device: str = "cpu", shared_by: int = 1, available: int | None = None
) -> list[tuple[int, int]]:
    """Return the (width, threads) that a trial should measure, none where there is no choice; arguments as of `plan`.

    On a GPU two small stacks are tried, for the memory of a run.
    """
    if n_runs == 0 or compute.width:
        return []
    if device.startswith("cuda"):
        return [(2, 1), (4, 1)] if n_runs > 4 else []
    choices = _choices(n_runs, compute, shared_by, available or cores())
    # With one core's worth of runs there is nothing to choose but the threads, which cost a seed its bits: said, not
    # done.
    pairs = [(choice.width, choice.threads) for choice in choices]
    single = (n_runs, available or cores())
    if compute.exact and not compute.threads and n_runs * shared_by == 1 and single not in pairs:
        pairs.append(single)
    unique = list(dict.fromkeys(pairs))
    return unique if len(unique) > 1 else []


def plan(
    n_runs: int,
    compute: Compute,
    device: str = "cpu",
    shared_by: int = 1,
    trial: Trial | None = None,
    memory: int | None = None,
    available: int | None = None,
    cards: int = 1,
) -> Plan:
    """Lay out new runs.

    Args:
        n_runs: How many there are.
        compute: The user's overrides.
        device: On CUDA one worker a card trains all.
        shared_by: Number of ensembles in the command; with many, each needs fewer shards to keep the workers busy.
        trial: What was measured of this work.
        memory: Free memory in bytes, where it is known.
        available: Cores; this machine's by default.
        cards: What `device` means of them, on CUDA.
    """
    n_cores = available or cores()
    if device.startswith("cuda"):
        workers = compute.workers or cards
        # Several ensembles keep several cards busy with a stack each.
        width = compute.width or max(math.ceil(n_runs / max(cards // shared_by, 1)), 1)
        why = "one stack on the device" if cards == 1 else f"{cards} cards"
        why = f"compute.width={compute.width}" if compute.width else why
        if trial is not None and trial.run_bytes and not compute.width:
            room = MEMORY_SHARE * (trial.free_bytes or 0) / math.ceil(workers / cards)
            most = max(int(room / trial.run_bytes), 1)
            width, why = min(width, most), why if width <= most else "as many as the device's memory holds"
        return _laid_out(n_runs, _Choice(width, workers, compute.threads or 1), shared_by, why)
    usual, *others = _choices(n_runs, compute, shared_by, n_cores)
    why = f"compute.workers={compute.workers}" if compute.workers else "at most a worker a core"
    if compute.width:
        return _laid_out(n_runs, usual, shared_by, f"compute.width={compute.width}")
    if trial is None:
        return _laid_out(n_runs, usual, shared_by, why)
    if not compute.exact and trial.seconds(usual.width, usual.threads) is None:
        # Too little work to try more threads: one is never far from best.
        usual = next((item for item in others if trial.seconds(item.width, item.threads)), usual)
    best = usual
    if len(trial.timings) > 1:
        best = _fastest(n_runs, usual, others, compute, shared_by, trial)
        why = f"tried: {_told(trial, best)}"
    most = _most_width(best, trial, memory)
    if best.width > most:
        best = replace(best, width=most)
        why += "; more would not fit in memory"
    laid = _laid_out(n_runs, best, shared_by, why + _hint(n_runs, compute, shared_by, trial, n_cores), trial)
    tried = [(timing.width, timing.threads) for timing in trial.timings]
    return replace(laid, by_torch=best.threads > 1 and are_by_torch(tried))


def _fastest(
    n_runs: int, usual: _Choice, others: list[_Choice], compute: Compute, shared_by: int, trial: Trial
) -> _Choice:
    """Return the choice by which the last worker is done first, the usual one unless another is worth it."""
    if not compute.exact and n_runs * shared_by == 1:
        # More threads have to be worth it: they take cores from others.
        usual, *others = sorted((usual, *others), key=lambda item: item.threads)
    best, least = usual, _makespan(n_runs, usual, shared_by, trial)
    for other in others:
        needed = _makespan(n_runs, other, shared_by, trial)
        if needed * WORTH < least:
            best, least = other, needed
    return best


def with_bits(laid: Plan, bits: str | None, shared_by: int = 1) -> Plan:
    """Return a plan by which bits hold, after what a trial of it said of them (`Plan.bits`): need be, run by run."""
    if bits == RUN_BY_RUN:
        alone = _Choice(1, laid.workers, laid.threads)
        why = f"{max(laid.widths)} wide, bits would not be a seed's own on this machine"
        other = _laid_out(sum(laid.widths), alone, shared_by, why)
        laid = replace(other, step_seconds=laid.step_seconds, compilable=laid.compilable)
    return replace(laid, bits=bits)


def _choices(n_runs: int, compute: Compute, shared_by: int, n_cores: int) -> list[_Choice]:
    """Return the ways worth a thought on a CPU, the usual one first."""
    workers = compute.workers or n_cores
    spread = max(1, math.ceil(workers / shared_by))
    share = max(1, math.ceil(n_runs / spread))
    # Compiled code takes one run after another: wide stacks cost it no cache, and save the start of others.
    top = compute.width or min(share, WIDEST if compute.compile else MOST_WIDTH)
    busy = max(min(workers, math.ceil(n_runs / top) * shared_by), 1)
    spare = 1 if compute.exact else max(n_cores // busy, 1)
    threads = compute.threads or spare
    if compute.width:
        return [_Choice(top, workers, threads)]
    widths = (top, *_narrower(top), min(share, WIDEST))
    choices = [_Choice(width, workers, threads, spread) for width in widths]
    if not compute.exact and not compute.threads and not compute.workers and n_runs * shared_by < n_cores:
        choices += [_Choice(top, workers, 1), _Choice(n_runs, 1, n_cores)]
    return list(dict.fromkeys(choices))


def _narrower(top: int) -> list[int]:
    """Return the stack widths to try below the widest; 2 is the least that costs no companion."""
    return sorted({max(2, math.ceil(top / part)) for part in (2, 5)} - {top}, reverse=True) if top > 2 else []


def _makespan(n_runs: int, choice: _Choice, shared_by: int, trial: Trial) -> float:
    """Return the time until the last worker is done, a step, by what was tried; infinite where it was not."""
    seconds = trial.seconds(choice.width, choice.threads)
    if seconds is None:
        return math.inf
    widths = _widths(n_runs, choice)
    rounds = math.ceil(len(widths) * shared_by / choice.workers)
    return rounds * max(widths, default=0) * seconds


def _most_width(choice: _Choice, trial: Trial, memory: int | None) -> int:
    """Return how many runs of a stack fit in the memory of a worker, all of them where that is not known."""
    if not memory or not trial.run_bytes:
        return choice.width
    return max(int(MEMORY_SHARE * memory / choice.workers / trial.run_bytes), 1)


def _told(trial: Trial, best: _Choice) -> str:
    """Say what was measured, the choice first, in ms a step and run."""
    chosen = trial.seconds(best.width, best.threads) or 0.0
    parts = [f"{_ms(chosen)} ms a step and run"]
    for timing in trial.timings:
        if (timing.width, timing.threads) == (best.width, best.threads):
            continue
        layout = f"{timing.width} wide"
        if timing.threads != best.threads:
            layout = count(timing.threads, "thread")
        parts.append(f"{_ms(timing.seconds)} with {layout}")
    return ", ".join(parts)


def _ms(seconds: float) -> str:
    """Return milliseconds with two or three digits that say something."""
    return f"{seconds * 1e3:.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.2g}"


def _hint(n_runs: int, compute: Compute, shared_by: int, trial: Trial, n_cores: int) -> str:
    """Say where more threads would pay, which cost a seed's bits their independence."""
    one, all_cores = trial.seconds(n_runs, 1), trial.seconds(n_runs, n_cores)
    if not compute.exact or n_runs * shared_by != 1 or one is None or all_cores is None:
        return ""
    return (
        f"; compute.exact=false would be {one / all_cores:.1f} times faster" if one > 1.2 * all_cores else ""
    )


def _widths(n_runs: int, choice: _Choice) -> tuple[int, ...]:
    """Cut runs into as few shards of at most a width as there must be, as even as can be."""
    parts = math.ceil(n_runs / choice.width)
    if parts > choice.spread:
        parts = min(math.ceil(parts / choice.spread) * choice.spread, n_runs)
    small, larger = divmod(n_runs, parts) if parts else (0, 0)
    return tuple(small + (index < larger) for index in range(parts))


def _laid_out(n_runs: int, choice: _Choice, shared_by: int, why: str, trial: Trial | None = None) -> Plan:
    widths = _widths(n_runs, choice)
    busy = max(min(choice.workers, len(widths) * shared_by), 1)
    width = max(widths, default=choice.width)
    reason = (
        f"{count(busy, 'worker')} of {count(choice.threads, 'thread')}, {count(width, 'seed')} wide ({why})"
    )
    seconds = trial.seconds(max(choice.width, 1), choice.threads) if trial else None
    compilable = trial is not None and trial.compilable
    return Plan(choice.workers, choice.threads, widths, reason, seconds, why=why, compilable=compilable)
