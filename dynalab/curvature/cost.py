"""What a measurement of curvature costs, and so how many examples it is of and how often it is made. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.probes.base import Setting

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


def examples_of(size: int | None, ensemble: EnsembleConfig | Setting) -> tuple[int, int]:
    """Return how many examples are probed (`size` at most, None: the default), and how many an update's batch has."""
    full = ensemble.train.batch_size == "full"
    size_of = getattr(getattr(ensemble.task, "config", ensemble.task), "train_size", None)
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


def every_of(row: int, batch: int, ensemble: EnsembleConfig, share: int = SHARE) -> int:
    """Return the steps between rows, each of so many passes over an example, that cost about a twentieth of training.

    `batch` is the number of examples of an update's batch; `share` stands in the place of 20.
    """
    steps = max(LEAST_EVERY, share * row / passes_of_update(batch, ensemble))
    return -int(-steps // ensemble.eval.every) * ensemble.eval.every


def passes_of_update(batch: int, ensemble: EnsembleConfig | Setting) -> int:
    """Return how many passes over an example an update costs, whose batches have so many examples."""
    return (6 if ensemble.optimizer.name == "sam" else 3) * batch * ensemble.train.accumulate


# Points of a row of local complexity: at least these, at most those; as many as a row in so many updates pays for; and
# the share of training that rows may cost, one in so many.
LEAST_POINTS, MOST_POINTS, UPDATES, REGIONS_SHARE = 50, 1000, 200, 10


def points_for(passes: int, ensemble: EnsembleConfig | Setting) -> int:
    """Return the points of a row of local complexity by default, each of which takes passes over an example."""
    paid = passes_of_update(examples_of(None, ensemble)[1], ensemble) * UPDATES // (REGIONS_SHARE * passes)
    return min(max(paid, LEAST_POINTS), MOST_POINTS)
