"""What stands beside the model: baselines, stability, criteria, thinning, and recursions where probabilities are 0."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hmm_simulate import simulate
from scipy.special import logsumexp

from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm import (
    covariances,
    em,
    fitting,
    inference,
    kernels,
    merging,
    selection,
    stability,
    tasks,
)
from dynalab.analysis.hmm.config import Config, Settings
from dynalab.analysis.hmm.emissions import Emission, log_density, log_penalty, make_prior, maximise
from dynalab.analysis.hmm.features import extract, fit_scaler
from dynalab.analysis.hmm.frames import stack, thin
from dynalab.analysis.hmm.outcome import infer
from dynalab.core.records import plain, tables
from dynalab.errors import NothingMatched

METRICS = ["l2", "mean_w", "trace", "mean_sv"]


@pytest.fixture(scope="module")
def levels():
    """A model of three clear levels with everything on."""
    truth = simulate("level", 3, n_runs=9, n_rows=60, seed=1)
    config = Config(emission="level", max_states=4, folds=3, restarts=3, workers=1, metrics=METRICS)
    return truth, infer(truth.trajectories, config)


def test_clear_states_are_stable_and_the_rows_say_over_what(levels):
    _, outcome = levels
    rows = plain(outcome)["stability"]
    assert [(row["over"], row["fits"]) for row in rows] == [("restarts", 3), ("bootstrap of runs", 20)]
    assert rows[1]["adjusted_rand"] > 0.9 and rows[1]["low"] <= rows[1]["adjusted_rand"] <= rows[1]["high"]


def test_states_without_structure_are_not_stable():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(40, 3)) for _ in range(6)]
    config = Config(emission="level", restarts=3, workers=1, n_iter=30)
    fit = tasks.solve(tasks.Task(4, None), values, [np.arange(40)] * 6, np.zeros(6), config).fit
    frames = stack([fit_scaler(values)(x) for x in values], "level")
    p = fit.parameters
    density = log_density(frames, p.emission)
    paths = inference.viterbi(p.start, p.transitions, density, frames.lengths)
    rows, notes = stability.measure(values, [np.arange(40)] * 6, paths, 4, config)
    assert rows[1].adjusted_rand < 0.7 and any("not stable" in note for note in notes)


def test_baselines_stand_beside_the_model_in_the_same_units(levels):
    _, outcome = levels
    rows = {row["name"]: row for row in plain(outcome)["baselines"]}
    assert list(rows) == ["ar hmm", "gaussian mixture", "one-metric hmm (l2)", "time-shuffled"]
    # States last: knowing the last frame's helps, and without order nothing is left of that.
    for name in ("gaussian mixture", "time-shuffled"):
        assert rows[name]["less_than_model"] > 0, name
        assert rows[name]["n_states"] <= 4
    np.testing.assert_allclose(
        rows["time-shuffled"]["heldout_ll_per_frame"],
        rows["gaussian mixture"]["heldout_ll_per_frame"],
        atol=0.3,
    )
    one = rows["one-metric hmm (l2)"]
    assert not one["comparable"] and one["less_than_model"] is None
    table = tables(outcome)["baselines"]
    assert len(table) == 4 * 4 and set(table["n_states"]) == {1, 2, 3, 4}
    assert plain(outcome)["edges"] and plain(outcome)["edges"][0]["features"][0]["interval"] is not None


def test_autoregression_loses_its_lead_when_time_is_shuffled():
    truth = simulate("ar", 2, n_runs=6, n_rows=60, seed=3)
    config = Config(max_states=2, folds=2, restarts=2, workers=1, metrics=METRICS, stability=False)
    result = plain(infer(truth.trajectories, config))
    rows = {row["name"]: row for row in result["baselines"]}
    assert rows["time-shuffled"]["less_than_model"] > 5
    assert rows["level hmm"]["less_than_model"] > 5


def test_a_large_ensemble_is_thinned_and_the_chosen_model_sees_all_runs(monkeypatch):
    truth = simulate("level", 2, n_runs=12, n_rows=40, seed=5)
    config = Config(
        emission="level", max_states=2, folds=3, restarts=2, workers=1, metrics=METRICS, stability=False,
        baselines=False,
    )  # fmt: skip
    whole = plain(infer(truth.trajectories, config))
    monkeypatch.setattr(Config, "settings", property(lambda self: Settings(fit_frames=200)))
    outcome = infer(truth.trajectories, config)
    assert any("480 frames" in line and "at most 200" in line for line in outcome.warnings)
    assert plain(outcome)["n_states"] == 2
    # Carried on over all runs it is the fit that all runs have.
    np.testing.assert_allclose(plain(outcome)["log_likelihood"], whole["log_likelihood"], rtol=1e-3)
    assert thin([40] * 12, 200, np.random.SeedSequence(0)) == thin([40] * 12, 200, np.random.SeedSequence(0))
    assert len(thin([40] * 12, 200, np.random.SeedSequence(0))) == 5


@pytest.mark.parametrize("gap", [1.0, 2000.0])
def test_chains_with_zeros_against_the_sum_over_all_paths(gap):
    """Also where the states that a frame speaks for cannot be reached, and scaled densities underflow."""
    rng = np.random.default_rng(6)
    start = np.array([0.7, 0.3, 0.0])
    transitions = np.array([[0.5, 0.5, 0.0], [0.0, 0.6, 0.4], [0.0, 0.0, 1.0]])
    density = rng.normal(size=(5, 3))
    density[0, 2] += gap
    density[3, 0] += gap
    found = inference.expect(start, transitions, density, [5])
    paths = np.array(list(itertools.product(range(3), repeat=5)))
    with np.errstate(divide="ignore"):
        joint = np.log(start)[paths[:, 0]] + np.log(transitions)[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    joint = joint + density[np.arange(5), paths].sum(axis=1)
    total = logsumexp(joint)
    share = np.exp(joint - total)
    smoothed = [[share[paths[:, t] == k].sum() for k in range(3)] for t in range(5)]
    np.testing.assert_allclose(found.log_likelihood, total, rtol=1e-10)
    np.testing.assert_allclose(found.posterior, smoothed, atol=1e-10)
    np.testing.assert_allclose(inference.score(start, transitions, density, [5]), total, rtol=1e-10)
    np.testing.assert_allclose(found.pairs.sum(), 4)
    np.testing.assert_allclose(found.predictive.sum(), total, rtol=1e-10)


def test_a_state_that_died_out_and_is_needed_later_comes_back():
    """No single frame is extreme: left to right, 900 nats for the second state, then 100 a frame for the first."""
    start, transitions = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.0, 1.0]])
    density = np.zeros((31, 2))
    density[:9, 1], density[9:, 0] = 100.0, 100.0
    found = inference.expect(start, transitions, density, [31])
    # The second state is never left: either all frames there, or n in the first and the others in the second.
    stay = np.arange(32)
    joint = np.log(0.5) + np.where(stay == 0, 0, (stay - 1) * np.log(0.9) + np.log(0.1) * (stay < 31))
    joint = joint + [density[:n, 0].sum() + density[n:, 1].sum() for n in stay]
    np.testing.assert_allclose(found.log_likelihood, logsumexp(joint), rtol=1e-12)
    np.testing.assert_allclose(
        inference.score(start, transitions, density, [31]), logsumexp(joint), rtol=1e-12
    )
    np.testing.assert_allclose(found.posterior[:, 0], 1, atol=1e-10)


def test_an_independent_chain_is_a_mixture():
    rng = np.random.default_rng(7)
    weights, density = np.array([0.2, 0.8]), rng.normal(size=(6, 2))
    one = inference.expect_independent(weights, density, [4, 2])
    two = inference.expect(weights, np.array([weights, weights]), density, [4, 2])
    for name in ("log_likelihoods", "posterior", "filtered", "predictive", "starts"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)


def test_objectives_never_fall_over_all_fits_of_a_selection():
    truth = simulate("ar", 3, n_runs=4, n_rows=40, seed=8)
    for keys in ({}, {"covariance": "lowrank"}, {"left_to_right": True, "sticky": 5.0}):
        config = Config(emission="ar", max_states=3, folds=2, restarts=2, workers=1, n_iter=30, **keys)
        features = extract(truth.trajectories, replace(config, metrics=METRICS))
        assert selection.select(features.values, features.steps, config).fell <= em.SLACK


def test_an_emission_is_not_tried_further_where_more_states_cannot_let_it_catch_up():
    noise = np.linspace(-0.1, 0.1, 9)
    flat = {1: noise - 5, 2: noise[::-1] - 4, 4: noise - 3.5}
    assert fitting.beyond_doubt({1: noise, 2: noise - 1}, flat)
    # Within ten standard errors (0.023 of the differences to the last).
    assert not fitting.beyond_doubt({1: noise[::-1] + 0.4}, {1: noise, 2: noise})
    # Two more states gained it more than it lacks.
    assert not fitting.beyond_doubt({1: noise}, {1: noise - 5, 2: noise - 2})
    # Nothing is known of what more states gain, or of the error.
    assert not fitting.beyond_doubt({1: noise}, {1: noise - 5})
    assert not fitting.beyond_doubt({1: noise[:2]}, {1: noise[:2] - 5, 2: noise[:2] - 5})


@pytest.mark.parametrize("kind", ["ar", "level"])
def test_the_early_choice_of_the_emission_is_the_choice_of_all_numbers_of_states(kind):
    truth = simulate(kind, 2, n_runs=6, n_rows=40, seed=9)
    config = Config(
        max_states=4, folds=2, restarts=2, workers=1, n_iter=20, metrics=METRICS, stability=False,
        baselines=False,
    )  # fmt: skip
    early = plain(infer(truth.trajectories, config))
    alone = plain(infer(truth.trajectories, replace(config, emission=kind)))
    for key in ("emission", "n_states", "selection", "states", "log_likelihood"):
        assert early[key] == alone[key], key


def test_some_runs_of_stacked_frames_are_those_runs_stacked():
    rng = np.random.default_rng(2)
    runs = [rng.normal(size=(n, 3)) for n in (4, 1, 6, 5)]
    for emission in ("ar", "level"):
        whole = stack(runs, emission)
        some, alone = whole.only([1, 3]), stack([runs[1], runs[3]], emission, whole.unit)
        for name in ("levels", "regressed", "design", "lengths"):
            np.testing.assert_array_equal(getattr(some, name), getattr(alone, name))


@pytest.mark.parametrize("states_a_row", [1, 4])
def test_weighted_products_are_the_same_whichever_way_they_are_made(states_a_row):
    rng = np.random.default_rng(3)
    frames = stack([rng.normal(size=(50, 3))], "ar")
    weights = np.zeros((49, 4))
    for row in weights:
        row[rng.choice(4, states_a_row, replace=False)] = rng.dirichlet(np.ones(states_a_row))
    expected = np.einsum("rk,ri,rj->kij", weights, frames.design, frames.design)
    np.testing.assert_allclose(frames.grams(weights), expected, rtol=1e-12, atol=1e-12)


def test_starts_sought_on_some_runs_end_where_all_runs_lead(monkeypatch):
    truth = simulate("ar", 3, n_runs=8, n_rows=60, seed=5)
    config = Config(emission="ar", n_states=3, folds=2, restarts=3, workers=1, metrics=METRICS)
    config = replace(config, stability=False, baselines=False)
    whole = plain(infer(truth.trajectories, config))
    monkeypatch.setattr(Config, "settings", property(lambda self: Settings(search_frames=200, search_runs=3)))
    some = plain(infer(truth.trajectories, config))
    np.testing.assert_allclose(some["log_likelihood"], whole["log_likelihood"], rtol=1e-3)
    first = some["model"]["first"]
    # The Gaussian of first frames is that of all runs, too.
    np.testing.assert_allclose(first["mean"], whole["model"]["first"]["mean"], atol=1e-12)


def test_the_emission_that_was_not_chosen_stands_beside_as_it_was_selected():
    truth = simulate("ar", 2, n_runs=5, n_rows=40, seed=9)
    config = Config(max_states=2, folds=2, restarts=2, workers=1, metrics=METRICS, stability=False)
    result = plain(infer(truth.trajectories, config))
    assert result["emission"] == "ar"
    level = plain(infer(truth.trajectories, replace(config, emission="level", baselines=False)))
    chosen = next(row for row in level["selection"] if row["n_states"] == level["n_states"])
    beside = result["baselines"][0]
    assert (beside["name"], beside["n_states"], beside["runs"]) == ("level hmm", level["n_states"], 5)
    np.testing.assert_allclose(beside["heldout_ll_per_frame"], chosen["heldout_ll_per_frame"], rtol=1e-9)


def test_the_union_that_costs_least_is_made_and_costs_what_is_said():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2, 3], 40)
    centres = np.array([0.0, 5.0, 5.0, 9.0])
    frames = stack([centres[labels][:, None] + 0.1 * rng.normal(size=(160, 2))], "level")
    prior = make_prior(frames, Config())
    found = merging.merge(frames, prior, labels, 4, 3)
    np.testing.assert_array_equal(found, np.array([0, 1, 1, 2])[labels])
    assert set(merging.merge(frames, prior, labels, 4, 1)) == {0}
    # The value of a state is its penalised log-likelihood at the maximum, up to a constant per frame.
    own = np.eye(4)[labels]
    said = merging.values(frames.grams(own), own.sum(axis=0), prior, frames.inputs)
    emission = Emission(*maximise(frames, own, prior))
    density = (own * log_density(frames, emission)).sum()
    constant = -160 * (np.log(2 * np.pi) + np.log(frames.unit).sum())
    np.testing.assert_allclose(said.sum(), density - constant + log_penalty(emission, prior))


def test_a_number_of_states_that_got_stuck_is_found_from_the_next_larger_one():
    truth = simulate("level", 3, n_runs=6, n_rows=60, seed=1)
    config = Config(emission="level", folds=2, restarts=2, workers=1, metrics=METRICS)
    features = extract(truth.trajectories, config)
    fold = np.array([0, 1] * 3)
    where = (features.values, features.steps, fold, config)
    good = {k: tasks.solve(tasks.Task(k, None), *where) for k in (1, 2, 3, 4)}
    # Three states of which two begin, and stay, as one.
    stuck = replace(good[3], fit=replace(good[3].fit, objective=good[2].fit.objective))
    better = selection.descend({**good, 3: stuck}, features.values, features.steps, config)
    assert better[3].fit.objective >= good[3].fit.objective - 1e-6 * abs(good[3].fit.objective)
    assert 1 not in better and 4 not in better


def test_a_state_of_leftovers_is_given_up_and_its_frames_go_back():
    centres = np.array([0.0, 5.0, 9.0])
    truth = np.repeat([0, 1, 2], 40)
    # State 3 took two frames of every other; each of them is a little better off there.
    labels = truth.copy()
    labels[[0, 1, 40, 41, 80, 81]] = 3
    density = -np.abs(centres[truth][:, None] - np.append(centres, 0.0))
    density[:, 3] = np.where(labels == 3, 0.5, -20)
    np.testing.assert_array_equal(merging.give_up(density, labels), truth)
    # The one that costs least goes, wherever it stands.
    order = np.array([3, 0, 2, 1])
    place = np.argsort(order)
    np.testing.assert_array_equal(
        merging.give_up(density[:, order], place[labels]), np.array([0, 2, 1])[truth]
    )


def test_unions_under_a_common_noise_cost_what_the_means_say_of_it():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [200, 200, 6])
    # The few frames of the last state scatter as widely as the others and lie near the second.
    centres = np.array([0.0, 5.0, 6.0])
    frames = stack([centres[labels][:, None] + rng.normal(size=(406, 2))], "level")
    prior = make_prior(frames, Config(covariance="tied"))
    np.testing.assert_array_equal(merging.merge(frames, prior, labels, 3, 2), np.array([0, 1, 1])[labels])


def noisy(common: bool) -> Trajectories:
    """Runs of three levels, whose noise is the same or differs a hundredfold."""
    rng = np.random.default_rng(6)
    runs = []
    for run in range(8):
        state = np.repeat([0, 1, 2], 30)
        spread = 1.0 if common else np.array([1.0, 0.1, 10.0])[state][:, None]
        values = 4.0 * state[:, None] + spread * rng.normal(size=(90, 4))
        runs.append(Trajectory(f"made/s{run:04d}", np.arange(90), values, run))
    return Trajectories("made", tuple("abcd"), tuple(runs))


NOISY = {
    "metrics": list("abcd"), "emission": "level", "max_states": 4, "restarts": 2, "workers": 1,
    "stability": False, "baselines": False,
}  # fmt: skip


@pytest.mark.parametrize("common", [True, False])
def test_how_much_noise_states_have_in_common_is_for_unseen_runs_to_say(common):
    config = Config(**NOISY)
    result = plain(infer(noisy(common), config))
    assert result["common"] == (300 if common else 0) and result["n_states"] == 3
    assert result["settings"]["common"] is None
    assert plain(infer(noisy(common), replace(config, common=7)))["common"] == 7


def test_more_states_than_rows_are_refused():
    with pytest.raises(NothingMatched, match="n_states=1000: the runs have 720 rows"):
        infer(noisy(True), Config(**NOISY, n_states=1000))


@pytest.mark.parametrize("form", ["full", "diag", "lowrank"])
def test_covariances_are_pulled_toward_their_harmonic_mean(form):
    features = extract(noisy(False), Config(**NOISY))
    frames = stack([fit_scaler(features.values)(x) for x in features.values], "level")
    found = {}
    for weight in (0.0, 50.0, 1e9):
        config = Config(**NOISY | {"covariance": form, "common": weight, "tol": 1e-9})
        fit = em.fit(frames, np.tile(np.arange(90), 8), 3, config, np.random.SeedSequence(0))
        # The objective, with the common covariance at its best, never falls.
        assert fit.fell <= em.SLACK
        found[weight] = fit.parameters.emission.covariances
    spread = {w: np.ptp(np.linalg.slogdet(c)[1]) for w, c in found.items()}
    assert spread[1e9] < 1e-3 < spread[50.0] < spread[0.0]


def test_the_common_covariance_is_the_best_one_for_given_states():
    rng = np.random.default_rng(7)
    roots = rng.normal(size=(3, 4, 4))
    sigmas = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4)
    best = covariances.common(sigmas)

    def said(s):
        inverse = np.linalg.inv(sigmas)
        return 3 * np.linalg.slogdet(s)[1] - np.einsum("kij,ji->", inverse, s)

    for _ in range(20):
        step = rng.normal(size=(4, 4)) * 1e-3
        assert said(best) > said(best + step + step.T)
    # With it the penalty is what its density says, without its trace counted twice.
    emission = Emission(np.zeros((3, 4, 1)), sigmas)
    frames = stack([rng.normal(size=(30, 4))], "level")
    with_it, without = (make_prior(frames, Config(common=weight)) for weight in (10.0, 0.0))
    gap = log_penalty(emission, with_it) - log_penalty(emission, without)
    assert np.isclose(gap, 5 * (said(best) - np.linalg.slogdet(sigmas)[1].sum()))


def test_many_short_sequences_are_done_frame_by_frame_and_say_the_same(monkeypatch):
    rng = np.random.default_rng(9)
    lengths = rng.integers(1, 6, size=23).tolist()
    start, transitions = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), size=3)
    density = 30 * rng.normal(size=(sum(lengths), 3))
    beside = (
        inference.expect(start, transitions, density, lengths),
        inference.filtering(start, transitions, density, lengths),
    )
    monkeypatch.setattr(kernels, "_beside", lambda lengths: None)
    alone = (
        inference.expect(start, transitions, density, lengths),
        inference.filtering(start, transitions, density, lengths),
    )
    for name in ("log_likelihoods", "posterior", "filtered", "predictive", "starts", "pairs"):
        np.testing.assert_allclose(getattr(beside[0], name), getattr(alone[0], name), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(beside[1], alone[1], atol=1e-14)
