"""The detector of the edge of stability: verdicts on curves with known answers, thresholds, simulated series."""

import numpy as np
import pytest
from nulls.eos import decoy
from simulated_edges import TUNING, edge

from dynalab.analysis.base import Group, Series
from dynalab.analysis.command import findings_of
from dynalab.analysis.eos import Config, Stay, analyse
from dynalab.analysis.eos.corroborate import loss_before_and_after, raw_sharpness
from dynalab.analysis.eos.edge import edge_of, smooth
from dynalab.config.registry import find
from dynalab.curvature.rows import FEWEST, close_enough
from dynalab.errors import ConfigError, NothingMatched

STEPS = np.arange(0, 4000, 20, dtype=float)
RISE = np.minimum(0.1 * np.exp(STEPS / 868.6), 1.0)  # reaches 1 at step 2,000


def verdict(ratios, **keys):
    return edge_of(STEPS[: len(ratios)], np.asarray(ratios), Config(), **keys)


def test_arrival_and_stay():
    hover = np.where(STEPS < 2000, RISE, 1.01 + 0.02 * np.sin(STEPS))
    found = verdict(hover)
    assert found.verdict == "at_edge" and found.onset == pytest.approx(2000, abs=40) and found.end is None
    assert found.median == pytest.approx(1.01, abs=0.01) and found.fraction == pytest.approx(0.5, abs=0.02)
    assert found.rate == pytest.approx(1 / 868.6, rel=0.01)


def test_leaving_is_visited():
    found = verdict(np.where(STEPS < 2000, RISE, np.where(STEPS < 3000, 1.02, 0.3)))
    assert found.verdict == "visited" and found.end == pytest.approx(2980, abs=20)
    again = np.where(STEPS < 2000, RISE, np.where(STEPS < 2600, 1.02, np.where(STEPS < 3000, 0.3, 1.01)))
    back = verdict(again)
    assert back.verdict == "at_edge" and len(back.stays) == 2 and back.onset == pytest.approx(2000, abs=40)


def test_every_stay_is_stored_and_what_left_did_not_stay():
    twice = np.select([STEPS < 2000, STEPS < 2200, STEPS < 3600], [RISE, 1.02, 0.3], 1.01)
    run = judged({"edge_ratio": twice}, {})
    first, second = run.stays
    assert (first.last, second) == (2180, Stay(3600, 3980)) and first.first == run.onset_step
    assert run.fraction_at_edge == pytest.approx((2180 - first.first + 380) / 3980)
    assert run.reason.endswith("left at step 2,180, came back at step 3,600, stayed to the end")
    # Four rows after it are too few to say that it left, and are not time at the edge either.
    (only,) = (
        cut := judged({"edge_ratio": np.where(STEPS < 2000, RISE, np.where(STEPS < 3920, 1.01, 0.1))}, {})
    ).stays
    assert cut.verdict == "at_edge" and only.last == 3900 and "until step 3,900" in cut.reason


@pytest.mark.parametrize("flat", [0.0, -0.2, 1e-9])
def test_a_flat_network_has_left_the_edge(flat):
    ratios = np.select([STEPS < 2000, STEPS < 3000], [RISE, 1.01], flat)
    run = judged({"edge_ratio": ratios}, {})
    assert run.verdict == "visited" and run.end_step == 2980
    # Nor is a row lost because so small an eigenvalue is known to a few percent only.
    columns = {
        "sharpness": 10 * ratios,
        "stability_threshold": 10 + 0 * ratios,
        "sharpness_residual": 0.1 * np.abs(ratios),
    }
    assert (
        judged({**columns, "sharpness_residual": np.where(ratios < 0.01, np.abs(ratios), 0.0)}, {}).verdict
        == "visited"
    )


def test_rows_at_the_edge_are_counted_one_by_one():
    # Five rows below, no more: two stays. One row below, now and then: one.
    five = np.where(STEPS < 2000, RISE, np.where((STEPS >= 3000) & (STEPS < 3100), 0.5, 1.01))
    assert len(verdict(five).stays) == 2 and verdict(five).verdict == "at_edge"
    single = np.where(STEPS < 2000, RISE, np.where(STEPS % 400 == 0, 0.5, 1.01))
    assert len(verdict(single).stays) == 1


def test_a_start_above_the_former_bound_still_arms_on_its_rise():
    assert verdict(np.where(STEPS < 2000, 0.75 + 0.25 * STEPS / 2000, 1.01)).verdict == "at_edge"


