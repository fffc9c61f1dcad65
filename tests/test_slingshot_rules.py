"""The rules of the slingshot detector one by one, against values by hand, SciPy, and windows cut by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dynalab.analysis import rates
from dynalab.analysis.base import Group, Run, Series
from dynalab.analysis.slingshot import (
    Config,
    Event,
    Findings,
    RunFindings,
    Summary,
    analyse,
    confirm,
    period_of,
    show,
    summarise,
)
from dynalab.analysis.slingshot import kinds as rules
from dynalab.analysis.slingshot.kinds import Evidence
from dynalab.analysis.slingshot.norms import Cycle, _agreed, _cycle, _half_way, _pooled, cycles
from dynalab.analysis.slingshot.spikes import (
    Spike,
    _is_next,
    find_spikes,
    fitted_from,
    largest_loss,
    levels,
    log_loss,
    until_it_ends,
)
from dynalab.core.stats import noise_of
from dynalab.core.stats import theil_sen as slope
from dynalab.show import terminal

REST = -6.0
NOTHING = Cycle(np.nan, np.nan, np.nan, np.nan, np.nan, None)
ADAM = {"name": "adam", "eps": 1e-6}


def found(decades, *, steps=None, **keys):
    """Spikes of a loss that is given in decades above its rest, after a hundred rows of rest."""
    decades = np.concatenate([np.zeros(100), decades])
    steps = np.arange(len(decades), dtype=float) if steps is None else steps
    return find_spikes(steps, 10 ** (REST + decades), **keys)


# The loss.


def test_zeros_are_the_smallest_loss_and_a_loss_of_zeros_is_flat():
    assert log_loss(np.array([0.0, 1e-3, np.nan, 10.0])).tolist() == pytest.approx(
        [-3, -3, np.nan, 1], nan_ok=True
    )
    assert log_loss(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_noise_is_the_median_deviation_of_differences():
    values = np.random.default_rng(0).normal(size=200) + np.arange(200)
    expected = stats.median_abs_deviation(np.diff(values), scale="normal") / np.sqrt(2)
    assert noise_of(values) == pytest.approx(expected, rel=1e-4)
    assert noise_of(np.array([1.0, np.nan, 3.0])) == 0.0 and noise_of(np.ones(1)) == 0.0


@pytest.mark.parametrize(("window", "long", "short"), [(10.0, 40, 8), (120.0, 60, 12), (160.0, 80, 16)])
def test_the_level_is_the_lower_of_two_medians_of_the_rows_before(window, long, short):
    steps, values = 2.0 * np.arange(150), np.random.default_rng(1).normal(size=150).cumsum()
    found = levels(steps, values, window)
    assert np.isnan(found[:3]).all()
    for row in range(3, 150):
        # Of 80 rows every second counts.
        before = [
            values[max(row - rows, 0) : row][:: 2 if rows >= 80 and row >= rows else 1]
            for rows in (long, short)
        ]
        assert found[row] == min(map(np.median, before)), row
    falling = levels(np.arange(400.0), -np.arange(400.0) / 50, 200.0)
    assert falling[300] == pytest.approx(-(260 + 299) / 2 / 50)


@pytest.mark.parametrize(("height", "count"), [(2.0, 1), (1.99, 0), (4.0, 1)])
def test_a_spike_rises_two_decades(height, count):
    assert len(found([height, 0, 0, 0, 0])) == count


def test_onset_peak_end_level_and_height():
    (spike,) = found([0.4, 0.6, 1.5, 3.0, 5.0, 4.0, 2.0, 1.0, 0.9, 0.5, 0.0])
    # Half a decade up it begins, within a decade it ends; a decade sharp is not within.
    assert (spike.onset, spike.peak, spike.end) == (101, 104, 108)
    assert (spike.level, spike.decades) == (pytest.approx(REST), pytest.approx(5.0))
    (cut,) = found([3.0, 5.0, 4.0])
    assert (cut.onset, cut.peak, cut.end) == (100, 101, None)
    (at_half,) = found([0.5, 3.0, 0.0])
    assert at_half.onset == 100


def test_spikes_count_from_the_step_that_arms_them_and_need_five_rows():
    up = [3.0, 0, 0, 0, 0]
    assert len(found(up, armed_from=100.0)) == 1 and found(up, armed_from=101.0) == []
    assert found(up, steps=2.0 * np.arange(105), armed_from=200.0)[0].onset == 100
    loss = 10.0 ** np.array([-6, -6, -6, 0, -6])
    assert len(find_spikes(np.arange(5.0), loss)) == 1 and find_spikes(np.arange(4.0), loss[:4]) == []


@pytest.mark.parametrize(
    ("noise", "height", "count"), [(0.1, 1.9, 1), (0.1, 1.7, 0), (0.4, 2.5, 1), (0.4, 2.2, 0)]
)
def test_noise_is_allowed_for_up_to_where_it_could_be_a_spike(noise, height, count):
    # Least: 2 - 2 noise, and 6 noise. Steps of +- noise (sqrt 2) / 1.4826 have that noise.
    step = noise * np.sqrt(2) / 1.4826
    jitter = np.cumsum(np.where(np.arange(101) % 2, step, -step))
    values = np.concatenate([REST + jitter, [REST - step + height], REST + jitter[:3] - step])
    assert noise_of(values) == pytest.approx(noise, rel=0.03)
    level = levels(np.arange(float(len(values))), values, 200.0)[101]
    values[101] = level + height
    assert len(find_spikes(np.arange(float(len(values))), 10**values)) == count


def test_a_loss_that_stays_up_has_a_second_spike_where_it_rises_two_decades_anew_and_late():
    def next_at(rows, gap, rise):
        values = np.concatenate([[5.0], np.full(rows - 1, 1.0), [1.0 + rise]])
        return _is_next(gap * np.arange(len(values)), values, 0, rows)

    assert next_at(20, 5.0, 2.0) and not next_at(19, 9.0, 2.0) and not next_at(20, 4.9, 2.0)
    assert not next_at(20, 5.0, 1.9)
    for height in (5.5, 4.5):
        tail = np.concatenate([[5.0], np.full(29, 1.2), [height], np.zeros(30)])
        one, two = found(tail, steps=5.0 * np.arange(100 + len(tail)))
        assert (one.peak, one.end, two.onset, two.peak) == (100, 101, 130, 130)
        assert two.decades == pytest.approx(height - 1.2)


def test_a_bounce_belongs_to_the_spike_before_until_the_loss_has_been_quiet():
    def bounce(rest, second=4.0, cadence=1.0):
        tail = np.concatenate([[5.0], np.zeros(rest), [second], np.zeros(40)])
        return found(tail, steps=cadence * np.arange(100 + len(tail)))

    (one,) = bounce(19)
    assert (one.onset, one.peak, one.end) == (100, 100, 121) and one.decades == pytest.approx(5.0)
    (higher,) = bounce(19, second=5.5)
    assert higher.peak == 120 and higher.decades == pytest.approx(5.5)
    assert len(bounce(20)) == 2
    # Few rows, but a hundred steps.
    assert len(bounce(9, cadence=10.0)) == 2 and len(bounce(9, cadence=9.9)) == 1


# The norm.


def test_the_slope_is_theil_sens_and_its_error_that_of_least_squares():
    steps, values = (
        np.sort(np.random.default_rng(0).uniform(0, 50, 150)),
        np.random.default_rng(1).normal(size=150),
    )
    tilt, error = slope(steps, values, 0.3)
    assert tilt == pytest.approx(stats.theilslopes(values, steps)[0])
    assert error == pytest.approx(0.3 * np.sqrt(12 / 150) / np.ptp(steps))
    tilt, error = slope(np.arange(301.0), 2 * np.arange(301.0), 0.3)
    assert tilt == pytest.approx(2.0) and error == pytest.approx(0.3 * np.sqrt(12 / 150) / 300)
    assert slope(np.arange(4.0), np.ones(4), 0.0) == (0.0, pytest.approx(1e-12 * np.sqrt(3) / 3))


def around(rate, after, noise=1e-3):
    """The cycle of a log norm that rises by `rate` a step in rows 0 to 99 and by `after` in rows 100 to 199."""
    steps = np.arange(200.0)
    height = np.where(steps < 100, rate * steps, 100 * rate + after * (steps - 100))
    return _cycle(steps, height, steps < 100, steps >= 100, noise)


@pytest.mark.parametrize(
    ("rate", "after", "verdict"),
    [
        (0.01, 0.0, True),
        (0.01, 0.0045, True),
        (0.01, 0.0055, False),
        (0.01, 0.01, False),
        (0.01, 0.005, None),
        # Falls a little, or faster than it grew.
        (0.01, -0.009, True),
        (0.01, -0.012, False),
        (-0.01, 0.0, False),
        (0.0, 0.0, None),
    ],
)
def test_growth_before_and_a_plateau_after_are_a_cycle(rate, after, verdict):
    found = around(rate, after)
    assert found.verdict is verdict
    assert (found.before, found.after, found.expected) == (
        pytest.approx(rate),
        pytest.approx(after),
        pytest.approx(rate),
    )
    assert found.growth == pytest.approx(99 * rate)
    each = 1e-3 * np.sqrt(12 / 100) / 99
    assert found.error == pytest.approx(np.hypot(each, 0.5 * each))
    assert found.ratio == (pytest.approx(after / rate) if rate > 0 else None)


def test_what_noise_leaves_open_is_open():
    # Standard errors of 1e-3 for slopes of some 1e-3.
    noise = 1e-3 * 99 / np.sqrt(12 / 100)
    assert around(0.0025, -0.002, noise).verdict is None and around(0.0035, -0.002, noise).verdict is True
    assert around(-0.0019, 0.0, noise).verdict is None and around(-0.0021, 0.0, noise).verdict is False
    assert _cycle(np.arange(8.0), np.arange(8.0), np.arange(8) < 3, np.arange(8) > 3, 0.1).verdict is None
    four = _cycle(np.arange(8.0), np.arange(8.0), np.arange(8) < 4, np.arange(8) > 3, 0.1)
    assert four.before == pytest.approx(1.0)


def test_growth_that_slows_down_is_carried_on():
    steps = np.arange(1000.0)
    height = 1 - np.exp(-steps / 150)
    first, second = (steps >= 100) & (steps <= 300), (steps >= 350) & (steps <= 550)
    found = _cycle(steps, height, first, second, 1e-6)
    assert found.verdict is not True and found.expected == pytest.approx(found.after, rel=0.1)
    # By the factor between the halves' slopes, over the distance of the windows in halves.
    early, late = (slope(steps[a:b], height[a:b], 0.0)[0] for a, b in ((100, 200), (200, 301)))
    assert found.expected == pytest.approx(found.before * (late / early) ** (2 * 250 / 200), rel=1e-6)


def test_windows_before_and_after_a_spike():
    rng = np.random.default_rng(2)
    steps = np.arange(0.0, 4000, 5)
    norm = np.exp(rng.normal(size=len(steps)).cumsum() / 100)
    values = np.full(len(steps), REST)
    places = [200, 340, 600]
    for place in places:
        values[place : place + 8] = [-1, 0, -1, -2, -3.1, -3.1, -4, -5.5]
    spikes = [Spike(place, place + 1, place + 7, REST, 6.0) for place in places]
    assert [_half_way(values, spike) for spike in spikes] == [place + 4 for place in places]

    def slopes(before, after):
        chosen = [(steps >= low) & (steps <= high) for low, high in (before, after)]
        return [slope(steps[rows], np.log(norm[rows]), 0.0)[0] for rows in chosen]

    # Alone: 200 steps before, and from a tenth of them after the loss came half way down.
    (alone,) = cycles(steps, values, norm, spikes[:1])
    assert [alone.before, alone.after] == pytest.approx(slopes((800, 1000), (1040, 1240)))
    # Forty rows where they are longer than the window.
    (wide,) = cycles(steps, values, norm, spikes[:1], window=10.0)
    assert wide == alone
    # Among others: .35 of the distance to the nearer one before, at most half of it; a quarter of it after.
    found = cycles(steps, values, norm, spikes)
    expected = [slopes((755, 1000), (1037.5, 1212.5)), slopes((1455, 1700), (1737.5, 1912.5))]
    expected.append(slopes((2545, 3000), (3052.5, 3377.5)))
    assert [[item.before, item.after] for item in found] == [pytest.approx(pair) for pair in expected]
    assert cycles(steps, values, np.zeros(len(steps)), spikes)[1].verdict is None
    # Ten rows at least whose norm has a logarithm.
    few = np.where(np.isin(np.arange(len(steps)), [*range(196, 201), *range(220, 225)]), norm, 0.0)
    assert np.isfinite(cycles(steps, values, few, spikes[:1])[0].before)
    few[224] = 0.0
    assert cycles(steps, values, few, spikes[:1]) == [NOTHING] or np.isnan(
        cycles(steps, values, few, spikes[:1])[0].before
    )


def test_spikes_agree_where_more_than_half_are_cycles():
    def agreed(*verdicts):
        return _agreed([replace(NOTHING, verdict=verdict) for verdict in verdicts])

    assert agreed(True) and agreed(True, True, None) and not agreed(True, False) and not agreed(None)
    # What single ones leave open is decided by three that are clear together.
    open_ = Cycle(0.01, 0.0, 0.01, 0.001, 1.0, None)
    assert [item.verdict for item in _pooled([open_] * 3)] == [True] * 3
    assert [item.verdict for item in _pooled([open_] * 2)] == [None] * 2
    assert [item.verdict for item in _pooled([open_, open_, replace(open_, verdict=False)])] == [
        True,
        True,
        False,
    ]
    assert [item.verdict for item in _pooled([replace(open_, after=0.006)] * 3)] == [False] * 3
    # Two standard errors of a median of three, 1.25 / sqrt 3 of one: .001 to .005 apart.
    for error, verdict in ((0.0034, True), (0.0035, False)):
        assert _pooled([replace(open_, error=error)] * 3)[0].verdict is verdict
    assert _pooled([NOTHING] * 3) == [NOTHING] * 3


def test_what_forks_say_of_slingshots_and_from_where():
    def rows(*steps: int, gone: int = 1):
        return [
            confirm.Forked("e/a", "f/a", step, confirmed=place < gone, fork_slingshots=int(place >= gone))
            for place, step in enumerate(steps)
        ]

    assert confirm.since(rows()) == confirm.since(rows(0, 0)) == "from the start"
    assert confirm.since(rows(1)) == "from its checkpoint of step 1"
    assert confirm.since(rows(1200, 1200)) == "from their checkpoint of step 1,200"
    assert confirm.since(rows(1200, 0, 300)) == "from their checkpoints of step 0 to 1,200"
    told = "Trained again with the loss in float64 from the start: gone, and so confirmed, in 2 of 3 runs"
    # Results of before name the fork in the ids of its runs alone.
    for forks, named in (((), "f"), (("b", "c"), "b and c")):
        found = confirm.Confirmation("train.loss_dtype=float64", forks, tuple(rows(0, 0, 0, gone=2)))
        assert confirm.words(found) == f"**{told}; still there in 1** ({named})."

    def run(name, *onsets, other=()):
        events = [event("slingshot", step) for step in onsets] + [event("data", step) for step in other]
        return RunFindings(run=name, verdict="slingshot", events=tuple(events))

    runs = [run("e/a", 300, 100), run("e/b", 50, other=[10]), run("e/c", other=[5]), run("e/d", 7)]
    one = Group("f", (), keys={"from_step": 100}), [run("f/a", 99, other=[100, 99]), run("f/c")]
    two = Group("g", (), keys={"from_step": 50}), [run("g/b", 50)]
    assert confirm.compare(runs, [one, two]) == confirm.Confirmation(
        "train.loss_dtype=float64",
        ("f", "g"),
        (
            confirm.Forked("e/a", "f/a", 100, 2, 0, 1, True),
            confirm.Forked("e/b", "g/b", 50, 1, 1, 1, False),
            confirm.Forked("e/c", "f/c", 100, 0, 0, 0, False),
        ),
    )


# The kinds.


def evidence(**keys):
    plain = {
        "onset": 1000.0,
        "peak": 1010.0,
        "window": 200.0,
        "channels": {},
        "cycle": NOTHING,
        "optimizer": {},
    }
    return Evidence(**{**plain, **keys})


def at(values, steps=(900.0, 950.0, 990.0, 1000.0, 1010.0)):
    return Series(np.array(steps[: len(values)]), np.array(values, dtype=float))


@pytest.mark.parametrize(
    ("rate", "kind"), [(949.0, "unknown"), (950.0, "data"), (1010.0, "data"), (1011.0, "unknown")]
)
def test_a_rate_that_changes_near_the_onset_explains_it(rate, kind):
    assert rules.name(evidence(rates=(rate,)), Config()).kind == kind


def test_what_comes_before_is_the_window_or_the_last_row():
    steps, values = np.array([700.0, 800.0, 999.0, 1000.0]), np.arange(4.0)
    assert evidence(channels={"x": Series(steps, values)}).before("x").tolist() == [1, 2]
    assert evidence(channels={"x": Series(steps[[0, 3]], values[[0, 3]])}).before("x").tolist() == [0]
    assert evidence(channels={"x": Series(steps[3:], values[3:])}).before("x") is None
    assert evidence().before("x") is None


def test_a_batch_is_odd_where_the_training_loss_does_not_triple():
    def kind(around, full=False):
        return rules.name(
            evidence(full_batch=full, channels={"train_loss": at([1, 1, 1, *around])}), Config()
        ).kind

    assert kind([1.0, 2.9]) == "data" and kind([2.9, 1.0]) == "data" and kind([3.0, 1.0]) == "unknown"
    assert kind([1.0, 2.9], full=True) == "unknown" and kind([1.0, 2.9], full=None) == "unknown"
    late = {"train_loss": Series(np.array([900.0, 1011.0, 1012.0]), np.array([1.0, 2.0, 9.0]))}
    assert rules.name(evidence(full_batch=False, channels=late), Config()).kind == "data"
    assert rules.name(evidence(ended=True), Config()).kind == "data"


def test_every_condition_of_a_slingshot_adds_to_its_confidence():
    cycle = replace(NOTHING, verdict=True)
    columns = {"train_accuracy": at([0.9, 1, 1]), "zero_loss_fraction": at([0, 0.05, 0.05])}

    def named(optimizer=ADAM, cycle=cycle, **changed):
        told = rules.name(
            evidence(optimizer=optimizer, cycle=cycle, channels={**columns, **changed}), Config()
        )
        return told.kind, pytest.approx(6 * told.confidence)

    assert named() == ("slingshot", 6)
    assert named({"name": "adam"}) == ("slingshot", 5) and named({}) == ("slingshot", 4)
    assert named({"name": "lookahead", "inner": "adam", "eps": 1e-6})[0] == "slingshot"
    assert named({"name": "lookahead", "inner": "sgd"})[0] == "unknown"
    assert (
        named({"name": "adam", "eps": 1.1e-6})[0] == "unknown"
        and named({"name": "sgd", "eps": 1e-8})[0] == "unknown"
    )
    assert named(train_accuracy=at([1, 0.99, 0.99]))[0] == "unknown"
    assert named(zero_loss_fraction=at([0.05, 0.04, 0.04]))[0] == "unknown"
    assert named(cycle=NOTHING) == ("spike_without_norm_cycle", 5)
    bare = rules.name(evidence(cycle=cycle), Config())
    assert (bare.kind, 6 * bare.confidence) == ("slingshot", pytest.approx(2))
    no_cycle = replace(NOTHING, verdict=False)
    assert rules.name(evidence(cycle=no_cycle), Config()).kind == "spike_without_norm_cycle"
    assert rules.name(evidence(cycle=no_cycle, optimizer={"name": "sgd"}), Config()).kind == "unknown"
    assert rules.name(evidence(), Config()) == rules.Named("unknown", 0.0, "no recorded channel explains it")


@pytest.mark.parametrize(
    ("tilt", "kind"), [(0.86, "bn_wd_period"), (1.14, "bn_wd_period"), (0.84, "unknown"), (1.16, "unknown")]
)
def test_a_norm_falls_by_the_decay_a_step(tilt, kind):
    steps = np.arange(2000.0)
    # Before its maximum, and in the half window before the onset, it does something else.
    log = np.select(
        [steps < 1000, steps <= 1400], [0.01 * (steps - 1000), -1e-3 * tilt * (steps - 1000)], 1.0
    )
    keys = {"onset": 1500.0, "channels": {"scale_invariant_norm": Series(steps, np.exp(log))}}
    told = rules.name(evidence(**keys, decay=np.full(2000, 1e-3)), Config())
    assert told.kind == kind
    if kind == "bn_wd_period":
        assert told.reason.endswith(f"fell by {1e-3 * tilt:.3g} a step, rate times decay is 0.001")
    assert rules.name(evidence(**keys), Config()).kind == "unknown"


def test_momentum_and_dampening_are_in_the_decay_a_step():
    steps = np.array([0.0, 10.0])

    def decay(**optimizer):
        found = rates.decay_a_step({"optimizer": {"lr": 0.1, "weight_decay": 0.001, **optimizer}}, steps)
        return None if found is None else found.tolist()

    assert decay(name="sgd") == pytest.approx([1e-4, 1e-4]) and decay(name="adamw") == pytest.approx(
        [1e-4, 1e-4]
    )
    assert decay(name="sgd", momentum=0.9) == pytest.approx([1e-3, 1e-3])
    assert decay(name="sgd", momentum=0.9, dampening=0.5) == pytest.approx([5e-4, 5e-4])
    assert decay(name="sgd", dampening=0.5) == pytest.approx([1e-4, 1e-4])
    assert (
        decay(name="adam") is None and decay(name="sgd", weight_decay=0.0) is None and decay(lr=None) is None
    )
    assert rates.drag({"name": "adamw", "momentum": 0.9}) == 1.0
    changes = rates.rate_changes(
        {"schedule": {"name": "step", "milestones": [30, 10]}, "train": {"halve_at": 20}}, 20.0
    )
    assert changes == (10.0, 20.0)


def test_an_edge_ratio_of_one_and_a_lagging_moment():
    def edge(values):
        return rules.name(evidence(channels={"edge_ratio": at(values, np.arange(900.0, 1000))}), Config())

    assert edge([0.9, 1.0]).kind == "edge_spike" and edge([0.9, 0.99]).kind == "unknown"
    # Of the last five rows.
    assert edge([1.1, 0.9, 0.9, 0.9, 0.9]).kind == "edge_spike"
    assert edge([1.1, 0.9, 0.9, 0.9, 0.9, 0.9]).kind == "unknown"
    assert edge([0.9, 1.234]).reason == "the edge ratio was 1.23 before"

    def lag(gradient, along=(0, 21.0), threshold=(30.0, 20.0), optimizer=ADAM):
        names = ("grad_norm", "gradient_curvature", "stability_threshold")
        columns = {name: at(values) for name, values in zip(names, (gradient, along, threshold), strict=True)}
        return rules.name(evidence(channels=columns, optimizer=optimizer), Config()).kind

    # The last square below a tenth of the mean square: of 1 and x, x^2 < 1/19.
    assert lag([1.0, 0.229]) == "adam_lag" and lag([1.0, 0.230]) == "unknown"
    assert (
        lag([1.0, 0.1], along=(0, 20.0)) == "unknown"
        and lag([1.0, 0.1], optimizer={"name": "sgd"}) == "unknown"
    )


def test_every_name_has_its_confidence_and_its_reason():
    def named(**keys):
        return rules.name(evidence(**keys), Config())

    norm = Series(np.arange(500.0, 1000), np.exp(-1e-3 * np.arange(500.0)))
    lagging = {"grad_norm": at([1, 0.1]), "gradient_curvature": at([0, 9]), "stability_threshold": at([9, 2])}
    cycle, quiet = replace(NOTHING, verdict=True), replace(NOTHING, verdict=False)
    grown = "the norm of the last layer grows before and stands still after"
    zeros = {"zero_loss_fraction": at([1, 1])}
    assert [
        named(ended=True),
        named(rates=(1000.0,)),
        named(full_batch=False, channels={"train_loss": at([1, 1, 1, 1])}),
        named(cycle=cycle),
        named(channels=zeros),
        named(channels=zeros, cycle=quiet),
        named(channels={"scale_invariant_norm": norm}, decay=np.full(500, 1e-3)),
        named(channels={"edge_ratio": at([1.0])}),
        named(channels=lagging, optimizer=ADAM),
        named(cycle=quiet),
    ] == [
        rules.Named("data", 1.0, "the loss became NaN or infinite"),
        rules.Named("data", 1.0, "the learning rate changed"),
        rules.Named("data", 0.5, "the batch's loss rose, that of the training set did not"),
        rules.Named("slingshot", 2 / 6, grown),
        rules.Named(
            "spike_without_norm_cycle", 2 / 6, "losses are rounded to 0, the norm's cycle cannot be told"
        ),
        rules.Named(
            "spike_without_norm_cycle", 2 / 6, "losses are rounded to 0, the norm's cycle is not there"
        ),
        rules.Named(
            "bn_wd_period", 1.0, "the scale-invariant norm fell by 0.001 a step, rate times decay is 0.001"
        ),
        rules.Named("edge_spike", 1.0, "the edge ratio was 1.00 before"),
        rules.Named(
            "adam_lag", 1.0, "curvature along the gradient exceeds the threshold while the second moment lags"
        ),
        rules.Named(
            "spike_without_norm_cycle", 1 / 6, "the norm of the last layer does not grow and stand still"
        ),
    ]


# The run.


def test_a_run_is_fitted_after_a_hundred_steps_of_accuracy_one_or_at_a_twentieth_of_its_loss():
    steps, high = np.arange(0.0, 1000, 10), np.ones(100)

    def accuracy(*wrong):
        return Series(steps, np.where(np.isin(steps, wrong), 0.9, 1.0))

    def fitted(steps, loss, accuracy=None):
        return fitted_from(Series(steps, loss), accuracy)

    assert fitted(steps, high, accuracy(0, 110)) == 110
    assert fitted(steps, high, accuracy(0, 100)) == 210
    falls = np.where(steps < 200, 4.0, 0.2)
    # The median of five rows, with the row itself: three of them are low at 220.
    assert fitted(steps, falls) == 220 + 100
    assert fitted(steps, np.where(steps < 200, 4.0, 0.21)) is None
    assert fitted(steps, np.where(steps < 200, 0.5, 0.05)) == 320
    assert fitted(np.arange(100.0), falls) == 22 + 40
    assert fitted(steps + 7, np.full(100, 0.05)) == 7
    assert fitted(steps[:4], np.zeros(4)) is None and fitted(steps[:5], np.zeros(5)) == 0


def test_the_loss_is_the_largest_since_the_last_row_up_to_where_it_ends():
    steps, values = np.arange(0.0, 50, 10), np.array([1.0, 2, 3, 4, 5])
    largest = Series(np.array([5.0, 10, 40, 50]), np.array([99.0, 7, 1, 99]))
    run = Run("e/s0000", {"train_loss": Series(steps, values), "train_loss_max": largest})
    loss = largest_loss(run)
    assert (loss.steps.tolist(), loss.values.tolist()) == (steps.tolist(), [1, 7, 3, 4, 5])
    assert values.tolist() == [1, 2, 3, 4, 5]
    assert (
        largest_loss(Run("e/s0000", {"train_loss": loss})) is loss and largest_loss(Run("e/s0", {})) is None
    )
    assert until_it_ends(loss, 49.0)[1] is False and until_it_ends(loss, 50.0)[1] is True
    cut, ended = until_it_ends(Series(steps, np.array([1.0, 2, 3, np.inf, 5])), 40.0)
    assert (cut.steps.tolist(), ended) == ([0, 10, 20], True)


def test_periods_and_quartiles_over_runs():
    assert period_of([0, 100, 300, 500]) == (
        200,
        pytest.approx(np.std([100, 200, 200], ddof=1) / np.mean([100, 200, 200])),
    )
    assert period_of([0, 100, 300]) == (150, pytest.approx(np.std([100, 200], ddof=1) / 150))
    runs = [
        RunFindings(
            run=f"e/s000{place}",
            verdict="slingshot",
            events=(event("slingshot", 100 + place), event("slingshot", 50 + 10 * place), event("data", 1)),
            period_steps=100.0 * (place + 1),
        )
        for place in range(3)
    ]
    runs += [RunFindings(run="e/s0003", verdict="other_spikes", period_steps=7.0)]
    verdicts, kinds = {"slingshot": 3, "other_spikes": 1}, {"slingshot": 6, "data": 3}
    # A run without one counts as later than all others.
    assert summarise(runs) == Summary(verdicts, kinds, (55, 65, 70), (100, 200, 300))
    assert summarise([]) == Summary({}, {}, None, None)


def event(kind, onset, **keys):
    plain = {"confidence": 1.0, "peak_step": onset + 5, "end_step": onset + 9, "amplitude_decades": 5.0}
    plain |= {"norm_growth": 0.1, "norm_slope_ratio": 0.2, "reason": "why"}
    return Event(**{"kind": kind, "onset_step": onset, **plain, **keys})


def test_a_coarse_series_is_warned_of_and_the_terminal_says_what_was_found():
    def warnings(cadence, **more):
        steps = np.arange(0.0, 60) * cadence
        columns = {"train_loss": np.full(60, 1e-6), "last_layer_norm": 1 + steps, **more}
        return analyse([Group.of({"s0000": columns}, steps)], Config()).warnings

    assert warnings(50.0) == () and "e/s0000: a row every 51 steps is coarse" in warnings(51.0)[0]
    assert warnings(51.0, train_loss_max=np.full(60, 1e-6)) == ()
    slung = RunFindings(
        run="e/s0003",
        verdict="slingshot",
        events=(event("slingshot", 1200), event("edge_spike", 1500), event("slingshot", 2200)),
        period_steps=1000.0,
        period_cv=0.126,
        missing_channels=("grad_norm",),
    )
    quiet = RunFindings(run="e/s0004", verdict="no_events", missing_channels=("grad_norm",))
    findings = Findings((slung, quiet), summarise([slung, quiet]))
    lines = list(terminal.lines(show(findings, ())))
    assert lines[0] == (
        "Slingshots in 1 of 2 runs, no spikes in 1; the first at step 1,200 (quartiles 1,200 to never); some 1,000 "
        "steps apart; other spikes: 1 edge spike."
    )
    said = "s0003 slingshot edge spike at 1,500; slingshot at 1,200, 2,200 1,000 0.126"
    assert [line.split() for line in lines[1:4]] == [
        ["run", "verdict", "events", "period", "its", "variation"],
        said.split(),
        ["s0004", "no", "events", "\u2013", "\u2013", "\u2013"],
    ]
    assert lines[6].split()[:4] == ["s0003", "slingshot", "1,200", "1,205"]
    assert lines[-1] == "Not recorded, and so not weighed: grad_norm."
