"""The published claims on modular addition, on laptop-sized twins: forks, detours, spread, and which factor does it.

Hu et al. (TMLR 2023) stabilise modular addition by layer norm and smaller batches together. The first bar repeats their
comparison with 40 seeds a setting; the second has the two cells between, layer norm alone and small batches alone, over
the same number of rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bars.base import Bar, dynalab

SMALL = "hu2023_modular_small"
STABILISED = "hu2023_modular_stabilised_small"
SEEDS, FEWER, STEPS = 40, 20, 1500
MINUTES = 20
# The four cells of the ablation: who has the layer norm, who the small batches.
CELLS = {
    "neither": [f"experiment={SMALL}"],
    "layer norm alone": [f"experiment={SMALL}", "model.layer_norm=true", f"train.steps={STEPS}"],
    "small batches alone": [f"experiment={SMALL}", "train.batch_size=256", f"train.steps={STEPS}"],
    "both": [f"experiment={STABILISED}"],
}
TRAINED = {"neither": SEEDS, "layer norm alone": FEWER, "small batches alone": FEWER, "both": SEEDS}


def timed(record: Path, outputs: Path, *words: str) -> float:
    """Run a command to its end and return its seconds; those of interrupted tries count, what is done is not repeated.

    Args:
        record: Where the seconds are kept.
        outputs: The outputs folder.
        words: The command, without `dynalab`.
    """
    known = json.loads(record.read_text()) if record.is_file() else {"seconds": 0.0, "done": False}
    if known["done"]:
        return float(known["seconds"])
    outputs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dynalab", *words, "--json", "--outputs", str(outputs)]
    log = record.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        began, before = time.monotonic(), known["seconds"]
        try:
            while (code := process.poll()) is None:
                time.sleep(0.5)
                known["seconds"] = before + time.monotonic() - began
                record.write_text(json.dumps(known))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code not in (0, 3):
        raise RuntimeError(f"dynalab {' '.join(words)}: {log.read_text()[-2000:]}")
    record.write_text(json.dumps({**known, "done": True}))
    return float(known["seconds"])


def trained(work: Path, cell: str) -> str:
    """Train a cell of the table (or find it trained) and return its id."""
    seeds = f"seed=0..{TRAINED[cell] - 1}"
    return str(dynalab("train", *CELLS[cell], seeds, outputs=work / "claims")["ensembles"][0]["id"])


def analysed(work: Path, cell: str, *words: str) -> dict[str, Any]:
    """Analyse a cell (or find it analysed) and return the result."""
    (result,) = dynalab("analyze", "hmm", trained(work, cell), *words, outputs=work / "claims")["analyses"]
    return dict(result)


def told(result: Mapping[str, Any]) -> str:
    """Return what an analysis says of the claims, in a line."""
    found = result["claims"]
    off = found["off_path"]
    low, high = (100 * bound for bound in off["interval"] or (0, 1))
    forks = [str(item["state"]) for item in found["forks"] if item["fork"]]
    lines = [
        f"K = {result['n_states']}",
        f"forks at {', '.join(forks) or 'no state'}",
        f"{off['runs']} of {off['of']} runs off the common path ({low:.0f} to {high:.0f}%)",
    ]
    if found["detours"] is not None:
        states = ", ".join(map(str, found["detours"]["states"])) or "none"
        lines.append(f"detours: {states} of {found['detours']['tested']} tested")
    spread = found["spread"]
    if spread:
        interval = spread["cv_interval"]
        between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        late = f", {spread['censored']} never" if spread["censored"] else ""
        width = "not known" if spread["cv"] is None else f"{spread['cv']:.2f}{between}"
        lines.append(f"converged at {_step(spread['median'])} (median{late}), CV {width}")
    return ", ".join(lines)


def contrast(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two analyses say beside each other, the second against the first."""
    from dynalab.analysis.hmm import Findings
    from dynalab.analysis.hmm.comparison import compare
    from dynalab.core.records import plain, restore

    return plain(compare(restore(Findings, one), restore(Findings, other)))


def compared(found: Mapping[str, Any]) -> str:
    """Return a comparison in a line."""
    lines = []
    if (off := found["off_path"]) is not None:
        low, high = (100 * bound for bound in off["interval"])
        points = f"{100 * off['difference']:+.0f} points ({low:+.0f} to {high:+.0f})"
        lines.append(f"off the common path {points}")
    for key, what in (("spread", "CV"), ("speed", "median")):
        if (one := found[key]) is None:
            lines.append(f"{what} not compared ({found['reasons'][key]})")
        else:
            low, high = ("open" if bound is None else f"{bound:.2f}" for bound in one["interval"])
            ratio = "not known" if one["ratio"] is None else f"{one['ratio']:.2f}"
            lines.append(f"{what} times {ratio} ({low} to {high}, p {one['p']:.2g})")
    return ", ".join(lines)


def _step(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def published(work: Path) -> tuple[str, bool]:
    """Train, analyse and report both settings with 40 seeds, and say what holds."""
    home, outputs = work / "claims-seconds", work / "claims"
    home.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    for cell in ("neither", "both"):
        seconds += timed(home / f"train-{cell}.json", outputs, "train", *CELLS[cell], f"seed=0..{SEEDS - 1}")
        seconds += timed(home / f"analyze-{cell}.json", outputs, "analyze", "hmm", trained(work, cell))
    results = [analysed(work, cell) for cell in ("neither", "both")]
    refs = [f"hmm-{result['id']}" for result in results]
    seconds += timed(home / "report.json", outputs, "report", *refs)
    page = Path(dynalab("report", *refs, outputs=outputs)["path"]).read_text()
    said = "What holds of the published claims here" in page and "setting against setting" in page
    figure = (
        f"{seconds / 60:.1f} minutes; as it is: {told(results[0])}; stabilised: {told(results[1])}; "
        f"stabilised against it: {compared(contrast(*results))}"
    )
    return figure, said and seconds < 60 * MINUTES


def ablation(work: Path) -> tuple[str, bool]:
    """The four cells over the same seeds and rows: layer norm alone, small batches alone, neither, both."""
    some = ("-f", f"seed<{FEWER}", f"steps={STEPS}")
    results = {cell: analysed(work, cell, *some) for cell in CELLS}
    lines = [f"{cell}: {told(result)}" for cell, result in results.items()]
    lines += [
        f"{cell} against neither: {compared(contrast(results['neither'], result))}"
        for cell, result in results.items()
        if cell != "neither"
    ]
    whole = all(len(result["states"]) == FEWER and result["claims"]["spread"] for result in results.values())
    return "; ".join(lines), whole


SOURCES = (
    "dynalab/analysis",
    "dynalab/models/nanda.py",
    "dynalab/models/nets/attention.py",
    "dynalab/models/nets/norms.py",
    "dynalab/models/nets/transformers.py",
    "dynalab/probes/weights.py",
    "dynalab/tasks/grokking.py",
    "dynalab/tasks/operations.py",
    "dynalab/training/updates.py",
    f"conf/experiment/{SMALL}.yaml",
    f"conf/experiment/{STABILISED}.yaml",
)
BARS = [
    Bar(
        "claims",
        f"{SMALL} and its stabilised twin, {SEEDS} seeds each: train, analyse, report",
        f"under {MINUTES} minutes on two cores; the page tells the claims with intervals",
        "test_claims.py",
        published,
        SOURCES,
    ),
    Bar(
        "ablation",
        f"layer norm alone and small batches alone, {FEWER} seeds, {STEPS:,} steps",
        "each of the four cells is told with intervals",
        "test_claims.py",
        ablation,
        SOURCES,
    ),
]
