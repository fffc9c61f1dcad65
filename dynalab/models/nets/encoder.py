"""A pre-norm transformer encoder that is read at chosen places of a sequence.

What the places do not need is not computed: the last block has them alone as queries, and the output head runs over
them alone (of 32 tokens 5 are read: a third of all work saved with two blocks).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynalab.models.base import Context, Matrix
from dynalab.models.nets.attention import attend, attention_parts
from dynalab.models.nets.gather import rows

if TYPE_CHECKING:
    from dynalab.models.encoder import Config

NOTHING = Context(training=False)


class Encoder(nn.Module):
    """Token and position embeddings, blocks, a layer norm and the output head.

    The encoder of BERT (Devlin et al. 2019, arXiv 1810.04805) with the layer norms before attention and MLP and a last
    one before the head (Xiong et al. 2020, arXiv 2002.04745). Deviations from BERT: no segment embeddings, no further
    layer between encoder and head, no bias of the keys (it cancels in the softmax), no dropout of attention weights.

    There is no `stacked_forward`: under vmap, with one thread, a run's bits depended neither on the number of runs nor
    on its place at any size tried, odd ones included, and a loop over the runs was no faster (B 32, L 32, d 64, two
    blocks, forward and backward, ms a step and seed: vmap 8.7 to 9.5, loop 9.0 to 10.2; at half the sizes and ten
    runs 2.4 and 4.4).

    Weight matrices are those of Hu et al. 2023 for BERT: keys, queries and values whole, the attention's output,
    both layers of the MLP; biases the MLP's two. Embeddings, norms and head are left out.
    """

    takes_context = True

    def __init__(self, symbols: int, classes: int, length: int, config: Config) -> None:
        """Draw the weights: N(0, 0.02^2 768 / width), which at BERT's width is BERT's 0.02; biases 0.

        A head that is tied has as many classes as there are symbols; `length` is L, the tokens of a sequence.
        """
        super().__init__()
        self.length, self.dropout, width = length, config.dropout, config.width
        self.tokens = nn.Embedding(symbols, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_width) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = None if config.tied else nn.Linear(width, classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02 * math.sqrt(768 / width))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        linear = [f"blocks.{i}.{name}" for i in range(config.layers) for name in Block.LINEAR]
        self.weight_matrices = [Matrix(f"{name}.weight") for name in linear]
        self.bias_vectors = [f"{name}.bias" for name in linear if name.endswith(("expand", "contract"))]
        self.parts = attention_parts(self)
        self.last_layer = "tokens.weight" if config.tied else "head.weight"

    def forward(self, inputs: Tensor, context: Context = NOTHING) -> Tensor:
        """Map inputs (B, L + M), L tokens and then M places, to outputs at these places, (B, M, classes).

        The context's noise, where there is some, is what `noise_shapes` asks for, of one run.
        """
        batch = len(inputs)
        tokens, places = inputs[:, : self.length], inputs[:, self.length :]
        # Rows of the sequences laid end to end.
        chosen = (places + self.length * torch.arange(batch, device=inputs.device)[:, None]).flatten()
        x = rows(self.tokens.weight, tokens.flatten()).view(batch, self.length, -1) + self.positions.weight
        x = self._drop(x, context, "embedding")
        last = len(self.blocks) - 1
        for index, block in enumerate(cast("list[Block]", self.blocks)):
            y = block.attention_norm(x)
            queries = y
            if index == last:
                x, queries = (rows(z.flatten(0, 1), chosen).view(batch, places.shape[1], -1) for z in (x, y))
            x = x + self._drop(block.attend(queries, y), context, f"attention_{index}")
            x = x + self._drop(block.think(block.mlp_norm(x)), context, f"mlp_{index}")
        table = self.tokens.weight if self.head is None else self.head.weight
        return functional.linear(self.norm(x), table, self.bias)

    def _drop(self, x: Tensor, context: Context, name: str) -> Tensor:
        """Drop entries where the context has noise, and scale the others up."""
        noise = context.noise.get(name)
        return x if noise is None else x * ((noise >= self.dropout) / (1 - self.dropout)).to(x.dtype)

    def noise_shapes(self, batch_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the uniform numbers that one run's update needs for inputs (B, L + M)."""
        if not self.dropout:
            return {}
        batch, rest = batch_shape
        width, last = self.positions.embedding_dim, len(self.blocks) - 1
        shapes: dict[str, tuple[int, ...]] = {"embedding": (batch, self.length, width)}
        for index in range(len(self.blocks)):
            length = rest - self.length if index == last else self.length
            shapes |= {f"{part}_{index}": (batch, length, width) for part in ("attention", "mlp")}
        return shapes


class Block(nn.Module):
    """The layers of one block; the residual additions are the encoder's."""

    LINEAR = ("query", "key", "value", "mix", "expand", "contract")

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)

    def attend(self, asking: Tensor, sequence: Tensor) -> Tensor:
        """Let places (B, Q, d) look at a sequence (B, L, d); shape (B, Q, d)."""
        keys, values = self.key(sequence), self.value(sequence)
        return self.mix(attend(self.query(asking), keys, values, self.heads, causal=False))

    def think(self, x: Tensor) -> Tensor:
        """Apply the MLP to every place on its own; shape (B, Q, d)."""
        return self.contract(functional.gelu(self.expand(x)))
