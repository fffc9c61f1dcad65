"""The key `steps=` of every analysis: what it says of a prefix is what it says of runs that ended there."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.hmm.simulate import simulate


def ensemble(steps, columns, config, **more):
    run = Trajectory("e/s0000", steps, np.stack(list(columns.values()), axis=1), 0, config=config, **more)
    return Trajectories("e", tuple(columns), (run,))


def eos():
    """Rows that have not converged, and a loss that only turns, beyond the prefix."""
    steps = np.arange(0, 4000, 10)
    ratio = np.where(
        steps < 2000, np.minimum(0.1 * np.exp(steps / 868.6), 1.0), np.where(steps < 3200, 1.01, 0.2)
    )
    columns = {
        "sharpness": 10 * ratio,
        "stability_threshold": 10 + 0 * ratio,
        "sharpness_residual": np.where(steps > 2500, 1.0, 1e-4),
        "train_loss": np.exp(-steps / 900) * (1 + 0.2 * (steps > 2600) * (-1.0) ** (steps / 10)),
    }
    return ensemble(steps, columns, {"optimizer": {"name": "sgd", "lr": 0.2}}), (1500, 2400)


def slingshot():
    """A spike that is cut in two, of a run that diverges long after."""
    steps = np.arange(3000)
    height = 4 * np.clip((steps - 1490) / 5, 0, 1) * (steps < 1520)
    columns = {
        "train_loss": 10 ** np.where(steps < 100, 0, height - 6),
        "last_layer_norm": 1 + steps / 3000,
        "train_accuracy": np.where(steps < 100, 0.5, 1.0),
    }
    config = {"optimizer": {"name": "sgd", "lr": 0.1}}
    return ensemble(steps, columns, config, status="diverged", diverged_step=3000), (1500, 2000)


def hmm():
    truth = simulate("level", 3, 6, 80, seed=1).trajectories
    # Convergence is watched as well, and comes after the prefix in every run.
    runs = tuple(replace(run, values=np.column_stack([run.values, run.steps / 700])) for run in truth.runs)
    return replace(
        truth, metrics=(*truth.metrics, "accuracy"), runs=runs, convergence=Convergence("accuracy", 1)
    ), (500,)


FAST = {
    "hmm": {"max_states": 3, "restarts": 2, "folds": 2, "stability": False, "baselines": False, "workers": 1},
}


@pytest.mark.parametrize("make", [eos, slingshot, hmm], ids=lambda make: make.__name__)
def test_a_prefix_is_judged_as_a_run_that_ended_there(make):
    kind = import_module(f"dynalab.analysis.{make.__name__}")
    keys = FAST.get(make.__name__, {})
    whole, lengths = make()
    if make is hmm:
        keys = {**keys, "metrics": list(whole.metrics[:-1])}
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
