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
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from dynalab.models.base import Context

Function = Callable[..., Tensor]
# From a unit's place in the pass and how it is called comes its value.
Look = Callable[[int, "_Call"], Tensor]
# What is seen of a layer, (B, ...) each, and what makes its value.
Seen = tuple[tuple[Tensor, ...], Callable[[], Tensor]]
See = Callable[["_Call", "_Layer"], Seen]
# A run's weights and buffers by name.
State = Mapping[str, Tensor]
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

                with _Watch(look):
                    network(point.expand(n, *point.shape).contiguous(), *self._context)

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
                    tangent = torch.mul(spread, _step(here), out=out)
                else:
                    at, slope = _tangent(call.function, here)
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
                for some in self.pieces(own, with_points + len(offsets)):
                    layers.clear()
                    inputs = _Sums.of(some, offsets, [], with_points)
                    with contextlib.suppress(_Done), _Watch(look, inputs.all):
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


class _Sums:
    """The sums of the values at B points and of what n offsets add to them, those of the first offset first.

    Attributes:
        tensor: The sums, (n B, ...), and before them the values at the points if asked for. Until something reads
            them, what the offsets add stands there in their place, or nothing.
        first: Whether the values at the points stand before the sums.
        is_blank: Whether the sums are not made.
        all: All such sums of a pass.
    """

    def __init__(self, tensor: Tensor, count: int, all: list[_Sums], first: bool = True) -> None:
        """Take a tensor of the values at `count` points, and after them what each offset adds to them."""
        self.tensor, self.all, self.first, self.is_blank = tensor, all, first, True
        self._apart = tensor.view(-1, count, *tensor.shape[1:])
        self._given: tuple[Tensor, Tensor] | None = None
        all.append(self)

    @classmethod
    def of(cls, points: Tensor, offsets: Tensor, all: list[_Sums], first: bool = True) -> _Sums:
        """Return the sums of points (B, ...) and offsets (n, ...)."""
        tensor = points.new_empty((first + len(offsets)) * len(points), *points.shape[1:])
        sums = cls(tensor, len(points), all, first)
        sums._given = points, offsets
        return sums

    @property
    def here(self) -> Tensor:
        """The values at the points, (B, ...)."""
        return self._given[0] if self._given else self._apart[0]

    @property
    def offsets(self) -> Tensor:
        """What is added to them, (n, B or 1, ...)."""
        return self._given[1].unsqueeze(1) if self._given else self._apart[1:]

    def fill(self) -> None:
        """Make the sums, unless they are made."""
        if not self.is_blank:
            return
        self.is_blank = False
        if self._given and self.first:
            self._apart[0].copy_(self.here)
        torch.add(self.here, self.offsets, out=self._apart[self.first :])
        self._given = None

    def is_among(self, values: Iterable[object]) -> bool:
        """Return whether a function that is given some values may read the sums."""
        return any(
            value is self.tensor
            or isinstance(value, list | tuple)
            or (isinstance(value, Tensor) and value._base is self.tensor)
            for value in values
        )

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """Return what a linear layer makes of the sums; None where its argument is anything else, or they were read."""
        if not self.is_blank or not self.is_among([input]) or not input.is_contiguous():
            return None
        if input.shape != (len(self.tensor), weight.shape[1]):
            return None
        if self._given:
            points, offsets = (part.flatten(1) for part in self._given)
            made = linear(points, weight, bias), linear(offsets, weight)
            return _Sums.of(*made, self.all, self.first).tensor
        count = self._apart.shape[1]
        out = linear(self.tensor.flatten(1), weight)
        if bias is not None:
            out[:count] += bias
        return _Sums(out, count, self.all).tensor

    def tangent(self, function: Function, in_place: bool) -> Tensor:
        """Return what a function's tangent at the points makes of the sums."""
        at, slope = _tangent(function, self.here)
        sums = self if in_place else _Sums(torch.empty_like(self.tensor), len(at), self.all)
        torch.mul(slope, self.offsets, out=sums._apart[1:])
        sums._apart[0].copy_(at)
        sums._given = None
        return sums.tensor


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
    sums: _Sums | None

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
    """Hands every unit over; what comes back is its value."""

    def __init__(self, look: Look, sums: Sequence[_Sums] = ()) -> None:
        super().__init__()
        self._look, self._sums, self._seen = look, sums, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        function = func if getattr(func, "is_unit", False) else UNITS.get(func)
        if function is None:
            if func is linear:
                for one in self._sums:
                    if (made := one.linear(*args, **kwargs)) is not None:
                        return made
            if func not in _VIEWS:
                self._fill(args, kwargs)
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


def _joined(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    return torch.cat([*parts], axis) if len(parts) > 1 else parts[0]


def _step(x: Tensor) -> Tensor:
    """Return 1 where x is above 0, else 0, in its type."""
    return torch.gt(x, 0, out=torch.empty_like(x))


def _tangent(function: Function, here: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the slope of an elementwise function at `here`."""
    if function is torch.relu:
        slope = _step(here)
        return slope * here, slope
    with torch.enable_grad():
        leaf = here.detach().clone().requires_grad_()
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), [leaf])
    return value.detach(), slope
