"""The main job: what it learns, that its bits hold, and that it is quick to say so."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bars.base import ROOT, Bar, dynalab


def summaries(work: Path) -> list[dict[str, Any]]:
    """Train the main job (or find it trained) and return its runs' summaries."""
    document = dynalab("train", "task=grokking", "seed=0..19", outputs=work / "main")
    return [run["summary"] for run in document["ensembles"][0]["runs"]]


def memorised(work: Path) -> tuple[str, bool]:
    """Every seed memorises early."""
    steps = [item["memorised_step"] for item in summaries(work)]
    whole = all(step is not None and step < 400 for step in steps)
    return f"{sum(s is not None for s in steps)} of {len(steps)}, steps {min(steps)} to {max(steps)}", whole


def generalised(work: Path) -> tuple[str, bool]:
    """Every seed generalises much later."""
    pairs = [(item["memorised_step"], item["generalised_step"]) for item in summaries(work)]
    if any(step is None for pair in pairs for step in pair):
        return f"{sum(pair[1] is not None for pair in pairs)} of {len(pairs)} generalised", False
    ratios = [late / early for early, late in pairs]
    late = [pair[1] for pair in pairs]
    return f"{min(ratios):.1f} to {max(ratios):.1f} times; steps {min(late)} to {max(late)}", min(ratios) >= 5


def differing(one: Path, other: Path, labels: list[str]) -> int:
    """Count the runs whose bits differ."""
    from stored import bits, difference, only_ensemble

    left, right = bits(only_ensemble(one)), bits(only_ensemble(other))
    return sum(bool(difference(left[label], right[label])) for label in labels)


def alone(work: Path) -> tuple[str, bool]:
    """Seed 3 alone against seed 3 within 20."""
    summaries(work)
    dynalab("train", "task=grokking", "seed=3", outputs=work / "alone")
    count = differing(work / "main", work / "alone", ["s0003"])
    return "equal to the bit" if not count else "different", not count


def prolonged(work: Path) -> tuple[str, bool]:
    """3,000 steps and then 500 against 3,500 at once."""
    words = ["task=grokking", "seed=0..3"]
    dynalab("train", *words, outputs=work / "prolonged")
    dynalab("train", *words, "train.steps=3500", outputs=work / "prolonged")
    dynalab("train", *words, "train.steps=3500", outputs=work / "at-once")
    count = differing(work / "prolonged", work / "at-once", [f"s{seed:04d}" for seed in range(4)])
    return f"{4 - count} of 4 seeds equal to the bit", not count


def weight_metrics(work: Path) -> tuple[str, bool]:
    """The fourteen metrics against plain float64 on the trained weights of the main job."""
    from oracles import fourteen
    from safetensors.numpy import load_file

    summaries(work)
    worst, compared = 0.0, 0
    for shard in sorted((work / "main").glob("grokking/*/shard-*")):
        rows = np.load(shard / "series/every-10.npy")
        for path in sorted((shard / "snapshots").glob("*.safetensors")):
            row = rows[rows["step"] == int(path.stem[5:])]
            if not len(row):
                continue
            tensors = load_file(path)
            for index in range(len(next(iter(tensors.values())))):
                expected = fourteen([tensor[index] for tensor in tensors.values()], [])
                for name, value in expected.items():
                    found = row[name][0, index]
                    worst = max(worst, abs(found - value) / max(abs(value), 1e-6))
                    compared += 1
    return f"worst relative error {worst:.1e} of {compared:,}", compared > 0 and worst < 1e-6


def nothing_to_do(work: Path) -> tuple[str, bool]:
    """The main job again: seconds until it says that all is done."""
    summaries(work)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        dynalab("train", "task=grokking", "seed=0..19", outputs=work / "main")
        seconds.append(time.perf_counter() - began)
    median = sorted(seconds)[2]
    return f"{median:.2f} s (median of 5)", median < 3


def demo(work: Path) -> tuple[str, bool]:
    """scripts/demo on a fresh clone, installation included."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DYNALAB", "OMP_", "MKL_"))}
        began = time.perf_counter()
        done = subprocess.run(
            [clone / "scripts/demo"], capture_output=True, text=True, env=environment, check=False
        )
        seconds = time.perf_counter() - began
        reports = list(clone.glob("outputs/reports/*/index.html"))
        status = subprocess.run(
            ["git", "-C", str(clone), "status", "--porcelain"], capture_output=True, text=True
        )
        good = done.returncode == 0 and len(reports) == 1 and not status.stdout and seconds < 600
        return f"{seconds / 60:.1f} minutes, exit code {done.returncode}", good


def hmm_on_grokking(work: Path) -> tuple[str, bool]:
    """The HMM of the main job: where its first boundary lies, and whether K settled."""
    memory = [item["memorised_step"] for item in summaries(work)]
    (result,) = dynalab("analyze", "hmm", outputs=work / "main")["analyses"]
    near = 0
    for early, run in zip(memory, result["states"], strict=True):
        states, steps = np.array(run["states"]), np.array(run["steps"])
        changes = np.flatnonzero(np.diff(states))
        near += bool(len(changes)) and abs(int(steps[changes[0] + 1]) - early) <= 100
    capped = result["n_states"] >= max(entry["n_states"] for entry in result["selection"])
    figure = f"K = {result['n_states']}; first boundary within 100 steps of memorisation in {near} of {len(memory)}"
    return figure, near >= 16 and not capped


BARS = [
    Bar(
        "memorised",
        "default grokking, 20 seeds: train accuracy 99%",
        "all before step 400",
        "test_main_job.py",
        memorised,
    ),
    Bar(
        "generalised",
        "the same: test accuracy 99%",
        "all at least 5 times later",
        "test_main_job.py",
        generalised,
    ),
    Bar("alone", "seed 3 alone and within 20, 3,000 steps", "equal to the bit", "test_exact.py", alone),
    Bar(
        "prolonged",
        "3,000 steps and 500 more, or 3,500 at once",
        "equal to the bit",
        "test_train_cli.py",
        prolonged,
    ),
    Bar(
        "weights",
        "weight metrics against float64 on stored weights",
        "relative error below 1e-6",
        "test_weight_probe.py",
        weight_metrics,
    ),
    Bar("again", "the main job again, all done", "under 3 s", "test_startup.py", nothing_to_do),
    Bar(
        "hmm", "HMM of the main job", "16 of 20 near, K below the cap", "test_hmm_analyse.py", hmm_on_grokking
    ),
    Bar(
        "demo",
        "scripts/demo on a fresh clone, installation included",
        "under 10 minutes",
        "test_readme.py",
        demo,
    ),
]
