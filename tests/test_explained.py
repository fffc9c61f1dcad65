"""The share of the convergence step that visits explain: its value, and how often chance alone gives as much."""

from __future__ import annotations

from dataclasses import replace

import hmm_cases as cases
import numpy as np
import pytest
from nulls.hmm import states_of, walks
from report_fakes import make_ensemble, make_hmm
from scipy import optimize, stats

from dynalab.analysis.hmm import delays, detours, tobit
from dynalab.analysis.hmm.visits import chances
from dynalab.core import survival
from dynalab.show.blocks import Table


@pytest.mark.parametrize("watched", [np.inf, 110.0])
def test_the_share_explained_is_that_of_the_likelihoods(watched):
    """Found by a simplex search; where all times are known it is R2 of least squares."""
    rng = np.random.default_rng(7)
    group = np.arange(40) < 13
    time = np.round(rng.normal(100, 15, 40) + 20 * group)
    observed = time < watched
    time = np.minimum(time, watched)
    x = group[:, None].astype(float)

    def best(design):
        def loss(at):
            z = (time - design @ at[:-1]) / np.exp(at[-1])
            return -(stats.norm.logpdf(z[observed]) - at[-1]).sum() - stats.norm.logsf(z[~observed]).sum()

        begin = [time.mean(), *np.zeros(design.shape[1] - 1), np.log(time.std())]
        return -optimize.minimize(loss, begin, method="Nelder-Mead", options={"maxiter": 4000}).fun

    one = np.ones((40, 1))
    (found,) = tobit.explained([x], time, observed)
    assert found == pytest.approx(1 - np.exp(2 / 40 * (best(one) - best(np.hstack([one, x])))), abs=1e-4)
    assert (
        observed.all() and found == pytest.approx(np.corrcoef(x[:, 0], time)[0, 1] ** 2)
    ) or 5 < observed.sum() < 35
    assert tobit.explained([x], np.full(40, 50.0), np.ones(40, bool)) == []
    assert tobit.explained([time[:, None]], time, observed) == [pytest.approx(1, abs=1e-2)]


def test_the_chance_of_a_visit_is_that_of_runs_that_take_as_long():
    entry = np.array([[2.0], [np.inf], [4.0], [np.inf], [np.inf]])
    time = np.array([9.0, 3.0, 9.0, 9.0, 1.0])
    # At step 2 one of the four that are still there enters, at step 4 one of the two that are, and have not yet.
    assert chances(entry, time)[:, 0] == pytest.approx([5 / 8, 1 / 4, 5 / 8, 5 / 8, 0])
    assert chances(np.full((5, 2), np.inf), time).max() == 0


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(detours, "NULL_DRAWS", 99)
    monkeypatch.setattr(survival, "DRAWS", 99)
    monkeypatch.setattr(survival, "ENTRIES", 99)


@pytest.mark.parametrize("kind", ["lengths", "late"])
def test_visits_that_do_not_delay_explain_no_more_than_chance(few_draws, kind):
    """Who takes long has more time to visit, and who is cut off less: that share is the null's as well."""
    found = [detours.find(*walks(seed, kind), 4).model for seed in range(10)]
    beyond = [one.r2 > one.null_r2_95 for one in found if one.r2 is not None]
    assert len(beyond) >= 8 and sum(beyond) <= 2


@pytest.mark.parametrize("watched", [np.inf, 500])
def test_visits_by_lot_explain_no_more_than_chance_however_many_runs_are_cut_off(few_draws, watched):
    beyond = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        time = np.exp(6 + 0.5 * rng.normal(size=20))
        entry = np.where(rng.random((20, 1)) < 0.5, 1.0, np.inf)
        ends = np.minimum(time, watched)
        model = detours._model(ends, ends, time < watched, entry, seed)
        assert model.censored == (time >= watched).sum()
        beyond += model.r2 > model.null_r2_95
    assert beyond <= 3


def test_a_planted_detour_explains_more(few_draws):
    beyond = 0
    for number in range(5):
        planted = cases.make(cases.describe_case(number))
        steps = [run.steps for run in planted.trajectories.runs]
        model = detours.find(
            planted.states, steps, planted.convergence, 1 + max(map(max, planted.states))
        ).model
        beyond += model.r2 > model.null_r2_95
    assert beyond >= 4


def test_the_page_holds_a_share_against_its_own_null(outputs):
    """One of before, whose null was of another regression, is not shown."""
    found = make_hmm(outputs, make_ensemble(outputs)).value
    row = {"state": 1, "p_adjusted": None, "visits": 4}
    model = {"r2": 0.4, "null_r2": 0.1, "null_r2_95": 0.3, "states": [1], "censored": 2, "published": None}

    def tables(**more):
        more = states_of(detours=[row, row], detour_model={**model, **more})
        said = delays.blocks(
            replace(found, detours=more.detours, detour_model=more.detour_model), figures=False
        )
        return [block for block in said if isinstance(block, Table)]

    (table,) = tables()
    assert [table.rows[0][1].text, table.rows[0][2]] == ["0.40", "0.10 (0.30)"]
    assert "2 runs never" in table.caption
    assert not tables(loo_r2=0.2)
