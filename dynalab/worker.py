"""A worker: `python -m dynalab.worker`, handed one shard after another as lines of JSON on its standard input.

It answers in lines of JSON on its standard output: `ready`, then for every shard `progress` and one of `finished`,
`refused` (an error the user can act on) or `failed` (a bug; the traceback is in the shard's error.txt). When its
input ends (the command finished, or was killed) it saves and ends.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

_stop = threading.Event()


def main() -> int:
    """Serve shards until the input ends."""
    # Ours alone: whatever a library prints goes to the log instead.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # A crash in native code says where it happened.
    faulthandler.enable(all_threads=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stop.set())
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()

    def answer(event: str, **values: Any) -> None:
        try:
            answers.write(json.dumps({"event": event, **values}) + "\n")
        except OSError:
            _stop.set()

    import torch

    from dynalab.core.errors import DynalabError, Locked
    from dynalab.networks.settings import whole_float32
    from dynalab.training.lean import spare_compiler

    spare_compiler()
    settings = jobs.get()
    if settings is None:
        return 0
    torch.set_num_threads(int(settings.get("threads", 1)))
    torch.set_flush_denormal(True)
    whole_float32()
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    answer("ready", torch=torch.__version__, cuda_devices=devices)
    while (request := jobs.get()) is not None:
        if "trial" in request:
            answer("tried", found=_try(**request["trial"]))
            continue
        if "exactness" in request:
            answer("tried", found=_exactness(**request["exactness"]))
            continue
        if "rehearsal" in request:
            answer("tried", found=_rehearse(**request["rehearsal"]))
            continue
        try:
            _serve(request, answer)
        except DynalabError as error:
            answer(
                "refused",
                shard=request["shard"],
                message=str(error),
                exit_code=error.exit_code,
                held=isinstance(error, Locked),
            )
        except Exception as error:
            message, memory = f"{type(error).__name__}: {error}", isinstance(error, torch.OutOfMemoryError)
            spent = _is_spent(request["device"])
            answer("failed", shard=request["shard"], message=message, memory=memory, ends=spent)
            if spent:
                return 0
    return 0


def _is_spent(device: str) -> bool:
    """Return whether a card does no more for this process, as after an assertion in one of its kernels."""
    import gc

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


def _serve(request: dict[str, Any], answer: Any) -> None:
    from pathlib import Path

    from dynalab.store.paths import ShardPaths
    from dynalab.training.shard import Control, Job, train_shard

    job = Job(
        shard=ShardPaths(Path(request["shard"])),
        device=request["device"],
        checkpoint_every=request.get("checkpoint_every"),
        checkpoint_keep=request.get("checkpoint_keep", 2),
        steal=bool(request.get("steal")),
        argv=tuple(request.get("argv", ())),
        threads=request.get("threads"),
        exact=bool(request.get("exact", True)),
        folders=tuple(Path(folder) for folder in request.get("folders", ())),
    )
    control = Control(
        stop=_stop.is_set,
        progress=lambda event: answer("progress", shard=request["shard"], **event),
    )
    shard = train_shard(job, control)
    answer(
        "finished", shard=request["shard"], status=shard.status, steps=shard.steps, warnings=control.warnings
    )


def _try(
    config: dict[str, Any],
    layouts: list[list[int]],
    run_steps: float,
    device: str,
    folders: list[str],
    exact: bool,
) -> dict[str, Any] | None:
    """Time layouts for the planner; None where the work cannot be tried, which training will say better."""
    from pathlib import Path

    import torch

    from dynalab.config.ensemble import from_tree
    from dynalab.training.trial import trial

    paths = [Path(folder) for folder in folders]
    try:
        pairs = [(int(width), int(threads)) for width, threads in layouts]
        done = trial(from_tree(config, paths), pairs, run_steps, torch.device(device), paths, exact)
    except Exception:
        return None
    timings = [[item.width, item.threads, item.seconds] for item in done.timings]
    return {"timings": timings, "run_bytes": done.run_bytes, "free_bytes": done.free_bytes}


def _exactness(config: dict[str, Any], width: int, run_steps: float, folders: list[str]) -> str | None:
    """Try whether bits hold; None where that cannot be told."""
    from dynalab.training.exactness import exactness

    return exactness(config, width, run_steps, folders)


def _rehearse(
    config: dict[str, Any],
    runs: list[dict[str, int]],
    steps: int,
    device: str,
    folders: list[str],
    exact: bool,
) -> dict[str, Any] | None:
    """Return what training would begin with, where that is a refusal or a failure: its message and exit code."""
    from pathlib import Path

    import torch

    from dynalab.config.ensemble import from_tree
    from dynalab.core.errors import DynalabError
    from dynalab.training.trial import rehearse

    paths = [Path(folder) for folder in folders]
    try:
        rehearse(from_tree(config, paths), runs, steps, torch.device(device), paths, exact)
    except DynalabError as error:
        return {"message": str(error), "exit_code": error.exit_code}
    except Exception as error:
        return {"message": f"{type(error).__name__}: {error}", "exit_code": 3}
    return None


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
    # Daemon threads block on reads that nothing will answer; a plain exit would wait for their locks.
    code = main()
    sys.stdout.flush()
    os._exit(code)
