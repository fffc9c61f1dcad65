"""A pre-norm transformer encoder that is read at chosen places."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynalab.models.base import Context, Matrix
from dynalab.models.nets.attention import attend


class Encoder(nn.Module):
    takes_context = True

    def __init__(self, symbols, classes, length, width, heads, mlp_width, layers, dropout, tied):
        super().__init__()
        self.length, self.dropout, self.tied = length, dropout, tied
        self.tokens = nn.Embedding(symbols, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = None if tied else nn.Linear(width, classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        for name, p in self.named_parameters():
            if p.dim() == 2: nn.init.normal_(p, std=0.02)
            if name.endswith("bias"): nn.init.zeros_(p)

    def forward(self, inputs, context=None):
        tokens, places = inputs[:, :self.length], inputs[:, self.length:]
        x = self.tokens.weight.index_select(0, tokens.flatten()).view(*tokens.shape, -1) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        x = torch.gather(x, 1, places[..., None].expand(-1, -1, x.shape[-1]))
        x = self.norm(x)
        w = self.tokens.weight if self.tied else self.head.weight
        return F.linear(x, w, self.bias)


class Block(nn.Module):
    def __init__(self, width, heads, mlp_width):
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)

    def forward(self, x):
        y = self.norm_1(x)
        x = x + self.mix(attend(self.query(y), self.key(y), self.value(y), self.heads, causal=False))
        return x + self.contract(F.gelu(self.expand(self.norm_2(x))))
