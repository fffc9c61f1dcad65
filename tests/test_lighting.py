"""A run can be followed through every figure and table of a page, by pointer and keys; read in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fakes import make_ensemble, make_hmm

from dynalab.report.write import write_report
from dynalab.show import svg
from dynalab.show.plots import landmark_steps, state_raster, training_curves
from dynalab.store.find import select
from dynalab.store.reader import Ensemble

CHROMIUM = shutil.which("chromium")
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
    assert one == [72.0, 14.4, 216.0, 129.6, [0, 10, 0, "step"], [1, 100, 1, "loss"]]
    assert two[5] is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynalab.show.svg.RASTER_DPI", 40)


def browse(page: Path, script: str, folder: Path) -> Any:
    """Return what a script finds on a page, in headless Chromium."""
    assert CHROMIUM is not None
    source = page.read_text("utf-8")
    own = (
        "<script>window.onerror = function (message) { window.bad = message; };"
        f"window.addEventListener('load', function () {{ var found = (function () {{ {script} }})();"
        "var out = document.createElement('pre'); out.id = 'out';"
        "out.textContent = JSON.stringify([window.bad || null, found]); document.body.appendChild(out); });</script>"
    )
    test = folder / "page.html"
    test.write_text(source.replace("<head>", f"<head>{own}", 1), "utf-8")
    words = [
        *(
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--window-size=1280,800",
            "--dump-dom",
        ),
        f"--user-data-dir={folder / 'browser'}",
    ]
    done = subprocess.run(
        [CHROMIUM, *words, test.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found is not None, done.stdout[-500:]
    bad, said = json.loads(unescape(found[1]))
    assert bad is None
    return said


SCRIPT = """
var rows = document.querySelectorAll("tr[data-run]"), run = rows[1].dataset.run, said = {run: run};
function lit() { return Array.from(document.querySelectorAll(".lit")).map(function (x) { return x.dataset.run; }); }
function figures() {
  return new Set(Array.from(document.querySelectorAll(".lit")).map(function (x) { return x.closest("figure"); })).size;
}
function key(item, name) { item.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true})); }
rows[1].focus();
said.focused = [new Set(lit()).size, lit()[0] === run, figures()];
key(rows[1], "Enter");
rows[0].blur();
said.live = document.querySelector(".live").textContent;
document.dispatchEvent(new PointerEvent("pointermove", {clientX: 0, clientY: 0}));
said.kept = lit().every(function (x) { return x === run; }) && lit().length > 3;
key(document.body, "Escape");
said.out = lit().length;
document.querySelectorAll("details").forEach(function (x) { x.open = true; });
var row = rows[2];
row.scrollIntoView({behavior: "instant"});
var box = row.getBoundingClientRect();
row.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + 9, clientY: box.top + 6, bubbles: true}));
said.pointed = [lit().length > 3, lit()[0] === row.dataset.run];
var drawing = document.querySelector("#figure-1 .drawing");
drawing.scrollIntoView({behavior: "instant"});
var svg = drawing.querySelector("svg"), at = JSON.parse(drawing.dataset.scales)[0], b = svg.getBoundingClientRect();
var s = b.width / svg.viewBox.baseVal.width;
svg.dispatchEvent(new PointerEvent("pointermove", {
  clientX: b.left + s * (at[0] + at[2]) / 2, clientY: b.top + s * (at[1] + at[3]) / 2, bubbles: true}));
said.read = document.querySelector(".reading").textContent;
document.querySelector(".theme").click();
said.theme = document.documentElement.dataset.theme;
return said;
"""


def test_a_page_with_its_figures_in_a_browser(drawn: None, outputs: Path, tmp_path: Path) -> None:
    made = make_ensemble(outputs)
    path = write_report(
        select(outputs, [made.id], None, Ensemble), {made.id: [make_hmm(outputs, made)]}, outputs
    )
    source = path.read_text("utf-8")
    files = {item.name for item in (path.parent / "figures").iterdir()}
    assert set(re.findall(r'href="figures/([^"]+)"', source)) == files and len(files) >= 16
    stems = {name.rpartition(".")[0] for name in files}
    assert {f"{stem}.svg" for stem in stems} | {f"{stem}.png" for stem in stems} == files
    assert source.count("<svg") == len(stems)
    # The pointer finds words on the map.
    assert "<title>0\u00a0\u2192 2: 1 of 4 runs;" in source
    if CHROMIUM is None:
        pytest.skip("what a browser makes of the page is not tried: no Chromium (apt-get install chromium)")
    said = browse(path, SCRIPT, tmp_path)
    # Curves, landmarks, metrics and the raster.
    assert said["focused"][:2] == [1, True] and said["focused"][2] >= 4
    assert said["live"].startswith(f"Run {said['run'].rpartition('/')[2]} is lit up")
    assert said["kept"] and said["out"] == 0 and said["pointed"] == [True, True]
    assert re.search(r"step 100, loss [\d.e-]+$", said["read"])
    assert said["theme"] == "dark"
