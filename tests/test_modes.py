"""Correlation modes: what is made of modes is taken apart exactly, and running sums are least squares."""

import numpy as np
import pytest
import torch

from dynalab.core.modes import Clusters, Fit, assign, decompose, reconstruct, sample, units


def made(modes=3, weights=400, steps=40, seed=0):
    """Return trajectories (T, N) that are affine in so many walks, and the mode of each weight."""
    rng = np.random.default_rng(seed)
    walks = np.cumsum(rng.normal(size=(steps, modes)), axis=0)
    of = rng.integers(modes, size=weights)
    slope = rng.choice([-1.0, 1.0], size=weights) * rng.uniform(0.2, 3.0, size=weights)
    return walks[:, of] * slope + rng.normal(size=weights) * 5, of


def fitted(rows, modes):
    fit = Fit(modes.of, modes.references)
    for row in rows:
        fit.take(row)
    return fit.coefficients()


@pytest.mark.parametrize("modes", [1, 3, 6])
def test_weights_of_a_few_modes_are_taken_apart_exactly(modes):
    rows, truth = made(modes)
    found = decompose(rows, [100, 290, 10], modes, np.random.default_rng(0), sampled=200)
    assert len(found.references) == modes
    # One mode of the truth is one mode of what is found, under whichever number.
    assert len({(a, b) for a, b in zip(truth, found.of, strict=True)}) == modes
    slope, offset = fitted(rows, found)
    again = np.stack([reconstruct(slope, offset, found.of, row[found.references]) for row in rows])
    np.testing.assert_allclose(again, rows, atol=1e-9)


def test_more_modes_than_there_are_come_out_as_those_there_are():
    rows, _ = made(3)
    found = decompose(rows, [400], 10, np.random.default_rng(0))
    assert len(found.references) == 3
    assert Clusters(rows).most == 3


def test_running_sums_are_least_squares_and_tensors_do_as_arrays():
    rng = np.random.default_rng(1)
    # Far from 0 by more than they move, where plain sums of squares lose their digits.
    rows = np.cumsum(rng.normal(size=(60, 50)), axis=0) * 1e-3 + rng.normal(size=50) * 100
    modes = decompose(rows, [50], 4, rng)
    slope, offset = fitted(rows, modes)
    for weight in range(50):
        reference = rows[:, modes.references[modes.of[weight]]]
        # Least squares by another way, about the means so that it is well conditioned itself.
        x, y = reference - reference.mean(), rows[:, weight] - rows[:, weight].mean()
        a = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
        assert slope[weight] == pytest.approx(a, rel=1e-9, abs=1e-9)
        line = rows[:, weight].mean() + a * x
        np.testing.assert_allclose(slope[weight] * reference + offset[weight], line, rtol=1e-9)
    fit = Fit(torch.as_tensor(modes.of), torch.as_tensor(modes.references))
    for row in torch.as_tensor(rows):
        fit.take(row)
    for one, other in zip(fit.coefficients(), (slope, offset), strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-12)


def test_runs_one_behind_another_have_modes_of_their_own():
    several = [made(2, 60, seed=seed)[0] for seed in range(3)]
    modes = [decompose(rows, [60], 2, np.random.default_rng(0)) for rows in several]
    fit = Fit(
        np.concatenate([own.of + 2 * run for run, own in enumerate(modes)]),
        np.concatenate([own.references + 60 * run for run, own in enumerate(modes)]),
    )
    for row in np.concatenate(several, axis=1):
        fit.take(row)
    alone = [fitted(rows, own) for rows, own in zip(several, modes, strict=True)]
    for part, found in enumerate(fit.coefficients()):
        np.testing.assert_array_equal(found, np.concatenate([own[part] for own in alone]))


def test_weights_that_never_move_are_their_offset_and_found_no_mode():
    rows, _ = made(2, 40)
    rows[:, ::4] = 0.1
    modes = decompose(rows, [40], 2, np.random.default_rng(0))
    slope, offset = fitted(rows, modes)
    assert not set(modes.references) & set(range(0, 40, 4))
    np.testing.assert_array_equal(slope[::4], 0.0)
    np.testing.assert_array_equal(offset[::4], 0.1)
    # Nor where nothing moves at all.
    still = np.full((5, 7), 0.3)
    modes = decompose(still, [7], 3, np.random.default_rng(0))
    slope, offset = fitted(still, modes)
    np.testing.assert_array_equal(reconstruct(slope, offset, modes.of, still[0][modes.references]), 0.3)


def test_the_sample_is_half_by_tensor_and_half_by_size():
    drawn = sample([10, 990], 100, np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn)
    # 25 + .5 of the small one are more than it has.
    assert (drawn < 10).sum() == 10
    assert (drawn >= 10).sum() == pytest.approx(74, abs=1)
    np.testing.assert_array_equal(sample([3, 4], 10, np.random.default_rng(0)), np.arange(7))


def test_correlations_are_those_of_numpy():
    rows, _ = made(3, 20)
    rows += np.random.default_rng(2).normal(size=rows.shape)
    _, alike = assign(rows, rows[:, [4]])
    np.testing.assert_allclose(alike, np.abs(np.corrcoef(rows.T)[4]), atol=1e-12)
    assert np.isfinite(units(np.ones((4, 3)))).all()
