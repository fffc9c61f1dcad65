"""Command lines made at random: whatever is typed is answered in lines."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from fuzz_lines import furnish, try_number

from bars.base import Bar, cases
from bars.hostile import stored

LINES = 1000


def _try(base: Path, number: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DYNALAB_OUTPUTS"] = f"{folder}/none"
        furnish(Path(folder, "nonsense"))
        return try_number(number, base, Path(folder))


def measure(work: Path) -> tuple[str, bool]:
    """Count the command lines that were answered badly."""
    base = stored(work, "fuzz")
    wrong = cases(work / "fuzz.jsonl", range(LINES), partial(_try, base))
    n_good = sum(not lines for lines in wrong)
    return f"{n_good:,} of {LINES:,}", n_good == LINES


BARS = [
    Bar(
        "fuzz",
        "Command lines made at random from the commands, keys, values and what is stored",
        "exit code 0, 2, 3 or 4, no traceback, a few lines, nothing stored changed",
        "tests/test_trust.py::test_command_lines_made_at_random_are_answered_in_lines",
        measure,
        sources=("dynalab", "conf", "tests/fuzz_lines.py", "tests/hostile.py"),
    )
]
