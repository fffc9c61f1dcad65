"""A trial job: where a cluster's machines are to train what was never measured on them, one job measures it first.

The job is handed its requests in its script, as a worker of this machine is on its standard input, and writes its
answers beside what other jobs print. Whatever becomes of it, nothing of it stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynalab.config.schema import Slurm
from dynalab.core.atomic import storing
from dynalab.core.errors import DynalabError, StoreError
from dynalab.core.words import count
from dynalab.launch.crash import with_words
from dynalab.launch.process import environment, kept_memory, python
from dynalab.launch.slurm import cancel, options
from dynalab.store import jobs
from dynalab.store.jobs import Submission, Task, slurm
from dynalab.store.names import refuse_links
from dynalab.store.paths import OutputPaths

# A trial takes some seconds; networks of which a step takes many are cut off.
MINUTES = 10
LOOK_SECONDS, FIRST_LOOK, SECONDS_OF_MINUTE = 3.0, 0.5, 60.0
# What a machine has written others may see a moment later.
LATE_SECONDS = 5.0
_DAY = 86_400.0
_END = {"event": "gone"}

_SCRIPT = """#!/bin/bash
exec >{log} 2>&1
{setup}
{exports}
{worker} >{answers} <<'DYNALAB'
{requests}
DYNALAB
echo {end} >>{answers}
"""


@dataclass(frozen=True)
class TrialJob:
    """One that was named; `requests` are lines for a worker."""

    outputs: OutputPaths
    name: str
    requests: Sequence[dict[str, Any]]

    @property
    def answers(self) -> Path:
        """What its worker answered."""
        return self.outputs.jobs / f"{self.name}-trial.jsonl"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.outputs.jobs / f"{self.name}-trial.txt"

    def script(self, keys: Slurm, threads: int) -> str:
        """Return its script: what the user has set up first, then a worker."""
        quoted = {name: shlex.quote(os.path.abspath(getattr(self, name))) for name in ("answers", "log")}
        own = {**environment(threads), **kept_memory()}
        return _SCRIPT.format(
            **quoted,
            setup="\n".join(keys.setup),
            exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in own.items()),
            worker=shlex.join(python("dynalab.worker")),
            requests="\n".join(
                json.dumps(line, default=str)
                for line in ({"threads": threads}, *({"task": "survey", **item} for item in self.requests))
            ),
            end=shlex.quote(json.dumps(_END)),
        )

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what it has answered so far, and whether it has answered all."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in self.answers.read_text("utf-8").splitlines():
                event = json.loads(line)
                if event == _END:
                    return found, True
                if event.get("event") in ("finished", "refused", "failed"):
                    found.append(event)
        return found, len(found) == len(self.requests)

    def words(self) -> list[str]:
        """Return the last lines that it printed."""
        with contextlib.suppress(OSError):
            return self.log.read_text("utf-8", "replace")[-10_000:].splitlines()
        return []

    def forget(self) -> None:
        """Remove what it wrote."""
        with contextlib.suppress(OSError):
            self.answers.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)
            self.outputs.jobs.rmdir()


def measure(
    outputs: OutputPaths,
    keys: Slurm,
    threads: int,
    requests: Sequence[dict[str, Any]],
    tell: Callable[[str], None],
) -> list[dict[str, Any] | None]:
    """Have a job measure, wait for it, and return an answer a request; None where there is none.

    What goes wrong with it is told: training does not depend on it. Ctrl-C ends the job.

    Args:
        outputs: The outputs folder.
        keys: What the jobs that train ask for.
        threads: Threads of each of them.
        requests: What `dynalab.training.trial.survey` is asked.
        tell: Takes lines for the user.

    Raises:
        ConfigError: sbatch refuses what the jobs ask for.
        RunsFailed: It does not answer.
        StoreError: The outputs folder cannot be written.
    """
    made = TrialJob(outputs, jobs.fresh_name(), requests)
    refuse_links(outputs.jobs)
    with storing(outputs.jobs):
        outputs.jobs.mkdir(parents=True, exist_ok=True)
    _sweep(outputs)
    try:
        brief = replace(keys, time=short(keys.time), at_once=None)
        answer = slurm("sbatch", *options(made.name, 1, brief), given=made.script(keys, threads))
        job = answer.strip().splitlines()[-1].partition(";")[0]
        try:
            tell(
                f"nothing was measured on these machines for this work: trial job {job} does it first, and is waited "
                f"for; in the queue for {keys.trial} min at most (launcher.trial=, 0 for none). Ctrl-C ends it"
            )
            why = _wait(made, job, keys, tell)
        finally:
            # None the worse where it has ended.
            cancel([job])
        found, _ = made.read()
        failed = [event["message"] for event in found if event["event"] != "finished"]
        why = why or "; ".join(dict.fromkeys(failed))
        if why or len(found) < len(requests):
            line = f"trial job {job}: {why or 'it ended before it had measured'}; jobs are planned without"
            tell(line if why else with_words(line, made.words()))
        several = [event.get("found") for event in found]
        return [*several, *[None] * len(requests)][: len(requests)]
    finally:
        made.forget()


def _wait(made: TrialJob, job: str, keys: Slurm, tell: Callable[[str], None]) -> str:
    """Wait until a job has answered all or has ended; return why it was waited for no longer, else nothing."""
    queue = [Submission(made.outputs, made.name, ())]
    end, pause, gone_since, told = time.monotonic() + SECONDS_OF_MINUTE * keys.trial, FIRST_LOOK, None, ""
    while not made.read()[1]:
        time.sleep(pause)
        pause = min(1.5 * pause, LOOK_SECONDS)
        try:
            task = jobs.ask(queue).get((made.name, 0))
        except DynalabError:
            # The queue may be busy for a while; what the job writes is seen all the same.
            task = Task(job)
        if task is None:
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > LATE_SECONDS:
                return ""
            continue
        gone_since = None
        if (task.waits or task.state == "SUBMITTED") and time.monotonic() > end:
            return f"not begun after {count(keys.trial, 'minute')} ({task.said}), and cancelled"
        if task.waits and task.said != told:
            told = task.said
            tell(f"the trial job is {task.array.said}")
    return ""


def kinds(partition: str | None) -> int:
    """Return how many kinds of machines a partition has, by processors, memory, cards, features; 0: unknown."""
    if not partition:
        return 0
    with contextlib.suppress(DynalabError):
        lines = slurm("sinfo", "--noheader", f"--partition={partition}", "--format=%c|%m|%G|%f", "--exact")
        return len(set(lines.split()))
    return 0


def short(limit: Any) -> int:
    """Return the minutes that a trial job may take: ten, or the jobs' own limit where that is shorter."""
    if limit is None:
        return MINUTES
    days, dash, clock = str(limit).rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # Minutes first, hours where there are days or three numbers.
    hours = parts.pop(0) if dash or len(parts) == 3 else 0
    minutes = (24 * int(days or 0) + hours) * 60 + (parts[0] if parts else 0)
    return max(min(minutes, MINUTES), 1)


def _sweep(outputs: OutputPaths) -> None:
    """Remove what jobs wrote whose command was killed, a day after."""
    for path in outputs.jobs.glob("dynalab-*-trial.*"):
        with contextlib.suppress(OSError, StoreError):
            if time.time() - path.stat().st_mtime > _DAY:
                path.unlink()
