"""Tables of runs as somebody else may write them: odd names, gaps, repeats, three forms, six formats.

`python tests/tables.py 500` imports 500 of them and prints which were read otherwise than by hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

FORMS = ("long", "keyed", "wide")
TEXTS = ("run", "step", "notes", "metric")
FORMATS = ("a.csv", "b.tsv", "c.csv", "d.parquet", "e.jsonl", "f.parquet")
MISSING = ("", "nan", "NaN", "NAN", "NA", "N/A", "None", "none", "null", "NULL", "<NA>", "-nan")
INFINITE = ("inf", "Infinity", "+inf", "INF", "+Infinity")
RUNS = (
    "None",
    "NA",
    "null",
    "nan",
    "007",
    "7",
    "1e3",
    "a b",
    "ä/b",
    'say "hi"',
    "x - y",
    "-",
    "run",
    "Ünï",
    "0.10",
)
METRICS = (
    "loss",
    "train/loss",
    "acc %",
    "λ max",
    'a"b',
    "grad_norm",
    "value",
    "key",
    "val acc",
    "__MIN",
    "2nd",
)
Truth = dict[tuple[str, int], dict[str, float]]


def make(random_: random.Random) -> tuple[list[dict[str, Any]], Truth]:
    """Return rows as they are written, cells as numbers, None or texts, and the value of each run, step and metric."""
    runs = random_.sample(RUNS, random_.randint(1, 5))
    metrics = random_.sample(METRICS, random_.randint(1, 4))
    truth: Truth = {}
    rows = []
    for run in runs:
        start = random_.choice([0, 0, 1, 1_000_000])
        for step in sorted(random_.sample(range(start, start + 60), random_.randint(1, 12))):
            own = {metric: _value(random_) for metric in metrics}
            truth[run, step] = {metric: value for metric, value in own.items() if not math.isnan(value)}
            parts = [own]
            if random_.random() < 0.2:
                # Once more, or in two rows that fill each other's gaps.
                first = set(random_.sample(metrics, random_.randint(0, len(metrics))))
                kept = {name: value if name in first else math.nan for name, value in own.items()}
                rest = {name: math.nan if name in first else value for name, value in own.items()}
                parts = random_.choice([[own, own], [kept, rest], [own, rest]])
            rows += [{"run": run, "step": step, **part} for part in parts]
    random_.shuffle(rows)
    return rows, {place: own for place, own in truth.items() if own}


def _value(random_: random.Random) -> float:
    kind = random_.random()
    if kind < 0.15:
        return math.nan
    if kind < 0.2:
        return random_.choice([math.inf, -math.inf])
    return random_.choice(
        [random_.gauss(0, 1), random_.random() * 1e-30, float(random_.randint(-9, 9)), 1e300, -0.0]
    )


def keyed(rows: list[dict[str, Any]], random_: random.Random) -> list[dict[str, Any]]:
    """Return a row for each value, and for some that are missing."""
    found = []
    for row in rows:
        for name, value in row.items():
            if name not in ("run", "step") and not (math.isnan(value) and random_.random() < 0.5):
                found.append({"run": row["run"], "step": row["step"], "metric": name, "value": value})
    return found


def wide(truth: Truth) -> list[dict[str, Any]]:
    """Return a row for each step, with a column for each run and metric."""
    columns = {f"{run} - {name}": math.nan for (run, _), own in truth.items() for name in own}
    rows: dict[int, dict[str, Any]] = {}
    for (run, step), own in truth.items():
        row = rows.setdefault(step, {"step": step, **columns})
        row.update({f"{run} - {name}": value for name, value in own.items()})
    return list(rows.values())


def write(rows: list[dict[str, Any]], path: Path, random_: random.Random) -> None:
    """Write rows in the format of a file's name."""
    columns = list(rows[0])
    random_.shuffle(columns)
    extra = random_.random() < 0.3
    named = {name: f" {name} " if random_.random() < 0.2 else name for name in columns}
    text = path.name != "d.parquet"
    comma = path.name == "c.csv" and random_.random() < 0.5
    table: dict[str, list[Any]] = {}
    for name in columns:
        cells = [row[name] for row in rows]
        if name not in TEXTS and text:
            cells = [_spelled(cell, random_, comma) for cell in cells]
        table[named[name]] = cells
    if extra:
        table["notes"] = [random_.choice(["fine", "", "NaN", "stopped, then went on"]) for _ in rows]
        table["gone"] = [None] * len(rows)
    if path.suffix == ".jsonl":
        lines = []
        for index in range(len(rows)):
            line = {name: cells[index] for name, cells in table.items()}
            # Numbers as numbers, and what is missing may be absent.
            line = {name: _json(name.strip(), cell, random_) for name, cell in line.items()}
            lines.append(json.dumps({name: cell for name, cell in line.items() if cell is not ...}))
        path.write_text("\n".join(lines) + "\n")
        return
    frame = pd.DataFrame(table)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
        return
    separator = {"a.csv": ",", "b.tsv": "\t", "c.csv": ";"}[path.name]
    frame.to_csv(
        path, index=random_.random() < 0.2, sep=separator, encoding=random_.choice(["utf-8", "utf-8-sig"])
    )


