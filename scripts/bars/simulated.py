"""Simulated ensembles of known states: how many states, which, and whether their detours are found and no others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from bars.base import Bar, cases

PLANTED, WITHOUT = 100, 400
# 5% and two standard errors of 400 cases.
MOST_FALSE = 29
SOURCES = (
    "dynalab/analysis/hmm",
    "dynalab/core/convergence.py",
    "dynalab/core/trajectories.py",
    "tests/hmm_cases.py",
    "tests/hmm_simulate.py",
)


def given_states(number: int, delay: float | None) -> dict[str, Any]:
    """Test for detours with the true states."""
    from hmm_cases import describe_case, make

    from dynalab.analysis.hmm.detours import find

    planted = make(describe_case(number, delay=delay))
    steps = [run.steps for run in planted.trajectories.runs]
    found = find(planted.states, steps, planted.convergence, planted.case.n_states)
    return {
        "detours": [row.state for row in found.rows if row.verdict],
        "published": found.model.published.detours,
        "optional": planted.case.optional,
    }


def given_planted(number: int) -> dict[str, Any]:
    """True states, a detour of 2 to 4 standard deviations."""
    return given_states(number, None)


def given_weak(number: int) -> dict[str, Any]:
    """True states, a detour of 1 standard deviation."""
    return given_states(number, 1.0)


def given_without(number: int) -> dict[str, Any]:
    """True states, none of which costs anything."""
    return given_states(number, 0.0)


def whole(number: int, delay: float | None, **keys: Any) -> dict[str, Any]:
    """Analyse a case with the default settings.

    A detour is found when most rows of a state that is called one are of the planted state.
    """
    from hmm_cases import describe_case, make
    from sklearn.metrics import adjusted_rand_score

    from dynalab.analysis import hmm
    from dynalab.analysis.hmm.outcome import infer
    from dynalab.core.records import plain

    planted = make(describe_case(number, delay=delay))
    # What stands beside the model and does not change it is left out.
    known = {field.name for field in dataclasses.fields(hmm.Config)}
    beside = {key: False for key in ("stability", "baselines") if key in known}
    config = hmm.Config(**{"workers": 1, **beside, **keys})
    result = plain(infer(planted.trajectories, config))
    decoded = np.concatenate([run["states"] for run in result["states"]])
    truth = np.concatenate(planted.states)
    called = [row["state"] for row in result["detours"] if row["verdict"]]
    hits = [k for k in called if (truth[decoded == k] == planted.case.optional).mean() > 0.5]
    return {
        "kind": planted.case.kind,
        "true": planted.case.n_states,
        "states": result["n_states"],
        "rand": float(adjusted_rand_score(truth, decoded)),
        "found": bool(hits),
        "detours": called,
        "published": result["detour_model"]["published"]["detours"],
    }


def whole_planted(number: int) -> dict[str, Any]:
    """Everything inferred, a detour of 2 to 4 standard deviations."""
    return whole(number, None)


def whole_without(number: int) -> dict[str, Any]:
    """Everything inferred, no detour."""
    return whole(number, 0.0)


def detour_test(work: Path) -> tuple[str, bool]:
    """The test of detours by itself."""
    planted = cases(work / "given-planted.jsonl", range(PLANTED), given_planted)
    weak = cases(work / "given-weak.jsonl", range(PLANTED), given_weak)
    without = cases(work / "given-without.jsonl", range(WITHOUT), given_without)
    found = sum(item["optional"] in item["detours"] for item in planted)
    small = sum(item["optional"] in item["detours"] for item in weak)
    false = sum(bool(item["detours"]) for item in without)
    published = sum(bool(item["published"]) for item in without)
    figure = (
        f"found {found} of {PLANTED} (at 1 standard deviation {small}); false in {false} of {WITHOUT}, "
        f"by the published rule in {published}"
    )
    return figure, found >= 85 and false <= MOST_FALSE


def recovery(work: Path) -> tuple[str, bool]:
    """States, paths and detours from the metrics alone."""
    found = cases(work / "planted.jsonl", range(PLANTED), whole_planted)
    off = np.array([abs(item["states"] - item["true"]) for item in found])
    rand = float(np.median([item["rand"] for item in found]))
    hits = sum(item["found"] for item in found)
    right, near = int((off == 0).sum()), int((off <= 1).sum())
    figure = (
        f"K right in {right}, within one in {near}; median adjusted Rand {rand:.3f}; detours found in {hits}"
    )
    return figure, right >= 88 and near >= 98 and rand >= 0.9 and hits >= 85


def false_alarms(work: Path) -> tuple[str, bool]:
    """Detours called where there are none."""
    found = cases(work / "without.jsonl", range(WITHOUT), whole_without)
    false = sum(bool(item["detours"]) for item in found)
    published = sum(bool(item["published"]) for item in found)
    return f"{false} of {WITHOUT}; by the published rule {published}", false <= MOST_FALSE


BARS = [
    Bar(
        "detours",
        "detours among the true states of 100 + 400 simulated ensembles",
        "found in 85, false in at most 29",
        "test_detours.py",
        detour_test,
        SOURCES,
    ),
    Bar(
        "simulated",
        "100 simulated ensembles with a detour, default settings",
        "K right in 88 and within one in 98, adjusted Rand .9, detours found in 85",
        "test_simulated.py",
        recovery,
        SOURCES,
    ),
    Bar(
        "false-detours",
        "400 simulated ensembles without a detour, default settings",
        "a false detour in at most 29",
        "test_simulated.py",
        false_alarms,
        SOURCES,
    ),
]
