"""Several ensembles in one analysis: what sets them apart is not told as an effect of states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nulls.hmm import convergence, walks

from dynalab.analysis.base import Convergence, Group, on_one_grid
from dynalab.analysis.hmm import detours
from dynalab.analysis.hmm.paths import compare
from dynalab.core import survival


def group(name, rule, imported=False):
    made = Group.of({"0": {"m": np.zeros(3)}}, np.arange(3), id=name)
    return replace(made, convergence=rule, imported=imported)


def test_rules_of_convergence_that_differ_are_not_the_firsts():
    high, low = Convergence("m", 0.9), Convergence("m", 0.5)
    mixed = on_one_grid([group("a", high), group("b", low, True)])
    assert mixed.convergence is None and mixed.imported
    assert "different rules (m 0.9, m 0.5)" in mixed.warnings[0]
    same = on_one_grid([group("a", high), group("b", high)])
    assert same.convergence == high and not same.imported and not same.warnings


def swept(share):
    """Two ensembles, one ten times slower; `share` of its runs and none to 1 - share of the other's visit state 1."""
    rng = np.random.default_rng(0)
    paths, steps, rows = [], [], []
    for name, scale, part in (("fast", 30, 1 - share), ("slow", 300, share)):
        met = [int(scale + rng.integers(scale // 3)) * 10 for _ in range(20)]
        rows += convergence(met, name)
        for i, _ in enumerate(met):
            path = np.full(400, 2)
            path[:10], path[10:20] = 0, 1 if i < part * 20 else 0
            paths.append(path)
            steps.append(np.arange(400) * 10)
    return paths, steps, rows


def test_a_swept_key_is_no_detour():
    paths, steps, rows = swept(1.0)
    apart = detours.find(paths, steps, rows, 3)
    row = apart.rows[1]
    assert not row.tested and row.effect_steps is None and row.reason == detours.APART
    assert "state 1 not tested as a detour" in " ".join(apart.warnings)
    found, notes = compare(paths, steps, rows)
    assert found is None and notes == ["paths not compared: no ensemble has runs on two of them"]
    both = detours.find(*swept(0.8), 3)
    (low, high), row = both.rows[1].interval, both.rows[1]
    assert row.tested and row.p > 0.05 and not row.verdict and low < 0 < high
    assert both.model.r2 is None and both.model.published is None
    assert compare(*swept(0.8))[0].p > 0.05


def test_a_detour_within_each_ensemble_is_found():
    rng = np.random.default_rng(1)
    strata = np.repeat([0, 1], 16)
    group = np.tile([True, False], 16)
    time = 100.0 + 1000 * strata + 30 * group + rng.integers(0, 10, 32)
    seen = np.ones(32, bool)
    _, p, critical = survival.two_sample(time, seen, group, 0, strata=strata)
    effect, (low, high) = survival.shift(time, seen, group, critical, strata)
    assert p < 0.001 and 25 < low < effect < high < 35
    # Without the ensembles it drowns in what sets them apart, and one ensemble is the test as it was.
    assert survival.two_sample(time, seen, group, 0)[1] > 0.01
    alone = survival.two_sample(time[:16], seen[:16], group[:16], 0)
    assert survival.two_sample(time[:16], seen[:16], group[:16], 0, strata=strata[:16]) == alone


def test_the_sums_of_small_ensembles_are_all_of_them():
    """Exact where there are few: all labels of two ensembles of four, 6 x 6."""
    time, strata = np.arange(8.0), np.repeat([0, 1], 4)
    group = np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    _, p, _ = survival.two_sample(time, np.ones(8, bool), group, 0, strata=strata)
    assert p == 2 / 36


def test_the_null_within_ensembles_of_unlike_speed():
    hits = 0
    for seed in range(60):
        one, other = walks(seed, "random", n=12), walks(seed + 500, "random", n=12, rows=300)
        rows = [*one[2], *({**row, "run": row["run"].replace("e/", "f/")} for row in other[2])]
        found, _ = compare([*one[0], *other[0]], [*one[1], *other[1]], rows)
        hits += found is not None and found.p < 0.05
    assert hits <= 6
