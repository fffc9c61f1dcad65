"""`launcher=inline`: this process trains, for a debugger. Torch's global settings are put back."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dynalab.core.devices import resolve_device
from dynalab.core.errors import DynalabError, Locked
from dynalab.core.machine import unchosen
from dynalab.launch.base import Events, Report, Work
from dynalab.training.job import Control


def device(asked: str) -> str:
    """Return what `device=` means here.

    Raises:
        ConfigError: CUDA was asked for and is absent.
    """
    import torch

    return resolve_device(asked, torch.cuda.device_count() if torch.cuda.is_available() else 0)


def attempt(task: str, **request: Any) -> dict[str, Any]:
    """Try whether bits hold in this process, as `Pool.attempt` does in a worker."""
    from dynalab.networks.settings import as_trained
    from dynalab.training.exactness import exactness

    with as_trained(1):
        return {"found": exactness(**request)}


def run(work: Work, events: Events) -> Report:
    """Train the shards one after another.

    Raises:
        ConfigError: CUDA was asked for and is absent.
    """
    import torch

    from dynalab.networks.settings import as_trained
    from dynalab.training.shard import train_shard

    report, job = Report(), replace(work.job, device=device(work.job.device))
    if job.device == "cpu" and torch.backends.mkl.is_available() and (line := unchosen()):
        report.warnings.append(line)
    with as_trained(job.threads or 1), _stopping() as stop:
        for shard in work.shards:
            control = Control(stop=stop.is_set, progress=functools.partial(events.progress, shard))
            try:
                events.finished(shard, train_shard(shard, job, control).status)
            except Locked as error:
                report.held[shard] = str(error)
            except DynalabError as error:
                report.failures[shard], report.codes[shard] = str(error), error.exit_code
                report.causes[shard] = error.__cause__
            except Exception as error:
                report.failures[shard] = f"{type(error).__name__}: {error} (traceback in {shard.error})"
            report.warnings += control.warnings
            if stop.is_set():
                report.interrupted = True
                break
    return report


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
