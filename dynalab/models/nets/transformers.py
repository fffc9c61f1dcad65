"""The two published transformers of grokking, read at the position of `=`.

Only what the last position needs is computed: a network's last layer has one query. Neither keeps buffers,
so that `torch.func.functional_call` with the parameters alone is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dynalab.models.base import Matrix, Tables
from dynalab.models.nets.attention import attend, attention_parts
from dynalab.models.nets.gather import rows


class NandaTransformer(nn.Module):
    """The one-layer transformer of Nanda et al. 2023 (arXiv 2301.05217) on the tokens a, b, `=`.

    No attention bias, MLP with biases, learned positions, untied unembedding. With `layer_norm`, a layer
    norm follows each of the two residual additions: the "stabilised" network of Hu et al. 2023 (arXiv
    2308.09543). Weight matrices are those of Hu et al.: keys, queries and values per head, W_O, W_in, W_out;
    biases the MLP's.
    """

    def __init__(
        self, symbols: int, classes: int, width: int, heads: int, mlp_width: int, layer_norm: bool
    ) -> None:
        """Draw the weights: N(0, 1 / width), the unembedding N(0, 1 / vocabulary), biases 0.

        The vocabulary has one token more than there are symbols, `=`, the last; the outputs are all of it.
        """
        super().__init__()
        vocabulary = max(symbols, classes) + 1
        scale = 1 / math.sqrt(width)
        self.heads = heads
        self.w_e = nn.Parameter(torch.randn(vocabulary, width) * scale)
        self.w_pos = nn.Parameter(torch.randn(3, width) * scale)
        self.w_k = nn.Parameter(torch.randn(width, width) * scale)
        self.w_q = nn.Parameter(torch.randn(width, width) * scale)
        self.w_v = nn.Parameter(torch.randn(width, width) * scale)
        self.w_o = nn.Parameter(torch.randn(width, width) * scale)
        self.w_in = nn.Parameter(torch.randn(mlp_width, width) * scale)
        self.b_in = nn.Parameter(torch.zeros(mlp_width))
        self.w_out = nn.Parameter(torch.randn(width, mlp_width) * scale)
        self.b_out = nn.Parameter(torch.zeros(width))
        self.w_u = nn.Parameter(torch.randn(vocabulary, width) / math.sqrt(vocabulary))
        self.norm_1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm_2 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.weight_matrices = [
            *(Matrix(name, parts=heads) for name in ("w_k", "w_q", "w_v")),
            *(Matrix(name) for name in ("w_o", "w_in", "w_out")),
        ]
        self.bias_vectors = ["b_in", "b_out"]
        self.parts = {"query": ["w_q"], "key": ["w_k"], "value": ["w_v"], "embedding": ["w_e", "w_pos"]}
        self.last_layer = "w_u"

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to logits at `=` over the vocabulary, (B, p + 1)."""
        # With one layer a key or value depends on its symbol and place alone, and the one query on nothing
        # but the weights: they are computed once a symbol, not once an example (30 to 40% of all work saved).
        symbols = self.w_e[:-1]
        places = [symbols + self.w_pos[0], symbols + self.w_pos[1], (self.w_e[-1] + self.w_pos[2])[None]]
        query = places[2] @ self.w_q.t()
        chosen = [inputs[:, 0], inputs[:, 1], torch.zeros_like(inputs[:, 0])]
        scores, values = [], []
        for place, choice in zip(places, chosen, strict=True):
            products = (place @ self.w_k.t() * query).unflatten(1, (self.heads, -1))
            scores.append(rows(products.sum(2), choice))
            values.append(rows(place @ self.w_v.t(), choice).unflatten(1, (self.heads, -1)))
        size = query.shape[1] // self.heads
        weights = torch.stack(scores, dim=2).div(math.sqrt(size)).softmax(2)
        mixed = sum(weights[..., i, None] * value for i, value in enumerate(values))
        y = self.norm_1(places[2] + mixed.flatten(1) @ self.w_o.t())
        hidden = torch.relu(y @ self.w_in.t() + self.b_in)
        y = self.norm_2(y + hidden @ self.w_out.t() + self.b_out)
        return y @ self.w_u.t()

    def tables(self, params: Mapping[str, Tensor]) -> Tables:
        """Return W_E and W_L = W_U W_out of one run; a layer norm between the two is left out."""
        return Tables(params["w_e"], params["w_u"] @ params["w_out"])


class PowerTransformer(nn.Module):
    """The decoder of Power et al. 2022 (arXiv 2201.02177) on `<eos> a op b =`.

    Layer norms after the residual additions, no biases but theirs, feed-forward layers of four times the
    width, sinusoidal positions, causal mask, untied unembedding, no dropout; torch's own initialisation, as
    in the published code. Deviation: that code also trains and scores the `<eos>` after the answer, a target
    that is trivial; here the outputs are the logits at `=` alone.
    """

    def __init__(self, symbols: int, classes: int, width: int, heads: int, layers: int) -> None:
        """Draw the weights; the vocabulary, which is the output, has three tokens more: `<eos>`, the operation, `=`."""
        super().__init__()
        vocabulary = max(symbols, classes) + 3
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(PowerBlock(width, heads) for _ in range(layers))
        self.unembedding = nn.Linear(width, vocabulary, bias=False)
        names = [name for name, module in self.named_modules() if isinstance(module, nn.Linear)]
        self.weight_matrices = [
            Matrix(f"{name}.weight", parts=heads if name.endswith(("query", "key", "value")) else 1)
            for name in names
            if name != "unembedding"
        ]
        self.bias_vectors: list[str] = []
        self.parts = attention_parts(self)
        self.last_layer = "unembedding.weight"

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to logits at `=` over the vocabulary, (B, symbols + 3)."""
        table = self.embedding.weight
        eos, operation, equals = (table[i].expand(len(inputs), -1) for i in (-3, -2, -1))
        tokens = [eos, rows(table, inputs[:, 0]), operation, rows(table, inputs[:, 1]), equals]
        x = torch.stack(tokens, dim=1) + sinusoids(len(tokens), table)
        for block in self.blocks[:-1]:
            x = block(x, x)
        x = self.blocks[-1](x[:, -1:], x)
        return self.unembedding(x[:, 0])

    def tables(self, params: Mapping[str, Tensor]) -> Tables:
        """Return W_E and W_U W_out of one run, W_out being the last block's; the layer norm between is left out."""
        last = params[f"blocks.{len(self.blocks) - 1}.contract.weight"]
        return Tables(params["embedding.weight"], params["unembedding.weight"] @ last)


class PowerBlock(nn.Module):
    """Attention and a feed-forward layer, each followed by a residual addition and a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Advance the last positions x (B, Q, d) of a sequence `context` (B, T, d)."""
        mixed = attend(self.query(x), self.key(context), self.value(context), self.heads, causal=True)
        x = self.attention_norm(x + self.mix(mixed))
        return self.mlp_norm(x + self.contract(torch.relu(self.expand(x))))


def sinusoids(length: int, like: Tensor) -> Tensor:
    """Return the position code (length, d) for tensors (..., d): sin and cos in turn, wavelengths 2 pi to 20000 pi."""
    width = like.shape[-1]
    entry = torch.arange(width, device=like.device)
    # In float64 until the end: the published code computes it in Python's floats.
    angle = torch.arange(length, device=like.device, dtype=torch.float64)[:, None]
    angle = angle / 10000.0 ** ((entry - entry % 2).to(torch.float64) / width)
    return torch.where(entry % 2 == 0, angle.sin(), angle.cos()).to(like.dtype)