def test_what_is_not_at_the_edge():
    assert verdict(0.6 * RISE).verdict == "below_edge"
    assert verdict(np.full(200, 0.3)).verdict == "never_sharpened"
    assert verdict(np.full(200, 1.0)).verdict == "never_sharpened"
    assert verdict(0.3 + 4 * np.exp(-STEPS / 100)).verdict != "at_edge"
    # Through the edge and on: not a threshold that holds.
    assert verdict(0.1 * np.exp(STEPS / 400)).verdict not in ("at_edge",)
    # Cross-entropy: up and down again.
    assert verdict(0.62 * np.exp(-(((STEPS - 600) / 500) ** 2)) + 0.012).verdict == "below_edge"
    assert verdict(RISE[:6]).verdict == "insufficient_data"
    jumps = np.exp(np.random.default_rng(0).normal(size=200))
    assert verdict(jumps).verdict == "unknown"


def test_adaptive_optimizers_skip_their_first_steps():
    high = np.concatenate([[40.0], np.where(STEPS < 2000, RISE, 1.0)[1:]])
    assert verdict(high, adaptive=True).verdict == "at_edge"


def test_the_running_median_is_as_wide_as_the_noise():
    assert smooth(np.zeros(100), 0.0)[1] == 1
    assert smooth(np.zeros(100), 10.0)[1] == 13
    assert smooth(np.arange(50.0), 0.1)[0][10:40] == pytest.approx(np.arange(10.0, 40.0))


def judged(columns, config, status="done"):
    group = Group.of({"s0000": columns}, STEPS, status=status, config=config)
    return findings_of([group], find("analysis", "eos"), Config()).runs[0]


