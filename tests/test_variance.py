"""Components of variance: moments against brute force and REML, intervals against planted shares, the command line."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from designs import simulate
from nulls.variance import crossed

from dynalab.analysis import variance
from dynalab.analysis.base import Convergence, Group
from dynalab.analysis.variance import components, impute
from dynalab.analysis.variance.design import read
from dynalab.core.records import plain
from dynalab.errors import ConfigError, DynalabError
from dynalab.show import terminal


def ensemble(values, factors=("init", "order"), last=1000):
    """Runs whose test accuracy reaches 0.9 at the given steps; NaN: never."""
    steps = np.arange(0, last + 1, 10)
    runs = {}
    for cell in product(*map(range, values.shape)):
        label = "-".join(f"{name}{level}" for name, level in zip(factors, cell, strict=True))
        at = values[cell]
        runs[label] = {"test_accuracy": np.where(steps >= (np.inf if np.isnan(at) else at), 0.95, 0.1)}
    return replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))


def split(group, **keys):
    return variance.analyse([group], variance.Config(**keys))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 2, 3, 2)])
def test_strata_are_the_projections_and_their_expectations_invert(shape):
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape)
    found = components.strata(values)
    total = sum(d * s for d, s in zip(found.freedom[1:], found.squares[1:], strict=True))
    np.testing.assert_allclose(total, ((values - values.mean()) ** 2).sum())
    assert found.freedom.sum() == values.size - 1
    planted = np.concatenate([[0], rng.uniform(size=2 ** len(shape) - 1)])
    lambdas = components.expectations(shape, planted)
    np.testing.assert_allclose(components.solve(shape, np.concatenate([[0], lambdas[1:]])), planted)
    # The covariance of all cells, built from its definition, has these as eigenvalues.
    cells = np.array(list(product(*map(range, shape))))
    covariance = np.zeros((len(cells), len(cells)))
    for mask in range(1, 2 ** len(shape)):
        inside = [f for f in range(len(shape)) if mask >> f & 1]
        covariance += planted[mask] * (cells[:, None, inside] == cells[None][:, :, inside]).all(axis=2)
    expected = np.repeat(lambdas, np.concatenate([[1], found.freedom[1:]]))
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), np.sort(expected))
    rows = sum(impute._rows(shape, m, np.arange(len(cells))) * lam for m, lam in enumerate(lambdas))
    np.testing.assert_allclose(rows, covariance, atol=1e-12)


def test_moments_are_reml_where_none_is_negative():
    values = simulate((6, 5), (0.5, 0.3), 0.2, seed=3)
    point = components.solve(values.shape, np.nan_to_num(components.strata(values).squares))
    frame = pd.DataFrame(
        [(a, b, values[a, b]) for a, b in product(range(6), range(5))], columns=["a", "b", "y"]
    )
    model = smf.mixedlm(
        "y ~ 1", frame.assign(one=1), groups="one", vc_formula={"a": "0 + C(a)", "b": "0 + C(b)"}
    )
    fit = model.fit(reml=True)
    assert (point[1:] > 0).all()
    np.testing.assert_allclose(point[1:], [*fit.vcomp, fit.scale], rtol=1e-3)


def test_planted_shares_lie_in_their_intervals():
    inside = total = 0
    for seed in range(20):
        rng = np.random.default_rng([seed, 1])
        planted = rng.dirichlet(np.ones(3))
        steps = np.round(np.maximum(500 + 60 * simulate((6, 6), tuple(planted[:2]), planted[2], seed), 1))
        result = split(ensemble(10 * np.ceil(steps / 10)), draws=800)
        for row, share in zip(result.shares, planted, strict=True):
            low, high = row.interval
            assert low <= row.share <= high
            inside += low <= share <= high
            total += 1
    # 95%, less two and a half standard errors.
    assert inside >= 0.88 * total


def test_interactions_do_not_pass_for_main_effects():
    found = []
    for seed in range(40):
        values = simulate((4, 4, 4), (0.0, 0.3, 0.0), 0.2, seed, interaction=0.3)
        point = components.solve(values.shape, np.nan_to_num(components.strata(values).squares))
        found.append(point[1])
    # Unbiased at 0, within three standard errors; mistaken for the residual the interactions would add 0.15.
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(40)


def test_censored_runs_are_drawn_not_taken_for_converged():
    values = 500 + 100 * simulate((6, 6), (0.6, 0.1), 0.3, seed=5)
    whole = split(ensemble(10 * np.ceil(values / 10)), draws=800)
    end = 10 * np.floor(np.quantile(values, 0.8) / 10)
    cut = np.where(10 * np.ceil(values / 10) > end, np.nan, values)
    some = ensemble(10 * np.ceil(cut / 10), last=int(end))
    outcome = split(some, draws=800)
    n = int(np.isnan(cut).sum())
    assert n > 5 and any(f"{n} of 36 runs never converged" in line for line in outcome.warnings)
    assert abs(outcome.mean_step - whole.mean_step) < 25
    taken = np.nanmean(np.where(np.isnan(cut), end, cut))
    assert abs(outcome.mean_step - whole.mean_step) < abs(taken - whole.mean_step)
    assert abs(outcome.shares[0].share - whole.shares[0].share) < 0.25
    json.dumps(plain(outcome), allow_nan=False)


def test_draws_above_a_bound_are_those_of_the_tail():
    rng = np.random.default_rng(0)
    drawn = np.array([impute._above(1.0, 2.0, 4.0, rng) for _ in range(4000)])
    from scipy import stats

    law = stats.truncnorm((4 - 1) / 2, np.inf, loc=1, scale=2)
    assert drawn.min() >= 4 and stats.kstest(drawn, law.cdf).pvalue > 0.01
    # Far out in the tail nothing overflows.
    assert 400 <= impute._above(0.0, 1.0, 400.0, rng) < 401


def test_missing_cells_are_named():
    runs = ensemble(500 + 10 * np.round(10 * simulate((4, 4), (0.5, 0.3), 0.2, seed=0)))
    outcome = split(replace(runs, runs=runs.runs[1:]), draws=400)
    assert outcome.empty_cells == ("init0-order0",)
    assert any("init0-order0" in line for line in outcome.warnings)


def test_a_stream_without_effect_and_no_spread_at_all():
    outcome = split(ensemble(np.repeat([[300.0], [400], [500], [600]], 3, axis=1)))
    assert [row.share for row in outcome.shares] == [1.0, 0.0, 0.0]
    assert any("order has no effect" in line for line in outcome.warnings)
    flat = split(ensemble(np.full((3, 3), 300.0)))
    assert flat.shares[0].share is None
    assert any("no spread" in line for line in flat.warnings)
    json.dumps(plain(flat), allow_nan=False)
    for findings, rows in ((flat, ["–", "–", "–"]), (outcome, ["100.0%", "0.0%", "0.0%"])):
        lines = list(terminal.lines(variance.show(findings, ())))
        assert [line.split()[1] for line in lines[-3:]] == rows


def test_seeds_that_happen_to_be_alike_do_not_show_that_a_stream_decides_nothing():
    """Four seeds of means closer than chance has them: the share of what is drawn, not 0 to 0."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5))
    means = values.mean(axis=1, keepdims=True)
    values += 0.1 * (means - means.mean()) - means
    found = components.strata(values)
    assert found.squares[1] < 0.05 * found.squares[3]
    result = split(ensemble(10 * np.round(50 + 10 * values)))
    init, _, residual = result.shares
    assert init.share == 0 and init.negative
    assert init.interval[0] == 0 and 0.3 < init.interval[1] < 0.9
    assert residual.interval[0] < 1 - init.interval[1] + 0.2 and residual.interval[1] == 1
    lines = list(terminal.lines(variance.show(result, ())))
    assert (
        "the intervals do not tell which of residual" in lines[0] and "init" in lines[0].split("which of")[1]
    )
    # The draws are those of which the component is not negative, as when the others are thrown away.
    shape, near = (4, 5), 2.5 * found.squares[3]
    some = components.Strata(np.array([np.nan, near, found.squares[2], found.squares[3]]), found.freedom)
    lambdas = components.draw(some, 40_000, rng)
    drawn, chance = components.above_zero(shape, lambdas, np.broadcast_to(some.sums, lambdas.shape), 0, rng)
    kept = components.shares(components.solve(shape, lambdas), 2)[:, 0]
    kept = kept[kept > 0]
    again = components.shares(components.solve(shape, drawn), 2)[:, 0]
    assert chance.mean() == pytest.approx(len(kept) / 40_000, abs=0.01)
    for q in (0.1, 0.5, 0.975):
        weighted = np.quantile(again, q, method="inverted_cdf", weights=chance)
        assert weighted == pytest.approx(np.quantile(kept, q), abs=0.015)


