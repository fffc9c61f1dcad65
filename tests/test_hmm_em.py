"""EM: closed-form steps are maxima, the objective never falls, floors hold, dead states come back."""

from dataclasses import replace

import numpy as np
import pytest

from dynalab.analysis.hmm import em, inference, iterations, starts
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.covariances import low_rank, raise_floor
from dynalab.analysis.hmm.emissions import (
    Emission,
    log_density,
    log_penalty,
    make_prior,
    maximise,
    parameter_count,
)
from dynalab.analysis.hmm.frames import stack

CONFIG = Config()


def prior_of(frames, covariance="full", **changed):
    """The default prior with some of its numbers replaced."""
    return replace(make_prior(frames, Config(covariance=covariance)), **changed)


def curves(seed=0, n_runs=4, rows=40, size=4, rank=2):
    """Collinear random walks: the case in which an unguarded full covariance degenerates."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(rank, size))
    return [
        rng.normal(size=(rows, rank)).cumsum(axis=0) @ loading / 5 + 1e-4 * rng.normal(size=(rows, size))
        for _ in range(n_runs)
    ]


def positions(runs):
    return np.concatenate([np.arange(len(x)) for x in runs])


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_m_step_is_the_penalised_maximum(emission, covariance):
    rng = np.random.default_rng(1)
    frames = stack(curves(), emission)
    prior = prior_of(frames, covariance, floor=1e-3)
    posterior = rng.dirichlet(np.ones(2), len(frames.levels))

    def objective(weights, covariances):
        e = Emission(weights, covariances)
        # Rows that are not regressed have no state-dependent density.
        density = log_density(frames, e)[frames.regressed]
        return (posterior[frames.regressed] * density).sum() + log_penalty(e, prior)

    weights, covariances = maximise(frames, posterior, prior)
    best = objective(weights, covariances)
    for scale in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            w = weights + scale * rng.normal(size=weights.shape)
            noise = (
                scale
                * rng.normal(size=covariances.shape)
                * np.sqrt(np.einsum("ki,kj->kij", *[np.diagonal(covariances, axis1=1, axis2=2)] * 2))
            )
            c = np.array(
                [
                    raise_floor(s + n, prior.floor, covariance == "diag")
                    for s, n in zip(covariances, noise, strict=True)
                ]
            )
            assert objective(weights, c) <= best + 1e-8 * abs(best)
            assert objective(w, covariances) <= best + 1e-8 * abs(best)
            assert objective(w, c) <= best + 1e-8 * abs(best)


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "lowrank"])
@pytest.mark.parametrize("n_states", [1, 3, 6])
def test_objective_never_falls_and_the_floor_holds_in_every_iteration(
    emission, covariance, n_states, monkeypatch
):
    runs = curves(seed=2)
    frames = stack(runs, emission)
    prior = prior_of(frames, covariance, floor=1e-4, rank=2)
    prior = replace(prior, scatter=prior.scatter * 1e-6)
    lowest = []
    states = starts.labels(frames, positions(runs), n_states, "even", np.random.default_rng(3))
    begun = em.begin(frames, prior, states, n_states)
    penalty = iterations.penalty

    def watch(parameters, prior):
        lowest.append(np.linalg.eigvalsh(parameters.emission.covariances).min())
        return penalty(parameters, prior)

    monkeypatch.setattr(iterations, "penalty", watch)
    fit = em.run(frames, prior, 3, begun, 60, 1e-7)
    assert len(lowest) == fit.iterations and min(lowest) >= prior.floor * (1 - 1e-6)
    gains = np.diff(fit.history)
    inside = [g for i, g in enumerate(gains, start=1) if i not in fit.reseeded]
    assert min(inside, default=0.0) >= -1e-8 * abs(fit.objective)
    assert fit.fell <= em.SLACK
    assert fit.objective == max(fit.history)
    if covariance == "full":
        assert min(lowest) < prior.floor * 1.01, "the floor was meant to be active in this test"


def test_running_out_of_iterations_is_not_convergence():
    runs = curves(seed=4)
    frames = stack(runs, "ar")
    where = (frames, positions(runs), 3)
    short = em.fit(*where, Config(restarts=1, n_iter=2, tol=1e-9), np.random.SeedSequence(0))
    assert not short.converged and short.iterations == 2
    long = em.fit(*where, Config(restarts=1, n_iter=500), np.random.SeedSequence(0))
    assert long.converged and long.iterations < 500


def test_a_dead_state_is_given_the_worst_explained_frames():
    rng = np.random.default_rng(5)
    runs = [rng.normal(size=(60, 2)) * 0.1 for _ in range(3)]
    runs[1][20:30] += 5.0
    frames = stack(runs, "level")
    prior = make_prior(frames, CONFIG)
    # State 1 starts without a single frame.
    begun = em.begin(frames, prior, np.zeros(180, dtype=int), 2)
    begun.emission.weights[1] = 1e3
    fit = em.run(frames, prior, 3, begun, 100, 1e-6)
    assert fit.reseeded
    means = fit.parameters.emission.weights[:, 0, 0] * frames.unit[0]
    np.testing.assert_allclose(sorted(means), [0.0, 5.0], atol=0.1)


def test_reseeding_stays_inside_a_run_and_apart():
    predictive = np.zeros(40)
    predictive[[19, 20]] = [-5.0, -9.0]
    found = starts.reseed(np.full((40, 3), 1 / 3), [1, 2], predictive, [20, 20])
    assert found[20, 1] == 1 and found[19, 2] == 1
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_more_restarts_are_never_worse_at_their_start():
    runs = curves(seed=6)
    frames = stack(runs, "ar")
    fits = [
        em.fit(
            frames,
            positions(runs),
            3,
            Config(restarts=n, n_iter=10, tol=1e-6),
            np.random.SeedSequence(7),
        ).objective
        for n in (1, 4)
    ]
    assert fits[1] >= fits[0]


@pytest.mark.parametrize("emission", ["ar", "level"])
def test_every_kind_of_start_gives_labels_also_with_few_distinct_frames(emission):
    frames = stack([np.repeat(np.eye(2), 3, axis=0)], emission)
    for restart in range(5):
        kind = starts.kind(restart, emission)
        found = starts.labels(frames, np.arange(6), 4, kind, np.random.default_rng(9))
        assert found.shape == (6,) and set(found.tolist()) <= set(range(4))


@pytest.mark.parametrize("early", [False, True])
def test_segmentations_are_contiguous_and_shared_by_runs(early):
    steps = np.concatenate([np.arange(0, 300, 10), np.arange(0, 200, 7)])
    states = starts.segmentation(steps, 4, early, np.random.default_rng(8))
    order = np.argsort(steps, kind="stable")
    assert (np.diff(states[order]) >= 0).all()
    assert states.min() >= 0 and states.max() <= 3
    for step in np.unique(steps):
        assert len(np.unique(states[steps == step])) == 1


def test_parameter_count():
    k, d = 3, 14
    chain = (k - 1) + k * (k - 1)
    assert parameter_count(k, d, "level", "full") == chain + k * d + k * d * (d + 1) // 2
    assert parameter_count(k, d, "level", "diag") == chain + k * d + k * d
    first = d + d * (d + 1) // 2
    assert parameter_count(k, d, "ar", "full") == chain + k * (d * d + d + d * (d + 1) // 2) + first
    assert parameter_count(k, d, "ar", "diag") == chain + k * (d * d + d + d) + 2 * d


def test_parameter_count_equals_hmmlearn():
    from hmmlearn.hmm import GaussianHMM

    for covariance in ("full", "diag"):
        model = GaussianHMM(4, covariance)
        model.n_features = 5
        assert parameter_count(4, 5, "level", covariance) == sum(
            model._get_n_fit_scalars_per_param().values()
        )


def test_parameter_counts_of_the_other_covariances_and_topologies():
    k, d = 3, 6
    level = (k - 1) + k * (k - 1) + k * d
    assert parameter_count(k, d, "level", "tied") == level + d * (d + 1) // 2
    # Two factors: d + (d - 1) loadings after rotation, and d of the diagonal.
    assert parameter_count(k, d, "level", "lowrank", 2) == level + k * (d + d - 1 + d)
    # As many factors as features are a full covariance.
    assert parameter_count(k, d, "level", "lowrank", d) == parameter_count(k, d, "level", "full")
    assert parameter_count(k, d, "level", "tied", ordered=True) == level + d * (d + 1) // 2 - 3


def test_low_rank_finds_planted_factors():
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(8, 2))
    truth = loadings @ loadings.T + np.diag(rng.uniform(0.05, 0.5, 8))
    found = low_rank(truth, 2, 1e-6, None)
    # Not yet the maximum after the iterations of one M-step, and closer with each one.
    errors = [np.abs(found - truth).max()]
    for _ in range(30):
        found = low_rank(truth, 2, 1e-6, found)
        errors.append(np.abs(found - truth).max())
    assert errors[-1] < 0.02 * np.abs(truth).max()


def test_tied_is_one_covariance_and_left_to_right_never_returns():
    runs = curves(seed=9)
    frames = stack(runs, "level")
    config = Config(covariance="tied", emission="level", left_to_right=True, restarts=2, n_iter=30)
    found = em.fit(frames, positions(runs), 3, config, np.random.SeedSequence(1))
    p = found.parameters
    np.testing.assert_array_equal(p.emission.covariances[0], p.emission.covariances[2])
    assert (np.tril(p.transitions, -1) == 0).all() and found.fell <= em.SLACK
    density = log_density(frames, p.emission)
    for path in inference.viterbi(p.start, p.transitions, density, frames.lengths):
        assert (np.diff(path) >= 0).all()


def test_a_sticky_prior_lengthens_stays():
    runs = curves(seed=10)
    frames = stack(runs, "level")
    stays = []
    for sticky in (0.0, 500.0):
        config = Config(emission="level", sticky=sticky, restarts=1, n_iter=40)
        found = em.fit(frames, positions(runs), 3, config, np.random.SeedSequence(1))
        stays.append(np.trace(found.parameters.transitions))
        assert found.fell <= em.SLACK
    assert stays[1] > stays[0]


def test_a_mixture_equals_scikit_learn():
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(11)
    runs = [np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 6]) for _ in range(2)]
    frames = stack(runs, "level")
    found = em.fit(
        frames,
        positions(runs),
        2,
        Config(emission="level", tol=1e-9),
        np.random.SeedSequence(0),
        independent=True,
    )
    theirs = GaussianMixture(2, random_state=0).fit(frames.levels)
    # The prior costs a little.
    ours = found.log_likelihood / len(frames.levels)
    assert theirs.score(frames.levels) - 0.01 < ours <= theirs.score(frames.levels) + 1e-9
    assert found.fell <= em.SLACK
