"""`launcher=inline`: this process trains, for a debugger. Torch's global settings are put back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from dynalab.core.devices import resolve_device
from dynalab.core.errors import DynalabError, Locked
from dynalab.core.machine import unchosen
from dynalab.launch.base import Events, Report, Work
from dynalab.training.job import Control

# What schedulers send ahead of a kill, beside SIGTERM: by itself each would end the process.
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class Launcher:
    """This process; one shard after another, on as many threads as the job says."""

    apart: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = False
    cards = 1

    def __init__(self, workers: int, threads: int) -> None:
        """Hold nothing: torch is loaded once it is needed."""

    def device(self, asked: str) -> str:
        """Return what `device=` means here.

        Raises:
            ConfigError: CUDA was asked for and is absent.
        """
        import torch

        return resolve_device(asked, torch.cuda.device_count() if torch.cuda.is_available() else 0)

    def trial(self, task: str, **request: Any) -> dict[str, Any] | None:
        """Try something in this process, and answer as a worker does."""
        from dynalab.networks.settings import as_trained
        from dynalab.training.trial import TRIALS

        try:
            with as_trained(1):
                return {"found": TRIALS[task](**request)}
        except DynalabError as error:
            return {"message": str(error), "exit_code": error.exit_code}
        except Exception as error:
            return {"message": _said(error), "exit_code": 3}

    def run(self, work: Work, events: Events) -> Report:
        """Train the shards one after another.

        Raises:
            ConfigError: CUDA was asked for and is absent.
        """
        import torch

        from dynalab.networks.settings import as_trained
        from dynalab.training.shard import train_shard

        report, job = Report(), replace(work.job, device=self.device(work.job.device))
        if job.device == "cpu" and torch.backends.mkl.is_available() and (line := unchosen()):
            report.warnings.append(line)
        with as_trained(job.threads or 1), _stopping() as signals:
            for shard in work.shards:
                control = Control(stop=lambda: bool(signals))
                try:
                    events.finished(shard, train_shard(shard, job, control).status)
                except Locked as error:
                    report.held[shard] = str(error)
                except DynalabError as error:
                    report.failures[shard], report.codes[shard] = str(error), error.exit_code
                    report.causes[shard] = error.__cause__
                except Exception as error:
                    report.failures[shard] = f"{_said(error)} (traceback in {shard.error})"
                report.warnings += control.warnings
                report.interrupted = bool(signals)
                report.stopped = work.stop and bool(report.failures)
                if report.ending:
                    break
        return report

    def close(self) -> None:
        """Torch's settings were put back already."""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Yield what holds a signal once one came: Ctrl-C, or one by which a scheduler says that the time is up.

    A list, since a handler that comes upon another one, as where a scheduler and its script both send SIGTERM, would
    wait for the lock of an Event for ever.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    # What is ignored, as Ctrl-C is in the background of a script, and what somebody handles already stays so.
    numbers = [number for number in _WARNINGS if signal.getsignal(number) == signal.SIG_DFL]
    numbers += [
        number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
