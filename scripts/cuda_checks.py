"""Checks of training on a CUDA card; `scripts/cuda` starts it. Results stay in outputs/cuda, the table in docs/cuda.md.

Checks run in a few processes that are handed one after another, most telling first. One that fails, hangs or leaves its
device unusable costs its own process alone. What has passed is not made again: a check that was mended is.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dynalab.core.machine import choose_kernels

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "outputs" / "cuda"
TABLE = ROOT / "docs" / "cuda.md"
LANES = 4
# Trainings from shaken weights, at most; not every one meets a unit at the edge of being rectified.
ROUNDINGS = 4

# Every task, model, optimizer and probe that needs no files of the user's, and what the engine does beside.
CASES = {
    "parity": "task=parity probes=[weights,gradients,parity,curvature,spectrum]",
    "grokking": "task=grokking probes=[weights,gradients,numerics,curvature,spectrum]",
    "digits mlp": "task=digits probes=[weights,gradients,numerics,curvature,spectrum]",
    "digits resnet20": "task=digits model=resnet20 probes=[weights,gradients,curvature]",
    "mlm": "task=mlm probes=[weights,gradients,curvature]",
    "grokking nanda adam": "task=grokking model=nanda optimizer=adam probes=[weights,gradients,curvature]",
    "grokking nanda layer norm": "task=grokking model=nanda model.layer_norm=true optimizer=rmsprop",
    "grokking power": (
        "task=grokking model=power optimizer=adam train.batch_size=64 train.clip=1 "
        "train.accumulate=2 probes=[weights,gradients,curvature]"
    ),
    "grokking one-hot": (
        "task=grokking model=onehot_mlp optimizer=rmsprop probes=[weights,gradients,curvature]"
    ),
    "grokking gromov": (
        "task=grokking model=gromov task.loss=mse optimizer=sgd optimizer.momentum=0.9 "
        "optimizer.nesterov=true probes=[weights,gradients,curvature]"
    ),
    "parity polynet": "task=parity model=polynet probes=[weights,gradients,parity,curvature]",
    "parity sinusoid": "task=parity model=sinusoid probes=[weights,gradients,parity,curvature]",
    "parity noisy": "task=parity task.loss=logistic task.label_noise=0.1",
    "parity sample": "task=parity task.samples=500 task.loss=square optimizer=adamw",
    "regression": "task=regression probes=[weights,gradients,curvature,spectrum]",
    "regression teacher": "task=regression task.target=teacher task.loss=mse optimizer=adam",
    "digits sam": "task=digits optimizer=sam probes=[weights,gradients,curvature]",
    "digits lookahead": (
        "task=digits optimizer=lookahead optimizer.inner=adam probes=[weights,gradients,curvature]"
    ),
    "digits cosine": "task=digits optimizer=adamw schedule=cosine train.halve_at=10",
    "digits noisy": "task=digits task.label_noise=0.2 task.input_noise=0.1 task.normalise=pixel",
    "digits float64": "task=digits train.loss_dtype=float64 train.accumulate=2",
    "digits sphere": (
        "task=digits model=si_mlp train.sphere=true probes=[weights,gradients,scale_invariant,curvature]"
    ),
    "digits si_convnet": (
        "task=digits model=si_convnet model.width=8 probes=[weights,gradients,scale_invariant]"
    ),
    "digits resnet20 slow": "task=digits model=resnet20 optimizer=lookahead probes=[weights,gradients]",
    "digits resnet18 groups": "task=digits model=resnet18 model.norm=group model.width=16",
    "mlm dropout": "task=mlm model.dropout=0.1 optimizer=lookahead probes=[weights,gradients]",
    "mlm untied": "task=mlm model.tied=false optimizer=sgd",
}
# What a case lacks of these words it is given; a full batch is evaluated whole, so that the shared pass is met.
COMMON = ["eval.every=1", "eval.size=128"]
WHOLE = ("grokking", "regression", "grokking gromov")
SPEED = {
    "grokking": ["task=grokking"],
    "parity": ["task=parity"],
    "resnet20 digits": ["task=digits", "model=resnet20"],
    "mlm": ["task=mlm"],
}
WIDTHS = (1, 20, 200, 1000)
ABOUT = (
    "card",
    "memory_gib",
    "driver",
    "cuda",
    "cudnn",
    "torch",
    "numpy",
    "python",
    "cpu",
    "cores",
    "commit",
    "date",
)
# Seconds of the budget that are kept for what is timed.
KEPT = 120.0
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


@dataclass
class Bench:
    """What a check is made with.

    Attributes:
        dry: On the CPU, with tiny sizes.
        folder: Of this process alone, for what it stores.
    """

    dry: bool
    folder: Path

    @property
    def device(self) -> str:
        """Where the work goes."""
        return "cpu" if self.dry else "cuda"


@dataclass
class Found:
    """What a check came to.

    Attributes:
        must: What it has to be, in words.
        measured: What it was.
        ok: Whether it is as it has to be.
        more: Further numbers, for the file of results.
    """

    must: str
    measured: str
    ok: bool = True
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What `--only` says.
        make: Makes it.
        limit: Seconds that it may take.
        alone: Whether it is timed, and so has the machine to itself.
    """

    name: str
    make: Callable[[Bench], Found]
    limit: float = 60.0
    alone: bool = False


