"""Iterations of EM in compiled code against those in NumPy, and what happens where nothing can be compiled."""

from dataclasses import replace

import numpy as np
import pytest
from hmm_simulate import simulate

from dynalab.analysis.hmm import compiled, em, outcome, starts
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import make_prior
from dynalab.analysis.hmm.frames import stack
from dynalab.config import compiling

needed = pytest.mark.skipif(compiling.compiler() is None, reason="no C++ compiler on this machine")


def curves(n_runs, shortest, longest, size, seed):
    """Ragged random walks of a few factors whose pace changes twice."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(4, size))
    runs = []
    for rows in rng.integers(shortest, longest + 1, n_runs):
        pace = np.repeat(np.exp(rng.normal(size=3)), -(-rows // 3))[:rows, None]
        walk = (rng.normal(size=(rows, 4)) * pace).cumsum(axis=0)
        runs.append(walk @ loading / 20 + 1e-2 * rng.normal(size=(rows, size)))
    return runs


def both(runs, emission, n_states, *, independent=False, reseedings=3, n_iter=10, **changed):
    """The fits in NumPy and in compiled code from the same start, and how many iterations the latter gave back."""
    frames = stack(runs, emission)
    config = Config(emission=emission, common=changed.pop("common", 0.0), sticky=changed.pop("sticky", 0.0))
    prior = replace(make_prior(frames, config, independent), **changed)
    where = np.concatenate([np.arange(len(x)) for x in runs])
    labels = starts.labels(frames, where, n_states, "even", np.random.default_rng(1))
    begun = em.begin(frames, prior, labels, n_states)
    back: list[int] = []

    def fit():
        return em.run(frames, prior, reseedings, begun, n_iter, 0.0)

    plain = fit()
    with compiled.using(compiled.library()), pytest.MonkeyPatch.context() as patch:
        assert compiled.used()
        assert_alike(begun, em.begin(frames, prior, labels, n_states))
        patch.setattr(em.compiled.Compiled, "_begin", _counted(back, em.compiled.Compiled._begin))
        other = fit()
    return plain, other, len(back) - 1 - len(other.reseeded)


def _counted(calls, function):
    def call(*args):
        calls.append(1)
        return function(*args)

    return call


def assert_same(plain, other):
    """Both fits took the same way; one that has arrived may stop at a gain of 0 or of rounding."""
    size = max(1.0, abs(plain.objective))
    assert other.reseeded == plain.reseeded
    shared = min(len(plain.history), len(other.history))
    np.testing.assert_allclose(other.history[:shared], plain.history[:shared], rtol=0, atol=1e-9 * size)
    assert abs(other.objective - plain.objective) <= 1e-9 * size
    assert_alike(plain.parameters, other.parameters)


def assert_alike(plain, other):
    """Both are the same parameters."""
    for name in ("start", "transitions"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), atol=1e-6)
    np.testing.assert_allclose(other.emission.covariances, plain.emission.covariances, atol=1e-6)
    np.testing.assert_allclose(other.emission.weights, plain.emission.weights, atol=1e-5)
    if plain.emission.first_mean is not None:
        np.testing.assert_array_equal(other.emission.first_mean, plain.emission.first_mean)


@needed
@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("n_states", [1, 2, 4, 5, 8, 9, 16])
@pytest.mark.parametrize("how", [{}, {"common": 300.0}, {"independent": True}, {"sticky": 20.0}])
def test_compiled_iterations_are_those_in_numpy(emission, n_states, how):
    size = (1, 3, 7, 14)[n_states % 4]
    plain, other, back = both(curves(7, 1, 60 + 4 * size, size, n_states), emission, n_states, **how)
    assert_same(plain, other)
    assert back == 0, "nothing of this is left to NumPy"


@needed
@pytest.mark.parametrize("emission", ["ar", "level"])
@pytest.mark.parametrize("how", [{}, {"independent": True}])
def test_missing_rows_say_nothing_there_either(emission, how):
    runs = curves(6, 30, 60, 3, 8)
    for x in runs:
        x[[4, 11, 12, 20]] = np.nan
    plain, other, back = both(runs, emission, 4, **how)
    assert_same(plain, other)
    assert back == 0


@needed
@pytest.mark.parametrize("common", [0.0, 300.0])
def test_a_floor_that_acts_is_the_same(common):
    runs = curves(5, 30, 80, 6, 3)
    plain, other, back = both(runs, "ar", 4, common=common, floor=0.3)
    assert_same(plain, other)
    least = np.linalg.eigvalsh(other.parameters.emission.covariances).min()
    assert back == 0 and least == pytest.approx(0.3, rel=1e-9)


@needed
def test_dead_states_are_given_the_same_frames():
    runs = curves(6, 20, 40, 3, 5)
    plain, other, _ = both(runs, "level", 12, n_iter=20)
    assert plain.reseeded, "none was dead"
    assert_same(plain, other)


@needed
def test_what_is_not_for_compiled_code_is_done_in_numpy():
    runs = curves(6, 30, 60, 5, 6)
    flat = [np.column_stack([x, x[:, 0] * (1 + 1e-9)]) for x in runs]
    # Hardly any noise in one direction: what the states have in common needs eigenvalues.
    size = flat[0].shape[1]
    plain, other, back = both(flat, "ar", 3, common=300.0, floor=1e-13, scatter=1e-12 * np.eye(size))
    assert back > 0
    assert_same(plain, other)
    for changed in ({"ordered": True}, {"counts": 0.0}, {"covariance": "diag"}, {"covariance": "tied"}):
        plain, other, back = both(runs, "ar", 3, **changed)
        assert back == -1 - len(other.reseeded), "not asked at all"
        assert plain.history == other.history
    assert both(runs, "ar", 17, n_iter=2)[2] < 0


@needed
def test_an_analysis_says_the_same_with_and_without(monkeypatch):
    truth = simulate("ar", 2, 5, 40, seed=2)
    config = Config(emission="ar", max_states=3, restarts=2, baselines=False, stability=False, workers=1)
    seen = []
    fit = em.run
    monkeypatch.setattr(em, "run", lambda *args: seen.append(compiled.used()) or fit(*args))
    one = outcome.infer(truth.trajectories, config)
    assert seen and all(seen) and compiled.used() is None, "only while it lasts"
    monkeypatch.setattr(compiled, "library", lambda: None)
    seen.clear()
    two = outcome.infer(truth.trajectories, config)
    assert seen and not any(seen)
    assert (one.n_states, one.states, one.paths) == (two.n_states, two.states, two.paths)
    assert one.log_likelihood == pytest.approx(two.log_likelihood, rel=1e-9)


def test_without_a_library_iterations_are_made_in_numpy(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for command in ("no-such-compiler", "false"):
        monkeypatch.setenv("CXX", command)
        assert compiled.library() is None, command
    assert not list(tmp_path.rglob("*.so"))
    for content in (b"", b"no library"):
        (tmp_path / "other.so").write_bytes(content)
        with compiled.using(tmp_path / "other.so"):
            assert compiled.used() is None
    with compiled.using(None):
        assert compiled.used() is None


@needed
def test_without_a_place_to_keep_it_nothing_is_compiled(monkeypatch):
    def nowhere():
        raise PermissionError("read-only")

    monkeypatch.setattr(compiling, "cache_folder", nowhere)
    assert compiled.library() is None
