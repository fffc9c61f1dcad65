"""A group of runs for every analysis, with something to find, and the steps that it is cut at by tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dynalab.analysis.base import Convergence, Group


@dataclass(frozen=True)
class Example:
    """A group with something to find.

    Attributes:
        group: The group.
        cuts: Steps, before and after what is found, that it is cut at.
        keys: Keys of the analysis that make it fast.
    """

    group: Group
    cuts: tuple[int, ...]
    keys: dict[str, Any] = field(default_factory=dict)


def periods() -> Example:
    """One run under weight decay with periods, one on the sphere that diverges: the regime of the whole run."""
    steps = np.arange(0, 8000, 10)
    phase = (steps - 500) % 2000
    norm = np.exp(-1e-3 * phase + 2 * np.clip((phase - 1940) / 60, 0, 1))
    decaying = {
        "scale_invariant_norm": norm,
        "train_loss": 1e-4 * (1 + 1e4 * np.exp(-(((phase - 1970) / 30) ** 2))),
    }
    sphere = {
        "scale_invariant_norm": 2 + 0.0 * steps,
        "effective_gradient_norm": 8 + 0.0 * steps,
        "batch_loss": np.linspace(0.6, 0.1, len(steps)),
    }
    config = {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}, "task": {"name": "digits"}}
    group = Group.of({"s0000": decaying, "s0001": sphere}, steps, config=config)
    free = {"optimizer": {"name": "sgd", "lr": 0.001}, "task": {"name": "digits"}}
    runs = (
        group.runs[0],
        replace(group.runs[1], config=free, status="diverged", diverged_step=8000),
    )
    return Example(replace(group, runs=runs), (3000, 7000))


def variance() -> Example:
    """A crossed design in which one stream decides most."""
    rng, steps, runs = np.random.default_rng(0), np.arange(0, 1001, 10), {}
    for i, j in itertools.product(range(4), range(4)):
        at = 500 + 60 * i + 40 * rng.normal()
        runs[f"init{i}-order{j}"] = {"test_accuracy": np.where(steps >= at, 0.95, 0.1)}
    group = replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))
    return Example(group, (700,), {"draws": 400})


EXAMPLES: dict[str, Callable[[], Example]] = {"periods": periods, "variance": variance}