def test_where_no_stream_decides_anything_the_residual_may_be_all():
    """Three streams without effect: the upper end is below 1 in 15% of designs if each may say so for itself."""
    missed = []
    for seed in range(150):
        runs = crossed(500 + 100 * simulate((4, 4, 4), (0.0,) * 3, 1.0, seed), 1500)
        residual = split(runs, draws=200).shares[-1]
        missed.append(residual.interval[1] < 1)
    assert 0 < sum(missed) <= 7
    # A stream that decides half takes it down, whatever the others do.
    runs = crossed(500 + 100 * simulate((8, 8), (0.5, 0.0), 0.5, 0), 1500)
    assert split(runs).shares[-1].interval[1] < 1


def test_the_standard_deviation_of_the_runs_is_theirs_and_the_components_is_named():
    values = 10 * np.round(50 + 10 * simulate((4, 5), (0.0, 0.0), 1.0, seed=2))
    result = split(ensemble(values))
    assert result.runs_sd == pytest.approx(values.std(ddof=1)) and result.sd > result.runs_sd
    line = list(terminal.lines(variance.show(result, ())))[1]
    assert f"{result.runs_sd:.3g}" in line.split("between these runs")[0] and "by the components" in line
    cut = np.where(values > np.quantile(values, 0.8), np.nan, values)
    some = split(ensemble(cut, last=int(np.nanmax(cut))), draws=400)
    assert some.runs_sd is None
    assert "between these runs" not in list(terminal.lines(variance.show(some, ())))[1]


