"""Rows of a lone run, evaluated and measured by a process beside its training: small networks leave cores idle.

A seed whose bits are to be its own (`compute.exact=true`) is trained in shards that fill the cores, so this is for one
run with `compute.exact=false` on a CPU. A thread would not do: a probe is a hundred short operations, and at each of
them the trainer would wait for the interpreter's lock (measured on digits: nothing won).
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from dynalab.core.machine import cores
from dynalab.core.state import ProbeState
from dynalab.probes.base import Probe

Values = dict[str, Tensor]
# What a row is handed, and of which parameters: frozen ones have no gradient.
_Present = Mapping[str, tuple[str, ...]]

# What a probe beside the training is handed; it reads nothing else.
_HANDED = ("params", "previous", "gradients")
# Rows on their way: so many, or as many as fit into so many bytes, but two at least.
_MOST_SLOTS, _MOST_BYTES = 8, 1 << 26
# Bytes to whose multiples tensors are laid in memory.
_ALIGN = 64
# Stands among the names of probes, none of which is written like this.
EVALUATION = "(evaluation)"
# Seconds after which a process that does not answer counts as dead: a fork of a program with threads can hang.
_PATIENCE = 120.0


def is_lone(width: int, exact: bool, device: torch.device) -> bool:
    """Return whether a run shares its tensors with no other, so that it may be trained as suits it best alone."""
    return width == 1 and not exact and device.type == "cpu"


@dataclass
class Row:
    """A row of one series, of which parts may still be measured.

    Attributes:
        parts: Metric -> (S,), in the order of the columns.
    """

    parts: list[Values | Pending] = field(default_factory=list)

    def waits(self) -> bool:
        """Return whether a part was left to another process."""
        return any(isinstance(part, Pending) for part in self.parts)

    def whole(self) -> Values:
        """Wait for what is missing and return all metrics."""
        found: Values = {}
        for part in self.parts:
            found |= part.result() if isinstance(part, Pending) else part
        return found


class Beside:
    """One process that measures one row after another, from copies of the weights in memory that both share.

    Should it be killed, or hang, what it left is measured here.

    Args:
        probes: Name -> probe; those with `fits`.
        params: The evaluated weights, for their shapes.
        initial: As `ProbeState.initial`.
    """

    def __init__(
        self, probes: Mapping[str, Probe], params: Mapping[str, Tensor], initial: Mapping[str, Tensor] | None
    ) -> None:
        self._probes = dict(probes)
        self._blank = ProbeState(step=0, params={}, initial=initial)
        size = sum(param.numel() * param.element_size() + _ALIGN for param in params.values())
        n_slots = min(_MOST_SLOTS, max(2, _MOST_BYTES // (size * len(_HANDED) or 1)))
        self._memory = mmap.mmap(-1, max(size * len(_HANDED) * n_slots, 1))
        places = itertools.count(0, size)
        self._slots = [
            {name: _views(self._memory, next(places), params) for name in _HANDED} for _ in range(n_slots)
        ]
        self._free = collections.deque(range(n_slots))
        self._waiting: collections.deque[_Order] = collections.deque()
        self._connection: Connection | None = None
        self._process = 0

    @staticmethod
    def pays(width: int, exact: bool, device: torch.device) -> bool:
        """Return whether the rows of so many runs are measured beside their training."""
        linux = sys.platform == "linux"
        return is_lone(width, exact, device) and linux and cores() > 1

    @staticmethod
    def has_a_core() -> bool:
        """Return whether training leaves it a core of its own."""
        return torch.get_num_threads() < cores()

    @staticmethod
    def fits(probe: Probe) -> bool:
        """Return whether a probe looks at nothing but weights and gradients, and remembers nothing."""
        remembers = hasattr(probe, "begin") or hasattr(probe, "tensors")
        return not remembers and probe.needs <= {"initial", "previous", "gradients"}

    def begin(self, names: Sequence[str], state: ProbeState) -> dict[str, Pending]:
        """Have probes measured, as many of them as can be; waits where too many rows are waiting already.

        Args:
            names: Of the probes.
            state: Whose weights and gradients are copied.
        """
        names = [name for name in names if name in self._probes]
        if not names:
            return {}
        while not self._free:
            self._receive()
        if self._connection is None:
            self._connection = self._start()
        slot = self._free.popleft()
        present = {name: tuple(getattr(state, name)) for name in _HANDED if getattr(state, name) is not None}
        for name, keys in present.items():
            for key in keys:
                self._slots[slot][name][key].copy_(getattr(state, name)[key])
        order = _Order(slot, state.step, present, tuple(names))
        self._waiting.append(order)
        try:
            self._connection.send((slot, state.step, present, order.names))
        except OSError:
            self._take_over()
        return {name: Pending(self, order, name) for name in names}

    def close(self) -> None:
        """Let the process end, once all answers are in."""
        if self._connection is not None:
            self._connection.close()
            self._take_over()

    def wait(self, order: _Order) -> Mapping[str, Values]:
        """Return what an order came to."""
        while order.found is None:
            self._receive()
        if isinstance(order.found, BaseException):
            raise order.found
        return order.found

    def _start(self) -> Connection:
        here, there = multiprocessing.Pipe()
        # Not `multiprocessing.Process`: that closes the standard input in the child, and waits for ever on a lock that
        # another thread, which is reading, held at the fork.
        self._process = os.fork()
        if not self._process:
            try:
                # With the trainer's end open here as well, its death would go unnoticed.
                here.close()
                self._serve(there)
            finally:
                os._exit(0)
        there.close()
        return here

    def _serve(self, connection: Connection) -> None:
        # Ctrl-C is for the trainer, which ends this one when it is done; a signal to end is not put off.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not self.has_a_core():
            # All threads of the trainer wait for the one whose core is taken: this process takes what they leave.
            os.nice(19)
        torch.set_num_threads(1)
        while True:
            try:
                slot, step, present, names = connection.recv()
                connection.send(self._answer(slot, step, present, names))
            except (EOFError, OSError):
                return

    def _answer(self, slot: int, step: int, present: _Present, names: Iterable[str]) -> Any:
        try:
            found = self._measure(slot, step, present, names)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return {
            name: {key: value.tolist() for key, value in values.items()} for name, values in found.items()
        }

    def _measure(self, slot: int, step: int, present: _Present, names: Iterable[str]) -> dict[str, Values]:
        handed: dict[str, Any] = {
            name: {key: self._slots[slot][name][key] for key in keys} for name, keys in present.items()
        }
        state = replace(self._blank, step=step, **handed)
        return {name: self._probes[name].measure(state) for name in names}

    def _receive(self) -> None:
        """Take in the oldest answer."""
        assert self._connection is not None
        try:
            answer = self._connection.recv() if self._connection.poll(_PATIENCE) else None
        except (EOFError, OSError):
            answer = None
        if answer is None:
            self._take_over()
            return
        order = self._waiting.popleft()
        self._free.append(order.slot)
        if isinstance(answer, str):
            order.found = RuntimeError(f"a probe failed in row {order.step}: {answer}")
        else:
            order.found = {
                name: {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
                for name, values in answer.items()
            }

    def _take_over(self) -> None:
        """Measure here what a process that died left; the next order starts another."""
        self._connection = None
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        while self._waiting:
            order = self._waiting.popleft()
            self._free.append(order.slot)
            order.found = self._measure(order.slot, order.step, order.present, order.names)


@dataclass(eq=False)
class _Order:
    """What the process was asked for.

    Attributes:
        found: Probe -> its values, once they are here, or why there are none.
    """

    slot: int
    step: int
    present: _Present
    names: tuple[str, ...]
    found: dict[str, Values] | RuntimeError | None = None


@dataclass(frozen=True)
class Pending:
    """The values of one probe, on their way."""

    beside: Beside
    order: _Order
    name: str

    def result(self) -> Values:
        """Wait for them."""
        return self.beside.wait(self.order)[self.name]


def _views(memory: mmap.mmap, place: int, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors like these, one behind another in memory from a place on."""
    views = {}
    for name, param in params.items():
        views[name] = param.new_empty(param.shape)
        if param.numel():
            flat = torch.frombuffer(memory, dtype=param.dtype, count=param.numel(), offset=place)
            views[name] = flat.view(param.shape)
        place += -(-param.numel() * param.element_size() // _ALIGN) * _ALIGN
    return views
