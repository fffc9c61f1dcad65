"""The Fourier gap of a neuron, by enumeration and in closed form.

Why a gradient step finds the relevant coordinates: the population gradient of a neuron sigma(w . x + b) on the parity
of S points, on coordinate i, along the coefficient of sigma'(w . x + b) at S without i where i is relevant, at S with i
elsewhere. Barak et al. 2022 (arXiv 2207.08799, definition 1): g has a gap gamma at S if every |g^(S without i)| exceeds
every |g^(S with i)| by at least gamma. Here by enumeration, for small n. For weights +-1, no bias, n odd and a ReLU,
sigma' is (1 + majority) / 2 with some coordinates turned over, and the gap has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# 2^15 inputs take milliseconds, and each further coordinate doubles them.
MOST_ENUMERATED = 15


def inputs(n: int) -> np.ndarray:
    """Return every input of n <= 15, (2^n, n): row r has -1 at coordinate i where bit i of r is set, else +1."""
    if not 1 <= n <= MOST_ENUMERATED:
        raise ValueError(f"n={n}: enumeration needs 1 to {MOST_ENUMERATED} coordinates")
    return 1.0 - 2.0 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)


def coefficients(values: np.ndarray) -> np.ndarray:
    """Return all Fourier coefficients (..., 2^n) of functions on {-1, +1}^n, by a fast Walsh-Hadamard transform.

    Values are in the order of `inputs`; entry m belongs to the set of the coordinates whose bits are set in m.
    """
    size = values.shape[-1]
    n = size.bit_length() - 1
    if size != 1 << n:
        raise ValueError(f"{size} values: needs one for each of 2^n inputs")
    result = np.array(values, dtype=np.float64)
    for i in range(n):
        pairs = result.reshape(*values.shape[:-1], -1, 2, 1 << i)
        even, odd = pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]
        result = np.stack([even, odd], axis=-2).reshape(values.shape)
    return result / size


def neighbours(spectrum: np.ndarray, relevant: Sequence[int]) -> np.ndarray:
    """Return the coefficients (..., n) at S without i for every i in S, at S with i for the others."""
    n = spectrum.shape[-1].bit_length() - 1
    if not all(0 <= i < n for i in relevant):
        raise ValueError(f"relevant={list(relevant)}: needs coordinates from 0 to {n - 1}")
    whole = sum(1 << i for i in set(relevant))
    return spectrum[..., [whole ^ (1 << i) for i in range(n)]]


def gap(spectrum: np.ndarray, relevant: Sequence[int]) -> np.ndarray:
    """Return the Fourier gap (...) of coefficients (..., 2^n), negative where some other coordinate is larger."""
    sizes = np.abs(neighbours(spectrum, relevant))
    inside = np.isin(np.arange(sizes.shape[-1]), list(relevant))
    if not inside.any() or inside.all():
        raise ValueError("relevant: needs some of the coordinates, not all")
    return sizes[..., inside].min(-1) - sizes[..., ~inside].max(-1)


def neuron_gap(weights: np.ndarray, bias: np.ndarray | float, relevant: Sequence[int]) -> np.ndarray:
    """Return the Fourier gap (...) of the derivative of relu(w . x + b), of weights (..., n) and biases (...)."""
    weights = np.asarray(weights, dtype=np.float64)
    field = weights @ inputs(weights.shape[-1]).T + np.asarray(bias, dtype=np.float64)[..., None]
    return gap(coefficients(np.heaviside(field, 0.5)), relevant)


def majority_coefficient(n: int, order: int) -> float:
    """Return |Maj^(A)| for the majority of an odd number n of coordinates and a set A of `order` of them.

    0 for an even order; else C((n-1)/2, (order-1)/2) / C(n-1, order-1) 2^-(n-1) C(n-1, (n-1)/2).
    """
    if n % 2 == 0 or not 0 <= order <= n:
        raise ValueError(f"n={n}, order={order}: needs an odd n and an order from 0 to n")
    if order % 2 == 0:
        return 0.0
    half = (n - 1) // 2
    # Whole numbers as far as they go: both binomials of a large n are beyond a float.
    most = math.comb(half, (order - 1) // 2) * math.comb(n - 1, half)
    return most / (math.comb(n - 1, order - 1) << (n - 1))


def majority_gap(n: int, k: int) -> float:
    """Return the Fourier gap of the majority of n coordinates at k of them; 0 for an odd k.

    That of a ReLU neuron's derivative with weights +-1 and no bias is half of it for k > 1 (for k = 1 its mean, 1/2,
    is among the coefficients).
    """
    if not 1 <= k < n:
        raise ValueError(f"k={k}: needs 1 to n - 1 = {n - 1}")
    return majority_coefficient(n, k - 1) - majority_coefficient(n, k + 1)