def test_logarithms():
    values = 10 * np.round(100 * np.exp(0.3 * simulate((5, 5), (0.5, 0.3), 0.2, seed=1)))
    result = split(ensemble(values, last=10_000), log_time=True)
    point = components.solve((5, 5), np.nan_to_num(components.strata(np.log(values)).squares))
    np.testing.assert_allclose(result.shares[0].share, point[1] / point[1:].sum())
    np.testing.assert_allclose(result.mean_step, np.exp(np.log(values).mean()))


@pytest.mark.parametrize(
    ("labels", "words", "code"),
    [
        (["s0000", "s0001"], "s0000 is none; train one: design=crossed", 4),
        (["init0", "init1"], "two or more crossed streams", 4),
        (["init0-order0", "init1-order0"], "two or more crossed streams", 4),
        (["init0-order0", "init1-split0"], "several designs", 4),
        (["init0-order0", "init0-order1", "init1-order0", "init1-order0"], "same seeds", 4),
        (["init0-data1"], "init0-data1 is none", 4),
    ],
)
def test_runs_that_are_no_crossed_design(labels, words, code):
    with pytest.raises(DynalabError, match=words) as caught:
        read([f"e/{label}" for label in labels])
    assert caught.value.exit_code == code


def test_too_few_runs_converged_or_nothing_to_watch():
    values = np.full((3, 3), np.nan)
    values[0] = 100
    with pytest.raises(DynalabError, match="3 of 9 runs"):
        split(ensemble(values))
    bare = replace(ensemble(np.full((2, 2), 100.0)), convergence=None)
    with pytest.raises(ConfigError, match="no metric to watch"):
        split(bare)


@pytest.mark.usefixtures("undrawn")
def test_from_a_crossed_design_to_the_report(here, tiny, outputs):
    words = ["design=crossed", "seed_streams.init=0..2", "seed_streams.split=0..1", "optimizer.lr=0.01"]
    words.append("eval.every=1")
    trained = here("train", *tiny, *words, "--json")
    assert trained.code == 0, trained.err
    (trained_ensemble,) = trained.json["ensembles"]
    assert [run["id"].rpartition("/")[2] for run in trained_ensemble["runs"]] == [
        f"init{a}-split{b}" for a in range(3) for b in range(2)
    ]
    rule = ["convergence.metric=train_loss", "convergence.threshold=2.0"]
    found = here("analyze", "variance", *rule, "--json")
    assert found.code == 0, found.err
    (analysis,) = found.json["analyses"]
    assert [row["source"] for row in analysis["shares"]] == ["init", "split", "residual"]
    assert {"source", "share", "interval"} <= set(analysis["shares"][0])
    np.testing.assert_allclose(sum(row["share"] for row in analysis["shares"]), 1)
    report = here("report")
    assert report.code == 0, report.err
    (page,) = outputs.glob("reports/*/index.html")
    assert "Where the spread comes from" in page.read_text()
    wrong = here("analyze", "variance", "convergence.metric=nothing")
    assert wrong.code == 2 and "Traceback" not in wrong.err
