"""The slingshot detector: on simulated series, on what each kind of spike rests on, and from the command line."""

import numpy as np
import pytest
from nulls.slingshot import decoy
from simulated_slingshots import TUNING, f1, score, slingshots

from dynalab.analysis.base import Group, Series
from dynalab.analysis.command import findings_of
from dynalab.analysis.slingshot import Config, analyse, show
from dynalab.analysis.slingshot.norms import cycles
from dynalab.analysis.slingshot.spikes import find_spikes, fitted_from, log_loss, period_of
from dynalab.config.registry import find
from dynalab.core.stats import noise_of
from dynalab.errors import ConfigError, NothingMatched

ADAM = {"optimizer": {"name": "adam", "lr": 1e-3, "eps": 1e-8}, "train": {"batch_size": "full"}}


def series(*, period=600, count=4, cadence=5, growth="staircase"):
    """A run as they are measured: the loss falls for long between its spikes, the norm grows just before them."""
    steps = np.arange(0, 400 + period * (count + 0.5), cadence, dtype=float)
    onsets = [400 + period * k for k in range(1, count + 1)]
    loss = np.maximum(2.0 * 10 ** (-steps / 60), 1e-8)
    norm = 20.0 + 0 * steps
    for onset in onsets:
        after = steps - onset
        loss = np.maximum(loss, np.where(after >= 0, 3.0 * np.exp(-np.maximum(after, 0) / 20), 0))
        norm = norm + 2.0 / (1 + np.exp(-np.clip((steps - onset + 40) / 15, -50, 50)))
    if growth == "steady":
        norm = 20.0 + steps / 300
    return steps, loss, norm, onsets


def one(steps, columns, config=None, settings=None, status="done"):
    group = Group.of({"s0000": columns}, steps, status=status, config=config or {})
    findings = findings_of([group], find("analysis", "slingshot"), settings or Config())
    return findings.runs[0], findings


def test_two_columns_are_enough_and_what_is_missing_is_said():
    steps, loss, norm, onsets = series()
    run, findings = one(steps, {"train_loss": loss, "last_layer_norm": norm})
    assert [event.kind for event in run.events] == ["slingshot"] * 4
    for event, onset in zip(run.events, onsets, strict=True):
        assert abs(event.onset_step - onset) <= 10 and event.onset_step <= event.peak_step
        assert event.amplitude_decades == pytest.approx(np.log10(3 / 1e-8), abs=0.6)
    assert run.verdict == "slingshot" and run.period_steps == pytest.approx(600, abs=10)
    assert run.period_cv < 0.02
    wanted = "train_accuracy zero_loss_fraction median_margin min_margin class_feature_cosine grad_norm"
    assert set(wanted.split()) <= set(run.missing_channels) and "optimizer" in run.missing_channels
    assert len(findings.events) == 4
    ends = [event.end_step for event in run.events]
    assert all(e > o for e, o in zip(ends[:3], onsets, strict=False)) and ends[3] is None, (
        "the last is cut off"
    )


@pytest.mark.parametrize(("count", "known"), [(2, False), (3, True)])
def test_the_spread_of_a_period_needs_three_events(count, known):
    steps, loss, norm, _ = series(count=count)
    run, _ = one(steps, {"train_loss": loss, "last_layer_norm": norm})
    assert len(run.events) == count and (run.period_cv is not None) is known
    assert period_of([10]) == (None, None) and period_of([10, 30])[0] == 20


def test_a_norm_that_grows_steadily_or_shrinks_is_no_cycle():
    for growth in ("steady", "shrinking"):
        steps, loss, norm, _ = series(growth=growth)
        norm = norm if growth == "steady" else norm * np.exp(-steps / 300)
        run, _ = one(steps, {"train_loss": loss, "last_layer_norm": norm})
        assert {event.kind for event in run.events} == {"spike_without_norm_cycle"}, growth
        assert run.verdict == "other_spikes"


def with_channels(zeros=0.5, accuracy=1.0, **more):
    steps, loss, norm, _ = series()
    columns = {
        "train_loss": loss,
        "last_layer_norm": norm,
        "train_accuracy": np.where(steps < 50, 0.5, accuracy),
    }
    columns["zero_loss_fraction"] = np.full(len(steps), zeros)
    return steps, {**columns, **{name: np.broadcast_to(value, len(steps)) for name, value in more.items()}}


def kinds(steps, columns, config):
    run, _ = one(steps, columns, config)
    return {event.kind for event in run.events}, run


