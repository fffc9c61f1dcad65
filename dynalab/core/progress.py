"""How far long work is: told by whoever does it, heard by whoever shows it, and changing nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Listener(Protocol):
    """What is told: what is being worked on, how many are done of how many, and what these are."""

    def __call__(self, what: str, done: int, total: int, unit: str = ..., /) -> object:
        """Take it."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def telling(heard: Listener) -> Iterator[None]:
    """Tell how far work has come while the block lasts, before the first and after every piece of it."""
    token = _listener.set(heard)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """Return who is told; None: nobody."""
    return _listener.get()


def counted(things: Sequence[T], unit: str, what: str = "") -> Iterator[T]:
    """Yield things one after another, and tell how many are done.

    Args:
        things: They.
        unit: What they are, `rows`.
        what: What they are of, `run 3 of 20`.
    """
    heard = listener()
    for done, thing in enumerate(things):
        if heard is not None:
            heard(what, done, len(things), unit)
        yield thing
    if heard is not None:
        heard(what, len(things), len(things), unit)
