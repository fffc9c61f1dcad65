"""The nonlinear units of a network: what goes into them, and how near to an input they change its sign.

Units are seen from outside: while a network does its forward pass, the arguments of torch's elementwise nonlinearities
(`UNITS`) are looked at, and those of functions that are marked with `dynalab.models.base.unit`. So a network needs
no hooks, and a unit counts where it is used: after normalisation, at every place of a convolution. Outputs are no
units, nor is what depends on no input (a code of positions).

How far from x a unit changes sign, to first order, takes the derivatives of its argument z along P directions v_p:
|z| / max_p |J v_p|. They come from one pass over x and x + h v_p in which every unit is replaced by its tangent at x.
A network that is piecewise linear by its units is then affine, and differences over h are exact whatever h; of what
else is nonlinear in it (maximum pooling, a layer norm, a softmax) they are quotients with h = .01. Points and what
their offsets come to go through linear layers and tangents by themselves, and are added where anything else reads them.
Batch norms are folded into the products before them where nothing else reads those (`dynalab.models.folds`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import batch_norm, linear
from torch.overrides import TorchFunctionMode

from dynalab.models.base import Context
from dynalab.models.folds import PRODUCTS, SUMS, Finder, Folded, State, folded
from dynalab.models.sums import Function, Sums, heaviside, tangent_of

# From a unit's place in the pass and how it is called comes its value.
Look = Callable[[int, "_Call"], Tensor]
# What is seen of a layer, (B, ...) each, and what makes its value.
Seen = tuple[tuple[Tensor, ...], Callable[[], Tensor]]
See = Callable[["_Call", "_Layer"], Seen]
# From what is known of some points' units, (b, units), comes a row for each point.
Reading = Callable[[Tensor], Tensor]

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
# Functions that read no entries of what lies in one piece.
_VIEWS = (Tensor.flatten, torch.flatten, Tensor.view, Tensor.reshape, torch.reshape)
# How far the points of a difference are from x.
STEP = 1e-2
# Entries of the widest layer that go through a network at once: two megabytes, which a core's own cache holds.
ENTRIES = 1 << 19
# Of so many units, in the cache likewise, numbers are read at once.
READ = 1 << 16


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
        lying = _as_it_lies(argument)
        if not self.axis and lying.is_contiguous():
            return lying.view(offsets, -1, self.units)
        points = argument.shape[self.axis] // (offsets * self.each)
        return argument.unflatten(self.axis, (offsets, points, self.each)).movedim(
            (self.axis, self.axis + 1), (0, 1)
        )

    def together(self, spread: Tensor, like: Tensor) -> Tensor:
        """Return what `apart` makes of a tensor to the shape that it had."""
        lying = _as_it_lies(like)
        if not self.axis and lying.is_contiguous():
            spread = spread.view(lying.shape)
            return spread if lying is like else spread.movedim(-1, 1)
        return spread.movedim((0, 1), (self.axis, self.axis + 1)).reshape(like.shape)


class Units:
    """The units of a network.

    Attributes:
        sizes: Number of units of every layer, in the order of the forward pass; empty where there are none.
        folds: The batch norms that are folded into products, by the product's place in the pass.
    """

    def __init__(self, network: nn.Module, state: State, point: Tensor) -> None:
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

        with self._evaluated() as put:
            put(state)
            for n, own in zip((2, 3), shapes, strict=True):

                def look(_: int, call: _Call, own: Any = own) -> Tensor:
                    own.append(call.argument.shape)
                    return call.plain()

                with Finder(state) as finder, _Watch(look):
                    network(point.expand(n, *point.shape).contiguous(), *self._context)

        self.folds = finder.folds()
        self._layers = [_Layer.of(two, three) for two, three in zip(*shapes, strict=True)]
        self.sizes = tuple(layer.units for layer in self._layers if layer.units)

    def radii(
        self, states: Sequence[State], points: Tensor, directions: Tensor, of: Reading | None = None
    ) -> Tensor:
        """Return how far from each point, to first order, a neighbourhood reaches as it meets each unit's change.

        Args:
            states: Those of S runs.
            points: The runs' points, shape (S, B, ...).
            directions: The neighbourhood's axes, orthonormal, shape (P, ...).
            of: What is read off the radii of some points, (b, units), a row for each; None: themselves.

        Returns:
            Shape (S, B, units), layer after layer, or what is read. Infinite where nothing moves the argument, NaN
            where that is not a number.
        """

        def see(call: _Call, layer: _Layer) -> Seen:
            if call.sums is not None:
                here, apart = call.sums.here.clone(), call.sums.offsets
                moved = torch.maximum(apart.amax(0), apart.amin(0).neg_())
                return (here, moved.expand_as(here)), call.tangent
            spread = layer.apart(call.argument, 1 + len(directions))
            here = spread[0].clone()
            # In the order of memory that the argument has: in another, reductions of maps take ten times as long.
            up = torch.amax(spread, 0, out=torch.empty_like(here))
            down = torch.amin(spread, 0, out=torch.empty_like(here))
            moved = torch.maximum(up.sub_(here), torch.sub(here, down, out=down), out=up)

            def value() -> Tensor:
                # A view of the argument may be written to where that is written to anyhow.
                out = spread if call.in_place else None
                if call.function is torch.relu:
                    tangent = torch.mul(spread, heaviside(here), out=out)
                else:
                    at, slope = tangent_of(call.function, here)
                    tangent = torch.addcmul(at - slope * here, spread, slope, out=out)
                return call.argument if call.in_place else layer.together(tangent, call.argument)

            return (here, moved), value

        def reached(here: Tensor, moved: Tensor) -> Tensor:
            found = here.abs().mul_(STEP).div_(moved).masked_fill_(moved == 0, torch.inf)
            return of(found) if of else found

        return self._seen(states, points, STEP * directions, True, see, reached)

    def cut(
        self,
        states: Sequence[State],
        points: Tensor,
        directions: Tensor,
        radius: float,
        of: Reading | None = None,
    ) -> Tensor:
        """Return whose argument has not one sign at the 2 P vertices x +- r v_p, (S, B, units), bool, or what is read.

        As published: 0 is a sign of its own, and what lies between the vertices is not seen. Arguments as of `radii`.
        """
        offsets = radius * torch.cat([directions, -directions])

        def see(call: _Call, layer: _Layer) -> Seen:
            call.fill()
            spread = layer.apart(call.argument, len(offsets))
            return (spread.amax(0).sign() != spread.amin(0).sign(),), call.plain

        return self._seen(states, points, offsets, False, see, of or (lambda found: found))

    def pieces(self, points: Tensor, passes: int) -> Sequence[Tensor]:
        """Return points in pieces that go through the network at once, each so many times."""
        most = max(ENTRIES // (passes * max(self.sizes, default=1)), 1)
        return points.tensor_split(-(-len(points) // most))

    def _seen(
        self,
        states: Sequence[State],
        points: Tensor,
        offsets: Tensor,
        with_points: bool,
        see: See,
        of: Callable[..., Tensor],
    ) -> Tensor:
        """Return what is read off what is seen of all layers, (b, units) each, some of the runs' points at a time.

        A pass is over points with each of the offsets, and over the points themselves if asked for.
        """
        last = max((place for place, layer in enumerate(self._layers) if layer.units), default=-1)
        most = max(READ // max(sum(self.sizes), 1), 1)
        pieces: list[tuple[Tensor, ...]] = []
        found: list[Tensor] = []
        layers: list[list[Tensor]] = []

        def look(place: int, call: _Call) -> Tensor:
            layer = self._layers[place]
            if not layer.units:
                return call.plain()
            seen, value = see(call, layer)
            layers.append([part.flatten(1) for part in seen])
            if place == last:
                raise _Done
            return value()

        def read() -> None:
            found.append(of(*(_joined(parts) for parts in zip(*pieces, strict=True))))
            pieces.clear()

        with self._evaluated() as put:
            for state, own in zip(states, points, strict=True):
                put(state)
                weights = folded(self.folds, state)
                for some in self.pieces(own, with_points + len(offsets)):
                    layers.clear()
                    inputs = Sums.of(some, offsets, [], with_points)
                    with contextlib.suppress(_Done), _Watch(look, inputs.all, weights):
                        self._network(inputs.tensor, *self._context)
                    # Each knows the others; their memory is that of the next pass, and lies in the cache.
                    inputs.all.clear()
                    pieces.append(tuple(_joined(parts, 1) for parts in zip(*layers, strict=True)))
                    # So that what is read is of several runs at once, and no more is held than a pass takes.
                    if sum(len(parts[0]) for parts in pieces) >= most:
                        read()
            if pieces:
                read()
        return _joined(found).unflatten(0, points.shape[:2])

    @contextlib.contextmanager
    def _evaluated(self) -> Iterator[Callable[[State], None]]:
        """Put the network in evaluation mode, and hand out what puts a run's weights and buffers in.

        Its own come back at the end. `torch.func.functional_call` takes as long as a pass of a small network.
        """
        names: dict[Tensor, str] = {}
        places: list[tuple[dict[str, Any], str, Tensor, str]] = []
        for prefix, module in self._network.named_modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        # What modules share has the name of its first place.
                        first = names.setdefault(tensor, f"{prefix}.{name}" if prefix else name)
                        places.append((tensors, name, tensor, first))

        def put(state: State) -> None:
            for tensors, name, tensor, first in places:
                tensors[name] = state.get(first, tensor)

        self._network.train(False)
        try:
            with torch.no_grad():
                yield put
        finally:
            put({})


class _Done(Exception):
    """Every unit of a pass was seen: nothing is made of its outputs."""


@dataclass(frozen=True)
class _Call:
    """How a unit is called.

    Attributes:
        function: The function, out of place.
        argument: Its argument.
        in_place: Whether its value goes there.
        sums: What the argument is the sums of, where they are not made.
    """

    function: Function
    argument: Tensor
    in_place: bool
    sums: Sums | None

    def fill(self) -> None:
        """Make what is not made of the argument."""
        if self.sums is not None:
            self.sums.fill()

    def plain(self) -> Tensor:
        """Return the function's value."""
        self.fill()
        return self.function(self.argument)

    def tangent(self) -> Tensor:
        """Return that of the function's tangent at the points whose sums with offsets the argument is."""
        assert self.sums is not None
        return self.sums.tangent(self.function, self.in_place)


class _Watch(TorchFunctionMode):
    """Hands every unit over; what comes back is its value. Products get the weights that are folded for them."""

    def __init__(
        self, look: Look, sums: Sequence[Sums] = (), weights: Mapping[int, Folded] | None = None
    ) -> None:
        super().__init__()
        self._look, self._sums, self._weights = look, sums, weights or {}
        self._seen = self._products = 0
        # The value of a product that has its batch norm in it, until that is called; and one that a sum may overwrite.
        self._folded: Tensor | None = None
        self._in_sum: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        function = func if getattr(func, "is_unit", False) else UNITS.get(func)
        if func in PRODUCTS:
            return self._product(func, args, kwargs)
        if function is None:
            if func is batch_norm and args[0] is self._folded:
                return args[0]
            if func not in _VIEWS:
                self._fill(args, kwargs)
            if self._in_sum and func in SUMS:
                return self._sum(func, args, kwargs)
            return func(*args, **kwargs)
        argument, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        in_place = kwargs.pop("inplace", False) or getattr(func, "__name__", "").endswith("_")
        place, self._seen = self._seen, self._seen + 1
        own = _Given(function, rest, kwargs) if rest or kwargs else function
        sums = next((sums for sums in self._sums if sums.tensor is argument and sums.is_blank), None)
        if sums is None:
            self._fill(args, kwargs, argument)
        value = self._look(place, _Call(own, argument, in_place, sums))
        return argument.copy_(value) if in_place and value is not argument else value

    def _product(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what a product makes of its arguments, and its batch norm where it has that in it."""
        own, self._products = self._weights.get(self._products), self._products + 1
        if own is not None:
            args, kwargs = own.refit(*args, **kwargs)
        apart = (one.linear(*args, **kwargs) for one in self._sums) if func is linear else ()
        value = next((made for made in apart if made is not None), None)
        if value is None:
            self._fill(args, kwargs)
            value = func(*args, **kwargs)
            if own is not None and own.in_sum:
                self._in_sum.append(value)
        if own is not None:
            self._folded = value
        return value

    def _sum(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return a sum, in the place of an argument that nothing else reads."""
        for place, value in enumerate(self._in_sum):
            if args[0] is value or (args[1:] and args[1] is value):
                del self._in_sum[place]
                return value.add_(args[1] if args[0] is value else args[0])
        return func(*args, **kwargs)

    def _fill(self, args: Sequence[Any], kwargs: Mapping[str, Any], *more: Tensor) -> None:
        """Make the sums that a function reads."""
        for sums in self._sums:
            if sums.is_blank and sums.is_among((*args, *kwargs.values(), *more)):
                sums.fill()


@dataclass(frozen=True)
class _Given:
    """A function of its first argument."""

    function: Function
    rest: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self, argument: Tensor) -> Tensor:
        return self.function(argument, *self.rest, **self.kwargs)


def _as_it_lies(maps: Tensor) -> Tensor:
    """Return a tensor with its channels last, if memory has them so: what is read of it need not be copied."""
    return maps if maps.is_contiguous() or maps.ndim < 3 else maps.permute(0, *range(2, maps.ndim), 1)


def _joined(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    return torch.cat([*parts], axis) if len(parts) > 1 else parts[0]
