"""What rows cost: the share of the loop's CPU time that evaluation and probes take, at every task's default grid.

Rows are what is evaluated and probed between updates, and what brings it to the store; the pass of a full batch that
an evaluation shares with the next update is the update's. Training is the real command's, in one process and thread.

    python -m benches.rows STEPS SEEDS WORDS...      (answers JSON: part -> CPU seconds)
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benches.base import Options, Row, Subject, alone, gather


@dataclass(frozen=True)
class Case:
    """What is trained, as wide as one of two workers has it, and the largest share that rows may take."""

    name: str
    words: tuple[str, ...]
    seeds: int
    steps: int
    bar: float


CASES = (
    Case("grokking, by torch", ("task=grokking", "compute.compile=false"), 10, 300, 0.10),
    Case("parity, by torch", ("task=parity", "compute.compile=false"), 10, 8000, 0.10),
    Case("digits, by torch", ("task=digits", "compute.compile=false"), 10, 1000, 0.20),
    Case("grokking", ("task=grokking",), 10, 300, 0.10),
    Case("parity", ("task=parity",), 10, 8000, 0.10),
    Case("digits", ("task=digits",), 10, 1000, 0.20),
    Case("digits, ResNet-20", ("task=digits", "model=resnet20"), 2, 60, 0.20),
)
# Steps until libraries and caches are warm; what comes before does not count.
WARM = 20


class Clock:
    """The CPU seconds of this process, by part.

    Attributes:
        seconds: Part -> seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def count(self, owner: type, name: str, part_of: Callable[..., str]) -> None:
        """Count every call of a method, as the part that its arguments make."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def counted(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            result = inner(*given, **named)
            part = part_of(*given)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - began
            return result

        setattr(owner, name, counted)


def train(steps: int, seeds: int, words: list[str]) -> dict[str, float]:
    """Train in this process; return the CPU seconds of `updates`, of `rows`, and of what is in them: `in: NAME`."""
    import dynalab
    from dynalab.networks.evaluation import Evaluation
    from dynalab.training.gradients import Gradients
    from dynalab.training.loop import Loop
    from dynalab.training.measuring import Measurement, Measuring
    from dynalab.training.recorder import Recorder
    from dynalab.training.session import Session

    clock = Clock()
    clock.count(Loop, "advance", lambda *_: "updates")
    for owner in (Measuring, Recorder):
        for name in ("rows", "forced_rows") if owner is Measuring else ("add", "flush"):
            clock.count(owner, name, lambda *_: "rows")
    for name in ("add", "flush"):
        clock.count(Recorder, name, lambda *_: "in: writing")
    clock.count(Gradients, "ahead", lambda *_: "shared")
    clock.count(Evaluation, "of", lambda _, split, *__: f"in: {split}")
    clock.count(Evaluation, "both", lambda *_: "in: train and test")
    clock.count(Measurement, "measure", lambda item, *_: f"in: {item.name}")
    record, warm = Session.record, list[int]()

    def recorded(session: Session) -> None:
        record(session)
        if not warm and session.loop.step >= WARM:
            warm.append(session.loop.step)
            # What start-up left is looked through once in a process, of however many steps.
            gc.freeze()
            clock.seconds.clear()

    Session.record = recorded  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        shard = [f"seed=0..{seeds - 1}", f"compute.width={seeds}", "compute.workers=1", "compute.threads=1"]
        rest = [f"train.steps={WARM + steps}", "launcher=inline", "snapshots.at=never"]
        dynalab.train([*words, *shard, *rest], outputs=folder)
    shared = clock.seconds.pop("shared", 0.0)
    clock.seconds["updates"] += shared
    clock.seconds["rows"] -= shared
    return clock.seconds


def measure(options: Options) -> list[Row]:
    """Train a shard of each case, in processes of their own."""
    rows = []
    for case in CASES:
        steps = 40 if options.quick else case.steps
        shares, seconds = [], []
        for pair in range(options.pairs):
            options.say(f"rows of {case.name}, {pair + 1} of {options.pairs}")
            parts = alone("rows", steps, case.seeds, *case.words)
            shares.append(parts["rows"] / (parts["rows"] + parts["updates"]))
            seconds.append(parts)
        what = f"rows of {case.seeds} seeds of {case.name}, {steps:,} steps at the default grid"
        bar = None if options.quick else case.bar
        row = Row(what, "all of the loop, CPU time", shares, bar, at_least=False)
        row.seconds = gather(seconds)
        rows.append(row)
    return rows


SUBJECT = Subject(
    "rows", "the share of training's CPU time that evaluation and probes take, four tasks", measure
)


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(train(int(given[0]), int(given[1]), given[2:])))
