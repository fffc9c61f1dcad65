"""The loop everybody writes: one seed after another, a module, an optimizer, no probes.

It trains dynalab's own unstacked modules on the task's own batches with the optimizer's class as torch builds it by
default, and evaluates at the task's cadence. As a program, it writes one JSON line a seed: when it began and ended.

    python -m benches.loop OUT STEPS FIRST COUNT THREADS WORDS...      (THREADS 0: PyTorch's default)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.base import THREADS, environment

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig

_MODES = ("foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay")


def plain_loss(config: EnsembleConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of one run's outputs and targets, as its user would write it.

    Raises:
        ValueError: Nobody wrote this loss here yet.
    """
    from torch.nn import functional

    task, loss = str(config.task.name), str(getattr(config.task, "loss", "cross_entropy"))
    if loss == "cross_entropy":
        return lambda outputs, targets: functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
    if (task, loss) == ("parity", "hinge"):
        return lambda outputs, targets: functional.relu(1.0 - outputs[:, 0] * targets).mean()
    if (task, loss) == ("regression", "half_square"):
        return lambda outputs, targets: 0.5 * (outputs - targets).square().sum(1).mean()
    raise ValueError(f"no plain loss for task={task} task.loss={loss}")


def accuracy(config: EnsembleConfig, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Return the share of right outputs of one run, None where there is no such thing."""
    if config.task.name == "regression":
        return None
    if config.task.name == "parity":
        return (outputs[:, 0] * targets > 0).double().mean()
    return (outputs.argmax(-1) == targets).double().mean()


def plain_optimizer(config: EnsembleConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimizer of the same class and numbers, with torch's default of implementation."""
    from dynalab.config import registry

    built = registry.find("optimizer", config.optimizer.name).build(
        config.optimizer, list(model.parameters())
    )
    numbers = {key: value for key, value in built.defaults.items() if key not in _MODES}
    return type(built)(model.parameters(), **numbers)


def train(
    config: EnsembleConfig, seed: int, steps: int, began: Callable[[], Any] = lambda: None
) -> list[dict[str, float]]:
    """Train one seed, and return the rows of its evaluations.

    Args:
        config: The ensemble's configuration.
        seed: The seed.
        steps: Updates.
        began: Called before the first update.
    """
    import torch
    from torch import nn

    from dynalab.config import registry
    from dynalab.networks.build import task_and_network
    from dynalab.training.streams import Streams

    streams = Streams.from_seed(seed)
    task, make = task_and_network(config)
    torch.manual_seed(streams.integer("init"))
    model = make()
    size = config.train.batch_size
    data = task.data(
        [streams],
        batch_size=None if size == "full" else int(size),
        eval_size=config.eval.size,
        device=torch.device("cpu"),
    )
    optimizer = plain_optimizer(config, model)
    scheduler = None
    if config.schedule.name != "constant":
        factor = registry.find("schedule", config.schedule.name).module.build(config.schedule, steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loss_of = plain_loss(config)
    rows: list[dict[str, float]] = []

    def evaluate(step: int) -> None:
        model.eval()
        row: dict[str, float] = {"step": step}
        with torch.no_grad():
            for split in ("train", "test"):
                losses, rights, count = 0.0, 0.0, 0
                for batch in data.eval_batches(split):
                    outputs = model(batch.inputs[0])
                    losses += loss_of(outputs, batch.targets[0]).item() * batch.size
                    right = accuracy(config, outputs, batch.targets[0])
                    rights += 0.0 if right is None else right.item() * batch.size
                    count += batch.size
                row[f"{split}_loss"], row[f"{split}_accuracy"] = losses / count, rights / count
        rows.append(row)
        model.train()

    evaluate(0)
    began()
    for step in range(steps):
        batch = data.train_batch(step)
        loss = loss_of(model(batch.inputs[0]), batch.targets[0])
        optimizer.zero_grad()
        loss.backward()
        if config.train.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if (step + 1) % config.eval.every == 0:
            evaluate(step + 1)
    return rows


@cache
def configuration(words: tuple[str, ...]) -> EnsembleConfig:
    """Compose once a process; no user's loop would do so for every seed."""
    from dynalab.config.command import read_command
    from dynalab.networks.build import task_and_network

    (request,) = read_command(words).requests
    task_and_network(request.config)
    return request.config


def note_seed(out: Path, config: EnsembleConfig, seed: int, steps: int) -> None:
    """Train one seed and append when it began, when its first update began, and when it ended."""
    begin = time.time()
    marks: list[float] = []
    train(config, seed, steps, lambda: marks.append(time.time()))
    with out.open("a") as file:
        file.write(json.dumps([begin, marks[0], time.time()]) + "\n")


@dataclass(frozen=True)
class Timing:
    """A process that trained some seeds one after another.

    Attributes:
        start: Seconds before its first seed.
        first: Seconds of its first seed, in which libraries warm up.
        seed: Mean seconds of each later seed (of the first, where there is no other).
        gap: Mean seconds between two seeds.
        end: Seconds after its last.
        steps_per_second: Within the loop.
    """

    start: float
    first: float
    seed: float
    gap: float
    end: float
    steps_per_second: float

    def of(self, n_seeds: int) -> float:
        """Return the seconds of a process for so many seeds: later seeds scale, all else happens once."""
        return self.start + self.first + (n_seeds - 1) * (self.seed + self.gap) + self.end


def bare(words: Sequence[str], steps: int, seeds: int, threads: int = 0) -> Timing:
    """Time the bare loop over some seeds in a process of its own; 0 threads is PyTorch's default."""
    own = {name: str(threads) for name in THREADS} if threads else {}
    arguments = [str(steps), "0", str(seeds), str(threads), *words]
    return _timed(lambda out, _: ["-m", "benches.loop", out, *arguments], steps, own)


def hydra(words: Sequence[str], steps: int, seeds: int) -> Timing:
    """Time a Hydra script of the same loop over some seeds with `--multirun`, PyTorch's default threads."""

    def command(out: str, folder: str) -> list[str]:
        script = ["-m", "benches.hydra_loop", "--multirun", f"seed=range({seeds})"]
        return [*script, f"steps={steps}", f"out={out}", f"hydra.sweep.dir={folder}/multirun"]

    return _timed(command, steps, {"DYNALAB_BENCH_WORDS": json.dumps(list(words))})


def _timed(command: Callable[[str, str], list[str]], steps: int, own: dict[str, str]) -> Timing:
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        out = Path(folder) / "seeds.jsonl"
        launched = time.time()
        done = subprocess.run(
            [sys.executable, *command(str(out), folder)],
            env=environment(**own),
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        ended = time.time()
        if done.returncode or not out.is_file():
            raise RuntimeError(f"a loop failed: {done.stderr[-2000:]}")
        marks = [json.loads(line) for line in out.read_text().splitlines()]
    gaps = [later[0] - earlier[2] for earlier, later in pairwise(marks)]
    lengths = [end - begin for begin, _, end in marks]
    later = lengths[1:] or lengths
    return Timing(
        start=marks[0][0] - launched,
        first=lengths[0],
        seed=sum(later) / len(later),
        gap=sum(gaps) / len(gaps) if gaps else 0.0,
        end=ended - marks[-1][2],
        steps_per_second=steps * len(marks) / sum(end - first for _, first, end in marks),
    )


def main() -> None:
    """Train the seeds that the arguments name."""
    out, steps, first, count, threads, *words = sys.argv[1:]
    if int(threads):
        import torch

        torch.set_num_threads(int(threads))
    config = configuration(tuple(words))
    for seed in range(int(first), int(first) + int(count)):
        note_seed(Path(out), config, seed, int(steps))


if __name__ == "__main__":
    main()
