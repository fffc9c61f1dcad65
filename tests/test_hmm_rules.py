"""Small rules of the fits: priors, stopping, choices, thresholds, against scipy, dense algebra and counts by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nulls.hmm import states_of
from scipy import stats
from test_hmm_inference import random_model, spd

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.hmm import (
    baselines,
    covariances,
    edges,
    em,
    emissions,
    evidence,
    fitting,
    inference,
    iterations,
    merging,
    online,
    outcome,
    paper,
    paper_em,
    selection,
    stability,
    starts,
    states,
    tasks,
)
from dynalab.analysis.hmm.config import Config, Settings
from dynalab.analysis.hmm.features import (
    WEIGHT_METRICS,
    Features,
    Scaler,
    clocks,
    collinearity,
    extract,
    fit_scaler,
)
from dynalab.analysis.hmm.findings import Agreement, Candidate, Collinearity
from dynalab.analysis.hmm.frames import LEAST_UNIT, stack, thin
from dynalab.analysis.hmm.model import Model, from_plain, to_plain
from dynalab.analysis.hmm.residuals import Residuals, residuals
from dynalab.config.keys import Stored
from dynalab.core.records import plain
from dynalab.core.stats import clopper_pearson
from dynalab.errors import NothingMatched


def walk(seed, rows, size):
    return np.random.default_rng([seed, rows, size]).normal(size=(rows, size)).cumsum(axis=0)


def stacked(emission="ar", n=3, rows=12, size=3):
    return stack([walk(i, rows, size) for i in range(n)], emission)


# Priors


@pytest.mark.parametrize("form", ["free", "ordered", "independent"])
def test_the_penalty_of_a_chain_is_the_density_of_dirichlets(form):
    rng = np.random.default_rng(0)
    prior = replace(
        emissions.make_prior(stacked(), Config()),
        counts=0.4,
        sticky=5.0,
        ordered=form == "ordered",
        independent=form == "independent",
    )
    emission = em.begin(stacked(), prior, np.arange(36) % 3, 3).emission

    def drawn():
        start, moves = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
        if form == "ordered":
            moves = np.triu(moves) / np.triu(moves).sum(axis=1, keepdims=True)
        return iterations.Parameters(
            start, np.repeat(start[None], 3, axis=0) if form == "independent" else moves, emission
        )

    def log_prior(p):
        total = stats.dirichlet.logpdf(p.start, np.full(3, 1.4))
        for k, row in enumerate([] if form == "independent" else p.transitions):
            alpha = np.full(3, 1.4) + 5 * np.eye(3)[k]
            if form == "ordered":
                row, alpha = row[k:], alpha[k:]
            total += stats.dirichlet.logpdf(row / row.sum(), alpha) if len(row) > 1 else 0.0
        return total

    one, other = drawn(), drawn()
    gap = iterations.penalty(one, prior) - iterations.penalty(other, prior)
    assert gap == pytest.approx(log_prior(one) - log_prior(other))


@pytest.mark.parametrize("emission", ["ar", "level"])
def test_the_penalty_of_emissions_is_the_density_of_matrix_normals_and_inverse_wisharts(emission):
    rng = np.random.default_rng(1)
    prior = replace(emissions.make_prior(stacked(emission), Config()), weight=20.0)
    p = len(prior.ridge)

    def log_prior(e):
        total = 0.0
        for w, sigma in zip(e.weights, e.covariances, strict=True):
            total += stats.invwishart.logpdf(sigma, 20 - 3 - 1, prior.scatter)
            total += stats.matrix_normal.logpdf(w, None, sigma, np.linalg.inv(prior.ridge))
            # The kernel of the weights is not divided by the size of the noise.
            total += 0.5 * p * np.linalg.slogdet(sigma)[1]
        return total

    one, other = (emissions.Emission(rng.normal(size=(2, 3, p)), spd(rng, 3, 2)) for _ in range(2))
    gap = emissions.log_penalty(one, prior) - emissions.log_penalty(other, prior)
    assert gap == pytest.approx(log_prior(one) - log_prior(other))


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_prior_is_a_tenth_of_what_least_squares_leave(emission, covariance):
    frames = stacked(emission)
    config = Config(covariance=covariance)
    prior = emissions.make_prior(frames, config)
    p = frames.inputs
    u, y = frames.design[:, :p], frames.design[:, p:]
    pull = [10.0] * (p - 1) + [1e-3]
    np.testing.assert_array_equal(prior.ridge, np.diag(pull))
    # Pseudo-rows of zeros, whose residuals count.
    wide, high = np.vstack([u, np.diag(np.sqrt(pull))]), np.vstack([y, np.zeros((p, 3))])
    rest = high - wide @ np.linalg.lstsq(wide, high)[0]
    expected = 5 * 0.1 * rest.T @ rest / (len(u) - p)
    assert prior.weight == 2 + 3 and prior.common == 0 and prior.rank == 3
    np.testing.assert_allclose(
        prior.scatter, np.diag(np.diagonal(expected)) if covariance == "diag" else expected
    )
    own = emissions.make_prior(frames, Config(ridge=4, common=7, sticky=2, rank=2, left_to_right=True), True)
    assert (own.ridge[0, 0], own.common, own.sticky, own.rank) == (4 if p > 1 else 1e-3, 7, 2, 2)
    assert own.ordered and own.independent and own.counts == 0.1 and own.floor == 1e-6


def test_the_prior_of_fewer_frames_than_inputs_and_of_none():
    few = emissions.make_prior(stack([walk(0, 4, 3)], "ar"), Config())
    # Three rows and four inputs: divided by one degree of freedom, and above the floor.
    design = few_design = stack([walk(0, 4, 3)], "ar").design
    u, y = few_design[:, :4], design[:, 4:]
    gram = u.T @ u + few.ridge
    rest = y.T @ y - y.T @ u @ np.linalg.solve(gram, u.T @ y)
    np.testing.assert_allclose(few.scatter, 0.5 * rest, rtol=1e-6)
    none = emissions.make_prior(stack([walk(i, 1, 3) for i in range(3)], "ar"), Config())
    np.testing.assert_allclose(none.scatter, 0.5 * np.eye(3))
    flat = emissions.make_prior(stack([np.zeros((9, 2))], "level"), Config())
    np.testing.assert_allclose(flat.scatter, 4 * 0.1 * 1e-6 * 9 / 8 * np.eye(2))


@pytest.mark.parametrize("diagonal", [False, True])
def test_first_frames_are_pulled_by_two_frames_of_the_pooled_variance(diagonal):
    frames = stacked()
    x = frames.levels[[0, 12, 24]]
    mean, covariance = emissions.first_frames(frames, 2.0, diagonal)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    expected = (3 * np.cov(x.T, ddof=0) + 2 * np.diag(frames.levels.var(axis=0))) / 5
    np.testing.assert_allclose(covariance, np.diag(np.diagonal(expected)) if diagonal else expected)
    begun = em.begin(frames, emissions.make_prior(frames, Config()), np.zeros(36, int), 1)
    full = (3 * np.cov(x.T, ddof=0) + 2 * np.diag(frames.levels.var(axis=0))) / 5
    np.testing.assert_allclose(begun.emission.first_covariance, full)
    still = stack([np.ones((3, 2))] * 2, "ar")
    np.testing.assert_allclose(emissions.first_frames(still, 2.0, False)[1], LEAST_UNIT**2 / 2 * np.eye(2))
    assert emissions.first_frames(stacked("level"), 2.0, False) == (None, None)


def test_steps_of_the_chain_by_hand():
    frames = stacked("level", 1, 6, 2)
    prior = emissions.make_prior(frames, Config(sticky=3.0))
    begun = em.begin(frames, prior, np.array([0, 0, 0, 0, 1, 1]), 2)
    # As if left after twenty frames: six frames of two states make three a row.
    row = np.array([0.95 * 3 + 0.1 + 3, 0.05 * 3 + 0.1])
    np.testing.assert_allclose(begun.transitions[0], row / row.sum())
    np.testing.assert_allclose(begun.start, 0.5)
    first, pairs = np.array([1.0, 0]), np.array([[2.0, 1], [1, 1]])
    posterior = np.eye(2)[[0, 0, 0, 0, 1, 1]]
    found = iterations.m_step(frames, prior, begun.emission, posterior, first, pairs)
    np.testing.assert_allclose(found.start, [1.1 / 1.2, 0.1 / 1.2])
    np.testing.assert_allclose(found.transitions, [[5.1 / 6.2, 1.1 / 6.2], [1.1 / 5.2, 4.1 / 5.2]])
    ordered = iterations.m_step(frames, replace(prior, ordered=True), begun.emission, posterior, first, pairs)
    np.testing.assert_allclose(ordered.transitions, [[5.1 / 6.2, 1.1 / 6.2], [0, 1]])
    mixture = iterations.m_step(
        frames, replace(prior, independent=True), begun.emission, posterior, first, pairs
    )
    np.testing.assert_allclose(mixture.transitions, [[4.1 / 6.2, 2.1 / 6.2]] * 2)
    np.testing.assert_allclose(mixture.start, [4.1 / 6.2, 2.1 / 6.2])
    three = em.begin(frames, replace(prior, sticky=0.0), np.arange(6) // 2, 3)
    np.testing.assert_allclose(three.transitions[0, 1], (0.025 * 2 + 0.1) / 2.3)
    assert em.begin(frames, prior, np.zeros(6, int), 1).transitions.tolist() == [[1]]


def test_means_and_noise_of_a_level_by_hand():
    frames = stacked("level", 1, 6, 2)
    prior = emissions.make_prior(frames, Config())
    weights, sigma = emissions.maximise(frames, np.eye(2)[[0, 0, 0, 0, 1, 1]], prior)
    y = frames.design[:4, 1:]
    mean = y.sum(axis=0) / (4 + 1e-3)
    np.testing.assert_allclose(weights[0, :, 0], mean)
    scatter = (y - mean).T @ (y - mean) + 1e-3 * np.outer(mean, mean) + prior.scatter
    np.testing.assert_allclose(sigma[0], scatter / (4 + prior.weight))
    # In common: what each has is pulled to the harmonic mean of all, as often as the weight says.
    shared = replace(prior, common=50.0)
    before = spd(np.random.default_rng(0), 2, 2)
    _, raw, totals = emissions.penalised(
        frames.grams(np.eye(2)[[0, 0, 0, 0, 1, 1]]), np.array([4.0, 2.0]), prior, 1
    )
    expected = before
    for _ in range(emissions.ROUNDS):
        common = np.linalg.inv(np.mean([np.linalg.inv(one) for one in expected], axis=0))
        expected = (raw + 50 * common) / (totals + 50)[:, None, None]
    earlier, own = (emissions.Emission(weights, one) for one in (before, raw / totals[:, None, None]))
    np.testing.assert_allclose(emissions.maximise_scatter(raw, totals, shared, earlier), expected)
    np.testing.assert_allclose(
        emissions.maximise_scatter(raw, totals, shared, None),
        emissions.maximise_scatter(raw, totals, shared, own),
    )
    assert [
        emissions.shares(replace(prior, common=c, covariance=form), k)
        for c, form, k in ((1, "full", 2), (0, "full", 2), (1, "tied", 2), (1, "diag", 1))
    ] == [True, False, False, False]


# Where EM stops, and what it keeps


@pytest.fixture
def scripted(monkeypatch):
    """EM whose E-steps say given log-likelihoods, and whose parameters are numbered."""
    frames = stacked("level", 2, 10, 1)

    def run(said, tol=0.05, n_iter=None, dead=(), reseedings=0, beat=-np.inf):
        numbered = iter(range(1, 100))
        seen = iter(range(100))
        posterior = np.full((20, 2), 0.5)

        def expect(*_):
            at = next(seen)
            share = np.eye(2)[np.zeros(20, int)] if at in dead else posterior
            return inference.Expectation(
                np.array([said[at]]), share, share, np.zeros(20), np.zeros(2), np.zeros((2, 2))
            )

        monkeypatch.setattr(inference, "expect", expect)
        monkeypatch.setattr(inference, "score", lambda *_: expect().log_likelihoods)
        monkeypatch.setattr(iterations, "penalty", lambda *_: 0.0)
        monkeypatch.setattr(iterations, "log_density", lambda *_: None)
        monkeypatch.setattr(iterations, "m_step", lambda *_: replace(begun, start=np.array([next(numbered)])))
        begun = iterations.Parameters(np.zeros(1), np.zeros((1, 1)), None)
        prior = emissions.Prior(np.eye(1), 1.0, np.eye(1), 1e-6, 0.1)
        found = em.run(frames, prior, reseedings, begun, n_iter or len(said), tol, beat)
        return found, int(found.parameters.start[0])

    return run


def test_em_stops_at_the_first_small_gain_and_keeps_the_best(scripted):
    # 20 frames: a nat in all.
    found, best = scripted([0.0, 9, 10.5, 11.25, 99])
    assert (found.iterations, found.converged, found.objective, best) == (4, True, 11.25, 3)
    assert found.history == [0, 9, 10.5, 11.25] and found.log_likelihood == 11.25 and found.fell == 0
    assert scripted([0.0, 1, 2, 2.5])[0].iterations == 4, "a gain of just the tolerance is one"
    found, best = scripted([0.0, 10, 6])
    assert (found.iterations, found.converged, found.objective, best) == (3, False, 10, 1)
    assert found.fell == 4 / 6
    assert scripted([0.0, 0.25, -0.25], tol=0.0)[0].fell == 0.5, "of at least a nat"
    found, _ = scripted([1e9, 1e9 - 5, 0])
    assert found.converged and 0 < found.fell <= em.SLACK, "rounding"
    found, best = scripted([0.0, 5, 10, 20], n_iter=3)
    assert (found.iterations, found.converged, found.objective, best) == (3, False, 10, 2)


def test_em_is_given_up_where_it_cannot_come_up_to_another(scripted):
    # At 14 it gained 4, before that 10: in 6 more iterations it could come to 74; at 17 to 37, at 19 to 31.
    said = [0.0, 10, 14, 17, 19, 20.5, 22, 23.5, 25]
    assert scripted(said, n_iter=9, beat=32.0)[0].iterations == 5
    assert scripted(said, n_iter=9, beat=38.0)[0].iterations == 4
    found, best = scripted(said, n_iter=9, beat=75.0)
    assert (found.iterations, found.converged, best) == (3, False, 2)
    # A start that is ahead, or that gains, goes on.
    assert scripted(said, n_iter=9, beat=20.0)[0].iterations == 9
    # After new frames for a dead state all is open.
    assert scripted([0.0, 9, 3, 4, 9, 11], dead={1}, reseedings=1, beat=60.0)[0].iterations == 5


def test_a_reseeded_iteration_is_no_fall(scripted):
    found, best = scripted([0.0, 10, 3, 20, 20.5], dead={1}, reseedings=1)
    assert (found.reseeded, found.fell, found.iterations, best) == ([2], 0, 5, 4)
    # The state is dead again, and may not come back.
    found, _ = scripted([0.0, 10, 3, 20, 4], dead={1, 3}, reseedings=1)
    assert found.reseeded == [2] and found.fell == 16 / 4
    assert scripted([0.0, 10, 3, 20, 4, 4.5], dead={1, 3}, reseedings=2)[0].reseeded == [2, 4]


def test_a_state_with_a_frame_is_not_dead(scripted, monkeypatch):
    seen = []
    monkeypatch.setattr(starts, "reseed", lambda posterior, dead, *_: seen.append(dead) or posterior)
    scripted([0.0, 10, 20, 20], dead={0, 1}, reseedings=5)
    assert seen == [[1], [1]]
    monkeypatch.setattr(iterations, "DEAD", 0.0)
    scripted([0.0, 10, 20, 20], dead={0, 1}, reseedings=5)
    assert len(seen) == 2, "with no frames at all, and not below the limit"


@pytest.fixture
def contest(monkeypatch):
    """Starts whose objectives are given; returns the calls of EM as (start, iterations) and what won."""
    beaten = {}

    def hold(screen, finals, kinds=None, **keys):
        calls, numbers, seen = [], iter(range(len(screen))), []

        def begin(frames, positions, prior, settings, n_states, kind, rng):
            seen.append(kind)
            return iterations.Parameters(np.array([next(numbers)]), np.zeros((1, 1)), None)

        def run(frames, prior, reseedings, parameters, n_iter, tol, beat=-np.inf):
            number = int(parameters.start[0])
            beaten[number] = beat
            first = number not in [one for one, *_ in calls]
            calls.append((number, n_iter, len(frames.levels)))
            objective, converged = (screen if first else finals)[number]
            return em.Fit(parameters, objective, 0.0, converged, 7, fell=0.1 if first else 0.01)

        monkeypatch.setattr(em, "_begin_restart", begin)
        monkeypatch.setattr(em, "_with_first_frames", lambda parameters, *_: parameters)
        monkeypatch.setattr(em, "run", run)
        frames = stacked("ar", 12, 10, 1)
        n_states = keys.pop("n_states", 2)
        config = Config(emission="ar", restarts=len(screen), **keys)
        won = em.fit(
            frames, np.zeros(120), n_states, config, np.random.SeedSequence(0), first_kind=kinds or 0
        )
        return calls, won, seen

    hold.beaten = beaten
    return hold


def test_the_two_leading_starts_run_to_the_end(contest):
    screen = [(1.0, False), (9.0, False), (5.0, False), (7.0, False)]
    calls, won, kinds = contest(screen, {1: (9.5, True), 3: (20.0, False)})
    assert calls == [
        (0, 10, 120), (1, 10, 120), (2, 10, 120), (3, 10, 120), (1, 190, 120), (3, 190, 120),
    ]  # fmt: skip
    assert (won.objective, won.iterations, won.fell) == (20.0, 17, 0.1)
    # The second is given up once it cannot come up to where the first one ended.
    assert contest.beaten[1] == -np.inf and contest.beaten[3] == 9.5
    assert kinds == ["even", "clusters", "early", "moves"]
    # Of two only the better one; what has converged is not carried on; nor beyond the most iterations.
    assert contest(screen[:2], {1: (9.5, True)})[0][2:] == [(1, 190, 120)]
    calls, won, _ = contest([(1.0, False), (9.0, True), (5.0, False)], {2: (8.0, True)})
    assert calls[3:] == [(2, 190, 120)] and won.objective == 9
    assert len(contest(screen, {}, n_iter=10)[0]) == 4 and contest(screen, {}, n_iter=4)[0][0][1] == 4
    # One start has nobody to be compared with; nor have starts of one state.
    assert contest(screen[:1], {})[0] == [(0, 200, 120)]
    assert contest(screen, {}, n_states=1)[0] == [(0, 200, 120)]
    assert contest(screen[:2], {0: (2.0, True), 1: (3.0, True)}, kinds=3)[2] == ["moves", "even"]


def test_starts_of_a_large_ensemble_are_sought_on_some_runs(contest, monkeypatch):
    monkeypatch.setattr(Config, "settings", property(lambda self: Settings(search_frames=50, search_runs=3)))
    calls, won, _ = contest([(1.0, False), (9.0, True), (5.0, True)], {1: (7.0, True), 2: (8.0, True)})
    assert calls[:3] == [(0, 10, 50), (1, 10, 50), (2, 10, 50)]
    # Those that go on see all runs, whether they had converged on some or not, with all iterations.
    assert calls[3:] == [(1, 200, 120), (2, 200, 120)] and won.objective == 8 and won.iterations == 7


def test_a_restart_takes_the_best_of_its_segmentations():
    runs = [walk(i, 20, 2) for i in range(3)]
    frames, where = stack(runs, "ar"), np.tile(np.arange(20), 3)
    prior = emissions.make_prior(frames, Config())
    settings = Settings(tries=3)
    begun = em._begin_restart(frames, where, prior, settings, 3, "even", np.random.default_rng(5))
    rng, tried = np.random.default_rng(5), []
    for _ in range(3):
        labels = starts.segmentation(where, 3, False, rng)
        tried.append(em.run(frames, prior, 3, em.begin(frames, prior, labels, 3), 2, 0.0))
    best = max(tried, key=lambda one: one.objective)
    assert len({one.objective for one in tried}) == 3
    np.testing.assert_array_equal(begun.transitions, best.parameters.transitions)
    # Clusters are drawn once.
    once = em._begin_restart(frames, where, prior, settings, 2, "clusters", np.random.default_rng(5))
    labels = starts.clusters(frames.levels, 2, np.random.default_rng(5))
    np.testing.assert_array_equal(once.transitions, em.begin(frames, prior, labels, 2).transitions)
    ordered = replace(prior, ordered=True)
    once = em._begin_restart(frames, where, ordered, settings, 2, "clusters", np.random.default_rng(5))
    labels = starts.in_order(labels, where, 2)
    np.testing.assert_array_equal(
        once.emission.weights, em.begin(frames, ordered, labels, 2).emission.weights
    )


class Halves:
    """A generator that always says one half."""

    def uniform(self, size):
        return np.full(size, 0.5)


def test_segmentations_cut_at_quantiles_of_steps_or_of_their_logarithm():
    steps = np.arange(99)
    even = starts.segmentation(steps, 2, False, Halves())
    assert even.tolist() == [0] * 49 + [1] * 50, "the row of the cut begins the next state"
    early = starts.segmentation(steps, 2, True, Halves())
    # The tenth of a hundred.
    assert early.tolist() == [0] * 10 + [1] * 89
    assert starts.segmentation(steps, 1, True, Halves()).tolist() == [0] * 99
    assert [starts.kind(i, "level") for i in range(5)] == ["even", "clusters", "early", "clusters", "even"]
    frames = stack([np.array([[0.0], [2.0], [3.0]]), np.array([[5.0], [4.0]])], "ar", np.ones(1))
    np.testing.assert_allclose(
        starts.moving(frames), [[0, 0], [2, np.arcsinh(6)], [3, np.arcsinh(3)], [5, 0], [4, np.arcsinh(-3)]]
    )
    assert starts.in_order(np.array([2, 2, 0, 1, 1]), np.array([0, 1, 9, 5, 6]), 4).tolist() == [
        0,
        0,
        2,
        1,
        1,
    ]


def test_a_dead_state_gets_a_stretch_within_one_run():
    predictive = np.zeros(240)
    predictive[[100, 101, 200]] = [-9.0, -8, -7]
    # 240 frames of 2 states in 2 runs: three frames either side.
    found = starts.reseed(np.full((240, 2), 0.5), [1], predictive, [102, 138])
    assert np.flatnonzero(found[:, 1] == 1).tolist() == [97, 98, 99, 100, 101]
    found = starts.reseed(np.full((240, 3), 1 / 3), [1, 2], predictive, [102, 138])
    assert np.flatnonzero(found[:, 2] == 1).tolist() == [198, 199, 200, 201, 202]
    # What is given away is not given again.
    tiny = starts.reseed(np.full((2, 3), 1 / 3), [0, 1], np.zeros(2), [2])
    assert tiny.tolist() == [[1, 0, 0]] * 2


# Frames and covariances


def test_units_and_thinned_runs():
    frames = stack([np.array([[0.0, 1], [3, 1], [3, 1]]), np.array([[7.0, 1], [3, 1]])], "ar")
    np.testing.assert_allclose(frames.unit, [np.sqrt((9 + 0 + 16) / 3), LEAST_UNIT])
    assert frames.firsts.tolist() == [0, 3] and frames.regressed.tolist() == [1, 2, 4]
    level = stack([np.array([[0.0], [2]]), np.array([[4.0]])], "level")
    np.testing.assert_allclose(level.unit, np.std([0, 2, 4]))
    assert stack([np.zeros((1, 2))], "ar").unit.tolist() == [1, 1]
    seeds = np.random.SeedSequence(0)
    assert thin([5, 5, 5], 15, seeds) == [0, 1, 2] and len(thin([5, 5, 5], 14, seeds)) == 2
    assert thin([5, 5], 1, seeds) == [0, 1] and len(thin([5] * 9, 1, seeds)) == 2
    assert len(thin([5] * 9, 20, seeds)) == 4 and len(thin([5] * 9, 20, seeds, least=6)) == 6


def test_floors_and_common_covariances_by_eigenvalues():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    given = np.array([(basis * [1e-9, 1.0, 2.0]) @ basis.T, (basis * [1e-3, 1.0, 2.0]) @ basis.T])
    raised = covariances.raise_floor(given, 1e-3, False)
    np.testing.assert_allclose(raised[0], (basis * [1e-3, 1.0, 2.0]) @ basis.T, atol=1e-12)
    np.testing.assert_allclose(raised[1], given[1], atol=1e-12)
    assert covariances.raise_floor(given[0], 3.0, True).tolist() == (3 * np.eye(3)).tolist()
    tied = covariances.maximise(given, np.array([1.0, 3.0]), "tied", 1e-9, 1, None)
    np.testing.assert_allclose(tied[1], given.sum(axis=0) / 4, atol=1e-12)
    # The harmonic mean; an infinitely sharp direction leaves what doubles resolve.
    np.testing.assert_allclose(
        covariances.common(np.array([np.diag([1.0, 4]), np.diag([3.0, 4])])), np.diag([1.5, 4])
    )
    sharp = covariances.common(np.array([np.diag([1.0, 1e-30]), np.eye(2)]))
    np.testing.assert_allclose(np.diagonal(sharp), [1, 2e-15], rtol=1e-6)
    assert covariances.parameter_count(2, 4, "lowrank", 9) == 2 * 10


def test_factors_reach_the_likelihood_of_factor_analysis():
    from sklearn.decomposition import FactorAnalysis

    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + rng.normal(size=(200, 6)) * [1, 2, 1, 0.5, 1, 1]
    scatter = np.cov(x.T, ddof=0)
    theirs = FactorAnalysis(2, tol=1e-8, max_iter=5000, svd_method="lapack").fit(x).get_covariance()
    found = covariances.low_rank(scatter, 2, 1e-9, None)
    gain = covariances._gain(found, scatter)
    assert gain == pytest.approx(covariances._gain(theirs, scatter), abs=5e-3)
    # Never behind what there was before.
    assert covariances.low_rank(scatter, 2, 1e-9, theirs) is theirs
    assert covariances.low_rank(scatter, 2, 1e-9, np.eye(6)) is not None
    assert gain > covariances._gain(np.diag(np.diagonal(scatter)), scatter)
    np.testing.assert_allclose(
        covariances._gain(theirs, scatter),
        2 * stats.multivariate_normal(np.zeros(6), theirs).logpdf(x - x.mean(axis=0)).mean()
        + 6 * np.log(2 * np.pi),
    )
    np.testing.assert_allclose(covariances.low_rank(scatter, 6, 1e-9, None), scatter)
    # Every value of the diagonal is above the floor, and so is every eigenvalue.
    low = covariances.low_rank(np.full((3, 3), 1.0), 1, 0.3, None)
    assert np.linalg.eigvalsh(low).min() >= 0.3 - 1e-12
    # What factors explain to the last bit keeps a millionth of its variance.
    exact = covariances.low_rank(np.ones((10, 10)), 1, 1e-12, None)
    assert np.linalg.eigvalsh(exact)[0] == pytest.approx(1e-6, rel=1e-3)
    assert covariances._gain(np.diag([1.0, -1.0]), np.eye(2)) == -np.inf


# The number of states


def test_differences_have_the_error_of_a_mean():
    assert selection.difference(np.array([1.0, 3.0]), np.zeros(2)) == (2, pytest.approx(1))
    assert selection.difference(np.array([4.0]), np.array([1.0])) == (3, 0)
    # A gap of 1 with an error of .54; one of just an error is within it.
    assert selection.smallest([np.zeros(4), np.array([1, 2, -0.5, 1.5])], 100) == 1
    assert selection.smallest([np.zeros(2), np.array([0.0, 2.0])], 100) == 0
    said = selection._of_unseen_runs([np.array([0.0, 1, 5]), np.array([3.0, 5, 4])], 0)
    sem = [stats.sem(x) for x in ([0, 1, 5], [3, 4, -1])]
    assert list(said.values()) == pytest.approx([2, sem[0], 2, sem[1]])
    assert selection.candidates(Config(max_states=3)) == [1, 2, 3] and selection.candidates(
        Config(n_states=4)
    ) == [4]


def test_the_selection_says_what_held_out_runs_say():
    values = [walk(i, 9, 2) for i in range(3)]
    at = [np.arange(9)] * 3
    config = Config(emission="level", max_states=2, restarts=1, folds=5, workers=1, n_iter=60)
    found = selection.select(values, at, config)
    assert found.warnings[0] == "3 runs for 5 folds: each run is held out alone"
    assert [row.heldout_ll_per_frame for row in found.rows] == pytest.approx(
        [found.curve[k].mean() for k in (1, 2)]
    )
    assert [row.se for row in found.rows] == pytest.approx([stats.sem(found.curve[k]) for k in (1, 2)])
    # One state is one Gaussian of the other runs: by hand, in the units of all runs.
    pooled = np.concatenate(values)
    z = [(x - pooled.mean(axis=0)) / pooled.std(axis=0) for x in values]
    for run in range(3):
        rest = np.concatenate([z[i] for i in range(3) if i != run])
        n, unit = len(rest), rest.std(axis=0)
        own = (rest - rest.mean(axis=0)) / unit
        residual = own.T @ own / (n - 1)
        sigma = (own.T @ own + 4 * 0.1 * residual) / (n + 4)
        law = stats.multivariate_normal(rest.mean(axis=0), sigma * np.outer(unit, unit))
        assert found.curve[1][run] == pytest.approx(law.logpdf(z[run]).mean(), rel=1e-4)
    top = selection.select(values, at, replace(config, n_states=2))
    assert not any("raise max_states" in line for line in top.warnings)
    alone = selection.select(values[:1], at[:1], config)
    assert alone.n_states == min(alone.rows, key=lambda row: row.bic).n_states
    assert "follows BIC" in alone.warnings[0] and alone.rows[0].se is None
    assert any("raise max_states" in line for line in alone.warnings) == (alone.n_states == 2)


def test_scores_of_folds_go_back_to_their_runs():
    fold = np.array([1, 0, 1, 0, 2])
    made = [
        tasks.Fitted(tasks.Task(1, f), None, None, None, np.array(x))
        for f, x in ((0, [10.0, 30.0]), (1, [0.0, 20.0]), (2, [40.0]))
    ]
    assert selection.fold_scores(made, fold).tolist() == [0, 10, 20, 30, 40]


def test_bic_by_formula():
    frames = stack([walk(0, 5, 2)], "level")
    config = Config(emission="level")
    prior = emissions.make_prior(frames, config)
    p = em.begin(frames, prior, np.array([0, 0, 1, 1, 1]), 2)
    count = 1 + 2 + 4 + 6
    assert tasks.bic(em.Fit(p, 0.0, -11.5, True, 1), frames, config) == pytest.approx(23 + count * np.log(5))
    # A missing row and the one after it have no likelihood, so BIC does not count them.
    gap = stack([np.insert(walk(0, 5, 2), 3, np.nan, axis=0)], "level")
    assert len(gap.levels) == 6 and tasks.bic(em.Fit(p, 0.0, -11.5, True, 1), gap, config) == pytest.approx(
        23 + count * np.log(4)
    )
    ordered = tasks.bic(em.Fit(p, 0.0, 0.0, True, 1), frames, replace(config, left_to_right=True))
    assert ordered == pytest.approx((count - 1) * np.log(5))


def test_a_gain_within_the_tolerance_is_no_better_fit(monkeypatch):
    values = [walk(i, 10, 2) for i in range(2)]
    config = Config(emission="level", restarts=1, n_iter=5, tol=0.5)
    at, fold = [np.arange(10)] * 2, np.zeros(2)
    known = {k: tasks.solve(tasks.Task(k, None), values, at, fold, config) for k in (1, 2, 3)}
    ways = []

    def run(frames, prior, reseedings, begun, n_iter, tol):
        ways.append(begun.n_states)
        return replace(known[begun.n_states].fit, objective=objective)

    monkeypatch.setattr(em, "run", run)
    objective = known[2].fit.objective + 0.5 * 20
    assert selection.descend(known, values, at, config) == {} and ways == [2, 2]
    objective += 1e-6
    assert list(selection.descend(known, values, at, config)) == [2]
    # Where the next larger number was not tried nothing is given up; one state has one solution.
    ways.clear()
    selection.descend({k: known[k] for k in (1, 3)}, values, at, config)
    assert ways == []


def test_early_numbers_of_states():
    def early(**keys):
        return fitting.early(Config(**keys))

    assert early(max_states=4) == [1, 2, 3, 4] and early(max_states=5) == [1, 2, 4]
    assert early(max_states=15) == [1, 2, 4] and early(max_states=16) == [1, 2, 4, 8]
    assert early(n_states=9) == [9]


def test_a_single_run_is_never_held_out_and_has_a_row_a_state():
    def chosen(*rows, **keys):
        runs = tuple(Trajectory(f"e/{i}", np.arange(n), walk(i, n, 2)) for i, n in enumerate(rows))
        config = Config(metrics=["m0", "m1"], restarts=1, workers=1, n_iter=3, folds=2, **keys)
        return fitting.robust(Trajectories("e", ("m0", "m1"), runs), config)

    alone = chosen(5, emission="level", n_states=2)
    assert alone.fold.tolist() == [-1] and alone.held_out.tolist() == []
    assert fitting.compare(alone, Config()) is None
    assert sorted(chosen(5, 5, emission="level", n_states=1).fold.tolist()) == [0, 1]
    # No run moves on: states of level; where one does, of dynamics.
    assert chosen(1, 1, 1, n_states=1).model.emission == "level"
    assert chosen(3, n_states=3).model.emission == "ar"
    with pytest.raises(NothingMatched, match="n_states=4: the runs have 3 rows"):
        chosen(3, n_states=4)


def test_an_emission_is_ahead_beyond_doubt_by_ten_errors():
    noise = np.array([0.0, 1, 2]) / np.sqrt(3)
    # An error of a third.
    ahead = {1: noise + 10 / 3}
    level = {1: np.zeros(3), 2: np.zeros(3)}
    gap, error = selection.difference(ahead[1], level[2])
    assert gap < 10 * error + 1 and error == pytest.approx(1 / 3)
    assert fitting.beyond_doubt({1: noise + 10 / 3}, level)
    assert not fitting.beyond_doubt({1: noise + 2.5}, level)
    assert not fitting.beyond_doubt({1: noise + 9}, {1: np.full(3, -12.0), 2: np.zeros(3)})


# Beside the model


def test_baselines_are_chosen_and_compared_by_hand(monkeypatch):
    names = baselines.kinds(Config(emission="level"))
    assert names[0] == "ar hmm" and baselines.kinds(Config(emission="ar"))[0] == "level hmm"
    values = [walk(i, 6, 2) for i in range(5)]
    fold = np.array([1, 0, -1, 2, 0])
    held = {0: [1, 4], 1: [0], 2: [3]}
    table = {1: np.array([0.0, 1, 0, 2, 3]), 2: np.array([6.0, 5, 0, 7, 5])}
    reference = np.array([6.5, 7, 7, 8])
    jobs = []

    def spread(work, given, costs, workers):
        jobs.extend(given)
        return [table[job.n_states][held[job.fold]] for job in given]

    monkeypatch.setattr(baselines.workers, "spread", spread)
    features = Features(("a", "l2"), (), (), tuple(np.arange(6) for _ in values), tuple(values), ())
    config = Config(emission="level", max_states=2, workers=1)
    found, every = baselines.compare(values, features, fold, config, reference)
    rows = {row.name: row for row in found}
    assert list(rows) == [*names[:2], "one-metric hmm (l2)", names[3]]
    # The other emission in all folds, the others in two: runs 1, 4 and 0.
    assert {job.fold for job in jobs if job.baseline == "ar hmm"} == {0, 1, 2}
    assert {job.fold for job in jobs if job.baseline == "gaussian mixture"} == {0, 1}
    other, few = rows["ar hmm"], rows["gaussian mixture"]
    assert (other.runs, few.runs, other.n_states, other.at_cap) == (4, 3, 2, True)
    assert other.heldout_ll_per_frame == pytest.approx(np.mean([5, 5, 6, 7]))
    assert other.se == pytest.approx(stats.sem([5, 5, 6, 7]))
    # The reference is of the runs 0, 1, 3, 4.
    assert other.less_than_model == pytest.approx(np.mean([7 - 5, 8 - 5, 6.5 - 6, 7 - 7]))
    assert other.less_se == pytest.approx(stats.sem([2, 3, 0.5, 0]))
    assert few.less_than_model == pytest.approx(np.mean([2, 3, 0.5]))
    one = rows["one-metric hmm (l2)"]
    assert not one.comparable and one.less_than_model is None and one.less_se is None
    assert every["se"][0] == pytest.approx(stats.sem([1, 3, 0, 2]))
    # What is known of the other emission is not fitted again.
    jobs.clear()
    table[1], table[2] = table[1] + 1, table[2] - 9
    given, _ = baselines.compare(
        values, features, fold, config, reference, {1: table[1] - 1, 2: table[2] + 9}
    )
    assert given[0] == other and not any(job.baseline == "ar hmm" for job in jobs)
    assert not given[1].at_cap and given[1].n_states == 1
    # Other numbers of states are another question.
    baselines.compare(values, features, fold, config, reference, {1: table[1]})
    assert any(job.baseline == "ar hmm" for job in jobs)
    alone, _ = baselines.compare(values, features, np.array([0, -1, -1, -1, -1]), config, np.array([7.0]))
    assert alone[0].se is None and alone[0].less_se is None


def test_every_baseline_is_the_model_it_is_called(monkeypatch):
    asked = {}

    def solve(task, values, steps, fold, config, independent=False):
        asked[name] = (task, values, config, independent)
        return tasks.Fitted(task, None, None, None, np.zeros(1))

    monkeypatch.setattr(baselines, "solve", solve)
    values, config = [walk(0, 30, 2), walk(1, 30, 2)], Config(emission="ar", sticky=2.0, left_to_right=True)
    for name in baselines.kinds(config):
        baselines.carry_out(baselines.Job(name, 3, 1), values, [], ("a", "l2"), np.zeros(2), config)
    assert {one[0] for one in asked.values()} == {tasks.Task(3, 1)}
    _, _, own, independent = asked["gaussian mixture"]
    assert independent and (own.emission, own.sticky, own.left_to_right) == ("level", 0, False)
    assert asked["level hmm"][2].emission == "level" and not asked["level hmm"][3]
    np.testing.assert_array_equal(asked["one-metric hmm"][1][1], values[1][:, 1:])
    mixed = asked["time-shuffled"][1]
    for x, y in zip(values, mixed, strict=True):
        assert (x != y).any() and sorted(map(tuple, x)) == sorted(map(tuple, y))
    assert baselines.one_metric(("a", "b")) == 0
    less = baselines.reduced(Config(preset="paper", restarts=1))
    assert (less.preset, less.restarts, less.n_iter, less.tol) == ("robust", 1, 32, 1e-3)
    less = baselines.reduced(Config())
    assert (less.restarts, less.n_iter) == (2, 60)


def test_agreement_is_rands_index_and_instability_is_said(monkeypatch):
    from sklearn.metrics import adjusted_rand_score

    truth = [np.array([0, 0, 1, 1]), np.array([0, 1])]
    others = [truth, [np.array([1, 1, 0, 0]), np.array([1, 1])], [np.array([0, 1, 0, 1]), np.array([0, 0])]]
    rand = [adjusted_rand_score([0, 0, 1, 1, 0, 1], np.concatenate(one)) for one in others]
    found = stability.agreement("restarts", truth, others)
    low, middle, high = np.quantile(rand, [0.05, 0.5, 0.95])
    assert found == Agreement(over="restarts", fits=3, adjusted_rand=middle, low=low, high=high)
    tasks_seen = []

    def measured(value):
        def refit(task, values, steps, n_states, config):
            tasks_seen.append((task, config))
            return [value] * len(values)

        monkeypatch.setattr(stability, "refit", refit)
        monkeypatch.setattr(
            stability,
            "agreement",
            lambda over, paths, decoded: Agreement(
                over=over, fits=1, adjusted_rand=decoded[0][0], low=0.0, high=1.0
            ),
        )
        return stability.measure(
            [np.zeros((4, 1))] * 2, [np.arange(4)] * 2, truth, 2, Config(restarts=3, workers=1)
        )

    rows, notes = measured(0.7)
    assert [row.over for row in rows] == ["restarts", "bootstrap of runs"] and notes == []
    assert [task.resampled for task, _ in tasks_seen] == [False] * 3 + [True] * 20
    assert [task.number for task, _ in tasks_seen] == [*range(3), *range(20)]
    assert (tasks_seen[0][1].n_iter, tasks_seen[0][1].tol) == (60, 1e-3)
    assert "is 0.69 (median)" in measured(0.69)[1][0]


def test_refits_start_anew_or_draw_runs_with_replacement(monkeypatch):
    values = [walk(i, 5, 2) + 10 * i for i in range(4)]
    given = []

    def fit(frames, positions, n_states, config, seeds, first_kind):
        given.append((frames, positions, config.restarts, first_kind))
        begun = em.begin(frames, emissions.make_prior(frames, config), np.arange(20) % 2, 2)
        return em.Fit(begun, 0.0, 0.0, True, 1)

    monkeypatch.setattr(em, "fit", fit)
    at = [np.arange(5) + 100 * i for i in range(4)]
    config = Config(emission="level", restarts=5)
    decoded = stability.refit(stability.Refit(3, False), values, at, 2, config)
    frames, positions, restarts, first_kind = given.pop()
    assert (restarts, first_kind) == (1, 3) and [len(path) for path in decoded] == [5] * 4
    np.testing.assert_array_equal(positions, np.concatenate(at))
    np.testing.assert_allclose(frames.levels, fit_scaler(values)(np.concatenate(values)))
    drawn = []
    for number in range(4):
        stability.refit(stability.Refit(number, True), values, at, 2, config)
        frames, positions, restarts, _ = given.pop()
        drawn.append(tuple(positions[::5] // 100))
        own = [values[i] for i in drawn[-1]]
        np.testing.assert_allclose(frames.levels, fit_scaler(own, fit_scaler(values))(np.concatenate(own)))
        assert restarts == 2
    assert len(set(drawn)) > 1 and any(len(set(runs)) < 4 for runs in drawn)


# Edges


def test_a_ratio_is_summed_over_runs():
    ratio = edges.Ratio(np.array([[2.0, 4], [9, 3]]), np.array([1.0, 3]))
    np.testing.assert_allclose(ratio.value(), [11 / 4, 7 / 4])
    np.testing.assert_allclose(
        ratio.value(np.array([[2.0, 0], [0, 1], [0, 0]])), [[2, 4], [3, 1], [np.nan] * 2]
    )
    samples = np.arange(101.0)[:, None]
    assert [float(x[0]) for x in edges._interval(samples)] == [2.5, 97.5]
    # Half of the samples are enough, and two of four.
    some = np.where(np.arange(4) < 2, np.arange(4.0), np.nan)[:, None]
    assert edges._interval(some)[0][0] == pytest.approx(0.025)
    assert np.isnan(edges._interval(some[1:])[0][0]) and np.isnan(
        edges._interval(np.full((9, 1), np.nan))[1][0]
    )


def by_hand(emission="level"):
    rng = np.random.default_rng(1)
    model = random_model(emission, 3, 5, rng)
    model = replace(model, scaler=Scaler(np.zeros(5), np.ones(5)))
    runs = [rng.normal(size=(8, 5)) for _ in range(4)]
    paths = [
        np.array(p)
        for p in ([0, 0, 1, 1, 1, 0, 0, 1], [0, 1, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1], [2] * 8)
    ]
    return model, runs, paths


@pytest.mark.parametrize("emission", ["level", "ar"])
def test_an_edge_is_described_by_the_frames_that_take_it(emission):
    model, runs, paths = by_hand(emission)
    frames = model.frames(runs)
    found, table = edges.describe(model, frames, paths, means=None, resamples=40, seed=2)
    edge = next(one for one in found if (one.start, one.end) == (0, 1))
    assert edge.runs == 3 and edge.interval == clopper_pearson(3, 4)
    # The stays in 1 that began from 0, and the frames that begin them.
    stays = [[2, 3, 4, 7], [1, 2], [5, 6, 7], []]
    begins = [[2, 7], [1], [5], []]
    rows = [8 * i + t for i, stay in enumerate(stays) for t in stay]
    density = evidence.marginal_log_density(model, frames)
    gap = density[:, 1] - density[:, 0]
    llr = gap[rows].mean(axis=0)
    order = np.argsort(-llr)
    assert [one.name for one in edge.features] == [model.names[i] for i in order[:3]]
    np.testing.assert_allclose([one.llr for one in edge.features], llr[order[:3]])
    state, z = np.concatenate(paths), np.concatenate(runs)
    moves = np.concatenate([np.vstack([np.full((1, 5), np.nan), np.diff(x, axis=0)]) for x in runs])
    what = z if emission == "level" else moves
    change = np.nanmean(what[state == 1], axis=0) - np.nanmean(what[state == 0], axis=0)
    np.testing.assert_allclose([one.change for one in edge.features], change[order[:3]])
    at = [8 * i + t for i, begin in enumerate(begins) for t in begin]
    gradient = np.abs(evidence.posterior_gradient(model, frames)[at, 1]).mean(axis=0)
    mine = table[(table["from"] == 0) & (table["to"] == 1)].set_index("feature").loc[list(model.names)]
    np.testing.assert_allclose(mine["gradient"], gradient)
    assert mine["rank"].tolist() == (np.argsort(np.argsort(-llr)) + 1).tolist()
    if emission == "ar":
        drift = evidence.model_drifts(model, frames)
        np.testing.assert_allclose(mine["drift_at_edge"], (drift[:, 1] - drift[:, 0])[at].mean(axis=0))
    # Resampled runs: bounds, and how often a feature is among the three again.
    rng = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(10,)))
    drawn, moved = [], []
    for counts in rng.multinomial(4, np.full(4, 0.25), size=40):
        chosen = [i for i, n in enumerate(counts) for _ in range(n)]
        part = [gap[8 * i + t] for i in chosen for t in stays[i]]
        if part:
            drawn.append(np.mean(part, axis=0))
        both = [
            np.array([what[8 * i + t] for i in chosen for t in range(8) if paths[i][t] == k]) for k in (1, 0)
        ]
        if all(len(x) and not np.isnan(x).all() for x in both):
            moved.append(np.subtract(*(np.nanmean(x, axis=0) for x in both)))
    np.testing.assert_allclose(mine[["llr_low", "llr_high"]].T, np.quantile(drawn, [0.025, 0.975], axis=0))
    np.testing.assert_allclose(mine[["low", "high"]].T, np.quantile(moved, [0.025, 0.975], axis=0))
    again = np.mean([np.isin(np.arange(5), np.argsort(-one)[:3]) for one in drawn], axis=0)
    np.testing.assert_allclose(mine["stability"], again)
    # Two runs have no bounds.
    few = next(one for one in found if (one.start, one.end) == (1, 2))
    assert few.runs == 1 and few.features[0].stability is None and few.features[0].interval is None


def test_dynamics_come_to_rest_where_they_pull():
    def model(pull):
        weights = np.array([[[pull - 1, 0.0, 0.5], [0.0, -0.5, 1.0]]])
        emission = emissions.Emission(weights, np.eye(2)[None], np.zeros(2), np.eye(2))
        p = iterations.Parameters(np.ones(1), np.ones((1, 1)), emission)
        return Model(("a", "b"), (), Scaler(np.zeros(2), np.ones(2)), "ar", np.array([2.0, 1.0]), p)

    # In units of two: x = x + 2 (w x + .5), so w = (pull - 1) / 2 rests the pull.
    found = evidence.fixed_points(model(0.75))
    np.testing.assert_allclose(found, [[2, 2]])
    assert np.isnan(evidence.fixed_points(model(0.99996))).all()
    assert np.isfinite(evidence.fixed_points(model(0.9999))).all()
    assert np.isnan(evidence.fixed_points(model(-0.1))).all(), "it swings"


def test_order_of_states_by_median_then_mean_then_number():
    at = [np.arange(4) * 10] * 3
    ways = [np.array([2, 0, 1, 1]), np.array([2, 1, 0, 0]), np.array([2, 0, 0, 1])]
    # Entered at 10, 20, 10 and at 20, 10, 30.
    assert states.canonical_order(ways, at, 4) == [2, 0, 1, 3]
    tie = [np.array([2, 0, 1, 1]), np.array([2, 1, 0, 0]), np.array([2, 0, 2, 1]), np.array([2, 1, 2, 0])]
    assert states.canonical_order(tie, [*at, np.array([0, 10, 20, 31])], 3) == [2, 1, 0]
    found = states.edges([np.array([0, 1])], list("abcd"), np.array([[0.0] * 4, [1, np.nan, -3, 2]]))
    assert [one.name for one in found[0].features] == ["c", "d", "a"]


# Features


def columns(*runs, names=None, **keys):
    names = names or [f"m{i}" for i in range(runs[0].shape[1])]
    some = tuple(Trajectory(f"e/{i}", np.arange(len(x)) * 10, x) for i, x in enumerate(runs))
    return extract(Trajectories("e", tuple(names), some), Config(metrics=list(names), **keys))


def test_a_folds_still_column_is_not_blown_up():
    wide = Scaler(np.zeros(2), np.array([2.0, 2.0]))
    x = np.column_stack([np.ones(5), np.arange(5)])
    np.testing.assert_allclose(fit_scaler([x], wide).sd, [2e-3, np.sqrt(2)])
    assert fit_scaler([x]).sd[0] == np.finfo(float).tiny


def test_columns_at_an_angle_are_one_until_they_are_apart():
    z = np.linalg.qr(np.column_stack([np.ones(40), walk(0, 40, 2)]))[0][:, 1:]
    turned = np.column_stack([z @ [np.cos(a), np.sin(a)] for a in (0.0, 0.04, 0.08)])
    # cos .04 = .9992, cos .08 = .9968: the third is near the second, which is gone.
    found = columns(turned, names=["a", "b", "c"])
    assert found.names == ("a", "c")
    assert "correlated above 0.999 with another column, left out: b (as a)" in found.warnings


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize(("size", "kept"), [(1e-11, 2), (1e-14, 1)])
def test_columns_count_as_constant_at_a_trillionth_of_their_size(scale, size, kept):
    still = scale * (1 + size * np.sign(np.sin(np.arange(40)))[:, None])
    assert len(columns(np.hstack([walk(0, 40, 1), still])).names) == kept
    # Within every run: each has its own level.
    many = [np.hstack([walk(i, 40, 1), still + scale * i]) for i in range(2)]
    assert len(columns(*many).names) == kept


def test_outliers_are_a_hundred_times_the_middle():
    x = np.append(np.linspace(-0.5, 0.5, 201) ** 3, 1e9)
    low, middle, high = np.quantile(x, [0.05, 0.5, 0.95])
    for times, said in ((99.9, False), (100.1, True)):
        x[-1] = middle + times * (high - low)
        found = columns(np.column_stack([x, walk(0, 202, 1)]))
        assert any("outliers dominate the scale of: m0" in note for note in found.warnings) == said


def test_rows_and_columns_need_half():
    half, less = walk(0, 10, 2), walk(0, 10, 2)
    half[:5, 1] = np.nan
    less[:6, 1] = np.nan
    found = columns(half)
    assert len(found.steps[0]) == 5 and "5 of 10 rows left out because of missing values" in found.warnings
    with pytest.raises(NothingMatched, match="4 of 10 rows"):
        columns(less)
    for x, kept in ((half, ("m0", "m1")), (less, ("m0",))):
        run = Trajectory("e/0", np.arange(10), x)
        assert extract(Trajectories("e", ("m0", "m1"), (run,), imported=True), Config()).names == kept
    with pytest.raises(NothingMatched, match="needs a run with two rows"):
        columns(walk(0, 1, 2), walk(1, 1, 2), emission="ar")
    assert len(columns(walk(0, 1, 2), walk(1, 1, 2), walk(2, 1, 2), emission="level").steps) == 3
    assert columns(walk(0, 2, 2), walk(1, 1, 2), emission="ar").names == ("m0", "m1")


def test_half_of_the_fourteen_are_enough_of_them():
    for number, everything in ((7, False), (6, True)):
        names = (*WEIGHT_METRICS[:number], "loss")
        run = Trajectory("e/0", np.arange(30), np.exp(walk(number, 30, number + 1) / 9))
        found = extract(Trajectories("e", names, (run,), imported=True), Config())
        assert ("loss" in found.names) == everything


def test_a_clock_needs_most_of_its_steps_shared():
    clock = np.arange(6.0)[:, None]

    def found(*starts):
        runs = tuple(
            Trajectory(f"e/{i}", np.arange(6) + s, np.hstack([clock + s, walk(i, 6, 1)]))
            for i, s in enumerate(starts)
        )
        return clocks(Trajectories("e", ("epoch", "x"), runs), ("epoch", "x"))

    # Of eight steps four are shared, of nine three.
    assert found(0, 2) == ["epoch"] and found(0, 3) == []
    close = np.hstack([clock + 0.001, walk(1, 6, 1)])
    runs = (
        Trajectory("e/0", np.arange(6), np.hstack([clock, walk(0, 6, 1)])),
        Trajectory("e/1", np.arange(6), close),
    )
    assert clocks(Trajectories("e", ("epoch", "x"), runs), ("epoch", "x")) == []
    still = np.hstack([np.ones((6, 1)), walk(1, 6, 1)])
    runs = (
        Trajectory("e/0", np.arange(6), still),
        Trajectory("e/1", np.arange(6), still + np.array([0.0, 1.0])),
    )
    assert clocks(Trajectories("e", ("epoch", "x"), runs), ("epoch", "x")) == []


def test_collinearity_is_of_the_pooled_correlation():
    z = walk(0, 30, 3)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    found = collinearity(z)
    correlation = np.corrcoef(z.T)
    assert found.condition_number == pytest.approx(np.linalg.cond(correlation))
    shares = np.linalg.eigvalsh(correlation) / 3
    assert found.effective_rank == pytest.approx(np.exp(stats.entropy(shares)))
    assert collinearity(np.ones((9, 2))).condition_number == pytest.approx(1 / np.finfo(float).eps)
    for condition, said in ((9.9e11, False), (1e12, True)):
        assert (
            bool(outcome._collinear(Collinearity(condition_number=condition, effective_rank=1.5), 3)) == said
        )


# The published pipeline


def test_z_scores_of_a_run_and_of_its_still_columns():
    x = walk(0, 20, 2)
    both = np.column_stack([x, np.full(20, 3.0), 3 + 1e-15 * np.arange(20), 3 + 1e-9 * np.arange(20)])
    found = paper.normalise(both)
    np.testing.assert_allclose(found[:, :2], stats.zscore(x, axis=0), atol=1e-12)
    assert (found[:, 2:4] == 0).all()
    np.testing.assert_allclose(found[:, 4], stats.zscore(np.arange(20.0)), atol=1e-4)
    assert paper.split(1, Config()) == ([0], [0])
    train, held = paper.split(10, Config(seed=3))
    assert (len(train), len(held)) == (8, 2) and sorted([*train, *held]) == list(range(10))


def test_the_published_choice_says_its_errors():
    values = [walk(i, 12, 2) for i in range(15)]
    found = paper.select(values, Config(preset="paper", max_states=2, restarts=2, workers=1))
    z = stack([paper.normalise(values[i]) for i in found.validation], "level", np.ones(2))
    per_run = tasks.score(found.fit.parameters, z) / 12
    chosen = next(row for row in found.rows if row.n_states == found.n_states)
    np.testing.assert_allclose(found.held_out, per_run)
    assert chosen.heldout_ll_per_frame == pytest.approx(per_run.mean())
    assert chosen.se == pytest.approx(stats.sem(per_run)) and len(found.others) == 1
    other = tasks.score(found.others[0].parameters, z).sum()
    assert other <= tasks.score(found.fit.parameters, z).sum()
    alone = paper.select(values[:1], Config(preset="paper", n_states=1, restarts=1, workers=1))
    assert alone.rows[0].se is None and "both training and held-out data" in " ".join(alone.warnings)
    assert not any("raise max_states" in line for line in alone.warnings)
    assert len(set(paper.restart_seeds(Config(restarts=4), 2))) == 4
    assert paper.restart_seeds(Config(restarts=4), 2)[:2] == paper.restart_seeds(Config(restarts=2), 2)


def test_the_published_em_stops_at_a_small_gain_or_a_fall(monkeypatch):
    frames = stack([walk(0, 12, 2)], "level", np.ones(2))
    begun = paper_em.initialise(frames.levels, 2, 0, "full")
    whole = paper_em.run(frames, begun, 6, 1e-9, "full")
    real = inference.expect(begun.start, begun.transitions, np.zeros((12, 2)), [12])

    def run(said, n_iter=9):
        left = iter(said)
        monkeypatch.setattr(
            inference, "expect", lambda *_: replace(real, log_likelihoods=np.array([next(left)]))
        )
        found = paper_em.run(frames, begun, n_iter, 0.5, "full")
        return len(found.history), found.converged

    assert len(whole.history) <= 6
    assert run([0.0, 3, 3.25, 99]) == (3, True) and run([0.0, 0.5, 1, 1]) == (4, True)
    assert run([0.0, 3, 2]) == (3, False) and run([0.0, 3, 6, 9], n_iter=3) == (3, False)


def test_the_start_of_the_published_em_is_hmmlearns_with_its_least_covariance():
    x = walk(0, 20, 2)
    begun = paper_em.initialise(x, 2, 5, "full")
    np.testing.assert_allclose(begun.emission.covariances, [np.cov(x.T) + 1e-3 * np.eye(2)] * 2)
    alone = paper_em.initialise(x[:1], 2, 5, "diag")
    np.testing.assert_allclose(alone.emission.covariances, [1e-3 * np.eye(2)] * 2)
    np.testing.assert_allclose(alone.emission.weights[:, :, 0], x[[0, 0]])


def test_repairs_are_counted_one_by_one():
    frames = stack([np.array([[0.0], [1.0], [4.0], [9.0]])], "level", np.ones(1))
    before = paper_em.initialise(frames.levels, 3, 0, "full")
    posterior = np.array([[1.0, 0, 0]] * 4)
    predictive = np.array([-1.0, -5, -9, -2])
    found = inference.Expectation(
        np.zeros(1), posterior, posterior, predictive, np.array([1.0, 0, 0]), np.diag([3.0, 0, 0])
    )
    after, repairs = paper_em.m_step(frames, before, found, "full")
    # Two dead states, which are never left either, get the two worst explained frames.
    assert repairs == 4 and after.emission.weights[1:, 0, 0].tolist() == [4, 1]
    variance = np.var([0, 1, 4, 9])
    np.testing.assert_allclose(after.emission.covariances[1:, 0, 0], variance + 1e-3)
    np.testing.assert_allclose(after.emission.covariances[0, 0, 0], (4 * variance + 1e-2) / 4)
    assert after.transitions.tolist() == np.eye(3).tolist() and after.start.tolist() == [1, 0, 0]


# New runs under a stored model


def stored(model, n=3, spacing=10):
    runs = [{"run": f"old/{i}", "steps": [0, spacing, 2 * spacing], "states": [0, 0, 1]} for i in range(n)]
    chosen = {"n_states": 2, "heldout_ll_per_frame": -3.0, "se": 0.5}
    fit = states_of(model=to_plain(model), states=runs, selection=[chosen], n_states=2, emission="level")
    return Config(decode_with=Stored.of("hmm-abc", fit))


def test_new_runs_have_the_mean_of_their_rows_and_an_error_over_runs():
    model = random_model("level", 2, 2, np.random.default_rng(0))
    x = [walk(i, 5, 2) / 5 for i in range(3)]
    # After two rows with none between them the third place without one is missing.
    x[2][3, 0] = np.nan
    runs = tuple(Trajectory(f"new/{i}", np.arange(5) * 10, v) for i, v in enumerate(x[:2]))
    runs += (
        Trajectory("old/0", np.arange(5) * 10, x[2]),
        Trajectory("new/2", np.arange(4), np.full((4, 2), np.nan)),
    )
    given = Trajectories("e", model.names, runs, Convergence("m0", 1e9))
    found = online.decode(given, stored(model))
    result = plain(found)
    p, frames = model.parameters, model.frames(x[:2])
    score = inference.score(p.start, p.transitions, model.log_density(frames), frames.lengths) / 5
    assert [item["ll_per_frame"] for item in result["states"]][:2] == pytest.approx(score.tolist())
    assert result["heldout_ll_per_frame"] == pytest.approx(score.mean())
    assert result["heldout_se"] == pytest.approx(stats.sem(score))
    assert [item["held_out"] for item in result["states"]] == [True, True, False]
    assert np.sum(result["transitions"]["counts"]) == 4 + 4 + 4
    lines = " ".join(found.warnings)
    assert "1 of 15 rows left out" in lines and "left out: new/2" in lines
    assert "1 of 3 runs took part in the fit" in lines and "steps apart" not in lines
    assert [row["censored"] for row in result["convergence"]] == [True] * 3
    wide = online.decode(given, stored(model, spacing=30))
    assert "rows are 10 steps apart, those that the model was fitted to 30" in " ".join(wide.warnings)
    alone = online.decode(replace(given, runs=runs[:1]), stored(model))
    assert alone.heldout_se is None


def test_a_run_is_unlike_the_models_own_beyond_five_deviations():
    # An error of .5 over nine runs is a deviation of 1.5.
    chosen = Candidate(n_states=2, heldout_ll_per_frame=-3.0, se=0.5)
    assert online._unlike([-3 - 7.5, 50.0], chosen, 9) == []
    (line,) = online._unlike([-10.6, -20.0, 0.0], chosen, 9)
    assert line.startswith("2 of 3 runs") and "-15.3 nats" in line and "deviation 1.5" in line
    assert online._unlike([-99.0], replace(chosen, se=None), 9) == [] and online._unlike([], chosen, 9) == []
    assert online._spacing([np.array([0, 10, 30, 40]), np.array([5])]) == 10
    assert online._spacing([np.array([5])]) is None


def test_models_survive_as_plain_values_whatever_their_units():
    for emission in ("ar", "level"):
        model = random_model(emission, 2, 3, np.random.default_rng(2))
        model = replace(model, logged=("m1",), per_run=True)
        again = from_plain(to_plain(model))
        assert (again.logged, again.per_run, again.names) == (("m1",), True, model.names)
        turned = model.reorder([1, 0])
        x = np.abs(walk(0, 6, 3))
        np.testing.assert_array_equal(1 - model.decode([x])[0], turned.decode([x])[0])


def test_a_union_under_a_common_noise_is_worth_its_penalised_likelihood():
    rng = np.random.default_rng(5)
    frames = stack([rng.normal(size=(60, 2)) + 4 * (np.arange(60) // 20)[:, None]], "level")
    own = np.eye(3)[np.arange(60) // 20]
    prior = emissions.make_prior(frames, Config(common=20.0))
    grams, counts = frames.grams(own), own.sum(axis=0)
    common = merging.in_common(grams, counts, prior, 1)
    said = merging.values(grams, counts, prior, 1, common)
    for k in range(3):
        y = frames.design[own[:, k] == 1, 1:]
        mean = y.sum(axis=0) / (20 + 1e-3)
        scatter = (y - mean).T @ (y - mean) + 1e-3 * np.outer(mean, mean) + prior.scatter + 20 * common
        weight = 20 + prior.weight + 20
        sigma = scatter / weight
        assert said[k] == pytest.approx(-0.5 * (weight * np.linalg.slogdet(sigma)[1] + weight * 2))
    assert merging.in_common(grams, counts, replace(prior, common=0.0), 1) is None
    tied = merging.in_common(grams, counts, replace(prior, covariance="tied", common=0.0), 1)
    _, scatter, totals = emissions.penalised(grams, counts, prior, 1)
    np.testing.assert_allclose(tied, scatter.sum(axis=0) / totals.sum())


# Rows that depend on each other


def levels_of(phi, seed, n=8, rows=60, size=2):
    """Runs of two levels, the second from the middle on; what scatters about them keeps a share phi from row to row."""
    rng, runs = np.random.default_rng(seed), []
    for _ in range(n):
        x = rng.normal(size=(rows, size))
        for t in range(1, rows):
            x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
        runs.append(x + 6.0 * (np.arange(rows) >= rows // 2)[:, None])
    steps = np.arange(rows) * 10
    return Trajectories("e", ("a", "b"), tuple(Trajectory(f"e/{i}", steps, x) for i, x in enumerate(runs)))


@pytest.mark.parametrize("emission", ["level", "ar"])
def test_residuals_of_neighbouring_rows_one_by_one(emission):
    runs = [walk(i, 9 + i, 2) for i in range(3)]
    paths = [np.random.default_rng(i).integers(2, size=len(x)) for i, x in enumerate(runs)]
    config = Config(emission=emission)
    frames = stack(runs, emission)
    fit = em.begin(frames, emissions.make_prior(frames, config), np.concatenate(paths), 2)
    model = Model(("a", "b"), (), Scaler(np.zeros(2), np.ones(2)), emission, frames.unit, fit)
    law = to_plain(model)
    after, before = [], []
    for x, path in zip(runs, paths, strict=True):
        left: list[np.ndarray | None] = []
        for t, k in enumerate(path):
            if emission == "ar" and t == 0:
                left.append(None)
                continue
            mean = law["means"][k] if emission == "level" else np.array(law["A"][k]) @ x[t - 1] + law["b"][k]
            left.append(np.linalg.solve(np.linalg.cholesky(law["covariances"][k]), x[t] - mean))
        for t in range(1, len(x)):
            if path[t] == path[t - 1] and left[t - 1] is not None:
                after.append(left[t])
                before.append(left[t - 1])
    found = residuals(model, frames, paths)
    assert found.pairs == len(after) > 5
    sizes = np.linalg.norm(after) * np.linalg.norm(before)
    assert found.correlation == pytest.approx(np.vdot(after, before) / sizes)


def test_rows_that_depend_on_each_other_are_said_to_cut_phases_into_states():
    """Of independent rows nothing is said, nor by states of dynamics; of one state there is nothing to cut."""
    keys = {"restarts": 1, "workers": 1, "stability": False, "baselines": False, "folds": 2}

    def said(phi, **more):
        found = outcome.infer(levels_of(phi, 0), Config(metrics=["a", "b"], **keys, **more))
        return found, [
            line for line in found.warnings if line.startswith("the number of states may be too large")
        ]

    found, lines = said(0.6, emission="level", n_states=2)
    assert found.residual_correlation == pytest.approx(0.6, abs=0.1)
    assert "(correlation 0.5" in lines[0] or "(correlation 0.6" in lines[0]
    assert lines[0].endswith("emission=ar has states of dynamics, which may describe it")
    found, lines = said(0.0, emission="level", n_states=2)
    assert abs(found.residual_correlation) < 0.1 and not lines
    assert not said(0.6, emission="ar", n_states=2)[1] and not said(0.6, emission="level", n_states=1)[1]
    assert said(0.6, preset="paper", n_states=2)[1][0].endswith(
        "preset=robust has states of dynamics, which may describe it"
    )
    # A tenth beyond two standard errors: few rows say nothing.
    assert not Residuals(0.5, 24).depend and Residuals(0.5, 26).depend
    assert not Residuals(0.11, 10_000).depend and not Residuals(None, 0).depend
