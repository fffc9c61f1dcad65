"""AdamW's decoupled weight decay against L2 in Adam's gradient, over learning rates (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bars.base import Bar, dynalab

RATES = (1e-3, 3e-3, 1e-2)
# 3 is no candidate: it is three times the best that was found, for what too much costs.
DECOUPLED, COUPLED = (0.1, 1.0, 3.0, 10.0), (1e-3, 1e-2, 3e-2, 1e-1)
CANDIDATES = (0.1, 1.0, 10.0)
SEEDS = 10
# A run with more test errors than this is ruined: one that answers at random has 0.9.
RUINED = 0.5
COST = 0.08

# Rate -> weight decay -> test error of each seed at the end, shape (S,).
Errors = Mapping[float, Mapping[float, np.ndarray]]


def errors(work: Path, optimizer: str, rates: Sequence[float], decays: Sequence[float]) -> Errors:
    """Train the experiment over rates and decays, and return the test errors at the end."""
    found: dict[float, dict[float, np.ndarray]] = {rate: {} for rate in rates}
    words = [
        "experiment=loshchilov2019_decay_digits",
        f"optimizer={optimizer}",
        f"optimizer.lr={','.join(map(repr, rates))}",
        f"optimizer.weight_decay={','.join(map(repr, decays))}",
        f"seed=0..{SEEDS - 1}",
        "probes=[]",
    ]
    for entry in dynalab("train", *words, outputs=work / "decay")["ensembles"]:
        optimizer_config = entry["config"]["optimizer"]
        # A run that diverged has lost everything.
        final = [
            1 - run["summary"]["final"]["test_accuracy"] if run["status"] == "done" else 1.0
            for run in entry["runs"]
        ]
        found[optimizer_config["lr"]][optimizer_config["weight_decay"]] = np.array(final)
    return found


@dataclass(frozen=True)
class Best:
    """The best weight decay at one rate.

    Attributes:
        decay: The decay of least mean error.
        errors: Its errors, shape (S,).
    """

    decay: float
    errors: np.ndarray


def best(found: Mapping[float, np.ndarray], candidates: Sequence[float]) -> Best:
    """Return the candidate of least mean error over seeds."""
    decay = min(candidates, key=lambda value: float(found[value].mean()))
    return Best(decay, found[decay])


def per_cent(values: np.ndarray) -> str:
    """Return mean and standard error over seeds, in points."""
    points = 100 * values
    return f"{points.mean():.1f}±{points.std(ddof=1) / len(points) ** 0.5:.1f}"


def judge_decoupled(found: Errors, times: float = 3.0) -> tuple[str, bool]:
    """Judge AdamW: one decay is best at every rate, and `times` as much costs little."""
    bests = {rate: best(row, CANDIDATES) for rate, row in found.items()}
    same = len({item.decay for item in bests.values()}) == 1
    if not same:
        return f"best at {', '.join(f'{r:g}: {b.decay:g}' for r, b in bests.items())}", False
    decay = next(iter(bests.values())).decay
    costs = {rate: row[times * decay] - row[decay] for rate, row in found.items() if times * decay in row}
    small = len(costs) == len(found) and all(cost.mean() < COST for cost in costs.values())
    parts = [
        f"{rate:g}: {per_cent(bests[rate].errors)}%" + (f" ({per_cent(costs[rate])} more)" if costs else "")
        for rate in found
    ]
    return f"best {decay:g} at every rate; error there (and at {times * decay:g}) {', '.join(parts)}", small


def judge_coupled(found: Errors) -> tuple[str, bool]:
    """Judge Adam with L2: ten times the best decay ruins the lowest rate, and the highest rate's best is worse."""
    low, high = min(found), max(found)
    candidates = list(found[low])
    first, last = best(found[low], candidates), best(found[high], candidates)
    more = found[low].get(10 * first.decay)
    if more is None:
        return f"best at {low:g}: {first.decay:g}; ten times as much is not on the grid", False
    worse = last.errors - first.errors
    figure = (
        f"rate {low:g}: best {first.decay:g}, {per_cent(first.errors)}%, ten times as much {per_cent(more)}%; "
        f"rate {high:g}: best {last.decay:g}, {per_cent(last.errors)}%, {per_cent(worse)} more on the same seeds"
    )
    return figure, bool(more.mean() > RUINED and worse.mean() > 0)


def decoupled(work: Path) -> tuple[str, bool]:
    """AdamW over rates and decays."""
    return judge_decoupled(errors(work, "adamw", RATES, DECOUPLED))


def coupled(work: Path) -> tuple[str, bool]:
    """Adam with L2 in the gradient over decays, at the lowest and the highest rate."""
    return judge_coupled(errors(work, "adam", (RATES[0], RATES[-1]), COUPLED))


SOURCES = (
    "conf/experiment/loshchilov2019_decay_digits.yaml",
    "conf/task/_defaults.yaml",
    "conf/task/digits.yaml",
    "conf/model/mlp.yaml",
    "conf/optimizer",
    "dynalab/optim",
    "dynalab/training",
    "dynalab/networks",
    "dynalab/models/mlp.py",
    "dynalab/models/nets/mlp.py",
    "dynalab/tasks/digits.py",
    "dynalab/tasks/fixed.py",
    "dynalab/tasks/classification.py",
    "dynalab/tasks/images",
)

BARS = [
    Bar(
        "adamw-decay",
        "AdamW on 300 digits with 20% wrong labels, rates 1e-3, 3e-3, 1e-2, 10 seeds: weight decay .1, 1 or 10",
        "one is best at every rate, three times as much costs under 8 points",
        "test_decay.py",
        decoupled,
        SOURCES,
    ),
    Bar(
        "adam-l2",
        "the same for Adam with L2 in the gradient, rates 1e-3 and 1e-2, decay .001 to .1",
        "ten times the best ruins the run at 1e-3; the best error is worse at 1e-2",
        "test_decay.py",
        coupled,
        SOURCES,
    ),
]
