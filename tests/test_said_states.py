"""What pages and terminal say of a hidden Markov model is what its result holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nulls.hmm import states_of
from report_fakes import make_ensemble, make_hmm, no_drawing, steps_of, training
from report_reading import ARROW, DASH, Writer, altered, curve, terminal

from dynalab.analysis import hmm
from dynalab.analysis.hmm import show
from dynalab.core import words
from dynalab.show.plots.style import state_colours


@pytest.fixture
def page(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    return Writer(outputs, no_drawing(monkeypatch))


def test_a_model_in_sentences_tables_and_figures(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=5)
    thirds = np.minimum(np.arange(21) // 7, 2)
    paths = [
        thirds,
        np.where(thirds == 1, 0, thirds),
        np.repeat([0, 2, 1], 7),
        thirds,
        np.repeat([0, 1], [9, 12]),
    ]
    result = make_hmm(outputs, ensemble, paths)
    shown = page(found={ensemble.id: [result]})
    shown.says(
        "Hidden Markov model of 5 runs: 3 states.",
        "States begin (median [quartiles] of first entry): 1 at step 80 [70 to 115], 4 of 5 runs; 2 at step 140 [105 "
        "to 140], 4 of 5 runs.",
        "3 states over 5 runs, 105 rows and 2 metrics (states of dynamics: in each, metrics move by a linear law of "
        "their own).",
        "States of every run, sorted by convergence step, the earliest on top. SVG",
        "In orange a fork",
    )
    assert shown.table("state", "runs", "share of rows") == [
        ["0", "5 of 5", "42%", "0", "0 to 0", "l2 falls, grad_norm falls"],
        ["1", "4 of 5", "31%", "80", "70 to 115", DASH],
        ["2", "4 of 5", "27%", "140", "105 to 140", "grad_norm rises, l2 rises"],
    ]
    stored = {tuple(item["states"]): item for item in result["paths"]}
    for way, n, middle, spread, members in shown.table("path", "runs", "converged at (median)"):
        item = stored[tuple(map(int, way.split(ARROW)))]
        assert n == f"{item['runs']} of 5" and middle == f"{item['median_step']:.0f}"
        low, high = item["quartiles"]
        assert spread == (f"{low:.0f} to {high:.0f}" if item["runs"] > 1 else DASH)
        assert members == words.listed([name[-5:] for name in item["members"]])
    edges = {(item["from"], item["to"]): item for item in result["edges"]}
    for way, n, interval, what in shown.table("edge", "runs", "95% interval"):
        item = edges.pop(tuple(map(int, way.split(ARROW))))
        low, high = item["interval"]
        assert (n, interval) == (f"{item['runs']} of 5", f"{100 * low:.0f}% to {100 * high:.0f}%")
        assert what == ", ".join(f"{one['name']} {one['change']:+.3g}" for one in item["features"])
    assert not edges
    counts, chances = (result["transitions"][key] for key in ("counts", "probabilities"))
    assert shown.table("from \\ to") == [
        [str(a), *(f"{words.number(p)} ({n})" for p, n in zip(chances[a], counts[a], strict=True))]
        for a in range(3)
    ]
    assert shown.swatches()[:3] == state_colours(3)
    sorts = shown.sorts()
    assert (sorts["5 of 5"], sorts["4 of 5"], sorts["42%"], sorts["80"]) == ("5.0", "4.0", "44.0", "80.0")
    # The map.
    (ax,) = shown.figure("map").axes
    said = {item.get_text() for item in ax.texts}
    assert {
        "5 of 5 runs\n42% of rows\nfrom 0",
        "4 of 5 runs\n31% of rows\nfrom 80",
        "4 of 5 runs\n27% of rows\nfrom 140",
    } <= said
    sizes = [patch.radius for patch in ax.patches if str(patch.get_gid()).startswith("state")]
    assert sizes == pytest.approx([0.13 + 0.14 * np.sqrt(n / 105) for n in (44, 33, 28)])
    # The raster: sorted by convergence, which here is the runs' own order.
    (ax,) = shown.figure("states").axes
    np.testing.assert_array_equal(np.asarray(ax.collections[0].get_array()), np.stack(paths)[:, :-1])
    assert [item.get_text() for item in ax.get_yticklabels()] == [f"s000{k}" for k in range(5)]
    marks = {item.get_label(): np.asarray(item.get_offsets()).tolist() for item in ax.collections[-2:]}
    assert marks == {
        "memorised": [[40, k + 0.5] for k in range(5)],
        "generalised": [[110 + 10 * k, k + 0.5] for k in range(5)],
    }
    # Profiles and selection.
    level, drift = (
        shown.figure(f"profile-{key}").axes[0].collections[0].get_array() for key in ("level", "drift")
    )
    wanted = [
        [item[key][name] for name in ("l2", "grad_norm")] if item[key] else [np.nan] * 2
        for key in ("level", "drift")
        for item in result["state_profiles"]
    ]
    np.testing.assert_allclose(np.ma.filled(level, np.nan), wanted[:3])
    np.testing.assert_allclose(np.ma.filled(drift, np.nan), wanted[3:])
    score, bic = shown.figure("selection").axes
    (bars,) = [item for item in score.collections if hasattr(item, "get_segments")]
    assert [np.ptp(segment[:, 1]) for segment in bars.get_segments()] == pytest.approx([0.8] * 3)
    assert curve(score.lines[0]) == [[1, 2, 3], [6, 9, 10]] and curve(bic.lines[0]) == [
        [1, 2, 3],
        [-960, -990, -1000],
    ]
    shown.says(
        "Log-likelihood of runs that were held out whole, with its standard error over runs; the smallest number "
        "within one standard error, or one nat a run, of the best is taken. BIC is of the fit on all runs."
    )
    assert (
        "Model selection: 3 states are chosen" in shown.alts()
        and "States of 5 runs over training" in shown.alts()
    )
    lines = terminal(result)
    assert lines[0].startswith("Hidden Markov model of 5 runs: 3 states. There are 3 distinct paths up to")
    assert (
        "Convergence (test accuracy at least 0.99 for 5 rows): at median step 130 [quartiles 120 to 140], 5 of 5 runs."
        in lines
    )
    assert "Held-out runs have 10.00 nats a frame (standard error 0.40)." in lines
    rows = [line.split("  ") for line in lines]
    spoken = [[item.strip() for item in row if item.strip()] for row in rows]
    assert ["0", "5 of 5", "42%", "0", "0 to 0", "l2 falls, grad_norm falls"] in spoken
    assert ["1", "4 of 5", "31%", "80", "70 to 115", DASH] in spoken
    (place,) = [n for n, row in enumerate(spoken) if row[:2] == ["path", "runs"]]
    ways = spoken[place + 1 : place + 1 + len(result["paths"])]
    assert [row[:3] for row in ways] == [
        [
            "\u00a0\u2192 ".join(map(str, item["states"])),
            f"{item['runs']} of 5",
            f"{item['median_step']:.0f}",
        ]
        for item in result["paths"]
    ]


def test_an_early_first_change_asks_for_a_logarithmic_axis(page: Writer, outputs: Path) -> None:
    steps = steps_of(1000)
    values = {name: training(2, steps)[name] for name in ("train_loss", "train_accuracy")}
    ensemble = make_ensemble(outputs, n_runs=2, steps=steps, values=values)
    for row, scale in ((2, "symlog"), (3, "linear")):
        result = make_hmm(
            outputs, ensemble, [(np.arange(101) >= row).astype(int)] * 2, n_states=2, digest=f"{row:010d}"
        )
        apart = {"total_variation": {"value": 0.25, "interval": None, "runs": 2}}
        shown = page(found={ensemble.id: [altered(result, dissimilarity=apart)]})
        assert shown.figure("states").axes[0].get_xscale() == scale
        shown.says("Dissimilarity of the runs: 0.25 (no interval: fewer than 5 runs). It is")


def test_one_state_is_one_sentence(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    shown = page(found={ensemble.id: [make_hmm(outputs, ensemble, [np.zeros(21, int)] * 4, n_states=1)]})
    shown.says(
        "Hidden Markov model of 4 runs: 1 state. Nothing tells phases apart: one state describes every row."
    )
    assert "falls into state" not in shown.text and "All 4 runs go" not in shown.text
    # Nor is there a ribbon of it under the curves.
    assert "Ribbon" not in shown.text and not shown.figure("curves").axes[0].child_axes


@pytest.mark.parametrize(
    ("runs", "rows", "size", "few"),
    [(5, 6, 14, "6 a run, 14 features"), (32, 6, 14, "6 a run, 14 features"), (33, 6, 14, ""), (7, 6, 2, ""),
     (1, 38, 2, "38 a run, 2 features"), (5, 1, 1, "1 a run, 1 feature")],
)  # fmt: skip
def test_few_rows_for_many_features_tell_nothing_apart(runs: int, rows: int, size: int, few: str) -> None:
    courses = [{"run": f"e/{i}", "steps": list(range(rows)), "states": [0] * rows} for i in range(runs)]
    found = states_of(states=courses, metrics=[f"m{i}" for i in range(size)])
    text = next(iter(show(found, ()))).text
    advice = f"too few rows to tell phases apart ({few}): set eval.every lower or name fewer metrics."
    assert (advice in text) == bool(few) and ("Nothing tells phases apart" in text) != bool(few)
    # Who asks for one state learns nothing of others.
    asked = states_of(states=courses, metrics=["m0"], settings={"n_states": 1})
    assert "Nothing tells" not in (text := next(iter(show(asked, ()))).text)
    assert text.endswith(
        "No other number of states was tried, so whether phases can be told apart is not known."
    )


def test_states_that_last_a_row_are_jumps() -> None:
    """By the median of the stays; of short runs a row or two is what there is."""

    def said(*paths: list[int]) -> list[str]:
        courses = [
            {"run": f"e/{i}", "steps": list(range(len(path))), "states": path} for i, path in enumerate(paths)
        ]
        found = states_of(states=courses, metrics=["m0"], n_states=3)
        return [block.text for block in show(found, ()) if "rather than" in getattr(block, "text", "")]

    jump, phase = [0] * 30 + [1] + [2] * 30, [0] * 30 + [1] * 9 + [2] * 30
    assert said(jump, jump, phase) == [
        "State **1** is left within 2 rows in half of the stays or more: a jump between other states rather than a "
        "phase of training."
    ]
    assert said(jump, phase, phase) == said([0, 0, 0, 1, 2, 2, 2]) == []
    # Nobody saw how long what a run begins or ends in would last.
    assert said(*[[0] * 30 + [1] * 29 + [2]] * 5) == said(*[[0] + [1] * 29 + [2] * 30] * 5) == []
    both = [0, 1] * 40 + [2] * 40
    assert said(both)[0].startswith("States **0 and 1** are left within 2 rows")


def test_runs_that_never_converge_are_followed_to_their_end(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    same = make_hmm(outputs, ensemble, [np.repeat([0, 1, 2], 7)] * 4)
    one = {**same.data["paths"][0], "states": [0, 1, 2], "runs": 4}
    never = [{**row, "step": None, "held": None} for row in same.data["convergence"]]
    mixed = [same.data["convergence"][0], *never[1:]]
    page(found={ensemble.id: [altered(same, paths=[one], convergence=never)]}).says(
        f"All 4 runs go 0{ARROW}1{ARROW}2."
    )
    # Those that did are told from those that did not, and there is no median of times to speak of.
    spread = {
        "runs": 4,
        "censored": 3,
        "median": None,
        "quartiles": [None, None],
        "cv": None,
        "cv_interval": None,
    }
    said = {**same.data["claims"], "spread": spread}
    shown = page(found={ensemble.id: [altered(same, paths=[one], convergence=mixed, claims=said)]})
    shown.says(f"All 4 runs go 0{ARROW}1{ARROW}2, 1 of 4 up to convergence and the others to their end.")
    assert shown.table("published claim")[2][1:] == [
        "not tested",
        "1 of 4 runs converged, and so the median step is not known",
    ]


def test_how_paths_are_told(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    same = make_hmm(outputs, ensemble, [np.repeat([0, 1, 2], 7)] * 4)
    one = {**same.data["paths"][0], "states": [0, 1, 2], "runs": 4}
    page(found={ensemble.id: [altered(same, paths=[one])]}).says(
        f"All 4 runs go 0{ARROW}1{ARROW}2 up to convergence."
    )
    each = [{**one, "states": [0, k], "runs": 1} for k in (1, 2, 3, 4)]
    page(found={ensemble.id: [altered(same, paths=each)]}).says("Each of the 4 runs takes a path of its own.")
    some = [{**one, "runs": 3}, {**one, "states": list(range(15)), "runs": 1}]
    shown = page(found={ensemble.id: [altered(same, paths=some)]})
    shown.says(
        f"There are 2 distinct paths up to convergence; the most common, 0{ARROW}1{ARROW}2, is taken by 3 of 4 runs; "
        "1 more along it, to a nearer or a farther end."
    )
    ways = [row[0] for row in shown.table("path", "runs")]
    assert ways[1] == f"{ARROW.join(map(str, range(12)))}{ARROW}..."
    whole = [{**one, "runs": 3}, {**one, "states": list(range(14)), "runs": 1}]
    shown = page(found={ensemble.id: [altered(same, paths=whole, convergence_rule=None)]})
    assert [row[0] for row in shown.table("path")][1] == ARROW.join(map(str, range(14)))
    shown.says("There are 2 distinct paths; the most common")
    long = [{**one, "states": list(range(k % 3, 16)), "runs": 1, "median_step": None} for k in range(7)]
    lines = terminal(altered(same, paths=long))
    arrow = "\u00a0\u2192 "
    ways = [line.strip() for line in lines if line.endswith("s0000, s0001, s0002 and s0003")]
    assert len(ways) == 7 and ways[0].startswith(f"{arrow.join(map(str, range(12)))}{arrow}...")
    assert ways[2].startswith(arrow.join(map(str, range(2, 16))))


def test_only_some_paths_have_a_row(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    result = make_hmm(outputs, ensemble)
    one = {**result.data["paths"][0], "runs": 1}
    for several, rows in ((3, 10), (61, 60)):
        paths = [{**one, "runs": 2} for _ in range(several)] + [one] * (70 - several)
        shown = page(found={ensemble.id: [altered(result, paths=paths)]})
        assert len(shown.table("path")) == rows
        shown.says(
            f"Distinct paths (the first {rows} of 70); each ends at convergence, or where a run does that never "
            "converged: test accuracy at least 0.99 for 5"
        )
    page(found={ensemble.id: [altered(result, paths=[one] * 10)]}).says("Distinct paths; each ends")


def test_trust_selection_and_what_differs(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    result = make_hmm(outputs, ensemble)
    selection = [
        {"n_states": k, "heldout_ll_per_frame": ll, "se": 0.5, "behind_se": se, "behind_best": 4.0 - ll,
         "bic": -10.0 * k, "converged": True}
        for k, ll, se in ((1, 1.0, 0.3), (2, 3.5, 0.2), (3, 3.9, 0.4), (4, 4.0, 0.0))
    ]  # fmt: skip
    stability = [{"over": "starts", "fits": 8, "adjusted_rand": 0.876, "low": 0.5, "high": 1.0},
                 {"over": "runs", "fits": 5, "adjusted_rand": 0.5, "low": 0.25, "high": 0.754}]  # fmt: skip
    baselines = [
        {"name": "no switching", "n_states": 1, "runs": 4, "heldout_ll_per_frame": 2.347, "comparable": True,
         "at_cap": False, "less_than_model": 1.557, "less_se": 0.251},
        {"name": "mixture", "n_states": 8, "runs": 4, "heldout_ll_per_frame": 3.0, "comparable": False, "at_cap": True,
         "less_than_model": 0.5, "less_se": 0.1},
    ]  # fmt: skip
    apart = {"total_variation": {"value": 0.4567, "interval": [0.3, 0.61234], "runs": 4}}
    compared = {
        "p": 0.0312, "paths": [0, 2], "runs": 4, "left_out": 1,
        "partings": [{"after": [0], "to": [1, 2]}, {"after": [], "to": [0, 1]}],
    }  # fmt: skip
    altered(
        result, selection=selection, stability=stability, baselines=baselines, dissimilarity=apart,
        path_comparison=compared,
    )  # fmt: skip
    shown = page(found={ensemble.id: [result]})
    assert shown.table("with other", "fits") == [
        ["starts", "8", "0.88", "0.50 to 1.00"], ["runs", "5", "0.50", "0.25 to 0.75"],
    ]  # fmt: skip
    assert shown.table("simpler model", "states") == [
        ["no switching", "1", "4", "2.35", "1.56 \u00b1 0.25"],
        ["mixture", "8, the cap", "4", DASH, DASH],
    ]  # fmt: skip
    shown.says(
        "Dissimilarity of the runs: 0.457 [0.3 to 0.612].",
        "Runs that part converge at different steps: p = 0.031 over 4 of 4 runs that part after 0 to 1 and 2 and at "
        "the start to 0 and 1 (rows 1 and 3).",
        "and the log-rank test counted from the parting on, times the 2 places where they part.",
        "1 run that never converged is left out",
        "with the standard error of its difference to the best; the smallest number within",
    )  # fmt: skip
    ax = shown.figure("selection").axes[0]
    (bars,) = [item for item in ax.collections if hasattr(item, "get_segments")]
    assert [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()] == pytest.approx(
        [0.3, 0.2, 0.4, 0.0]
    )
    why = (
        "K = 3: on unseen runs 0.1 (error 0.4) nats a frame behind K = 4, no more than one standard error of this "
        "difference or one nat a run; no smaller K is as near. Held-out runs have 3.90 nats a frame (standard error "
        "0.50)."
    )
    lines = terminal(result)
    shown.says(why)
    assert any(line.startswith(why) for line in lines)
    rows = [" ".join(line.split()) for line in lines]
    assert {
        "starts 8 0.88 0.50 to 1.00", "runs 5 0.50 0.25 to 0.75", "no switching 1 4 2.35 1.56 \u00b1 0.25",
        f"mixture 8, the cap 4 {DASH} {DASH}",
    } <= {*rows}  # fmt: skip
    assert any(line.startswith("Dissimilarity of the runs: 0.457 [0.3 to 0.612].") for line in lines)
    page(found={ensemble.id: [altered(result, path_comparison={**compared, "p": 0.05, "left_out": 0})]}).says(
        "No difference of the convergence step between paths is shown: p = 0.05 over"
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"preset": "paper"},
            "the number of least BIC is taken. BIC is of the held-out runs, a mean over starts.",
        ),
        (
            {"settings": {"n_states": 3}},
            "with its standard error over runs; the number was given. BIC is of the fit",
        ),
    ],
)
def test_how_the_number_of_states_was_found(
    page: Writer, outputs: Path, keys: dict[str, Any], said: str
) -> None:
    ensemble = make_ensemble(outputs)
    page(found={ensemble.id: [altered(make_hmm(outputs, ensemble), **keys)]}).says(said)


def test_runs_under_a_stored_model(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=2)
    result = make_hmm(outputs, ensemble, [np.repeat([0, 1], [11, 10]), np.zeros(21, int)])
    for row, (state, p) in zip(result.data["states"], ((1, 0.87654), (0, 0.5)), strict=True):
        row |= {"posterior": [[0.0] * 3] * 20 + [[p if k == state else 0.0 for k in range(3)]]}
        row |= {"ll_per_frame": 1.25, "held_out": state == 1}
    altered(result, decoded_with="abcdef0123", heldout_ll_per_frame=1.5, model_heldout_ll_per_frame=1.75)
    shown = page(found={ensemble.id: [result]})
    shown.says(
        "Decoded without looking ahead with the states of hmm-abcdef0123: 2 runs.",
        "Held-out log-likelihood: 1.5 nats a frame (the model's own held-out runs: 1.75).",
    )
    assert shown.table("run", "state now") == [
        ["s0000", "1", "0.877", "110", "200", "1.25", "yes"],
        ["s0001", "0", "0.5", "0", "200", "1.25", "no"],
    ]
    lines = [" ".join(line.split()) for line in terminal(result)]
    assert "s0000 1 0.877 110 200 1.25 yes" in lines and "s0001 0 0.5 0 200 1.25 no" in lines
    assert any(
        "Held-out log-likelihood: 1.5 nats a frame (the model's own held-out runs: 1.75)" in x for x in lines
    )


def test_detours_in_their_figure_and_table(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=12)
    rows = [
        {"state": 0, "visits": 12, "p_adjusted": None, "verdict": False},
        {"state": 1, "visits": 7, "p_adjusted": 0.0004, "p": 0.0002, "verdict": True, "statistic": 5.0,
         "effect_steps": 1234.4, "effect_ratio": 1.5, "interval": [200.0, None]},
        {"state": 2, "visits": 4, "p_adjusted": 0.3, "p": 0.3, "verdict": False, "statistic": 1.0,
         "effect_steps": None, "interval": [-50.0, 60.0]},
    ]  # fmt: skip
    model = {
        "min_visits": 3,
        "r2": 0.51,
        "null_r2": 0.123,
        "null_r2_95": 0.3,
        "states": [1, 2],
        "published": {"r2": 0.9995, "accounting_r2": 0.991, "accounting_r2_95": 0.9994, "detours": [2]},
    }
    result = altered(make_hmm(outputs, ensemble), detours=rows, detour_model=model)
    shown = page(found={ensemble.id: [result]})
    cost = "+1,234 (\u00d71.50) [+200 to open]"
    shown.says(f"State 1 is a detour: 7 of 12 runs, {cost} steps, adjusted p < 0.001.")
    assert shown.table("state", "what it is", "visited by") == [
        ["0", "l2 falls, grad_norm falls", "12 of 12", DASH, DASH, "not tested: every run passes it"],
        ["1", "", "7 of 12", cost, "< 0.001", "detour"],
        ["2", "grad_norm rises, l2 rises", "4 of 12", "no estimate", "0.30",
         "no delay shown, but few runs: only a large one could be"],
    ]  # fmt: skip
    (ax,) = shown.figure("detours").axes
    assert [item.get_text() for item in ax.get_yticklabels()] == ["state 1", "state 2"]
    said = [item.get_text() for item in ax.texts]
    assert said == ["+1,234", " no estimate", "7 of 12 runs, p < 0.001", "4 of 12 runs, p = 0.30"]
    assert shown.table("convergence step regressed on") == [
        ["visits to the tested states (1 and 2)", "0.51", "0.12 (0.30)",
         "a run visits as likely as any that takes as long: time to visit alone"],
        ["share of training in every state, as published", "0.9995", "0.991 (0.9994)",
         "early states exchanged between the runs: accounting alone"],
    ]  # fmt: skip
    shown.says("Accounting alone gives an R\u00b2 of 0.991: time", "would call state 2 a detour.")
    assert f"State 1 is a detour: 7 of 12 runs, {cost} steps, adjusted p < 0.001." in terminal(result)[0]


def test_results_of_before_are_read_as_far_as_their_form_is_known(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4)
    result = altered(make_hmm(outputs, ensemble), version=2, claims=None, paths=[], ridge_of_before=3)
    tested = {
        "state": 1,
        "p_adjusted": 0.3,
        "visits": 2,
        "verdict": False,
        "effect_steps": 10.0,
        "interval": None,
    }
    altered(result, detours=[tested, tested], detour_model={"r2": 0.4, "loo_r2": 0.2, "states": [1]})
    shown = page(found={ensemble.id: [result]})
    shown.says(
        "No detour is shown (2 states tested).", "This older analysis says nothing of the published claims"
    )
    assert not any(rows and rows[0][0].startswith("convergence step regressed") for rows in shown.page.tables)
    assert any("older analysis" in line for line in terminal(result))
    # A form that is not known any more is shown as it is stored, and one of now is damaged.
    altered(result, edges=[{"of": 3}], n_states=3)
    assert result.value is None
    shown = page(found={ensemble.id: [result]})
    assert shown.table("state", "runs", "rows") and "is damaged" not in shown.text
    page(found={ensemble.id: [altered(result, version=hmm.VERSION)]}).says("it is no result of analyze hmm")
