"""The library of `compute.compile`, made of compiled.cpp.

Without torch, so that the command line can make it before workers ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dynalab.config import compiling
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.errors import ConfigError

SOURCE = Path(__file__).with_name("compiled.cpp")
KEY = "compute.compile=true"
MODELS = ("mlp", "embedding_mlp", "onehot_mlp", "gromov", "polynet", "sinusoid")


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
        ConfigError: There is no compiler, it fails, or what it made cannot be loaded.
        StoreError: Nothing can be kept.
    """
    with _named():
        return compiling.library(SOURCE, _telling(say))


def made(asked: bool | None, say: Callable[[str], None] = lambda line: None) -> Path | None:
    """Return the library by which updates are made as `compute.compile` asks; None where they are made without.

    What it took to make it is told to `say`, or why it cannot be made where it was not asked for.

    Raises:
        ConfigError: It is asked for, and there is no compiler, it fails, or what it made cannot be loaded.
    """
    if asked is None:
        return compiling.available(
            SOURCE, _telling(say), lambda why: say(f"updates are made by torch, for {why}")
        )
    return library(say) if asked else None


def _telling(say: Callable[[str], None]) -> Callable[[str, float], None]:
    return lambda command, seconds: say(
        f"updates were compiled for this machine by {command} in {seconds:.1f} s"
    )


def planned(asked: bool | None, config: EnsembleConfig, device: str) -> bool:
    """Return whether an ensemble's updates are likely to be compiled, by names alone: for a plan."""
    if device.startswith("cuda") or asked is False:
        return False
    return bool(asked) or (compiling.compiler() is not None and config.model.name in MODELS)


@contextmanager
def _named() -> Iterator[None]:
    """Name the key in a refusal."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{KEY}: {error}") from error
