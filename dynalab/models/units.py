"""The nonlinear units of a network: what goes into them, and how near to an input they change its sign.

Units are seen from outside: while a network does its forward pass, the arguments of torch's elementwise nonlinearities
(`UNITS`) are looked at, and those of functions that are marked with `dynalab.models.base.unit`. So a network needs
no hooks, and a unit counts where it is used: after normalisation, at every place of a convolution. Outputs are no
units, nor is what depends on no input (a code of positions).

How far from x a unit changes sign, to first order, takes the derivatives of its argument z along P directions v_p:
|z| / max_p |J v_p|. They come from one pass over x and x + h v_p in which every unit is replaced by its tangent at x.
A network that is piecewise linear by its units is then affine, and differences over h are exact whatever h; of what
else is nonlinear in it (maximum pooling, a layer norm, a softmax) they are quotients with h = .01. A linear layer that
reads the inputs themselves does one product of the points and one of the offsets in the place of one of their sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from dynalab.models.base import Context

Function = Callable[..., Tensor]
# From a unit's place in the pass, its function, its argument, and whether its value goes there, comes the value.
Look = Callable[[int, Function, Tensor, bool], Tensor]
# What is seen of a layer, (B, ...) each, and what makes its value.
Seen = tuple[tuple[Tensor, ...], Callable[[], Tensor]]
Work = Callable[[nn.Module], None]
See = Callable[[Function, Tensor, "_Layer", bool], Seen]

_RELU = (torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_)
# Nonlinearities of which the sign of the argument says on which side of its middle a unit is -> the same out of place.
UNITS: dict[Any, Function] = {
    **dict.fromkeys(_RELU, torch.relu),
    **dict.fromkeys((torch.tanh, torch.tanh_, F.tanh, Tensor.tanh, Tensor.tanh_), torch.tanh),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, F.sigmoid, Tensor.sigmoid), torch.sigmoid),
    **dict.fromkeys((torch.sin, torch.sin_, Tensor.sin, Tensor.sin_), torch.sin),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), F.leaky_relu),
    **dict.fromkeys((F.elu, F.elu_), F.elu),
    **dict.fromkeys((torch.celu, torch.celu_, F.celu), F.celu),
    **dict.fromkeys((torch.selu, torch.selu_, F.selu), F.selu),
    **{f: f for f in (F.gelu, F.silu, F.mish, F.softplus, F.prelu, torch.prelu, F.relu6, F.hardswish)},
}
# How far the points of a difference are from x.
STEP = 1e-2
# Entries of the widest layer that go through a network at once: two megabytes, which a core's own cache holds.
ENTRIES = 1 << 19


@dataclass(frozen=True)
class _Layer:
    """Where a unit's argument has the examples of a pass.

    Attributes:
        axis: Their axis.
        each: How many entries of it an example has.
        units: How many units an example has; 0 of what depends on no example.
    """

    axis: int = 0
    each: int = 1
    units: int = 0

    @classmethod
    def of(cls, two: torch.Size, three: torch.Size) -> _Layer:
        """Return it from the shapes that two and three examples give."""
        grown = [axis for axis, (n, m) in enumerate(zip(two, three, strict=True)) if n != m]
        if len(grown) != 1 or two[grown[0]] % 2:
            return cls()
        each = two[grown[0]] // 2
        return cls(grown[0], each, two.numel() // 2)

    def apart(self, argument: Tensor, offsets: int) -> Tensor:
        """Return a view (offsets, B, ...) of the argument of a pass over B points with each of some offsets."""
        if not self.axis and argument.is_contiguous():
            return argument.view(offsets, -1, self.units)
        points = argument.shape[self.axis] // (offsets * self.each)
        return argument.unflatten(self.axis, (offsets, points, self.each)).movedim(
            (self.axis, self.axis + 1), (0, 1)
        )

    def together(self, spread: Tensor, like: Tensor) -> Tensor:
        """Return what `apart` makes of a tensor to the shape that it had."""
        if not self.axis and like.is_contiguous():
            return spread.view(like.shape)
        return spread.movedim((0, 1), (self.axis, self.axis + 1)).reshape(like.shape)


class Units:
    """The units of a network.

    Attributes:
        sizes: Number of units of every layer, in the order of the forward pass; empty where there are none.
    """

    def __init__(self, network: nn.Module, state: Mapping[str, Tensor], point: Tensor) -> None:
        """Find the units, by two passes.

        Args:
            network: A network whose examples are on the first axis of its inputs; its own weights are not used.
            state: Name -> a run's weights and buffers.
            point: An input.
        """
        self._network, self._holder = network, _Holder(network)
        # The plain pass of a network that has one for several runs takes inputs alone.
        takes_context = getattr(network, "takes_context", False) and not hasattr(network, "stacked_forward")
        self._context = (Context(training=False),) if takes_context else ()
        shapes: list[list[torch.Size]] = [[], []]

        def pass_over(network: nn.Module) -> None:
            for n, own in zip((2, 3), shapes, strict=True):

                def look(_: int, function: Function, argument: Tensor, __: bool, own: Any = own) -> Tensor:
                    own.append(argument.shape)
                    return function(argument)

                with _Watch(look):
                    network(point.expand(n, *point.shape).contiguous(), *self._context)

        self._work(state, pass_over)
        self._layers = [_Layer.of(two, three) for two, three in zip(*shapes, strict=True)]
        self.sizes = tuple(layer.units for layer in self._layers if layer.units)

    def radii(self, state: Mapping[str, Tensor], points: Tensor, directions: Tensor) -> Tensor:
        """Return how far from each point, to first order, a neighbourhood reaches as it meets each unit's change.

        Args:
            state: Name -> a run's weights and buffers.
            points: Shape (B, ...).
            directions: The neighbourhood's axes, orthonormal, shape (P, ...).

        Returns:
            Shape (B, units), layer after layer. Infinite where nothing moves the argument, NaN where that is not a
            number.
        """
        offsets = torch.cat([torch.zeros_like(directions[:1]), STEP * directions])

        def see(function: Function, argument: Tensor, layer: _Layer, in_place: bool) -> Seen:
            spread = layer.apart(argument, len(offsets))
            here = spread[0].clone()
            # In the order of memory that the argument has: in another, reductions of maps take ten times as long.
            up = torch.amax(spread, 0, out=torch.empty_like(here))
            down = torch.amin(spread, 0, out=torch.empty_like(here))

            def value() -> Tensor:
                # A view of the argument may be written to where that is written to anyhow.
                tangent = _tangent(function, here, spread, spread if in_place else None)
                return argument if in_place else layer.together(tangent, argument)

            return (here, up, down), value

        here, up, down = self._seen(state, points, offsets, see)
        moved = torch.maximum(up.sub_(here), torch.sub(here, down, out=down), out=up)
        return here.abs_().mul_(STEP).div_(moved).masked_fill_(moved == 0, torch.inf)

    def cut(self, state: Mapping[str, Tensor], points: Tensor, directions: Tensor, radius: float) -> Tensor:
        """Return whose argument has not one sign at the 2 P vertices x +- r v_p, (B, units), bool.

        As published: 0 is a sign of its own, and what lies between the vertices is not seen. Arguments as of `radii`.
        """
        offsets = radius * torch.cat([directions, -directions])

        def see(function: Function, argument: Tensor, layer: _Layer, _: bool) -> Seen:
            spread = layer.apart(argument, len(offsets))
            return (spread.amax(0).sign() != spread.amin(0).sign(),), lambda: function(argument)

        (found,) = self._seen(state, points, offsets, see)
        return found

    def pieces(self, points: Tensor, passes: int) -> Sequence[Tensor]:
        """Return points in pieces that go through the network at once, each so many times."""
        most = max(ENTRIES // (passes * max(self.sizes, default=1)), 1)
        return points.tensor_split(-(-len(points) // most))

    def _seen(
        self, state: Mapping[str, Tensor], points: Tensor, offsets: Tensor, see: See
    ) -> tuple[Tensor, ...]:
        """Return what is seen of all layers, (B, units) each, some points at a time, each with all offsets."""
        last = max((place for place, layer in enumerate(self._layers) if layer.units), default=-1)
        pieces: list[tuple[Tensor, ...]] = []

        def passes_over(network: nn.Module) -> None:
            for some in self.pieces(points, len(offsets)):
                layers: list[tuple[Tensor, ...]] = []

                def look(
                    place: int, function: Function, argument: Tensor, in_place: bool, layers: Any = layers
                ) -> Tensor:
                    layer = self._layers[place]
                    if not layer.units:
                        return function(argument)
                    seen, value = see(function, argument, layer, in_place)
                    layers.append([part.flatten(1) for part in seen])
                    if place == last:
                        raise _Done
                    return value()

                spread = _Spread(some, offsets)
                with contextlib.suppress(_Done), _Watch(look, spread):
                    network(spread.inputs, *self._context)
                pieces.append(tuple(torch.cat(parts, 1) for parts in zip(*layers, strict=True)))

        self._work(state, passes_over)
        return tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces, strict=True))

    def _work(self, state: Mapping[str, Tensor], work: Work) -> None:
        """Do some work with the network in evaluation mode, with a run's weights, which are put in once."""
        self._network.train(False)
        with torch.no_grad():
            functional_call(self._holder, {f"network.{name}": own for name, own in state.items()}, (work,))


