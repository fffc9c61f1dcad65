"""Medians of steps: recorded ones, the same on every side; and runs that do not stay where they got."""

from __future__ import annotations

import numpy as np
from nulls.hmm import convergence, passages

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.convergence import follow
from dynalab.analysis.hmm.claims import spread
from dynalab.analysis.hmm.paths import path_table
from dynalab.cli.runs_files import _word
from dynalab.cli.train import _generalised
from dynalab.core.stats import benjamini_hochberg, fallen, quartiles
from dynalab.core.words import quartiles as on_the_page
from dynalab.core.words import step_phrase
from dynalab.store.difference import _landmark


def test_one_median_of_the_same_runs_everywhere():
    steps = [100, 200, 300, 400, None, None]
    rows = convergence(steps)
    # Two runs were stopped early.
    at = [np.array([0, 10, last]) for last in (1000, 1000, 1000, 1000, 120, 150)]
    (path,) = path_table([np.zeros(3, int)] * 6, at, [row["run"] for row in rows], rows)
    found = spread(passages(steps))
    assert path.median_step == found.median == 300 and path.quartiles == found.quartiles == [
        200,
        None,
    ]
    assert on_the_page(steps) == (200, 300, np.inf) and quartiles(steps) == (200, 300, None)
    assert step_phrase(steps) == "at median step **300** [quartiles 200 to never], 4 of 6 runs"
    assert _landmark(steps) == {"median": 300, "quartiles": [200, None], "runs": 4}
    assert _word(_landmark(steps)) == "300 [200 to never], 4 runs" and _landmark([None]) is None
    summaries = [{"summary": {"generalised_step": step}} for step in steps]
    assert _generalised(summaries, 0.99) == "4 of 6, median 300"
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 12):
        some = rng.integers(0, 50, n).tolist()
        numpys = np.quantile(some, [0.25, 0.5, 0.75], method="inverted_cdf")
        assert quartiles(some) == tuple(numpys) and set(quartiles(some)) <= set(some)


def test_runs_that_fall_back_are_counted():
    summaries = [
        {"generalised_step": 10, "final": {"test_accuracy": accuracy}} for accuracy in (0.0, 0.5, 0.99, None)
    ]
    summaries += [{"generalised_step": None, "final": {"test_accuracy": 0.1}}, {}]
    assert fallen(summaries, "generalised_step", "test_accuracy", 0.99) == 2
    assert fallen(summaries, "generalised_step", "test_accuracy", None) == 0
    said = _generalised([{"summary": one} for one in summaries], 0.99)
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
