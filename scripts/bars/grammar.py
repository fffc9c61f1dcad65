"""The grammar of commands: every combination of shipped parts composes, or says in a line which file is in the way."""

from __future__ import annotations

from pathlib import Path

from bars.base import Bar


def walk(work: Path) -> tuple[str, bool]:
    """Walk all combinations of tasks, models, optimizers and schedules, and experiments with an option of each."""
    from test_compose import combinations, unexplained

    found = unexplained()
    first = f"; the first: {found[0]}" if found else ""
    return f"{len(found)} of {len(combinations()):,} end otherwise{first}", not found


BARS = [
    Bar(
        "grammar",
        "Combinations of shipped parts that neither compose nor name the file that is in the way",
        "none",
        "test_compose.py",
        walk,
        (
            "dynalab/config",
            "dynalab/models",
            "dynalab/optim",
            "dynalab/tasks",
            "conf",
            "tests/test_compose.py",
        ),
    )
]
