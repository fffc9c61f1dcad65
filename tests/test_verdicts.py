"""Sentences say what their intervals bear out: superlatives, verdicts beside each other, rules and what they did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nulls.hmm import states_of
from report_fakes import make_ensemble, make_hmm

from dynalab.analysis import hmm, variance
from dynalab.analysis.hmm import delays, tables
from dynalab.analysis.hmm.findings import Candidate, Detour, Findings
from dynalab.analysis.hmm.tables import why
from dynalab.analysis.slingshot import confirm
from dynalab.show import terminal


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ({"init": (0.33, 0.0, 0.9), "order": (0.0, 0.0, 0.4), "residual": (0.67, 0.08, 1.0)},
         "the intervals do not tell which of residual, init and order has the largest share"),
        # What no other interval reaches.
        ({"init": (0.9, 0.7, 0.97), "residual": (0.1, 0.03, 0.3)}, "init has the largest share"),
        # Intervals that touch overlap; what lies below all of them is not named.
        ({"init": (0.5, 0.4, 0.8), "order": (0.3, 0.2, 0.4), "residual": (0.1, 0.0, 0.3)},
         "the intervals do not tell which of init and order has the largest share"),
    ],
)  # fmt: skip
def test_a_share_is_the_largest_where_its_interval_says_so(rows, verdict):
    shares = [variance.Share(name, s, (low, high), None, False) for name, (s, low, high) in rows.items()]
    said = variance._headline(shares, "25 runs")
    assert said.endswith(f"; {verdict}.") and said.count("largest") == 1
    for name, (share, low, high) in rows.items():
        assert f"**{name}** **{share:.0%}** [{low:.0%} to {high:.0%}]" in said


def selection(*behind: tuple[float, float]) -> list[Candidate]:
    return [
        Candidate(n_states=k, behind_best=gap, behind_se=error) for k, (gap, error) in enumerate(behind, 1)
    ]


@pytest.mark.parametrize(
    ("rows", "chosen", "said"),
    [
        # The best itself: what was passed over, and by how much.
        (selection((2, 0.1), (0.5, 0.2), (0, 0), (0.1, 0.3)), 3,
         "K = 3: the highest mean over unseen runs, and every smaller K is more than one standard error of the "
         "difference, and one nat a run, behind, K = 2 by 0.5 (error 0.2) nats a frame"),
        (selection((2, 0.1), (0.1, 0.2), (0, 0)), 2,
         "K = 2: on unseen runs 0.1 (error 0.2) nats a frame behind K = 3, no more than one standard error of this "
         "difference or one nat a run; no smaller K is as near"),
        (selection((0, 0), (0.1, 0.2)), 1, "K = 1: no larger K has a higher mean over unseen runs"),
    ],
)  # fmt: skip
def test_why_there_are_so_many_states(rows, chosen, said):
    assert why(rows, chosen) == [said]


def test_where_unseen_runs_chose_nothing_no_rule_is_told():
    assert why(selection((0, 0)), 1) == []
    assert why([Candidate(n_states=1, behind_best=None), Candidate(n_states=2, behind_best=None)], 1) == []


def described(outputs: Path, **more: Any) -> tuple[Findings, str]:
    found = states_of(**{**make_hmm(outputs, make_ensemble(outputs)).data, "baselines": None, **more})
    return found, "\n".join(terminal.lines(hmm.show(found, ())))


STABILITY = [
    {"over": "bootstrap of runs", "fits": 20, "adjusted_rand": 0.49, "low": 0.2, "high": 0.8},
]


def test_states_are_not_called_stable_beside_the_verdict_that_they_are_not(outputs):
    _, text = described(outputs, stability=STABILITY)
    assert "bootstrap of runs    20                0.49  0.20 to 0.80" in text
    assert text.count("stable") == text.count("states are not stable")


def test_that_one_state_is_always_the_same_is_not_told(outputs):
    states = [{"run": "e/s0000", "steps": [0, 10], "states": [0, 0]}]
    one, text = described(
        outputs, stability=STABILITY, n_states=1, state_profiles=[], states=states, edges=[], paths=[]
    )
    assert "bootstrap of runs" not in text and "1 state." in text and not list(tables.trust(one))
    assert list(tables.trust(states_of(stability=STABILITY, n_states=2)))


def test_a_weight_is_said_to_be_chosen_by_unseen_runs_where_there_were_some(outputs):
    assert "ridge=10 was chosen by unseen runs." in described(outputs, ridge=10.0)[1]
    states = [{"run": "e/s0000", "steps": [0, 10], "states": [0, 1]}]
    _, alone = described(outputs / "b", ridge=10.0, common=0.0, states=states, paths=[])
    assert "ridge=10 and common=0 were taken: nothing could be held out." in alone


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([[0, 1, 2], [0, 1, 2], [0, 2, 2], [0, 2, 2]],
         "2 are the most common, 0\u00a0\u2192 1\u00a0\u2192 2 and 0\u00a0\u2192 2, with 2 runs of 4 each"),
        ([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 2, 2]],
         "the most common, 0\u00a0\u2192 1\u00a0\u2192 2, is taken by 3 of 4 runs."),
        ([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 1]],
         "2, is taken by 3 of 4 runs; 1 more along it, to a nearer or a farther end."),
    ],
)  # fmt: skip
def test_of_paths_that_are_equally_common_none_is_the_most(outputs, paths, said):
    ensemble = make_ensemble(outputs)
    steps = len(ensemble.steps("train_loss"))
    result = make_hmm(outputs, ensemble, [[path[i * 3 // steps] for i in range(steps)] for path in paths])
    # Whole paths: convergence comes before the last state.
    first = list(dict.fromkeys(paths[0]))
    ways = [
        {
            "states": (states := list(dict.fromkeys(way))),
            "runs": paths.count(way),
            "along": states == first[: len(states)],
        }
        for way in (paths[0], paths[-1])
    ]
    found = states_of(**{**result.data, "convergence_rule": None, "paths": ways})
    assert said in next(iter(hmm.show(found, ()))).text


def test_slingshots_that_stay_are_not_said_to_be_gone():
    rows = [confirm.Forked("e/a", "f/a", confirmed=k < 1, fork_slingshots=int(k >= 1)) for k in range(3)]
    said = confirm.words(confirm.Confirmation(runs=tuple(rows)))
    assert said.endswith("from the start: gone, and so confirmed, in 1 of 3 runs; still there in 2** (f).")
    assert confirm.words(confirm.Confirmation(runs=tuple(rows[:1]))).endswith("in 1 of 1 run** (f).")


def test_no_delay_is_not_said_beside_an_interval_of_delays():
    row = Detour(state=1, p_adjusted=0.08, statistic=5.0, visits=9, interval=[10.0, 600.0])
    assert delays.verdict(row, 20, 3) == "not shown once p is adjusted over the tested states"
    assert delays.verdict(replace(row, interval=[-10.0, 600.0]), 20, 3) == "no delay shown"
