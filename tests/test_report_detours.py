"""The page on detours: verdicts in words, the same in table, figure, claims and map, and an R2 beside its null."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hmm_cases as cases
import numpy as np
import pytest
from nulls.hmm import states_of
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page

from dynalab.analysis.hmm import delays, dissimilarity, published, show, summary, tables
from dynalab.analysis.hmm.claims import claims, doubt, unstable
from dynalab.analysis.hmm.comparison import compare
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.detours import EARLY, LATE
from dynalab.analysis.hmm.findings import Agreement, Detour, Findings
from dynalab.analysis.hmm.outcome import consequences
from dynalab.core.records import plain
from dynalab.core.words import p_equals, p_value
from dynalab.report.write import write_report
from dynalab.show import plots as figures
from dynalab.show import terminal
from dynalab.show.blocks import Cell, Dots, Say, Table
from dynalab.store.find import select
from dynalab.store.reader import Ensemble


def result_of(number: int, delay: float | None = None) -> Findings:
    """Return what the analysis says of a simulated ensemble whose states are known."""
    planted = cases.make(cases.describe_case(number, delay=delay))
    steps = [run.steps for run in planted.trajectories.runs]
    k = planted.case.n_states
    said, _ = consequences(planted.states, steps, planted.convergence, k, Config())
    found = states_of(
        n_states=k,
        emission="level",
        states=[
            {"run": run.run, "steps": run.steps.tolist(), "states": path.tolist()}
            for run, path in zip(planted.trajectories.runs, planted.states, strict=True)
        ],
        convergence=planted.convergence,
        state_profiles=[{"state": s, "level": {"l2": float(s), "trace": -0.1}} for s in range(k)],
    )
    found = replace(found, dissimilarity=dissimilarity.describe(planted.states, k), **said)
    return replace(found, claims=claims(found))


def blocks(found: Findings, **more: Any) -> list[Any]:
    return list(delays.blocks(replace(found, **more), figures=True))


def test_a_planted_detour_reads_the_same_everywhere() -> None:
    found = result_of(7)
    (own,) = [row for row in found.detours if row.verdict]
    table, figure, explained, note = blocks(found)
    assert isinstance(table, Table) and isinstance(figure, Dots) and isinstance(explained, Table)
    rows = {int(row[0].value): row for row in table.rows}
    state = own.state
    assert rows[state][-1].value == "detour" and rows[state][-1].tone == "found"
    assert rows[state][2].text == f"{own.visits} of 20"
    low, high = own.interval
    cost = f"{own.effect_steps:+,.0f} [{low:+,.0f} to {high:+,.0f}]"
    assert rows[state][3].text == cost and cost in figure.alt
    assert rows[0][-1].value == "not tested: every run passes it" and rows[0][3].text == "\u2013"
    # The published regression stands beside what accounting gives, and is called by its name.
    model = found.detour_model
    said = model.published
    assert [row[1].text for row in explained.rows] == [f"{model.r2:.2f}", delays._r2(said.r2)]
    assert delays._r2(said.accounting_r2) in explained.rows[1][2]
    assert isinstance(note, Say) and "accounting" in note.text.lower()
    assert f"State {state} is a **detour**" in next(iter(show(found, ()))).text
    (row,) = [row for row in published.table(found).rows if row[0].startswith("detours")]
    assert row[1].value == "yes" and row[1].tone == "found"


def test_what_rests_on_states_that_are_not_stable_cannot_be_told() -> None:
    found = result_of(7)
    (own,) = [row for row in found.detours if row.verdict]

    def agreeing(rand: float, over: str = "bootstrap of runs") -> Findings:
        said = replace(
            found, stability=[Agreement(over=over, fits=20, adjusted_rand=rand, low=rand, high=1.0)]
        )
        return replace(said, claims=claims(said))

    for settled in (agreeing(0.7), agreeing(0.3, "restarts"), replace(agreeing(0.3), n_states=1)):
        assert doubt(settled) == "" and claims(settled).cannot_tell is None
    shaky, why = agreeing(0.3), "states are not stable (Rand 0.30)"
    assert unstable(shaky) == shaky.claims.cannot_tell == why
    rows = [row[1].value for row in published.table(shaky).rows]
    assert rows == [f"cannot tell: {why}"] * 2 + ["a matter of degree", f"cannot tell: {why}"]
    assert published.table(agreeing(0.9)).rows[0][1].value == "yes" and published.forked(agreeing(0.9))
    assert published.forked(shaky) == set()
    headline = next(iter(show(shaky, ()))).text
    assert f"make detours, **cannot be told**: {why}." in headline and "detour**" not in headline
    table, figure, *_ = delays.blocks(shaky, figures=True)
    assert table.rows[own.state][-1] == Cell(f"cannot tell: {why}") and not any(figure.marked)
    (apart,), (parting,) = summary._apart(shaky), summary._partings(shaky, 20)
    assert apart.text.endswith(f"Of other states it would be another: {why}.")
    assert parting.text == f"Whether paths differ in convergence **cannot be told**: {why}."
    beside = compare(found, shaky)
    assert beside.off_path is None and beside.reasons["off_path"] == f"{why} in one setting"
    assert compare(found, found).off_path is not None


def test_no_detour_and_nothing_to_test() -> None:
    found = result_of(33, delay=0)
    table = blocks(found)[0]
    assert isinstance(table, Table)
    assert not any(row[-1].value == "detour" for row in table.rows)
    tested = sum(row.tested for row in found.detours)
    assert tested and f"No detour is shown ({tested} states tested)." in delays.headline(found, 40)[0]
    alone = [replace(row, p_adjusted=None, verdict=False, visits=40) for row in found.detours]
    (said,) = blocks(found, detours=alone, detour_model=None)
    assert isinstance(said, Say) and "every run passes it" in said.text
    assert delays.headline(replace(found, detours=alone), 40) == []
    # Where no run converged there is nothing to explain, nor to be spread out.
    never = [replace(row, step=None, censored=True) for row in found.convergence]
    late = replace(found, detours=alone, convergence=never)
    assert all(isinstance(block, Say) for block in blocks(late))
    rows = published.table(replace(late, claims=claims(late))).rows
    assert [row[1].value for row in rows if "spread out" in row[0]] == ["not tested"]
    assert published.table(replace(found, n_states=1)).rows[0][1].value == "not tested"
    assert blocks(found, detours=None) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"verdict": True, "p_adjusted": 0.01, "visits": 9}, "detour"),
        ({"p_adjusted": 0.9, "reason": EARLY, "visits": 9}, "no: its visitors converge earlier"),
        (
            {"p_adjusted": 0.9, "reason": LATE, "visits": 9},
            f"no: {LATE}",
        ),
        ({"p_adjusted": 0.4, "statistic": 5.0, "visits": 9}, "no delay shown"),
        ({"p_adjusted": 0.4, "statistic": 5.0, "visits": 17}, "few runs"),
        ({"visits": 20}, "every run passes it"),
        ({"visits": 0}, "no run visits it"),
        ({"visits": 2}, "fewer than 3 runs on one side"),
        ({}, "not tested"),
    ],
)
def test_verdicts(row: dict[str, Any], said: str) -> None:
    assert said in delays.verdict(Detour(state=0, **row), 20, 3)


def test_bounds_that_were_not_seen() -> None:
    row = Detour(state=2, effect_steps=-970.0, interval=[None, -410.0], p_adjusted=0.001)
    assert delays.effect(row) == "-970 [open to -410]"
    assert delays.effect(Detour(state=2, p_adjusted=0.2)) == "no estimate"
    assert "\u00d71.50" in delays.effect(replace(row, effect_ratio=1.5))
    figure = figures.effect_rows(
        ["state 2", "state 3"], [580.0, -970.0], [[410.0, 810.0], [None, -410.0]], found=[True, False]
    )
    (ax,) = figure.axes
    heads = [line for line in ax.lines if line.get_marker() == "<"]
    assert len(heads) == 1 and float(np.ravel(heads[0].get_xdata())[0]) < -970
    dots = {
        float(np.ravel(line.get_xdata())[0]): line.get_color()
        for line in ax.lines
        if line.get_marker() == "o"
    }
    assert dots[580.0] == "#D55E00" != dots[-970.0]
    low, high = ax.get_xlim()
    assert low < -970 and high > 810
    # Nothing known at all is still a figure.
    assert figures.effect_rows(["state 1"], [None], [None]).axes


def sentences(found: Findings) -> str:
    return "\n".join(block.text for block in show(found, ()) if isinstance(block, Say))


def test_paths_and_dissimilarity_in_sentences() -> None:
    found = result_of(7)
    (way, *_) = states_of(paths=[{"states": [0, 1], "runs": 20}]).paths
    text = sentences(replace(found, paths=[way]))
    assert "converge at different steps" in text and "p < 0.001" in text
    value = found.dissimilarity.total_variation.value
    assert f"Dissimilarity of the runs: {value:.3g}**" in text
    assert "converge at different" not in sentences(replace(found, paths=[way], path_comparison=None))
    assert "Dissimilarity" not in sentences(replace(found, paths=[way], dissimilarity=None))
    # One of a version that compared whole paths.
    old = states_of(path_comparison={"p": 0.01, "paths": [0, 1], "runs": 9}).path_comparison
    assert "tested otherwise by this older" in sentences(replace(found, paths=[way], path_comparison=old))


def test_states_in_words() -> None:
    def profile(state: int, key: str, **values: float) -> dict[str, Any]:
        return {"state": state, key: values}

    levels = [profile(0, "level", l2=1.2, trace=-2.0), profile(1, "level", l2=0.1), {"state": 2}]
    assert tables.state_words(states_of(n_states=3, emission="level", state_profiles=levels)) == [
        "trace low, l2 high",
        "all near their mean",
        "",
    ]
    drifts = [
        profile(0, "drift", l2=0.4, trace=-0.3),
        profile(1, "drift", l2=0.002),
        profile(2, "drift", l2=0.0),
    ]
    assert tables.state_words(states_of(n_states=3, emission="ar", state_profiles=drifts)) == [
        "l2 rises, trace falls",
        "l2 rises slowly",
        "nothing moves",
    ]


def walked(paths: list[list[int]]) -> Findings:
    runs = [{"run": str(i), "steps": list(range(len(p))), "states": p} for i, p in enumerate(paths)]
    return states_of(n_states=3, states=runs)


def test_the_map_colours_the_forks_that_the_claims_count() -> None:
    """To and fro, or a single run's own way, is no fork in the table of claims, so it is none in the map."""
    paths = [[0, 1, 0, 2]] * 5 + [[0, 2]]
    assert published.forked(walked(paths)) == set()
    assert published.forked(walked([[0, 1], [0, 2]] * 2)) == {(0, 1), (0, 2)}
    edges = [{"from": 0, "to": 1, "runs": 5}, {"from": 0, "to": 2, "runs": 5}]

    def colours(**keys: Any) -> set[str]:
        figure = figures.training_map(3, edges, 6, **keys)
        arrows = [patch for patch in figure.axes[0].patches if str(patch.get_gid()).startswith("edge")]
        return {
            "fork" if tuple(np.round(arrow.get_edgecolor()[:3], 2)) == (0.84, 0.37, 0.0) else "plain"
            for arrow in arrows
        }

    assert colours(forked=[]) == {"plain"} and colours() == colours(forked=[(0, 1), (0, 2)]) == {"fork"}


