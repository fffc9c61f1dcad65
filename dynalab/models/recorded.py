"""A network's pass as the functions of torch that it calls, which are called again without the network.

Between two calls a pass looks up modules and names, and every call that is looked at from outside goes through torch's
dispatch: of a small network that takes as long as its products. A pass is called again if every tensor that it gave a
function is one that a function made, the input, or one of the state, and if everything else that it gave was the same
of two inputs of different lengths: then the calls are a function of the input and the state, as it wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Name -> a run's weights and buffers.
State = Mapping[str, Tensor]
# What calls a function with some arguments, or does something else in its place.
Caller = Callable[[Any, Sequence[Any], dict[str, Any]], Any]
# What looks at no entry.
SHAPES = (
    Tensor.dim,
    Tensor.size,
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
)
# What may be given besides tensors: what is equal if it says the same.
_PLAIN = (bool, int, float, str, slice, type(None), type(...), torch.dtype, torch.device, torch.memory_format)


@dataclass(frozen=True)
class Call:
    """A function, what it was given and what it made."""

    function: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    made: Any


class Recorder(TorchFunctionMode):
    """Looks on as a network does its pass.

    Attributes:
        calls: All calls in turn but for those that look at no entry.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in SHAPES:
            self.calls.append(Call(func, args, kwargs or {}, made))
        return made


class _Place(int):
    """A tensor's place among the values of a pass."""


class _Several(tuple[Any, ...]):
    """Arguments in a list, some of which are tensors."""


@dataclass(frozen=True)
class _Step:
    """A call; `done` are the places of what nothing reads after it."""

    function: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    made: int
    done: Sequence[int]


class _Unknown(Exception):
    """The calls depend on something else."""


class Recorded:
    """The calls of a pass; `of` makes it."""

    def __init__(self, calls: Sequence[Call], state: State, input: Tensor) -> None:
        """Take the calls of a pass.

        Raises:
            _Unknown: They read other tensors, or make something else.
        """
        self._names = [*state]
        self._places = {id(tensor): _Place(place) for place, tensor in enumerate((*state.values(), input))}
        self._last: dict[int, int] = {}
        steps: list[tuple[Any, list[Any], dict[str, Any], int]] = []
        for number, call in enumerate(calls):
            args = [self._as_read(value, number) for value in call.args]
            kwargs = {name: self._as_read(value, number) for name, value in call.kwargs.items()}
            if not isinstance(call.made, Tensor):
                raise _Unknown
            made = self._places.setdefault(id(call.made), _Place(len(self._places)))
            self._last[made] = number
            steps.append((call.function, args, kwargs, made))
        self._count = len(self._places)
        self.steps = [
            _Step(*step, [place for place, end in self._last.items() if end == number and place > len(state)])
            for number, step in enumerate(steps)
        ]

    @classmethod
    def of(cls, passes: Sequence[tuple[Recorder, Tensor]], state: State) -> Recorded | None:
        """Return what passes over inputs of different lengths have in common; None where they call otherwise."""
        try:
            one, *others = (cls(recorder.calls, state, input) for recorder, input in passes)
        except _Unknown:
            return None
        return one if all(other.steps == one.steps for other in others) else None

    def _as_read(self, value: Any, number: int) -> Any:
        """Return an argument of the call of a number with places instead of tensors."""
        if isinstance(value, Tensor):
            if id(value) not in self._places:
                raise _Unknown
            place = self._places[id(value)]
            self._last[place] = number
            return place
        if isinstance(value, list | tuple):
            parts = [self._as_read(part, number) for part in value]
            return _Several(parts) if any(isinstance(part, _Place | _Several) for part in parts) else value
        if not isinstance(value, _PLAIN):
            raise _Unknown
        return value

    def __call__(self, state: State, input: Tensor, caller: Caller) -> None:
        """Make the calls again, with the tensors of another state and another input."""
        values: list[Any] = [state[name] for name in self._names]
        values.append(input)
        values += [None] * (self._count - len(values))

        for step in self.steps:
            kwargs = (
                {name: _filled(value, values) for name, value in step.kwargs.items()} if step.kwargs else {}
            )
            values[step.made] = caller(step.function, [_filled(value, values) for value in step.args], kwargs)
            # So that memory is that of the next values, and lies in the cache.
            for place in step.done:
                values[place] = None


def _filled(value: Any, values: Sequence[Any]) -> Any:
    """Return an argument with tensors instead of their places."""
    if type(value) is _Place:
        return values[value]
    return [_filled(part, values) for part in value] if type(value) is _Several else value