class _Done(Exception):
    """Every unit of a pass was seen: nothing is made of its outputs."""


class _Holder(nn.Module):
    """A network with some weights, for any work; putting them in takes as long as a pass of a small network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, work: Work) -> None:
        """Do the work."""
        work(self.network)


class _Spread:
    """Points (B, ...) with each of some offsets (n, ...), the points of an offset together.

    Attributes:
        inputs: Their sums, (n B, ...).
    """

    def __init__(self, points: Tensor, offsets: Tensor) -> None:
        self._points, self._offsets = points.flatten(1), offsets.flatten(1)
        shape = (len(offsets), *points.shape)
        self.inputs = points.new_empty(len(offsets) * len(points), *points.shape[1:])
        torch.add(points, offsets[:, None], out=self.inputs.view(shape))
        self._version = self.inputs._version

    def linear(self, argument: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """Return what a linear layer makes of the inputs; None where its argument is anything else."""
        inputs = self.inputs
        rows = (len(inputs), self._points.shape[1])
        is_own = argument is inputs or (argument._base is inputs and argument.is_contiguous())
        if not is_own or argument.shape != rows or inputs._version != self._version:
            return None
        # A product's rounding may depend on how many rows it has, a point's not on the others.
        of_points, of_offsets = linear(self._points, weight, bias), linear(self._offsets, weight)
        return torch.add(of_points, of_offsets[:, None]).flatten(0, 1)


class _Watch(TorchFunctionMode):
    """Hands every unit over; what comes back is its value."""

    def __init__(self, look: Look, spread: _Spread | None = None) -> None:
        super().__init__()
        self._look, self._spread, self._seen = look, spread, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is linear and self._spread is not None:
            found = self._spread.linear(
                *args, **{"argument" if n == "input" else n: x for n, x in kwargs.items()}
            )
            if found is not None:
                return found
        function = func if getattr(func, "is_unit", False) else UNITS.get(func)
        if function is None:
            return func(*args, **kwargs)
        argument, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        in_place = kwargs.pop("inplace", False) or getattr(func, "__name__", "").endswith("_")
        place, self._seen = self._seen, self._seen + 1
        own = _Given(function, rest, kwargs) if rest or kwargs else function
        value = self._look(place, own, argument, in_place)
        return argument.copy_(value) if in_place and value is not argument else value


@dataclass(frozen=True)
class _Given:
    """A function of its first argument."""

    function: Function
    rest: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self, argument: Tensor) -> Tensor:
        return self.function(argument, *self.rest, **self.kwargs)


def _tangent(function: Function, here: Tensor, spread: Tensor, out: Tensor | None) -> Tensor:
    """Return the tangent of an elementwise function at `here`, (B, ...), where an argument is `spread`, (n, B, ...)."""
    if function is torch.relu:
        return torch.mul(spread, torch.gt(here, 0, out=torch.empty_like(here)), out=out)
    with torch.enable_grad():
        leaf = here.detach().clone().requires_grad_()
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), [leaf])
    return torch.addcmul(value.detach() - slope * here, spread, slope, out=out)
