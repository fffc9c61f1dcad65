"""One seed with `compute.exact=false`, probes on: steps a second against the bare loop's, task by task."""

from __future__ import annotations

from benches import loop
from benches.base import Options, Row, Subject, dynalab

# Name, words, steps: some seconds each. mnist and cifar need files that a machine may not have.
TASKS = [
    ("grokking", ("task=grokking",), 1500),
    ("parity", ("task=parity",), 10000),
    ("regression", ("task=regression",), 10000),
    ("digits", ("task=digits",), 5000),
    ("digits, ResNet-20", ("task=digits", "model=resnet20"), 150),
    ("mlm", ("task=mlm",), 400),
]


def measure(options: Options) -> list[Row]:
    """Time one seed of every task."""
    rows = []
    for name, words, full in TASKS[:2] if options.quick else TASKS:
        steps = max(full // 50, 4) if options.quick else full
        values, own, other, starts, bare_starts = [], [], [], [], []
        for pair in range(options.pairs):
            options.say(f"one seed of {name}, pair {pair + 1} of {options.pairs}")
            run = dynalab([*words, f"train.steps={steps}", "seed=0", "compute.exact=false"])
            bare = loop.bare([*words, f"train.steps={steps}"], steps, 1)
            values.append(run.steps_per_second / bare.steps_per_second)
            own.append(run.train_seconds)
            other.append(steps / bare.steps_per_second)
            starts.append(run.seconds - run.train_seconds)
            bare_starts.append(bare.of(1) - other[-1])
        rows.append(
            Row(
                f"one seed of {name}, {steps:,} steps, compute.exact=false, steps/s",
                "bare loop, default threads",
                values,
                None if options.quick else 0.9,
                seconds={
                    "dynalab": own,
                    "start-up": starts,
                    "default": other,
                    "default's start-up": bare_starts,
                },
                note="steps/s in the loop; start-up apart",
            )
        )
    return rows


SUBJECT = Subject("single", "one seed of every task, compute.exact=false, against the bare loop", measure)
