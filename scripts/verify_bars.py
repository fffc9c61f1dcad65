"""Measures the bars that take minutes; what they came to is in scripts/verified.json and, as a table, beside it."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# The oracles of the suite are the oracles here.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bars import BARS
from bars.base import ROOT
from state import commit, machine

RECORDS = ROOT / "scripts/verified.json"
WORK = ROOT / "outputs/verify"
TABLE = ROOT / "scripts/verified.md"
HEAD = """# What was measured at full size

Written by `scripts/verify`, which measures anew what a change of the source made old. Each bar has a reduced twin in
the test suite; `at` is the commit that was measured.
"""


def main() -> int:
    """Measure, record, and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="bars, or all subjects of one, to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="name the bars")
    parser.add_argument("--again", action="store_true", help="measure even what was measured at this state")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{bar.name:12} {bar.what}: {bar.must}" for bar in BARS))
        return 0
    unknown = set(options.names) - {name for bar in BARS for name in (bar.name, bar.group)}
    if unknown:
        parser.error(f"no bar {', '.join(sorted(unknown))}; --list names them")
    records, at = known(), commit()
    digests = {bar.name: bar.digest() for bar in BARS}
    for stale in WORK.glob("*"):
        # Results of another state of the sources are not this state's.
        if stale.name not in digests.values():
            shutil.rmtree(stale)
    for bar in BARS:
        if options.names and not {bar.name, bar.group} & set(options.names):
            continue
        source = digests[bar.name]
        if not options.again and records.get(bar.name, {}).get("source") == source:
            continue
        if line := bar.lacking():
            print(f"{bar.name}: {line}", flush=True)
            continue
        print(f"{bar.name}: {bar.what} ...", flush=True)
        work = WORK / source
        work.mkdir(parents=True, exist_ok=True)
        figure, reached, *table = bar.measure(work)
        reached = bool(reached)
        print(f"  {figure}: {'reached' if reached else 'NOT REACHED'}", flush=True)
        record = {
            "figure": figure,
            "reached": reached,
            "commit": at,
            "source": source,
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
        }
        if table:
            record["table"] = table[0]
        # Another process may have measured others meanwhile.
        records = {**known(), bar.name: record}
        RECORDS.write_text(json.dumps(records, indent=1) + "\n")
        write_table(records)
    write_table(records)
    return 0 if all(records.get(bar.name, {}).get("reached") for bar in BARS) else 1


def known() -> dict[str, Any]:
    """Return what was measured: name of a bar -> its record."""
    return dict(json.loads(RECORDS.read_text())) if RECORDS.is_file() else {}


def write_table(records: dict[str, Any]) -> None:
    """Write the table."""
    lines = ["| what | must | measured | at | date |", "|---|---|---|---|---|"]
    for bar in BARS:
        record = records.get(bar.name)
        what = f"{bar.what}: {bar.subject}" if bar.subject else bar.what
        if record is None:
            lines.append(f"| {what} | {bar.must} | not measured yet | | |")
            continue
        figure = record["figure"] + ("" if record["reached"] else " (**not reached**)")
        lines.append(f"| {what} | {bar.must} | {figure} | {record['commit']} | {record['date']} |")
    machines = sorted({record["machine"] for record in records.values()})
    lines += ["", f"Machine: {'; '.join(machines)}."] if machines else []
    for group in dict.fromkeys(bar.group for bar in BARS):
        several = [bar for bar in BARS if bar.group == group]
        tables = [table for bar in several if (table := records.get(bar.name, {}).get("table"))]
        if tables:
            what, header = several[0].what, tables[0][0]
            # In their order; of several subjects by their first cells.
            rows = [row for table in tables for row in table[1:]]
            rows = sorted(rows) if len(several) > 1 else rows
            lines += ["", f"## {what[0].upper()}{what[1:]}", ""]
            lines += map(_row, [header, ["---"] * len(header), *rows])
    TABLE.write_text("\n".join([HEAD, *lines]) + "\n")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
