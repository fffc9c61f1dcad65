"""Fourier coefficients of a network on sets of k coordinates, from its weights.

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
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from dynalab.models.nets.mlp import MLP
from dynalab.models.nets.parity import PolyNet
from dynalab.probes.spectra import coefficients

# Weights of S runs, sets (m, k) -> coefficients (S, m), float64.
Coefficients = Callable[[Mapping[str, Tensor], Tensor], Tensor]

# A permanent has k! terms.
LARGEST = 6
# Runs whose products are made together.
_TOGETHER = 8


def coefficients_of(network: nn.Module, k: int) -> Coefficients | None:
    """Return the function that computes a network's coefficients on sets of k coordinates, or None without formula."""
    if not 2 <= k <= LARGEST:
        return None
    if isinstance(network, PolyNet):
        return polynet if network.layer.weight.shape[0] == k else None
    if isinstance(network, MLP) and len(network.layers) == 2 and network.activation is torch.relu_:
        if network.norms:
            return None
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
    bias, k = params.get("layers.0.bias"), sets.shape[1]
    known = coefficients(params["layers.0.weight"], bias, params["layers.1.weight"], sets)
    if known is not None:
        return known
    weight = params["layers.0.weight"].detach().to(torch.float64)
    scale = weight.square().sum(2).sqrt()
    ratio = torch.zeros_like(scale) if bias is None else bias.detach().to(torch.float64) / scale
    density = torch.exp(-0.5 * ratio * ratio) / math.sqrt(2.0 * math.pi)
    slope = (-1.0) ** k * _hermite(k - 2, ratio) * density / scale ** (k - 1)
    outer = params["layers.1.weight"].detach().to(torch.float64)[:, 0] * slope
    # A run's own (m, h) times (h,): the sum over neurons is along the innermost axis.
    turned = weight.transpose(1, 2).contiguous()
    first, *others = sets.unbind(1)
    found = []
    # What some runs' products take stays in a core's cache.
    for own, factor in zip(turned.split(_TOGETHER), outer[:, None].split(_TOGETHER), strict=True):
        product = own.index_select(1, first)
        for column in others:
            product.mul_(own.index_select(1, column))
        found.append(product.mul_(factor).sum(2))
    return torch.cat(found)


def _hermite(order: int, x: Tensor) -> Tensor:
    """Return the probabilists' Hermite polynomial He_order(x)."""
    before, now = torch.zeros_like(x), torch.ones_like(x)
    for m in range(order):
        before, now = now, x * now - m * before
    return now
