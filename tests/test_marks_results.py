"""What is drawn of results is what was handed over: every mark against its data, nothing rendered."""

from __future__ import annotations

import numpy as np
import pytest
from marks import (
    BLUE,
    FIGURES,
    ORANGE,
    STEPS,
    legend,
    levels,
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
from matplotlib.patches import Circle, FancyArrowPatch

from dynalab.curvature.bins import edges as bins
from dynalab.show.plots.style import INK, MUTED, ON_LIGHT, state_colours, text_on

# Events


def spans(ax: Axes) -> list[tuple[float, float, str]]:
    return [(p.get_x(), p.get_x() + p.get_width(), to_hex(p.get_facecolor())) for p in ax.patches]


def test_events_are_shaded_where_they_were_and_named() -> None:
    loss = [(STEPS, noisy(1, seed=row)[0]) for row in range(7)]
    norm = [(STEPS[:5], noisy(1, 5, seed=row)[0] + 3) for row in range(7)]
    found = [[(20.0, 40.0, "slingshot"), (50.0, 50.0, "odd_kind"), (60.0, np.inf, "edge")], *[[]] * 6]
    figure = FIGURES.events_over_curves(
        [f"r{row}" for row in range(7)], loss, norm, found, names=("training loss", "norm"),
        dashed=[(STEPS, STEPS / 100)] * 7, dashed_name="threshold",
        marked=[{"arrival": 30.0}, *[{"arrival": None}] * 6],
    )  # fmt: skip
    left = [ax for ax in figure.axes if title(ax)]
    right = [ax for ax in figure.axes if not title(ax)]
    assert [title(ax) for ax in left] == [f"r{row}" for row in range(6)] and len(right) == 6
    # An event of one row is as wide as can be seen, one without an end goes on to the last row.
    wide = 0.004 * 90
    assert spans(left[0]) == [
        (20, 40, "#f5c86e"),
        (50, pytest.approx(50 + wide), "#dfe2e8"),
        (60, 90, "#bfe3d6"),
    ]
    assert not spans(left[1])
    for row, (own, other) in enumerate(zip(left, right, strict=True)):
        assert xy(own.lines[0]) == [list(map(float, part)) for part in loss[row]]
        assert own.lines[0].get_color() == BLUE and other.lines[0].get_color() == ORANGE
        assert xy(other.lines[0]) == [list(map(float, part)) for part in norm[row]]
        assert (
            xy(own.lines[1]) == [STEPS.tolist(), (STEPS / 100).tolist()]
            and own.lines[1].get_linestyle() == "--"
        )
    assert {ax.get_xscale() for ax in figure.axes} == {"linear"} and left[0].get_xlim() == (0, 90)
    assert [upright(ax, INK) for ax in left] == [[30.0], *[[]] * 5]
    assert [ax.get_xlabel() for ax in left] == [*[""] * 5, "step"]
    assert legend(figure) == {
        "training loss": BLUE.lower(), "norm (right)": ORANGE.lower(), "threshold": INK, "arrival": INK,
        "slingshot": "#f5c86e", "odd kind": "#dfe2e8", "edge": "#bfe3d6",
    }  # fmt: skip


def test_what_is_not_there_has_no_line_and_no_key() -> None:
    nothing = (np.empty(0), np.empty(0))
    figure = FIGURES.events_over_curves(
        ["a"], [(STEPS, np.geomspace(1, 1e-3, 10))], [nothing], [[]], names=("x", "y"), dashed=[nothing],
        dashed_name="threshold", marked=[{"arrival": None}],
    )  # fmt: skip
    (ax,) = figure.axes
    assert ax.get_yscale() == "log" and len(ax.lines) == 1
    assert list(legend(figure)) == ["x", "y (right)", "threshold"]
    plain = FIGURES.events_over_curves(["a"], [(STEPS, STEPS + 1.0)], None, [[]], names=("x", "y"))
    assert list(legend(plain)) == ["x"]


def test_a_halved_rate_beside_the_run_as_it_was() -> None:
    item = {
        "step": STEPS, "sharpness": np.linspace(1, 2, 10), "threshold": np.where(STEPS < 50, 2.0, 4.0),
        "parent_sharpness": np.append(np.linspace(1, 1.1, 8), [np.nan, -1.0]),
    }  # fmt: skip
    other = {**item, "sharpness": np.linspace(1, 3, 10)}
    figure = FIGURES.halved_rate(["a", "b", *"cdefg"], [item, other, *[item] * 5], [40, 50, *[40] * 5])
    assert [title(ax) for ax in figure.axes] == list("abcdef")
    first, second = figure.axes[:2]
    assert {ax.get_xscale() for ax in figure.axes} == {"linear"} and first.get_xlim() == (0, 90)
    parent, fork, limit = first.lines[:3]
    assert (parent.get_color(), fork.get_color(), limit.get_color()) == (ORANGE, BLUE, INK)
    assert xy(parent) == [STEPS[:8].tolist(), np.linspace(1, 1.1, 8).tolist()]
    assert xy(fork) == [STEPS.tolist(), np.linspace(1, 2, 10).tolist()]
    assert xy(limit)[1] == item["threshold"].tolist() and limit.get_drawstyle() == "steps-post"
    assert [upright(ax, MUTED)[0] for ax in (first, second)] == [40, 50]
    assert xy(second.lines[1])[1] == np.linspace(1, 3, 10).tolist()
    assert (first.get_yscale(), second.get_yscale()) == ("linear", "linear") and first.get_ylim()[0] == 0
    for top, scale in ((30, "log"), (29, "linear")):
        steep = {**item, "sharpness": np.geomspace(1, top, 10)}
        assert FIGURES.halved_rate(["a"], [steep], [40]).axes[0].get_yscale() == scale
    assert legend(figure) == {
        "fork, half the rate": BLUE.lower(), "run as it was": ORANGE.lower(), "the fork's threshold": INK,
        "rate halved": MUTED,
    }  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == [*[""] * 5, "step"]


# The map


EDGES = [
    {"from": 0, "to": 1, "runs": 9}, {"from": 1, "to": 2, "runs": 3}, {"from": 0, "to": 2, "runs": 1},
    {"from": 2, "to": 0, "runs": 2}, {"from": 1, "to": 1, "runs": 7},
]  # fmt: skip


def arrows(ax: Axes) -> dict[str, FancyArrowPatch]:
    return {str(p.get_gid()): p for p in ax.patches if isinstance(p, FancyArrowPatch)}


def test_the_map_draws_states_and_changes_in_proportion() -> None:
    share = [0.64, 0.25, 0.11]
    figure = FIGURES.training_map(
        3, EDGES, 10, occupancy=share, runs=[10, 9, 4], captions=["a\nb", "c\nd", "e\nf"], forked=[(0, 2)]
    )
    (ax,) = figure.axes
    circles = [p for p in ax.patches if isinstance(p, Circle)]
    assert [tuple(c.center) for c in circles] == [(0, 0), (1, 0), (2, 0)]
    assert [c.radius for c in circles] == pytest.approx([0.13 + 0.14 * np.sqrt(s) for s in share])
    assert [to_hex(c.get_facecolor()) for c in circles] == state_colours(3)
    assert [c.get_gid() for c in circles] == ["state-0", "state-1", "state-2"]
    found = arrows(ax)
    assert set(found) == {"edge-0-1", "edge-1-2", "edge-0-2", "edge-2-0"}
    widths = {name: arrow.get_linewidth() for name, arrow in found.items()}
    # Linear in the share of runs.
    slope = (widths["edge-0-1"] - widths["edge-1-2"]) / 0.6
    assert widths["edge-1-2"] - widths["edge-0-2"] == pytest.approx(0.2 * slope) and slope > 1
    assert widths["edge-2-0"] - widths["edge-0-2"] == pytest.approx(0.1 * slope)
    colours = {name: to_hex(arrow.get_edgecolor()) for name, arrow in found.items()}
    assert colours == {**dict.fromkeys(found, "#8a92a0"), "edge-0-2": "#d55e00"}
    r = [c.radius for c in circles]
    assert found["edge-0-1"]._path_original.vertices.tolist() == pytest.approx(
        np.array([[r[0], 0], [1 - r[1], 0]])
    )
    # A leap goes above, a return below, both over two states, and neither into the circles.
    for name, sign, (a, b) in (("edge-0-2", 1, (0, 2)), ("edge-2-0", -1, (2, 0))):
        points = found[name]._path_original.vertices
        assert sign * points[:, 1].max() >= 0 or sign < 0
        assert np.abs(points[:, 1]).max() == pytest.approx(0.6) and (sign * points[:, 1] > 0).all()
        assert np.hypot(*(points - [a, 0]).T).min() > r[a] and np.hypot(*(points - [b, 0]).T).min() > r[b]
        assert abs(points[0, 0] - a) < 0.3 and abs(points[-1, 0] - b) < 0.3
    words = texts(ax)
    assert [words[str(k)].get_position() for k in range(3)] == [(0, 0), (1, 0), (2, 0)]
    assert words["1 of 10"].get_position() == (1.0, 0.6) and words["2 of 10"].get_position() == (1.0, -0.6)
    assert words["9 of 10"].get_position() == pytest.approx(((r[0] + 1 - r[1]) / 2, 0.06 + 0.02 * 0.9))
    assert [words[text].get_position()[0] for text in ("a\nb", "c\nd", "e\nf")] == [0, 1, 2]
    assert words["0"].get_color() == text_on(state_colours(3)[0])
    # Everything lies within the panel.
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert left < -r[0] and right > 2 + r[2] and low < -0.6 - 0.3 and high > 0.6 + 0.1


def test_the_map_of_a_chain_and_of_many_states() -> None:
    chain = [{"from": k, "to": k + 1, "runs": 3} for k in range(2)]
    figure = FIGURES.training_map(3, chain, 3)
    (ax,) = figure.axes
    assert len(arrows(ax)) == 2 and [p.radius for p in ax.patches if isinstance(p, Circle)] == pytest.approx(
        [0.13 + 0.14 * np.sqrt(1 / 3)] * 3
    )
    # High arcs are less than linear, and narrow maps have short labels.
    wide = FIGURES.training_map(12, [{"from": 0, "to": 10, "runs": 3}, {"from": 0, "to": 4, "runs": 1}], 1000)
    found = arrows(wide.axes[0])
    heights = [np.abs(found[name]._path_original.vertices[:, 1]).max() for name in ("edge-0-4", "edge-0-10")]
    assert heights == pytest.approx([0.3 * 4, 0.3 * (4 + 0.6 * 6)])
    assert "3/1,000" in texts(wide.axes[0]) and "1/1,000" in texts(wide.axes[0])
    # Without a word of which, the forks that the counts show are coloured: two ways of two runs each.
    (ax,) = FIGURES.training_map(3, EDGES, 10).axes
    assert {to_hex(arrow.get_edgecolor()) for arrow in arrows(ax).values()} == {"#8a92a0"}
    more = [*EDGES[:2], {"from": 0, "to": 2, "runs": 2}]
    (ax,) = FIGURES.training_map(3, more, 10).axes
    coloured = {name for name, arrow in arrows(ax).items() if to_hex(arrow.get_edgecolor()) == "#d55e00"}
    assert coloured == {"edge-0-1", "edge-0-2"}


# States


def test_a_raster_shows_every_state_of_every_run() -> None:
    steps = [np.array([0, 10, 20]), np.array([0, 20]), np.array([0, 10])]
    states = [np.array([0, 1, 2]), np.array([1, 2]), np.array([2, 0])]
    late = np.array([20.0, np.nan, 10.0])
    figure = FIGURES.state_raster(
        steps,
        states,
        ["a", "b", "c"],
        3,
        order_by=late,
        landmarks={"generalised": late, "none": np.full(3, np.nan)},
    )
    (ax,) = figure.axes
    mesh = ax.collections[0]
    # A state lasts to the next row; the last row of all needs no room, and what ends earlier is empty.
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), -1), [[2, 0], [0, 1], [1, 1]])
    assert np.unique(mesh.get_coordinates()[..., 0]).tolist() == [0, 10, 20]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-0.5, 2.5)
    assert [to_hex(mesh.cmap(mesh.norm(k))) for k in range(3)] == state_colours(3)
    assert ticks(ax.yaxis) == {"c": 0.5, "a": 1.5, "b": 2.5} and ax.get_ylim() == (3, 0)
    marks = ax.collections[-1]
    assert (
        np.asarray(marks.get_offsets()).tolist() == [[10, 0.5], [20, 1.5]]
        and marks.get_label() == "generalised"
    )
    (found,) = figure.legends
    assert [item.get_text() for item in found.get_texts()] == ["0", "1", "2", "generalised"]
    assert [to_hex(p.get_facecolor()) for p in found.legend_handles[:3]] == state_colours(3)


