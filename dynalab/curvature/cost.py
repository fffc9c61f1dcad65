"""What a measurement of curvature costs, and so how many examples it is of and how often it is made. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig

# Examples that are probed at most, unless `size` says otherwise: with full batches what the edge-of-stability code
# takes, with mini-batches fewer, since a row then costs many updates.
FULL, FEWER = 5000, 1000
# What a row may cost: a share of the updates between two rows, counted in passes.
SHARE, LEAST_EVERY = 20, 25
# Entries of one run's Lanczos vectors that are held at most.
ENTRIES = 1 << 28


def default_size(size: int | None, full: bool) -> int:
    """Return how many examples are probed at most, given the configured number and whether batches are full."""
    return size or (FULL if full else FEWER)


def examples_of(size: int | None, ensemble: EnsembleConfig) -> tuple[int, int]:
    """Return how many examples are probed (`size` at most, None: the default), and how many an update's batch has."""
    full = ensemble.train.batch_size == "full"
    size_of = getattr(ensemble.task, "train_size", None)
    held = (size_of() if size_of else None) or default_size(size, full)
    batch = held if full else min(int(ensemble.train.batch_size), held)
    return min(default_size(size, full), held), batch


def cadence_of(size: int | None, products: int, updates: int, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows of `products` Hessian-vector products that cost about a twentieth of training.

    Cost is counted in passes forward through the network: a gradient (of the `updates` to come, and of the loss) is
    three, a Hessian-vector product six (two products of matrices backward for each of the gradient's three). What a
    pass over one example costs cancels.
    """
    examples, batch = examples_of(size, ensemble)
    row = 3 * batch * ensemble.train.accumulate * updates + examples * (3 + 6 * products)
    return every_of(row, batch, ensemble)


def every_of(row: int, batch: int, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows, each of so many passes over an example, that cost about a twentieth of training.

    `batch` is the number of examples of an update's batch.
    """
    passes = 6 if ensemble.optimizer.name == "sam" else 3
    steps = max(LEAST_EVERY, SHARE * row / (passes * batch * ensemble.train.accumulate))
    return -int(-steps // ensemble.eval.every) * ensemble.eval.every
