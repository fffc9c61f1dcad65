"""The bars of `scripts/verify`, a file a subject: every module here has a list `BARS`."""

from __future__ import annotations

import importlib
import pkgutil

from bars.base import Bar


def _all() -> list[Bar]:
    names = sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name != "base")
    # The main job first: what everything rests on.
    names.sort(key=lambda name: name != "main_job")
    return [bar for name in names for bar in getattr(importlib.import_module(f"bars.{name}"), "BARS", ())]


BARS: list[Bar] = _all()
