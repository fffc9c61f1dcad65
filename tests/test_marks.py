"""What is drawn of runs is what was handed over: every mark against its data, nothing rendered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from marks import (
    BLUE,
    FIGURES,
    GREEN,
    ORANGE,
    PINK,
    STEPS,
    band,
    levels,
    lines,
    noisy,
    note_of,
    texts,
    ticks,
    title,
    upright,
    xy,
)
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from dynalab.show.plots.style import CYCLE, MUTED

# Curves


@pytest.mark.parametrize("n_runs", [1, 2])
def test_few_runs_are_drawn_as_they_are(n_runs: int) -> None:
    values = noisy(n_runs)
    (ax,) = FIGURES.curves(STEPS, {"test": values}).axes
    assert [xy(line) for line in ax.lines] == [[STEPS.tolist(), row.tolist()] for row in values]
    assert {line.get_alpha() for line in ax.lines} == {1.0} and not ax.collections
    assert {line.get_color() for line in ax.lines} == {ORANGE}


def test_more_runs_are_median_band_and_thin_lines() -> None:
    values = noisy(5)
    values[0, 8:], values[:, 9] = np.nan, np.nan
    (ax,) = FIGURES.curves(STEPS, {"train": values}).axes
    *thin, middle = ax.lines
    for line, row in zip(thin, values, strict=True):
        some = np.isfinite(row)
        assert xy(line) == [STEPS[some].tolist(), row[some].tolist()]
        assert line.get_color() == BLUE and line.get_linewidth() < middle.get_linewidth()
    some = STEPS < 90
    low, half, high = np.nanquantile(
        values[:, some], [0.25, 0.5, 0.75], axis=0, method="averaged_inverted_cdf"
    )
    np.testing.assert_allclose(xy(middle), [STEPS[some], half])
    x, below, above = band(ax)
    assert x == STEPS[some].tolist()
    np.testing.assert_allclose([below, above], [low, high])


def test_a_cross_where_a_run_diverged_and_a_dot_for_a_lone_row() -> None:
    values = noisy(4)
    values[1, 4:], values[2, 1:], values[3] = np.nan, np.nan, np.nan
    ended = np.array([np.nan, 40.0, np.nan, 10.0])
    (ax,) = FIGURES.curves(STEPS, {"a": values}, diverged=ended).axes
    assert [xy(line) for line in lines(ax, marker="x")] == [[[30.0], [values[1, 3]]]]
    assert [xy(line) for line in lines(ax, marker="o")] == [[[0.0], [values[2, 0]]]]


@pytest.mark.parametrize(("n_runs", "said"), [(60, ""), (61, "60 of 61 runs"), (1100, "60 of 1,100 runs")])
def test_how_many_single_runs_are_drawn_is_said(n_runs: int, said: str) -> None:
    figure = FIGURES.curves(STEPS[:3], {"a": noisy(n_runs, 3)})
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert len(thin) == min(n_runs, 60) and note_of(figure).startswith(said)
    assert bool(note_of(figure)) == bool(said)


def test_diverged_runs_are_among_the_thin_lines() -> None:
    ended = np.full(200, np.nan)
    ended[[5, 77, 131]] = 20.0
    values = noisy(200, 3)
    figure = FIGURES.curves(STEPS[:3], {"a": values}, diverged=ended)
    crosses = [xy(line) for line in lines(figure.axes[0], marker="x")]
    assert crosses == [[[20.0], [values[row, 2]]] for row in (5, 77, 131)]
    drawn = sum(line.get_linewidth() < 1 and line.get_marker() != "x" for line in figure.axes[0].lines)
    assert note_of(figure).startswith(f"{drawn} of 200 runs") and 60 < drawn <= 63
    # At most twenty of them are added.
    ended[:] = 20.0
    figure = FIGURES.curves(STEPS[:3], {"a": values}, diverged=ended)
    drawn = sum(line.get_linewidth() < 1 and line.get_marker() != "x" for line in figure.axes[0].lines)
    assert 60 <= drawn <= 80


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 30], "log"), ([1, 29.9], "linear"), ([0, 1, 30], "log"), ([-1, 1, 900], "linear"), ([0, 0], "linear"),
     ([1e-200, 1e200], "log"), ([np.nan, np.nan], "linear")],
)  # fmt: skip
def test_a_logarithmic_axis_where_values_span_it(values: Sequence[float], scale: str) -> None:
    steps = np.arange(len(values)) * 10
    for wanted in (True, False):
        (ax,) = FIGURES.curves(steps, {"a": np.array([values], float)}, logarithmic=wanted).axes
        assert ax.get_yscale() == (scale if wanted else "linear")
    panel = FIGURES.metric_panels({"a": steps}, {"a": np.array([values], float)}).axes[0]
    assert panel.get_yscale() == scale


def test_what_a_logarithmic_axis_cannot_show_is_left_out_and_counted() -> None:
    values = np.array([[100.0, 0.0, 1.0], [100.0, 0.0, 0.0], [90.0, 2.0, 1.0]])
    figure = FIGURES.curves(STEPS[:3], {"train": values, "test": values + 1}, logarithmic=True)
    assert note_of(figure) == "train: 3 values of exactly 0 cannot be shown on a logarithmic axis"
    drawn = [xy(line) for line in lines(figure.axes[0], color=BLUE)]
    assert drawn[:3] == [[[0, 20], [100, 1]], [[0], [100]], [[0, 10, 20], [90, 2, 1]]]


def test_labels_stand_at_the_ends_and_apart() -> None:
    values = np.linspace(0, 1, 10)
    (ax,) = FIGURES.curves(STEPS, {"a": values[None], "b": values[None] / 2, "c": values[None] / 2}).axes
    low, high = ax.get_ylim()
    found = {name: item.get_position() for name, item in texts(ax).items()}
    assert {x for x, _ in found.values()} == {1.015}
    assert found["a"][1] == pytest.approx((1 - low) / (high - low))
    middle = (0.5 - low) / (high - low)
    assert (found["b"][1] + found["c"][1]) / 2 == pytest.approx(middle)
    apart = ax.get_window_extent().height * (found["c"][1] - found["b"][1])
    height = texts(ax)["b"].get_window_extent().height
    assert height < apart < 1.3 * height
    assert [item_.get_color() for item_ in texts(ax).values()] == list(CYCLE[:3])
    # One line needs no label.
    assert not FIGURES.curves(STEPS, {"a": values[None]}).axes[0].texts


def test_the_label_of_a_median_stands_at_its_end() -> None:
    values = noisy(7)
    (ax,) = FIGURES.curves(STEPS, {"a": values, "b": values + 3}).axes
    low, high = ax.get_ylim()
    at = (np.median(values[:, -1]) - low) / (high - low)
    assert texts(ax)["a"].get_position()[1] == pytest.approx(at)


def test_marked_steps_are_lines_with_labels_above() -> None:
    figure = FIGURES.curves(
        STEPS, {"a": noisy(1)}, title="loss",
        marked={"late": 88.0, "never": None, "second": 50.0, "first": 45.0, "early": 2.0, "inf": np.inf},
    )  # fmt: skip
    (ax,) = figure.axes
    assert sorted(upright(ax, MUTED)) == [2.0, 45.0, 50.0, 88.0]
    end = ax.get_xlim()[1]
    found = texts(ax)
    assert list(found) == ["early", "first", "second", "late"]
    assert [item.xy for item in found.values()] == [(x / end, 1.0) for x in (2.0, 45.0, 50.0, 88.0)]
    # Labels that would meet stand in rows of their own, under the title.
    assert [item.xyann[1] for item in found.values()] == [2, 2, 11, 2]
    assert [item.get_ha() for item in found.values()] == ["left", "center", "center", "center"]
    assert title(ax) == "loss" and ax.titleOffsetTrans.get_matrix()[1, 2] > 0


def test_training_curves_are_loss_and_accuracy() -> None:
    loss, accuracy = 10.0 ** -noisy(3, seed=1) * np.geomspace(1, 1e-3, 10), noisy(3, seed=2) / 2
    left, right = FIGURES.training_curves(STEPS, {"train": loss, "test": 2 * loss}, {"test": accuracy}).axes
    assert (title(left), left.get_yscale()) == ("loss", "log")
    assert (title(right), right.get_yscale()) == ("accuracy", "linear")
    np.testing.assert_allclose(xy(lines(left, color=BLUE)[-1])[1], np.median(loss, 0))
    np.testing.assert_allclose(xy(lines(left, color=ORANGE)[-1])[1], np.median(2 * loss, 0))
    np.testing.assert_allclose(xy(lines(right, color=ORANGE)[-1])[1], np.median(accuracy, 0))
    (only,) = FIGURES.training_curves(STEPS, {}, {"test": accuracy}).axes
    assert title(only) == "accuracy"


def test_long_curves_keep_their_ends_and_spikes() -> None:
    steps, values = np.arange(5000), np.zeros((1, 5000))
    values[0, 1234], values[0, 4321], values[0, 2222] = 5.0, -3.0, np.nan
    (line,) = FIGURES.curves(steps, {"a": values}).axes[0].lines
    x, y = np.asarray(line.get_data())
    assert len(x) <= 2002 and x[0] == 0 and x[-1] == 4999
    assert y[x == 1234] == 5.0 and y[x == 4321] == -3.0 and not (x == 2222).any()


# Panels


def test_panels_have_their_metrics_colours_and_notes() -> None:
    names = ["l", "m", "n", "o", "p"]
    metrics = {name: noisy(31, seed=place) for place, name in enumerate(names)}
    metrics["n"] = metrics["n"] * np.geomspace(1, 1e4, 10)
    metrics["o"] = np.full_like(metrics["o"], np.nan)
    groups = {"l": "loss", "m": "loss", "n": "norms", "o": "norms"}
    figure = FIGURES.metric_panels(dict.fromkeys(names, STEPS), metrics, groups=groups)
    assert [title(ax) for ax in figure.axes] == names
    colours = [BLUE, BLUE, ORANGE, ORANGE, GREEN]
    assert [ax._left_title.get_color() for ax in figure.axes] == colours
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "linear", "log", "linear", "linear"]
    for ax, name, colour in zip(figure.axes, names, colours, strict=True):
        if name == "o":
            assert list(texts(ax)) == ["no values"] and not ax.lines
            continue
        assert len(ax.lines) == 31 and {line.get_color() for line in ax.lines} == {colour}
        np.testing.assert_allclose(xy(ax.lines[-1])[1], np.median(metrics[name], axis=0))
    # Four in a row: those without one below say what x is.
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "step", "step", "step", "step"]
    rows = [round(ax.get_position().y0, 3) for ax in figure.axes]
    assert rows[0] == rows[3] > rows[4]
    assert note_of(figure).startswith("30 of 31 runs")
    words = {item.get_text(): item.get_color() for item in figure.texts}
    assert {name: words[name] for name in ("loss", "norms", "other")} == {
        "loss": BLUE, "norms": ORANGE, "other": GREEN,
    }  # fmt: skip
    places = [
        item.get_position()[0] for item in figure.texts if item.get_text() in ("loss", "norms", "other")
    ]
    assert places == sorted(places) and places[0] == pytest.approx(0.47 / 7.6)


def test_panels_of_one_group_need_no_legend_and_thirty_runs_no_note() -> None:
    figure = FIGURES.metric_panels({"a": STEPS}, {"a": noisy(30)}, groups={"a": "loss"})
    assert not figure.texts and note_of(figure) == ""
    assert len(figure.axes[0].lines) == 31


# Ensembles


def test_a_comparison_draws_medians_bands_and_labels() -> None:
    one, two = noisy(4), noisy(2, seed=1) + 3
    (ax,) = FIGURES.comparison({"a": (STEPS, one), "b": (STEPS, two)}, metric="test_loss").axes
    assert title(ax) == "test loss"
    for line, values, colour in zip(ax.lines, (one, two), (BLUE, ORANGE), strict=True):
        assert line.get_color() == colour
        np.testing.assert_allclose(xy(line), [STEPS, np.median(values, axis=0)])
    # Two runs have no quartiles.
    assert len(ax.collections) == 1
    np.testing.assert_allclose(
        band(ax)[1:], np.quantile(one, [0.25, 0.75], axis=0, method="averaged_inverted_cdf")
    )
    low, high = ax.get_ylim()
    for name, values in (("a", one), ("b", two)):
        assert texts(ax)[name].get_position()[1] == pytest.approx(
            (np.median(values[:, -1]) - low) / (high - low)
        )


@pytest.mark.parametrize(("n", "bands", "labels"), [(6, 6, 6), (7, 0, 7), (30, 0, 30), (31, 0, 0)])
def test_a_comparison_of_many_says_less_of_each(n: int, bands: int, labels: int) -> None:
    found = FIGURES.comparison({f"e{i}": (STEPS, noisy(3, seed=i) + i) for i in range(n)})
    (ax,) = found.axes
    assert (len(ax.lines), len(ax.collections), len(ax.texts)) == (n, bands, labels)
    assert note_of(found).startswith("31 ensembles" if n == 31 else "")
    colours = [to_hex(line.get_color()) for line in ax.lines]
    assert len(set(colours)) == n and [to_hex(item.get_color()) for item in ax.texts] == colours[:labels]


def test_a_comparison_on_a_logarithmic_axis_leaves_zeros_out() -> None:
    values = np.array([[100.0, 1.0, 0.0]] * 3)
    (ax,) = FIGURES.comparison({"a": (STEPS[:3], values)}, logarithmic=True).axes
    drawn = np.array(xy(ax.lines[0]))
    assert ax.get_yscale() == "log" and drawn[:, np.isfinite(drawn[1])].tolist() == [[0, 10], [100, 1]]
    assert FIGURES.comparison({"a": (STEPS[:3], values)}).axes[0].get_yscale() == "linear"


# Landmarks


def row_of(ax: Axes, place: int = 0) -> np.ndarray:
    return np.asarray(ax.collections[place].get_offsets())


def test_a_dot_a_run_that_got_there() -> None:
    rows = {"memorised": np.array([30.0, 10.0, 20.0]), "generalised": np.array([90.0, np.nan, 95.0])}
    figure = FIGURES.landmark_steps(rows, last=100)
    (ax,) = figure.axes
    assert row_of(ax, 0)[:, 0].tolist() == [10, 20, 30] and row_of(ax, 1)[:, 0].tolist() == [90, 95]
    assert set(row_of(ax, 0)[:, 1]) == {0.0} and set(row_of(ax, 1)[:, 1]) == {1.0}
    assert ticks(ax.yaxis) == {"memorised": 0.0, "generalised": 1.0}
    assert [to_hex(ax.collections[place].get_facecolor()[0]) for place in (0, 1)] == [
        BLUE.lower(),
        ORANGE.lower(),
    ]
    assert list(texts(ax)) == ["3 of 3", "2 of 3\nnot by 100: 1"]
    assert [item.get_position()[1] for item in ax.texts] == [0, 1]
    # An arrow beyond the axis for what never came; three runs have no quartiles.
    assert [xy(line) for line in lines(ax, marker=">")] == [[[1.0], [1.0]]]
    assert not lines(ax, marker="|")
    assert ax.get_xscale() == "log" and ax.get_xlabel().startswith("step")


def test_dots_of_one_place_are_stacked_upwards() -> None:
    (ax,) = FIGURES.landmark_steps({"a": np.array([50.0, 50, 50, 80])}, last=100).axes
    found = row_of(ax)
    assert found[:, 0].tolist() == [50, 50, 50, 80]
    np.testing.assert_allclose(found[:, 1], [0, -0.085, -0.17, 0])
    # Upwards: the rows run down.
    low, high = ax.get_ylim()
    assert low > high
    many = row_of(FIGURES.landmark_steps({"a": np.full(60, 50.0)}, last=100).axes[0])
    assert many[:, 1].min() == pytest.approx(-0.6 * 59 / 60)


def test_dots_on_a_logarithmic_axis_stand_apart() -> None:
    (ax,) = FIGURES.landmark_steps({"a": np.array([10.0, 100, 1000, 10000])}, last=10000).axes
    assert ax.get_xscale() == "log" and set(row_of(ax)[:, 1]) == {0.0}


@pytest.mark.parametrize(
    ("reached", "never", "mark", "line"),
    [(4, 0, 25, [15, 35]), (5, 0, 30, [20, 40]), (5, 3, 45, [25, 100]), (4, 4, 40, [25, 100]),
     (4, 5, None, [30, 100]), (1, 4, None, None), (1, 3, None, [10, 100])],
)  # fmt: skip
def test_median_and_quartiles_count_the_late(
    reached: int, never: int, mark: float | None, line: list[float] | None
) -> None:
    steps = np.array([10.0 * (place + 1) for place in range(reached)] + [np.nan] * never)
    (ax,) = FIGURES.landmark_steps({"a": steps[::-1]}, last=100).axes
    medians, spans = (
        lines(ax, marker="|"),
        [item for item in lines(ax, linestyle="-") if len(xy(item)[0]) == 2],
    )
    assert [xy(item) for item in medians] == ([] if mark is None else [[[mark], [0.17]]])
    assert [xy(item) for item in spans] == ([] if line is None else [[line, [0.17, 0.17]]])


def test_more_than_sixty_runs_are_bars() -> None:
    steps = np.concatenate([np.full(40, 20.0), np.full(20, 60.0), [np.nan]])
    assert row_of(FIGURES.landmark_steps({"a": steps[:60]}, last=100).axes[0]).shape == (60, 2)
    (ax,) = FIGURES.landmark_steps({"a": steps}, last=100).axes
    tall = [bar for bar in ax.patches if bar.get_height()]
    assert not ax.collections and [bar.get_height() for bar in tall] == pytest.approx([-0.55, -0.275])
    for bar, step in zip(tall, (20, 60), strict=True):
        assert bar.get_x() <= step <= bar.get_x() + bar.get_width() and bar.get_y() == pytest.approx(0.04)
    low, high = ax.get_xlim()
    assert len(ax.patches) == 90 and ax.patches[0].get_x() == pytest.approx(low)
    assert ax.patches[-1].get_x() + ax.patches[-1].get_width() == pytest.approx(high)
    assert list(texts(ax)) == ["60 of 61\nnot by 100: 1"]


@pytest.mark.parametrize(
    ("steps", "scale", "limits"),
    [([10, 81], "log", (7, 105)), ([10, 80], "linear", (-2, 102)), ([0, 90], "linear", (-2, 102)),
     ([np.nan], "linear", (-2, 102)), ([0.5, 90], "log", (0.5, 105))],
)  # fmt: skip
def test_the_axis_of_landmarks(steps: list[float], scale: str, limits: tuple[float, float]) -> None:
    (ax,) = FIGURES.landmark_steps({"a": np.array(steps, float)}, last=100).axes
    assert ax.get_xscale() == scale and ax.get_xlim() == pytest.approx(limits)


def test_landmarks_without_a_last_step_end_at_the_last_of_them() -> None:
    (ax,) = FIGURES.landmark_steps({"a": np.array([10.0, 50.0])}, colours={"a": PINK}).axes
    assert (
        ax.get_xlim() == pytest.approx((-1, 51))
        and to_hex(ax.collections[0].get_facecolor()[0]) == PINK.lower()
    )


# Effects


def test_effects_their_intervals_and_notes() -> None:
    (ax,) = FIGURES.effect_rows(
        ["state 1", "state 2", "state 3", "state 4"], [100.0, -50.2, None, 7.0],
        [[40.0, 160.0], [None, -10.0], [None, None], None], found=[True, False], notes=["n1", "n2"],
        unit="rows",
    ).axes  # fmt: skip
    dots = {xy(line)[1][0]: (xy(line)[0][0], line.get_color()) for line in lines(ax, marker="o")}
    assert dots == {0: (100.0, "#D55E00"), 1: (-50.2, MUTED), 3: (7.0, MUTED)}
    margin = 0.08 * (160 + 50.2)
    flat = {
        xy(line)[1][0]: xy(line)[0]
        for line in ax.lines
        if len(set(xy(line)[1])) == 1 and len(xy(line)[1]) == 2
    }
    assert flat == {0: [40, 160], 1: [-50.2 - margin, -10], 2: [-50.2 - margin, 160 + margin]}
    ends = sorted(xy(line)[0][0] for line in ax.lines if xy(line)[1] in ([-0.11, 0.11], [0.89, 1.11]))
    assert ends == [-10, 40, 160]
    heads = {
        (line.get_marker(), xy(line)[1][0]): xy(line)[0][0] for line in ax.lines if line.get_marker() in "<>"
    }
    assert heads == {("<", 1): -50.2 - margin, ("<", 2): -50.2 - margin, (">", 2): 160 + margin}
    assert upright(ax, MUTED)[0] == 0
    assert ax.get_xlim() == pytest.approx((-50.2 - 2 * margin, 160 + 2 * margin))
    assert list(texts(ax)) == ["+100", "-50", " no estimate", "+7", "n1", "n2"]
    assert [item.xy for item in ax.texts if item.get_text() in ("+100", "-50")] == [(100.0, 0), (-50.2, 1)]
    assert [texts(ax)[name].get_position()[1] for name in ("n1", "n2", " no estimate")] == [0, 1, 2]
    assert ticks(ax.yaxis) == {"state 1": 0, "state 2": 1, "state 3": 2, "state 4": 3}
    low, high = ax.get_ylim()
    assert low > 3 and high < 0 and ax.get_xlabel() == "rows later (line: 95% interval)"
    assert (
        ax.xaxis.get_major_formatter()(1500.0, 0) == "+1,500"
        and ax.xaxis.get_major_formatter()(0.4, 0) == "0"
    )


# Hidden progress


def test_hidden_progress_draws_accuracy_and_ratios() -> None:
    accuracy, ratio = 0.5 + noisy(3) / 100, np.geomspace(1, 60, 10)[None].repeat(3, 0)
    figure = FIGURES.hidden_progress(
        STEPS,
        accuracy,
        {"one": ratio, "two": 2 * ratio},
        leaves=0.55,
        level=4.0,
        marked={"x": 30.0, "y": None},
    )
    above, below = figure.axes
    assert title(above) == "accuracy on held-out examples" and above.get_yscale() == "linear"
    assert title(below) == "relevant against other coordinates" and below.get_yscale() == "log"
    np.testing.assert_allclose(xy(lines(above, color=ORANGE)[-1])[1], np.median(accuracy, axis=0))
    for colour, values in ((GREEN, ratio), (PINK, 2 * ratio)):
        np.testing.assert_allclose(xy(lines(below, color=colour)[-1])[1], values[0])
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "step")
    assert upright(above, MUTED) == upright(below, MUTED) == [30.0]
    assert levels(above) == [0.55] and levels(below) == [4.0]
    low, high = above.get_ylim()
    assert high == pytest.approx(0.55 * 1.05) and low < accuracy.min()
    assert texts(above)["0.55"].xy == (0.0, 0.55) and texts(below)["4"].xy == (0.0, 4.0)
    assert list(texts(above)) == ["0.55", "x"]
