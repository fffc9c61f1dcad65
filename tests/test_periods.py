"""Periods of a decaying norm, the regimes at a fixed one, and a real scale-invariant network under weight decay."""

import numpy as np
import pytest

from dynalab import analyze, train
from dynalab.analysis.base import Run, Series
from dynalab.analysis.periods import Config, find_jumps, judge, regime_of, slopes_between
from dynalab.core.records import plain

STEPS = np.arange(0, 8000, 10, dtype=float)
SGD = {
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.0},
    "task": {"name": "digits"},
}


def sawtooth(period=2000.0, rate=1e-3):
    """A log norm that falls by `rate` a step and rises back within 60 steps once a period."""
    phase = (STEPS - 500) % period
    log = -rate * phase + rate * period * np.clip((phase - period + 60) / 60, 0, 1)
    loss = 1e-4 * (1 + 1e4 * np.exp(-(((phase - period + 30) / 30) ** 2)))
    return np.exp(log), loss


def judged(columns, config=SGD, steps=STEPS, status="done"):
    series = {name: Series.of(steps, values) for name, values in columns.items()}
    return plain(judge(Run("e/s0000", series, steps, config, 0, status), Config()))


def test_a_sawtooth_is_periodic_with_the_slope_of_weight_decay():
    norm, loss = sawtooth()
    run = judged({"scale_invariant_norm": norm, "train_loss": loss})
    assert run["verdict"] == "periodic" and run["regime"] is None
    assert [event["onset_step"] for event in run["events"]] == pytest.approx([440, 2440, 4440, 6440], abs=20)
    assert run["period_steps"] == pytest.approx(2000) and run["period_cv"] == pytest.approx(0, abs=0.01)
    assert run["slope_ratio"] == pytest.approx(1.0, abs=0.01)
    event = run["events"][1]
    assert event["norm_rise"] == pytest.approx(1.94, abs=0.05) and event["loss_rise_decades"] > 2
    assert event["effective_rate"] == pytest.approx(0.1 / norm[244] ** 2, rel=0.05)


def test_momentum_changes_the_slope_and_another_slope_is_no_period():
    norm, loss = sawtooth()
    columns = {"scale_invariant_norm": norm, "train_loss": loss}
    momentum = {"optimizer": {**SGD["optimizer"], "lr": 0.05, "momentum": 0.5}}
    assert judged(columns, momentum)["verdict"] == "periodic"
    wrong = {"optimizer": {**SGD["optimizer"], "weight_decay": 0.02}}
    assert judged(columns, wrong)["verdict"] == "unknown"
    assert judged(columns, {})["verdict"] == "unknown"


def test_jumps_without_the_loss_and_jumps_of_the_rate_are_no_events():
    norm, loss = sawtooth()
    assert judged({"scale_invariant_norm": norm, "train_loss": 1e-4 + 0 * loss})["events"] == []
    schedule = {"schedule": {"name": "step", "milestones": [440, 2440, 4440, 6440]}}
    assert judged({"scale_invariant_norm": norm, "train_loss": loss}, {**SGD, **schedule})["events"] == []


def test_a_norm_at_rest_is_an_equilibrium():
    # rho where decay and growth balance: eta / rho^2 = sqrt(2 eta w) / g.
    rho = np.sqrt(0.1 * 5.0 / np.sqrt(2 * 0.1 * 0.01))
    wander = rho * (1 + 0.01 * np.sin(STEPS / 300))
    run = judged({"scale_invariant_norm": wander, "effective_gradient_norm": 5.0 + 0 * STEPS})
    assert run["verdict"] == "equilibrium"
    run = judged({"scale_invariant_norm": wander * 3, "effective_gradient_norm": 5.0 + 0 * STEPS})
    assert run["verdict"] == "no_period"


