"""Errors in a user's plug-in: they name its file and line, and are the user's (exit code 2), not dynalab's.

The innermost frame of a traceback that lies in a plug-in's file decides whose an error is: what torch or dynalab raises
below a plug-in's line is the plug-in's as well. What a plug-in returned, and cannot be used, has no frame there any
more; whoever finds that says so with `refuse`, and what else goes wrong with it is caught by `naming(function)`.

A `DynalabError` that a plug-in raises, as a check of its keys does, is a sentence for the user already and stays.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn, ParamSpec, TypeVar

from dynalab.core.errors import ConfigError, DynalabError

P = ParamSpec("P")
T = TypeVar("T")

# Folders that plug-ins were imported from.
_FOLDERS: set[str] = set()
_OWN = str(Path(__file__).resolve().parent.parent)
# What is in one of these is not the user's, though it stand in a folder of plug-ins, as an environment may.
_OTHERS = (_OWN, sys.prefix, sys.base_prefix)
_INSTALLED = ("site-packages", "dist-packages")


class PluginError(ConfigError):
    """Something in a user's plug-in: exit code 2. What was raised there is its cause, if anything was."""


def know(folder: Path) -> None:
    """Note that plug-ins are imported from a folder."""
    _FOLDERS.add(f"{folder}{os.sep}")


def is_plugin(file: str) -> bool:
    """Return whether a source file is a plug-in's, by its path."""
    for folder in _FOLDERS:
        if not file.startswith(folder):
            continue
        inside = [f"{other}{os.sep}" for other in _OTHERS if f"{other}{os.sep}".startswith(folder)]
        parts = file[len(folder) :].split(os.sep)
        if not file.startswith(tuple(inside)) and not any(part in _INSTALLED for part in parts):
            return True
    return False


def line_of(error: BaseException, whose: object = None) -> str | None:
    """Return the line that says what went wrong in a plug-in, and where; None where no plug-in had a part in it.

    Args:
        error: What was raised, or what it was raised from.
        whose: What made the thing that was being used: where no frame is a plug-in's, the error is put down to it.
    """
    while True:
        if place := innermost(error):
            return f"{place}{said(error)}"
        if error.__cause__ is None:
            break
        error = error.__cause__
    place = place_of(whose)
    how = "" if isinstance(whose, type) else "what it gave cannot be used: "
    return f"{place}{how}{said(error)}" if place else None


def said(error: BaseException) -> str:
    """Return an error as one line: its class, and the first line of what it says."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def innermost(error: BaseException) -> str | None:
    """Return the place in a plug-in that an error came from, as the beginning of a line."""
    if isinstance(error, SyntaxError) and error.filename and is_plugin(error.filename):
        return f"{_shown(error.filename)}:{error.lineno}: "
    walked = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    inside = [(code, line) for code, line in walked if is_plugin(code.co_filename)]
    return _place(*inside[-1]) if inside else None


def _place(code: CodeType, line: int) -> str:
    """Return a place as the beginning of a line, with the function that it is in: not a comprehension, nor a lambda."""
    names = [name for name in code.co_qualname.split(".") if not name.startswith("<")]
    return f"{_shown(code.co_filename)}:{line}: {f'in {names[-1]}: ' if names else ''}"


def place_of(whose: object) -> str | None:
    """Return the place of a function, class, module or object of a plug-in, as the beginning of a line."""
    if isinstance(whose, functools.partial):
        return next(filter(None, map(place_of, (whose.func, *whose.args))), None)
    bound = inspect.unwrap(whose) if callable(whose) else whose
    code = getattr(getattr(bound, "__func__", bound), "__code__", None)
    if isinstance(code, CodeType) and is_plugin(code.co_filename):
        return _place(code, code.co_firstlineno)
    if isinstance(code, CodeType):
        # A method of a plug-in's object that is inherited.
        bound = type(getattr(bound, "__self__", None))
    if not isinstance(bound, ModuleType | type):
        bound = type(bound)
    module = bound if isinstance(bound, ModuleType) else sys.modules.get(bound.__module__)
    file = getattr(module, "__file__", None)
    if file is None or not is_plugin(file):
        return None
    if isinstance(bound, ModuleType):
        return f"{_shown(file)}: "
    try:
        line = f":{inspect.getsourcelines(bound)[1]}"
    except (OSError, TypeError):
        line = ""
    return f"{_shown(file)}{line}: in {bound.__name__}: "


def _shown(file: str) -> str:
    """Return a path as it is shown: from the working directory, where it lies in it."""
    try:
        inside = f"{os.getcwd()}{os.sep}"
    except OSError:
        return file
    return file.removeprefix(inside)


def refuse(whose: object, returned: object, expected: str) -> NoReturn:
    """Refuse what a function gave.

    Args:
        whose: The function, or what it is a part of.
        returned: What it gave.
        expected: What it should have, in words.

    Raises:
        PluginError: It is a plug-in's.
        TypeError: It is one of dynalab's own.
    """
    line = f"returned {described(returned)}, expected {expected}"
    if place := place_of(whose):
        raise PluginError(f"{place}{line}")
    raise TypeError(f"{getattr(whose, '__qualname__', type(whose).__qualname__)} {line}")


def described(value: object) -> str:
    """Return what a value is, in a few words."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {', '.join(map(repr, value[:3])) or 'nothing'}"
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, type):
        return f"a {kind} of shape {tuple(shape)}"
    return f"the class {kind}" if isinstance(value, type) else f"an object of type {kind}"


