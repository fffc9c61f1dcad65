"""Axes of steps: runs on steps of their own, training that begins late, and scales that say what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_fakes import make_ensemble, read_page

import dynalab
from dynalab.report import gather
from dynalab.show.plots import thin
from dynalab.show.plots.curves import middle_of
from dynalab.show.plots.lines import LinePanel, line_panels
from dynalab.show.plots.style import LOG_SCALE, is_log_spaced, step_span

FIGURES = dynalab.figures
NAN = np.nan


def two_grids(n_runs: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values (S, T) of early runs at 0, 10, ... and late runs at 5, 15, ...: no step is shared."""
    steps = np.arange(0, 1000, 5)
    values = np.full((n_runs, len(steps)), NAN)
    for run in range(n_runs):
        own = steps % 10 == (0 if run < n_runs // 2 else 5)
        values[run, own] = 1 / (1 + np.exp(-(steps[own] - (300 if run < n_runs // 2 else 600) - run) / 40))
    return steps, values


def median_of(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Return the thickest line, which is the median's."""
    line = max(ax.lines, key=lambda item: item.get_linewidth())
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def figures_of(steps: np.ndarray, values: np.ndarray) -> dict[str, Figure]:
    """Return every figure that has an axis of steps and takes arrays (S, T)."""
    spans = [[(float(steps[1]), float(steps[2]), "slingshot")]] * len(values)
    curve = [(steps, row) for row in values]
    rows = [
        {"step": steps, **dict.fromkeys(("sharpness", "threshold", "parent_sharpness"), row)}
        for row in values
    ]
    edges = np.concatenate([-np.geomspace(1e-2, 1e-4, 4)[::-1], np.geomspace(1e-4, 1e-2, 4)])
    shares = np.full((len(steps), len(edges) - 1), 0.1)
    states = np.arange(len(steps)) // 2 % 3
    return {
        "curves": FIGURES.curves(steps, {"x": values}),
        "training": FIGURES.training_curves(steps, {"test": values}, {"test": values}),
        "panels": FIGURES.metric_panels({"x": steps}, {"x": values}),
        "comparison": FIGURES.comparison({"a": (steps, values), "b": (steps, values + 1)}),
        "progress": FIGURES.hidden_progress(steps, values, {"x": values}, leaves=0.5, level=2.0),
        "events": FIGURES.events_over_curves(["r"] * len(values), curve, curve, spans, names=("a", "b")),
        "halved": FIGURES.halved_rate(["r"] * len(values), rows, [int(steps[1])] * len(values)),
        "spectrum": FIGURES.spectral_density(["r"], [steps], [shares], edges),
        "states": FIGURES.state_raster([steps] * 3, [states] * 3, ["a", "b", "c"], 3),
        "landmarks": FIGURES.landmark_steps(
            {"x": steps[[1, 2, 2]].astype(float)}, first=float(steps[0]), last=float(steps[-1])
        ),
    }


def test_a_run_counts_between_its_rows_and_not_beyond_them() -> None:
    steps = np.array([0, 10, 20, 30, 40])
    values = np.array([[0.0, NAN, 4.0, NAN, NAN], [NAN, 1.0, NAN, 3.0, NAN], [NAN, 5.0, np.inf, NAN, 9.0]])
    found = thin.on_columns(steps, values, np.arange(5))
    np.testing.assert_array_equal(found[:2], [[0, 2, 4, NAN, NAN], [NAN, 1, 2, 3, NAN]])
    # Infinity was recorded: it is no gap to draw a line over.
    assert not np.isfinite(found[2, [0, 2, 3]]).any() and found[2, 4] == 9
    np.testing.assert_array_equal(thin.on_columns(steps, values, np.array([1, 3]))[0], [2, NAN])


def test_the_median_of_runs_that_share_no_step_is_no_zigzag() -> None:
    steps, values = two_grids()
    truth = np.array([np.interp(steps, steps[~np.isnan(row)], row[~np.isnan(row)]) for row in values])
    for figure in (
        FIGURES.curves(steps, {"x": values}),
        FIGURES.comparison({"a": (steps, values)}),
        FIGURES.metric_panels({"x": steps}, {"x": values}),
    ):
        x, middle = median_of(figure.axes[0])
        inside = (x >= 5) & (x <= 990)
        assert (np.diff(middle[inside]) > -1e-12).all()
        expected = np.median(truth, axis=0)[np.searchsorted(steps, x[inside])]
        np.testing.assert_allclose(middle[inside], expected, atol=1e-12)
        assert "interpolated" in figure.get_supxlabel()
        band = figure.axes[0].collections[0].get_paths()[0].get_extents()
        assert band.height > 0.9, "the quartiles are those of both groups"


def test_where_no_run_has_rows_no_line_is_drawn() -> None:
    steps = np.array([0, 10, 20, 100, 110, 120])
    values = np.full((4, 6), NAN)
    values[:2, :3], values[2:, 3:] = 1.0, 2.0
    figure = FIGURES.curves(steps, {"x": values})
    x, middle = median_of(figure.axes[0])
    np.testing.assert_array_equal(x[:4], [0, 10, 20, 100])
    np.testing.assert_array_equal(middle, [1, 1, 1, NAN, 2, 2, 2])
    assert figure.get_supxlabel() == ""


def test_runs_that_share_their_steps_are_drawn_as_they_are() -> None:
    steps = np.arange(0, 100, 10)
    values = np.random.default_rng(0).normal(size=(5, 10))
    values[0, 6:] = NAN
    figure = FIGURES.curves(steps, {"x": values})
    np.testing.assert_allclose(median_of(figure.axes[0])[1], np.nanmedian(values, axis=0))
    assert figure.get_supxlabel() == ""


def test_a_median_of_zeros_is_none_of_the_values_above() -> None:
    steps = np.arange(0, 100, 10)
    values = np.tile(np.geomspace(1, 1e-6, 10), (5, 1))
    values[:3, 5:] = 0.0
    _, low, middle, high, _ = middle_of(steps, values, np.arange(10), True)
    assert np.isfinite(middle[:5]).all() and np.isnan(middle[5:]).all()
    np.testing.assert_array_equal(low[5:], 1e-6)
    np.testing.assert_array_equal(high[5:], values[4, 5:])


def test_together_a_median_goes_where_all_runs_do() -> None:
    at = np.linspace(-1, 1, 9)
    values = np.array([1.0, 2.0, 6.0, 9.0])[:, None] + np.zeros(9)
    values[0, :2] = values[1, 7:] = values[3] = NAN
    x, low, middle, high, _ = middle_of(at, values, np.arange(9), False, together=True)
    np.testing.assert_array_equal(x, at[2:7])
    assert {*low} == {1.0} and {*middle} == {2.0} and {*high} == {6.0}
    panels = [LinePanel("loss", at, {"loss": values})]
    over = line_panels(panels, axis="norms of the weights")
    np.testing.assert_array_equal(median_of(over.axes[0])[0], at[2:7])
    # Over steps runs end when they do, and the others go on.
    np.testing.assert_array_equal(median_of(line_panels(panels).axes[0])[0], at)


def test_an_axis_begins_where_the_rows_do() -> None:
    assert step_span(np.array([0, 50])) == (0, 50)
    assert step_span(np.array([1, 100])) == (0, 100)
    assert step_span(np.array([1000, 1100]), np.array([900])) == (900, 1100)
    assert step_span(np.array([7])) == (7, 8) and step_span() == (0, 1)


@pytest.mark.parametrize("late", [0, 1_000_000])
def test_every_figure_begins_at_the_first_step(late: int) -> None:
    steps = late + np.arange(0, 1000, 50)
    values = 1.0 + np.random.default_rng(0).uniform(size=(3, len(steps)))
    for name, figure in figures_of(steps, values).items():
        axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert axes
        for ax in axes:
            low, high = ax.get_xlim()
            assert late - 50 <= low <= late and late + 950 <= high <= late + 1000, (name, low, high)
            shown = [item.get_text() for item in ax.get_xticklabels() if item.get_text()]
            assert len(shown) >= 2 and len(set(shown)) == len(shown), (name, shown)


def test_no_axis_is_logarithmic_in_silence() -> None:
    steps = np.unique(np.geomspace(1, 100_000, 60).astype(int))
    values = np.geomspace(1, 1e-6, len(steps))[None] * np.array([[1.0], [2.0], [3.0]])
    scales = set()
    for name, figure in figures_of(steps, values).items():
        for ax in figure.axes:
            for axis in (ax.xaxis, ax.yaxis) if ax.get_label() != "<colorbar>" else ():
                if axis.get_scale() != "linear":
                    scales.add((name, axis.axis_name))
                    text = axis.get_label_text() or figure.axes[-1].get_xlabel()
                    assert LOG_SCALE in text, (name, axis.axis_name)
                else:
                    assert LOG_SCALE not in axis.get_label_text(), (name, axis.axis_name)
    assert {("curves", "x"), ("panels", "x"), ("panels", "y"), ("events", "y"), ("states", "x")} <= scales


def test_rows_of_one_figure_share_their_scale() -> None:
    steps = np.arange(0, 100, 10)
    flat, steep = np.ones(10), np.geomspace(1, 1e-6, 10)
    curve = [(steps, flat), (steps, steep)]
    figure = FIGURES.events_over_curves(["a", "b"], curve, None, [[], []], names=("loss", ""))
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (np.unique(np.geomspace(1, 10_000, 40).astype(int)), True),
        (np.arange(0, 1000, 10), False),
        # A hole in a log, and rows beside the grid.
        (np.concatenate([np.arange(0, 100), np.arange(900, 1000)]), False),
        (np.sort(np.random.default_rng(0).choice(10_000, 60, replace=False)), False),
        (np.concatenate([[0, 1, 2], np.arange(50, 1000, 50)]), False),
    ],
)
def test_only_a_grid_that_grows_makes_a_logarithmic_axis(steps: np.ndarray, expected: bool) -> None:
    assert is_log_spaced(steps) is expected


def test_rows_move_to_the_nearest_of_fewer_steps(
    here: Cli, tmp_path: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, generator = ["run,step,train_loss"], np.random.default_rng(0)
    for run in range(4):
        for step in np.sort(generator.choice(np.arange(500, 900), 30, replace=False)):
            lines.append(f"r{run},{step},{step + run}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    assert here("import", str(tmp_path / "own.csv")).code == 0
    ensemble = dynalab.load("@last")
    whole = gather.gather(ensemble, ensemble.runs, [])
    assert not whole.fewer and whole.first_step >= 500
    monkeypatch.setattr(gather, "CELLS", 4 * 40)
    monkeypatch.setattr(thin, "POINTS", 1)
    shown = gather.gather(ensemble, ensemble.runs, [])
    grid, values = shown.steps["train_loss"], shown.values["train_loss"]
    assert len(grid) == 40 and shown.fewer == {"train_loss": len(whole.steps["train_loss"])}
    assert {grid[0], grid[-1]} == {whole.steps["train_loss"][0], whole.steps["train_loss"][-1]}
    for run, row in enumerate(values):
        some = np.isfinite(row)
        assert some.sum() > 15 and (np.abs(row[some] - run - grid[some]) <= np.diff(grid).max()).all()
    answer = here("report", "--name", "own")
    assert answer.code == 0
    page = read_page(outputs / "reports" / "own" / "index.html")
    assert f"Figures show 40 of {len(whole.steps['train_loss'])} recorded steps" in page.text
    assert f"Nothing was recorded before step {whole.first_step}." in page.text
    # Each ended where its rows do: nobody asked for more.
    assert all(" of " not in row[2] for row in page.table("run", "status", "steps"))


def test_an_unknown_metric_is_scaled_by_its_values(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynalab.report import overview

    steps = np.arange(0, 200, 10)
    asked: list[dict[str, Any]] = []
    figure = FIGURES.comparison
    monkeypatch.setattr(
        overview.plots, "comparison", lambda *rows, **keys: asked.append(keys) or figure(*rows, **keys)
    )
    for name in ("perplexity", "test_accuracy"):
        values = np.geomspace(1, 1e-4, len(steps))[None].repeat(3, 0)
        items = [
            make_ensemble(
                outputs / name,
                n_runs=3,
                steps=steps,
                values={name: values},
                overrides=["task=grokking", extra],
            )
            for extra in ("optimizer.lr=0.01", "optimizer.lr=0.02")
        ]
        shown = [gather.gather(item, item.runs, []) for item in items]
        for item in shown:
            monkeypatch.setattr(item.ensemble, "config", {**item.ensemble.config, "convergence": {}})
        overview.comparison(shown, overview.name_ensembles(shown), {})
    assert [keys["logarithmic"] for keys in asked] == [True, False]
