"""`launcher=slurm`: an array of jobs, one a shard, each of which runs `dynalab worker`.

Nothing that a job runs is read from the outputs folder: its script goes to sbatch on standard input.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from dynalab.config.schema import Slurm
from dynalab.core.errors import ConfigError, DynalabError, RunsFailed, StoreError
from dynalab.core.words import count
from dynalab.launch.base import Events, Report, Work
from dynalab.launch.crash import with_words
from dynalab.launch.process import environment, kept_memory, python
from dynalab.store import jobs, lock, runfile
from dynalab.store.jobs import Submission, Task, slurm
from dynalab.store.lock import Lock
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.training.job import Job

# Slurm's usual MaxArraySize is 1,001.
MOST_TASKS = 1000
# For other commands that submit shards of the same ensemble at this moment.
WAIT_SECONDS = 60.0
LOOK_SECONDS = 3.0
_LOG_LINES = 20

# Ahead of the time limit Slurm sends USR1 to the shell alone, which has the worker save its state and puts the job in
# the queue again. SIGTERM, which comes before a kill whatever its reason, reaches the worker as well: it saves, and
# what becomes of the job is for who sent it to say (Slurm itself requeues what it pre-empts). Either may come while the
# user's lines run, or before the worker listens, which then ends by it: nothing is lost, and the job is requeued all
# the same.
_SCRIPT = """#!/bin/bash
shards=({shards})
logs=({logs})
exec >>"${{logs[SLURM_ARRAY_TASK_ID]}}" 2>&1
timed= ended= worker= code=143
trap 'timed=yes; [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null || :' USR1
trap 'ended=yes; [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null || :' TERM
{setup}
{exports}
if [ -z "$timed$ended" ]; then
  {worker} --shard "${{shards[SLURM_ARRAY_TASK_ID]}}" &
  worker=$!
  [ -z "$timed$ended" ] || kill -TERM "$worker" 2>/dev/null || :
  while code=0; wait "$worker" || code=$?; kill -0 "$worker" 2>/dev/null; do :; done
