"""A multilayer perceptron on rows of numbers: the plain module, and the same written out for S runs at once.

The stack keeps activations as (S, width, B). Every product then has a run's weights on its left as they are
stored, and every gradient of a weight comes out in the order of the weight; with (S, B, width) it comes out
transposed, and the optimizer walks through it slowly. Measured forward, backward and SGD for 30-100-1, B 32, S 10,
one thread, per step and run: 0.037 ms; as (S, B, width) 0.041, a loop over the runs 0.104. At 784-800-10, B 256,
S 10: 5.6, 6.4, 5.7.

A run's bits do not depend on S (from 2 on) nor on its place. Batched products keep that for every shape that was
tried, one output and one example included. Elementwise functions keep it only where torch takes the same road for
the last few entries of a tensor as for the others: tanh, sin, erf, exp, expm1 do; sigmoid, silu, elu, softplus,
logaddexp and (in float64) gelu do not, and are left out here or composed from those that do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynalab.models.base import Chain, Context, Permutation, unit
from dynalab.models.nets.norms import BatchStatistics, batch_normed, vectors_of

# Takes a gradient by outputs (S, B, C) to those by weights, name -> (S, ...).
StackedVjp = Callable[[Tensor], dict[str, Tensor]]


@unit
def square(x: Tensor) -> Tensor:
    """Return x * x; the backward pass of a product needs one temporary tensor less than that of a power."""
    return x * x


@unit
def cube(x: Tensor) -> Tensor:
    """Return x * x * x."""
    return x * x * x


@unit
def gelu(x: Tensor) -> Tensor:
    """Return x Phi(x), the exact form, through erf."""
    return 0.5 * x * (1.0 + torch.erf(x * math.sqrt(0.5)))


# The first two overwrite their argument, which no other function needs: a product's gradient is made of its factors.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "gelu": gelu,
    "sin": torch.sin,
    "square": square,
    "cube": cube,
}


def gelu_derivative(x: Tensor) -> Tensor:
    """Return Phi(x) + x phi(x)."""
    density = torch.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5))) + x * density


# Named with its overload: torch otherwise tries the one after the other at every call.
_relu_back = torch.ops.aten.threshold_backward.grad_input
# Take a gradient by the outputs of an activation to one by its arguments, given these (of the two that overwrite them
# its outputs); the gradient may be overwritten.
BACK: dict[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    torch.relu_: lambda gradient, y: _relu_back(gradient, y, 0, grad_input=gradient),
    torch.tanh_: torch.ops.aten.tanh_backward,
    gelu: lambda gradient, x: gradient * gelu_derivative(x),
    torch.sin: lambda gradient, x: gradient * torch.cos(x),
    square: lambda gradient, x: gradient * x * 2.0,
    cube: lambda gradient, x: gradient * x * x * 3.0,
}


def hidden_permutations(layers: Sequence[nn.Module], norms: Sequence[nn.Module] = ()) -> list[Permutation]:
    """Return the hidden units of linear layers `layers`, normalised by `norms` or not at all, by layer."""
    found = []
    for i, layer in enumerate(layers[:-1]):
        assert isinstance(layer, nn.Linear)
        own = {f"layers.{i}": layer, **({f"norms.{i}": norms[i]} if len(norms) else {})}
        places = [(f"{name}.{part}", 0, 0) for name, module in own.items() for part in vectors_of(module)]
        found.append(Permutation(layer.out_features, (*places, (f"layers.{i + 1}.weight", 1, 0))))
    return found


def sign_(weight: Tensor) -> Tensor:
    """Fill a weight (out, in) with +-1 / sqrt(in), a fair coin an entry."""
    with torch.no_grad():
        return weight.bernoulli_(0.5).mul_(2.0).sub_(1.0).mul_(weight.shape[1] ** -0.5)


def kaiming_(weight: Tensor) -> Tensor:
    """Fill a weight (out, in) from N(0, 2 / in)."""
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


# What fills a layer's weight; its bias is then 0. None: as torch fills a Linear, bias included.
INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "torch": None,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_normal": kaiming_,
    "sign": sign_,
}


class MLP(nn.Module):
    """output = head(act(... act(first(x)))), each a linear layer; hidden ones may be normalised before `act`.

    Attributes:
        layers: The linear layers, the head last; `layers.0.weight` is (hidden, inputs).
        norms: Normalisation of each hidden layer over the batch, with scale and shift; none where there is none.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: Sequence[int],
        activation: str = "relu",
        bias: bool = True,
        head_bias: bool = True,
        init: str = "torch",
        gain: float = 1.0,
        scale: float = 1.0,
        norm: str = "none",
    ) -> None:
        """Draw the weights, as the key `init` of `INITS` says.

        Args:
            inputs: Numbers in one example.
            classes: Number of outputs C.
            hidden: Widths of the hidden layers; none makes a linear model.
            activation: A key of `ACTIVATIONS`.
            bias: Whether hidden layers have biases.
            head_bias: Whether the head has them.
            init: A key of `INITS`.
            gain: Factor on the weights of the hidden layers.
            scale: Factor on every weight and bias of these layers.
            norm: `none` or `batch`.
        """
        super().__init__()
        widths = [inputs, *hidden, classes]
        last = len(hidden)
        self.layers = nn.ModuleList(
            nn.Linear(n, m, bias=head_bias if i == last else bias)
            for i, (n, m) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(BatchStatistics(n) for n in hidden if norm == "batch")
        # Batch statistics are those of the batch in training alone.
        self.takes_context = bool(self.norms)
        self.permutations = hidden_permutations([*self.layers], [*self.norms])
        self.activation = ACTIVATIONS[activation]
        fill = INITS[init]
        with torch.no_grad():
            for i, layer in enumerate(self.layers):
                assert isinstance(layer, nn.Linear)
                if fill is not None:
                    fill(layer.weight)
                    if layer.bias is not None:
                        layer.bias.zero_()
                layer.weight.mul_(scale if i == last else gain * scale)
                if layer.bias is not None:
                    layer.bias.mul_(scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map examples (B, ...) to outputs (B, C)."""
        if self.norms:
            own = {name: x[None] for name, x in (*self.named_parameters(), *self.named_buffers())}
            return self.stacked_forward(own, inputs[None], Context(self.training, own))[0]
        x = inputs.flatten(1)
        for i, layer in enumerate(self.layers):
            x = layer(self.activation(x) if i else x)
        return x

    def stacked_forward(
        self, params: Mapping[str, Tensor], inputs: Tensor, context: Context | None = None
    ) -> Tensor:
        """Map the examples of S runs, (S, B, ...), to outputs (S, B, C)."""
        x = inputs.flatten(2).mT
        for i in range(len(self.layers)):
            weight, bias = params[f"layers.{i}.weight"], params.get(f"layers.{i}.bias")
            x = x if context is None or not i else self._normed(f"norms.{i - 1}", x, params, context)
            x = self.activation(x) if i else x
            x = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias[..., None], weight, x)
        return x.mT

    def _normed(self, name: str, x: Tensor, params: Mapping[str, Tensor], context: Context) -> Tensor:
        """Normalise what a hidden layer gives, (S, units, B)."""
        scale, shift = (params[f"{name}.{part}"].reshape(-1) for part in ("weight", "bias"))
        # Written to in training, so no copies.
        mean, var = (context.buffers[f"{name}.running_{part}"].view(-1) for part in ("mean", "var"))
        # With the batch last, the units of all runs are channels of one batch normalisation, each reduced apart.
        channels = x.view(1, -1, x.shape[2])
        return batch_normed(channels, mean, var, scale, shift, context.training).view(x.shape)

    def chain(self) -> Chain | None:
        """Return what the network is as a chain of layers; None with normalisation, or an activation of a plug-in's."""
        names = [name for name, own in ACTIVATIONS.items() if own is self.activation]
        if self.norms or not names:
            return None
        layers = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(len(self.layers))]
        known = dict(self.named_parameters())
        return Chain(names[0], [(weight, bias if bias in known else None) for weight, bias in layers])

    def stacked_vjp(self, params: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, StackedVjp] | None:
        """Return `stacked_forward`, and what takes a gradient by its outputs, (S, B, C), to those by the weights.

        None with normalisation, and where a plug-in has put an activation of its own in the place of these.
        """
        back = BACK.get(self.activation)
        if back is None or self.norms:
            return None
        x = arguments = inputs.flatten(2).transpose(1, 2)
        taken = []
        for i in range(len(self.layers)):
            weight, bias = params[f"layers.{i}.weight"], params.get(f"layers.{i}.bias")
            x = self.activation(x) if i else x
            taken.append((weight, bias is not None, arguments, x))
            x = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x)
            arguments = x

        def vjp(gradient: Tensor) -> dict[str, Tensor]:
            found, error = {}, gradient.transpose(1, 2)
            for i, (weight, has_bias, arguments, x) in reversed([*enumerate(taken)]):
                found[f"layers.{i}.weight"] = torch.bmm(error, x.transpose(1, 2))
                if has_bias:
                    found[f"layers.{i}.bias"] = error.sum(2)
                if i:
                    # Of one output there is nothing to sum.
                    back_weight = weight.transpose(1, 2)
                    error = back_weight * error if error.shape[1] == 1 else torch.bmm(back_weight, error)
                    error = back(error, arguments)
            return found

        return x.transpose(1, 2), vjp
