"""The nonlinear units of a network: what goes into them, and how near to an input they change its sign.

Units are seen from outside: while a network does its forward pass, the arguments of torch's elementwise nonlinearities
(`UNITS`) are looked at, and those of functions that are marked with `dynalab.models.base.unit`. So a network needs
no hooks, and a unit counts where it is used: after normalisation, at every place of a convolution. Outputs are no
units, nor is what depends on no input (a code of positions).

How far from x a unit changes sign, to first order, takes the derivatives of its argument z along P directions v_p:
|z| / max_p |J v_p|. They come from one pass over x and x + h v_p in which every unit is replaced by its tangent at x.
A network that is piecewise linear by its units is then affine, and differences over h are exact whatever h; of what
else is nonlinear in it (maximum pooling, a layer norm, a softmax) they are quotients with h = .01.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dynalab.models.base import Context

Function = Callable[..., Tensor]
# From a unit's place in the pass, its function, its argument, and whether its value goes there, comes the value.
Look = Callable[[int, Function, Tensor, bool], Tensor]

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
# Entries of the widest layer that go through a network at once: a megabyte, which a core's own cache holds.
ENTRIES = 1 << 18


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
        points = argument.shape[self.axis] // (offsets * self.each)
        return argument.unflatten(self.axis, (offsets, points, self.each)).movedim(
            (self.axis, self.axis + 1), (0, 1)
        )

    def together(self, spread: Tensor, like: Tensor) -> Tensor:
        """Return what `apart` makes of a tensor to the shape that it had."""
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
        self._network = network
        # The plain pass of a network that has one for several runs takes inputs alone.
        takes_context = getattr(network, "takes_context", False) and not hasattr(network, "stacked_forward")
        self._context = (Context(training=False),) if takes_context else ()
        shapes: list[list[torch.Size]] = [[], []]
        for n, own in zip((2, 3), shapes, strict=True):

            def look(_: int, function: Function, argument: Tensor, __: bool, own: Any = own) -> Tensor:
                own.append(argument.shape)
                return function(argument)

            self._forward(state, point.expand(n, *point.shape).contiguous(), look)
        self._layers = [_Layer.of(two, three) for two, three in zip(*shapes, strict=True)]
        self.sizes = tuple(layer.units for layer in self._layers if layer.units)

    def radii(self, state: Mapping[str, Tensor], points: Tensor, directions: Tensor) -> list[Tensor]:
        """Return how far from each point, to first order, a neighbourhood reaches as it meets each unit's change.

        Args:
            state: Name -> a run's weights and buffers.
            points: Shape (B, ...).
            directions: The neighbourhood's axes, orthonormal, shape (P, ...).

        Returns:
            A tensor (B, units) a layer. Infinite where nothing moves the argument, NaN where that is not a number.
        """
        offsets = torch.cat([torch.zeros_like(directions[:1]), STEP * directions])

        def piece(inputs: Tensor) -> list[Tensor]:
            found = []

            def look(place: int, function: Function, argument: Tensor, in_place: bool) -> Tensor:
                layer = self._layers[place]
                if not layer.units:
                    return function(argument)
                spread = layer.apart(argument, len(offsets))
                here, up, down = spread[0], spread.amax(0), spread.amin(0)
                moved = torch.maximum(up.sub_(here), torch.sub(here, down, out=down), out=up).div_(STEP)
                found.append(here.abs().div_(moved).masked_fill_(moved == 0, torch.inf).flatten(1))
                # A view of the argument may be written to where that is written to anyhow.
                tangent = _tangent(function, here, spread, spread if in_place else None)
                return argument if in_place else layer.together(tangent, argument)

            self._forward(state, inputs, look)
            return found

        return self._in_pieces(points, offsets, piece)

    def cut(
        self, state: Mapping[str, Tensor], points: Tensor, directions: Tensor, radius: float
    ) -> list[Tensor]:
        """Return whose argument has not one sign at the 2 P vertices x +- r v_p, (B, units) a layer, bool.

        As published: 0 is a sign of its own, and what lies between the vertices is not seen. Arguments as of `radii`.
        """
        offsets = radius * torch.cat([directions, -directions])

        def piece(inputs: Tensor) -> list[Tensor]:
            found = []

            def look(place: int, function: Function, argument: Tensor, _: bool) -> Tensor:
                layer = self._layers[place]
                if layer.units:
                    spread = layer.apart(argument, len(offsets))
                    found.append((spread.amax(0).sign() != spread.amin(0).sign()).flatten(1))
                return function(argument)

            self._forward(state, inputs, look)
            return found

        return self._in_pieces(points, offsets, piece)

    def _in_pieces(
        self, points: Tensor, offsets: Tensor, piece: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Return what is found of every layer, (B, units), some points at a time, each with all offsets."""
        most = max(ENTRIES // (len(offsets) * max(self.sizes, default=1)), 1)
        pieces = -(-len(points) // most)
        rows = [piece((some + offsets[:, None]).flatten(0, 1)) for some in points.tensor_split(pieces)]
        return [torch.cat(layer) if pieces > 1 else layer[0] for layer in zip(*rows, strict=True)]

    def _forward(self, state: Mapping[str, Tensor], inputs: Tensor, look: Look) -> None:
        with torch.no_grad(), _Watch(look):
            functional_call(self._network.train(False), dict(state), (inputs, *self._context))


class _Watch(TorchFunctionMode):
    """Hands every unit over; what comes back is its value."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look, self._seen = look, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
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
        return torch.mul(spread, (here > 0).to(spread.dtype), out=out)
    with torch.enable_grad():
        leaf = here.detach().clone().requires_grad_()
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), [leaf])
    return torch.addcmul(value.detach() - slope * here, spread, slope, out=out)
