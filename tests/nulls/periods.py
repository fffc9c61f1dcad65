"""Norms of scale-invariant weights without periods of weight decay, one kind a case; a case is fixed by its number.

wander  the logarithm of the norm is a random walk
rest    it falls as fast as weight decay lets it, to where decay and growth balance
growth  it grows ever more slowly, right through spikes of the loss
jumps   it jumps up with the loss, and what it does in between has nothing to do with weight decay
"""

from __future__ import annotations

import numpy as np

from dynalab.analysis.base import Run, Series

KINDS = ("wander", "rest", "growth", "jumps")
RATE, DECAY = 0.1, 0.01
CONFIG = {
    "optimizer": {"name": "sgd", "lr": RATE, "weight_decay": DECAY, "momentum": 0.0},
    "task": {"name": "digits"},
}


def decoy(number: int) -> Run:
    """Return a run without periods, with `scale_invariant_norm` and `train_loss`; the number decides of which kind."""
    rng = np.random.default_rng([5, number])
    kind, cadence, rows = (
        KINDS[number % len(KINDS)],
        int(rng.choice([5, 10, 20])),
        int(rng.integers(150, 400)),
    )
    steps, share = np.arange(rows) * cadence, np.arange(rows) / rows
    loss = -4 + 0.1 * rng.normal(size=rows)
    places = np.sort(rng.choice(np.arange(20, rows - 10), int(rng.integers(2, 6)), replace=False))
    if kind == "wander":
        log = np.cumsum(rng.normal(0, rng.uniform(0.001, 0.02), rows))
    elif kind == "rest":
        log = np.maximum(-RATE * DECAY * steps, -rng.uniform(0.1, 1)) + rng.normal(0, 0.005, rows)
    elif kind == "growth":
        log = rng.uniform(0.1, 1) * (1 - np.exp(-share / rng.uniform(0.1, 0.6)))
        loss[places] += rng.uniform(2, 5)
    else:
        log = np.cumsum(np.isin(np.arange(rows), places)) * rng.uniform(0.2, 1)
        log = log + rng.uniform(-3, 3) * RATE * DECAY * steps + rng.normal(0, 0.002, rows)
        loss[places] += rng.uniform(2, 5)
    columns = {"scale_invariant_norm": np.exp(log), "train_loss": 10**loss}
    series = {name: Series.of(steps, values) for name, values in columns.items()}
    return Run(f"decoy/{kind}-{number}", series, steps, CONFIG, 0, "done")
