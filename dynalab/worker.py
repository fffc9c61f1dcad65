"""A worker: `python -m dynalab.worker`, handed one task after another as lines of JSON on its standard input.

It answers in lines of JSON on its standard output: `ready`, then for every task one of `finished`, `refused` (an error
the user can act on) or `failed` (a bug; a shard's traceback is in its error.txt); how far a shard is stands beside its
run.json. When its input ends (the command finished, or was killed) it saves and ends.

With the word `forks` the process imports what a worker does, and forks one for every request of
`dynalab.launch.forkserver`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_stop = threading.Event()
# Those that came; a handler that comes upon another one would wait for the lock of an Event for ever.
_signals: list[int] = []
# What the command ignores, as one in the background of a script does Ctrl-C, its workers ignore.
_HEEDED = [
    number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN
]


def main() -> int:
    """Serve tasks until the input ends."""
    # Ours alone: whatever a library prints goes to the log instead.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # A crash in native code says where it happened.
    faulthandler.enable(all_threads=False)
    for number in _HEEDED:
        signal.signal(number, lambda number, _: _signals.append(number))
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()

    def answer(event: str, **values: Any) -> None:
        try:
            answers.write(json.dumps({"event": event, **values}) + "\n")
        except OSError:
            _stop.set()

    # What is imported lives until the end: to look through it for garbage, now and in every collection, is in vain.
    gc.disable()
    import torch

    from dynalab.core.errors import DynalabError, Locked
    from dynalab.core.machine import keep_memory
    from dynalab.core.plugins import naming
    from dynalab.networks.settings import whole_float32

    spare_compiler()
    keep_memory()
    settings = jobs.get()
    if settings is None:
        return 0
    torch.set_num_threads(int(settings.get("threads", 1)))
    torch.set_flush_denormal(True)
    whole_float32()
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    answer("ready", cuda_devices=devices)

    from dynalab.store.paths import ShardPaths
    from dynalab.training.job import Control, Job
    from dynalab.training.shard import train_shard
    from dynalab.training.trial import TRIALS, Stopwatch

    gc.freeze()
    gc.enable()

    card = int(settings.get("card", 0)) % max(devices, 1)

    def train(shard: str, folders: list[str], **how: Any) -> dict[str, Any]:
        control = Control(stop=lambda: bool(_signals) or _stop.is_set())
        job = Job(folders=tuple(map(Path, folders)), **how)
        status = train_shard(ShardPaths(Path(shard)), job, control).status
        return {"status": status, "warnings": control.warnings}

    watch = Stopwatch()
    tasks: dict[str, Callable[..., Any]] = {
        **TRIALS,
        "train": train,
        "build": watch.build,
        "time": watch.time,
    }
    while (request := jobs.get()) is not None:
        if card and request.get("device") == "cuda":
            torch.cuda.set_device(card)
        try:
            with naming():
                found = tasks[request.pop("task")](**request)
            answer("finished", found=found)
        except DynalabError as error:
            held, spent = isinstance(error, Locked), _is_spent(request.get("device", ""))
            answer("refused", message=str(error), exit_code=error.exit_code, held=held, ends=spent)
            if spent:
                return 0
        except Exception as error:
            memory, spent = isinstance(error, torch.OutOfMemoryError), _is_spent(request.get("device", ""))
            answer(
                "failed",
                message=f"{type(error).__name__}: {error}",
                exit_code=3,
                memory=memory,
                ends=spent,
            )
            if spent:
                return 0
    return 0


def forks() -> bool:
    """Fork a worker for every request on the standard input, a socket; return True in the worker.

    A request carries the worker's standard input, output and error. The answers are lines of JSON, [its number, None]
    once it is there and [its number, its exit code] once it has ended; its number is None where it could not be forked.
    """
    for number in _HEEDED:
        # Those are for the workers; this process ends with its requests.
        signal.signal(number, signal.SIG_IGN)
    requests = socket.socket(fileno=0)
    gc.disable()
    # Workers import what is missing themselves, and say why it cannot be.
    with contextlib.suppress(Exception):
        from dynalab.training import job, shard, trial  # noqa: F401
    # Pages that a collection looks through would no longer be shared.
    gc.freeze()
    ended, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(told)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: set[int] = set()
    while True:
        ready, _, _ = select.select([requests.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            for pid in sorted(living):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    living.remove(pid)
                    _say(requests, pid, os.waitstatus_to_exitcode(status))
        if requests.fileno() in ready:
            message, streams, _, _ = socket.recv_fds(requests, 1, 3)
            if not message:
                return False
            try:
                pid = os.fork()
            except OSError as error:
                os.write(streams[2], f"{error}\n".encode())
                _say(requests, None, 1)
            else:
                if not pid:
                    break
                living.add(pid)
                _say(requests, pid, None)
            for stream in streams:
                os.close(stream)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.detach()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    for descriptor in (*streams, ended, told):
        os.close(descriptor)
    # A seed of its own, as in a process that was not forked: a plug-in may draw from it.
    with contextlib.suppress(ImportError):
        import numpy as np

        np.random.seed()
    return True


def _say(requests: socket.socket, pid: int | None, code: int | None) -> None:
    with contextlib.suppress(OSError):
        requests.sendall(json.dumps([pid, code]).encode() + b"\n")


def _is_spent(device: str) -> bool:
    """Return whether a card does no more for this process, as after an assertion in one of its kernels."""
    import torch

    if not device.startswith("cuda"):
        return False
    gc.collect()
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except Exception:
        return True
    return False


def spare_compiler() -> None:
    """Keep torch's optimizers from importing torch's compiler at their first call: a second that nothing here uses.

    `torch.optim.Optimizer` marks some methods as not to be compiled, and the mark is made at the first call by the
    compiler itself. Here the mark is that the method is as it is, which it would be in any case without compilation. A
    plug-in that compiles imports the compiler on its own.
    """
    import torch

    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


def _listen(jobs: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        if line.strip():
            jobs.put(json.loads(line))
    # A killed parent closes the pipe; so does one that has nothing left to hand out.
    _stop.set()
    jobs.put(None)


def _watch_parent(parent: int) -> None:
    # The pipe can stay open in a sibling that inherited it; the parent's id cannot lie.
    while not _stop.wait(1.0):
        if os.getppid() != parent:
            _stop.set()


if __name__ == "__main__":
    if sys.argv[1:] == ["forks"] and not forks():
        os._exit(0)
    # Daemon threads block on reads that nothing will answer; a plain exit would wait for their locks.
    code = main()
    sys.stdout.flush()
    os._exit(code)
