"""The Fourier gap of a neuron: enumeration against its definition, closed forms against enumeration."""

import itertools

import fourier_gap
import numpy as np
import pytest


def test_coefficients_are_their_definition():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 16))
    x = fourier_gap.inputs(4)
    assert sorted(map(tuple, x.tolist())) == sorted(itertools.product([-1.0, 1.0], repeat=4))
    got = fourier_gap.coefficients(values)
    for mask in range(16):
        members = [i for i in range(4) if mask >> i & 1]
        np.testing.assert_allclose(got[:, mask], (values * x[:, members].prod(1)).mean(1), atol=1e-15)
    np.testing.assert_allclose((got**2).sum(1), (values**2).mean(1))


def test_the_population_gradient_has_these_coefficients():
    """Of a ReLU neuron on the parity of coordinates 0, 2: E[y sigma'(w . x + b) x_i]."""
    rng = np.random.default_rng(1)
    w, b, x = rng.uniform(-1, 1, size=7), 0.3, fourier_gap.inputs(7)
    y = x[:, [0, 2]].prod(1)
    slope = ((y * np.maximum(x @ (w + 1e-6 * np.eye(7)[i]) + b, 0)).mean() for i in range(7))
    base = (y * np.maximum(x @ w + b, 0)).mean()
    numeric = (np.fromiter(slope, float) - base) / 1e-6
    spectrum = fourier_gap.coefficients(np.heaviside(x @ w + b, 0.5))
    np.testing.assert_allclose(fourier_gap.neighbours(spectrum, [0, 2]), numeric, atol=1e-6)
    sizes = abs(numeric)
    wanted = sizes[[0, 2]].min() - sizes[[1, 3, 4, 5, 6]].max()
    assert fourier_gap.neuron_gap(w, b, [0, 2]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("n", [3, 7, 11, 15])
def test_majority_has_its_closed_form(n):
    spectrum = fourier_gap.coefficients(np.sign(fourier_gap.inputs(n).sum(1)))
    orders = np.array([mask.bit_count() for mask in range(1 << n)])
    for order in range(n + 1):
        wanted = fourier_gap.majority_coefficient(n, order)
        np.testing.assert_allclose(abs(spectrum[orders == order]), wanted, atol=1e-14)
    signs = np.where(np.arange(n) % 3, 1.0, -1.0)
    for k in range(1, n):
        wanted = fourier_gap.majority_gap(n, k)
        assert fourier_gap.gap(spectrum, range(k)) == pytest.approx(wanted, abs=1e-14)
        if k > 1 and n < 15:
            assert fourier_gap.neuron_gap(signs, 0.0, range(k)) == pytest.approx(wanted / 2, abs=1e-14)


def test_majority_at_sizes_beyond_enumeration():
    known = {(15, 2): 0.193, (15, 4): 0.0117, (31, 4): 4.4e-3, (51, 4): 2.1e-3}
    for (n, k), gap in known.items():
        assert fourier_gap.majority_gap(n, k) == pytest.approx(gap, rel=0.03)
    # Theta(n^(-(k-1)/2)): four times the coordinates, an eighth of the gap at k = 4.
    assert fourier_gap.majority_gap(4001, 4) / fourier_gap.majority_gap(1001, 4) == pytest.approx(
        1 / 8, rel=0.01
    )


def test_many_relu_neurons_have_a_gap_at_initialisation():
    rng = np.random.default_rng(0)
    weights, biases = rng.uniform(-1, 1, (60, 15)), rng.uniform(-1, 1, 60)
    gaps = fourier_gap.neuron_gap(weights, biases, range(3))
    assert gaps.shape == (60,) and 0.2 < (gaps > 0).mean() < 0.7


def test_what_has_no_gap_is_refused():
    for call in (
        lambda: fourier_gap.inputs(16),
        lambda: fourier_gap.coefficients(np.zeros(12)),
        lambda: fourier_gap.gap(np.zeros(8), [0, 1, 2]),
        lambda: fourier_gap.gap(np.zeros(8), []),
        lambda: fourier_gap.neighbours(np.zeros(8), [3]),
        lambda: fourier_gap.majority_gap(8, 2),
        lambda: fourier_gap.majority_gap(9, 9),
    ):
        with pytest.raises(ValueError, match=r"need|enumeration"):
            call()