@contextmanager
def naming(whose: object = None) -> Iterator[None]:
    """Have errors in plug-ins name their file and line, while the block lasts.

    Args:
        whose: A plug-in's function, class or module, where the block uses what it gave.

    Raises:
        PluginError: Something was raised in a plug-in, or because of what it gave; from what was raised.
    """
    try:
        yield
    except Exception as error:
        blame(error, whose)
        raise


def blame(error: Exception, whose: object = None) -> None:
    """Raise the error that names a plug-in, where one is to blame: for an `except` around what is called at every step.

    Args:
        error: What was raised.
        whose: As of `naming`.

    Raises:
        PluginError: As of `naming`.
    """
    if isinstance(error, PluginError):
        return
    if isinstance(error, DynalabError):
        if line := _line_behind(error):
            raise PluginError(line) from error.__cause__
    # Want of memory is no fault of the line that met it; torch's own class is not known here.
    elif type(error).__name__ not in ("MemoryError", "OutOfMemoryError") and (line := line_of(error, whose)):
        raise PluginError(line) from error


def _line_behind(error: DynalabError) -> str | None:
    """Return the line for an error of dynalab's that it raised because of another one, in a plug-in."""
    cause = error.__cause__
    if innermost(error) or cause is None or isinstance(cause, DynalabError):
        return None
    line = line_of(cause)
    # Configuration errors say more than what they were raised from; others speak of files that are whole.
    if not line or not isinstance(error, ConfigError):
        return line
    place = line.removesuffix(said(cause))
    return str(error) if place in str(error) else f"{place}{error}"


def named(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function name plug-ins in its errors, as `naming` does."""

    @functools.wraps(function)
    def calling(*args: P.args, **keys: P.kwargs) -> T:
        with naming():
            return function(*args, **keys)

    return calling


def trace(error: BaseException) -> str:
    """Return the whole traceback of what an error in a plug-in was raised from."""
    return "".join(traceback.format_exception(error.__cause__ or error))


def require(holds: Any, whose: object, returned: object, expected: str) -> None:
    """Refuse what a function gave unless the condition holds; as `refuse`."""
    if not holds:
        refuse(whose, returned, expected)


def by_hand(thing: object, name: str, plain: str) -> Any:
    """Return a method that does in another way what another method does too; None where there is none.

    Of a subclass that has the plain one anew, as a plug-in's may, the other is not.
    """
    owners = [next((c for c in type(thing).__mro__ if n in vars(c)), None) for n in (name, plain)]
    return getattr(thing, name) if owners[0] is owners[1] is not None else None