# ---- the checks


def environment(bench: Bench) -> Found:
    """Name the card and the versions, and see that every package is there and float32 is float32."""
    import importlib
    import platform

    import numpy as np
    import torch

    packages = (
        "click hmmlearn hydra jinja2 joblib markupsafe matplotlib msgspec networkx omegaconf pandas pyarrow"
    )
    packages += " yaml rich safetensors sklearn scipy statsmodels threadpoolctl antlr4"
    missing = []
    for name in packages.split():
        try:
            importlib.import_module(name)
        except Exception as error:
            missing.append(f"{name} ({type(error).__name__})")
    more: dict[str, Any] = {
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "commit": _commit(),
    }
    if not bench.dry:
        card = torch.cuda.get_device_properties(0)
        more |= {
            "card": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
        a = torch.randn(512, 512, device="cuda")
        exact = a.double() @ a.double()
        more["matmul_error"] = float(((a @ a).double() - exact).abs().max() / exact.abs().max())
        x, w = torch.randn(8, 64, 16, 16, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
        wide = torch.nn.functional.conv2d(x.double(), w.double())
        gap = torch.nn.functional.conv2d(x, w).double() - wide
        more["convolution_error"] = float(gap.abs().max() / wide.abs().max())
    told = ", ".join(f"{key} {value}" for key, value in more.items() if key not in ("date", "commit"))
    flat = max(more.get("matmul_error", 0.0), more.get("convolution_error", 0.0)) < 1e-5
    return Found(
        "all packages, float32 products",
        told + (f"; missing {missing}" if missing else ""),
        not missing and flat,
        more,
    )


def _cpu() -> str:
    from dynalab.training.provenance import cpu_type

    return cpu_type()


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _driver() -> str | None:
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout.split()[
            0
        ]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        from dynalab.core.machine import driver

        return driver()


def _config(words: Sequence[str]) -> Any:
    from dynalab.config.command import read_command

    return read_command(list(words)).requests[0].config


def _loop(words: Sequence[str], width: int, device: str, steps: int = 1000) -> Any:
    import torch

    from dynalab.core.streams import Streams
    from dynalab.training.loop import Loop

    return Loop(
        _config(words), [Streams.from_seed(seed) for seed in range(width)], steps, torch.device(device), ()
    )


def _words(name: str, bench: Bench) -> list[str]:
    words = [*CASES[name].split(), *COMMON]
    if name in WHOLE and not bench.dry:
        words.remove("eval.size=128")
    probes = " ".join(words)
    if "curvature" in probes:
        words += ["probe.curvature.every=10", "probe.curvature.size=64", "probe.curvature.trace=2"]
    if "spectrum" in probes:
        words += ["probe.spectrum.every=20", "probe.spectrum.size=64", "probe.spectrum.m=10"]
    return words


Rows = dict[int, dict[str, Any]]


def _trained(loop: Any, steps: int) -> Rows:
    """Train, and return every row on the host: step -> metric -> (S,)."""
    rows: Rows = {}
    for step in range(steps + 1):
        if step:
            loop.update()
        rows[step] = {name: value for row in loop.rows().values() for name, value in row.items()}
        loop.forced_rows()
    return {step: {name: x.cpu().double().numpy() for name, x in row.items()} for step, row in rows.items()}


@dataclass(frozen=True)
class _Gaps:
    """How far two trainings of the same runs are apart, relatively.

    Attributes:
        first: Losses after a step.
        last: Losses at the end.
        sharp: Sharpness at the start.
        preconditioned: That which the optimizer meets, at the start. Adam's first P is |g| + eps, so that of a weight
            whose gradient is nothing but rounding is rounding, too.
    """

    first: float = 0.0
    last: float = 0.0
    sharp: float = 0.0
    preconditioned: float = 0.0

    @staticmethod
    def of(one: Rows, other: Rows) -> _Gaps:
        """Compare what two trainings have in common."""
        keys = [[key] if key in one[0] else [] for key in ("sharpness", "preconditioned_sharpness")]
        steps = max(one.keys() & other.keys())
        losses = [
            _gap(one[step], other[step], ["batch_loss"]) if step else 0.0 for step in (min(2, steps), steps)
        ]
        return _Gaps(*losses, *(_gap(one[0], other[0], key) for key in keys))

    def within(self, rounding: _Gaps) -> bool:
        """Return whether losses are within the bounds or ten times what rounding does, sharpness within 2% or three."""
        parts = (dataclasses.astuple(x) for x in (self, rounding))
        bounds, times = (1e-5, 1e-3, 0.02, 0.02), (10, 10, 3, 3)
        return all(
            x <= max(bound, much * own) for x, own, bound, much in zip(*parts, bounds, times, strict=True)
        )

    def most(self, other: _Gaps) -> _Gaps:
        """Return the larger of each."""
        return _Gaps(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))


def _shake(loop: Any, seed: int) -> None:
    """Change every weight of a network by about a rounding error."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in loop.stack.trained.values():
            param.mul_(1 + 1e-7 * torch.randn(param.shape, generator=generator))


def trained(name: str) -> Callable[[Bench], Found]:
    """Return the check that trains a case on both devices, goes back to a checkpoint, and compares."""

    def check(bench: Bench) -> Found:
        import numpy as np
        import torch

        steps, words = (4 if bench.dry else 20), _words(name, bench)
        device = torch.device(bench.device)
        loop = _loop(words, 3, bench.device)
        rows = _trained(loop, steps)
        loop.settle()
        elsewhere = [
            key
            for part in loop.tensors(3)
            for key, x in part.items()
            if x.device.type != device.type and x.dim()
        ]
        weights, other = ({k: x.cpu().clone() for k, x in part.items()} for part in loop.tensors(3))
        loop.update()
        after = loop.rows()
        again = _loop(words, 3, bench.device)
        again.load(steps, weights, other)
        again.update()
        resumed = _gap(
            _host(again.rows()[again.measuring.eval_grid.name]),
            _host(after[loop.measuring.eval_grid.name]),
            ["train_loss", "test_loss"],
        )
        host = _loop(words, 3, "cpu")
        same = _same_weights(loop, host)
        ours = _trained(host, steps)
        gaps = _Gaps.of(rows, ours)
        alone = _Gaps()
        # What a few roundings do to the same on the CPU itself, where the devices are further apart than the bounds.
        far_losses = max(gaps.first / 1e-5, gaps.last / 1e-3) > 1
        for seed in range(ROUNDINGS):
            if gaps.within(alone):
                break
            shaken = _loop(words, 3, "cpu")
            _shake(shaken, seed)
            alone = alone.most(_Gaps.of(_trained(shaken, steps if far_losses else 0), ours))
        lines = []
        for what, gap, own in zip(
            ("step 1", f"step {steps}", "sharpness", "preconditioned"),
            dataclasses.astuple(gaps),
            dataclasses.astuple(alone),
            strict=True,
        ):
            if "step" in what or what in " ".join(rows[0]):
                lines.append(f"{what} {gap:.1e}" + (f" (rounding alone {own:.1e})" if own else ""))
        lines.append(f"weights {same:.1e}, resumed {resumed:.1e}")
        ok = gaps.within(alone) and same <= 1e-10 and resumed <= 1e-3 and not elsewhere
        lone = [
            key
            for step in rows
            for key, value in rows[step].items()
            if (np.isfinite(value) != np.isfinite(ours[step][key])).any()
        ]
        if lone:
            lines.append(f"finite on one device alone: {sorted(set(lone))}")
            ok = False
        if elsewhere:
            lines.append(f"not on the card: {elsewhere[:4]}")
        # A share of the spectrum is compared with the largest share; what a search left over says nothing.
        shares = [key for key in rows[0] if key.startswith("eigenvalue_share")]
        kinds = {key: [key] for key in rows[0] if not key.endswith("residual") and key not in shares}
        kinds |= {"eigenvalue shares": shares} if shares else {}
        far = {kind: _gap(rows[0], ours[0], keys) for kind, keys in kinds.items()}
        worst = max(far, key=lambda key: far[key])
        lines.append(f"row 0 differs most in {worst}, {far[worst]:.1e}")
        must = (
            "losses 1e-5 after a step, 1e-3 after 20, or 10 times what weights shaken by 1e-7 do; "
            "weight metrics 1e-10; sharpness 2%, or 3 times what they do"
        )
        return Found(must, "; ".join(lines), bool(ok), {"columns": far})

    return check


def _host(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x.cpu().double().numpy() for name, x in row.items()}


def _gap(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> float:
    """Return the largest difference of some metrics of one kind, relative to the largest of their values."""
    import numpy as np

    a, b = (np.array([part[name] for name in names]) for part in (one, other))
    both = np.isfinite(a) & np.isfinite(b)
    size = float(np.abs(b[both]).max(initial=1e-30))
    return float(np.abs(a[both] - b[both]).max(initial=0.0)) / size


def _same_weights(loop: Any, host: Any) -> float:
    """Return how far the metrics of the same weights differ between the devices."""
    from dynalab.core.state import ProbeState

    probes = [item.probe for item in loop.measuring.items if item.name == "weights"]
    if not probes:
        return 0.0
    there = loop.updates.evaluated()
    here = {name: x.cpu() for name, x in there.items()}
    one, other = (_host(probes[0].measure(ProbeState(step=0, params=params))) for params in (there, here))
    # Sums of both signs are as exact as what they are sums of.
    import numpy as np

    size = float(np.nanmax(np.abs(other["l2"]))) if "l2" in other else 1.0
    gaps = [
        float(np.nanmax(np.abs(one[key] - other[key]) / (np.abs(other[key]) + 1e-2 * size))) for key in other
    ]
    return max(gaps, default=0.0)


def synchronisations(name: str) -> Callable[[Bench], Found]:
    """Return the check that counts where the host waits for the card, in updates and in rows."""

    def check(bench: Bench) -> Found:
        import torch

        updates = 5 if bench.dry else 30 if "resnet" in name else 200
        loop = _loop([*SPEED[name], "probes=[weights,gradients]"], 3, bench.device)
        for _ in range(3):
            loop.update()
            loop.rows()
        with _counted(bench) as in_updates:
            for _ in range(updates):
                loop.update()
        rows = 0
        with _counted(bench) as in_rows:
            for _ in range(5):
                loop.updates.step = (
                    -(-loop.step // loop.measuring.eval_grid.every) * loop.measuring.eval_grid.every
                )
                rows += bool(loop.rows())
        if not bench.dry:
            torch.cuda.synchronize()
        told = [
            f"{sum(found.values())} in {count} {what}" + (f" ({_places(found)})" if found else "")
            for what, count, found in (("updates", updates, in_updates), ("rows", rows, in_rows))
        ]
        more = {"updates": dict(in_updates), "rows": dict(in_rows)}
        # Once in 64 updates it is looked whether a run has diverged.
        ok = sum(in_updates.values()) <= updates / 5
        return Found("no more than a wait in five updates", "; ".join(told), ok, more)

    return check


@contextlib.contextmanager
def _counted(bench: Bench) -> Iterator[Counter[str]]:
    """Count synchronisations by their place in dynalab."""
    import torch

    found: Counter[str] = Counter()

    def show(message: Any, *args: Any, **keys: Any) -> None:
        if "synchroniz" in str(message):
            found[_place(traceback.extract_stack())] += 1

    if bench.dry:
        yield found
        return
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _place(frames: Sequence[traceback.FrameSummary]) -> str:
    own = [frame for frame in frames if "/dynalab/" in frame.filename.replace(os.sep, "/")]
    if not own:
        return "outside dynalab"
    return f"{own[-1].filename.rpartition('/dynalab/')[2]}:{own[-1].lineno}"


def _places(found: Mapping[str, int]) -> str:
    return ", ".join(
        f"{place} {count}" for place, count in sorted(found.items(), key=lambda item: -item[1])[:8]
    )


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


def command(bench: Bench) -> Found:
    """Train with workers by the command, and analyse what was stored."""
    outputs = _fresh(bench, "command")
    steps = 40 if bench.dry else 200
    words = ["train", "task=parity", "seed=0..3", f"device={bench.device}", f"train.steps={steps}", "--json"]
    done = _run(outputs, *words)
    if done.returncode:
        return Found("exit 0", _tail(done), False)
    shards = _shards(outputs)
    devices = sorted({shard["plan"]["device"] for shard in shards})
    seen = _run(outputs, "analyze", "hmm")
    ok = devices == [bench.device] and seen.returncode == 0 and (bench.dry or len(shards) == 1)
    told = (
        f"{len(shards)} shard of {len(shards[0]['runs'])} on {devices}, analysis exits with {seen.returncode}"
    )
    return Found(
        "one shard on the card, analysed",
        told if ok else f"{told}; {_tail(seen)}",
        ok,
        shards[0]["attempts"][-1],
    )


def automatic(bench: Bench) -> Found:
    """Train two ensembles with `device=auto`: one worker, the card."""
    outputs = _fresh(bench, "automatic")
    words = ["train", "task=digits", "optimizer.lr=0.05,0.02", "seed=0..9", "train.steps=60"]
    done = _run(outputs, *words, *(["device=cpu"] if bench.dry else []))
    shards = _shards(outputs)
    devices = sorted({shard["plan"]["device"] for shard in shards})
    ok = done.returncode == 0 and (bench.dry or (devices == ["cuda"] and len(shards) == 2))
    pids = {attempt["pid"] for shard in shards for attempt in shard["attempts"]}
    told = f"{len(shards)} shards in {len(pids)} processes on {devices}"
    return Found("a shard an ensemble, one process", told if ok else f"{told}; {_tail(done)}", ok)


def resume(bench: Bench) -> Found:
    """Kill a training, start it without its card, then with it; compare with one that was left alone."""
    steps, every = (400, 100) if bench.dry else (1500, 100)
    words = ["train", "task=digits", "seed=0..3", f"device={bench.device}", f"train.steps={steps}"]
    words += [f"checkpoint.every={every}", "eval.every=50"]
    whole, cut = _fresh(bench, "whole"), _fresh(bench, "cut")
    done = _run(whole, *words)
    if done.returncode:
        return Found("exit 0", _tail(done), False)
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
        return Found("exit 0", "; ".join([*lines, _tail(again)]), False)
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
    return Found("resumed; 2 without a card; losses within 5%", "; ".join(lines), ok and max(gaps) < 0.05)


def _plug_ins(bench: Bench) -> Path:
    folder = bench.folder / "plug-ins" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text, fields in (("bomb", BOMB, "armed: false"), ("limit", LIMIT, "fraction: 1.0")):
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{fields}\nevery: null\nat: null\n")
    return folder.parent


def spoilt(bench: Bench) -> Found:
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
    ok = done.returncode == 3 and states["done"] == 2 and sum(states.values()) == 4
    told = f"{dict(states)}, exit {done.returncode}, {errors}"
    return Found("two done, two failed, exit 3", told if ok else f"{told}; {_tail(done)}", ok)


def little_memory(bench: Bench) -> Found:
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
    return Found(f"{count} runs done", told if ok else f"{told}; {_tail(done)}", ok)


def _rate(loop: Any, seconds: float, most: int, device: str) -> tuple[float, int]:
    """Return the seconds of an update."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    began = time.perf_counter()
    for _ in range(3):
        loop.update()
        wait()
        if time.perf_counter() - began > 3:
            break
    began, steps = time.perf_counter(), 0
    while steps < most:
        loop.update()
        steps += 1
        if steps % 8 == 0 or steps < 8:
            wait()
            if time.perf_counter() - began > seconds:
                break
    wait()
    return (time.perf_counter() - began) / steps, steps


def speed(name: str) -> Callable[[Bench], Found]:
    """Return the check that times updates over widths, and on all cores of the CPU beside it."""

    def check(bench: Bench) -> Found:
        import gc

        import torch

        widths = (1, 2, 4) if bench.dry else WIDTHS
        times: dict[int, float] = {}
        memory: dict[int, float] = {}
        slow = ""
        for width in widths:
            if times and max(times.values()) * width / max(times) > 4:
                slow = f"; {width} wide left out: a step would take seconds"
                break
            if not bench.dry:
                torch.cuda.reset_peak_memory_stats()
            try:
                loop = _loop([*SPEED[name], "probes=[]"], width, bench.device)
                times[width], _ = _rate(loop, 0.1 if bench.dry else 1.0, 2000, bench.device)
            except torch.OutOfMemoryError:
                slow = f"; {width} wide does not fit"
                break
            if not bench.dry:
                memory[width] = torch.cuda.max_memory_allocated() / 2**30
            del loop
            gc.collect()
            if not bench.dry:
                torch.cuda.empty_cache()
        base = times[widths[0]]
        slower = next((width for width in widths if times.get(width, 0.0) > 1.5 * base), None)
        cpu = _cpu_rate(name, bench)
        told = ", ".join(f"S {w}: {1 / t:.0f} steps/s" for w, t in times.items())
        told += (
            f"; a step is slower by half from S {slower}" if slower else "; a step is never slower by half"
        )
        best = max(w / t for w, t in times.items())
        told += (
            f"; at best {best:,.0f} seed steps/s, {best / cpu:.1f} times all cores of the CPU ({cpu:,.0f})"
            + slow
        )
        more = {"seconds": times, "cpu_seed_steps": cpu, "memory_gib": memory}
        return Found("-", told, True, more)

    return check


def _cpu_rate(name: str, bench: Bench) -> float:
    """Return the updates times seeds a second of a worker a core, each with the stack that the planner would give."""
    count = 2 if bench.dry else len(os.sched_getaffinity(0))
    width = 2 if bench.dry else math.ceil(200 / count)
    seconds = 0.2 if bench.dry else 2.0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, __file__, "--rate", name, str(width), str(seconds)]
    start = partial(subprocess.Popen, words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    workers = [start() for _ in range(count)]
    return sum(width / float(worker.communicate()[0].split()[-1]) for worker in workers)


def convolutions(bench: Bench) -> Found:
    """Time ways to convolve the maps of S runs, each by its own weights: forward and backward, as in ResNet-20."""
    import torch
    from torch.nn.functional import conv2d, unfold

    def loop(x: Any, w: Any) -> Any:
        return torch.cat([conv2d(*run, padding=1) for run in zip(x.chunk(len(w), 1), w, strict=True)], 1)

    def grouped(x: Any, w: Any) -> Any:
        return conv2d(x, w.flatten(0, 1), padding=1, groups=len(w))

    def products(x: Any, w: Any) -> Any:
        columns = unfold(x, 3, padding=1).unflatten(1, (len(w), -1))
        columns = columns.permute(1, 2, 0, 3)
        found = torch.bmm(w.flatten(2), columns.flatten(2))
        return (
            found.unflatten(2, columns.shape[2:]).permute(2, 0, 1, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        )

    wait = (lambda: None) if bench.dry else torch.cuda.synchronize
    told, more = [], {}
    for runs, channels, size in ((2, 4, 4),) if bench.dry else ((20, 16, 8), (200, 16, 8), (200, 64, 2)):
        x = torch.randn(128, runs * channels, size, size, device=bench.device, requires_grad=True)
        w = torch.randn(runs, channels, channels, 3, 3, device=bench.device, requires_grad=True)
        wanted, times = loop(x, w).detach(), {}
        for way in (loop, grouped, products):
            gap = float((way(x, w).detach() - wanted).abs().max() / wanted.abs().max())
            assert gap < 1e-4, (way.__name__, gap)
            for repeat in range(12):
                if repeat == 2:
                    wait()
                    began = time.perf_counter()
                torch.autograd.grad(way(x, w).sum(), [x, w])
            wait()
            times[way.__name__] = (time.perf_counter() - began) / 10
        more[f"{runs} of {channels} at {size}"] = times
        took = ", ".join(f"{way} {1e3 * seconds:.2f} ms" for way, seconds in times.items())
        told.append(f"{runs} runs of {channels} channels, {size} x {size}: {took}")
    return Found("-", "; ".join(told), True, {"seconds": more})


def jax_parity(bench: Bench) -> Found:
    """Time the same work in JAX, vmapped over seeds: a bare step of parity's network, batches drawn on the device."""
    try:
        import jax  # type: ignore[import-not-found, unused-ignore]
        import jax.numpy as jnp  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return Found("-", "JAX is not installed", True)
    config = _config(SPEED["parity"])
    n, k, hidden, batch = config.task.n, config.task.k, config.model.hidden, int(config.train.batch_size)
    rate, sizes = config.optimizer.lr, [config.task.n, *config.model.hidden, 1]

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(sizes))
        return [
            (jax.random.uniform(keys[i], (a, b), minval=-(a**-0.5), maxval=a**-0.5), jnp.zeros(b))
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        ]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return jnp.maximum(0.0, 1.0 - y * (x @ w + b)[:, 0]).mean()

    def step(params: Any, key: Any) -> Any:
        x = jax.random.rademacher(key, (batch, n), dtype=jnp.float32)
        grads = jax.grad(loss)(params, x, x[:, :k].prod(1))
        return jax.tree.map(lambda p, g: p - rate * g, params, grads)

    stacked = jax.jit(jax.vmap(step))
    times = {}
    for width in (1, 2) if bench.dry else WIDTHS:
        params = jax.vmap(init)(jax.random.split(jax.random.key(0), width))
        keys = jax.random.split(jax.random.key(1), width)
        for _ in range(3):
            params = stacked(params, keys)
        jax.block_until_ready(params)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < 0.7:
            for _ in range(20):
                params = stacked(params, keys)
            jax.block_until_ready(params)
            steps += 20
        times[width] = (time.perf_counter() - began) / steps
    where = jax.devices()[0].platform
    told = ", ".join(f"S {w}: {1 / t:.0f} steps/s" for w, t in times.items())
    return Found(
        "-", f"on {where}, hidden {hidden}, no data crosses: {told}", True, {"seconds": times, "where": where}
    )


def checks() -> list[Check]:
    """Return all checks, most telling first."""
    found = [Check("environment", environment, 60)]
    names = list(CASES)
    found += [Check(f"train: {name}", trained(name), 75) for name in names[:5]]
    found += [
        Check("command", command, 100),
        Check("spoilt card", spoilt, 100),
        Check("kill and resume", resume, 150),
    ]
    found += [Check(f"waits: {name}", synchronisations(name), 60) for name in SPEED]
    found += [Check("little memory", little_memory, 220), Check("device=auto", automatic, 100)]
    found += [Check(f"train: {name}", trained(name), 75) for name in names[5:]]
    found += [
        Check(f"speed: {name}", speed(name), 100, alone=True)
        for name in ("parity", "grokking", "mlm", "resnet20 digits")
    ]
    found.append(Check("speed: convolutions", convolutions, 60, alone=True))
    return [*found, Check("speed: parity in JAX", jax_parity, 60, alone=True)]


# ---- processes that make them


def serve(dry: bool, lane: str) -> int:
    """Make the checks whose names come on the standard input, and answer each in a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # JAX shares the card, and its share is not to be all of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    choose_kernels()
    import torch

    from dynalab.networks.settings import as_trained

    bench = Bench(dry, OUT / ("dry" if dry else "work") / lane)
    known = {check.name: check for check in checks()}
    threads = max(len(os.sched_getaffinity(0)) // LANES, 1)
    if not dry and not torch.cuda.is_available():
        answers.write(json.dumps({"ready": False, "why": "torch finds no CUDA device"}) + "\n")
        return 2
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        name, began = line.strip(), time.perf_counter()
        result: dict[str, Any]
        with as_trained(threads):
            try:
                found = known[name].make(bench)
                result = dataclasses.asdict(found)
            except BaseException as error:
                frames = traceback.extract_tb(error.__traceback__)
                last = (str(error).splitlines() or [""])[0][:300]
                result = {
                    "ok": False,
                    "must": "no error",
                    "measured": f"{type(error).__name__}: {last} at {_place(frames)}",
                    "trace": "".join(traceback.format_exception(error))[-4000:],
                }
        result |= {"seconds": round(time.perf_counter() - began, 1), "usable": _usable(dry)}
        answers.write(json.dumps(result, default=str) + "\n")
        if not result["usable"]:
            break
    answers.flush()
    os._exit(0)


def _usable(dry: bool) -> bool:
    """Return whether the card still answers this process."""
    import gc

    import torch

    gc.collect()
    if dry:
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        return False
    return True


class Lane:
    """A process that makes one check after another, begun anew where it was lost."""

    def __init__(self, name: str, dry: bool) -> None:
        self._name, self._dry = name, dry
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def make(self, check: Check, limit: float) -> dict[str, Any]:
        """Make a check within so many seconds."""
        began = time.monotonic()
        process = self._started(limit)
        if isinstance(process, dict):
            return process
        assert process.stdin is not None
        try:
            process.stdin.write(check.name + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        result = self._answer(limit)
        if result is None:
            lost = process.poll()
            self.close()
            why = f"no answer within {limit:.0f} s" if lost is None else f"its process ended with {lost}"
            result = {"ok": False, "must": "an answer", "measured": why}
        elif not result.pop("usable", True):
            result["measured"] += "; the card was unusable afterwards"
            self.close()
        return {**result, "seconds": round(time.monotonic() - began, 1)}

    def _started(self, limit: float) -> subprocess.Popen[str] | dict[str, Any]:
        if self._process is not None:
            return self._process
        words = [sys.executable, __file__, "--serve", self._name, *(["--dry"] if self._dry else [])]
        log = (OUT / f"lane-{self._name}.log").open("a")
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        self._lines = queue.Queue()
        threading.Thread(target=_read, args=(process, self._lines), daemon=True).start()
        self._process = process
        ready = self._answer(max(limit, 60))
        if ready is None or not ready["ready"]:
            self.close()
            why = "it did not start" if ready is None else str(ready["why"])
            return {"ok": False, "must": "a process", "measured": why, "seconds": 0.0}
        return process

    def _answer(self, limit: float) -> dict[str, Any] | None:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            return None
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def close(self) -> None:
        """End the process and what it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


# ---- the run as a whole


class Results:
    """The file of results; the last one of a check counts."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.of: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                self.of[item["check"]] = item

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Keep a result and say it."""
        item = {"check": name, **result}
        with self._lock:
            self.of[name] = item
            with self.path.open("a") as file:
                file.write(json.dumps(item) + "\n")
            verdict = "ok    " if item["ok"] else "FAILED"
            print(f"{verdict} {item['seconds']:6.1f} s  {name}: {item['measured']}", flush=True)


def run(chosen: Sequence[Check], results: Results, seconds: float, dry: bool, lanes: int) -> list[str]:
    """Make checks within a budget; return the names of those that time was not left for."""
    end = time.monotonic() + seconds
    left: list[str] = []

    def work(lane: Lane, waiting: queue.SimpleQueue[Check], end: float) -> None:
        while True:
            try:
                check = waiting.get_nowait()
            except queue.Empty:
                break
            rest = end - time.monotonic()
            if rest < 5:
                left.append(check.name)
                continue
            results.add(check.name, lane.make(check, min(check.limit, rest)))
        lane.close()

    for alone, count in ((False, lanes), (True, 1)):
        waiting: queue.SimpleQueue[Check] = queue.SimpleQueue()
        some = [check for check in chosen if check.alone == alone]
        for check in some:
            waiting.put(check)
        names = [f"{'alone' if alone else 'beside'}-{number}" for number in range(min(count, len(some)))]
        until = end if alone or not any(check.alone for check in chosen) else end - min(KEPT, seconds / 3)
        threads = [threading.Thread(target=work, args=(Lane(name, dry), waiting, until)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return left


def write_table(results: Results, path: Path) -> None:
    """Write the table of results."""
    about = results.of.get("environment", {}).get("more", {})
    lines = ["# On a CUDA card", ""]
    lines += ["Made by `scripts/cuda`; every figure is measured.", ""]
    for key in ABOUT:
        if about.get(key) is not None:
            lines.append(f"- {key.replace('_gib', ' (GiB)')}: {about[key]}")
    lines += ["", "| check | must be | measured | |", "| --- | --- | --- | --- |"]
    for check in checks():
        item = results.of.get(check.name)
        cells = [check.name, "", "not made", ""]
        if item:
            cells = [check.name, item["must"], item["measured"], "ok" if item["ok"] else "FAILED"]
        # Where a project lies on this machine is nobody's business.
        cells = [str(cell).replace(str(ROOT), ".").replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Make the checks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=330.0, help="budget for all checks")
    parser.add_argument(
        "--only", action="append", default=[], help="checks whose name begins so; may be repeated"
    )
    parser.add_argument("--dry", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--again", action="store_true", help="also what has passed")
    parser.add_argument(
        "--lanes", type=int, default=LANES, help="processes that make checks that are not timed"
    )
    parser.add_argument("--list", action="store_true", help="name the checks")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rate", nargs=3, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.serve:
        return serve(told.dry, told.serve)
    if told.rate:
        choose_kernels()
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        name, width, seconds = told.rate
        print(_rate(_loop([*SPEED[name], "probes=[]"], int(width), "cpu"), float(seconds), 10_000, "cpu")[0])
        return 0
    every = checks()
    chosen = [c for c in every if not told.only or any(c.name.startswith(word) for word in told.only)]
    if told.list:
        print("\n".join(check.name for check in chosen))
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    results = Results(OUT / ("dry.jsonl" if told.dry else "results.jsonl"))
    if not told.again:
        chosen = [check for check in chosen if not results.of.get(check.name, {}).get("ok")]
    began = time.monotonic()
    left = run(chosen, results, told.seconds, told.dry, told.lanes)
    write_table(results, OUT / "dry.md" if told.dry else TABLE)
    failed = [check.name for check in every if results.of.get(check.name, {"ok": True})["ok"] is False]
    print(
        f"{time.monotonic() - began:.0f} s; {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}"
    )
    if left:
        print(f"no time was left for {', '.join(left)}")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
