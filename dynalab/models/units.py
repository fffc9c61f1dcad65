"""The nonlinear units of a network: what goes into them, and how near to an input they change its sign.

Units are seen from outside: while a network does its forward pass, the arguments of torch's elementwise nonlinearities
are looked at (`dynalab.models.watch`), and those of functions that are marked with `dynalab.models.base.unit`. So a
network needs no hooks, and a unit counts where it is used: after normalisation, at every place of a convolution.
Outputs are no units, nor is what depends on no input (a code of positions).

How far from x a unit changes sign, to first order, takes the derivatives of its argument z along P directions v_p:
|z| / max_p |J v_p|. They come from one pass over x and x + h v_p in which every unit is replaced by its tangent at x.
A network that is piecewise linear by its units is then affine, and differences over h are exact whatever h; of what
else is nonlinear in it (maximum pooling, a layer norm, a softmax) they are quotients with h = .01. Points and what
their offsets come to go through linear layers and tangents by themselves, and are added where anything else reads them.
Batch norms are folded into the products before them where nothing else reads those (`dynalab.models.folds`), and
convolutions of maps smaller than their kernels are products by a matrix (`dynalab.models.unrolled`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynalab.models.base import Context
from dynalab.models.folds import Folding, folds_of
from dynalab.models.layers import Layer, extremes
from dynalab.models.maps import nearer, tangents
from dynalab.models.recorded import Recorded, Recorder, State
from dynalab.models.sums import Sums, heaviside, tangent_of
from dynalab.models.watch import UnitCall, Watch

# Puts what is seen of a layer where it is told, (B, units) each, and returns what makes its value.
See = Callable[[UnitCall, Layer, Sequence[Tensor]], Callable[[], Tensor]]
# From what is known of some points' units, (b, units) each, comes a row for each point; what it is given it may change.
Reading = Callable[..., Tensor]

# How far the points of a difference are from x.
STEP = 1e-2
# Entries of the widest layer that go through a network at once: two megabytes, which a core's own cache holds.
ENTRIES = 1 << 19
# Of so many units, in the cache likewise, numbers are read at once.
READ = 1 << 16


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

                def look(_: int, call: UnitCall, own: Any = own) -> Tensor:
                    own.append(call.argument.shape)
                    return call.plain()

                inputs = point.expand(n, *point.shape).contiguous()
                with Watch(look), Recorder() as recorder:
                    network(inputs, *self._context)
                passes.append((recorder, inputs))

        self.folds = folds_of(recorder.calls, state)
        self._recorded = Recorded.of(passes, state)
        self._layers = [Layer.of(two, three) for two, three in zip(*shapes, strict=True)]
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

        def see(call: UnitCall, layer: Layer, places: Sequence[Tensor]) -> Callable[[], Tensor]:
            here, up, down = places
            if call.sums is not None:
                here.copy_(call.sums.here.flatten(1))
                extremes(call.sums.offsets, up, down)
                return call.tangent
            if call.function is torch.relu and call.in_place and layer.in_rows(call.argument):
                more = call.more.pop() if call.more else None
                tangents(call.argument, more, 1 + len(directions), here, up, down)
                return lambda: call.argument
            spread = layer.apart(call.argument, 1 + len(directions))
            call.fill()
            at_points = spread[0]
            here.copy_(at_points.flatten(1))
            extremes(spread, up, down)
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

        def see(call: UnitCall, layer: Layer, places: Sequence[Tensor]) -> Callable[[], Tensor]:
            call.fill()
            extremes(layer.apart(call.argument, len(offsets)), *places)
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

        def look(place: int, call: UnitCall) -> Tensor:
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
                        forward(inputs.tensor, Watch(look, inputs.all, folding.weights))
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
    def _passes(self) -> Iterator[Callable[[State], Callable[[Tensor, Watch], None]]]:
        """Hand out what makes of a run's weights and buffers its pass over inputs, in evaluation mode."""
        recorded = self._recorded
        if recorded is not None:
            with torch.no_grad():
                yield lambda state: lambda inputs, watch: recorded(state, inputs, watch.call)
            return

        def watched(inputs: Tensor, watch: Watch) -> None:
            with watch:
                self._network(inputs, *self._context)

        with self._evaluated() as put:

            def passed(state: State) -> Callable[[Tensor, Watch], None]:
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


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([*parts]) if len(parts) > 1 else parts[0]
