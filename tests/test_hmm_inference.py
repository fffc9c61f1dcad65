"""Likelihood, posteriors and decoding against the sum over all paths, scipy's densities, and hmmlearn itself."""

import itertools

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dynalab.analysis.hmm import inference, iterations, kernels
from dynalab.analysis.hmm.emissions import Emission, log_density
from dynalab.analysis.hmm.features import Scaler
from dynalab.analysis.hmm.frames import stack
from dynalab.analysis.hmm.model import Model, from_plain, to_plain


def spd(rng, size, count):
    root = rng.normal(size=(count, size, size))
    return root @ root.transpose(0, 2, 1) + 0.3 * np.eye(size)


def random_model(emission, n_states, size, rng):
    inputs = size + 1 if emission == "ar" else 1
    weights = 0.4 * rng.normal(size=(n_states, size, inputs))
    first = (rng.normal(size=size), spd(rng, size, 1)[0]) if emission == "ar" else (None, None)
    chain = rng.dirichlet(np.ones(n_states), n_states + 1)
    parameters = iterations.Parameters(
        chain[0], np.ascontiguousarray(chain[1:]), Emission(weights, spd(rng, size, n_states), *first)
    )
    scaler = Scaler(rng.normal(size=size), rng.uniform(0.5, 2, size=size))
    names = tuple(f"m{i}" for i in range(size))
    return Model(names, (), scaler, emission, rng.uniform(0.5, 2, size=size), parameters)


def frame_log_density(plain, z, t, k):
    """The density as the result's JSON states it, frame by frame with scipy."""
    cov = np.array(plain["covariances"][k])
    if plain["emission"] == "level":
        return multivariate_normal(plain["means"][k], cov).logpdf(z[t])
    if t == 0:
        return multivariate_normal(plain["first"]["mean"], plain["first"]["covariance"]).logpdf(z[0])
    return multivariate_normal(np.array(plain["A"][k]) @ z[t - 1] + plain["b"][k], cov).logpdf(z[t])


@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize(("n_states", "length"), [(1, 1), (2, 5), (3, 6), (3, 2)])
def test_against_the_sum_over_all_paths(emission, n_states, length):
    rng = np.random.default_rng([n_states, length])
    model = random_model(emission, n_states, 2, rng)
    plain = to_plain(model)
    runs = [rng.normal(size=(length, 2)), rng.normal(size=(3, 2))]
    frames = model.frames(runs)
    p = model.parameters
    found = inference.expect(p.start, p.transitions, model.log_density(frames), frames.lengths)
    decoded = model.decode(runs)
    expected_pairs = np.zeros((n_states, n_states))
    for index, (x, rows) in enumerate(zip(runs, inference.slices(frames.lengths), strict=True)):
        z = model.scaler(x)
        logs = np.array([[frame_log_density(plain, z, t, k) for k in range(n_states)] for t in range(len(z))])
        paths = np.array(list(itertools.product(range(n_states), repeat=len(z))))
        joint = np.log(np.array(plain["start"]))[paths[:, 0]] + logs[np.arange(len(z)), paths].sum(axis=1)
        chain = np.log(np.array(plain["transitions"]))
        joint += chain[paths[:, :-1], paths[:, 1:]].sum(axis=1)
        total = logsumexp(joint)
        share = np.exp(joint - total)
        smoothed = np.array([[share[paths[:, t] == k].sum() for k in range(n_states)] for t in range(len(z))])
        np.testing.assert_allclose(found.log_likelihoods[index], total, rtol=1e-10)
        np.testing.assert_allclose(found.posterior[rows], smoothed, atol=1e-10)
        np.testing.assert_allclose(found.predictive[rows].sum(), total, rtol=1e-10)
        np.testing.assert_array_equal(decoded[index], paths[np.argmax(joint)])
        for a, b in itertools.product(range(n_states), repeat=2):
            taken = ((paths[:, :-1] == a) & (paths[:, 1:] == b)).sum(axis=1)
            expected_pairs[a, b] += (taken * share).sum()
    np.testing.assert_allclose(found.pairs, expected_pairs, atol=1e-10)
    np.testing.assert_allclose(
        inference.score(p.start, p.transitions, model.log_density(frames), frames.lengths),
        found.log_likelihoods,
        rtol=1e-12,
    )


@pytest.mark.parametrize("emission", ["ar", "level"])
def test_the_chain_goes_on_over_missing_rows_and_the_row_after_them_says_nothing(emission):
    rng = np.random.default_rng(5)
    model = random_model(emission, 3, 2, rng)
    x = rng.normal(size=(9, 2))
    x[[3, 4]] = np.nan
    p, plain, z = model.parameters, to_plain(model), model.scaler(x)
    frames = model.frames([x, rng.normal(size=(4, 2))])
    assert frames.skipped.tolist() == [3, 4, 5] and frames.evaluated.tolist() == [6, 4]
    assert frames.only([1]).skipped.tolist() == [] and frames.only([0]).skipped.tolist() == [3, 4, 5]
    # By powers of the transition matrix: from row 2 it is four rows to row 6.
    seen = [0, 1, 2, 6, 7, 8]
    steps = [np.linalg.matrix_power(p.transitions, n) for n in (1, 1, 4, 1, 1)]
    logs = np.array([[frame_log_density(plain, z, t, k) for k in range(3)] for t in seen])
    ahead = p.start * np.exp(logs[0])
    for step, log in zip(steps, logs[1:], strict=True):
        ahead = (ahead @ step) * np.exp(log)
    said = inference.score(p.start, p.transitions, model.log_density(frames), frames.lengths)
    assert said[0] == pytest.approx(np.log(ahead.sum()), rel=1e-10)


