"""Paths of the parts of a run from its stored weights, without holding them.

Weights are gone through in blocks of parameters, of which all rows are in memory at once: norms first, then unit
vectors, which need the norms of whole parts, and inner products between the chosen rows. A network whose rows all fit
into one block is read once. What is found of tensors adds up to layers, kinds and the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Run
from dynalab.analysis.directions.path import NORMS, Path, choose, norms, summed_units
from dynalab.analysis.stored import Part, Shapes, Tables


@dataclass(frozen=True)
class Paths:
    """The paths of a run, and the steps of their rows."""

    steps: np.ndarray  # shape (n,)
    chosen: np.ndarray  # places of those that maps are of, shape (m,)
    whole: Path
    layers: Mapping[str, Path]
    kinds: Mapping[str, Path]


def paths_of(run: Run, shapes: Shapes, most: int, wanted: Callable[[str], bool] = lambda part: True) -> Paths:
    """Return the paths of a run's weights, up to where they are no longer finite.

    Args:
        run: The run; weights of it were kept at two steps at least.
        shapes: Of its network.
        most: Rows that inner products are taken between.
        wanted: Whether a layer or kind of a name is looked at.
    """
    steps = run.weights.grid
    tables = Tables(run, steps, shapes.sizes)
    of = {
        name: [("whole", ""), *filter(lambda part: wanted(part[1]), shapes.parts(name))]
        for name in shapes.sizes
    }
    sums: dict[Part, dict[str, Any]] = {part: {"size": 0} for parts in of.values() for part in parts}

    def add(name: str, some: Mapping[str, Any]) -> None:
        for part in of[name]:
            for key, value in some.items():
                sums[part][key] = sums[part].get(key, 0) + value

    # What is not finite is cut off below.
    with np.errstate(all="ignore"):
        for name, rows in tables.pieces():
            add(name, {"size": rows.shape[1], **norms(rows)})
    bad = np.flatnonzero(~np.isfinite(sums["whole", ""]["squares"]))
    n = int(bad[0]) if len(bad) else len(steps)
    for found in sums.values():
        found |= {key: found[key][: n - less] for key, less in NORMS.items()}
    chosen = choose(n, most)
    for name, rows in tables.pieces(n):
        away = rows - rows[0]
        picked = away[chosen]
        add(name, {"gram": picked @ picked.T})
        for part in of[name]:
            own = sums[part]
            for key, table, squares in (("units", rows, "squares"), ("relative_units", away, "moved")):
                own[key] = own.get(key, 0) + summed_units(table, own[squares])
    paths = {part: Path(chosen=chosen, **found) for part, found in sums.items()}
    layers, kinds = (
        {name: path for (kind, name), path in paths.items() if kind == of} for of in ("layer", "kind")
    )
    return Paths(np.array(steps[:n]), chosen, paths["whole", ""], layers, kinds)