@pytest.mark.parametrize(("momentum", "rate"), [(0.0, 0.1), (0.9, 0.1), (0.9, 0.02)])
def test_heavy_ball_comes_to_rest_at_another_norm(momentum, rate):
    # Gradients of norm 1 / rho, orthogonal to the weights, in a space so large that they are to one another.
    decay, rows = 0.02, 4000
    rng = np.random.default_rng(0)
    weights = rng.normal(size=100)
    weights *= 1.02 * (rate / (2 * decay * (1 - momentum))) ** 0.25 / np.linalg.norm(weights)
    speed, norms = np.zeros(100), np.empty(rows)
    for row in range(rows):
        norms[row] = np.linalg.norm(weights)
        pull = rng.normal(size=100)
        pull -= weights * (weights @ pull) / norms[row] ** 2
        speed = momentum * speed + pull / np.linalg.norm(pull) / norms[row] + decay * weights
        weights = weights - rate * speed
    config = {"optimizer": {"name": "sgd", "lr": rate, "weight_decay": decay, "momentum": momentum}}
    columns = {"scale_invariant_norm": norms, "effective_gradient_norm": np.ones(rows)}
    assert judged(columns, config, np.arange(rows))["verdict"] == "equilibrium"
    # At a norm that is off by what momentum changes, it is none.
    off = {**columns, "scale_invariant_norm": norms * 4}
    assert judged(off, config, np.arange(rows))["verdict"] == "no_period"


def test_the_rate_of_the_schedule_is_the_rate():
    norm, loss = sawtooth()
    columns = {"scale_invariant_norm": norm, "train_loss": loss}
    ten = {
        "optimizer": {**SGD["optimizer"], "lr": 1.0},
        "schedule": {"name": "step", "milestones": [100], "gamma": 0.1},
    }
    half = {"optimizer": {**SGD["optimizer"], "lr": 0.2}, "train": {"halve_at": 0}}
    for config in (ten, half):
        run = judged(columns, config)
        assert run["verdict"] == "periodic" and run["slope_ratio"] == pytest.approx(1.0, abs=0.01)
        assert run["events"][1]["effective_rate"] == pytest.approx(0.1 / norm[244] ** 2, rel=0.05)
    assert judged(columns, {**ten, "schedule": {"name": "of_my_own"}})["verdict"] == "unknown"


@pytest.mark.parametrize("name", ["adam", "rmsprop", "lookahead"])
def test_where_decay_alone_does_not_say_how_the_norm_falls_nothing_is_said(name):
    norm, loss = sawtooth()
    run = judged(
        {"scale_invariant_norm": norm, "train_loss": loss}, {"optimizer": {**SGD["optimizer"], "name": name}}
    )
    assert run["verdict"] == "unknown" and run["slope_ratio"] is None and "decay alone" in run["reason"]
    decoupled = judged(
        {"scale_invariant_norm": norm, "train_loss": loss},
        {"optimizer": {**SGD["optimizer"], "name": "adamw"}},
    )
    assert decoupled["verdict"] == "periodic"


def test_too_few_rows_between_events_is_the_reason_that_is_given():
    steps = np.arange(0, 24000, 600)
    phase = (steps - 500) % 2000
    run = judged(
        {"scale_invariant_norm": np.exp(-1e-3 * phase), "train_loss": 1e-4 * np.where(phase < 600, 1e4, 1)},
        steps=steps,
    )
    assert run["verdict"] == "unknown" and "4 rows" in run["reason"]


def test_a_norm_at_rest_under_weight_decay_is_not_held_fixed():
    columns = {
        "scale_invariant_norm": 2 + 0 * STEPS,
        "effective_gradient_norm": 8 + 0 * STEPS,
        "train_loss": 1 + 0 * STEPS,
    }
    assert judged(columns)["verdict"] == "no_period"
    rest = {**columns, "scale_invariant_norm": np.sqrt(0.1 * 8 / np.sqrt(2 * 0.1 * 0.01)) + 0 * STEPS}
    assert judged(rest)["verdict"] == "equilibrium"
    assert judged(columns, {**SGD, "train": {"sphere": True}})["verdict"] == "fixed_norm"


