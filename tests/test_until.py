"""The key `steps=` of every analysis: what it says of a prefix is what it says of runs that ended there."""

from dataclasses import replace
from importlib import import_module

import numpy as np

from dynalab.analysis.base import Convergence, Trajectory
from dynalab.analysis.hmm.simulate import simulate


def hmm():
    truth = simulate("level", 3, 6, 80, seed=1).trajectories
    # Convergence is watched as well, and comes after the prefix in every run.
    runs = tuple(replace(run, values=np.column_stack([run.values, run.steps / 700])) for run in truth.runs)
    return replace(
        truth, metrics=(*truth.metrics, "accuracy"), runs=runs, convergence=Convergence("accuracy", 1)
    ), (500,)


FAST = {"max_states": 3, "restarts": 2, "folds": 2, "stability": False, "baselines": False, "workers": 1}


def test_a_prefix_is_judged_as_a_run_that_ended_there():
    whole, lengths = hmm()
    keys = {**FAST, "metrics": list(whole.metrics[:-1])}
    kind = import_module("dynalab.analysis.hmm")
    for last in lengths:
        ended = tuple(
            replace(
                run, steps=run.steps[run.steps <= last], values=run.values[run.steps <= last], status="done"
            )
            for run in whole.runs
        )
        prefix = kind.analyse(whole, kind.Config(steps=last, **keys))
        cut = kind.analyse(replace(whole, runs=ended), kind.Config(**keys))
        for outcome in (prefix, cut):
            outcome.result.pop("settings", None)
        np.testing.assert_equal(prefix.result, cut.result)
        assert prefix.warnings == cut.warnings


def test_a_divergence_counts_from_its_step_on():
    run = Trajectory("e/s0000", np.arange(0, 100, 10), np.ones((10, 1)), status="diverged", diverged_step=95)
    assert run.until(94).status == "done" and run.until(94).diverged_step is None
    assert run.until(95).status == "diverged" and run.until(95).diverged_step == 95
    # Where its step is not known it came after the last row.
    unknown = replace(run, diverged_step=None)
    assert unknown.until(90).status == "diverged" and unknown.until(89).status == "done"
