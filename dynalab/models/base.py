"""What a model is to the rest of dynalab: a plain `nn.Module`, and optionally three hints.

A model module holds a configuration dataclass `Config` and `build(config, spec) -> nn.Module`. Importing it imports
no torch. The network sees one run's batch, shape (B, ...); the engine stacks S of them with `torch.func.vmap`.

The hints, all optional, are attributes of the network:

- `weight_matrices: list[Matrix]`, which matrices the weight statistics are taken over (default: the weights of
  every Linear and Conv layer, a convolution reshaped to (out, in * kernel); embeddings and norms left out);
- `bias_vectors: list[str]`, the biases that go with them (default: the biases of the same layers);
- `last_layer: str`, the parameter that counts as the last layer (default: the last of those weights);
- `stacked_forward(params, inputs)`, the forward pass of S runs at once, where writing it out by hand is faster than
  vmap: `params` maps names to tensors of shape (S, ...), `inputs` is (S, B, ...), the result is (S, B, ...).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """One matrix, or several of equal shape, taken from a parameter.

    Attributes:
        parameter: Name as in `named_parameters()`.
        parts: The parameter, seen as (out, in), is cut into this many blocks of rows, a matrix each (attention
            heads); 1 leaves it whole.
    """

    parameter: str
    parts: int = 1
