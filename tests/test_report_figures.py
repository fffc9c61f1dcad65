"""The figures: arrays in, one matplotlib figure out, whatever the arrays look like."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_fakes import steps_of, training

import dynalab
from dynalab.core.stats import quartiles
from dynalab.show import svg
from dynalab.show.plots import thin
from dynalab.show.plots.labels import spread
from dynalab.show.plots.states import common_grid
from dynalab.show.plots.style import INK, decade, ensemble_colours, state_colours, text_on

FIGURES = dynalab.figures


def text_of(figure: Figure) -> str:
    return svg.to_svg(figure)


def lab(colours: list[str], blindness: np.ndarray) -> np.ndarray:
    """Return colours as CIE Lab (K, 3) as an eye with a colour blindness sees them."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ blindness.T, 0, 1)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


# Machado, Oliveira & Fernandes (2009), severity 1.
EYES = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("eye", EYES)
def test_neighbouring_states_are_told_apart(eye: str) -> None:
    for n_states in range(2, 13):
        seen = lab(state_colours(n_states), EYES[eye])
        assert len(set(state_colours(n_states))) == n_states
        assert np.linalg.norm(np.diff(seen, axis=0), axis=1).min() > 14, (n_states, eye)


def test_states_are_ordered_in_a_print_without_colours() -> None:
    for n_states in range(2, 13):
        lightness = lab(state_colours(n_states), EYES["full"])[:, 0]
        # As many steps as there are from the darkest to the lightest, all alike.
        assert np.diff(lightness).min() > 0.9 * np.ptp(lightness) / (n_states - 1) > 5, n_states
        assert lightness.min() > 24 and lightness.max() < 94
        if n_states <= 8:
            assert np.diff(lightness).min() > 9


def test_colours_of_any_number() -> None:
    assert len(state_colours(1)) == 1 and len(set(state_colours(30))) == 30
    assert len(set(ensemble_colours(40))) == 40
    # What is written on a light colour does not turn light with the page.
    assert text_on("#440154") == "white" and text_on("#fde725") not in ("white", INK)


def test_nothing_on_a_page_by_night_is_dark_on_dark_or_light_on_light() -> None:
    means = np.linspace(-1, 1, 8)[:, None] + [0.0, 0.01]
    figure = FIGURES.state_profiles(means, ["l2", "grad_norm"], title="")
    # What stands on cells of a map stays as it is, what stands beside it turns with the page, ticks of the bar as well.
    words = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert words["0.1"] not in ("white", INK) and words["-1.0"] == "white"
    assert {tick.get_color() for tick in figure.axes[1].get_yticklabels()} == {INK}