fi
if [ -n "$timed" ] && {{ [ "$code" = 130 ] || [ "$code" = 143 ] || [ "$code" = 138 ]; }} &&
  [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
"""


class Launcher:
    """A cluster's jobs. What they train with is what the machines that they come to have."""

    apart: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = True
    cards = 1

    def __init__(self, workers: int, threads: int) -> None:
        """Check that jobs can be submitted here.

        Raises:
            ConfigError: There is no sbatch.
        """
        self._threads = threads
        if shutil.which("sbatch") is None:
            raise ConfigError("launcher=slurm: there is no sbatch here; run it where jobs are submitted")

    def device(self, asked: str) -> str:
        """Return what is asked: what there is, the job sees."""
        return asked

    def trial(self, task: str, **request: Any) -> dict[str, Any] | None:
        """Try nothing here: this machine's times and bits are not the jobs' (`survey.py` has theirs measured)."""
        return None

    def run(self, work: Work, events: Events) -> Report:
        """Submit the shards, but for those that have a job, and where it is asked wait for them.

        Raises:
            ConfigError: sbatch is not here.
            RunsFailed: The queue does not answer, or sbatch refuses: nothing, or no more, is submitted.
            StoreError: What is submitted cannot be written down.
        """
        report = Report()
        for shard in work.shards:
            work.job.write(shard)
        for outputs, shards in _by_outputs(work.shards).items():
            with contextlib.ExitStack() as stack:
                # In one order, so that no two commands wait for each other.
                for ensemble in sorted({item.ensemble.root for item in shards}):
                    stack.enter_context(Lock(ensemble / "lock", wait=WAIT_SECONDS))
                there = jobs.under_way(outputs)
                report.jobs |= {item: there[item] for item in shards if item in there}
                fresh = [item for item in shards if item not in there]
                report.warnings += _said_before(outputs, fresh)
                for first in range(0, len(fresh), MOST_TASKS):
                    some = fresh[first : first + MOST_TASKS]
                    report.jobs |= submit(outputs, some, work.job, work.slurm, self._threads)
        if work.wait:
            self._wait(work, events, report)
            for outputs in _by_outputs([*work.shards, *work.queued]):
                jobs.sweep(outputs)
        return report

    def _wait(self, work: Work, events: Events, report: Report) -> None:
        """Wait until no shard has a job, and put down what became of each."""
        waiting = dict.fromkeys([*work.shards, *work.queued])
        tasks = {**work.queued, **report.jobs}
        events.message(f"waiting for {count(len(waiting), 'job')}; Ctrl-C ends the waiting alone")
        try:
            while waiting:
                time.sleep(LOOK_SECONDS)
                live: set[ShardPaths] = set()
                for outputs in _by_outputs(waiting):
                    try:
                        live |= jobs.under_way(outputs).keys()
                    except RunsFailed as error:
                        # It may be busy for a while; the jobs are not the worse for it.
                        events.message(str(error))
                        live |= waiting.keys()
                for shard in [item for item in waiting if item not in live]:
                    del waiting[shard]
                    report.jobs.pop(shard, None)
                    self._settle(shard, tasks[shard].job, events, report)
                    if work.stop and report.failures and not report.stopped:
                        report.stopped = True
                        cancel([tasks[item].job for item in waiting])
        except KeyboardInterrupt:
            report.interrupted = True
            arrays = sorted({tasks[shard].array.job for shard in waiting})
            events.message(f"the jobs go on; `scancel {' '.join(arrays)}` ends them")

    def _settle(self, shard: ShardPaths, job: str, events: Events, report: Report) -> None:
        try:
            record = runfile.read(shard)
        except StoreError as error:
            report.failures[shard], report.codes[shard] = str(error), 3
            return
        attempt = record.attempts[-1] if record.attempts else {}
        if attempt.get("job") != job and (owner := lock.holder(shard.lock)):
            # Its job found that another process trains it.
            report.held[shard] = f"{shard.ensemble.digest}/{shard.root.name} is being trained by {owner.said}"
            return
        # Slurm has no job of it any more: who is said to be running is gone.
        status = "crashed" if record.status == "running" else record.status
        events.finished(shard, status)
        if line := attempt.get("uncompiled"):
            report.warnings.append(f"{shard.ensemble.root.name}: on {attempt.get('host')} {line}")
        if status in runfile.FINAL:
            return
        outputs = OutputPaths(shard.ensemble.root.parent.parent)
        why = attempt.get("error") or f"{status} when its job ended"
        report.failures[shard] = with_words(
            f"job {job}: {why}; the same command goes on", _words(outputs, shard)
        )
        report.codes[shard] = 3

    def close(self) -> None:
        """Jobs are Slurm's."""


def submit(
    outputs: OutputPaths, shards: Sequence[ShardPaths], job: Job, keys: Slurm, threads: int
) -> dict[ShardPaths, Task]:
    """Submit an array of jobs, one a shard; return shard -> its job.

    Raises:
        ConfigError: sbatch is not here, or refuses what it is asked.
        StoreError: What is submitted cannot be written down.
    """
    made = Submission.new(outputs, shards)
    try:
        words = options(made.name, len(made.shards), keys)
        answer = slurm("sbatch", *words, given=script(made, job, keys, threads))
    except DynalabError as error:
        if error.__cause__ is None:
            # It was refused; where sbatch was only silent there may be an array under this name.
            made.forget()
        raise
    number = answer.strip().splitlines()[-1].partition(";")[0]
    return {shard: Task(f"{number}_{index}") for index, shard in enumerate(shards)}


def options(name: str, n_tasks: int, keys: Slurm) -> list[str]:
    """Return the words of sbatch for an array of jobs; a value stands in one word with its option."""
    asked = {
        "partition": keys.partition,
        "time": keys.time,
        "gres": None if keys.gpus is None else f"gpu:{keys.gpus}",
        "mem": keys.memory,
        "constraint": keys.constraint,
        "account": keys.account,
        "qos": keys.qos,
    }
    at_once = f"%{keys.at_once}" if keys.at_once else ""
    return [
        "--parsable",
        f"--job-name={name}",
        f"--array=0-{n_tasks - 1}{at_once}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={keys.cpus}",
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        f"--signal=B:USR1@{keys.warn}",
        "--requeue",
        # The script's own redirection takes any path; this one has a language of its own.
        "--output=/dev/null",
        *keys.options,
    ]


def script(made: Submission, job: Job, keys: Slurm, threads: int) -> str:
    """Return the script of a submission: what the user has set up first, then a worker of the job's own shard."""
    here = os.path.abspath
    switches = [word for folder in job.folders for word in ("--config-dir", here(folder))]
    switches += ["--anyway"] * job.anyway + ["--steal"] * job.steal
    own = {**environment(threads), **kept_memory()}
    return _SCRIPT.format(
        shards=" ".join(shlex.quote(here(shard.root)) for shard in made.shards),
        logs=" ".join(shlex.quote(here(made.log(index))) for index in range(len(made.shards))),
        setup="\n".join(keys.setup),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in own.items()),
        worker=shlex.join([*python("dynalab"), "worker", "--quiet", *switches]),
        restarts=keys.restarts,
    )


def cancel(ids: Sequence[str]) -> None:
    """End jobs, with their state saved; those that have ended are none the worse for it."""
    with contextlib.suppress(DynalabError):
        slurm("scancel", *ids)


def _said_before(outputs: OutputPaths, shards: Sequence[ShardPaths]) -> list[str]:
    """Return a line for each shard whose last job did not do it, and that is submitted again."""
    lines = []
    for shard in shards:
        name = f"{shard.ensemble.digest}/{shard.root.name}"
        words = _words(outputs, shard)
        with contextlib.suppress(StoreError):
            record = runfile.read(shard)
            error = record.attempts[-1].get("error") if record.attempts else None
            if record.status in ("failed", "crashed"):
                why = f" ({error})" if error else ""
                lines.append(f"{name}: {record.status}{why}; submitted again")
            elif words and not record.attempts:
                lines.append(with_words(f"{name}: its job ended before it trained; submitted again", words))
    return lines


def _words(outputs: OutputPaths, shard: ShardPaths) -> list[str]:
    """Return the last lines that a shard's newest job printed."""
    logs = [item.log(item.shards.index(shard)) for item in jobs.submissions(outputs) if shard in item.shards]
    found = []
    for path in logs:
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path.read_text("utf-8", "replace")[-10_000:].splitlines()))
    return max(found)[1][-_LOG_LINES:] if found else []


def _by_outputs(shards: Any) -> dict[OutputPaths, list[ShardPaths]]:
    found: dict[OutputPaths, list[ShardPaths]] = {}
    for shard in shards:
        found.setdefault(OutputPaths(shard.ensemble.root.parent.parent), []).append(shard)
    return found
