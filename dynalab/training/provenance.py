"""Who trained: versions, machine, source. Nothing here imports torch, so the command line may ask as well."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dynalab.core.machine import kernels
from dynalab.core.version import __version__


def bits_of(worker: bool = False) -> dict[str, str | None]:
    """Return what a seed's bits may depend on, here or in a worker; a run goes on under others with --anyway."""
    versions = {"dynalab": __version__, "torch": metadata.version("torch"), "cpu": cpu_type()}
    return {**versions, **kernels(worker)}


@lru_cache(maxsize=1)
def cpu_type() -> str:
    """Return the processor's model and its widest vector unit."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {}
    for line in info.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    vector = next(
        (flag for flag in ("avx512f", "avx2", "avx", "sse4_2") if flag in flags), platform.machine()
    )
    return f"{fields.get('model name', platform.machine())} ({vector})"


@lru_cache(maxsize=1)
def source() -> dict[str, Any]:
    """Return the checkout's commit and whether it was changed, where dynalab runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _git(root: Path, *words: str) -> str:
    # Without a lock of the index, which would be left behind where the disk is full.
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def provenance(device: str) -> dict[str, Any]:
    """Return the record that an attempt leaves in run.json."""
    return {
        **bits_of(),
        **source(),
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device,
        **_job(),
    }


def _job() -> dict[str, str]:
    """Return the id of the scheduler's job that this process is in, as Slurm writes it; nothing outside of one."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")
    return {"job": job} if job else {}