def test_a_legend_of_states_reads_row_by_row() -> None:
    steps = steps_of()
    paths = [np.arange(len(steps)) * 12 // len(steps)] * 3
    figure = FIGURES.state_raster([steps] * 3, paths, ["a", "b", "c"], 12, size=(3.0, None))
    figure.savefig(io.BytesIO(), format="png")
    (legend,) = figure.legends
    boxes = [(text.get_window_extent(), text.get_text()) for text in legend.get_texts()]
    read = [word for _, word in sorted(boxes, key=lambda item: (-round(item[0].y0), item[0].x0))]
    assert read == [str(state) for state in range(12)]
    assert len({round(box.y0) for box, _ in boxes}) > 1


def test_the_users_settings_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    figure = FIGURES.curves(steps_of(), {"test": training(3, steps_of())["test_loss"]}, logarithmic=True)
    figure.savefig(io.BytesIO(), format="png")
    assert dict(matplotlib.rcParams) == before


def test_public_functions_are_documented() -> None:
    for name in FIGURES.__all__:
        assert (getattr(FIGURES, name).__doc__ or "").strip(), name


@pytest.mark.parametrize("n_runs", [1, 2, 3, 70])
def test_curves_of_any_number_of_runs(n_runs: int) -> None:
    steps = steps_of()
    values = training(n_runs, steps)
    values["train_loss"][0, 5:] = np.nan
    figure = FIGURES.training_curves(
        steps,
        {"train": values["train_loss"], "test": values["test_loss"]},
        {"test": values["test_accuracy"]},
        diverged=np.where(np.arange(n_runs) == 0, 50.0, np.nan),
        marked={"memorised": 40.0, "generalised": None},
        log_steps=True,
    )
    loss, accuracy = figure.axes
    assert loss.get_yscale() == "log" and accuracy.get_yscale() == "linear" and loss.get_xscale() == "symlog"
    source = text_of(figure)
    assert ">memorised</text>" in source and ">generalised</text>" not in source
    assert (f"60 of {n_runs} runs" in source) == (n_runs > 60)


def test_curves_of_nothing_but_nan_and_of_one_row() -> None:
    steps = steps_of()
    text_of(FIGURES.curves(steps, {"test": np.full((3, len(steps)), np.nan)}, logarithmic=True))
    text_of(FIGURES.curves(np.array([0]), {"a": np.ones((3, 1)), "b": np.zeros((3, 1))}))
    text_of(FIGURES.curves(steps, {"a": np.full((3, len(steps)), np.inf)}))


def test_zeros_on_a_logarithmic_axis_are_told() -> None:
    steps = steps_of()
    values = np.exp(-steps / 10.0)[None].repeat(3, 0)
    values[:, -2:] = 0
    assert "6 values of exactly 0" in text_of(FIGURES.curves(steps, {"train": values}, logarithmic=True))


def test_negative_values_stay_on_a_linear_axis() -> None:
    steps = steps_of()
    figure = FIGURES.curves(steps, {"x": steps[None] - 100.0}, logarithmic=True)
    assert figure.axes[0].get_yscale() == "linear"


def test_dense_curves_become_pixels() -> None:
    steps = np.arange(0, 8000, 10)
    values = np.random.default_rng(0).normal(size=(64, len(steps)))
    source = text_of(FIGURES.curves(steps, {"x": values}))
    assert "<image" in source and len(source) < 600_000


def test_panels_with_grids_of_their_own() -> None:
    fine, coarse = steps_of(), steps_of(every=50)
    figure = FIGURES.metric_panels(
        {"a": fine, "b": coarse, "c": fine},
        {"a": np.ones((3, len(fine))), "b": np.ones((3, len(coarse))), "c": np.full((3, len(fine)), np.nan)},
        groups={"a": "loss", "b": "norms"},
    )
    source = text_of(figure)
    assert len(figure.axes) == 3 and "no values" in source and ">norms</text>" in source


def test_log_spaced_steps_are_found() -> None:
    steps = np.unique(np.geomspace(1, 10000, 30).astype(int))
    figure = FIGURES.curves(steps, {"x": np.ones((3, len(steps)))})
    assert figure.axes[0].get_xscale() == "symlog"


def test_a_state_lasts_until_the_next_row() -> None:
    grid, table = common_grid(
        [np.array([0, 10, 20]), np.array([5, 20, 40])], [np.array([0, 1, 1]), np.array([2, 0, 0])]
    )
    assert grid.tolist() == [0, 5, 10, 20, 40]
    nan = np.nan
    np.testing.assert_array_equal(table, [[0, 0, 1, 1, nan], [nan, 2, 2, 0, 0]])


@pytest.mark.parametrize("n_runs", [1, 30, 300])
def test_a_raster_is_sorted_with_the_late_below(n_runs: int) -> None:
    steps = [np.arange(0, 100 + row % 3 * 10, 10) for row in range(n_runs)]
    states = [np.minimum(np.arange(len(item)) // 4, 2) for item in steps]
    late = np.arange(n_runs, dtype=float)[::-1].copy()
    late[0] = np.nan
    figure = FIGURES.state_raster(
        steps,
        states,
        [f"run{row}" for row in range(n_runs)],
        3,
        order_by=late,
        landmarks={"generalised": late},
    )
    names = [item.get_text() for item in figure.axes[0].get_yticklabels()]
    if n_runs == 30:
        assert names[0] == "run29" and names[-1] == "run0"
    assert "<image" in text_of(figure)


@pytest.mark.parametrize("n_states", [1, 2, 12])
def test_a_map_names_its_parts(n_states: int) -> None:
    rng = np.random.default_rng(n_states)
    pairs = {(int(a), int(b)) for a, b in rng.integers(0, n_states, (20, 2))}
    edges = [{"from": a, "to": b, "runs": 3} for a, b in sorted(pairs)]
    figure = FIGURES.training_map(n_states, edges, 20, captions=["a\nb"] * n_states)
    source = text_of(figure)
    for a, b in pairs:
        assert (f'id="edge-{a}-{b}"' in source) == (a != b)
    assert all(f'id="state-{k}"' in source for k in range(n_states))


def test_forks() -> None:
    edges = [
        {"from": 0, "to": 1, "runs": 3},
        {"from": 0, "to": 2, "runs": 2},
        {"from": 1, "to": 1, "runs": 3},
        {"from": 2, "to": 0, "runs": 5},
        {"from": 2, "to": 1, "runs": 1},
    ]
    graph = FIGURES.state_graph(3, edges)
    assert FIGURES.forks(graph) == [0], "what a single run does is no fork"
    assert sorted(graph.edges) == [(0, 1), (0, 2), (2, 0), (2, 1)]


def test_selection_says_when_it_is_capped() -> None:
    figure = FIGURES.model_selection([1, 2, 3], [1.0, 2.0, 3.0], [0.1] * 3, [3.0, 2.0, 1.0], 3)
    assert "capped" in text_of(figure) and len(figure.axes) == 2
    figure = FIGURES.model_selection(
        [1, 2, 3], [None] * 3, [None] * 3, [3.0, 1.0, 2.0], 2, converged=[True, False, True]
    )
    assert "capped" not in text_of(figure) and "hollow" in text_of(figure) and len(figure.axes) == 1
    text_of(FIGURES.model_selection([4], [1.0], [0.1], [None], 4))


def test_selection_draws_the_errors_of_its_rule() -> None:
    keys = ([1, 2, 3], [1.0, 2.0, 2.1], [0.5, 0.2, 0.1], [3.0, 2.0, 1.0], 2)
    lines = {}
    for paired in (False, True):
        ax = FIGURES.model_selection(*keys, paired=paired).axes[0]
        words = [text.get_text() for text in ax.texts]
        assert ("best" if paired else "best - 1 SE") in words and "2 chosen" in words
        dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
        lines[paired] = float(np.asarray(dashed[0].get_ydata())[0])
    assert lines == pytest.approx({False: 2.0, True: 2.1})


def test_landmarks_show_the_censored_apart() -> None:
    rows = {"memorised": np.array([10.0, 20.0, np.nan]), "generalised": np.full(3, np.nan)}
    source = text_of(FIGURES.landmark_steps(rows, last=500))
    assert "not by 500: 1" in source and "not by 500: 3" in source and "0 of 3" in source
    many = np.random.default_rng(0).lognormal(5, 1, 1000)
    text_of(FIGURES.landmark_steps({"all": many}, last=float(many.max())))
    text_of(FIGURES.landmark_steps({"at once": np.zeros(5)}, last=100))


def test_profiles_with_a_state_without_rows() -> None:
    means = np.array([[1.0, -2.0], [np.nan, np.nan], [-0.0001, 0.0]])
    source = text_of(FIGURES.state_profiles(means, ["a", "b"]))
    assert ">-0.0<" not in source and "nan" not in source.lower()
    text_of(FIGURES.state_profiles(np.zeros((1, 1)), ["a"]))


def test_comparison_of_many_ensembles() -> None:
    steps = steps_of()
    for n in (1, 3, 9, 40):
        values = training(3, steps)["test_accuracy"]
        text_of(
            FIGURES.comparison({f"e{i}": (steps, values * i / n) for i in range(n)}, metric="test_accuracy")
        )


def test_thinning_keeps_spikes() -> None:
    steps, values = np.arange(100_000), np.zeros(100_000)
    values[54_321], values[12_345], values[77_777] = 9.0, -7.0, np.nan
    x, y = thin.thin(steps, values)
    assert len(x) <= 2002 and np.nanmax(y) == 9.0 and np.nanmin(y) == -7.0
    assert x[0] == 0 and x[-1] == 99_999 and (np.diff(x) > 0).all()


def test_quantiles_of_bands_are_those_of_sentences() -> None:
    values = np.random.default_rng(1).normal(size=(8, 50))
    values[3, 10:], values[5, 15:], values[:, 20], values[1:, 30] = [np.nan] * 4
    ours = thin.quantiles(values)
    some = np.isfinite(values).any(axis=0)
    for found, column in zip(ours[:, some].T, values[:, some].T, strict=True):
        assert tuple(found) == quartiles(column[np.isfinite(column)])
    by_numpy = np.quantile(values[:, :10], [0.25, 0.5, 0.75], axis=0, method="averaged_inverted_cdf")
    np.testing.assert_allclose(ours[:, :10], by_numpy, rtol=1e-12)
    assert np.isnan(ours[:, ~some]).all()


def test_singles_are_spread_evenly() -> None:
    chosen = thin.evenly(1000, 60)
    assert len(chosen) == 60 and chosen[0] == 0 and chosen[-1] == 999 and np.ptp(np.diff(chosen)) <= 1


def test_labels_do_not_overlap() -> None:
    placed = spread([0.5, 0.5, 0.51, 0.0], 0.1)
    assert np.diff(sorted(placed)).min() > 0.0999
    assert np.argsort(placed, kind="stable").tolist() == [3, 0, 1, 2]


def test_powers_of_ten_are_plain_text() -> None:
    assert [decade(10.0**n) for n in (-5, 0, 12)] == ["10\u207b\u2075", "10\u2070", "10\u00b9\u00b2"]
    assert [decade(value, plain=True) for value in (0.01, 1.0, 1000.0)] == ["0.01", "1", "1000"]


@pytest.mark.parametrize(
    ("low", "high", "powers"), [(1e-2, 1e3, False), (1e-5, 1e1, True), (1e-3, 1e4, False)]
)
def test_an_axis_writes_all_its_ticks_in_one_way(low: float, high: float, powers: bool) -> None:
    figure = dynalab.figures.curves(
        np.arange(9), {"train": np.geomspace(low, high, 9)[None]}, logarithmic=True
    )
    figure.draw_without_rendering()
    said = [tick.get_text() for tick in figure.axes[0].get_yticklabels() if tick.get_text()]
    assert len(said) > 2 and all(text.startswith("10") and not text.isdecimal() for text in said) == powers
    assert powers or all(float(text) > 0 for text in said)


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    steps = steps_of()
    values = training(3, steps)
    one, two = (text_of(FIGURES.curves(steps, {"test": values["test_loss"]})) for _ in range(2))
    assert one == two
    figure = FIGURES.curves(steps, {"test": values["test_loss"]})
    svg.save(figure, one, tmp_path, "curves")
    assert {item.name for item in tmp_path.iterdir()} == {"curves.svg", "curves.png"}


def test_inline_drawings_do_not_clash() -> None:
    figure = FIGURES.training_map(2, [{"from": 0, "to": 1, "runs": 3}], 3)
    element = svg.inline(text_of(figure), "a", "<map>", {"edge-0-1": "x < y"})
    assert element.startswith("<svg") and 'aria-label="&lt;map&gt;"' in element
    assert '<g id="a-edge-0-1"><title>x &lt; y</title>' in element
    assert "<style" not in element and "xmlns" not in element and 'id="edge' not in element


def test_hidden_progress_has_both_panels_and_their_lines() -> None:
    steps = np.arange(0, 1000, 50)
    accuracy = 0.5 + 0.5 * (steps[None] > np.array([[600], [700], [800]]))
    progress = np.exp(steps / 200.0)[None] * np.array([[0.9], [1.0], [1.1]])
    progress[:, 0] = np.nan
    figure = FIGURES.hidden_progress(
        steps, accuracy, {"a measure": progress}, leaves=0.55, level=4.0,
        marked={"progress": 300.0, "accuracy": 700.0, "never": None},
    )  # fmt: skip
    words = {item.get_text() for ax in figure.axes for item in ax.texts}
    assert figure.axes[1].get_title(loc="left").endswith(": a measure")
    assert {"progress", "accuracy", "0.55", "4"} <= words and "never" not in words
    for ax, level in zip(figure.axes, (0.55, 4.0), strict=True):
        lines = [np.asarray(line.get_data()) for line in ax.lines]
        assert sorted(float(x[0]) for x, _ in lines if np.ptp(x) == 0) == [300.0, 700.0]
        assert level in [float(y[0]) for _, y in lines if len(y) == 2 and np.ptp(y) == 0]
        assert ax.get_ylim()[0] < level < ax.get_ylim()[1]


def test_levels_that_nothing_reaches_stay_in_view() -> None:
    steps, flat = np.arange(5) * 10, np.ones((3, 5))
    figure = FIGURES.hidden_progress(steps, 0.5 * flat, {"a": flat}, leaves=0.55, level=4.0)
    for ax, level in zip(figure.axes, (0.55, 4.0), strict=True):
        assert ax.get_ylim()[0] < level < ax.get_ylim()[1]


@pytest.mark.parametrize(("colours", "most"), [(200, 0), (20_000, 12)])
def test_pictures_within_a_figure_have_palettes(
    colours: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shade = rng.integers(0, colours, (90, 90)) / colours
    drawn = matplotlib.colormaps["jet"].resampled(colours)(shade)
    figure = Figure(figsize=(2, 2))
    figure.add_axes((0, 0, 1, 1)).imshow(drawn, interpolation="nearest")

    def pictures() -> list[Image.Image]:
        return [
            Image.open(io.BytesIO(base64.b64decode(one[0]))) for one in svg._PIXELS.finditer(text_of(figure))
        ]

    (small,) = pictures()
    monkeypatch.setattr(svg, "_with_palette", lambda encoded: encoded)
    (whole,) = pictures()
    assert (small.mode, whole.mode, small.size) == ("P", "RGBA", whole.size)
    assert (whole.getcolors(256) is None) == (most > 0)
    assert np.abs(np.asarray(small.convert("RGB"), int) - np.asarray(whole.convert("RGB"), int)).max() <= most


def test_a_picture_with_transparent_pixels_stays() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), (255, 0, 0, 90)).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert svg._with_palette(encoded) == encoded