@pytest.mark.parametrize("emission", ["ar", "level"])
def test_filtering_is_the_last_smoothed_posterior_of_every_prefix(emission):
    rng = np.random.default_rng(3)
    model = random_model(emission, 3, 2, rng)
    x = rng.normal(size=(7, 2))
    p = model.parameters
    whole = model.frames([x])
    filtered = inference.filtering(p.start, p.transitions, model.log_density(whole), whole.lengths)
    for t in range(1, 8):
        prefix = model.frames([x[:t]])
        seen = inference.expect(p.start, p.transitions, model.log_density(prefix), prefix.lengths)
        np.testing.assert_allclose(filtered[t - 1], seen.posterior[-1], atol=1e-12)


def test_level_model_equals_hmmlearn():
    rng = np.random.default_rng(4)
    model = random_model("level", 4, 3, rng)
    plain = to_plain(model)
    runs = [rng.normal(size=(n, 3)) for n in (40, 25, 1)]
    theirs = GaussianHMM(4, "full")
    theirs.startprob_, theirs.transmat_ = np.array(plain["start"]), np.array(plain["transitions"])
    theirs.means_, theirs.covars_ = np.array(plain["means"]), np.array(plain["covariances"])
    z = np.concatenate([model.scaler(x) for x in runs])
    log_likelihood, posterior = theirs.score_samples(z, [40, 25, 1])
    frames = model.frames(runs)
    p = model.parameters
    ours = inference.expect(p.start, p.transitions, model.log_density(frames), frames.lengths)
    np.testing.assert_allclose(ours.log_likelihood, log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(ours.posterior, posterior, atol=1e-10)
    np.testing.assert_array_equal(np.concatenate(model.decode(runs)), theirs.predict(z, [40, 25, 1]))


def test_densities_a_million_nats_apart_do_not_underflow():
    log_b = np.array([[0.0, -1e6], [-1e6, 0.0], [-1e6, 0.0], [0.0, -1e9]])
    start, transitions = np.array([0.5, 0.5]), np.array([[1 - 1e-9, 1e-9], [1e-9, 1 - 1e-9]])
    found = inference.expect(start, transitions, log_b, [4])
    assert np.isfinite(found.log_likelihood)
    np.testing.assert_allclose(found.posterior, [[1, 0], [0, 1], [0, 1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize("spread", [600.0, 745.0, 3e3])
def test_states_near_underflow_are_as_in_logarithms(spread):
    rng = np.random.default_rng(0)
    log_b, lengths = rng.uniform(-spread, 0, (60, 3)), [40, 19, 1]
    start, transitions = (
        np.full(3, 1 / 3),
        np.array([[1 - 2e-9, 1e-9, 1e-9], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]),
    )
    found = inference.expect(start, transitions, log_b, lengths)
    pairs, shift = np.zeros((3, 3)), log_b.max(axis=1)
    for rows, likelihood in zip(inference.slices(lengths), found.log_likelihoods, strict=True):
        alone = kernels._in_logarithms(start, transitions, log_b[rows])
        posterior = alone[2] / alone[2].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(likelihood, alone[0], rtol=1e-12)
        np.testing.assert_allclose(found.filtered[rows], alone[1], atol=1e-12)
        np.testing.assert_allclose(found.posterior[rows], posterior, atol=1e-12)
        np.testing.assert_allclose(found.predictive[rows], alone[3], rtol=1e-11)
        pairs += alone[4]
    np.testing.assert_allclose(found.pairs, pairs, atol=1e-11)
    # Nothing on the way is denormal, which would take ten times as long.
    shifted = log_b - shift[:, None]
    assert kernels._densities(shifted, True).min() > 1e-250
    assert np.array_equal(kernels._densities(shifted, False), np.exp(shifted))


def test_ar_with_a_zero_is_a_level_model():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 2))
    mean, cov = rng.normal(size=(1, 2)), spd(rng, 2, 1)
    level = Emission(mean[:, :, None], cov)
    ar = Emission(np.concatenate([-np.eye(2)[None], mean[:, :, None]], axis=2), cov, mean[0], cov[0])
    unit = np.ones(2)
    ours = log_density(stack([x], "ar", unit), ar)
    np.testing.assert_allclose(ours, log_density(stack([x], "level", unit), level), atol=1e-10)


@pytest.mark.parametrize("emission", ["ar", "level"])
def test_a_model_survives_json(emission):
    import json

    rng = np.random.default_rng(6)
    model = random_model(emission, 3, 2, rng)
    again = from_plain(json.loads(json.dumps(to_plain(model))))
    x = [rng.normal(size=(9, 2))]
    np.testing.assert_allclose(
        again.log_density(again.frames(x)), model.log_density(model.frames(x)), rtol=1e-10
    )
