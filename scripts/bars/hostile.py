"""Hostile outputs folders: whatever a stranger's folder holds, commands answer in lines and touch nothing outside."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from hostile import make, try_number

from bars.base import Bar, cases

FOLDERS = 300


def _try(base: Path, number: int) -> list[str]:
    # A bug's traceback belongs to the folder that shows it.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DYNALAB_OUTPUTS"] = f"{folder}/none"
        return try_number(number, base, Path(folder, "work"))


def stored(work: Path, name: str) -> Path:
    """Return a small outputs folder of a bar's own, made whole or not at all."""
    base = work / name / "outputs"
    if not base.is_dir():
        with tempfile.TemporaryDirectory(dir=work) as folder:
            made = Path(folder, "outputs")
            make(made)
            base.parent.mkdir(exist_ok=True)
            made.rename(base)
    return base


def measure(work: Path) -> tuple[str, bool]:
    """Count the hostile folders in which a command went wrong."""
    base = stored(work, "hostile")
    wrong = cases(work / "hostile.jsonl", range(FOLDERS), partial(_try, base))
    n_good = sum(not lines for lines in wrong)
    return f"{n_good} of {FOLDERS}", n_good == FOLDERS


BARS = [
    Bar(
        "hostile",
        "Outputs folders damaged and booby-trapped at random, 23 commands on each",
        f"no traceback, nothing run, nothing touched outside: {FOLDERS} of {FOLDERS}",
        "tests/test_trust.py::test_hostile_outputs_folders_do_no_harm",
        measure,
        sources=("dynalab", "conf", "tests/hostile.py"),
    )
]