def test_a_raster_of_a_run_that_ends_early_is_empty_there() -> None:
    figure = FIGURES.state_raster(
        [np.array([0, 10, 20, 30]), np.array([10, 20])],
        [np.array([0, 0, 1, 1]), np.array([1, 0])],
        ["a", "b"],
        2,
    )
    mesh = figure.axes[0].collections[0]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), -1), [[0, 0, 1], [-1, 1, 0]])


@pytest.mark.parametrize(("n_runs", "names"), [(40, 40), (41, 0)])
def test_names_of_runs_as_long_as_they_can_be_read(n_runs: int, names: int) -> None:
    steps = [np.array([0, 10])] * n_runs
    figure = FIGURES.state_raster(steps, [np.array([0, 1])] * n_runs, [f"r{i}" for i in range(n_runs)], 2)
    (ax,) = figure.axes
    assert len(ax.get_yticks()) == names and ax.get_ylabel() == ("" if names else "41 runs")


def test_profiles_are_a_heat_map_with_its_numbers() -> None:
    means = np.array([[1.0, -2.0, 0.04], [np.nan, 0.5, -1.31]])
    figure = FIGURES.state_profiles(means, ["a", "b", "c"], unit="z per row", title="t")
    ax, bar = figure.axes
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), -9), np.nan_to_num(means, nan=-9))
    assert (
        (mesh.norm.vmin, mesh.norm.vmax) == (-2, 2) and bar.get_ylabel() == "z per row" and title(ax) == "t"
    )
    found = {item.get_position(): (item.get_text(), item.get_color()) for item in ax.texts}
    assert found == {
        (0.5, 0.5): ("1.0", ON_LIGHT), (1.5, 0.5): ("-2.0", "white"), (2.5, 0.5): ("0.0", ON_LIGHT),
        (1.5, 1.5): ("0.5", ON_LIGHT), (2.5, 1.5): ("-1.3", "white"),
    }  # fmt: skip
    assert ticks(ax.xaxis) == {"a": 0.5, "b": 1.5, "c": 2.5} and ticks(ax.yaxis) == {"0": 0.5, "1": 1.5}
    assert ax.get_ylim() == (2, 0)
    for tick, colour in zip(ax.get_yticklabels(), state_colours(2), strict=True):
        assert to_hex(tick.get_bbox_patch().get_facecolor()) == colour


