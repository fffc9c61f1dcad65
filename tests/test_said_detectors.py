"""What pages and terminal say of detectors and variance is what their results hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import simulated_slingshots
from report_fakes import make_ensemble, no_drawing, steps_of
from report_reading import DASH, Writer, altered, analysed, curve, labels, shades, terminal

from dynalab.analysis import periods
from dynalab.core import words
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import write_result


@pytest.fixture
def page(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    return Writer(outputs, no_drawing(monkeypatch))


def words_of(line: str) -> list[str]:
    return line.split()


# Detectors


def at_the_edge(outputs: Path) -> tuple[Ensemble, dict[str, np.ndarray]]:
    """Store four runs: two arrive and stay (steps 59 and 79), one leaves at 120, one stays below."""
    steps = np.arange(200)
    rise = np.concatenate([np.linspace(0.2, 1, 60), np.full(140, 1.01)])
    late = np.concatenate([np.full(20, 0.2), rise[:-20]])
    ratio = np.stack([rise, rise * np.where(steps > 120, 0.5, 1), rise / 2, late])
    loss = np.exp(-steps / 50)[None].repeat(4, 0)
    loss[:, 60:] *= 1 + 0.1 * (-1.0) ** steps[60:]
    values = {
        "train_loss": loss, "sharpness": 20 * ratio, "stability_threshold": np.full((4, 200), 20.0),
        "edge_ratio": ratio, "sharpness_residual": 0.02 * ratio, "curvature_probe_size": np.full((4, 200), 1024.0),
        "curvature_probe_training": np.zeros((4, 200)),
    }  # fmt: skip
    words = ["task=grokking", "eval.every=1", "optimizer=sgd"]
    return make_ensemble(outputs, steps=steps, values=values, overrides=words), values


def test_the_edge_of_stability(page: Writer, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble, values = at_the_edge(outputs)
    result, lines = analysed(outputs, "eos", capsys)
    shown = page(found={ensemble.id: [result]})
    said = "of 4 runs, 2 at the edge of stability, 1 at the edge for a time and 1 below the edge; arrival"
    # At the top, and not again in the section.
    assert shown.text.count(said) == shown.text.count(", median ratio there 1.010.") == 1
    rows = shown.table("run", "verdict", "arrival", "left", "median ratio")
    assert [row[:7] for row in rows] == [
        ["s0000", "at edge", "59", DASH, "1.01", "0", "0.7035"],
        ["s0001", "visited", "59", "120", "1.01", "0", "0.3065"],
        ["s0002", "below edge", DASH, DASH, "0.505", "0", "0"],
        ["s0003", "at edge", "79", DASH, "1.01", "0", "0.603"],
    ]
    ups = [
        entry["loss"] and [f"{100 * entry['loss'][f'loss_up_{key}']:.0f}%" for key in ("before", "after")]
        for entry in result["runs"]
    ]
    assert [row[7] for row in rows] == [DASH if up is None else " / ".join(up) for up in ups]
    assert [row[8] for row in rows] == [entry["reason"] for entry in result["runs"]]
    shown.says(
        "Sharpness on 1,024 training examples, network in evaluation mode, residuals at most 0.1% of the eigenvalue.",
        "Sharpness against its threshold. Shaded: at the edge of stability.",
    )
    figure = shown.figure("edge")
    left = [ax for ax in figure.axes if ax.get_title(loc="left")]
    names = ["s0000: at edge", "s0001: visited", "s0003: at edge", "s0002: below edge"]
    assert [ax.get_title(loc="left") for ax in left] == names
    assert [shades(ax) for ax in left] == [[[59, 199]], [[59, 120]], [[79, 199]], []]
    for ax, row in zip(left, (0, 1, 3, 2), strict=True):
        np.testing.assert_allclose(curve(ax.lines[0])[1], values["sharpness"][row])
        np.testing.assert_allclose(curve(ax.lines[1])[1], 20.0)
    right = [ax for ax in figure.axes if not ax.get_title(loc="left")]
    np.testing.assert_allclose(curve(right[1].lines[0])[1], values["train_loss"][1])
    assert labels(figure) == ["sharpness", "training loss (right)", "threshold", "arrival", "edge"]
    # In the terminal the same sentences, and the same table under its caption.
    (caption,) = (line for line in lines if line.startswith("Every run; the ratio is that at the edge, or"))
    assert (
        "arrives at the first row whose ratio has risen from its minimum to 1, less two standard errors"
        in caption
    )
    assert lines[0].startswith(f"Edge of stability: {said}") and lines[0] in shown.text
    assert [words_of(line) for line in lines[3:7]] == [words_of(" ".join(row)) for row in rows]
    assert lines[7] == (
        "Sharpness on 1,024 training examples, network in evaluation mode, residuals at most 0.1% of the eigenvalue."
    )
    many = terminal(altered(result, runs=[{**result["runs"][2], "median_ratio": None}] * 21))
    assert many[-2:] == ["  and 1 more", lines[7]] and len(many) == 25
    assert words_of(many[21])[:6] == ["s0002", "below", "edge", DASH, DASH, DASH]


def test_forks_at_half_the_rate(page: Writer, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble, _ = at_the_edge(outputs)
    result, _ = analysed(outputs, "eos", capsys)
    rows = [
        {"run": f"{ensemble.id}/s000{k}", "fork": "f", "at_step": 90 + k, "verdict": verdict,
         "confirmed": verdict == "confirmed", "rise": 1.5 + k, "from_step": 80, "fork_onset_step": None if k else 150,
         "fork_last_ratio": 0.75,
         "reason": f"because {k}"}
        for k, verdict in enumerate(("confirmed", "not_confirmed"))
    ]  # fmt: skip

    steps, parent = np.arange(90, 100), {"parent_sharpness": 10.0}
    table = pd.concat(
        pd.DataFrame({"run": row["run"], "step": steps, "sharpness": 20.0 + k, "threshold": 40.0} | parent)
        for k, row in enumerate(rows)
    )  # fmt: skip
    data = {**result.data, "confirmation": {"forks": ["abc", "def"], "runs": rows}}
    result = write_result(
        OutputPaths(outputs).analysis("eos", result.id), data, {**result.frames(), "confirmation": table}
    )
    shown = page(found={ensemble.id: [result]})
    said = "Confirmed in 1 of 2 runs: at half the rate the sharpness rose 1.50 to 2.50 times"
    shown.says(
        f"{said} (fork: abc and def).", "Half the rate, twice the threshold. A sharpness", "Every fork"
    )
    assert shown.table("run", "verdict", "rate halved at") == [
        ["s0000", "confirmed", "90", "150", "0.75", "because 0"],
        ["s0001", "not confirmed", "91", DASH, "0.75", "because 1"],
    ]  # fmt: skip
    axes = shown.figure("halved").axes
    assert [ax.get_title(loc="left") for ax in axes] == ["s0000: confirmed", "s0001: not confirmed"]
    assert [[curve(line)[1][0] for line in ax.lines[:3]] for ax in axes] == [[10, 20, 40], [10, 21, 40]]
    assert [curve(ax.lines[3])[0][0] for ax in axes] == [90, 91]
    lines = terminal(result)
    assert lines[-5] == f"{said} (fork: abc and def)."
    assert words_of(lines[-1]) == ["s0001", "not", "confirmed", "91", DASH, "0.75", "because", "1"]


def slung(outputs: Path) -> tuple[Ensemble, dict[str, np.ndarray]]:
    """Store three runs: two with the slingshots of a simulated case, one that is fitted and stays so."""

    (case,) = simulated_slingshots.slingshots(3).group.runs
    steps, (loss, norm) = case.grid, case.table(("train_loss", "last_layer_norm")).T
    calm = np.minimum(np.exp(-steps / steps[-1] * 40), 1) * loss[0] + 1e-4
    values = {
        "train_loss": np.stack([calm, loss, loss]),
        "train_loss_max": 1.5 * np.stack([calm, loss, loss]),
        "last_layer_norm": np.stack([norm[:1].repeat(len(steps)), norm, norm]),
    }
    words = ["task=grokking", f"eval.every={steps[1]}"]
    return make_ensemble(outputs, n_runs=3, steps=steps, values=values, overrides=words), values


EVENT = ("onset_step", "peak_step", "end_step", "amplitude_decades", "norm_slope_ratio", "confidence")


def test_slingshots(page: Writer, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble, values = slung(outputs)
    result, lines = analysed(outputs, "slingshot", capsys)
    events = result["runs"][1]["events"]
    onsets = [event["onset_step"] for event in events]
    assert len(events) == 2 and not result["runs"][0]["events"]
    data = result.data
    data["runs"][2]["events"][1]["kind"] = "edge_spike"
    data["summary"]["kinds"] = {"slingshot": 3, "edge_spike": 1}
    data["runs"][2]["events"][1]["end_step"] = None
    forked = {"from_step": 4000, "slingshots": 2, "fork_slingshots": 0, "fork_events": 0}
    data["confirmation"] = {
        "change": "train.loss_dtype=float64",
        "forks": ["abc"],
        "runs": [
            {"run": f"{ensemble.id}/s000{k}", "fork": f"abc/s000{k}", **forked, "confirmed": k == 1}
            for k in (1, 2)
        ],
    }
    shown = page(found={ensemble.id: [result]})
    period = words.number(float(np.diff(onsets)[0]))
    shown.says(
        "Slingshots in 2 of 3 runs, no spikes in 1; the first at step",
        f"some {period} steps apart; other spikes: 1 edge spike.",
        "Loss and norm of the last layer, events shaded. A slingshot", "4 events",
        "Trained again with the loss in float64 from their checkpoint of step 4,000: gone, and so confirmed, in 1 of 2 "
        "runs (abc).",
        f"Not recorded, and so not weighed: {words.listed(sorted(result['runs'][0]['missing_channels']))}.",
    )  # fmt: skip
    stored = [(run["run"][-5:], event) for run in data["runs"] for event in run["events"]]
    assert shown.table("run", "kind", "onset") == [
        [
            name, event["kind"].replace("_", " "),
            *(words.number(event[key]) for key in EVENT),
            event["reason"],
        ]
        for name, event in stored
    ]  # fmt: skip
    figure = shown.figure("slingshots")
    left = [ax for ax in figure.axes if ax.get_title(loc="left")]
    # Those with a slingshot first.
    assert [ax.get_title(loc="left") for ax in left] == ["s0001", "s0002", "s0000"]
    last = float(ensemble.steps("train_loss")[-1])
    spans = [
        [[event["onset_step"], event["end_step"] or last] for event in data["runs"][k]["events"]]
        for k in (1, 2, 0)
    ]
    assert [shades(ax) for ax in left] == spans
    np.testing.assert_allclose(curve(left[0].lines[0])[1], values["train_loss_max"][1])
    right = [ax for ax in figure.axes if not ax.get_title(loc="left")]
    np.testing.assert_allclose(curve(right[0].lines[0])[1], values["last_layer_norm"][1])
    assert labels(figure) == [
        "training loss, largest since the last row",
        "norm of the last layer (right)",
        "slingshot",
        "edge spike",
    ]
    at = ", ".join(f"{step:,}" for step in onsets)
    assert shown.table("run", "verdict", "events", "period", "its variation") == [
        ["s0000", "no events", DASH, DASH, DASH],
        ["s0001", "slingshot", f"slingshot at {at}", period, DASH],
        ["s0002", "slingshot", f"edge spike at {onsets[1]:,}; slingshot at {onsets[0]:,}", period, DASH],
    ]
    # In the terminal the same, of the result as it was.
    assert lines[0].startswith("Slingshots in 2 of 3 runs, no spikes in 1; the first at step")
    assert f"step {onsets[0]:,} " in lines[0]
    assert words_of(lines[3]) == ["s0001", "slingshot", *f"slingshot at {at}".split(), period, DASH]


def test_periods(page: Writer, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.arange(0, 2000, 5)
    phase = np.stack([steps % 400, steps % 400, steps % 500, steps])
    values = {"train_loss": np.where(phase < 40, 1.0, 0.01), "scale_invariant_norm": np.exp(-0.001 * phase)}
    keys = [f"optimizer.{key}" for key in ("lr=0.1", "momentum=0", "weight_decay=0.01")]
    ensemble = make_ensemble(
        outputs, steps=steps, values=values, task="digits",
        overrides=["task=digits", "eval.every=5", "optimizer=sgd", *keys, "model=si_mlp"],
    )  # fmt: skip
    result, lines = analysed(outputs, "periods", capsys)
    reasons = [item["reason"] for item in result["runs"]]
    shown = page(found={ensemble.id: [result]})
    shown.says(
        "Periods and regimes: periodic in 3 and no period in 1 of 4 runs; events some 400 steps apart.",
        "Loss and norm of the scale-invariant weights. Shaded: the norm jumps.",
    )
    assert shown.table("run", "verdict", "regime", "events", "period", "its variation", "why") == [
        ["s0000", "periodic", DASH, "4", "400", "0", reasons[0]],
        ["s0001", "periodic", DASH, "4", "400", "0", reasons[1]],
        ["s0002", "periodic", DASH, "3", "500", "0", reasons[2]],
        ["s0003", "no period", DASH, "0", DASH, DASH, reasons[3]],
    ]  # fmt: skip
    figure = shown.figure("periods")
    left = [ax for ax in figure.axes if ax.get_title(loc="left")]
    wide = 0.004 * 1995
    assert (
        shades(left[2]) == [[at, pytest.approx(at + wide)] for at in (495, 995, 1495)]
        and shades(left[3]) == []
    )
    np.testing.assert_allclose(curve(left[2].lines[0])[1], values["train_loss"][2])
    right = [ax for ax in figure.axes if not ax.get_title(loc="left")]
    np.testing.assert_allclose(curve(right[2].lines[0])[1], values["scale_invariant_norm"][2])
    assert labels(figure) == [
        "training loss, largest since the last row", "norm of the scale-invariant weights (right)", "norm jump",
    ]  # fmt: skip
    assert lines[0].startswith("Periods and regimes: periodic in 3 and no period in 1 of 4 runs")
    assert [line.split()[:6] for line in lines[2:4]] == [
        [f"s000{k}", "periodic", "–", "4", "400", "0"] for k in (0, 1)
    ]
    assert all(line.endswith(reason) for line, reason in zip(lines[2:], reasons, strict=True))
    many = altered(result, runs=[result["runs"][3]] * 22)
    assert terminal(many)[-1] == "  and 2 more" and len(terminal(many)) == 23
    held = altered(result, runs=[{**result["runs"][3], "regime": "equilibrium"}] * 20)
    assert [line.split()[:4] for line in terminal(held)[2:]] == [
        ["s0003", "no", "period", "equilibrium"]
    ] * 20
    page(found={ensemble.id: [held]}).says("Periods and regimes: equilibrium in 20 of 20 runs.")


def test_six_runs_are_drawn_and_it_is_said(
    page: Writer, outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where something happened; in these runs nothing does.
    monkeypatch.setattr(periods, "telling", lambda strips, oddity: strips)
    steps = np.arange(0, 400, 5)
    values = {
        "train_loss": np.full((7, 80), 0.01),
        "scale_invariant_norm": np.exp(-0.001 * steps)[None].repeat(7, 0),
    }
    words_ = ["task=digits", "eval.every=5", "optimizer=sgd", "optimizer.momentum=0", "model=si_mlp"]
    ensemble = make_ensemble(outputs, n_runs=7, steps=steps, values=values, overrides=words_, task="digits")
    result, _ = analysed(outputs, "periods", capsys)
    shown = page(found={ensemble.id: [result]})
    shown.says("Loss and norm of the scale-invariant weights (6 of 7 runs). Shaded")
    assert len([ax for ax in shown.figure("periods").axes if ax.get_title(loc="left")]) == 6


# Variance


@pytest.mark.parametrize("log_time", [False, True])
def test_where_a_spread_comes_from(page: Writer, outputs: Path, capsys: Any, log_time: bool) -> None:
    steps = steps_of(1000)
    at = np.array([[100, 130, 170, 220], [300, 360, 390, 420], [500, 560, 520, 700]])
    values = {"test_accuracy": (steps[None] >= at.ravel()[:, None]) * 1.0}
    keys = [
        "task=grokking",
        "train.batch_size=16",
        "design=crossed",
        "seed_streams.init=[0,1,2]",
        "seed_streams.order=[0,1,2,3]",
    ]
    names = [f"init{a}-order{b}" for a in range(3) for b in range(4)]
    ensemble = make_ensemble(outputs, n_runs=12, steps=steps, values=values, labels=names, overrides=keys)
    result, lines = analysed(outputs, "variance", capsys, f"log_time={str(log_time).lower()}", "draws=400")
    shown = page(found={ensemble.id: [result]})
    first = result["shares"][0]
    low, high = (f"{bound:.0%}" for bound in first["interval"])
    middle = float(np.exp(np.log(at).mean()) if log_time else at.mean())
    assert result["mean_step"] == pytest.approx(middle)
    unit = "in logarithm" if log_time else "steps"
    sd, runs_sd = (words.number(float(f"{result[key]:.3g}")) for key in ("sd", "runs_sd"))
    assert result["runs_sd"] == pytest.approx((np.log(at) if log_time else at).std(ddof=1))
    mean = "geometric mean" if log_time else "mean"
    shown.says(
        "Variance of the convergence step over 12 runs: ", f"init {first['share']:.0%} [{low} to {high}]",
        "12 runs: 3 seeds of init and 4 seeds of order, crossed. Convergence (test accuracy at least 0.99 for 5 rows) "
        f"comes at step {middle:.0f} on the {mean}, with a standard deviation of {runs_sd} {unit} between these runs "
        f"({sd} of a run with seeds of its own, by the components below).",
    )  # fmt: skip
    rows = shown.table("source", "share", "95% interval", f"standard deviation ({unit})")
    assert rows == [
        [
            row["source"], f"{row['share']:.1%}", "{:.0%} to {:.0%}".format(*row["interval"]),
            words.number(float(f"{row['sd']:.3g}")), "estimated below 0, set to 0" if row["negative"] else "",
        ]
        for row in result["shares"]
    ]  # fmt: skip
    bars, init, order = shown.figure("shares").axes
    assert [bar.get_width() for bar in bars.patches] == [row["share"] for row in result["shares"]]
    assert [curve(line)[0] for line in bars.lines] == [row["interval"] for row in result["shares"]]
    assert curve(init.lines[0]) == [np.repeat([0, 1, 2], 4).tolist(), at.ravel().tolist()]
    assert curve(order.lines[0]) == [np.tile([0, 1, 2, 3], 3).tolist(), at.ravel().tolist()]
    alt = ", ".join(f"{row['source']} {row['share']:.0%}" for row in result["shares"])
    assert f"Shares of the variance: {alt}" in shown.alts()
    assert lines[0].startswith("Variance of the convergence step over 12 runs: ")
    spread = f"with a standard deviation of {runs_sd} {unit} between these runs ({sd} of a run with"
    assert f"comes at step {middle:.0f} on the {mean}, {spread}" in lines[1]
    assert lines[4].split()[:2] == ["init", f"{first['share']:.1%}"] and f"{low} to {high}" in lines[4]
    many = [
        {"sources": ["init", "order"], "share": 0.125, "negative": False},
        {"sources": ["init", "order", "x"], "share": None, "negative": False},
    ]
    shown = page(found={ensemble.id: [altered(result, interactions=many)]})
    assert shown.table("streams", "share") == [["init x order", "12.5%"], ["init x order x x", DASH]]
