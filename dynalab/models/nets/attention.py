"""Attention written out, without a fused kernel, so that it can be vmapped and differentiated twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, causal: bool) -> Tensor:
    """Let queries (B, Q, d) look at keys and values (B, T, d); shape (B, Q, d), the heads side by side.

    The queries belong to the last positions of the sequence: with fewer queries than keys, the first ones are not
    computed (a network that is read at its last position needs no other in its last layer). Each head takes d / heads
    neighbouring entries, and scores are divided by the root of that. `causal` hides the positions after a query's own.
    """
    size = queries.shape[-1] // heads
    q, k, v = (x.unflatten(-1, (heads, size)).transpose(1, 2) for x in (queries, keys, values))
    scores = q @ k.transpose(-1, -2) / math.sqrt(size)
    if causal and scores.shape[-2] > 1:
        positions = torch.arange(scores.shape[-1], device=scores.device)
        hidden = positions[None, :] > positions[-scores.shape[-2] :, None]
        scores = scores.masked_fill(hidden, -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def attention_parts(network: nn.Module) -> dict[str, list[str]]:
    """Return `query`, `key` and `value` -> the parameters of the modules of these names, in all layers."""
    names = [name for name, _ in network.named_parameters()]
    return {part: [name for name in names if f".{part}." in name] for part in ("query", "key", "value")}
