"""How fast the real step is: `python -m dynalab.training.throughput`, told what to time in lines of JSON.

The first line holds a configuration. `{"width": S}` builds a stack of S seeds and answers `ready`; `{"seconds": T}`
trains it for about T seconds, probes and evaluation on their cadences, and answers how many updates that were. Nothing
is written anywhere.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_WARM_UP = 3


class Stopwatch:
    """Trains stacks of one configuration and times them.

    Args:
        tree: The configuration, as `EnsembleConfig.as_dict` gives it.
        folders: Plug-in folders.
        steps: Length of training, for schedules that depend on it.
        device: Where to train.
        exact: As `compute.exact`.
    """

    def __init__(
        self, tree: dict[str, Any], folders: list[str], steps: int, device: str, exact: bool = True
    ) -> None:
        import torch

        from dynalab.config.ensemble import from_tree

        self._folders = [Path(folder) for folder in folders]
        self._config = from_tree(tree, self._folders)
        self._steps, self._device, self._exact = steps, torch.device(device), exact
        self._loop: Any = None

    def build(self, width: int) -> None:
        """Build a stack of the seeds 0 to `width` - 1, and warm it up."""
        from dynalab.core.streams import Streams
        from dynalab.training.loop import Loop

        if self._loop is not None:
            self._loop.close()
        self._loop = None
        streams = [Streams.from_seed(seed) for seed in range(width)]
        self._loop = Loop(self._config, streams, self._steps, self._device, self._folders, exact=self._exact)
        self._loop.rows()
        for _ in range(_WARM_UP):
            self._loop.update()
            self._loop.rows()
        self._wait()

    def run(self, seconds: float) -> tuple[int, float]:
        """Train on; returns (updates, seconds they took).

        It ends on the grid of evaluation where that is near, so that every update pays its share of it.
        """
        rows: dict[str, Any] = {}
        began, first = time.perf_counter(), self._loop.step
        while True:
            self._loop.update()
            rows = self._loop.begin_rows() or rows
            elapsed = time.perf_counter() - began
            if elapsed > seconds and (self._loop.step in self._loop.eval_grid or elapsed > 2 * seconds):
                break
        for row in rows.values():
            row.whole()
        self._wait()
        return self._loop.step - first, time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


def main() -> int:
    """Answer the lines of the standard input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    import torch

    from dynalab.core.devices import resolve_device
    from dynalab.core.errors import DynalabError
    from dynalab.networks.settings import whole_float32

    try:
        told = json.loads(sys.stdin.readline())
        torch.set_num_threads(told["threads"])
        torch.set_flush_denormal(True)
        whole_float32()
        device = resolve_device(told["device"], torch.cuda.device_count() if torch.cuda.is_available() else 0)
        watch = Stopwatch(told["config"], told["folders"], told["steps"], device, told["exact"])
        answer(event="ready", device=device)
        for line in sys.stdin:
            order = json.loads(line)
            if "width" in order:
                watch.build(order["width"])
                answer(event="ready")
            else:
                steps, seconds = watch.run(order["seconds"])
                answer(event="timed", steps=steps, seconds=seconds)
    except DynalabError as error:
        answer(event="refused", message=str(error), exit_code=error.exit_code)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
