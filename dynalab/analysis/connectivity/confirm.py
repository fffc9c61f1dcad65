"""Whether training is stable to its noise from a step on: two forks a run, with other orders of the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynalab.analysis.base import Group, Run
from dynalab.analysis.connectivity.findings import Confirmation, Pair, over
from dynalab.analysis.connectivity.measure import Path, distance
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.waves import Fork

# Names of both forks -> the seed of their orders, which no run is likely to have.
ORDERS = {"one": 1_000_001, "other": 1_000_002}
# Where no step is given: this share of training.
SHARE = 0.1


def forks_of(group: Group, step: int | None) -> tuple[list[Fork], int]:
    """Return two forks of every run, and the step that they go on from.

    Raises:
        NothingMatched: Every update takes all examples, so that their order has no effect.
        ConfigError: The runs have no such step.
    """
    for run in group.runs:
        if (run.config.get("train") or {}).get("batch_size") == "full":
            raise NothingMatched(
                f"{run.id}: with train.batch_size=full the order of the examples has no effect, so forks with other "
                "orders are equal"
            )
    length = min(int(run.grid[-1]) for run in group.runs)
    at = round(SHARE * length) if step is None else step
    if at >= length:
        raise ConfigError(f"from_step={at}: expected a step before the last one of the runs, {length:,}")
    ids = tuple(run.id for run in group.runs)
    return [
        Fork(name, ids, at, {"edit": None, "seed_streams.order": order}, length)
        for name, order in ORDERS.items()
    ], at


def compared(
    made: Mapping[str, Sequence[Group]], step: int, points: int, split: str, most: int, cut: float
) -> Confirmation:
    """Return what lies between both forks of every run, measured on the run's own examples."""
    from dynalab.networks.paths import along, held, line, state_of

    one, other = ({run.label: run for group in made.get(name, ()) for run in group.runs} for name in ORDERS)
    labels = [label for label in one if label in other]
    pairs: list[Pair] = []
    shares = np.linspace(0, 1, points).tolist()
    if labels:
        groups = [_together([runs[label] for label in labels]) for runs in (one, other)]
        last = max({*groups[0].kept} & {*groups[1].kept})
        first, second = (group.stack(last) for group in groups)
        examples = held(first.examples(split, most))
        training = examples if split == "train" else held(first.examples("train", most))
        start, end = state_of(first), state_of(second)
        values = along(first, line(start, end), shares, examples, training)
        apart = distance(first, start, end)
        for slot, label in enumerate(labels):
            error = 1 - values["accuracy"][slot] if "accuracy" in values else None
            barrier = Path(np.array(shares), values["loss"][slot], error, float(apart[slot])).barrier()
            verdict = (
                "undecided" if barrier.error is None else "connected" if barrier.error <= cut else "apart"
            )
            pairs.append(Pair(one[label].id, other[label].id, verdict, barrier))
    ids = tuple(dict.fromkeys(group.id for own in made.values() for group in own))
    stable = sum(pair.verdict == "connected" for pair in pairs)
    return Confirmation(step, ids, tuple(pairs), stable, over(pairs, lambda pair: pair.line.error))


def _together(runs: Sequence[Run]) -> Group:
    return Group(runs[0].id.partition("/")[0], tuple(runs))