def test_the_variation_of_two_gaps_has_one_degree_of_freedom():
    steps = np.arange(0, 600)
    norm = np.exp(-1e-3 * steps + np.select([steps >= 410, steps >= 210, steps >= 110], [0.9, 0.6, 0.3], 0.0))
    run = judged({"scale_invariant_norm": norm}, steps=steps)
    assert np.diff([event["onset_step"] for event in run["events"]]).tolist() == [100, 200]
    assert run["period_cv"] == pytest.approx(np.std([100, 200], ddof=1) / 150)


def test_jumps_and_slopes_on_their_own():
    norm, _ = sawtooth()
    series = Series(STEPS, norm)
    jumps = find_jumps(series, 0.1, 25)
    assert len(jumps) == 4 and all(np.log(norm[end] / norm[onset]) > 1.5 for onset, end in jumps)
    assert slopes_between(series, jumps, np.ones(len(STEPS))) == pytest.approx([-1e-3] * 3, rel=1e-3)
    assert find_jumps(Series(STEPS, np.exp(-STEPS / 1000)), 0.1, 25) == []


@pytest.mark.parametrize(
    ("loss", "angle", "expected"),
    [
        (np.linspace(0.6, 0.2, 400), 0.01, "convergence"),
        (0.76 + 0.05 * np.random.default_rng(0).normal(size=400), 0.16, "chaotic_equilibrium"),
        (0.76 + 0.05 * np.random.default_rng(0).normal(size=400), 0.01, "transition"),
        (2.3 + 0.05 * np.random.default_rng(0).normal(size=400), 0.3, "divergence"),
        (0.7 + 0.05 * np.random.default_rng(0).normal(size=400), 5.0, "divergence"),
    ],
)
def test_regimes(loss, angle, expected):
    assert regime_of(loss, angle, 10, np.empty(0))[0] == expected


def test_a_fixed_norm_has_a_regime():
    loss = 0.76 + 0.05 * np.random.default_rng(0).normal(size=len(STEPS))
    columns = {
        "scale_invariant_norm": 2.0 + 0 * STEPS,
        "effective_gradient_norm": 8.0 + 0 * STEPS,
        "batch_loss": loss,
    }
    run = judged(columns, {**SGD, "optimizer": {"name": "sgd", "lr": 0.08, "weight_decay": 0.0}})
    assert run["regime"] == "chaotic_equilibrium" and run["effective_rate"] == pytest.approx(0.02)
    assert run["verdict"] == "fixed_norm"


def test_missing_columns():
    assert judged({"scale_invariant_norm": np.ones(5)}, steps=STEPS[:5])["verdict"] == "insufficient_data"


def test_a_network_under_weight_decay_has_the_norm_of_theory(tmp_path):
    words = ["experiment=lobacheva2021_periods", "task.n_train=100", "model.width=16", "eval.every=1"]
    (ensemble,) = train([*words, "train.steps=40", "seed=0..1", "launcher=inline"], outputs=tmp_path)
    rho, gradient = ensemble.array("scale_invariant_norm"), ensemble.array("effective_gradient_norm")
    # The gradient is orthogonal to the weights: rho'^2 = (1 - eta w)^2 rho^2 + eta^2 g^2 / rho^2.
    former = rho[:, :-1]
    expected = (1 - 0.1 * 0.01) ** 2 * former**2 + (0.1 * gradient[:, 1:] / former) ** 2
    assert rho[:, 1:] ** 2 == pytest.approx(expected, rel=1e-5)
    assert [run["verdict"] for run in analyze("periods", ensemble).data["runs"]] == ["no_period"] * 2


@pytest.mark.parametrize(
    ("rate", "steps", "regime"),
    [("0.0096", 600, "convergence"), ("0.64", 1500, "chaotic_equilibrium"), ("32", 600, "divergence")],
)
def test_training_on_the_sphere_has_three_regimes(tmp_path, rate, steps, regime):
    words = ["experiment=kodryan2022_sphere", f"optimizer.lr={rate}", f"train.steps={steps}", "seed=0"]
    (ensemble,) = train([*words, "launcher=inline"], outputs=tmp_path)
    (run,) = analyze("periods", ensemble).data["runs"]
    assert run["regime"] == regime and run["verdict"] == "fixed_norm", run["reason"]
