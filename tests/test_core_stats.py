"""Medians of steps: recorded ones, the same on every side; and runs that do not stay where they got."""

from __future__ import annotations

from types import SimpleNamespace

import duckdb
import numpy as np
import pytest
from nulls.hmm import convergence, passages

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.convergence import follow
from dynalab.analysis.hmm.claims import spread
from dynalab.analysis.hmm.paths import path_table
from dynalab.cli.outcome import _generalised
from dynalab.cli.runs_files import _word
from dynalab.core.stats import Spread, benjamini_hochberg, fallen, quantile, quartiles
from dynalab.core.words import quartiles as on_the_page
from dynalab.core.words import step_phrase
from dynalab.store.difference import _landmark, _middle


def test_one_median_of_the_same_runs_everywhere():
    steps = [100, 200, 300, 400, None, None]
    rows = convergence(steps)
    # Two runs were stopped early.
    at = [np.array([0, 10, last]) for last in (1000, 1000, 1000, 1000, 120, 150)]
    (path,) = path_table([np.zeros(3, int)] * 6, at, [row["run"] for row in rows], rows)
    found = spread(passages(steps))
    assert path.median_step == found.median == 350 and path.quartiles == found.quartiles == [
        200,
        None,
    ]
    assert on_the_page(steps) == (200, 350, np.inf) and quartiles(steps) == (200, 350, None)
    assert step_phrase(steps) == "at median step **350** [quartiles 200 to never], 4 of 6 runs"
    assert _landmark(steps) == {"median": 350, "quartiles": [200, None], "runs": 4}
    assert _word(_landmark(steps)) == "350 [200 to never], 4 runs" and _landmark([None]) is None
    runs = [SimpleNamespace(summary={"generalised_step": step}) for step in steps]
    assert _generalised(runs, 0.99) == "4 of 6, median 350"
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 12):
        some = rng.integers(0, 50, n).tolist()
        numpys = np.quantile(some, [0.25, 0.5, 0.75], method="averaged_inverted_cdf")
        assert quartiles(some) == tuple(numpys) and quartiles(some)[1] == np.median(some)


def test_medians_of_values_are_those_of_other_tools():
    """Midway between two middle values, as pandas, NumPy and SQL have them."""
    first, last = [3.744, 3.003, 3.21, 2.947], [0.7088, 0.1457, 0.4947, 0.05189]
    found = [Spread.of(values) for values in (first, last)]
    assert [one.median for one in found] == pytest.approx([3.1065, 0.3202])
    landmarks = [float(step) for step in range(1200, 1400, 50)]
    sql = "SELECT median(x), quantile_cont(x, 0.5) FROM (SELECT unnest($1) AS x)"
    assert duckdb.execute(sql, [landmarks]).fetchone() == (quantile(landmarks, 0.5),) * 2 == (1275, 1275)
    assert _middle(last) == {
        "median": pytest.approx(0.3202),
        "quartiles": list(found[1].quartiles),
        "runs": 4,
    }
    # A share of a whole number of runs is one, though in binary it is a little more or less.
    assert quantile(range(10), 0.1 * 3) == 2.5 and quantile(range(100), 0.57) == 56.5
    # There is no middle between a step and one that never came.
    assert quantile([40, 60, None, None], 0.5) == 60 and quantile([40, None, None], 0.5) is None


def test_runs_that_fall_back_are_counted():
    summaries = [
        {"generalised_step": 10, "final": {"test_accuracy": accuracy}} for accuracy in (0.0, 0.5, 0.99, None)
    ]
    summaries += [{"generalised_step": None, "final": {"test_accuracy": 0.1}}, {}]
    assert fallen(summaries, "generalised_step", "test_accuracy", 0.99) == 2
    assert fallen(summaries, "generalised_step", "test_accuracy", None) == 0
    said = _generalised([SimpleNamespace(summary=one) for one in summaries], 0.99)
    assert said == "4 of 6, median 10, 2 below it at the end"
    runs = [
        Trajectory(f"e/{i}", np.arange(3) * 10, np.array([[0.1], [0.95], [last]]))
        for i, last in enumerate((0.0, 0.95, np.nan))
    ]
    found = follow(Trajectories("e", ("acc",), tuple(runs)), Convergence("acc", 0.9))
    assert [(row["step"], row["held"]) for row in found] == [(10, False), (10, True), (10, True)]


def test_false_discoveries_are_held_as_scipy_holds_them():
    from scipy.stats import false_discovery_control

    for ps in ([0.01, 0.5, 0.02, 0.02, 1.0], [0.3], [0.9, 0.8]):
        np.testing.assert_allclose(benjamini_hochberg(ps), false_discovery_control(ps), rtol=1e-14)
    assert benjamini_hochberg([]) == []