@pytest.mark.parametrize(("limit", "text"), [(1.0, "1.0"), (0.99, "0.99"), (0.1, "0.10"), (0.0999, "0.100")])
def test_small_profiles_have_more_digits(limit: float, text: str) -> None:
    ax = FIGURES.state_profiles(np.array([[limit]]), ["a"]).axes[0]
    assert [item.get_text() for item in ax.texts] == [text]


def test_profiles_of_many_metrics_have_no_numbers() -> None:
    for size, n in ((120, 240), (121, 0)):
        ax = FIGURES.state_profiles(np.ones((2, size)), [f"m{i}" for i in range(size)]).axes[0]
        assert len(ax.texts) == n


# Model selection


def test_selection_marks_what_was_chosen_and_what_did_not_converge() -> None:
    k, score, error, bic = [1, 2, 3, 4], [1.0, 2.0, 2.1, None], [0.5, 0.2, None, None], [4.0, 1.0, 2.0, 3.0]
    figure = FIGURES.model_selection(k, score, error, bic, 2, converged=[True, True, False, True])
    left, right = figure.axes
    assert title(left) == "held-out log-likelihood per frame" and title(right) == "BIC (lower is better)"
    for ax, values in ((left, [1.0, 2.0, 2.1, np.nan]), (right, bic)):
        np.testing.assert_array_equal(xy(ax.lines[0]), [k, values])
        full, hollow, ring = (np.asarray(item.get_offsets())[:, 1] for item in ax.collections[:3])
        np.testing.assert_array_equal(full, [values[0], values[1], values[3]])
        np.testing.assert_array_equal(hollow, [values[2]])
        np.testing.assert_array_equal(ring, [values[1]])
        assert ax.collections[2].get_offsets()[0][0] == 2 and ax.get_xlabel() == "number of states"
        assert to_hex(ax.collections[1].get_facecolor()[0]) == "#ffffff"
    assert texts(left)["2 chosen"].xy == (2, 2.2) and texts(right)["2 chosen"].xy == (2, 1.0)
    (bars,) = [item for item in left.collections if hasattr(item, "get_segments")]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()[:3]] == [
        [0.5, 1.5],
        [1.8, 2.2],
        [2.1, 2.1],
    ]
    assert note_of(figure) == "hollow: the fit has not converged"


