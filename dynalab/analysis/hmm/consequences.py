"""What the decoded paths mean for convergence: whether paths differ, and which states are detours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm import detours
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.paths import compare


def consequences(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    convergence: list[dict[str, Any]] | None,
    n_states: int,
    config: Config,
) -> tuple[dict[str, Any], list[str]]:
    """Return the keys `path_comparison`, `detours` and `detour_model` of a result, and warnings.

    Args:
        paths: State of every row of every run, shapes (T,).
        steps: Steps of these rows, shapes (T,).
        convergence: `{run, step, censored}` of the same runs; None where nothing is watched (then all keys are null).
        n_states: K.
        config: The keys of the analysis.
    """
    if convergence is None:
        return {"path_comparison": None, "detours": None, "detour_model": None}, []
    comparison, notes = compare(paths, steps, convergence, config.seed)
    found = detours.find(paths, steps, convergence, n_states, log_time=config.log_time, seed=config.seed)
    keys = {"path_comparison": comparison, "detours": found.rows, "detour_model": found.model}
    return keys, [*notes, *found.warnings]
