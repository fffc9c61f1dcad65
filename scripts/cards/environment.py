"""The card, the versions, and whether float32 is float32."""

from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any

from cards.base import ROOT, Bench, Check, Outcome


def environment(bench: Bench) -> Outcome:
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
    return Outcome(
        "all packages, float32 products",
        told + (f"; missing {missing}" if missing else ""),
        not missing and flat,
        more,
    )


def _cpu() -> str:
    from dynalab.training.provenance import cpu_type

    return cpu_type()


def _commit() -> str | None:
    # A tree that was copied to the card's machine has no history there.
    if told := os.environ.get("DYNALAB_COMMIT"):
        return told
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


CHECKS = [Check("environment", environment)]
