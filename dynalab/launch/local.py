"""`launcher=local`: a pool of worker processes for the whole command, each handed one shard after another."""

from __future__ import annotations

import collections
import itertools
import json
import queue
import subprocess
import threading
from dataclasses import asdict, replace
from typing import Any, ClassVar

from dynalab.core.devices import resolve_device
from dynalab.core.errors import DynalabError, RunsFailed
from dynalab.launch import ahead, crash
from dynalab.launch.base import Events, Report, Work
from dynalab.launch.forkserver import ForkServer
from dynalab.launch.process import Worker
from dynalab.store.paths import ShardPaths

_GRACE_SECONDS = 60.0


class Launcher:
    """The workers of one command. They start importing torch at once, while the command is still planning."""

    apart: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = False

    def __init__(self, workers: int, threads: int) -> None:
        self._threads = threads
        self._events: queue.SimpleQueue[tuple[Worker, dict[str, Any]]] = queue.SimpleQueue()
        self._memory_kills = crash.MemoryKills()
        self._narrowed: set[ShardPaths] = set()
        self._cuda_devices = 0
        self._workers: list[Worker] = []
        self._server: ForkServer | None = None
        for _ in range(workers):
            self._start()

    @property
    def cards(self) -> int:
        """How many cards `device=cuda` is, a worker each."""
        return max(self._cuda_devices, 1)

    def _start(self) -> None:
        """Start a worker, with the first number that none of the others has."""
        if self._server is None or not self._server.serves(self._threads):
            self._server = ahead.server(self._threads)
        taken = {other.card for other in self._workers}
        worker = Worker(
            self._server.worker(), next(number for number in itertools.count() if number not in taken)
        )
        self._workers.append(worker)
        said = threading.Thread(target=self._read_said, args=(worker,), daemon=True)
        worker.reader = threading.Thread(target=self._read_events, args=(worker, said), daemon=True)
        said.start()
        worker.reader.start()
        worker.send(threads=self._threads, card=worker.card)

    def _read_said(self, worker: Worker) -> None:
        assert worker.process.stderr is not None
        with worker.process.stderr as lines:
            for line in lines:
                worker.said.append(line.rstrip())

    def _read_events(self, worker: Worker, said: threading.Thread) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                try:
                    self._events.put((worker, json.loads(line)))
                except ValueError:
                    worker.said.append(line.rstrip())
        said.join(timeout=2.0)
        code = worker.process.wait()
        worker.release()
        self._events.put((worker, {"event": "gone", "code": code}))

    def device(self, asked: str) -> str:
        """Wait for a worker to say what devices there are, and return what `device=` means here.

        Raises:
            DynalabError: The device is absent, or no worker could start.
        """
        while not any(worker.ready for worker in self._workers):
            worker, event = self._events.get()
            if event["event"] == "gone":
                self._workers.remove(worker)
                if event["code"] >= 0 or not self._workers:
                    raise _no_start(worker, event["code"])
                # It was killed; the others still come.
                continue
            self._cuda_devices = int(event["cuda_devices"])
            worker.ready = True
        return resolve_device(asked, self._cuda_devices)

    def trial(self, task: str, **request: Any) -> dict[str, Any] | None:
        """Have a worker that is ready try something; None where it died of it."""
        worker = next(item for item in self._workers if item.ready)
        worker.send(task=task, **request)
        while True:
            other, event = self._next_event()
            if event["event"] == "ready":
                other.ready = True
            elif event["event"] == "gone":
                self._workers.remove(other)
                if not self._workers or other is worker:
                    self._start()
                if other is worker:
                    self.device("cpu")
                    return None
            elif other is worker:
                return event

    def together(self, count: int, what: str, task: str, **request: Any) -> list[Any]:
        """Have some workers do the same at the same time, and return what they found; `what` is for messages.

        Raises:
            DynalabError: A worker refused, or it died.
        """
        for worker in self._workers[:count]:
            worker.send(task=task, **request)
        found: list[Any] = []
        while len(found) < count:
            worker, event = self._next_event()
            if event["event"] == "gone":
                last = f": {worker.said[-1]}" if worker.said else ""
                raise RunsFailed(f"a worker died (exit code {event['code']}) {what}{last}")
            if event["event"] == "failed":
                raise RunsFailed(f"a worker failed {what}: {event['message']}")
            if event["event"] == "refused":
                error = DynalabError(event["message"])
                error.exit_code = event["exit_code"]
                raise error
            if event["event"] == "finished":
                found.append(event["found"])
        return found

    def run(self, work: Work, events: Events) -> Report:
        """Train the shards, whatever becomes of single workers.

        Raises:
            ConfigError: The device is absent.
        """
        work, report = replace(work, job=replace(work.job, device=self.device(work.job.device))), Report()
        waiting = collections.deque(work.shards)
        asked_to_stop = 0
        # The plan may have changed since they were started.
        for _ in range(len(self._workers), min(work.workers, len(work.shards))):
            self._start()
        for worker in self._workers:
            if worker.ready:
                self._hand_out(worker, waiting, work)
        while waiting or any(worker.shard for worker in self._workers):
            try:
                worker, event = self._next_event()
                self._handle(worker, event, waiting, work, events, report)
            except KeyboardInterrupt:
                asked_to_stop += 1
                report.interrupted = True
                waiting.clear()
                if asked_to_stop > 1:
                    self.kill()
                    break
                events.message("stopping: the workers save their state (Ctrl-C again kills them)")
                for worker in self._workers:
                    worker.release()
        return report

    def _next_event(self) -> tuple[Worker, dict[str, Any]]:
        while True:
            try:
                # With a timeout, so that Ctrl-C is noticed on every platform.
                return self._events.get(timeout=0.5)
            except queue.Empty:
                continue

    def _handle(
        self,
        worker: Worker,
        event: dict[str, Any],
        waiting: collections.deque[ShardPaths],
        work: Work,
        events: Events,
        report: Report,
    ) -> None:
        kind, shard = event["event"], worker.shard
        if kind == "ready":
            worker.ready = True
            self._hand_out(worker, waiting, work)
        elif kind in ("finished", "refused", "failed") and shard is not None:
            worker.shard = None
            if kind == "finished":
                report.warnings += event["found"]["warnings"]
                events.finished(shard, event["found"]["status"])
                if event["found"]["status"] == "partial" and not report.ending:
                    report.failures[shard] = (
                        "its worker was told to stop; its state is saved, the same command goes on"
                    )
                    report.codes[shard] = 3
                    # Whatever else it is handed it would stop as well.
                    worker.release()
                    return
            elif event.get("held"):
                report.held[shard] = event["message"]
                events.finished(shard, "trained elsewhere")
            elif not (
                event.get("memory")
                and self._narrow(shard, "out of the card's memory", waiting, events, report)
            ):
                refused = kind == "refused"
                line = event["message"] if refused else _with_traceback(shard, event)
                events.finished(shard, "failed")
                self._fail(shard, line, event["exit_code"], waiting, work, report)
            if not event.get("ends"):
                self._hand_out(worker, waiting, work)
        elif kind == "gone":
            self._workers.remove(worker)
            if shard is not None:
                self._bury(worker, shard, event["code"], waiting, work, events, report)
            if waiting and not report.ending:
                if worker.ready:
                    self._start()
                elif not self._workers:
                    raise _no_start(worker, event["code"])

    def _bury(
        self,
        worker: Worker,
        shard: ShardPaths,
        code: int,
        waiting: collections.deque[ShardPaths],
        work: Work,
        events: Events,
        report: Report,
    ) -> None:
        """Say what became of a worker and its shard, which gets a second chance where it was too large for memory."""
        how, memory = crash.cause(code, self._memory_kills, ours=worker.killed)
        line = crash.record_death(shard, how, worker.said)
        if memory and shard not in self._narrowed and self._narrow(shard, how, waiting, events, report):
            return
        events.finished(shard, "crashed")
        self._fail(shard, line, 3, waiting, work, report)

    def _fail(
        self,
        shard: ShardPaths,
        line: str,
        code: int,
        waiting: collections.deque[ShardPaths],
        work: Work,
        report: Report,
    ) -> None:
        """Put down that a shard failed; with `on_error=stop` the others save their state, and no more are begun."""
        report.failures[shard], report.codes[shard] = line, code
        if work.stop and not report.ending:
            report.stopped = True
            waiting.clear()
            for worker in self._workers:
                worker.release()

    def _narrow(
        self,
        shard: ShardPaths,
        how: str,
        waiting: collections.deque[ShardPaths],
        events: Events,
        report: Report,
    ) -> bool:
        """Have a shard that was too large for memory go on in two of half the width; whether that can be done."""
        parts = [] if report.ending else crash.narrower(shard)
        if not parts:
            return False
        self._narrowed.update(parts)
        # Behind the others: what is left in memory by then is less. Idle workers are not woken for them, since side by
        # side the parts would need as much as the whole.
        waiting.extend(parts)
        events.split(shard, parts, how)
        names = " and ".join(part.root.name for part in parts)
        report.warnings.append(
            f"{shard.root.name}: the worker was {how}. Its seeds went on at half the width, in {names}"
        )
        return True

    def _hand_out(self, worker: Worker, waiting: collections.deque[ShardPaths], work: Work) -> None:
        # There may be more workers than the plan has: they were started before it was known what it is for. On cards
        # the first ones train, so that no two have the same.
        busy = sum(item.shard is not None for item in self._workers)
        fits = work.job.device != "cuda" or worker.card < work.workers
        if waiting and busy < work.workers and fits:
            worker.shard = waiting.popleft()
            worker.send(task="train", shard=worker.shard.root, **asdict(work.job))

    def close(self) -> None:
        """Let the workers end."""
        for worker in self._workers:
            worker.release()
        for worker in self._workers:
            try:
                worker.process.wait(timeout=_GRACE_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                worker.kill()
            if worker.reader is not None:
                worker.reader.join(timeout=5.0)
        if self._server is not None:
            self._server.close()

    def kill(self) -> None:
        """End the workers at once; their checkpoints stand."""
        for worker in self._workers:
            worker.kill()
        if self._server is not None:
            self._server.close()


def _no_start(worker: Worker, code: int) -> DynalabError:
    """Return what to raise of a worker that ended before it could begin; one that was killed is no mistake of ours."""
    tail = worker.said[-1] if worker.said else f"exit code {code}"
    return (RunsFailed if code < 0 else DynalabError)(f"a worker could not start: {tail}")


def _with_traceback(shard: ShardPaths, event: dict[str, Any]) -> str:
    try:
        lines = shard.error.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return crash.with_words(f"{event['message']}; log in {shard.log}, traceback in {shard.error}", lines[:-1])
