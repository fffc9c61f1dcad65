"""Libraries that are made of C++ for the machine at hand, once, and kept among the caches."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.places import cache_folder
from dynalab.core.atomic import storing
from dynalab.core.errors import ConfigError, DynalabError

if TYPE_CHECKING:
    import ctypes

COMPILERS = ("c++", "g++", "clang++")
# NaN and infinity stay what they are: a run that diverges is seen by them.
FLAGS = ("-O2", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
# As clang does at -O2. At -O3 GCC takes half as long again for code that is no faster.
VECTORS = ("-ftree-vectorize", "-fvect-cost-model=dynamic")
AGAIN_SECONDS = 60.0
# What could not be made, of which source by which compiler -> why, and until when that is not tried again.
_failed: dict[tuple[object, ...], tuple[str, float]] = {}


def compiler() -> list[str] | None:
    """Return the command of the C++ compiler, `CXX` where that is set; None where there is none."""
    own = shlex.split(os.environ.get("CXX", ""))
    for command in (own,) if own else ([name] for name in COMPILERS):
        if shutil.which(command[0]):
            return command
    return None


def require() -> list[str]:
    """Return the command of the C++ compiler.

    Raises:
        ConfigError: There is none.
    """
    command = compiler()
    if command is None:
        named = os.environ.get("CXX")
        what = f"CXX={named} is no command" if named else f"there is none of {', '.join(COMPILERS)}"
        raise ConfigError(
            f"a C++ compiler is needed, and {what} on this machine; install one (apt-get install g++), name one "
            "in CXX, or train without"
        )
    return command


def library(source: Path, say: Callable[[str, float], None] = lambda command, seconds: None) -> Path:
    """Return the library of a source for this machine, compiled where it is not kept yet; `say` is told what that took.

    Raises:
        ConfigError: There is no compiler, it fails, or what it made cannot be loaded.
        StoreError: Nothing can be kept.
    """
    made = _made(source, say)
    if loaded(made, {}) is None:
        raise ConfigError(f"{made} cannot be loaded; delete it, or train without")
    return made


def _made(source: Path, say: Callable[[str, float], None]) -> Path:
    command = require()
    version = _version(*command)
    compiling = [*command, *FLAGS, *(() if "clang" in version else VECTORS)]
    about = [*compiling, version, _processor()]
    # What a library is made of are its headers as well.
    parts = [source, *sorted(source.parent.glob(f"{source.stem}_*.h"))]
    text = b"".join(part.read_bytes() for part in parts)
    name = hashlib.sha256(text + "\0".join(about).encode()).hexdigest()[:16]
    folder = cache_folder()
    made = folder / f"{source.stem}-{name}.so"
    if made.is_file():
        return made
    began = time.perf_counter()
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with storing(folder), tempfile.TemporaryDirectory(dir=folder) as aside:
        fresh = Path(aside, made.name)
        done = _run([*compiling, str(source), "-o", str(fresh)])
        if done.returncode:
            line = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            why = line or f"it ended with {done.returncode}"
            raise ConfigError(f"{shlex.join(command)} could not compile {source.name}: {why}")
        # Another process may have made the same meanwhile.
        os.replace(fresh, made)
    say(command[0], time.perf_counter() - began)
    return made


def available(
    source: Path,
    say: Callable[[str, float], None] = lambda command, seconds: None,
    why: Callable[[str], None] = lambda reason: None,
) -> Path | None:
    """Return the library of a source as `library` does, for what can be done without: None where that cannot be.

    Then `why` is told the reason, which holds in this process for a minute: a compiler whose output cannot be kept
    takes its time, too.
    """
    about = (source, os.environ.get("XDG_CACHE_HOME"), *(compiler() or ()))
    reason, until = _failed.get(about, ("", 0.0))
    if time.monotonic() >= until:
        try:
            return library(source, say)
        except (DynalabError, OSError) as error:
            reason = str(error)
            _failed[about] = reason, time.monotonic() + AGAIN_SECONDS
    why(reason)
    return None


def loaded(made: Path | None, functions: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """Return the code of a library whose functions take arguments of these types; None where it is not that."""
    import ctypes

    if made is None:
        return None
    try:
        code = ctypes.CDLL(str(made))
        for name, types in functions.items():
            getattr(code, name).argtypes = types
    except (OSError, AttributeError):
        return None
    return code


@lru_cache
def _version(*command: str) -> str:
    return _run([*command, "--version"]).stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _processor() -> str:
    """Return what tells instruction sets apart: processors of several kinds may share the caches."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return ""