def test_selection_without_errors_has_no_line_to_be_reached() -> None:
    figure = FIGURES.model_selection([1, 2], [1.0, 2.0], [0.5, 0.25], [None, None], 1)
    (ax,) = figure.axes
    assert levels(ax) == [1.75] and texts(ax)["best - 1 SE"].xy == (1, 1.75) and note_of(figure) == ""
    (ax,) = FIGURES.model_selection([1, 2], [1.0, 2.0], [None, None], [None, None], 1).axes
    assert levels(ax) == []
    capped = note_of(FIGURES.model_selection([1, 2], [1.0, 2.0], [0.5, 0.2], [2.0, 1.0], 2))
    assert capped == "capped: the largest number of states tried (2) was chosen, more may fit better"
    assert note_of(FIGURES.model_selection([4], [1.0], [0.1], [None], 4)) == ""


@pytest.mark.parametrize(
    ("scores", "chosen", "paired"),
    [
        ([5.0, 4.5, 4.2, 4.1], 1, True),
        ([1.0, 5.5, 5.4, 5.2], 2, True),
        ([1.0, 2.0, 3.0, 4.0], 4, True),
        ([1.0, 2.0, 1.9, 1.9], 1, False),
    ],
)
def test_the_best_and_the_chosen_are_named_apart(scores: list[float], chosen: int, paired: bool) -> None:
    errors = [0.0] * 4 if paired else [0.5, 0.25, 0.1, 0.1]
    figure = FIGURES.model_selection([1, 2, 3, 4], scores, errors, [None] * 4, chosen, paired=paired)
    figure.canvas.draw()
    best, name = (
        text.get_window_extent()
        for word, text in sorted(texts(figure.axes[0]).items(), reverse=True)
        if word.startswith(("best", f"{chosen} chosen"))
    )
    assert not best.overlaps(name)


# Shares of a variance


def test_shares_are_bars_with_intervals_and_runs_beside() -> None:
    shares, bounds = np.array([0.62, 0.08, 0.3]), np.array([[0.4, 0.8], [0.0, 0.3], [0.2, 0.5]])
    steps = np.array([100.0, 200, 300, np.nan, 500, 700])
    figure = FIGURES.variance_shares(
        ["init", "order", "residual"], shares, bounds, factors=["init", "order"],
        levels=[np.array([3, 3, 3, 7, 7, 7]), np.array([0, 1, 2, 0, 1, 2])], values=steps,
    )  # fmt: skip
    left, init, order = figure.axes
    assert [bar.get_width() for bar in left.patches] == shares.tolist()
    assert [bar.get_y() + bar.get_height() / 2 for bar in left.patches] == pytest.approx([0, 1, 2])
    assert [to_hex(bar.get_facecolor()) for bar in left.patches] == [BLUE.lower(), ORANGE.lower(), MUTED]
    assert [xy(line) for line in left.lines] == [[b.tolist(), [k, k]] for k, b in enumerate(bounds)]
    assert list(texts(left)) == ["62%", "8%", "30%"]
    assert [item.get_position() for item in left.texts] == [
        (pytest.approx(s + 0.012), pytest.approx(k - 0.15)) for k, s in enumerate(shares)
    ]
    assert ticks(left.yaxis) == {"init": 0, "order": 1, "residual": 2} and left.get_ylim() == (2.5, -0.6)
    assert (
        left.xaxis.get_major_formatter()(0.4) == "40%" and left.get_xlim()[0] == 0 and left.get_xlim()[1] > 1
    )
    dots, *dashes = init.lines
    np.testing.assert_array_equal(xy(dots), [[0, 0, 0, 1, 1], steps[np.isfinite(steps)]])
    assert [xy(line)[1] for line in dashes] == [[200, 200], [600, 600]]
    assert [np.mean(xy(line)[0]) for line in dashes] == [0, 1] and ticks(init.xaxis) == {"3": 0, "7": 1}
    assert [xy(line)[1][0] for line in order.lines[1:]] == [100, 350, 500]
    assert (init.get_xlabel(), order.get_xlabel()) == ("seed of init", "seed of order")
    assert init.get_ylabel() == "convergence step" and init.yaxis.get_major_formatter()(1500.0, 0) == "1,500"
    assert init.get_shared_y_axes().joined(init, order) and init.get_xlim() == (-0.6, 1.6)
    assert dots.get_color() == BLUE and order.lines[0].get_color() == ORANGE