def test_each_condition_of_a_slingshot_counts():
    found, run = kinds(*with_channels(), ADAM)
    assert found == {"slingshot"} and all(event.confidence == 1.0 for event in run.events)
    sgd = {"optimizer": {"name": "sgd", "lr": 0.1}, "train": {"batch_size": "full"}}
    large = {**ADAM, "optimizer": {**ADAM["optimizer"], "eps": 1e-5}}
    assert kinds(*with_channels(), sgd)[0] == {"unknown"}
    assert kinds(*with_channels(), large)[0] == {"unknown"}
    assert kinds(*with_channels(zeros=0.0), ADAM)[0] == {"unknown"}
    steps, columns = with_channels()
    columns["last_layer_norm"] = 20 + steps / 300
    assert kinds(steps, columns, ADAM)[0] == {"spike_without_norm_cycle"}


def test_other_causes_in_their_order():
    sgd = {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}, "train": {"batch_size": "full"}}
    steps, columns = with_channels(zeros=0.0, edge_ratio=1.02)
    assert kinds(steps, columns, ADAM)[0] == {"edge_spike"}
    columns["scale_invariant_norm"] = np.exp(-0.1 * 0.01 * steps)
    assert kinds(steps, columns, sgd)[0] == {"bn_wd_period"}
    columns["scale_invariant_norm"] = np.exp(-0.3 * 0.01 * steps)
    assert kinds(steps, columns, sgd)[0] == {"edge_spike"}
    steps, columns = with_channels(zeros=0.0, gradient_curvature=50.0, stability_threshold=20.0)
    columns["grad_norm"] = 10.0 ** -((steps % 600) / 60)
    assert kinds(steps, columns, ADAM)[0] == {"adam_lag"}
    # A rate that jumps explains a spike whatever else is there.
    schedule = {"schedule": {"name": "step", "milestones": [1000, 1600, 2200, 2800]}}
    assert kinds(*with_channels(), {**ADAM, **schedule})[0] == {"data"}


@pytest.mark.parametrize("end", [np.inf, np.nan])
def test_a_loss_that_ends_in_nan_or_infinity_is_seen(end):
    steps = np.arange(3000)
    rise = 10 ** (-6 + np.minimum((steps - 2500) * 0.6, 5))
    loss = np.select([steps < 100, steps < 2500, steps < 2520], [1.0, 1e-6, rise], end)
    norm = 1 + steps / 3000
    # Also where nothing else has a value from there on.
    for height in (norm, np.where(np.isfinite(loss), norm, np.nan)):
        run, _ = one(steps, {"train_loss": loss, "last_layer_norm": height})
        assert [event.kind for event in run.events] == ["data"]
    # A loss that is recorded less often than the norm has not ended.
    sparse = np.where(steps % 20 == 0, np.where(loss < 1e3, loss, 1e-6), np.nan)
    run, _ = one(
        steps,
        {
            "train_loss": np.where(steps < 2500, sparse, np.where(steps % 20 == 0, 1e-3, np.nan)),
            "last_layer_norm": 1 + steps / 3000,
        },
    )
    assert "data" not in [event.kind for event in run.events]


def test_a_batch_whose_loss_alone_rises_is_data():
    steps, loss, norm, _ = series()
    quiet = np.maximum(2.0 * 10 ** (-steps / 60), 1e-8)
    batches = {"optimizer": ADAM["optimizer"], "train": {"batch_size": 32}}
    columns = {"train_loss": quiet, "train_loss_max": loss, "last_layer_norm": norm}
    assert kinds(steps, columns, batches)[0] == {"data"}


def test_a_spike_between_two_rows_is_seen_in_the_largest_loss_since():
    steps, loss, norm, onsets = series(cadence=50)
    largest = loss.copy()
    for onset in onsets:
        largest[int(onset / 50)] = 3.0
    loss = np.full(len(steps), 1e-8)
    run, _ = one(steps, {"train_loss": loss, "last_layer_norm": norm, "train_loss_max": largest})
    assert len(run.events) == 4


def test_a_run_that_ends_in_infinity_ends_in_data():
    steps, loss, norm, _ = series(count=3)
    end = int(np.searchsorted(steps, 2250))
    run, _ = one(
        steps[:end], {"train_loss": loss[:end], "last_layer_norm": norm[:end]}, ADAM, status="diverged"
    )
    last = run.events[-1]
    assert last.kind == "data" and last.end_step is None and run.events[0].kind == "slingshot"