def _spelled(value: float, random_: random.Random, comma: bool) -> str:
    if math.isnan(value):
        return random_.choice(MISSING)
    if math.isinf(value):
        return random_.choice(INFINITE) if value > 0 else random_.choice(["-inf", "-Infinity"])
    text = repr(value)
    text = random_.choice([text, text, f"{value:.17g}", f" {text} "])
    return text.replace(".", ",") if comma else text


def _json(name: str, cell: Any, random_: random.Random) -> Any:
    if name in TEXTS or not isinstance(cell, str) or random_.random() < 0.3:
        return cell
    if cell in MISSING:
        return random_.choice([..., None, math.nan])
    return float(cell)


def spoil(rows: list[dict[str, Any]], random_: random.Random) -> list[dict[str, Any]]:
    """Return rows of which nothing can be made."""
    rows = [dict(row) for row in rows]
    row = random_.choice(rows)
    metric = next((name for name in row if name not in ("run", "step")), "")
    kind = random_.choice(["negative", "half", "none", "nameless", "contradiction", "texts"])
    if kind == "contradiction":
        return [*rows, {**row, metric: 41.0}, {**row, metric: 43.0}]
    if kind == "texts":
        return [{"run": row["run"], "step": row["step"]} for row in rows]
    change = {
        "negative": ("step", -1),
        "half": ("step", 0.5),
        "none": ("step", None),
        "nameless": ("run", ""),
    }
    row.update([change[kind]])
    return rows


def imported(path: Path, outputs: Path, form: str) -> tuple[int, str, dict[str, Any]]:
    """Import a file and return (exit code, what was said, the answer)."""
    from dynalab.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    how = {"long": ["--run", "run"], "keyed": ["--run", "run", "--key", "metric"], "wide": ["--wide"]}[form]
    words = ["import", str(path), "--name", "mine", *how, "--step", "step", "--json"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*words, "--outputs", str(outputs)])
    return code, err.getvalue(), json.loads(out.getvalue()) if code == 0 else {}


def found(outputs: Path) -> Truth:
    """Return what is stored, as `make` says it."""
    import dynalab

    ensemble = dynalab.load("mine", outputs=outputs)
    held: Truth = {}
    for run in ensemble.runs:
        names = run.record.plan.get("names", {})
        rows = ensemble.trajectory(run, ensemble.metrics)
        for step, values in zip(rows.steps, rows.values, strict=True):
            own = dict(zip(ensemble.metrics, map(float, values), strict=True))
            held[names.get(run.label, run.label), int(step)] = {
                name: value for name, value in own.items() if not math.isnan(value)
            }
    return held


def kept(truth: Truth) -> Truth:
    """Return what is read of a truth: rows of a run end where a loss begins to be infinite to its last value."""
    ends: dict[str, float] = {}
    for run, name in {(run, name) for (run, _), own in truth.items() for name in own if "loss" in name}:
        known = sorted((step, own[name]) for (one, step), own in truth.items() if one == run and name in own)
        while known and math.isinf(known[-1][1]):
            ends[run] = min(ends.get(run, math.inf), known.pop()[0])
    return {(run, step): own for (run, step), own in truth.items() if step < ends.get(run, math.inf)}


def try_number(number: int, folder: Path) -> list[str]:
    """Import the table of a number in two forms and formats and return what was wrong."""
    random_ = random.Random(number)
    rows, truth = make(random_)
    wrong, ids = [], set()
    spoilt = random_.random() < 0.2 or not truth
    if spoilt:
        rows = spoil(rows, random_)
    for name in random_.sample(FORMATS, 2):
        form = "long" if spoilt else random_.choice(FORMS)
        made = keyed(rows, random_) if form == "keyed" else wide(truth) if form == "wide" else rows
        write(made, folder / name, random_)
        outputs = folder / f"outputs-{name}"
        try:
            code, said, answer = imported(folder / name, outputs, form)
        except Exception as error:
            wrong.append(f"{number} {form} {name}: {type(error).__name__}: {error}")
            continue
        if code not in (0, 2) or (code == 2) != spoilt or (code == 2 and not 1 <= said.count("\n") <= 2):
            wrong.append(
                f"{number} {form} {name}: {'to be refused' if spoilt else 'right'}, {code}: {said.strip()}"
            )
        if code == 0 and not spoilt:
            ids.add(answer["id"])
            if found(outputs) != kept(truth):
                wrong.append(f"{number} {form} {name}: holds something else")
    if len(ids) > 1:
        wrong.append(f"{number}: two ids of one content")
    return wrong


def main() -> int:
    """Try many numbers and print what went wrong."""
    numbers = range(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else range(500)
    n_wrong = 0
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DYNALAB_OUTPUTS"] = folder
            wrong = try_number(number, Path(folder))
        n_wrong += bool(wrong)
        print("\n".join(wrong), end="\n" if wrong else "", flush=True)
    print(f"{len(numbers) - n_wrong} of {len(numbers)} tables are read as by hand, or refused in a line")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
