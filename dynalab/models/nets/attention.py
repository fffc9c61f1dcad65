"""Attention written out, without a fused kernel, so that it can be vmapped and differentiated twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, causal: bool) -> Tensor:
    """Let every query look at the keys and mix the values, one head at a time.

    The queries belong to the last positions of the sequence: with fewer queries than keys, the first ones
    are not computed (a network that is read at its last position needs no other in its last layer).

    Args:
        queries: Shape (B, Q, d).
        keys: Shape (B, T, d), T at least Q.
        values: Shape (B, T, d).
        heads: Number of heads h; each takes d / h neighbouring entries, and scores are divided by sqrt(d /
            h).
        causal: Hide from a query the positions after its own.

    Returns:
        Shape (B, Q, d), the heads side by side.
    """
    size = queries.shape[-1] // heads
    q, k, v = (x.unflatten(-1, (heads, size)).transpose(1, 2) for x in (queries, keys, values))
    scores = q @ k.transpose(-1, -2) / math.sqrt(size)
    if causal and scores.shape[-2] > 1:
        positions = torch.arange(scores.shape[-1], device=scores.device)
        hidden = positions[None, :] > positions[-scores.shape[-2] :, None]
        scores = scores.masked_fill(hidden, -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
