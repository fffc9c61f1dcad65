"""What is stored of modes as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.modes.judge import Scores
from dynalab.analysis.modes.measure import Measured

# A run and the place of its number of modes among those that were tried.
Chosen = Sequence[tuple[Measured, int]]


def of_modes(runs: Chosen) -> Any:
    """Return a row a run and mode."""
    rows: list[dict[str, Any]] = []
    for item, place in runs:
        members = item.decomposition.members[place]
        sizes, alike = item.sizes(place), np.sum([own.correlation for own in members.values()], axis=0)
        references = item.places[item.decomposition.references[place]]
        for number, mode in enumerate(item.ordered(place), 1):
            rows.append(
                {
                    "run": item.run.id,
                    "mode": number,
                    "reference": item.named(int(references[mode])),
                    "weights": int(sizes[mode]),
                    "share": float(sizes[mode] / item.weights),
                    "correlation": float(alike[mode] / max(sizes[mode], 1)),
                }
            )
    return _frame(rows)


def of_parts(runs: Chosen) -> Any:
    """Return a row a run, mode and layer or kind of parameter that has weights in it."""
    rows: list[dict[str, Any]] = []
    for item, place in runs:
        members = item.decomposition.members[place]
        for of, parts in (("layer", item.shapes.layers), ("kind", item.shapes.kinds)):
            for part, tensors in parts.items():
                sizes = np.sum([members[name].count for name in tensors], axis=0)
                total = sum(np.prod(item.shapes.sizes[name], dtype=int) for name in tensors)
                rows += [
                    {
                        "run": item.run.id,
                        "mode": number,
                        "of": of,
                        "part": part,
                        "weights": int(sizes[mode]),
                        "share": float(sizes[mode] / total),
                    }
                    for number, mode in enumerate(item.ordered(place), 1)
                    if sizes[mode]
                ]
    return _frame(rows)


def of_paths(runs: Chosen) -> Any:
    """Return a row a run, mode and snapshot."""
    import pandas as pd

    found = []
    for item, place in runs:
        for number, mode in enumerate(item.ordered(place), 1):
            path = item.paths[:, item.decomposition.references[place][mode]]
            about = {"run": item.run.id, "mode": number, "step": item.steps, "weight": path}
            found.append(pd.DataFrame({**about, "standardised": (path - path.mean()) / (path.std() or 1.0)}))
    return pd.concat(found, ignore_index=True) if found else None


def of_networks(scores: Scores | None) -> Any:
    """Return a row a run and network that was tried; None where none was."""
    if scores is None:
        return None
    return _frame(
        [
            {
                "run": run,
                "method": setting.method,
                "size": setting.size,
                "apart": setting.apart,
                "stored": int(scores.stored[row, place]),
                "tuning": float(scores.tuning[row, place]),
                "judged": float(scores.judged[row, place]),
            }
            for row, run in enumerate(scores.runs)
            for place, setting in enumerate(scores.settings)
        ]
    )


def _frame(rows: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows) if rows else None
