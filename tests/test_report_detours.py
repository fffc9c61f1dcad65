"""The page on detours: verdicts in words, the same in table, figure, claims and map, and an R2 beside its null."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page

from dynalab.analysis.claims import claims
from dynalab.analysis.hmm import cases, dissimilarity, words
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.consequences import consequences
from dynalab.analysis.hmm.detours import EARLY, LATE
from dynalab.report.blocks import Picture, Table, Words
from dynalab.report.sections import claims as page_claims
from dynalab.report.sections import hmm_detours, hmm_runs
from dynalab.report.sections.hmm_words import state_words
from dynalab.report.words import p_equals, p_value
from dynalab.report.write import write_report
from dynalab.show import plots as figures
from dynalab.store.find import select
from dynalab.store.reader import Ensemble


def result_of(number: int, delay: float | None = None) -> dict[str, Any]:
    """Return what the analysis says of a simulated ensemble whose states are known."""
    planted = cases.make(cases.describe_case(number, delay=delay))
    steps = [run.steps for run in planted.trajectories.runs]
    k = planted.case.n_states
    found, _ = consequences(planted.states, steps, planted.convergence, k, Config())
    data = {
        "n_states": k,
        "emission": "level",
        "states": [
            {"run": run.run, "steps": run.steps.tolist(), "states": path.tolist()}
            for run, path in zip(planted.trajectories.runs, planted.states, strict=True)
        ],
        "convergence": planted.convergence,
        "state_profiles": [{"state": s, "level": {"l2": float(s), "trace": -0.1}} for s in range(k)],
        "dissimilarity": dissimilarity.describe(planted.states, k, None, seed=0),
        **found,
    }
    return data | {"claims": claims(data)}


def test_a_planted_detour_reads_the_same_everywhere() -> None:
    data = result_of(7)
    (state,) = [row["state"] for row in data["detours"] if row["verdict"]]
    table, picture, explained, note = hmm_detours.blocks(data, 20)
    assert isinstance(table, Table) and isinstance(picture, Picture) and isinstance(explained, Table)
    rows = {int(row[0].text): row for row in table.rows}
    own = data["detours"][state]
    assert rows[state][-1].text == "detour" and rows[state][-1].tone == "found"
    assert rows[state][2].text == f"{own['visits']} of 20"
    low, high = own["interval"]
    cost = f"{own['effect_steps']:+,.0f} [{low:+,.0f} to {high:+,.0f}]"
    assert rows[state][3].text == cost and cost in picture.alt
    assert rows[0][-1].text == "not tested: every run passes it" and rows[0][3].text == "\u2013"
    # The published regression stands beside what accounting gives, and is called by its name.
    said = data["detour_model"]["published"]
    assert [row[1].text for row in explained.rows] == [
        f"{data['detour_model']['r2']:.2f}",
        hmm_detours._r2(said["r2"]),
    ]
    assert hmm_detours._r2(said["accounting_r2"]) in explained.rows[1][2].text
    assert isinstance(note, Words) and "accounting" in note.text.lower()
    assert any(f"State {state} is a **detour**" in line for line in hmm_detours.summary(data, 20))
    (row,) = [row for row in page_claims.table(data).rows if row[0].text.startswith("detours")]
    assert row[1].text == "yes" and row[1].tone == "found"


def test_no_detour_and_nothing_to_test() -> None:
    data = result_of(33, delay=0)
    table = hmm_detours.blocks(data, 40)[0]
    assert isinstance(table, Table)
    assert not any(row[-1].text == "detour" for row in table.rows)
    tested = sum(row["tested"] for row in data["detours"])
    assert tested and f"No detour is shown ({tested} states tested)." in hmm_detours.summary(data, 40)[0]
    alone = [{**row, "p_adjusted": None, "verdict": False, "visits": 40} for row in data["detours"]]
    (said,) = hmm_detours.blocks({**data, "detours": alone, "detour_model": {}}, 40)
    assert isinstance(said, Words) and "every run passes it" in said.text
    assert hmm_detours.summary({**data, "detours": alone}, 40) == []
    # Where no run converged there is nothing to explain, nor to be spread out.
    never = [{**row, "step": None, "censored": True} for row in data["convergence"]]
    late = {**data, "detours": alone, "convergence": never}
    assert all(isinstance(block, Words) for block in hmm_detours.blocks(late, 40))
    rows = page_claims.table({**late, "claims": claims(late)}).rows
    assert [row[1].text for row in rows if "spread out" in row[0].text] == ["not tested"]
    single = {**data, "n_states": 1}
    assert page_claims.table(single).rows[0][1].text == "not tested"
    assert hmm_detours.blocks({**data, "detours": None}, 40) == []


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
    assert said in hmm_detours.verdict(row, 20, 3)


def test_bounds_that_were_not_seen() -> None:
    row = {"effect_steps": -970.0, "interval": [None, -410.0], "p_adjusted": 0.001}
    assert hmm_detours.effect(row) == "-970 [open to -410]"
    assert hmm_detours.effect({"effect_steps": None, "p_adjusted": 0.2}) == "no estimate"
    assert "\u00d71.50" in hmm_detours.effect({**row, "effect_ratio": 1.5})
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


def test_paths_and_dissimilarity_in_sentences() -> None:
    data = result_of(7)
    (said,) = hmm_runs.paths_compared(data, 20)
    assert isinstance(said, Words) and "converge at different steps" in said.text and "p < 0.001" in said.text
    (alike,) = hmm_runs.alike(data)
    value = data["dissimilarity"]["total_variation"]["value"]
    assert isinstance(alike, Words) and f"{value:.3g}" in alike.text
    ground = {**data["dissimilarity"], "wasserstein": {"value": 0.5, "interval": [0.4, 0.6], "runs": 10}}
    (more,) = hmm_runs.alike({**data, "dissimilarity": ground})
    assert isinstance(more, Words) and "0.5 [0.4 to 0.6]" in more.text and "10 runs drawn" in more.text
    assert hmm_runs.alike({}) == [] and hmm_runs.paths_compared({"path_comparison": None}, 20) == []


def test_states_in_words() -> None:
    def profile(state: int, key: str, **values: float) -> dict[str, Any]:
        return {"state": state, key: values}

    levels = [profile(0, "level", l2=1.2, trace=-2.0), profile(1, "level", l2=0.1), {"state": 2}]
    assert state_words({"n_states": 3, "emission": "level", "state_profiles": levels}) == [
        "trace low, l2 high",
        "all near their mean",
        "",
    ]
    drifts = [
        profile(0, "drift", l2=0.4, trace=-0.3),
        profile(1, "drift", l2=0.002),
        profile(2, "drift", l2=0.0),
    ]
    assert state_words({"n_states": 3, "emission": "ar", "state_profiles": drifts}) == [
        "l2 rises, trace falls",
        "l2 rises slowly",
        "nothing moves",
    ]


def test_the_map_colours_the_forks_that_the_claims_count() -> None:
    """To and fro, or a single run's own way, is no fork in the table of claims, so it is none in the map."""
    paths = [[0, 1, 0, 2]] * 5 + [[0, 2]]
    data = {"states": [{"run": str(i), "states": path} for i, path in enumerate(paths)]}
    assert page_claims.forked(data) == []
    two = {"states": [{"run": str(i), "states": path} for i, path in enumerate([[0, 1], [0, 2]] * 2)]}
    assert sorted(page_claims.forked(two)) == [(0, 1), (0, 2)]
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
    data = {
        "states": [{"run": str(i), "states": path} for i, path in enumerate(paths)],
        "convergence": None,
        "detours": None,
    }
    assert claims(data)["forks"], "as the published map has them"
    row = page_claims.table({**data, "claims": claims(data)}).rows[0]
    assert row[1].text == "states flicker" and "times on the median" in row[2].text
    calm = {**data, "states": [{"run": "a", "states": [0] * 30 + [1] * 30}]}
    assert page_claims.flickering(calm) == ""
    assert words._way(paths[0]).endswith("changes)") and words._way([0, 1]) == "0 > 1"


def test_on_the_page(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)
    ensemble = make_ensemble(outputs, n_runs=20)
    result = make_hmm(outputs, ensemble)
    found = result_of(7)
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
    data = result_of(7)
    fork = words._fork(next(one for one in data["claims"]["forks"] if one["fork"]))
    assert "is left to" in fork
    (row,) = [row for row in data["detours"] if row["verdict"]]
    said = words._detour(row, 20)
    assert f"state {row['state']}, {row['visits']} of 20 runs, {row['effect_steps']:+.0f} steps" in said
    # Runs that never converged are later than all others.
    assert words._middle([1, 2, 4]) == "2" and words._middle([1, math.inf, math.inf]) == "not reached"