def test_shares_alone_are_one_panel() -> None:
    (ax,) = FIGURES.variance_shares(["a", "b"], np.array([0.25, 0.75]), np.zeros((2, 2))).axes
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0.75]
    # Without factors every source has a colour of its own.
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == [BLUE.lower(), ORANGE.lower()]


def test_many_levels_have_some_of_their_names() -> None:
    def names(n: int) -> list[str]:
        figure = FIGURES.variance_shares(
            ["a"],
            np.ones(1),
            np.ones((1, 2)),
            factors=["a"],
            levels=[np.arange(n)],
            values=np.arange(n) * 1.0,
        )
        return list(ticks(figure.axes[1].xaxis))

    assert names(10) == [str(k) for k in range(10)] and names(11) == ["0", "2", "4", "6", "8", "10"]


# Spectra


def test_a_spectrum_lies_in_its_bins() -> None:
    grid = bins(0.1, 100.0, 1)  # -100, -10, -1, -0.1, 0.1, 1, 10, 100
    steps = np.array([0, 100, 300])
    shares = np.zeros((3, 7))
    shares[:, 3], shares[:, 5], shares[2, 6], shares[0, 1] = 0.9, 0.1, 2e-6, 1e-6
    figure = FIGURES.spectral_density(
        [f"r{k}" for k in range(5)], [steps] * 5, [shares] * 5, grid,
        largest=[(steps, np.array([1.0, 10, np.nan]))] * 5,
        threshold=[(steps, np.array([0.05, -1.0, 1000]))] * 5,
    )  # fmt: skip
    *maps, bar = figure.axes
    assert [title(ax) for ax in maps] == ["r0", "r1", "r2", "r3"] and "share" in bar.get_ylabel()
    ax = maps[0]
    mesh = ax.collections[0]
    expected = np.where(shares > 1e-6, shares, -1).T
    np.testing.assert_array_equal(np.ma.filled(np.ma.masked_invalid(mesh.get_array()), -1), expected)
    # A column reaches halfway to its neighbours.
    assert np.unique(mesh.get_coordinates()[..., 0]).tolist() == [0, 50, 200, 400]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1e-6, 1.0)
    line, dashed = ax.lines
    np.testing.assert_allclose(xy(line), [steps, [5, 6, np.nan]])
    np.testing.assert_allclose(xy(dashed), [steps, [3.75, 2, 7]])
    assert line.get_color() == ORANGE and dashed.get_linestyle() == "--"
    assert legend(figure) == {"largest eigenvalue": ORANGE.lower(), "threshold": INK}
    # What is drawn is in view, and no more; decades of both signs stand where they belong.
    assert ax.get_ylim() == pytest.approx((1.5, 7.0))
    assert ticks(ax.yaxis) == {"\u22121": pytest.approx(2), "0": 3.5, "1": 5, "10": 6, "100": 7}
    assert [item.get_xlabel() for item in maps] == ["", "", "", "step"]
    assert {item.get_xscale() for item in maps} == {"linear"} and ax.get_xlim() == (0, 400)
    assert bar.yaxis.get_major_formatter()(1e-6) == "10\u207b\u2076"


def test_a_spectrum_shows_half_a_bin_beyond_what_is_drawn() -> None:
    grid, shares = bins(0.1, 100.0, 1), np.zeros((2, 7))
    shares[:, 3] = 1.0
    steps = np.array([0, 10])
    nothing = np.full(2, np.nan)
    for largest, limits in (
        (np.array([0.5, 1.0]), (2.5, 5.5)),
        (np.array([1.0, -1.0]), (1.5, 5.5)),
        (nothing, (2.5, 4.5)),
    ):
        figure = FIGURES.spectral_density(["a"], [steps], [shares], grid, largest=[(steps, largest)])
        assert figure.axes[0].get_ylim() == pytest.approx(limits)


def test_a_spectrum_of_one_row_with_negative_eigenvalues() -> None:
    grid = bins(0.1, 100.0, 1)
    shares = np.full((1, 7), 1 / 7)
    figure = FIGURES.spectral_density(["a"], [np.array([50])], [shares], grid)
    ax, _ = figure.axes
    assert np.unique(ax.collections[0].get_coordinates()[..., 0]).tolist() == [50, 51] and not figure.legends
    assert ax.get_ylim() == (0, 7) and not ax.lines
    assert ticks(ax.yaxis) == pytest.approx(
        {"\u2212100": 0, "\u221210": 1, "\u22121": 2, "0": 3.5, "1": 5, "10": 6, "100": 7}
    )