def test_prefixes_too_few_rows_and_missing_columns():
    steps, loss, norm, _ = series()
    columns = {"train_loss": loss, "last_layer_norm": norm}
    assert len(one(steps, columns, settings=Config(steps=1300))[0].events) == 1
    few, findings = one(steps[:6], {name: value[:6] for name, value in columns.items()})
    assert few.verdict == "insufficient_data" and few.events == ()
    assert findings.warnings == (
        f"{few.run}: fewer than 10 rows of train_loss or last_layer_norm: record with eval.every=10",
    )
    with pytest.raises(NothingMatched, match="last_layer_norm"):
        one(steps, {"train_loss": loss})
    for key, value in (("window", 0), ("rise", -1.0), ("zero_fraction", 2.0)):
        with pytest.raises(ConfigError, match=key):
            Config(**{key: value})


def test_of_runs_with_too_few_rows_nothing_can_be_told():
    steps, loss, norm, _ = series()
    columns = {"train_loss": loss, "last_layer_norm": norm}
    short = {
        f"s{i}": {name: np.r_[x[:6], np.full(len(x) - 6, np.nan)] for name, x in columns.items()}
        for i in range(3)
    }
    groups = [Group.of(short, steps)]
    found = analyse(groups, Config())
    assert [run.verdict for run in found.runs] == ["insufficient_data"] * 3
    assert found.warnings == (
        "3 of 3 runs: fewer than 10 rows of train_loss or last_layer_norm: record with eval.every=10",
    )
    headline, figure, *_ = show(found, groups)
    assert headline.text == (
        "**Cannot tell** whether there are slingshots: 3 runs have too few rows, fewer than 10; record with "
        "eval.every=10."
    )
    assert "No run has rows enough to tell; drawn is" in figure.caption
    groups = [Group.of({**short, "s3": columns}, steps)]
    headline = next(iter(show(analyse(groups, Config()), groups))).text
    assert headline.startswith(
        "**Cannot tell** in 3 of 4 runs, with too few rows. **Slingshots** in **1 of 1 run**;"
    )


def test_arming_waits_for_the_fit():
    steps = np.arange(0.0, 1000, 10)
    accuracy = np.where(steps < 200, 0.9, 1.0)
    accuracy[5] = 1.0
    assert fitted_from(Series(steps, np.ones(100)), Series(steps, accuracy)) == 300
    assert fitted_from(Series(steps, np.full(100, 1e-4)), None) == 0
    assert fitted_from(Series(steps, np.full(100, 2.0)), None) is None


def test_a_saturating_norm_is_no_plateau():
    steps, loss, _, _ = series(count=1)
    norm = 10 + 5 * (1 - np.exp(-steps / 300))
    (spike,) = find_spikes(steps, loss, armed_from=300)
    (cycle,) = cycles(steps, log_loss(loss), norm, [spike])
    assert cycle.ratio < 0.6 and cycle.verdict is not True


def test_noise_is_measured_and_zeros_are_the_floor():
    x = np.cumsum(np.full(4000, 0.01)) + 0.2 * np.random.default_rng(0).normal(size=4000)
    assert noise_of(x) == pytest.approx(0.2, rel=0.05)
    assert log_loss(np.array([1.0, 0.0, 1e-6])).tolist() == pytest.approx([0, -6, -6])


def test_simulated_series_and_decoys_beyond_the_measured_ones():
    scores = []
    for number in range(TUNING + 200, TUNING + 214):
        for make in (slingshots, decoy):
            case = make(number)
            (run,) = analyse([case.group], Config()).runs
            scores.append(score(case, run.slingshots, run.verdict))
            if make is decoy:
                assert not scores[-1].verdict, case.kind
    assert f1(scores) >= 0.95


def test_a_case_is_fixed_by_its_number_and_scoring_counts():
    case = slingshots(3)
    (mine,), (again,) = (item.group.runs for item in (case, slingshots(3)))
    assert all(
        np.array_equal(mine.series[name].values, again.series[name].values) for name in case.group.metrics
    )
    assert score(case, list(case.onsets), "slingshot").missed == 0
    shifted = [int(step + case.period / 2) for step in case.onsets]
    assert score(case, shifted, "slingshot").hits == 0 and score(case, shifted, "slingshot").false == len(
        shifted
    )
    assert f1([score(case, [], "no_events")]) == 0.0


def test_pooled_runs_are_judged_by_their_own_configuration():
    steps, columns = with_channels()
    adam = Group.of({"s0000": columns}, steps, id="a", config=ADAM)
    sgd = Group.of({"s0000": columns}, steps, id="b", config={"optimizer": {"name": "sgd", "lr": 0.1}})
    findings = analyse([adam, sgd], Config())
    assert [run.verdict for run in findings.runs] == ["slingshot", "other_spikes"]
    assert findings.summary.verdicts == {"slingshot": 1, "other_spikes": 1}
