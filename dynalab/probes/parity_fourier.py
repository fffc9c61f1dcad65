"""Fourier coefficients of a network on sets of k coordinates, from its weights, and the Fourier gap of a neuron.

For x uniform in {-1, +1}^n, the coefficient of f at a set A is f^(A) = E[f(x) product over i in A of x_i]. A network
that knows the parity of S has f^(S) near 1; on the way there, f^(S) grows out of the spread of the other f^(A). No
examples are needed, so there is no sampling noise.

Two kinds of networks have a formula:

    f = product over j <= k of (w_j . x + b_j)   f^(A) = permanent of the k x k matrix (w_ji, i in A), exactly
    f = c + sum over j of u_j relu(w_j . x + b_j)
        f^(A) = sum over j of u_j (product over i in A of w_ji) E[relu^(k)(z)], z normal with mean b_j and variance
        |w_j|^2: the leading order for many small weights, where w . x is near normal. With t = b_j / |w_j| and phi the
        normal density, E[relu^(k)(z)] = (-1)^k He_(k-2)(t) phi(t) / |w_j|^(k-1) for k >= 2. Against enumeration at
        n = 15, width 60, torch's initialisation: relative error 5%, 21%, 31% for k = 2, 3, 4, correlation over all
        sets .9996, .994, .990. Once few weights dominate, a neuron's field is not near normal, and the value is large
        but no longer near.

Why a gradient step finds the relevant coordinates: the population gradient of a neuron sigma(w . x + b) on the parity
of S points, on coordinate i, along the coefficient of sigma'(w . x + b) at S without i where i is relevant, at S with i
elsewhere. Barak et al. 2022 (arXiv 2207.08799, definition 1): g has a gap gamma at S if every |g^(S without i)| exceeds
every |g^(S with i)| by at least gamma. Here by enumeration, for small n. For weights +-1, no bias, n odd and a ReLU,
sigma' is (1 + majority) / 2 with some coordinates turned over, and the gap has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor, nn

from dynalab.models.nets.mlp import MLP
from dynalab.models.nets.parity import PolyNet

# Weights of S runs, sets (m, k) -> coefficients (S, m), float64.
Coefficients = Callable[[Mapping[str, Tensor], Tensor], Tensor]

# A permanent has k! terms; 2^15 inputs take milliseconds, and each further coordinate doubles them.
LARGEST, MOST_ENUMERATED = 6, 15


def coefficients_of(network: nn.Module, k: int) -> Coefficients | None:
    """Return the function that computes a network's coefficients on sets of k coordinates, or None without formula."""
    if not 2 <= k <= LARGEST:
        return None
    if isinstance(network, PolyNet):
        return polynet if network.layer.weight.shape[0] == k else None
    if isinstance(network, MLP) and len(network.layers) == 2 and network.activation is torch.relu_:
        return relu if network.get_parameter("layers.1.weight").shape[0] == 1 else None
    return None


def polynet(params: Mapping[str, Tensor], sets: Tensor) -> Tensor:
    """Return the coefficients of a product of k linear functions: permanents, exactly."""
    chosen = params["layer.weight"].detach().to(torch.float64)[..., sets]
    k = sets.shape[1]
    total = torch.zeros_like(chosen[:, 0, :, 0])
    for order in permutations(range(k)):
        term = chosen[:, 0, :, order[0]]
        for factor in range(1, k):
            term = term * chosen[:, factor, :, order[factor]]
        total = total + term
    return total


def relu(params: Mapping[str, Tensor], sets: Tensor) -> Tensor:
    """Return the coefficients of a ReLU network with one hidden layer and one output, in leading order."""
    weight = params["layers.0.weight"].detach().to(torch.float64)
    k = sets.shape[1]
    scale = weight.square().sum(2).sqrt()
    bias = params.get("layers.0.bias")
    ratio = torch.zeros_like(scale) if bias is None else bias.detach().to(torch.float64) / scale
    density = torch.exp(-0.5 * ratio * ratio) / math.sqrt(2.0 * math.pi)
    slope = (-1.0) ** k * _hermite(k - 2, ratio) * density / scale ** (k - 1)
    outer = params["layers.1.weight"].detach().to(torch.float64)[:, 0] * slope
    product = weight[..., sets[:, 0]]
    for column in sets.unbind(1)[1:]:
        product = product * weight[..., column]
    # A run's own (m, h) times (h,): the sum over neurons is along the innermost axis.
    return (product.transpose(1, 2).contiguous() * outer[:, None]).sum(2)


def _hermite(order: int, x: Tensor) -> Tensor:
    """Return the probabilists' Hermite polynomial He_order(x)."""
    before, now = torch.zeros_like(x), torch.ones_like(x)
    for m in range(order):
        before, now = now, x * now - m * before
    return now


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
