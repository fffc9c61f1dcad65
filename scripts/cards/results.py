"""The file of results, and the table that is made of it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cards.base import ROOT, Check

ABOUT = (
    "card",
    "memory_gib",
    "driver",
    "cuda",
    "cudnn",
    "torch",
    "numpy",
    "python",
    "cpu",
    "cores",
    "commit",
    "date",
)


class Results:
    """The file of results; the last one of a check counts."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.of: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                self.of[item["check"]] = item

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Keep a result and say it."""
        item = {"check": name, **result}
        with self._lock:
            self.of[name] = item
            with self.path.open("a") as file:
                file.write(json.dumps(item) + "\n")
            verdict = "ok    " if item["ok"] else "FAILED"
            print(f"{verdict} {item['seconds']:6.1f} s  {name}: {item['measured']}", flush=True)


def write_table(checks: Sequence[Check], results: Results, path: Path) -> None:
    """Write the table of results."""
    about = results.of.get("environment", {}).get("more", {})
    lines = ["# On a CUDA card", ""]
    lines += ["Made by `scripts/cuda`; every figure is measured.", ""]
    for key in ABOUT:
        if about.get(key) is not None:
            lines.append(f"- {key.replace('_gib', ' (GiB)')}: {about[key]}")
    lines += ["", "| check | must be | measured | |", "| --- | --- | --- | --- |"]
    for check in checks:
        item = results.of.get(check.name)
        cells = [check.name, "", "not made", ""]
        if item:
            cells = [check.name, item["must"], item["measured"], "ok" if item["ok"] else "FAILED"]
        # Where a project lies on this machine is nobody's business.
        cells = [str(cell).replace(str(ROOT), ".").replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
