"""Rules of `analyze progress` and `analyze spectrum` that null runs asked for."""

import numpy as np
import pytest
from nulls.progress import plateau
from nulls.spectrum import GRID
from scipy.stats import binom

from dynalab.analysis import progress, spectrum
from dynalab.core.stats import clopper_pearson


@pytest.mark.parametrize("held_out, level", [(1024, 0.55), (400, 0.55), (100, 0.6), (64, 0.63)])
def test_the_plateau_ends_two_standard_errors_above_a_guess(held_out, level):
    summary = progress.analyse([plateau(0, held_out)], progress.Config()).summary
    assert summary.accuracy == level
    assert progress.analyse([plateau(0, held_out)], progress.Config(accuracy=0.7)).summary.accuracy == 0.7
    assert progress._guess(plateau(0, held_out).runs[0]) == pytest.approx(0.5 + 1 / held_out**0.5, abs=0.01)


def test_the_exact_interval_is_where_either_tail_is_as_said():
    for count, total, tail in ((3, 20, 0.025), (19, 20, 0.01)):
        low, high = clopper_pearson(count, total, tail)
        assert binom.sf(count - 1, total, low) == pytest.approx(tail)
        assert binom.cdf(count, total, high) == pytest.approx(tail)
    assert clopper_pearson(0, 5)[0] == 0.0 and clopper_pearson(5, 5)[1] == 1.0


def test_a_bin_is_negative_where_all_of_it_is_below_what_counts_as_near_zero():
    # Near zero reaches to 1, an edge; then to a little beyond, into the next bin.
    shares = np.zeros(len(GRID) - 1)
    edge = int(np.argmin(np.abs(GRID + 1.0)))
    shares[edge - 1], shares[edge], shares[-1] = 0.2, 0.3, 0.5
    row = spectrum.read(7, 100.0, shares, GRID, 0.01)
    assert (row.negative, row.near_zero) == pytest.approx((0.2, 0.3))
    row = spectrum.read(7, 101.0, shares, GRID, 0.01)
    assert (row.negative, row.near_zero) == pytest.approx((0.0, 0.5))
