"""The floor of a step: its matrix products alone, at the rate this machine does them while every core is busy.

The products of one seed's forward and backward pass are recorded as torch dispatches them, then repeated on buffers
of the same shapes and strides, one thread a process and a process a core. Nothing that trains can be faster, except
by making fewer products or making several seeds' in one.

    python -m benches.floor SECONDS WORDS...      (answers a line when it is ready, starts on a line, answers JSON)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benches.base import THREADS, environment

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig


@dataclass(frozen=True)
class Floor:
    """What the matrix products of a step cost.

    Attributes:
        flops: Floating-point operations of one seed's step, a multiplication and an addition counted as two.
        products: Number of products.
        flops_per_second: Of all cores together.
    """

    flops: int
    products: int
    flops_per_second: float

    def seconds(self, seeds: int, steps: int) -> float:
        """Return the time that the products of so many seeds and steps take at least."""
        return seeds * steps * self.flops / self.flops_per_second


def products(work: Callable[[], Any]) -> tuple[list[Callable[[], Any]], int]:
    """Return (the matrix products that some work makes, as calls on buffers of their own, their operations)."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map
    from torch.utils.flop_counter import flop_registry

    calls: list[Callable[[], Any]] = []
    total = 0

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        own = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
        return own.normal_() if value.is_floating_point() else own.copy_(value)

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            kwargs = kwargs or {}
            out = func(*args, **kwargs)
            count = flop_registry.get(func._overloadpacket)
            if count is not None:
                total += int(count(*args, **kwargs, out_val=out))
                own, named = tree_map(copy, args), tree_map(copy, kwargs)
                calls.append(lambda: func(*own, **named))
            return out

    with Recorder():
        work()
    return calls, total


def record(config: EnsembleConfig) -> tuple[list[Callable[[], Any]], int]:
    """Return `products` of one seed's step."""
    import torch

    from benches.loop import plain_loss
    from dynalab.networks.build import task_and_network
    from dynalab.training.streams import Streams

    streams = Streams.from_seed(0)
    task, make = task_and_network(config)
    model = make()
    size = config.train.batch_size
    batch_size = None if size == "full" else int(size)
    data = task.data([streams], batch_size=batch_size, eval_size=config.eval.size, device=torch.device("cpu"))
    batch = data.train_batch(0)
    loss_of = plain_loss(config)
    return products(lambda: loss_of(model(batch.inputs[0]), batch.targets[0]).backward())


def measure(words: Sequence[str], seconds: float = 3.0) -> Floor:
    """Measure with a process on every core at once."""
    from dynalab.core.machine import cores

    one = environment(**dict.fromkeys(THREADS, "1"))
    command = [sys.executable, "-m", "benches.floor", str(seconds), *words]
    processes = [
        subprocess.Popen(command, env=one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(cores())
    ]
    for process in processes:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("a process that measures the floor could not start")
    # All at once, once all are ready.
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate()
        answers.append(json.loads(out))
    rate = sum(answer["flops"] * answer["repeats"] / answer["seconds"] for answer in answers)
    return Floor(answers[0]["flops"], answers[0]["products"], rate)


def main() -> None:
    """Measure in this process."""
    import torch

    from benches.loop import configuration

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    calls, flops = record(configuration(tuple(sys.argv[2:])))
    with torch.no_grad():
        for call in calls * 3:
            call()
        print("ready", flush=True)
        sys.stdin.readline()
        began, repeats = time.perf_counter(), 0
        while time.perf_counter() - began < float(sys.argv[1]):
            for call in calls:
                call()
            repeats += 1
        seconds = time.perf_counter() - began
    print(json.dumps({"flops": flops, "products": len(calls), "repeats": repeats, "seconds": seconds}))


if __name__ == "__main__":
    main()
