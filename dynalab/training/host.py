"""What of a card is finished or looked at on the host, while the card and the loop go on.

Small dense problems (the eigenvalues of Gram matrices) a card solves one by one, and the host waits for each. Here what
a probe prepares on the card is copied to pinned memory behind the kernels that make it; threads make the row of it, a
few runs each, once it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dynalab.core.devices import as_here
from dynalab.core.machine import cores

Values = Mapping[str, Tensor]

_MOST_THREADS = 16
# Parts of rows that wait for each thread: a host that is slower than its card holds it up, and memory stays bounded.
_WAITING = 4


@dataclass(frozen=True)
class Promised:
    """A value of a row, (S,), that is under way.

    Attributes:
        name: Its column.
        parts: Each returns the row of a few runs, once it is there.
        blank: What stands in its place among values on the device, (S,), float64.
        is_coming: Whether it will be found on the way, where asking now has it made for itself.
    """

    name: str
    parts: tuple[Callable[[], dict[str, Tensor]], ...]
    blank: Tensor
    is_coming: Callable[[], bool] = lambda: False

    def result(self) -> Tensor:
        """Wait for it, and return it on the host; raises what went wrong there."""
        return torch.cat([part()[self.name] for part in self.parts])


class Host:
    """Threads that finish rows, as many as there are cores.

    Attributes:
        threads: Their number.
    """

    def __init__(self) -> None:
        self.threads = min(cores(), _MOST_THREADS)
        here = as_here()

        def begin() -> None:
            """Settle what every thread has of its own."""
            torch.set_flush_denormal(True)
            here()

        self._pool = ThreadPoolExecutor(self.threads, "rows", begin)
        self._room = threading.BoundedSemaphore(_WAITING * self.threads)

    def finish(
        self, finish: Callable[[Values], dict[str, Tensor]], prepared: Values, names: Sequence[str]
    ) -> dict[str, Promised]:
        """Have a row made of what was prepared, name -> (S, ...), once that has come to the host.

        Args:
            finish: Makes it; keeps the runs apart, so that threads may share them.
            prepared: What was prepared.
            names: The columns.
        """
        some = next(iter(prepared.values()))
        copies = {name: tensor.to("cpu", non_blocking=True) for name, tensor in prepared.items()}
        arrived, runs = _arrival(some.device), len(some)

        def made(first: int, last: int) -> dict[str, Tensor]:
            try:
                arrived()
                return finish({name: tensor[first:last] for name, tensor in copies.items()})
            finally:
                self._room.release()

        parts = []
        apart = -(-runs // self.threads)
        for first in range(0, runs, apart):
            self._room.acquire()
            parts.append(self._pool.submit(made, first, first + apart).result)
        blank = some.new_full((runs,), torch.nan, dtype=torch.float64)
        return {name: Promised(name, tuple(parts), blank) for name in names}


class Late:
    """What is looked at now and then of a device, without waiting for a card: what it shows is one look old."""

    _before: tuple[Tensor, Callable[[], None]] | None = None

    def look(self, values: Tensor) -> Tensor | None:
        """Return values on the host: on a card those of the look before, None at the first one."""
        if values.device.type == "cpu":
            return values
        before, own = self._before, values.to("cpu", non_blocking=True)
        self._before = own, _arrival(values.device)
        if before is None:
            return None
        found, arrived = before
        arrived()
        return found


def _arrival(device: torch.device) -> Callable[[], None]:
    """Return what waits, in any thread, until a device has done what it was given up to now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize
