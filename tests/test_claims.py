"""The account of the published claims: forks, spread and comparisons against closed forms, and how often it errs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bars.claims import compared, contrast, told
from nulls.hmm import states_of
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page
from scipy.stats import beta, norm, trim_mean

from dynalab.analysis.hmm.claims import DetourCount, OffPath, claims, forks, off_path, spread
from dynalab.analysis.hmm.comparison import compare
from dynalab.analysis.hmm.published import table
from dynalab.cli.app import run as command
from dynalab.core.convergence import Passage
from dynalab.core.records import plain
from dynalab.core.stats import clopper_pearson, quantile


def result(paths, steps=None):
    rows = [{"run": f"e/{i}", "steps": list(range(len(p))), "states": p} for i, p in enumerate(paths)]
    known = (
        None
        if steps is None
        else [
            {"run": f"e/{i}", "step": None if s is None else int(s), "censored": s is None}
            for i, s in enumerate(steps)
        ]
    )
    return states_of(states=rows, convergence=known, n_states=3)


def test_forks_by_the_first_way_out():
    paths = [(0, 1, 2)] * 6 + [(0, 2)] * 3 + [(0, 1, 0, 1, 2)] + [(0, 1, 3)]
    found = forks(paths)
    assert [(item.state, item.runs, item.fork) for item in found] == [(0, 11, True), (1, 8, False)]
    first = found[0].directions
    assert [(way.to, way.runs) for way in first] == [(1, 8), (2, 3)]
    assert first[1].interval == clopper_pearson(3, 11) and first[0].share + first[1].share == 1
    # Leaving 1 back to 0 is one run's way, and so is 3: a single run is no fork.
    assert [(way.to, way.runs) for way in found[1].directions] == [(2, 6), (0, 1), (3, 1)]
    # Which path is common is read off the same runs: four intervals at once.
    low, high = beta.ppf(0.05 / 8, 5, 7), beta.ppf(1 - 0.05 / 8, 6, 6)
    interval = pytest.approx([low, high])
    assert off_path(paths) == OffPath(5, 11, 5 / 11, interval, 4)
    assert off_path([]).share is None
    assert forks([(0, 1)] * 5) == [] and off_path([(0,)] * 4).runs == 0


def test_spread_with_censoring():
    steps = [100, 120, 140, 200, None]
    late = spread(result([[0]] * 5, steps).convergence)
    assert late.median == 140 and late.quartiles == [120, 200] and late.censored == 1
    assert late.cv is None and late.cv_interval is None
    known = np.array([100, 120, 140, 200])
    found = spread(result([[0]] * 4, known).convergence)
    assert found.cv == pytest.approx(known.std(ddof=1) / known.mean())
    assert found.median == 130 and found.cv_interval[0] < found.cv < found.cv_interval[1]
    same = spread(result([[0]] * 3, [50, 50, 50]).convergence)
    assert same.cv == 0 and same.cv_interval is None
    none = spread(result([[0]] * 2, [None, None]).convergence)
    assert none.median is None and none.cv is None
    json.dumps(plain(claims(result([[0, 1]] * 5, steps))), allow_nan=False)
    assert claims(result([[0, 1]])).spread is None and claims(result([[0]])).detours is None


def test_the_interval_of_spread_is_bonetts():
    """By its formula, on logarithms, and told as the coefficient of variation of a lognormal law."""
    steps = np.exp(5 + 0.3 * np.random.default_rng(5).normal(size=30)).round()
    y, n, z = np.log(steps), 30, norm.ppf(0.975)
    centre = trim_mean(y, 1 / (2 * np.sqrt(n - 4)))
    gamma = n * ((y - centre) ** 4).sum() / ((y - y.mean()) ** 2).sum() ** 2
    c = n / (n - z)
    se = c * np.sqrt((gamma - (n - 3) / n) / (n - 1))
    variance = np.exp(np.log(c * y.var(ddof=1)) + z * se * np.array([-1, 1]))
    found = spread(result([[0]] * n, steps).convergence)
    np.testing.assert_allclose(found.cv_interval, np.sqrt(np.exp(variance) - 1))
    # Any three steps above 0 have one, and it holds the coefficient itself.
    few = spread(result([[0]] * 3, [10, 10, 4000]).convergence)
    assert few.cv_interval[0] <= few.cv <= few.cv_interval[1] < np.inf
    assert spread(result([[0]] * 3, [0, 10, 20]).convergence).cv_interval is None


def test_comparison_of_shares():
    one = result([[0, 1]] * 15 + [[0, 2]] * 5)
    other = result([[0, 1]] * 20)
    found = compare(one, other).off_path
    assert found.difference == -0.25
    # Each setting has states of its own: what a test would say is not of one law.
    assert found.p is None
    # Newcombe (1998), method 10, by its formula.
    l1, u1, l2, u2 = 0, beta.ppf(0.975, 1, 20), beta.ppf(0.0125, 5, 16), beta.ppf(0.9875, 6, 15)
    low = -0.25 - np.sqrt((0 - l1) ** 2 + (u2 - 0.25) ** 2)
    high = -0.25 + np.sqrt((u1 - 0) ** 2 + (0.25 - l2) ** 2)
    np.testing.assert_allclose(found.interval, [low, high])
    assert compare(one, other).spread is None


def test_comparison_of_times():
    rng = np.random.default_rng(0)
    paths = [[0, 1]] * 30

    def steps(centre, width):
        return np.exp(centre + width * rng.normal(size=30)).round()

    wide, fast, narrow = steps(7, 0.4), steps(5, 0.4), steps(7, 0.1)
    same = compare(result(paths, wide), result(paths, fast))
    # Ten times faster and as wide: faster, and not narrower.
    assert same.speed.p < 0.001 and same.speed.interval[1] < 0.3 and same.spread.p > 0.05
    less = compare(result(paths, wide), result(paths, narrow))
    assert less.spread.p < 0.001 and less.spread.interval[1] < 0.6 and less.speed.p > 0.05
    assert less.spread.ratio == pytest.approx(
        narrow.std(ddof=1) / narrow.mean() / (wide.std(ddof=1) / wide.mean())
    )
    some = compare(result(paths, [None, *wide[1:]]), result(paths, narrow))
    assert some.left_out == 1 and some.spread is None
    assert some.reasons == {"spread": "1 of 60 runs did not converge"}
    assert some.speed.ratio == quantile(narrow, 0.5) / quantile([None, *wide[1:]], 0.5)
    never = compare(result(paths, [None] * 20 + [*wide[:10]]), result(paths, narrow)).speed
    assert never.ratio is None and never.interval[0] is None and never.p < 0.05


def test_permutation_tests_are_right_about_nothing():
    """Two settings of the same law: p below .05 in about one of twenty."""
    rng = np.random.default_rng(1)
    paths = [[0]] * 12
    small = {"spread": 0, "speed": 0}
    for _ in range(80):
        a, b = (np.exp(6 + 0.3 * rng.normal(size=12)).round() for _ in range(2))
        found = compare(result(paths, a), result(paths, b))
        for key in small:
            small[key] += getattr(found, key).p < 0.05
    assert max(small.values()) <= 10


def test_the_page_of_two_settings(outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    no_drawing(monkeypatch)
    one = make_ensemble(outputs, n_runs=5)
    two = make_ensemble(outputs, n_runs=5, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    make_hmm(outputs, one)
    make_hmm(outputs, two, digest="aaaaaaaaaa", paths=[np.repeat([0, 1, 2], 7)] * 5)
    assert command(["report", one.id, two.id, "--json"]) == 0
    page = read_page(Path(json.loads(capsys.readouterr().out)["path"]))
    rows = page.table("published claim", "here", "by these runs, with 95% intervals")
    assert rows[0][1] == "none seen" and "2 of 5 converged runs (3% to 90%) do not take" in rows[0][2]
    assert "a single run, so no fork" in rows[0][2]
    assert rows[1][2] == "not tested by this analysis"
    assert "coefficient of variation" in rows[2][2] and "median step" in rows[2][2]
    assert "The published claims, setting against setting" in page.text
    assert "-20 percentage points" in page.text


def rows(findings):
    """The rows of the table of claims, which are read from the findings."""
    return table(replace(findings, claims=claims(findings))).rows


def test_detours_as_the_analysis_has_them():
    tested = [
        {"state": 2, "verdict": True, "effect_steps": 412.4, "interval": [205.1, 618.9], "p": 0.002,
         "p_adjusted": 0.004},
        {"state": 1, "verdict": False, "effect_steps": None, "interval": None, "p": None, "p_adjusted": None},
    ]  # fmt: skip
    data = result([[0, 1]] * 6, [5, 6, 7, 8, 9, 10])

    def of(*rows):
        return replace(data, detours=states_of(detours=rows).detours)

    assert claims(of(*tested)).detours == DetourCount(1, [2])
    row = rows(of(*tested))[1]
    assert row[1].value == "yes"
    assert (
        row[2] == "state 2: 412 steps (205 to 619), adjusted p = 0.004; 1 other state cannot be tested: "
        "too few runs visit it, or skip it"
    )
    missed = {**tested[0], "verdict": False, "p_adjusted": 0.4}
    assert rows(of(missed))[1][1].value == "none shown"
    assert rows(of(*tested[1:]))[1][2].startswith("no state is visited by enough runs")
    # An interval may be open where censoring leaves it so.
    assert "205 to open" in rows(of({**tested[0], "interval": [205.1, None]}))[1][2]


def test_the_bars_in_words():
    rng = np.random.default_rng(0)
    data = [
        result([[0, 1, 2]] * 9 + [[0, 2]] * 3, np.exp(6 + width * rng.normal(size=12)).round())
        for width in (0.3, 0.1)
    ]
    data[1] = replace(data[1], convergence=[Passage("e/0", None, True), *data[1].convergence[1:]])
    said = [told({**plain(item), "claims": plain(claims(replace(item, detours=[])))}) for item in data]
    assert said[0].startswith(
        "K = 3, forks at 0, 3 of 12 runs off the common path (4 to 61%), detours: none of 0"
    )
    assert "1 never" in said[1] and "CV not known" in said[1]
    both = compared(contrast(*map(plain, data)))
    assert "off the common path -6 points" in both and "CV not compared" in both and "median times" in both


def test_paths_and_settings_are_cut_where_runs_converge():
    """Runs of one law, one setting trained for half as long: what came later, or never came, tells nothing."""

    def trained(rows):
        states, steps = [], []
        for total in range(60, 130, 2):
            states.append(
                np.searchsorted([0.2 * total, 0.5 * total, total], np.arange(rows), "right").tolist()
            )
            steps.append(int(0.9 * total) if int(0.9 * total) < rows else None)
        found = result(states, steps)
        return replace(found, convergence=[replace(row, last=rows - 1) for row in found.convergence])

    short, whole = trained(100), trained(200)
    assert claims(short).off_path.of < 35 and claims(whole).off_path.of == 35
    assert claims(short).off_path.runs == claims(whole).off_path.runs == 0
    found = compare(whole, short)
    assert found.off_path.difference == 0 and found.off_path.p is None
    assert found.speed.ratio == 1 and found.speed.p > 0.5 and found.spread is None
    nothing = compare(result([[0, 1]] * 4), result([[0, 2]] * 4))
    assert nothing.off_path.difference == 0 and "when runs converge" in nothing.reasons["speed"]
    never = compare(result([[0, 1]] * 4, [None] * 4), whole)
    assert never.off_path is None and "no run of one setting" in never.reasons["off_path"]