@pytest.mark.parametrize(
    ("optimizer", "threshold"),
    [
        ({"name": "sgd", "lr": 0.2}, 10.0),
        ({"name": "sgd", "lr": 0.2, "momentum": 0.9}, 19.0),
        ({"name": "sgd", "lr": 0.2, "momentum": 0.9, "nesterov": True}, 3.8 / 2.8 / 0.2),
        ({"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999]}, 38000.0),
    ],
)
def test_the_threshold_follows_from_the_optimizer(optimizer, threshold):
    hover = np.where(STEPS < 2000, RISE, 1.01)
    name = "preconditioned_sharpness" if optimizer["name"] == "adam" else "sharpness"
    run = judged({name: hover * threshold, "train_loss": RISE}, {"optimizer": optimizer})
    assert run.verdict == "at_edge" and run.median_ratio == pytest.approx(1.01, rel=1e-6)
    assert run.adaptive is (optimizer["name"] == "adam")


def test_a_schedule_moves_the_threshold():
    hover = np.where(STEPS < 2000, RISE, 1.01) * 10
    config = {"optimizer": {"name": "sgd", "lr": 0.2}, "schedule": {"name": "step", "milestones": [3000]}}
    run = judged({"sharpness": hover, "train_loss": RISE}, config)
    assert run.verdict == "visited" and run.end_step == pytest.approx(2980, abs=20)


def test_unknown_with_the_reason():
    sharp = {"sharpness": 10 * RISE}
    assert judged(sharp, {}).verdict == "unknown" and "threshold" in judged(sharp, {}).reason
    adam = judged(sharp, {"optimizer": {"name": "adam", "lr": 1e-3}})
    assert adam.verdict == "unknown" and "preconditioned_sharpness" in adam.reason
    clipped = judged(sharp, {"optimizer": {"name": "sgd", "lr": 0.2}, "train": {"clip": 1.0}})
    assert clipped.verdict == "unknown" and "clip" in clipped.reason
    assert judged({**sharp, "stability_threshold": 10.0 + 0 * RISE}, {}).verdict == "at_edge"
    loose = {**sharp, "stability_threshold": 10.0 + 0 * RISE, "sharpness_residual": 2.0 + 0 * RISE}
    assert judged(loose, {}).verdict == "unknown"
    with pytest.raises(NothingMatched, match="gradients,curvature\\]"):
        judged({"train_loss": RISE}, {})
    with pytest.raises(ConfigError, match="low"):
        Config(low=1.5)


def test_sam_is_judged_by_its_own_threshold():
    # lambda (1 + rho lambda / g) = 2 / eta at lambda = 5, rho = .05, eta = .2: g = .25.
    config = {"optimizer": {"name": "sam", "lr": 0.2, "rho": 0.05}}
    run = judged({"sharpness": 5 * np.where(STEPS < 2000, RISE, 1.01), "grad_norm": 0.25 + 0 * RISE}, config)
    assert run.verdict == "at_edge" and run.median_ratio == pytest.approx(1.01, rel=1e-6)


def test_loss_and_raw_sharpness_corroborate():
    steps = np.arange(200.0)
    loss = np.where(steps <= 100, 1 - steps / 200, 0.5 + 0.01 * (-1.0) ** steps)
    found = loss_before_and_after(Series(steps, loss), [(100.0, 199.0)])
    assert (
        found.corroborated
        and found.loss_up_before == 0
        and found.loss_up_after == pytest.approx(0.5, abs=0.02)
    )
    assert found.loss_turns_after > 0.95 and found.loss_turns_before == 0
    assert loss_before_and_after(Series(steps * 10, loss), [(1000.0, 1990.0)]) is None
    assert raw_sharpness(Series(steps, 1 + steps), [(100.0, 199.0)]).rises
    assert not raw_sharpness(Series(steps, 1 + 0 * steps), [(100.0, 199.0)]).rises


def test_simulated_series_and_decoys_beyond_the_measured_ones():
    off = []
    for number in range(TUNING + 300, TUNING + 320):
        case = edge(number)
        (run,) = analyse([case.group], Config()).runs
        assert run.verdict == "at_edge"
        off.append(abs(run.onset_step - case.onset) / case.steps)
        case = decoy(number)
        assert analyse([case.group], Config()).runs[0].verdict != "at_edge", case.kind
    # Of twenty, where the bar asks for nine in ten of a hundred.
    assert np.mean(np.array(off) <= 0.05) >= 0.8


def test_the_interquartile_range_is_that_of_the_quartiles_that_sentences_name():
    rng = np.random.default_rng(0)
    for n in range(10, 40):
        # Far below the edge the last quarter of the rows counts, of 3 to 10 rows.
        ratios = 0.2 * np.exp(0.01 * rng.standard_normal(n))
        kept = ratios[n * 3 // 4 :]
        found = verdict(ratios)
        low, middle, high = np.quantile(kept, [0.25, 0.5, 0.75], method="averaged_inverted_cdf")
        assert found.verdict in ("below_edge", "never_sharpened")
        assert (found.median, found.spread) == pytest.approx((middle, high - low), rel=1e-12)


@pytest.mark.parametrize("skip", [0, 10])
@pytest.mark.parametrize("last", [*range(1, 60), 100, 997, 1000, 40_000])
def test_the_distance_that_is_named_is_the_widest_that_gives_rows_enough(last, skip):
    # As many rows as a run of these steps has of a grid, those of its beginning left out.
    def rows(every):
        return sum(step >= skip for step in range(0, last + 1, every))

    enough = [every for every in range(1, last + 1) if rows(every) >= FEWEST]
    assert close_enough(last, skip) == max(enough, default=None)
    for unit in (1, 7, 10):
        multiples = [every for every in enough if every % unit == 0]
        assert close_enough(last, skip, unit) == max(multiples or enough, default=None)


def test_a_run_with_too_few_rows_names_what_would_have_given_them():
    def reason(rows, **config):
        columns = {"edge_ratio": np.where(STEPS % rows == 0, RISE, np.nan)}
        return judged(columns, config).reason

    sgd = {"optimizer": {"name": "sgd", "lr": 0.1}, "eval": {"every": 20}}
    assert reason(600, **sgd) == (
        "7 rows with a ratio, at least 10 are needed; over 3,980 steps probe.curvature.every=440 gives them"
    )
    adam = {"optimizer": {"name": "adam", "lr": 0.1}, "eval": {"every": 100}}
    assert reason(400, **adam).endswith("9 rows with a ratio, at least 10 are needed; over 3,980 steps "
                                        "probe.curvature.every=300 gives them")  # fmt: skip
    # Of runs that were trained elsewhere the key means nothing.
    assert reason(600) == "7 rows with a ratio, at least 10 are needed"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["optimizer=sgd", "probe.curvature.every=50"],
            "probe curvature: it has a row every 50 steps; up to step 400 analyze eos needs 10: "
            "probe.curvature.every=40",
        ),
        (
            ["optimizer=adam", "probe.curvature.every=60"],
            "probe curvature: it has a row every 60 steps; up to step 400 analyze eos needs 10 from step 10 on: "
            "probe.curvature.every=40",
        ),
        (
            ["optimizer=sgd", "probe.curvature.at=[0,300]"],
            "probe curvature: it has rows at few steps; up to step 400 analyze eos needs 10: probe.curvature.every=40",
        ),
        (["optimizer=sgd", "probe.curvature.every=44"], ""),
        (["optimizer=adam", "probe.curvature.every=40"], ""),
    ],
)
def test_the_plan_names_the_distance_of_rows_that_is_close_enough(here, words, line):
    answer = here(
        "train", "task=digits", "probes=[curvature]", "train.steps=400", "eval.every=20", *words, "--dry-run"
    )
    assert answer.code == 0 and answer.err.count("probe curvature") == bool(line) and line in answer.err
