"""The detectors from the command line: real runs in small, what is missing, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynalab import analyze, train
from dynalab.show import plots as figures

EDGE = ["task=regression", "train.steps=1600", "probes=[gradients,curvature]", "probe.curvature.every=40"]


def test_gradient_descent_on_a_polynomial_reaches_the_edge(tmp_path):
    (ensemble,) = train([*EDGE, "eval.every=1", "seed=0", "launcher=inline"], outputs=tmp_path)
    (run,) = analyze("eos", ensemble).data["runs"]
    assert run["verdict"] == "at_edge" and 200 <= run["onset_step"] <= 1400, run["reason"]
    assert 0.97 <= run["median_ratio"] <= 1.08 and not run["adaptive"]
    assert run["loss"]["corroborated"], run["loss"]
    # What the values are of stands with them.
    assert run["probe_size"] == 20 and run["probe_mode"] == "training"
    assert 0 < run["residual_median"] <= run["residual_max"] <= 0.01
    assert set(ensemble.array("curvature_probe_size").ravel()) == {20.0}


@pytest.mark.usefixtures("undrawn")
def test_one_command_after_another(here, outputs):
    short = [
        "experiment=thilak2022_slingshot",
        "train.steps=40",
        "seed=0..1",
        "compute.workers=1",
        "model.hidden=[8]",
    ]
    answer = here("train", *short, "--json")
    assert answer.code == 0, answer.err
    found = here("analyze", "slingshot", "--json")
    assert found.code == 0, found.err
    (analysis,) = found.json["analyses"]
    assert {"id", "ensemble", "warnings", "runs"} <= set(analysis)
    for run in analysis["runs"]:
        assert {"run", "events", "period_steps", "period_cv", "missing_channels"} <= set(run)
        assert run["missing_channels"] == ["edge_ratio"]
    page = here("report")
    assert page.code == 0, page.err
    assert "Slingshots" in Path(page.out.strip()).read_text()
    # What was not recorded is named with the command that records it.
    for kind, probe in (("eos", "curvature"), ("periods", "scale_invariant")):
        missing = here("analyze", kind)
        assert missing.code == 4 and probe in missing.err and "Traceback" not in missing.err


@pytest.mark.parametrize("kind", ["slingshot", "eos", "periods"])
def test_a_wrong_key_is_one_line(here, outputs, kind):
    answer = here("analyze", kind, "nonsense=3")
    assert answer.code == 2 and answer.err.count("\n") <= 2 and "nonsense" in answer.err


def test_the_figure_shades_every_event():
    steps = np.arange(0, 1000, 10.0)
    curve = (steps, 10.0 ** -(steps % 300 / 50))
    figure = figures.events_over_curves(
        ["a", "b"], [curve, curve], [curve, curve], [[(300, 400, "slingshot"), (600, np.inf, "unknown")], []],
        names=("loss", "norm"), dashed=[curve, curve], dashed_name="threshold",
        marked=[{"arrival": 100.0}, {"arrival": None}],
    )  # fmt: skip
    first = figure.axes[0]
    assert len(first.patches) == 2 and first.get_yscale() == "log"
    edges = first.patches[1].get_xy()[0] + first.patches[1].get_width()
    assert edges == pytest.approx(990)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["loss", "norm (right)", "threshold", "arrival", "slingshot", "unknown"]
