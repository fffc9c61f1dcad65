"""The command line on a card: workers, interruptions, a spoilt card, little memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cards.base import ROOT, Bench, Check, Outcome

# A plug-in that spoils the card at a step, and one that leaves a process little of its memory.
BOMB = """
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    name: str = "bomb"
    armed: bool = False
    every: int | None = None
    at: Any = None


def build(config, network):
    import torch

    class Bomb:
        needs = frozenset()

        def measure(self, state):
            some = next(iter(state.params.values()))
            value = torch.zeros(some.shape[0], dtype=torch.float64, device=some.device)
            if config.armed and state.step:
                value = value[torch.full_like(value, 1 << 20, dtype=torch.int64)]
            return {"bomb": value}

    return Bomb()
"""
LIMIT = """
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    name: str = "limit"
    fraction: float = 1.0
    every: int | None = None
    at: Any = None


def build(config, network):
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(config.fraction)

    class Limit:
        needs = frozenset()

        def measure(self, state):
            some = next(iter(state.params.values()))
            return {"limit": torch.full((some.shape[0],), config.fraction, dtype=torch.float64, device=some.device)}

    return Limit()
"""


def _dynalab(*words: str) -> list[str]:
    return [sys.executable, "-m", "dynalab", *words]


Done = subprocess.CompletedProcess[str]


def _run(outputs: Path, *words: str, limit: float = 120, **extra: str) -> Done:
    environment = {**os.environ, "DYNALAB_OUTPUTS": str(outputs), **extra}
    return subprocess.run(
        _dynalab(*words),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def _fresh(bench: Bench, name: str) -> Path:
    folder = bench.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _shards(outputs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(outputs.glob("*/*/shard-*/run.json"))]


def _tail(done: Done) -> str:
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    return f"exit {done.returncode}: " + " / ".join(lines[-6:])


def command(bench: Bench) -> Outcome:
    """Train with workers by the command, and analyse what was stored."""
    outputs = _fresh(bench, "command")
    steps = 40 if bench.dry else 200
    words = ["train", "task=parity", "seed=0..3", f"device={bench.device}", f"train.steps={steps}", "--json"]
    done = _run(outputs, *words)
    if done.returncode:
        return Outcome("exit 0", _tail(done), False)
    shards = _shards(outputs)
    devices = sorted({shard["plan"]["device"] for shard in shards})
    seen = _run(outputs, "analyze", "hmm")
    ok = devices == [bench.device] and seen.returncode == 0 and (bench.dry or len(shards) == 1)
    told = (
        f"{len(shards)} shard of {len(shards[0]['runs'])} on {devices}, analysis exits with {seen.returncode}"
    )
    return Outcome(
        "one shard on the card, analysed",
        told if ok else f"{told}; {_tail(seen)}",
        ok,
        shards[0]["attempts"][-1],
    )


def automatic(bench: Bench) -> Outcome:
    """Train two ensembles with `device=auto`: one worker, the card."""
    outputs = _fresh(bench, "automatic")
    words = ["train", "task=digits", "optimizer.lr=0.05,0.02", "seed=0..9", "train.steps=60"]
    done = _run(outputs, *words, *(["device=cpu"] if bench.dry else []))
    shards = _shards(outputs)
    devices = sorted({shard["plan"]["device"] for shard in shards})
    ok = done.returncode == 0 and (bench.dry or (devices == ["cuda"] and len(shards) == 2))
    pids = {attempt["pid"] for shard in shards for attempt in shard["attempts"]}
    told = f"{len(shards)} shards in {len(pids)} processes on {devices}"
    return Outcome("a shard an ensemble, one process", told if ok else f"{told}; {_tail(done)}", ok)


def resume(bench: Bench) -> Outcome:
    """Kill a training, start it without its card, then with it; compare with one that was left alone."""
    steps, every = (400, 100) if bench.dry else (1500, 100)
    words = ["train", "task=digits", "seed=0..3", f"device={bench.device}", f"train.steps={steps}"]
    words += [f"checkpoint.every={every}", "eval.every=50"]
    whole, cut = _fresh(bench, "whole"), _fresh(bench, "cut")
    done = _run(whole, *words)
    if done.returncode:
        return Outcome("exit 0", _tail(done), False)
    environment = {**os.environ, "DYNALAB_OUTPUTS": str(cut)}
    process = subprocess.Popen(
        _dynalab(*words),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not any(cut.glob("*/*/shard-*/checkpoints/step-*/state.json")) and time.monotonic() < end:
        if process.poll() is not None:
            break
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = max((shard["steps"] for shard in _shards(cut)), default=0)
    lines, ok = [f"killed at step {reached} or later"], True
    if not bench.dry:
        without = _run(cut, *words, CUDA_VISIBLE_DEVICES="")
        said = without.stderr.strip().splitlines()
        lines.append(
            f"without a card exit {without.returncode}, {len(said)} line: {said[-1] if said else ''}"
        )
        ok &= without.returncode == 2
    again = _run(cut, *words)
    if again.returncode:
        return Outcome("exit 0", "; ".join([*lines, _tail(again)]), False)
    ends = [
        [run["summary"]["final"] for shard in _shards(folder) for run in shard["runs"]]
        for folder in (whole, cut)
    ]
    gaps = [
        abs(a[key] - b[key]) / max(abs(a[key]), 1e-6)
        for a, b in zip(*ends, strict=True)
        for key in ("train_loss", "test_loss")
    ]
    attempts = sum(len(shard["attempts"]) for shard in _shards(cut))
    lines.append(f"{attempts} attempts, losses at the end within {max(gaps):.1e}")
    return Outcome("resumed; 2 without a card; losses within 5%", "; ".join(lines), ok and max(gaps) < 0.05)


def _plug_ins(bench: Bench) -> Path:
    folder = bench.folder / "plug-ins" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text, fields in (("bomb", BOMB, "armed: false"), ("limit", LIMIT, "fraction: 1.0")):
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{fields}\nevery: null\nat: null\n")
    return folder.parent


def spoilt(bench: Bench) -> Outcome:
    """Have one of three ensembles spoil the card: the others are whole."""
    outputs = _fresh(bench, "spoilt")
    words = ["train", "task=digits", "probes=[bomb]", "probe.bomb.armed=false,true", "optimizer.lr=0.05,0.02"]
    words += ["seed=0..1", f"device={bench.device}", "train.steps=60", "--config-dir", str(_plug_ins(bench))]
    done = _run(outputs, *words)
    states = Counter(shard["status"] for shard in _shards(outputs))
    errors = sorted(
        {
            str(shard["attempts"][-1].get("error"))[:90]
            for shard in _shards(outputs)
            if shard["status"] != "done"
        }
    )
    # On a CPU it is a plug-in's mistake.
    ok = done.returncode == (2 if bench.dry else 3) and states["done"] == 2 and sum(states.values()) == 4
    told = f"{dict(states)}, exit {done.returncode}, {errors}"
    return Outcome("two done, two failed, exit 3", told if ok else f"{told}; {_tail(done)}", ok)


def little_memory(bench: Bench) -> Outcome:
    """Train 200 seeds in a twentieth of the card's memory."""
    outputs = _fresh(bench, "memory")
    count = 8 if bench.dry else 200
    words = ["train", "task=grokking", "model=nanda", "probes=[limit,weights]", "probe.limit.fraction=0.05"]
    words += [
        f"seed=0..{count - 1}",
        f"device={bench.device}",
        "train.steps=10",
        "eval.every=5",
        "snapshots.at=never",
    ]
    if bench.dry:
        words += ["task.modulus=11"]
    done = _run(outputs, *words, "--config-dir", str(_plug_ins(bench)), limit=200)
    shards = _shards(outputs)
    whole = sum(run["status"] == "done" for shard in shards for run in shard["runs"])
    widths = sorted((len(shard["runs"]) for shard in shards), reverse=True)
    planned = next((line.strip() for line in done.stderr.splitlines() if "wide" in line), "")
    told = f"{whole} runs done in shards of {widths}; {planned}"
    ok = done.returncode == 0 and whole == count
    return Outcome(f"{count} runs done", told if ok else f"{told}; {_tail(done)}", ok)


CHECKS = [
    Check("command", command, 100),
    Check("spoilt card", spoilt, 100),
    Check("kill and resume", resume, 150),
    Check("little memory", little_memory, 220),
    Check("device=auto", automatic, 100),
]
