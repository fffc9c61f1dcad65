"""The plan for a cluster's jobs: each has a machine, or a part of one, of its own, whatever the others do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dynalab.config.schema import Compute
from dynalab.core.words import count
from dynalab.training.planner import Plan, Trial, is_short, plan, to_try, with_bits

_OTHERWISE = "compute.width= and compute.workers= say otherwise"


@dataclass(frozen=True)
class Survey:
    """What a trial job measured where a cluster's jobs run.

    Attributes:
        trial: Times of the real step, and the memory of a run.
        host: The machine.
        processor: Its processor or card.
        partition: The partition that the job was in, as Slurm names it.
        memory: Bytes that a job may fill, None where that is not known.
        bits: Whether bits hold by the plan that follows, as `Plan.bits`.
        size: Bytes of one run's weights.
        kinds: Kinds of machines in the partition, by what Slurm tells of them; 0 where it tells nothing.
        cut: Whether wider layouts were not tried since there was little to train.
    """

    trial: Trial
    host: str
    processor: str
    partition: str | None = None
    memory: int | None = None
    bits: str | None = None
    size: int | None = None
    kinds: int = 0
    cut: bool = False

    def serves(self, run_steps: float, n_layouts: int) -> bool:
        """Return whether it is enough for a training of so many updates of single runs a job."""
        return not self.cut or is_short(self.trial.timings[0].seconds, run_steps, n_layouts)

    @property
    def place(self) -> str:
        """Where it was measured."""
        which = f", one of {self.kinds} kinds of machines of the partition" if self.kinds > 1 else ""
        return f"on {self.host}, {self.processor}{which}"


def layouts_of_jobs(n_runs: int, compute: Compute, device: str, cpus: int) -> list[tuple[int, int]]:
    """Return the (width, threads) that a trial job should measure, none where there is no choice."""
    return to_try(n_runs, _few(compute, cpus), device, 1, cpus)


def plan_jobs(
    n_runs: int,
    compute: Compute,
    device: str,
    cpus: int,
    survey: Survey | None = None,
    unmeasured: str = "",
) -> Plan:
    """Lay out new runs in jobs: few, each as wide as is fastest, or as seldom is too wide where nothing was measured.

    Args:
        n_runs: How many there are.
        compute: The user's overrides; `workers` is the number of jobs.
        device: What the jobs train on.
        cpus: Processors of a job.
        survey: What was measured on the cluster's machines.
        unmeasured: Why there is none, where there is a choice.
    """
    few = _few(compute, cpus)
    jobs = few.workers or 1
    trial, memory = (survey.trial, survey.memory) if survey else (None, None)
    laid = plan(n_runs, few, device, 1, trial, memory and memory * jobs, available=cpus, cards=jobs)
    if survey is not None:
        laid = with_bits(laid, survey.bits)
        chosen = laid.why
        if survey.cut and laid.step_seconds:
            chosen = f"too short for a choice, tried: {laid.step_seconds * 1e3:.2g} ms a step and run"
        why = f"{chosen} {survey.place}"
    else:
        why = f"{unmeasured}; {_OTHERWISE}" if unmeasured else _OTHERWISE
    wide = count(max(laid.widths, default=0), "seed")
    reason = f"{count(len(laid.widths), 'job')} of {count(laid.threads, 'thread')}, {wide} wide ({why})"
    # All jobs may run at the same time.
    return replace(laid, reason=reason, why=why, workers=max(len(laid.widths), 1))


def threads_of_jobs(compute: Compute, cpus: int) -> int:
    """Return how many threads of a job train."""
    return compute.threads or (1 if compute.exact else cpus)


def _few(compute: Compute, cpus: int) -> Compute:
    """Return what jobs are laid out by: one, unless it is said how many."""
    return replace(compute, workers=compute.workers or 1, threads=threads_of_jobs(compute, cpus))
