"""The rules of eos, periods and variance one by one, against values by hand, SciPy and the definition."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dynalab.analysis import eos, variance
from dynalab.analysis.base import Convergence, Group, Series
from dynalab.analysis.command import findings_of
from dynalab.analysis.eos import Config as EdgeKeys
from dynalab.analysis.eos import confirm, measured_on, summarise
from dynalab.analysis.eos.corroborate import RawSharpness, loss_before_and_after, raw_sharpness
from dynalab.analysis.eos.edge import _Rows, _settled, edge_of, smooth
from dynalab.analysis.eos.ratios import ratios_of
from dynalab.analysis.periods import Config as PeriodKeys
from dynalab.analysis.periods import Event, RunFindings, find_jumps, judge, regime_of, slopes_between
from dynalab.analysis.periods import Findings as Periods
from dynalab.analysis.periods import show as show_periods
from dynalab.analysis.slingshot import Config as SpikeKeys
from dynalab.analysis.variance import components, impute
from dynalab.config.registry import find
from dynalab.core.waves import Fork
from dynalab.errors import ConfigError, NothingMatched
from dynalab.show import terminal

STEPS = np.arange(0.0, 2000, 10)


def run_of(columns, config=None, steps=STEPS, status="done"):
    table = {name: np.broadcast_to(column, len(steps)) for name, column in columns.items()}
    return Group.of({"s0000": table}, steps, status=status, config=config or {}).runs[0]


def lone(run, id="e"):
    return Group(id, (run,), tuple(run.series))


# The edge of stability.


def edge(ratios, **keys):
    ratios = np.asarray(ratios, dtype=float)
    return edge_of(10.0 * np.arange(len(ratios)), ratios, EdgeKeys(**keys))


# Even in the logarithm: rows without noise.
RISE = np.geomspace(0.2, 1, 61)


def test_a_stay_begins_at_one_and_takes_five_rows():
    arrived = edge([*RISE, *[1.02] * 40])
    assert (arrived.verdict, arrived.onset, arrived.end, arrived.stays) == (
        "at_edge",
        600,
        None,
        ((600, 1000),),
    )
    assert arrived.fraction == pytest.approx(0.4) and arrived.reason == "arrived at step 600, and stayed"
    assert arrived.rise == pytest.approx(1.02 / 0.2)
    ratios = np.array([*RISE[60:], *[1.02] * 40])
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    assert (arrived.median, arrived.spread) == (median, pytest.approx(high - low))
    assert edge([*RISE, *[1.02] * 4]).stays == ((600, 640),)
    assert edge([*RISE, *[1.02] * 3]).verdict == "unknown"
    assert (
        edge([*RISE[:9]]).reason.startswith("9 rows with a ratio, at least 10")
        and edge(RISE[:10]).verdict != "insufficient_data"
    )


@pytest.mark.parametrize(
    ("below", "ends"), [([0.81] * 9, None), ([0.79] * 4, None), ([0.79] * 5, 850.0), ([1.26] * 5, 850.0)]
)
def test_a_stay_ends_with_five_rows_outside(below, ends):
    found = edge([*RISE, *[1.01] * 25, *below])
    assert found.end == ends and found.verdict == ("visited" if ends else "at_edge")
    if ends:
        assert found.reason == "arrived at step 600, left at step 850"
    elif below[0] == 0.79:
        assert found.reason.endswith(
            "at the edge until step 850; the rows after are too few to say that it left"
        )


@pytest.mark.parametrize(
    ("ratios", "keys", "verdict"),
    [
        # It has to rise by a quarter, reach 1, and stay between .9 and 1.25.
        ([*np.geomspace(0.79, 1, 61), *[1.01] * 40], {}, "at_edge"),
        ([*np.geomspace(0.83, 1, 61), *[1.01] * 40], {}, "never_sharpened"),
        ([*np.geomspace(0.83, 1, 61), *[1.01] * 40], {"rise": 1.2}, "at_edge"),
        ([*np.geomspace(0.2, 0.99, 61), *[0.99] * 40], {}, "below_edge"),
        ([*RISE, *[0.91] * 40], {}, "at_edge"),
        ([*RISE, *[0.89] * 40], {}, "below_edge"),
        ([*RISE, *[1.24] * 40], {}, "at_edge"),
        ([*RISE, *[1.26] * 40], {}, "unknown"),
    ],
)
def test_what_an_arrival_asks_for(ratios, keys, verdict):
    assert edge(ratios, **keys).verdict == verdict


def test_what_is_said_of_runs_that_never_arrive():
    low = edge(np.geomspace(0.2, 0.6, 100))
    assert low.reason == "the largest ratio is 0.60" and (low.onset, low.stays, low.fraction) == (
        None,
        (),
        0.0,
    )
    last = np.geomspace(0.2, 0.6, 100)[75:]
    assert low.median == np.median(last) and low.spread == pytest.approx(
        np.subtract(*np.quantile(last, [0.75, 0.25]))
    )
    assert edge(np.geomspace(0.2, 0.29, 100)).reason == "the ratio rose 1.45 times at most"
    assert edge(np.geomspace(0.2, 0.3001, 100)).verdict == "below_edge"
    assert edge([0.81] * 50).reason.endswith("(it was near 1 from the beginning)")
    assert edge([0.79] * 50).reason.endswith("1.00 times at most")
    assert "reached 1.00 and did not stay between 0.9 and 1.25" in edge([*RISE, *[0.89] * 40]).reason


def test_sharpening_has_the_slope_of_the_rows_below_nine_tenths():
    ratios = 0.2 * np.exp(0.02 * np.arange(81))
    found = edge([*ratios, *[1.01] * 30])
    assert found.onset == 810 and found.rate == pytest.approx(0.002)
    bent = np.concatenate([np.geomspace(0.5, 0.899, 20), np.geomspace(0.91, 1.0, 40)])
    found = edge([*bent, *[1.01] * 30])
    assert found.rate == pytest.approx(np.log(0.899 / 0.5) / 190)
    assert edge([*np.geomspace(0.5, 0.85, 4), *np.geomspace(0.91, 1.0, 40), *[1.01] * 30]).rate is None


def test_a_stay_that_is_shorter_than_five_rows_is_none():
    assert edge([*RISE, 1.01, 1.01, *[0.5] * 10]).stays == ()
    assert edge([*RISE, *[1.01] * 4, *[0.5] * 10]).stays == ((600, 640),)


@pytest.mark.parametrize("place", range(5))
def test_the_next_arrival_rises_from_the_lowest_of_the_rows_that_left(place):
    away = np.where(np.arange(5) == place, 0.6, 0.75)
    assert len(edge([*RISE, *[1.01] * 20, *away, *[1.0] * 20], rise=1.5).stays) == 2
    assert len(edge([*RISE, *[1.01] * 20, *[0.75] * 5, *[1.0] * 20], rise=1.5).stays) == 1


def test_the_loss_is_looked_at_where_the_batch_is_full():
    ratios = np.array([*RISE, *[1.01] * 40])
    columns = {"edge_ratio": ratios, "sharpness": ratios, "train_loss": np.arange(101.0) % 3}

    def result(optimizer="sgd", **train):
        run = run_of(columns, {"optimizer": {"name": optimizer}, "train": train}, np.arange(101.0))
        return eos.analyse([lone(run)], EdgeKeys()).runs[0]

    stays = [(60.0, 100.0)]
    expected = loss_before_and_after(Series(np.arange(101.0), columns["train_loss"]), stays)
    assert expected is not None and result().loss == result(batch_size="full").loss == expected
    assert result(batch_size=32).loss is None
    assert result().raw_sharpness is None and result().stays == (eos.Stay(60, 100),)


def test_a_smoothed_arrival_is_settled_at_the_knee():
    steps, rows = np.arange(0.0, 1000, 10), np.arange(100)
    for power in (0.7, 1.0, 1.4):
        x = -((np.maximum(60 - rows, 0) / 25) ** power) + 0.01 * np.random.default_rng(0).normal(size=100)
        found = _Rows(52, 99, False)
        assert _settled(steps, x, found, 7) == pytest.approx(600, abs=15), power
        # Five rows at most are no smoothing to speak of.
        assert _settled(steps, x, found, 5) == 520.0


def test_the_ratio_at_the_edge_is_of_all_rows_of_all_stays():
    stays = [1.0, 1.02, 1.04, 1.06, 1.2], [1.0, 0.95, 0.93, 0.91, 1.1]
    ratios = np.array(
        [*RISE[:60], *stays[0], *[0.5] * 20, *np.geomspace(0.5, 0.99, 20), *stays[1], *[0.5] * 5]
    )
    found = edge(ratios)
    assert found.stays == ((600, 640), (1050, 1090)) and (found.verdict, found.end) == ("visited", 1090)
    shares, house = [0.25, 0.5, 0.75], "averaged_inverted_cdf"
    low, median, high = np.quantile(np.concatenate(stays), shares, method=house)
    assert (found.median, found.spread) == (pytest.approx(median), pytest.approx(high - low))
    assert found.fraction == pytest.approx(80 / (10 * (len(ratios) - 1)))
    assert (
        found.reason == "arrived at step 600, left at step 640, came back at step 1,050, left at step 1,090"
    )


def test_forks_are_shared_where_all_are_at_the_edge():
    steps = np.arange(0.0, 1010, 10)

    def curve(onset, level=1.0):
        return Series(steps, np.select([steps <= onset - 50, steps < onset], [0.5, 0.7], level))

    def halved(onsets, curves):
        runs = [
            eos.RunFindings(run=name, verdict="at_edge", onset_step=step) for name, step in onsets.items()
        ]
        return confirm.halvings(runs, curves, EdgeKeys())

    def half(runs, at, length):
        return Fork(f"half-{at}", runs, at, {"train.halve_at": at}, length)

    curves = {"a": curve(100), "b": curve(300), "c": curve(0)}
    # Five rows after the later arrival; as long as the runs, or four times the way from half of the threshold.
    assert halved({"b": 300, "a": 100, "c": None}, curves) == [half(("a", "b"), 350, 1000)]
    far = {"a": Series(steps, np.where(steps < 300, 0.5, 1.0) + 0.2 * (steps > 0) * (steps < 300))}
    assert halved({"a": 300}, far) == [half(("a",), 350, 350 + 4 * 300)]
    late = {"a": Series(steps, np.where(steps < 900, 0.6, 1.0))}
    assert halved({"a": 900}, late) == [half(("a",), 950, 2000)]
    # One that has left by then is forked by itself; without six rows from its arrival on it is not.
    left = {"a": Series(steps, np.where(steps > 300, 0.7, curve(100).values)), "b": curve(300)}
    assert halved({"a": 100, "b": 300}, left) == [half(("b",), 350, 1000), half(("a",), 150, 1000)]
    assert halved({"a": 960}, {"a": curve(960)}) == [] and len(halved({"a": 950}, {"a": curve(950)})) == 1


def test_a_fork_at_half_the_rate_confirms_an_edge():
    def judge(fell=0.5, rise=1.3, parent=1.0, rows=10):
        steps = np.arange(0.0, 10 * (20 + rows), 10)
        after = steps >= 200
        ratio, sharp = np.where(after, fell, 1.0), np.where(after, 2 * rise, 2.0)
        columns = {
            "sharpness": np.where(after, 2 * parent, 2.0),
            "edge_ratio": 1.0,
            "stability_threshold": 2.0,
        }
        mine = run_of(columns, steps=steps)
        columns = {"sharpness": sharp, "edge_ratio": ratio, "stability_threshold": 4.0}
        fork = replace(lone(run_of(columns, steps=steps), "f"), keys={"from_step": 150})
        (entry,), table = confirm.compare(lone(mine), fork, 190, EdgeKeys())
        return entry, table

    entry, table = judge()
    assert (
        entry.verdict == "confirmed"
        and entry.confirmed is True
        and (entry.at_step, entry.from_step) == (190, 150)
    )
    assert (entry.ratio_after, entry.rise, entry.parent_rise) == (0.5, pytest.approx(1.3), 1.0)
    assert entry.reason == "the ratio fell to 0.50, then the sharpness rose 1.30 times (parent: 1.00)"
    assert entry.fork_last_ratio == 0.5 and entry.fork_onset_step is None
    row = {"run": "e/s0000", "fork": "e/s0000", "step": 200, "sharpness": 2.6, "threshold": 4.0}
    assert table[20] == {**row, "parent_sharpness": 2.0} and len(table) == 30
    for changed in ({"fell": 0.76}, {"rise": 1.24}, {"rise": 1.3, "parent": 1.05}):
        assert judge(**changed)[0].verdict == "not_confirmed", changed
    assert judge(fell=0.74, rise=1.25)[0].verdict == "confirmed"
    few, _ = judge(rows=9)
    assert few.verdict == "undecided" and few.reason == "9 rows after step 190, at least 10 are needed"
    assert few.confirmed is None
    # Sharpness itself has to be there.
    bare = run_of({"edge_ratio": 1.0}, steps=STEPS)
    told, rows = confirm.compare(*[lone(bare)] * 2, 190, EdgeKeys())
    assert told[0].reason.startswith("0 rows after step 190") and rows == []

    def words(*entries):
        return next(confirm.show_forks(confirm.Confirmation("", ("f",), entries), None)).text

    assert words(entry, few) == (
        "**Confirmed in 1 of 2 runs: at half the rate the sharpness rose 1.30 to 1.30 times; 1 undecided** (fork: f)."
    )
    assert words(few) == "**Confirmed in 0 of 1 run; 1 undecided** (fork: f)."


def test_adaptive_runs_are_looked_at_from_their_tenth_step_on():
    ratios = np.array([*[40.0] * 10, *RISE, *[1.01] * 40])
    steps = np.arange(5.0, 5 + len(ratios))
    assert edge_of(steps, ratios, EdgeKeys(), adaptive=True).onset == 75
    found = edge_of(steps, np.where(steps < 16, 0.2, 1.0), EdgeKeys(skip=10), adaptive=True)
    assert found.verdict == "never_sharpened" or found.rise == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("noise", "rows", "width"), [(0.01, 100, 1), (0.064, 100, 5), (0.08, 100, 7), (1.0, 40, 5), (1.0, 4, 1)]
)
def test_the_running_median_is_as_wide_as_its_standard_error_asks(noise, rows, width):
    values = np.random.default_rng(0).normal(size=rows)
    smoothed, found = smooth(values, noise)
    assert found == width
    half = width // 2
    assert smoothed.tolist() == [
        np.median(values[max(row - half, 0) : row + half + 1]) for row in range(rows)
    ]


def test_the_loss_before_and_after_the_arrival():
    steps, loss = np.arange(40.0), np.random.default_rng(0).normal(size=40)
    # Ten steps into the arrival are enough, nine are not; after it, none that leads out of the stay.
    found = loss_before_and_after(Series(steps, loss), [(10.0, 20.0)])
    ups = np.diff(loss) > 0
    assert found.loss_up_before == ups[:10].mean() and found.loss_up_after == ups[10:20].mean()
    assert found.loss_turns_before == (ups[1:10] != ups[:9]).mean()
    assert loss_before_and_after(Series(steps, loss), [(9.0, 20.0)]) is None
    assert loss_before_and_after(Series(steps, loss), [(10.0, 19.0)]) is None
    two = loss_before_and_after(Series(steps, loss), [(10.0, 15.0), (30.0, 35.0)])
    assert two.loss_up_after == ups[[*range(10, 15), *range(30, 35)]].mean()

    def corroborated(up_before, up_after):
        change = np.full(200, -1.0)
        change[:up_before] = change[100 : 100 + up_after] = 1.0
        loss = np.concatenate([[0.0], np.cumsum(change)])
        return loss_before_and_after(Series(np.arange(201.0), loss), [(100.0, 200.0)]).corroborated

    assert corroborated(1, 5) and not corroborated(2, 5) and not corroborated(1, 4)


def test_raw_sharpness_at_the_edge():
    steps, values = np.arange(0.0, 100, 10), np.array([9, 9, 1, 5, 2, 3, 7, 8, 1, 1.0])
    assert raw_sharpness(Series(steps, values), [(20.0, 70.0)]) == RawSharpness(2.0, 7.0, True)
    assert raw_sharpness(Series(steps, values), [(20.0, 60.0)]) is not None
    assert raw_sharpness(Series(steps, values), [(20.0, 50.0)]) is None
    assert raw_sharpness(Series(steps, np.where(steps == 30, 0, values)), [(20.0, 60.0)]) is None
    assert raw_sharpness(Series(steps, 10 - values), [(20.0, 70.0)]).rises is False


def test_rows_whose_eigenvalue_had_not_converged_are_left_out():
    sharp = np.array([10.0, 10.0, 10.0, 10.0, 0.5])
    columns = {
        "sharpness": sharp,
        "stability_threshold": 10.0,
        "sharpness_residual": sharp * [0.01, 0.011, 0.5, 0, 0.02],
    }
    found = ratios_of(run_of(columns, steps=np.arange(5.0)))
    # Of a ratio of .05 two percent are known to a thousandth.
    assert found.steps.tolist() == [0, 3, 4] and found.values.tolist() == [1, 1, 0.05] and found.dropped == 2
    flat = ratios_of(run_of({"edge_ratio": np.array([1.0, 0.0, -2.0, 5e-4, 2e-3])}, steps=np.arange(5.0)))
    assert flat.values.tolist() == [1.0, 1e-3, 1e-3, 1e-3, 2e-3] and not flat.adaptive
    findings = eos.analyse([lone(run_of(columns, steps=np.arange(5.0)))], EdgeKeys())
    few = "cannot be judged: 3 rows with a ratio, at least 10 are needed"
    lost = "e/s0000: 2 rows left out, whose eigenvalues had not converged"
    assert findings.warnings == (lost, f"e/s0000 {few}")
    # Of several runs it is said once.
    runs = tuple(replace(run_of(columns, steps=np.arange(5.0)), id=f"e/s{seed:04d}") for seed in range(3))
    findings = eos.analyse([Group("e", runs)], EdgeKeys())
    lost = "3 of 3 runs: 6 rows left out, whose eigenvalues had not converged"
    assert findings.warnings == (lost, f"3 of 3 runs {few}")


LR = {"name": "sgd", "lr": 0.1}
CLIPPED = "gradients were clipped, so that the threshold depends on them; it was not recorded"
RATES = "stability_threshold was not recorded, and the rates of schedule=mine are not known here"
NORM = "the threshold of sam depends on the gradient's norm, which was not recorded"


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("edge", {}, "sharpness was not recorded"),
        (
            "sharpness",
            {"optimizer": {"name": "adam"}},
            "sharpness was not recorded, and the optimizer is adaptive",
        ),
        ("sharpness", {}, "neither stability_threshold was recorded nor the optimizer is known"),
        ("sharpness", {"optimizer": {"name": "of_my_own"}}, "the threshold of of_my_own is not known"),
        ("sharpness", {"optimizer": LR, "train": {"clip": 1.0}}, CLIPPED),
        ("sharpness", {"optimizer": LR, "schedule": {"name": "mine"}}, RATES),
        ("sharpness", {"optimizer": {**LR, "name": "sam"}}, NORM),
    ],
)
def test_why_there_is_no_ratio(name, config, said):
    found = ratios_of(run_of({name: 1.0}, config))
    assert found.reason.endswith(said) and not len(found.steps) and not len(found.values)


def test_what_the_sharpness_was_measured_on():
    steps = np.arange(4.0)
    columns = {"sharpness": [1.0, -2, 4, np.nan], "sharpness_residual": [0.5, 0.5, np.nan, 1]}
    columns |= {"curvature_probe_size": [0, 0, 0, 64.0], "curvature_probe_training": [0, 0, 0, 1.0]}
    run = run_of({name: np.array(column) for name, column in columns.items()}, steps=steps)
    assert measured_on(run, False) == {
        "probe_size": 64,
        "probe_mode": "training",
        "residual_median": 0.375,
        "residual_max": 0.5,
    }
    assert set(measured_on(run_of({"other": 1.0}), False).values()) == {None}


def test_quartiles_over_runs_are_of_those_that_arrived():
    def run(k, verdict="at_edge"):
        onset, ratio = (100 * k, 1 + k / 10) if verdict == "at_edge" else (None, 0.1)
        return eos.RunFindings(
            run=f"e/s000{k}", verdict=verdict, onset_step=onset, median_ratio=ratio, reason="why"
        )

    runs = [run(1), run(2), run(3), run(4, "below_edge")]
    summary = summarise(runs)
    assert summary.verdicts == {"at_edge": 3, "below_edge": 1}
    # A run that never arrived counts as later than all others.
    assert summary.onset == (150, 250, 300) and summary.ratio == pytest.approx((1.1, 1.2, 1.3))
    assert summarise(runs[3:]).onset is None and summarise(runs[3:]).ratio is None
    lines = list(terminal.lines(eos.show(eos.Findings(tuple(runs), summary), ())))
    assert lines[0] == (
        "Edge of stability: of 4 runs, 3 at the edge of stability and 1 below the edge; arrival at step 250 (quartiles "
        "150 to 300), median ratio there 1.200."
    )
    dash = "\u2013"
    assert [line.split() for line in lines[3:]] == [
        *(
            [f"s000{k}", "at", "edge", f"{100 * k}", dash, f"{1 + k / 10:g}", dash, "0", "why"]
            for k in (1, 2, 3)
        ),
        ["s0004", "below", "edge", dash, dash, "0.1", dash, "0", "why"],
    ]
    many = eos.Findings(tuple(runs[:1] * 21), summary)
    assert list(terminal.lines(eos.show(many, ())))[-1] == "  and 1 more"


# Periods.


def test_a_jump_is_a_rise_within_the_window():
    steps, log = np.arange(0.0, 200, 5), np.zeros(40)

    def jumps(rise, rows):
        log[:] = np.concatenate([np.zeros(20), np.linspace(0, rise, rows + 1)[1:], np.full(20 - rows, rise)])
        return find_jumps(Series(steps, np.exp(log)), 0.1, 25.0)

    # Whole exactly one window ahead; not yet where it takes longer.
    assert jumps(0.11, 5) == [(19, 24)]
    assert jumps(0.11, 6) == [] and jumps(0.099, 1) == []
    # The window is a row at least.
    assert len(find_jumps(Series(40 * steps, np.exp(np.where(steps < 100, 0, 0.11))), 0.1, 25.0)) == 1
    two = np.exp(
        np.select([steps < 50, steps < 120], [-0.001 * steps, 0.2 - 0.001 * steps], 0.5 - 0.001 * steps)
    )
    found = find_jumps(Series(steps, two), 0.1, 25.0)
    assert found == [(9, 10), (23, 24)]
    # Of 65 steps between, those of the middle seven tenths; four rows at least.
    inside = steps[(steps >= 50 + 0.15 * 65) & (steps <= 115 - 0.15 * 65)]
    bent = np.exp(np.where(np.isin(steps, inside), -0.002 * steps, 0.3 * steps))
    assert slopes_between(Series(steps, bent), found, np.ones(40)) == pytest.approx([-0.002])
    assert slopes_between(Series(steps, bent), found, np.full(40, 0.002)) == pytest.approx([-1.0])
    norm, unit = Series(steps, two), np.ones(40)
    assert len(slopes_between(norm, [(0, 1), (5, 6)], unit)) == 0
    assert len(slopes_between(norm, [(0, 1), (6, 7)], unit)) == 1


SGD = {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}, "task": {"name": "digits"}}


def judged(columns, config=SGD, steps=STEPS, **keys):
    return judge(run_of(columns, config, steps, **keys), PeriodKeys())


def test_an_event_is_told_by_the_loss_around_it():
    steps = np.arange(0.0, 1000, 10)
    norm = np.exp(np.where(steps < 500, 0.0, 0.3) - 1e-3 * steps)

    def event(before, during, **keys):
        loss = np.full(100, 5.0)
        loss[(steps >= 290) & (steps <= 470)] = before
        loss[(steps >= 480) & (steps <= 520)] = during
        found = judged({"scale_invariant_norm": norm, "train_loss": loss}, steps=steps, **keys).events
        return found[0] if found else None

    found = event(0.2, 3.0)
    assert (found.onset_step, found.end_step, found.norm_rise) == (490, 500, pytest.approx(0.29))
    assert found.loss_rise_decades == pytest.approx(np.log10(15), abs=1e-3)
    assert found.effective_rate == pytest.approx(0.1 / norm[49] ** 2)
    # A decade, no less.
    assert event(0.2, 2.01) and event(0.2, 1.99) is None
    assert judged({"scale_invariant_norm": norm}, steps=steps).events[0].loss_rise_decades is None
    one = judged({"scale_invariant_norm": norm}, steps=steps)
    assert one.verdict == "single_event" and one.period_steps is None
    assert one.reason == "one event: a period needs two"
    assert judged({"scale_invariant_norm": norm}, {}, steps).events[0].effective_rate is None
    # A jump of the rate within the window is no event.
    for at, count in ((464, 1), (465, 0), (515, 0), (516, 1)):
        config = {**SGD, "schedule": {"name": "step", "milestones": [at]}}
        assert len(judged({"scale_invariant_norm": norm}, config, steps).events) == count, at


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.91, "periodic"), (1.09, "periodic"), (0.89, "unknown"), (1.11, "unknown")]
)
def test_a_period_falls_by_rate_times_decay(ratio, verdict):
    norm = np.exp(0.9 * (STEPS // 500) - ratio * 1e-3 * STEPS)
    run = judged({"scale_invariant_norm": norm})
    assert run.verdict == verdict and run.slope_ratio == pytest.approx(ratio)
    assert run.period_steps == 500 and run.period_cv == pytest.approx(0)
    assert run.reason == f"between events the log norm falls by {ratio:.2f} times rate times weight decay"


def at_rest(ratio=1.0, tilt=0.0, length=200, gradient=5.0, config=SGD):
    # eta / rho^2 = sqrt(2 eta w) / g, times the ratio; the decay is 1e-3 a step.
    steps = np.linspace(0, 30 * length, length, dtype=int).astype(float)
    rho = np.sqrt(0.1 * 5.0 / (ratio * np.sqrt(2 * 0.1 * 0.01)))
    norm = rho * np.exp(tilt * (steps - steps[-1])) * (1 + 0.002 * (np.arange(length) % 2))
    return judged({"scale_invariant_norm": norm, "effective_gradient_norm": gradient}, config, steps)


def test_a_norm_is_at_rest_where_decay_and_growth_balance():
    assert at_rest().verdict == "equilibrium"
    assert at_rest().reason.endswith("where decay and growth balance 0.00894")
    for ratio, verdict in (
        (1.95, "equilibrium"),
        (2.05, "no_period"),
        (0.52, "equilibrium"),
        (0.49, "no_period"),
    ):
        assert at_rest(ratio).verdict == verdict, ratio
    assert at_rest(3.0).reason == "no events"
    # Rest: a tenth of the slope of decay; over twice three times its time.
    assert at_rest(tilt=0.9e-4).verdict == "equilibrium" and at_rest(tilt=1.2e-4).verdict == "no_period"
    assert at_rest(length=201).verdict == "equilibrium"
    assert at_rest(length=199).reason == "no events; too short to settle, which takes some 6,000 steps"
    # By the rate of the end.
    tenth = {"schedule": {"name": "step", "milestones": [100], "gamma": 0.1}}
    tenth |= {"optimizer": {**SGD["optimizer"], "lr": 1.0}}
    assert at_rest(length=199, config=tenth).reason.endswith("which takes some 6,000 steps")
    assert at_rest(config={"optimizer": {**SGD["optimizer"], "name": "adamw"}}).verdict == "no_period"
    free = {"optimizer": {"name": "sgd", "lr": 0.1}}
    assert at_rest(tilt=1e-4, config=free).reason == "no events, and no weight decay that would make them"
    other = {"optimizer": {**SGD["optimizer"], "name": "adam"}}
    assert at_rest(tilt=1e-4, config=other).reason.startswith("no events; the learning rate is not known")


def test_a_fixed_norm_is_one_that_moves_by_less_than_a_thousandth():
    columns = {"effective_gradient_norm": 1.0, "batch_loss": np.linspace(2, 1, 200)}
    free = {**SGD, "optimizer": {"name": "sgd", "lr": 0.1}}

    def verdict(move, config=free, **keys):
        return judged(
            {"scale_invariant_norm": np.where(STEPS < 1000, 1, 1 + move), **columns}, config, **keys
        )

    assert verdict(0.9e-3).verdict == "fixed_norm" and verdict(1.1e-3).verdict == "no_period"
    assert verdict(0.0).effective_rate == pytest.approx(0.1) and verdict(0.0).regime == "convergence"
    assert verdict(0.0, status="diverged").regime == "divergence"
    assert verdict(0.0, {}).verdict == "unknown"
    assert judged({"scale_invariant_norm": np.ones(19)}, steps=STEPS[:19]).verdict == "insufficient_data"
    assert judged({"scale_invariant_norm": np.ones(20)}, free, STEPS[:20]).verdict != "insufficient_data"


NOISE = 1 + 0.01 * np.random.default_rng(3).normal(size=400)


@pytest.mark.parametrize(
    ("ratio", "level", "angle", "classes", "regime"),
    [
        (0.89, 1.0, 0.1, 10, "convergence"),
        (0.92, 1.0, 0.1, 10, "transition"),
        (0.97, 1.0, 0.1, 10, "chaotic_equilibrium"),
        (1.0, 1.0, 0.031, 10, "chaotic_equilibrium"),
        (1.0, 1.0, 0.029, 10, "transition"),
        (1.0, 1.0, 0.99, 10, "chaotic_equilibrium"),
        (1.0, 1.0, 1.01, 10, "divergence"),
        # Nine tenths of ln 10 = 2.0723.
        (1.0, 2.06, 0.1, 10, "chaotic_equilibrium"),
        (1.0, 2.08, 0.1, 10, "divergence"),
        (1.0, 2.08, 0.1, None, "chaotic_equilibrium"),
    ],
)
def test_regimes_and_their_bounds(ratio, level, angle, classes, regime):
    loss = NOISE / np.median(NOISE[100:200])
    loss[300:] *= ratio / np.median(loss[300:])
    loss[200:300] *= ratio
    found, said = regime_of(level * loss, angle, classes, np.ones(1))
    assert found == regime
    middle, final = (float(np.median(level * part)) for part in (loss[100:200], loss[300:]))
    assert (
        said
        == f"loss {middle:.3g} to {final:.3g} from the second quarter to the last, {angle:.2g} rad a step"
    )


def test_a_spread_that_grows_is_no_equilibrium_and_a_small_loss_whose_gradient_falls_converges():
    grows = 1 + (NOISE - 1) * np.where(np.arange(400) < 300, 1, 5)
    grows[300:] *= np.median(grows[100:200]) / np.median(grows[300:])
    assert regime_of(grows, 0.1, 10, np.ones(1))[0] == "transition"
    falls, rises = np.linspace(2, 1, 40), np.linspace(1, 2, 40)
    assert regime_of(0.009 * NOISE, 0.1, 10, falls)[0] == "convergence"
    assert regime_of(0.009 * NOISE, 0.1, 10, rises)[0] == "chaotic_equilibrium"
    assert regime_of(0.012 * NOISE, 0.1, 10, falls)[0] == "chaotic_equilibrium"
    assert regime_of(0.009 * NOISE, 0.1, 10, falls[::6])[0] == "chaotic_equilibrium"
    assert regime_of(0.009 * NOISE, 0.1, 10, falls[::5])[0] == "convergence"


def test_periods_in_a_few_lines():
    events = (Event(1000, 1100, 0.3), Event(2500, 2600, 0.3))
    run = RunFindings("e/s0001", "periodic", "why", events, 1500.0, 0.25)
    runs = (
        run,
        replace(run, regime="divergence", verdict="fixed_norm"),
        replace(run, events=(), period_steps=None),
    )
    head, *rows = list(terminal.lines(show_periods(Periods(runs), ())))
    assert (
        head
        == "Periods and regimes: periodic in 2 and divergence in 1 of 3 runs; events some 1,500 steps apart."
    )
    assert [row.split() for row in rows[1:]] == [
        ["s0001", "periodic", "\u2013", "2", "1,500", "0.25", "why"],
        ["s0001", "fixed", "norm", "divergence", "2", "1,500", "0.25", "why"],
        ["s0001", "periodic", "\u2013", "0", "\u2013", "0.25", "why"],
    ]


# Components of variance.


def crossed(times, last=2000):
    """Runs of a crossed design that reach their level at the given steps; NaN: never."""
    steps = np.arange(0, last + 1, 10)
    runs = {
        f"init{i}-order{j}": {"test_accuracy": np.where(steps >= np.nan_to_num(at, nan=np.inf), 0.95, 0.1)}
        for (i, j), at in np.ndenumerate(times)
    }
    return replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))


def test_half_of_the_runs_converged_is_enough():
    times = np.array([[100.0, 200, np.nan], [np.nan, 300, np.nan]])
    found = variance.analyse([crossed(times)], variance.Config(draws=100))
    assert "3 of 6 runs never converged" in found.warnings[1]
    times[0, 0] = np.nan
    begin = "variance: 2 of 6 runs of the design converged (test accuracy at least 0.9 for 1 row); half of them must ("
    with pytest.raises(
        NothingMatched, match=f"^{re.escape(begin)}train longer, or lower convergence.threshold\\)$"
    ):
        variance.analyse([crossed(times)], variance.Config(draws=100))


def test_where_persistence_stands_in_the_way_it_is_named():
    late = replace(crossed(np.full((2, 3), 2000.0)), convergence=Convergence("test_accuracy", 0.9, "up", 99))
    said = "0 of 6 .* at least 0.9 for 99 rows.* must .convergence.persistence=1 lets 6 count; or train"
    with pytest.raises(NothingMatched, match=said):
        variance.analyse([late], variance.Config(draws=100))


def test_shares_are_of_what_is_above_0():
    # 2 x 3: squares by hand. Main effects of rows (3, -3) and columns (0, 6, -6), and +-1 between.
    values = 100 + np.array([[3.0], [-3]]) + np.array([0.0, 6, -6]) + np.array([[1.0, -1, 0], [-1, 1, 0]])
    found = components.strata(values)
    assert found.squares[1:] == pytest.approx([6 * 9 / 1, 2 * 72 / 2, 4 / 2]) and found.freedom.tolist() == [
        0,
        1,
        2,
        2,
    ]
    solved = components.solve((2, 3), np.nan_to_num(found.squares))
    assert solved[1:] == pytest.approx([(54 - 2) / 3, (72 - 2) / 2, 2])
    result = variance.analyse([crossed(10 * values)], variance.Config())
    total = 52 / 3 + 35 + 2
    assert [row.share for row in result.shares] == pytest.approx(np.array([52 / 3, 35, 2]) / total)
    assert result.sd == pytest.approx(10 * np.sqrt(total))
    assert [row.sd for row in result.shares] == pytest.approx(10 * np.sqrt([52 / 3, 35, 2]))
    assert result.interactions == (variance.Interaction(("init", "order"), pytest.approx(2 / total), False),)
    table = variance.analyse([crossed(10 * values)], variance.Config()).table
    assert table["init"].tolist() == [0, 0, 0, 1, 1, 1] and table["order"].tolist() == [0, 1, 2, 0, 1, 2]
    assert table["step"].tolist() == (10 * values).ravel().tolist()
    assert not any(row.negative for row in result.shares) and result.mean_step == pytest.approx(1000)
    # Columns that differ by less than the rest says are estimated below 0: no share, and it is said.
    less = 100 + np.array([[3.0], [-3]]) + np.array([[1.0, -1, 0], [-1, 1, 0]])
    outcome = variance.analyse([crossed(10 * less)], variance.Config())
    assert [row.share for row in outcome.shares] == pytest.approx(np.array([52 / 3, 0, 2]) / (52 / 3 + 2))
    assert [row.negative for row in outcome.shares] == [False, True, False]
    assert "estimated below 0 and set to 0: order" in outcome.warnings
    assert "fewer than 4 seeds of init, order: the share is hardly known" in outcome.warnings


def test_what_a_reader_of_shares_must_know_is_said():
    def warnings(times, left_out=0):
        group = crossed(np.asarray(times, float))
        group = replace(group, runs=group.runs[left_out:])
        return variance.analyse([group], variance.Config(draws=100)).warnings

    rest = "residual holds the interactions of the crossed streams and whatever else differs between runs"
    rows = np.repeat([[300.0], [400], [500], [600]], 4, axis=1)
    assert warnings(rows) == (rest, "order has no effect: runs that differ only in it are equal in every row")
    flat = warnings(np.full((4, 4), 300.0))
    assert flat[1] == "all runs converge at the same step: there is no spread to split" and len(flat) == 4
    apart = 10.0 * np.round(np.random.default_rng(0).normal(50, 10, size=(4, 5)))
    cells = "init0-order0, init0-order1, init0-order2"
    said = "cells of the design without a run, drawn from the normal model: "
    assert said + cells in warnings(apart, 3) and f"{said}{cells} and 1 more" in warnings(apart, 4)
    apart[3, 4] = np.nan
    censored = "1 of 20 runs never converged: their steps are drawn, above the last one watched, from the normal model"
    assert warnings(apart)[1] == censored


def test_lambdas_are_scaled_inverse_chi_squared():
    found = components.strata(np.random.default_rng(0).normal(size=(4, 6)))
    drawn = components.draw(found, 4000, np.random.default_rng(1))
    assert (drawn[:, 0] == 0).all()
    for mask in (1, 2, 3):
        freedom = found.freedom[mask]
        law = stats.invgamma(freedom / 2, scale=freedom * found.squares[mask] / 2)
        assert stats.kstest(drawn[:, mask], law.cdf).pvalue > 0.01


def test_intervals_hold_their_estimate_and_are_of_the_draws():
    times = 10 * np.round(50 + 10 * np.random.default_rng(0).normal(size=(4, 4)))
    result = variance.analyse([crossed(times)], variance.Config(draws=2000, seed=3))
    found = components.strata(times)
    drawn = components.solve((4, 4), components.draw(found, 2000, np.random.default_rng(3)))
    shares = components.shares(drawn, 2)
    for place, row in enumerate(result.shares):
        low, high = np.quantile(shares[:, place], [0.025, 0.975])
        low, high = min(low, row.share), max(high, row.share)
        # A stream's reaches up as far as where it decides something, which leaves the rest as little.
        ends = row.interval if place < 2 else row.interval[::-1]
        kept, moved = (low, high) if place < 2 else (high, low)
        if place == 2:
            # All may be the residual's: neither stream is above 0 in 98.75% of the draws.
            assert ((drawn[:, [1, 2]] <= 0).mean(axis=0) > 0.0125).all()
            kept = 1.0
        assert ends[0] == pytest.approx(kept)
        assert ends[1] >= moved - 1e-9 if place < 2 else ends[1] <= moved + 1e-9


def test_seeds_whose_means_are_equal_do_not_decide_nothing_for_sure():
    times = np.array([[100.0, 200, 300, 400], [200, 100, 400, 300]])
    (equal, *_), (nearly, *_) = (
        variance.analyse([crossed(times + np.array([[0.0], [more]]))], variance.Config(draws=2000)).shares
        for more in (0, 1e-3)
    )
    assert equal.share == 0 and equal.interval[0] == 0
    assert equal.interval[1] == pytest.approx(nearly.interval[1], abs=0.03) and nearly.interval[1] > 0.9


def test_an_unknown_value_is_drawn_given_the_others():
    # Without a bound, of many rounds: near its expectation from rows and columns.
    values = np.add.outer([0.0, 10, 20, 30], [0.0, 1, 2, 3]) + 0.01 * np.random.default_rng(0).normal(
        size=(4, 4)
    )
    values[1, 2] = np.nan
    drawn = impute.augment(values, np.full((4, 4), -np.inf), 200, np.random.default_rng(0))
    assert drawn.lambdas.shape == drawn.estimates.shape == (200, 4) and drawn.means.shape == (200,)
    expected = (np.nansum(values) + 12) / 16
    assert drawn.means.mean() == pytest.approx(expected, abs=0.01)
    bounds = np.full((4, 4), -np.inf)
    bounds[1, 2] = 13.0
    above = impute.augment(values, bounds, 100, np.random.default_rng(0))
    assert (above.means >= (np.nansum(values) + 13) / 16 - 1e-9).all()


def test_variance_in_a_few_lines():
    shares = (
        variance.Share("init", 0.256, (0.1, 0.5), None, False),
        variance.Share("order", None, (None, None), None, False),
    )
    findings = replace(
        variance.analyse([crossed(np.arange(6.0).reshape(2, 3))], variance.Config()), shares=shares
    )
    lines = list(terminal.lines(variance.show(findings, ())))
    assert lines[0] == (
        "Variance of the convergence step over 6 runs: init 26% [10% to 50%]; init has the largest share."
    )
    assert lines[1].startswith(
        "6 runs: 2 seeds of init and 3 seeds of order, crossed. Convergence (test accuracy at "
    )
    assert lines[2] == "Shares of the variance" and [line.split() for line in lines[4:6]] == [
        ["init", "25.6%", "10%", "to", "50%", "\u2013"],
        ["order", "\u2013", "\u2013", "\u2013"],
    ]


# Keys, and what is said of columns that are not there.


def test_defaults_and_bounds_of_the_keys():
    def plain(config):
        return {key: value for key, value in vars(config).items() if key != "convergence"}

    assert plain(EdgeKeys()) == {
        "low": 0.9,
        "high": 1.25,
        "leave": 0.8,
        "rise": 1.25,
        "skip": 10,
        "steps": None,
    }
    assert plain(PeriodKeys()) == {"jump": 0.1, "window": 25, "tolerance": 0.1, "steps": None}
    assert plain(SpikeKeys()) == {
        "window": 200,
        "rise": 2.0,
        "zero_fraction": 0.05,
        "eps": 1e-6,
        "imbalance": 1e-3,
        "steps": None,
    }
    assert plain(variance.Config()) == {"log_time": False, "steps": None, "draws": 4000, "seed": 0}
    bounds = [
        (EdgeKeys, "low", [1.0, 1e-9], [0.0, 1.01], "a number above 0 and at most 1"),
        (EdgeKeys, "high", [1.01], [1.0], "a number above 1"),
        (EdgeKeys, "leave", [0.01, 0.99], [0.0, 1.0], "a number above 0 and below 1"),
        (EdgeKeys, "rise", [1.0], [0.99], "a number of at least 1"),
        (EdgeKeys, "skip", [0], [-1], "an integer of at least 0"),
        (PeriodKeys, "jump", [1e-9], [0.0, np.inf], "a number above 0"),
        (PeriodKeys, "window", [1], [0], "an integer of at least 1"),
        (PeriodKeys, "tolerance", [0.01, 0.99], [0.0, 1.0], "a number above 0 and below 1"),
        (SpikeKeys, "window", [1], [0], "an integer of at least 1"),
        (SpikeKeys, "rise", [1e-9], [0.0, np.inf], "a number above 0"),
        (SpikeKeys, "zero_fraction", [0.0, 1.0], [-0.01, 1.01], "a number from 0 to 1"),
        (SpikeKeys, "eps", [0.0], [-1e-9], "a number of at least 0"),
        (SpikeKeys, "imbalance", [1e-9, 1.0], [0.0, 1.01], "a number above 0 and at most 1"),
        (variance.Config, "draws", [100], [99], "an integer of at least 100"),
        (variance.Config, "seed", [0], [-1], "an integer of at least 0"),
        (variance.Config, "steps", [0], [-1], "an integer of at least 0"),
        *(
            (keys, "steps", [0], [-1], "an integer of at least 0")
            for keys in (EdgeKeys, PeriodKeys, SpikeKeys)
        ),
    ]
    for keys, name, legal, wrong, said in bounds:
        for value in legal:
            keys(**{name: value})
        for value in wrong:
            with pytest.raises(ConfigError) as caught:
                keys(**{name: value})
            assert str(caught.value).startswith(f"{name}={value}: ") and said in str(caught.value), (
                name,
                value,
            )


@pytest.mark.parametrize(
    ("kind", "columns", "missing", "words", "needed"),
    [
        (
            *("eos", ("a",), "sharpness or preconditioned_sharpness or edge_ratio"),
            *(
                "'probes=[weights,gradients,curvature]'",
                "sharpness and stability_threshold (or edge_ratio alone)",
            ),
        ),
        (
            *("periods", ("a",), "scale_invariant_norm"),
            *("model=si_mlp 'probes=[gradients,scale_invariant]'", "scale_invariant_norm"),
        ),
        (
            *("slingshot", ("a",), "train_loss and last_layer_norm"),
            *("'probes=[gradients,numerics]'", "train_loss and last_layer_norm"),
        ),
        (
            *("slingshot", ("train_loss",), "last_layer_norm"),
            *("'probes=[gradients,numerics]'", "last_layer_norm"),
        ),
    ],
)
def test_what_is_not_recorded_is_named_with_the_command_that_records_it(
    kind, columns, missing, words, needed
):
    part = find("analysis", kind)
    group = Group.of({"s0000": {name: np.ones(3) for name in columns}}, np.arange(3))
    with pytest.raises(NothingMatched) as caught:
        findings_of([group], part, part.module.Config())
    said = f"e: no {missing} recorded, which analyze {kind} needs: dynalab train ... {words}"
    assert str(caught.value) == said
    with pytest.raises(NothingMatched) as caught:
        findings_of([replace(group, imported=True)], part, part.module.Config())
    said = f"dynalab import a table with columns named {needed} (a constant one: --const NAME=NUMBER)"
    assert str(caught.value).endswith(f"which analyze {kind} needs: {said}")
