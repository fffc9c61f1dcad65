"""Tries the claim sheets; what their claims came to is in scripts/exam.json and, as a page, in docs/exam.md."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from state import ROOT, commit, hashed, machine

from dynalab.core.words import clean, number, spoken
from dynalab.reproduce.reading import sheet_names
from dynalab.reproduce.verdict import bounds_in_words, tally

RECORDS = ROOT / "scripts/exam.json"
PAGE = ROOT / "docs/exam.md"
WORK = ROOT / "outputs/exam"
# What the numbers of a sheet do not come from.
_APART = ("__main__.py", "cli", "report", "show", "imports", "reproduce")
HEAD = """# The exam

What the claims of every [sheet](reproduce.md) came to at scale `cpu`, as `scripts/exam` measured it. Seeds and regions
were fixed before those seeds were run, some settings and regions after others had been: a sheet's first lines say
which, and a claim that was added later says so. Nothing is left out. Under a removal the main claim is tried without
its cause, and must not agree.
"""


def sources() -> list[str]:
    """Return the folders and files that what a sheet measures comes from, but for the sheet."""
    parts = [path for path in sorted((ROOT / "dynalab").iterdir()) if path.name not in _APART]
    parts += [path for path in sorted((ROOT / "conf").iterdir()) if path.name != "reproduce"]
    return [
        path.relative_to(ROOT).as_posix()
        for path in parts
        if path.is_dir() or path.suffix in (".py", ".yaml")
    ]


def main(arguments: Sequence[str]) -> int:
    """Try the sheets, record what they came to, and rewrite the page; 1 where one did not end well."""
    parser = argparse.ArgumentParser(prog="scripts/exam", description=__doc__)
    parser.add_argument("names", nargs="*", help="sheets (default: all)")
    parser.add_argument("--scale", choices=("ci", "cpu"), default="cpu")
    parser.add_argument("--again", action="store_true", help="try even what was tried at this state")
    options = parser.parse_args(arguments)
    known = sheet_names(())
    if unknown := set(options.names) - set(known):
        parser.error(f"no sheet {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    names = [name for name in known if not options.names or name in options.names]
    if options.scale == "ci":
        # At this scale the machinery is tried: what a claim comes to may differ between machines. A command's
        # seconds are mostly its start, on one core: two sheets at once, with an outputs folder each.
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as lanes:
            sheets = list(lanes.map(lambda name: _tried(name, "ci", Path(folder) / name), names))
        return max(int(bool(sheet["failed"])) for sheet in sheets)
    records = json.loads(RECORDS.read_text()) if RECORDS.is_file() else {}
    state = hashed(sources())
    for stale in WORK.glob("*"):
        # What another state of the sources trained is not this state's.
        if stale.name != state:
            shutil.rmtree(stale)
    for name in names:
        source = hashed([*sources(), "dynalab/reproduce", f"conf/reproduce/{name}.yaml"])
        if not options.again and records.get(name, {}).get("source") == source:
            continue
        print(f"{name} ...", flush=True)
        begun = time.monotonic()
        sheet = _tried(name, "cpu", WORK / state)
        records[name] = {
            "sheet": sheet,
            "seconds": round(time.monotonic() - begun),
            "commit": commit(),
            "source": source,
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
        }
        RECORDS.write_text(json.dumps(records, indent=1) + "\n")
        PAGE.write_text(page({name: records.get(name) for name in known}), "utf-8")
    return max(_ends(records[name]["sheet"]) for name in names)


def _tried(name: str, scale: str, outputs: Path) -> dict[str, Any]:
    """Carry a sheet out, and return what its claims came to."""
    outputs.mkdir(parents=True, exist_ok=True)
    words = ["reproduce", name, "--scale", scale, "--json", "--outputs", str(outputs)]
    done = subprocess.run([sys.executable, "-m", "dynalab", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)
    (sheet,) = json.loads(done.stdout)["sheets"]
    failed = "".join(f"; FAILED: {item['command']}: {item['why']}" for item in sheet["failed"])
    print(f"{name} ({scale}): {_counted(sheet)}{failed}", flush=True)
    return dict(sheet)


def _ends(sheet: Mapping[str, Any]) -> int:
    """Return 1 where something failed, or a claim disagrees."""
    return int(bool(sheet["failed"]) or any(claim["verdict"] == "disagrees" for claim in sheet["claims"]))


def _counted(sheet: Mapping[str, Any]) -> str:
    return tally(claim["verdict"] for claim in sheet["claims"])


def page(records: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return the page: a table of all sheets, then a section each."""
    rows = [["sheet", "claims", "removals that agree", "failed", "minutes", "at", "date"]]
    sections: list[str] = []
    for name, record in records.items():
        if record is None:
            rows.append([f"`{name}`", "not tried yet", "", "", "", "", ""])
            continue
        sheet = record["sheet"]
        agree = sum(item["verdict"] == "agrees" for item in sheet["removals"])
        of = f"{agree} of {len(sheet['removals'])}"
        # Null where it was interrupted.
        spent = "-" if record["seconds"] is None else f"{record['seconds'] / 60:.1f}"
        rows.append(
            [
                f"[`{name}`](#{name})",
                _counted(sheet),
                of,
                str(len(sheet["failed"])),
                spent,
                record["commit"],
                record["date"],
            ]
        )
        sections += _section(name, sheet)
    machines = sorted({record["machine"] for record in records.values() if record})
    return "\n".join([HEAD, *_table(rows), "", f"Machine: {'; '.join(machines)}.", *sections]) + "\n"


def _section(name: str, sheet: Mapping[str, Any]) -> list[str]:
    paper = (
        f"[{sheet['paper']}](https://arxiv.org/abs/{sheet['arxiv']})" if sheet["arxiv"] else sheet["paper"]
    )
    rows = [["claim", "published", "here", "region", "verdict"]]
    for item in sheet["claims"]:
        published = [item["published"], f"({item['section']})" if item["section"] else None]
        verdict = f"{spoken(item['verdict'])}: {item['why']}"
        rows.append(
            [
                item["says"],
                " ".join(str(part) for part in published if part is not None),
                _here(item),
                bounds_in_words(item["region"]),
                verdict,
            ]
        )
    for item in sheet["removals"]:
        verdict = f"{spoken(item['verdict'])}: {item['why']}"
        rows.append([f"`{item['claim']}` without {item['removes']}", "", _here(item), "", verdict])
    failed = [f"- Failed: {item['command']}: {item['why']}" for item in sheet["failed"]]
    return [
        "",
        f"## {name}",
        "",
        f"{paper}. {sheet['title']}.",
        "",
        *_table(rows),
        *[""] * bool(failed),
        *failed,
    ]


def _here(item: Mapping[str, Any]) -> str:
    if item["measured"] is None:
        return f"{bounds_in_words(item['interval'])}, n = {item['n']}" if item["interval"] else ""
    interval = f" [{bounds_in_words(item['interval'])}]" if item["interval"] else ""
    return f"{number(item['measured'])}{interval}, n = {item['n']}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(clean(cell).replace('|', '&#124;') for cell in row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
