"""What the snapshots of a command come to; more than `compute.snapshot_gb` is refused before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dynalab.config.command import Request
from dynalab.core.errors import ConfigError
from dynalab.core.words import count
from dynalab.launch.layout import Layout
from dynalab.training.cadence import cadence

GB = 1e9


def kept(layout: Layout) -> int:
    """Return how many states of single runs the snapshots of a request will hold that are not stored yet."""
    keys, steps = layout.request.config.snapshots, layout.request.steps
    grid = cadence(keys.every, None if keys.every is not None else keys.at)
    begun = [layout.stored_steps.get(label, 0) for label in layout.resumed]
    fresh = (len(layout.new) + len(layout.laid)) * grid.count(0, steps)
    return fresh + sum(grid.count(step + 1, steps) for step in begun)


def refuse_excess(
    layouts: Sequence[Layout], most_gb: float, size_of: Callable[[Request], int | None]
) -> None:
    """Refuse a command whose snapshots would take too much of the disk.

    Args:
        layouts: What is to be trained.
        most_gb: `compute.snapshot_gb`.
        size_of: Request -> bytes of one run's weights, None where that is not known; asked where there are snapshots.

    Raises:
        ConfigError: They would.
    """
    found = [(layout, n, size_of(layout.request) or 0) for layout in layouts if (n := kept(layout))]
    gb = sum(n * size for _, n, size in found) / GB
    if gb <= most_gb:
        return
    n_runs = sum(len(layout.new) + len(layout.laid) + len(layout.resumed) for layout, _, _ in found)
    where = f" of {len(found)} ensembles" if len(found) > 1 else ""
    raise ConfigError(
        f"the snapshots of {count(n_runs, 'run')}{where}, {sum(n for _, n, _ in found):,} of up to "
        f"{max(size for _, _, size in found) / 1e3:,.0f} kB each, would take {gb:.3g} GB; compute.snapshot_gb allows "
        f"{most_gb:g}\nsnapshots.every= keeps fewer, snapshots.at=never none; compute.snapshot_gb={math.ceil(gb)} "
        "allows these"
    )
