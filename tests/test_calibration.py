"""How often p-values and intervals err where there is nothing to find: runs cut off, of unequal lengths, with ties."""

from __future__ import annotations

import pytest
from nulls import walks

from dynalab.analysis.hmm import cases
from dynalab.analysis.hmm.paths import compare


def rate(hits: int, of: int) -> float:
    """Share of p-values below .05, with two standard errors of chance granted to the few."""
    return hits / of - 2 * (0.05 * 0.95 / of) ** 0.5


@pytest.mark.parametrize("kind", ["clock", "forward", "random", "lengths", "late"])
def test_paths_that_do_not_delay(kind):
    found = [compare(*walks(seed, kind))[0] for seed in range(40)]
    assert rate(sum(one is not None and one["p"] < 0.05 for one in found), 40) < 0.02


def test_optional_states_without_a_cost():
    hits = 0
    for number in range(40):
        planted = cases.make(cases.describe_case(number, delay=0.0))
        steps = [run.steps for run in planted.trajectories.runs]
        found, _ = compare(list(planted.states), steps, planted.convergence)
        hits += found is not None and found["p"] < 0.05
    assert rate(hits, 40) < 0.02
