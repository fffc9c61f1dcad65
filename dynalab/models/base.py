"""What a model is to the rest of dynalab: a plain `nn.Module`, and optionally some hints.

A model module holds a configuration dataclass `Config` and `build(config, spec) -> nn.Module`. Importing it imports
no torch. The network sees one run's batch, shape (B, ...); the engine stacks S of them with `torch.func.vmap`.

The hints, all optional, are attributes of the network:

- `weight_matrices: list[Matrix]`, which matrices the weight statistics are taken over (default: the weights of
  every Linear and Conv layer, a convolution reshaped to (out, in * kernel); embeddings and norms left out);
- `bias_vectors: list[str]`, the biases that go with them (default: the biases of the same layers);
- `last_layer: str`, the parameter that counts as the last layer (default: the last of those weights);
- `parts: dict[str, list[str]]`, further parts by name -> their parameters (the queries of all layers): edits may name
  them, and directions of training are told apart by them;
- `stacked_forward(params, inputs)`, the forward pass of S runs at once, where writing it out by hand is faster than
  vmap: `params` maps names to tensors of shape (S, ...), `inputs` is (S, B, ...), the result is (S, B, ...);
- `stacked_vjp(params, inputs)`, beside it, for updates: the same outputs, to the bit, and a function that takes a
  gradient by them, (S, B, ...), to those by the weights, name -> (S, ...), where autograd costs more than the products
  (elsewhere None);

- `tables(params) -> Tables`, of a network on pairs of symbols: what the probe `fourier` looks at, from the weights of
  one run, name -> tensor;

- `permutations: list[Permutation]`, sets of hidden units whose order does not matter to the outputs, and every place of
  them in its tensors: what weights of two networks are matched by;

- `unit`, a decorator of this module rather than an attribute: an elementwise nonlinearity that is composed of torch's
  operations, as `x * x` is, counts as a unit where it is marked; torch's own are known (`dynalab.models.watch`);

- `run_by_run: bool`, true where `stacked_forward` is a loop over runs on a CPU: its bits are then those of one run
  alone, and a lone run needs no companion.

Parameters are trained as torch trains them: those with `requires_grad=False` stay as they are, so do those without a
gradient, one that modules share is one. Whatever else a run draws or changes has to be a buffer, stored by torch or not
(`persistent=False`): each run has its own, and checkpoints keep it. Plain attributes are the same for all runs, and no
checkpoint has them.

A model's `Config` may have `least_batch(shape) -> int`, the least number of examples that a training batch needs (2
where batch statistics are taken over examples alone), for images of a shape (channels, height, width) or None; a
command whose batches are smaller is then refused before anything is trained.

A network whose training pass differs from its evaluation pass says `takes_context = True`; its `stacked_forward` then
has a third argument, a `Context`. Without `stacked_forward` a network in training mode runs under vmap with stacked
buffers (a plain BatchNorm works); torch's own Dropout does not, since its masks would depend on the place in the
stack: draw them from the context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Context:
    """How a forward pass is meant.

    Attributes:
        training: True in an update, False in evaluation.
        buffers: Name -> stacked buffer, shape (S, ...); a training pass updates them in place.
        noise: Name -> uniform numbers in [0, 1), shape (S, *shape), for every name of the network's
            `noise_shapes(batch_shape)`; each run's come from its own `noise` stream. Empty in evaluation.
    """

    training: bool
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Mapping[str, Tensor] = field(default_factory=dict)


def unit(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Mark an elementwise nonlinearity: what it is given counts as the argument of units; its values are the same."""
    from torch.overrides import wrap_torch_function

    def relevant(x: Any) -> tuple[Any]:
        return (x,)

    marked: Any = wrap_torch_function(relevant)(cast("Any", function))
    marked.is_unit = True
    return cast("Callable[[Tensor], Tensor]", marked)


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


@dataclass(frozen=True)
class Permutation:
    """Hidden units that may change places: with the same order in all of these the outputs stay as they are.

    Attributes:
        size: How many they are.
        places: Where they are: name of a parameter or buffer, its axis, and the first of them along it.
    """

    size: int
    places: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Tables:
    """What the symbols and the classes of a network on pairs are to it, in one run.

    Attributes:
        symbols: The embedding, (symbols, d): a row for a symbol; where each place has one, both side by side. Further
            rows (of a token `=`) may follow.
        classes: The map from the last hidden neurons to the outputs, (classes, h): a row for a class.
        neurons: Whether a column of `symbols` is what a hidden neuron makes of every symbol, as in a network without
            an embedding.
    """

    symbols: Tensor
    classes: Tensor
    neurons: bool = False


@dataclass(frozen=True)
class Chain:
    """A network that is linear layers one behind the other, with an activation between them.

    Attributes:
        activation: Its name.
        layers: The names of each layer's weight, (out, in), and bias, None where it has none.
        tables: The names of two tables (n, d) that stand before it: the activation of the sum of an example's two rows
            goes into the first layer. Or the name of one weight (d, 2 n), a layer on two one-hot vectors side by side,
            whose columns are the rows of both. Empty where examples go into the first layer.
        tables_bias: The name of what is added to that sum, (d,); None where nothing is.
        head: What the last layer's outputs become: themselves (`linear`), their product, which is then the only output
            (`product`), or each what the activation makes of it (`activated`).
    """

    activation: str
    layers: Sequence[tuple[str, str | None]]
    tables: Sequence[str] = ()
    tables_bias: str | None = None
    head: str = "linear"
