"""Where a network that is piecewise linear bends: its calls of ReLU, of maxima and the like, in their order.

A network is run as it is, on rows of inputs, while every function of torch that it calls is looked at. Those that are
affine pass; those that bend are the kinks; any other is refused by its name. No graph is made, so whatever Python a
network is written in, it is read, as long as the order of its calls does not depend on its inputs.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp
from torch.nn.functional import pad, unfold
from torch.overrides import TorchFunctionMode

from dynalab.core.errors import ConfigError
from dynalab.partition.mesh import TooMany


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that are affine in all their arguments together.
SUMS = _names(
    "add add_ __add__ __radd__ __iadd__ sub sub_ subtract __sub__ __rsub__ __isub__ rsub neg neg_ negative __neg__ "
    "positive __pos__ mean sum cumsum cat concat concatenate stack hstack vstack flatten unflatten view view_as "
    "reshape reshape_as permute transpose swapaxes movedim t squeeze unsqueeze expand expand_as repeat tile roll flip "
    "contiguous clone detach to type_as double __getitem__ __iter__ __len__ __get__ chunk split tensor_split unbind "
    "narrow select index_select diagonal pad fold unfold avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d interpolate pixel_shuffle pixel_unshuffle size dim numel stride "
    "is_contiguous is_floating_point requires_grad_"
)
# Those that are linear in one argument where the others do not depend on the inputs.
PRODUCTS = _names(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d mul mul_ multiply __mul__ __rmul__ "
    "__imul__ matmul __matmul__ __rmatmul__ mm bmm mv dot inner baddbmm addmm addbmm addcmul einsum tensordot"
)
# Those that are linear in the first one alone.
QUOTIENTS = _names("div div_ divide true_divide __truediv__ __itruediv__")
# Place of the argument that says that statistics are of the batch, or that numbers are drawn.
TRAINING = {"batch_norm": 5, "dropout": 2, "dropout1d": 2, "dropout2d": 2, "dropout3d": 2}
# Functions that bend where their argument is 0, and where two are equal.
AT_ZERO = _names("relu relu_ leaky_relu leaky_relu_ prelu rrelu abs abs_ absolute __abs__")
PAIRS = _names("maximum minimum max min fmax fmin")
# Those that bend where their argument is one of some bounds -> names of these, and what they are by default.
BOUNDS: Mapping[str, Mapping[str, float | None]] = {
    name: bounds
    for names, bounds in (
        ("hardtanh hardtanh_", {"min_val": -1.0, "max_val": 1.0}),
        ("clamp clamp_ clip clip_", {"min": None, "max": None}),
        ("clamp_min clamp_min_", {"min": None}),
        ("clamp_max clamp_max_", {"max": None}),
    )
    for name in names.split()
}
# Numbers of a call that are held at once, of all inputs together: half a GiB.
MOST_NUMBERS = 1 << 26
# Those of a pass at a time, where torch may unfold the arguments of a convolution to many more.
PASS = 1 << 22

# What a network raises that does not run on its inputs.
RUNNING = (RuntimeError, TypeError, IndexError)

# From the places of one example's numbers, with one input on their axis, to those of every maximum, (n, k).
Windows = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Kink:
    """A call where the network bends, in m numbers that are affine on every region of what comes before.

    Attributes:
        name: Of the function.
        axis: Of its argument, along which the inputs are.
        shape: Of its argument for one input, that axis left out.
        windows: The places of the numbers that each maximum is of, (n, k), -1 for none; None: it bends where one of
            the numbers is 0.
    """

    name: str
    axis: int
    shape: tuple[int, ...]
    windows: np.ndarray | None

    @property
    def size(self) -> int:
        """How many numbers, m."""
        return int(np.prod(self.shape, dtype=int))


class PiecewiseLinear:
    """A network as a function of rows of float64 that is affine but for its kinks.

    Attributes:
        kinks: Where it bends, in the order of its calls.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        """Read a copy of a network in evaluation, which takes rows (n, size) to outputs (n, C) or (n,).

        Raises:
            ConfigError: It is not piecewise linear, or cannot be run so.
        """
        # Of what is empty, as a module's ten dictionaries of hooks, `deepcopy` is slow to make a copy, and of weights.
        copies: dict[int, Any] = {
            id(held): type(held)()
            for module in network.modules()
            for held in vars(module).values()
            if type(held) in (dict, OrderedDict) and not held
        }
        for tensor in (*network.parameters(), *network.buffers()):
            dtype = torch.float64 if tensor.is_floating_point() else tensor.dtype
            own = tensor.detach().to(dtype, copy=True)
            copies[id(tensor)] = nn.Parameter(own, False) if isinstance(tensor, nn.Parameter) else own
        self._network = copy.deepcopy(network, copies).eval()
        passes = []
        for n in (2, 3):
            reading = _Pass()
            outputs = self._run(reading, torch.zeros(n, size, dtype=torch.float64))
            passes.append(reading.met)
            if outputs is None or outputs.shape[:1] != (n,) or outputs.ndim > 2:
                shape = "nothing" if outputs is None else f"shape {tuple(outputs.shape)}"
                raise ConfigError(f"the network gives {shape} for {n} inputs, not a row of outputs for each")
        self.kinks = [_kink(*pair) for pair in zip(*passes, strict=True)]
        self._widest = max([size, *(kink.size for kink in self.kinks)])
        self._unfolds = reading.unfolds

    def _run(self, reading: _Pass, inputs: Tensor) -> Tensor | None:
        """Return outputs; None where the pass ends before."""
        try:
            with torch.no_grad(), reading:
                return self._network(inputs.as_subclass(_Varying)).as_subclass(Tensor)
        except RUNNING as error:
            first = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"the network does not run on rows of {inputs.shape[1]:,} numbers: {first}"
            ) from error

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs (n, C) for inputs (n, D)."""
        with torch.no_grad():
            parts = [self._network(part) for part in self._parts(inputs)]
        return torch.cat(parts).reshape(len(inputs), -1).numpy()

    def at(self, place: int, inputs: np.ndarray) -> np.ndarray:
        """Return the numbers of a kink, (n, m), for inputs (n, D).

        Raises:
            TooMany: They are too many.
        """
        kink = self.kinks[place]
        if len(inputs) * kink.size > MOST_NUMBERS:
            raise TooMany(
                f"the slice has too many regions for a network of this size: {kink.size:,} numbers at each of "
                f"{len(inputs):,} vertices, at call {place + 1} of {len(self.kinks)} of a kink; take a smaller one"
            )
        values = np.empty((len(inputs), kink.size))
        done, met = 0, 0

        def reach(argument: Tensor, numbers: Tensor) -> Tensor:
            nonlocal met
            if met == place:
                raise _Reached(numbers)
            met += 1
            return argument

        for part in self._parts(inputs):
            met = 0
            try:
                self._run(_Pass(reach), part)
            except _Reached as reached:
                values[done : done + len(part)] = _rows(reached.at, kink)
            done += len(part)
        return values

    def walk(self, inputs: np.ndarray, meet: Callable[[int, np.ndarray], np.ndarray]) -> int:
        """Run the network once over inputs to which its kinks add more.

        Where it holds on to what comes before a kink, as a sum around it does, that has too few rows after it, and the
        pass ends.

        Args:
            inputs: Shape (n, D).
            meet: Takes the place of a kink and its numbers (n, m), and returns those of all inputs that there are then.

        Returns:
            How many kinks it met, from the first on.
        """
        most = PASS if self._unfolds else MOST_NUMBERS
        rows, met, meeting = len(inputs), 0, False

        def go_on(argument: Tensor, numbers: Tensor) -> Tensor:
            nonlocal rows, met, meeting
            kink = self.kinks[met]
            shape = (*kink.shape[: kink.axis], rows, *kink.shape[kink.axis :])
            if numbers is not argument or argument.shape != shape or rows * self._widest > most:
                raise _Reached(argument)
            meeting = True
            values = meet(met, _rows(argument, kink))
            rows, met, meeting = len(values), met + 1, False
            if met == len(self.kinks):
                raise _Reached(argument)
            return (
                torch.from_numpy(values).view(rows, *kink.shape).movedim(0, kink.axis).as_subclass(_Varying)
            )

        start = torch.from_numpy(np.ascontiguousarray(inputs)).as_subclass(_Varying)
        try:
            with torch.no_grad(), _Pass(go_on):
                self._network(start)
        except _Reached:
            pass
        except RUNNING:
            if meeting:
                raise
        return met

    def slopes(self, inputs: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return outputs (n, C) for inputs (n, D), and their derivatives along directions (k, D), (n, C, k)."""
        values, slopes = [], []
        for part in self._parts(inputs):
            own = []
            for direction in torch.from_numpy(directions):
                # By reverse mode twice: torch's forward mode loads its compiler.
                value, slope = jvp(self._network, part, direction.repeat(len(part), 1))
                own.append(slope.reshape(len(part), -1))
            values.append(value.reshape(len(part), -1))
            slopes.append(torch.stack(own, -1))
        return torch.cat(values).numpy(), torch.cat(slopes).numpy()

    def _parts(self, inputs: np.ndarray) -> Iterator[Tensor]:
        yield from torch.from_numpy(np.ascontiguousarray(inputs)).split(max(PASS // self._widest, 1))


def _kink(one: _Met, other: _Met) -> Kink:
    """Return a kink from what two passes of different length met there."""
    differ = [axis for axis, (n, m) in enumerate(zip(one.shape, other.shape, strict=True)) if n != m]
    name = one.name.strip("_")
    if len(differ) != 1 or (one.shape[differ[0]], other.shape[differ[0]]) != (2, 3):
        raise ConfigError(f"the network mixes its inputs: {name} is of shape {one.shape} for two of them")
    axis = differ[0]
    shape = one.shape[:axis] + one.shape[axis + 1 :]
    windows = None
    if one.windows is not None:
        places = np.expand_dims(np.arange(int(np.prod(shape, dtype=int))).reshape(shape), axis)
        windows = one.windows(places)
        if one.axes is not None and axis in one.axes:
            raise ConfigError(f"the network mixes its inputs: {name} is over all of them")
    return Kink(name, axis, shape, windows)


@dataclass(frozen=True)
class _Met:
    """A call where a pass bends: its name, the shape of its numbers, and the windows and axes of a maximum."""

    name: str
    shape: tuple[int, ...]
    windows: Windows | None = None
    axes: tuple[int, ...] | None = None


class _Varying(torch.Tensor):
    """A tensor that depends on the inputs."""


class _Reached(Exception):
    """The end of a pass, and what it came to."""

    def __init__(self, at: Tensor) -> None:
        self.at = at


class _Pass(TorchFunctionMode):
    """A pass that meets the kinks in their order.

    Attributes:
        met: What it met so far.
        unfolds: Whether there was a convolution.
    """

    def __init__(self, at_kink: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        """Take what is done at a kink: from its argument and its numbers comes the argument that it goes on with."""
        super().__init__()
        self._at_kink = at_kink
        self.met: list[_Met] = []
        self.unfolds = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        varying = _varying((*args, *kwargs.values()))
        if varying:
            name = getattr(func, "__name__", str(func))
            found = _bends(name, args, kwargs)
            if found is not None:
                numbers, met = found
                self.met.append(met)
                if self._at_kink is not None and args:
                    args = (self._at_kink(args[0], numbers), *args[1:])
                elif self._at_kink is not None:
                    kwargs["input"] = self._at_kink(kwargs["input"], numbers)
            elif not _affine(name, args, kwargs, varying):
                raise ConfigError(f"the network is not piecewise linear: {_why(name)}")
            self.unfolds |= name.startswith("conv")
        return func(*args, **kwargs)


def _rows(numbers: Tensor, kink: Kink) -> np.ndarray:
    """Return the numbers of a kink as rows, (n, m)."""
    own = numbers.movedim(kink.axis, 0).flatten(1) if len(kink.shape) else numbers[:, None]
    return own.as_subclass(Tensor).numpy()


def _varying(items: Any) -> int:
    """Return how many of some arguments, or of what they hold, depend on the inputs."""
    found = 0
    for item in items:
        if isinstance(item, _Varying):
            found += 1
        elif isinstance(item, (list, tuple)):
            found += _varying(item)
    return found


def _why(name: str) -> str:
    if name in PRODUCTS:
        return f"{name.strip('_')} multiplies numbers that both depend on the inputs"
    return f"it calls {name.strip('_')}"


def _affine(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], varying: int) -> bool:
    if name in TRAINING:
        place = TRAINING[name]
        return not kwargs.get("training", args[place] if len(args) > place else name != "batch_norm")
    if name in QUOTIENTS:
        return varying == 1 and isinstance(args[0], _Varying) and not kwargs.get("rounding_mode")
    return name in SUMS or (name in PRODUCTS and varying == 1)


def _bends(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, _Met] | None:
    """Return the numbers in which a call bends, and what is met there; None where it does not bend."""
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor):
        return None
    other = args[1] if len(args) > 1 else kwargs.get("other")
    windows: Windows | None = None
    axes: tuple[int, ...] | None = None
    if name in AT_ZERO:
        pass
    elif name in BOUNDS or name == "relu6":
        x = torch.stack([x - bound for bound in _bounds(name, args, kwargs)], -1)
    elif name in PAIRS and isinstance(other, Tensor):
        x = x - other
    elif name in ("max_pool1d", "max_pool2d"):
        windows = _pooled(name, args, kwargs)
        axes = tuple(range(x.ndim - (2 if name == "max_pool2d" else 1), x.ndim))
    elif name in ("amax", "max", "amin", "min"):
        given = kwargs.get("dim", other)
        given = (
            range(x.ndim) if given is None or given == () else [given] if isinstance(given, int) else given
        )
        axes = tuple(axis % x.ndim for axis in given)
        x = -x if "min" in name else x
        windows = _reduced(axes)
    else:
        return None
    return x, _Met(name, tuple(x.shape), windows, axes)


def _bounds(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    if name == "relu6":
        return [0.0, 6.0]
    keys = BOUNDS[name]
    given = {
        **keys,
        **dict(zip(keys, args[1:], strict=False)),
        **{key: kwargs[key] for key in keys if key in kwargs},
    }
    return [bound for bound in given.values() if bound is not None]


def _reduced(axes: tuple[int, ...]) -> Windows:
    """Return what gives the windows of a maximum over some axes."""

    def windows(places: np.ndarray) -> np.ndarray:
        last = np.moveaxis(places, axes, range(-len(axes), 0))
        return last.reshape(-1, int(np.prod(last.shape[-len(axes) :])))

    return windows


def _pooled(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Windows:
    """Return what gives the windows of maximum pooling over the last one or two axes."""
    keys = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = {**dict(zip(keys, args[1:], strict=False)), **{key: kwargs[key] for key in keys if key in kwargs}}
    if given.get("ceil_mode"):
        raise ConfigError(f"the partition knows {name} without ceil_mode alone")
    two = name == "max_pool2d"

    def both(value: Any, flat: int) -> tuple[int, int]:
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        return (values[0], values[-1]) if two else (flat, values[0])

    size = both(given["kernel_size"], 1)
    stride = both(given.get("stride") or given["kernel_size"], 1)
    (down, across), dilation = both(given.get("padding", 0), 0), both(given.get("dilation", 1), 1)

    def windows(places: np.ndarray) -> np.ndarray:
        height, width = places.shape[-2:] if two else (1, places.shape[-1])
        maps = torch.from_numpy(places.reshape(-1, 1, height, width).astype(float))
        padded = pad(maps, (across, across, down, down), value=-1.0)
        return unfold(padded, size, dilation, 0, stride).movedim(1, -1).flatten(0, 1).long().numpy()

    return windows
