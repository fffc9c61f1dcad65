"""What every bar is made of: its record, the command line, and measurements that outlive an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from state import ROOT as ROOT
from state import hashed


@dataclass(frozen=True)
class Bar:
    """One bar: what is measured, what it must reach, and the measurement.

    Attributes:
        name: Word for the command line; `group:subject` where one bar has several subjects, which are measured alone.
        what: What is measured.
        must: What it must reach.
        twin: The reduced test in the suite.
        measure: Given a folder that lasts until the sources change, returns (figure as text, whether it reached
            the bar), and where one figure is not enough a table: rows of text, the first its header.
        sources: Folders and files, relative to the project, that the figure depends on: a change there, and the bar
            is measured anew. Bars of the same sources share their folder.
        lacking: Returns what it needs and this machine has not, as a line; nothing where all is there.
    """

    name: str
    what: str
    must: str
    twin: str
    measure: Callable[[Path], tuple[str, bool] | tuple[str, bool, list[list[str]]]]
    sources: tuple[str, ...] = ("dynalab", "conf")
    lacking: Callable[[], str] = lambda: ""

    @property
    def group(self) -> str:
        """The word of the bar, whatever the subject."""
        return self.name.partition(":")[0]

    @property
    def subject(self) -> str:
        """The subject, where it is one of several."""
        return self.name.partition(":")[2]

    def digest(self) -> str:
        """Hash what the figure depends on."""
        return hashed(self.sources)


def dynalab(*words: str, outputs: Path) -> Any:
    """Run a command with --json and return its object."""
    done = subprocess.run(
        [sys.executable, "-m", "dynalab", *words, "--json", "--outputs", str(outputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"dynalab {' '.join(words)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def workers(processes: int = 2) -> ProcessPoolExecutor:
    """Processes for `cases`."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def cases(
    path: Path,
    numbers: Iterable[int],
    measure: Callable[[int], Any],
    processes: int = 2,
    pool: ProcessPoolExecutor | None = None,
) -> list[Any]:
    """Measure numbered cases in processes, keeping each in a file of JSON lines: what stands there is not repeated.

    Args:
        path: The file.
        numbers: The cases, fixed in advance.
        measure: A function of a module (it is pickled) from a case's number to a JSON value.
        processes: How many at once.
        pool: Processes that are there already, for many files of short cases; None: made here.

    Returns:
        The values in the order of the numbers.
    """
    known: dict[int, Any] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                number, value = json.loads(line)
            except ValueError:
                continue
            known[number] = value
    numbers = list(numbers)
    missing = [number for number in numbers if number not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file, nullcontext(pool) if pool else workers(processes) as started:
        for number, value in zip(missing, started.map(measure, missing), strict=True):
            known[number] = value
            file.write(json.dumps([number, value]) + "\n")
            file.flush()
    return [known[number] for number in numbers]
