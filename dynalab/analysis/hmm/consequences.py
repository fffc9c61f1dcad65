"""What the decoded paths mean for convergence: whether paths differ, and which states are detours.

Tests count runs from the entry into a state on: what a state is must not hang on what comes after it. A z-score over
the whole run (preset=paper) hangs on how long it was trained and on when it converged; with runs of unequal lengths
tests of its states find detours in most ensembles that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm import detours
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.paths import compare

FUTURE = "z-scores over whole runs make states of what comes later; preset=robust tests"


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
    untested = FUTURE if config.preset == "paper" else None
    comparison, notes = (
        (None, [f"paths not compared: {untested}"])
        if untested
        else compare(paths, steps, convergence, config.seed)
    )
    found = detours.find(
        paths,
        steps,
        convergence,
        n_states,
        log_time=config.log_time,
        untested=untested,
        undecided=int(config.emission == "ar"),
        seed=config.seed,
    )
    keys = {"path_comparison": comparison, "detours": found.rows, "detour_model": found.model}
    return keys, [*notes, *found.warnings]
