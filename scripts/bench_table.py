"""Measures the subjects of scripts/benches and prints one table; what was measured stays in outputs/bench/."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Made-up stored runs of the suite are those of the benches.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benches.base import ROOT, Options, Row, Subject, Unavailable
from benches.subjects import SUBJECTS

BUSY = "\nThe machine was busy: a loop with PyTorch's default of threads suffers from that most, so its ratios flatter."
HEADER = ("work", "against", "measured", "bar", "reached")


def machine() -> dict[str, Any]:
    """Name the machine, how busy it was, and the versions."""
    from importlib import metadata

    from dynalab.core.machine import cores
    from dynalab.training.provenance import cpu_type

    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": cpu_type(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "torch": metadata.version("torch"),
        "commit": commit or None,
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
    }


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as text: the median of the pairs and their spread, and whether it reaches the bar."""
    spread = f" ({min(row.values):.2f} to {max(row.values):.2f})" if len(row.values) > 1 else ""
    bar = "-" if row.bar is None else f"{'>=' if row.at_least else '<='} {row.bar:g}"
    reached = {None: "-", True: "yes", False: "NO"}[row.reached]
    return row.work, row.against, f"{row.median:.2f} times{spread}", bar, reached


def table(rows: Sequence[Row], where: dict[str, Any], options: Options) -> str:
    """Return the table with its notes."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    text += ["", "Seconds (medians):" if any(row.seconds for row in rows) else ""]
    seen = set()
    for row in rows:
        if row.seconds and row.work not in seen:
            seen.add(row.work)
            medians = ", ".join(f"{name} {_median(values):.3g}" for name, values in row.seconds.items())
            text.append(f"  {row.work}: {medians}")
    text += [f"  {line}" for line in dict.fromkeys(f"{row.against}: {row.note}" for row in rows if row.note)]
    pairs = f"{options.pairs} pair{'s' * (options.pairs != 1)}"
    sizes = ", reduced sizes: the figures mean nothing" if options.quick else ""
    text.append(
        f"\nMachine: {where['cpu']}, {where['cores']} cores, load {where['load']:.1f} before; torch {where['torch']}, "
        f"commit {where['commit']}, {where['date']}; medians of {pairs}{sizes}.\n"
        "Whole commands start from nothing: the planner's trial is theirs too."
        f"{BUSY if where['load'] > 0.5 else ''}"
    )
    return "\n".join(text)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def keep(folder: Path, name: str, rows: Sequence[Row], where: dict[str, Any], options: Options) -> None:
    """Write what a subject came to."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [dataclasses.asdict(row) | {"median": row.median, "reached": row.reached} for row in rows]
    document = {
        "schema_version": 1,
        "subject": name,
        "machine": where,
        "pairs": options.pairs,
        "quick": options.quick,
        "full": options.full,
        "rows": results,
    }
    (folder / f"{name}{'-quick' * options.quick}.json").write_text(json.dumps(document, indent=1) + "\n")


def chosen(names: Sequence[str]) -> list[Subject]:
    """Return the subjects that are named, all where none is; `jax` names every one that begins with `jax-`.

    Raises:
        LookupError: A name names none.
    """
    picked = {
        name: [s for s in SUBJECTS if s.name == name or s.name.startswith(f"{name}-")] for name in names
    }
    if unknown := sorted(name for name, found in picked.items() if not found):
        raise LookupError(f"no subject {', '.join(unknown)}; --list names them")
    return [s for s in SUBJECTS if not names or any(s in found for found in picked.values())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; 1 where a bar is not reached, 2 where what to compare with cannot be had."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="subjects to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="name the subjects")
    parser.add_argument(
        "--quick", action="store_true", help="reduced sizes, one pair: minutes, and no verdicts"
    )
    parser.add_argument("--full", action="store_true", help="loops train every seed too, nothing is scaled")
    parser.add_argument("--pairs", type=int, help="repetitions of every comparison (default 3; quick 1)")
    parser.add_argument("--json", action="store_true", help="print what is kept instead of the table")
    parser.add_argument("--keep", type=Path, default=ROOT / "outputs/bench", help="folder of the results")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(f"{subject.name:16} {subject.what}" for subject in SUBJECTS))
        return 0
    try:
        subjects = chosen(given.names)
    except LookupError as error:
        parser.error(str(error))
    if given.pairs is not None and given.pairs < 1:
        parser.error(f"--pairs {given.pairs}: expected at least 1")
    options = Options(
        pairs=given.pairs or (1 if given.quick else 3),
        quick=given.quick,
        full=given.full,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    where = machine()
    rows: list[Row] = []
    missing: list[str] = []
    for subject in subjects:
        try:
            own = subject.measure(options)
        except Unavailable as error:
            missing.append(str(error))
            continue
        keep(given.keep, subject.name, own, where, options)
        rows += own
    print(*dict.fromkeys(missing), sep="\n", end="\n" * bool(missing), file=sys.stderr)
    if missing and not rows:
        return 2
    if given.json:
        print(
            json.dumps({"schema_version": 1, "machine": where, "rows": [dataclasses.asdict(r) for r in rows]})
        )
    else:
        print(table(rows, where, options))
    return 1 if any(row.reached is False for row in rows) else 2 * bool(missing)


if __name__ == "__main__":
    sys.exit(main())
