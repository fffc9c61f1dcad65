"""Which build of compiled code makes a shard's rows and its updates: it goes on by the one that it began with.

`plan` of run.json names it: `rows`, and `compiled` where updates are, or were, compiled. Torch counts as one that is
always there: what began by it, whatever was lacking then, goes on by it where compiled code can be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalab.config import compiling
from dynalab.core.errors import ConfigError
from dynalab.core.words import listed
from dynalab.networks import compiler
from dynalab.probes import spectra
from dynalab.store.runfile import TORCH

# Keys of a plan that say it.
KEYS = ("compile", "compiled", "rows")
_PARTS = {
    "rows": ("statistics of weights were found", spectra.SOURCE),
    "compiled": ("updates were made", compiler.SOURCE),
}


def here(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return what rows of a shard are made by on this machine's CPU, and updates where its plan says of them."""
    made = {"rows": TORCH if plan.get("rows") == TORCH else spectra.code()}
    if "compiled" in plan:
        code = compiler.made(None) if plan.get("compile") else None
        made["compiled"] = TORCH if code is None else code.stem
    return made


def require(name: str, plan: Mapping[str, Any], made: Mapping[str, str]) -> None:
    """Refuse to go on with a shard by other builds than it was begun with.

    Args:
        name: The shard's.
        plan: Its plan.
        made: What `here` returned.

    Raises:
        ConfigError: They are others, or none.
    """
    other = [part for part in _PARTS if part in made and plan.get(part, made[part]) != made[part]]
    if gone := [part for part in other if made[part] == TORCH]:
        what, why = listed([_PARTS[part][0] for part in gone]), _lacking(_PARTS[gone[0]][1])
        raise ConfigError(
            f"{name}: its {what} in compiled code, which cannot be had here: {why}; --anyway goes on by torch, and its "
            "bits change midway"
        )
    if other:
        raise ConfigError(
            f"{name}: was begun in code of another compiler, processor or version of dynalab, whose bits may be "
            "others; --anyway goes on"
        )


def _lacking(source: Path) -> str:
    """Return why the library of a source cannot be had on this machine."""
    if compiling.compiler() is None:
        return "there is no C++ compiler (install one, apt-get install g++, or name one in CXX)"
    why: list[str] = []
    compiling.available(source, why=why.append)
    return why[0] if why else "it lacks a function"
