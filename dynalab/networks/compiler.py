"""The library of `compute.compile=true`, made of compiled.cpp.

Without torch, so that the command line can make it before workers ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dynalab.config import compiling
from dynalab.core.errors import ConfigError

SOURCE = Path(__file__).with_name("compiled.cpp")
KEY = "compute.compile=true"


def require() -> None:
    """Refuse a machine without a C++ compiler.

    Raises:
        ConfigError: There is none.
    """
    with _named():
        compiling.require()


def library(say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the library for this machine, compiled where it is not kept yet; `say` is told what that took.

    Raises:
        ConfigError: There is no compiler, or it fails.
        StoreError: Nothing can be kept.
    """

    def tell(command: str, seconds: float) -> None:
        say(f"updates were compiled for this machine by {command} in {seconds:.1f} s")

    with _named():
        return compiling.library(SOURCE, tell)


@contextmanager
def _named() -> Iterator[None]:
    """Name the key in a refusal."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{KEY}: {error}") from error
