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
from dynalab.models.folds import PRODUCTS, SUMS, Folded, Folding, folds_of
from dynalab.models.maps import nearer, tangents
from dynalab.models.recorded import Recorded, Recorder, State
from dynalab.models.sums import Function, Sums, heaviside, tangent_of

# From a unit's place in the pass and how it is called comes its value.
Look = Callable[[int, "_Call"], Tensor]
# Puts what is seen of a layer where it is told, (B, units) each, and returns what makes its value.
See = Callable[["_Call", "_Layer", Sequence[Tensor]], Callable[[], Tensor]]
# From what is known of some points' units, (b, units) each, comes a row for each point; what it is given it may change.
Reading = Callable[..., Tensor]

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

    def in_rows(self, argument: Tensor) -> bool:
        """Return whether every example's entries lie in one piece, and these one after another."""
        return not self.axis and (
            argument.is_contiguous()
            or (argument.ndim == 4 and argument.is_contiguous(memory_format=torch.channels_last))
        )

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
        passes: list[tuple[Recorder, Tensor]] = []

        with self._evaluated() as put:
            put(state)
            for n, own in zip((2, 3), shapes, strict=True):

                def look(_: int, call: _Call, own: Any = own) -> Tensor:
                    own.append(call.argument.shape)
                    return call.plain()

                inputs = point.expand(n, *point.shape).contiguous()
                with _Watch(look), Recorder() as recorder:
                    network(inputs, *self._context)
                passes.append((recorder, inputs))

        self.folds = folds_of(recorder.calls, state)
        self._recorded = Recorded.of(passes, state)
        self._layers = [_Layer.of(two, three) for two, three in zip(*shapes, strict=True)]
        self.sizes = tuple(layer.units for layer in self._layers if layer.units)

    def radii(self, states: Sequence[State], points: Tensor, directions: Tensor) -> Tensor:
        """Return how far from each point, to first order, a neighbourhood reaches as it meets each unit's change.

        Args:
            states: Those of S runs.
            points: The runs' points, shape (S, B, ...).
            directions: The neighbourhood's axes, orthonormal, shape (P, ...).

        Returns:
            Shape (S, B, units), layer after layer. Infinite where nothing moves the argument, NaN where that is not a
            number.
        """

        def read(here: Tensor, up: Tensor, down: Tensor) -> Tensor:
            moved = torch.maximum(up, -down)
            return (here.abs() * STEP / moved).masked_fill_(moved == 0, torch.inf)

        return self._moved(states, points, directions, read)

    def counts(
        self, states: Sequence[State], points: Tensor, directions: Tensor, radii: Sequence[float]
    ) -> Tensor:
        """Return how many units of each layer change within each radius, (S, B, radii, layers).

        NaN for points where an argument is not a number. Arguments as of `radii`.
        """

        def read(here: Tensor, up: Tensor, down: Tensor) -> Tensor:
            return nearer(here, up, down, self.sizes, radii, STEP)

        return self._moved(states, points, directions, read)

    def _moved(
        self, states: Sequence[State], points: Tensor, directions: Tensor, of: Callable[..., Tensor]
    ) -> Tensor:
        """Return what is read off units' arguments and how far a step in any direction takes them up and down."""

        def see(call: _Call, layer: _Layer, places: Sequence[Tensor]) -> Callable[[], Tensor]:
            here, up, down = places
            if call.sums is not None:
                here.copy_(call.sums.here.flatten(1))
                _extremes(call.sums.offsets, up, down)
                return call.tangent
            if call.function is torch.relu and call.in_place and layer.in_rows(call.argument):
                more = call.more.pop() if call.more else None
                tangents(call.argument, more, 1 + len(directions), here, up, down)
                return lambda: call.argument
            spread = layer.apart(call.argument, 1 + len(directions))
            call.fill()
            at_points = spread[0]
            here.copy_(at_points.flatten(1))
            _extremes(spread, up, down)
            up.sub_(here)
            down.sub_(here)

            def value() -> Tensor:
                # A view of the argument may be written to where that is written to anyhow.
                out = spread if call.in_place else None
                if call.function is torch.relu:
                    tangent = torch.mul(spread, heaviside(at_points), out=out)
                else:
                    at, slope = tangent_of(call.function, at_points)
                    tangent = torch.addcmul(at - slope * at_points, spread, slope, out=out)
                return call.argument if call.in_place else layer.together(tangent, call.argument)

            return value

        return self._seen(states, points, STEP * directions, True, see, of, 3)

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

        def see(call: _Call, layer: _Layer, places: Sequence[Tensor]) -> Callable[[], Tensor]:
            call.fill()
            _extremes(layer.apart(call.argument, len(offsets)), *places)
            return call.plain

        def read(up: Tensor, down: Tensor) -> Tensor:
            cuts = up.sign_() != down.sign_()
            return of(cuts) if of else cuts

        return self._seen(states, points, offsets, False, see, read, 2)

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
        of: Reading,
        count: int,
    ) -> Tensor:
        """Return what is read off what is seen of all layers, `count` tensors, some of the runs' points at a time.

        A pass is over points with each of the offsets, and over the points themselves if asked for.
        """
        last = max((place for place, layer in enumerate(self._layers) if layer.units), default=-1)
        most = max(READ // max(sum(self.sizes), 1), 1)
        pieces: list[tuple[Tensor, ...]] = []
        found: list[Tensor] = []
        places: Iterator[tuple[Tensor, ...]] = iter(())

        def look(place: int, call: _Call) -> Tensor:
            layer = self._layers[place]
            if not layer.units:
                return call.plain()
            value = see(call, layer, next(places))
            if place == last:
                raise _Done
            return value()

        def read() -> None:
            found.append(of(*(_joined(parts) for parts in zip(*pieces, strict=True))))
            pieces.clear()

        folding = Folding(self.folds, states[0])
        with self._passes() as passed:
            for state, own in zip(states, points, strict=True):
                forward = passed(state)
                folding.make(state)
                for some in self.pieces(own, with_points + len(offsets)):
                    seen = tuple(own.new_empty(len(some), sum(self.sizes)) for _ in range(count))
                    places = zip(*(part.split(self.sizes, 1) for part in seen), strict=True)
                    inputs = Sums.of(some, offsets, [], with_points)
                    with contextlib.suppress(_Done):
                        forward(inputs.tensor, _Watch(look, inputs.all, folding.weights))
                    # Each knows the others; their memory is that of the next pass, and lies in the cache.
                    inputs.all.clear()
                    pieces.append(seen)
                    # So that what is read is of several runs at once, and no more is held than a pass takes.
                    if sum(len(parts[0]) for parts in pieces) >= most:
                        read()
            if pieces:
                read()
        return _joined(found).unflatten(0, points.shape[:2])

    @contextlib.contextmanager
    def _passes(self) -> Iterator[Callable[[State], Callable[[Tensor, _Watch], None]]]:
        """Hand out what makes of a run's weights and buffers its pass over inputs, in evaluation mode."""
        recorded = self._recorded
        if recorded is not None:
            with torch.no_grad():
                yield lambda state: lambda inputs, watch: recorded(state, inputs, watch.call)
            return

        def watched(inputs: Tensor, watch: _Watch) -> None:
            with watch:
                self._network(inputs, *self._context)

        with self._evaluated() as put:

            def passed(state: State) -> Callable[[Tensor, _Watch], None]:
                put(state)
                return watched

            yield passed

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
        more: What is to be added to the argument, of its shape and in its order of memory.
    """

    function: Function
    argument: Tensor
    in_place: bool
    sums: Sums | None
    more: list[Tensor]

    def fill(self) -> None:
        """Make what is not made of the argument."""
        if self.sums is not None:
            self.sums.fill()
        while self.more:
            self.argument.add_(self.more.pop())

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
        # Such a value and what is to be added to it, until anything but a unit of the sum is called.
        self._late: tuple[Tensor, Tensor] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.call(func, args, dict(kwargs or {}))

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what a function makes of its arguments, or what stands for that."""
        function = func if getattr(func, "is_unit", False) else UNITS.get(func)
        late, self._late = self._late, None
        more = []
        if late is not None and function is not None and args and args[0] is late[0]:
            more.append(late[1])
        elif late is not None:
            late[0].add_(late[1])
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
        value = self._look(place, _Call(own, argument, in_place, sums, more))
        return argument.copy_(value) if in_place and value is not argument else value

    def _product(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what a product makes of its arguments, and its batch norm where it has that in it."""
        own, self._products = self._weights.get(self._products), self._products + 1
        if own is not None and own.unrolled is not None:
            func = own.convolved
        elif own is not None:
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
                other = args[1] if args[0] is value else args[0]
                if (
                    isinstance(other, Tensor)
                    and other.stride() == value.stride()
                    and other.shape == value.shape
                ):
                    self._late = value, other
                    return value
                return value.add_(other)
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


def _extremes(spread: Tensor, up: Tensor, down: Tensor) -> None:
    """Put the largest and the smallest over offsets, the first axis of (offsets, B or 1, ...), in (B, units) each."""
    for function, out in ((torch.amax, up), (torch.amin, down)):
        # In the order of memory that the argument has, in a row: to another, reductions take up to ten times as long.
        out.copy_(function(spread, 0, out=torch.empty_like(spread[0])).flatten(1))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([*parts]) if len(parts) > 1 else parts[0]
