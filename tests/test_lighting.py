"""A run can be followed through every figure and table of a page: the marks that figures carry."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fakes import make_ensemble, make_hmm, training

from dynalab.report import page
from dynalab.report.write import write_report
from dynalab.show import svg
from dynalab.show.plots import events_over_curves, landmark_steps, state_raster, training_curves
from dynalab.store.find import select
from dynalab.store.reader import Ensemble

RUNS = [f"e/{name}" for name in ("a", 'b"<', "c")]


def marked(figure: Figure) -> list[list[str]]:
    """Return the runs of every marked part of a figure, in the order in which they are drawn."""
    source = svg.inline(svg.to_svg(figure), "p", "x", runs=RUNS)
    assert 'id="p-run' not in source
    found = re.findall(r'<g class="run"(?: data-run="([^"]*)"| data-runs="([^"]*)")?', source)
    return [json.loads(unescape(many)) if many else [unescape(one)] for one, many in found]


def test_what_is_drawn_of_a_run_carries_its_id() -> None:
    steps, values = np.arange(5), np.random.default_rng(0).random((3, 5))
    assert marked(training_curves(steps, {"train": values}, {})) == [[run] for run in RUNS]
    assert marked(landmark_steps({"x": np.array([30.0, np.nan, 10.0])}, first=0, last=40)) == [
        [RUNS[2], RUNS[0]]
    ]
    # The rows of a raster are sorted; their marks are not.
    raster = state_raster(
        [steps] * 3, [np.zeros(5, int)] * 3, ["a", "b", "c"], 2, order_by=np.array([2.0, 1.0, 3.0])
    )
    assert marked(raster) == [[RUNS[1]], [RUNS[0]], [RUNS[2]]]
    # One of more runs than are named is not marked by another's name.
    assert svg.inline('<svg><g id="run-7"></g></svg>', "p", "x", runs=RUNS).count("data-run") == 0


def test_axes_say_where_they_lie_and_what_they_show() -> None:
    figure = Figure(figsize=(4, 2))
    ax = figure.add_axes((0.25, 0.1, 0.5, 0.8))
    ax.set(xlim=(0, 10), ylim=(1, 100), yscale="log", xlabel="step (log scale)")
    ax.set_title("loss", loc="left")
    bars = figure.add_axes((0.9, 0.1, 0.05, 0.8))
    bars.set_yticks([0, 1], ["a", "b"])
    bars.set_xlim(0, 1)
    svg.to_svg(figure)
    one, two = json.loads(svg.scales(figure))
    assert one == [72.0, 14.4, 216.0, 129.6, [0, 10, 0, "step"], [1, 100, 1, "loss"], 0, "loss"]
    assert two[5] is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynalab.show.svg.RASTER_DPI", 40)


def test_a_page_has_its_figures_beside_it(drawn: None, outputs: Path) -> None:
    made = make_ensemble(outputs)
    path = write_report(
        select(outputs, [made.id], None, Ensemble), {made.id: [make_hmm(outputs, made)]}, outputs
    )
    source = path.read_text("utf-8")
    files = {item.name for item in (path.parent / "figures").iterdir()}
    assert set(re.findall(r'href="figures/([^"]+)"', source)) == files and len(files) >= 16
    stems = {name.rpartition(".")[0] for name in files}
    assert {f"{stem}.svg" for stem in stems} | {f"{stem}.png" for stem in stems} == files
    # One more where values are on the other scale.
    assert source.count("<svg") == len(stems) + source.count('class="values"') + source.count(
        'class="plot narrow"'
    )
    # The pointer finds words on the map.
    assert "<title>0\u00a0\u2192 2: 1 of 4 runs;" in source


def test_what_a_sweep_folds_away_is_drawn_once(drawn: None, outputs: Path) -> None:
    steps = np.arange(30) * 100
    made = [
        make_ensemble(
            outputs, n_runs=3, steps=steps, values=training(3, steps),
            overrides=["task=grokking", f"optimizer.lr={lr}"], slug=f"lr{place}",
        )
        for place, lr in enumerate((0.01, 0.02))
    ]  # fmt: skip
    path = write_report(select(outputs, [item.id for item in made], None, Ensemble), {}, outputs)
    first, *others = path.read_text("utf-8").split("<figure")[1:]

    def wide(figure: str) -> float:
        return float(figure.split('viewBox="0 0 ')[1].split()[0])

    small = [figure for figure in others if figure.startswith(' class="small"')]
    # Of either setting its curves and its panels; what stands at the top is as wide as the page.
    assert len(small) >= 4 and not first.startswith(' class="small"') and wide(first) > 72 * svg.FITS
    assert all(
        figure.count('<div class="plot') == 1 and wide(figure) <= 72 * svg.PHONE + 0.1 for figure in small
    )


def test_curves_and_shades_have_colours_of_their_own_on_a_dark_page() -> None:
    sheet = Path(page.__file__).with_name("templates") / "page.css"
    dark = sheet.read_text("utf-8").split("{% set dark %}")[1].split("{% endset %}")[0]
    assert all(f"--{name}:" in dark for name in svg._OF_SHAPES.values())
    curve = np.arange(9), np.arange(9.0)
    figure = events_over_curves(["a"], [curve], None, [[(2, 4, "edge")]], names=("sharpness", ""))
    source = svg.inline(svg.to_svg(figure), "p", "x")
    assert "var(--shade-3, #bfe3d6)" in source and "var(--curve-blue, #0072b2)" in source