def test_states_that_flicker_are_no_forks() -> None:
    rng = np.random.default_rng(0)
    paths = rng.integers(0, 3, (6, 60)).tolist()
    found = walked(paths)
    assert claims(found).forks, "as the published map has them"
    row = published.table(replace(found, claims=claims(found))).rows[0]
    assert row[1].value.startswith("cannot tell: states flicker (") and published.forked(found) == set()
    assert doubt(walked([[0] * 30 + [1] * 30])) == ""
    assert tables.path_words(paths[0]).endswith("...") and tables.path_words([0, 1]) == "0\u00a0\u2192 1"


def test_on_the_page(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)
    ensemble = make_ensemble(outputs, n_runs=20)
    result = make_hmm(outputs, ensemble)
    found = plain(result_of(7))
    more = {key: found[key] for key in ("detours", "detour_model", "path_comparison", "dissimilarity")}
    more["detours"] = more["detours"][:3]
    result.data.update(more)
    selection = select(outputs, (), None, Ensemble)
    page = read_page(write_report(selection, {ensemble.id: [result]}, outputs))
    rows = page.table("state", "what it is", "visited by")
    assert len(rows) == 3 and any(row[-1] == "detour" for row in rows)
    assert "Dissimilarity of the runs" in page.text and "converge at different steps" in page.text


def test_p_values_in_words() -> None:
    assert [p_value(p) for p in (None, 1e-5, 0.0123, 0.4567, 1.0)] == [
        "\u2013", "< 0.001", "0.012", "0.46", "1.00",
    ]  # fmt: skip
    assert p_equals(0.2) == "= 0.20" and p_equals(0.0002) == "< 0.001"


def test_the_terminal_names_what_the_claims_call_so() -> None:
    found = result_of(7)
    text = "\n".join(terminal.lines(show(found, ())))
    (row,) = [row for row in found.detours if row.verdict]
    assert f"State {row.state} is a detour: {row.visits} of 20 runs, {delays.effect(row)} steps" in text
    fork = next(one for one in found.claims.forks if one.fork)
    assert f"of {fork.runs} runs that leave state {fork.state}, " in text
