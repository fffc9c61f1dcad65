"""The machine that training finds: kernels, processors, memory. Imports nothing that is slow to import."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path

# What a seed's bits depend on beside versions and the type of CPU: MKL, ATen and oneDNN choose kernels by them.
VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
# Left alone, MKL chooses kernels by the address of a matrix, and on some processors these round differently: a seed's
# bits would depend on its place in the stack. AUTO: the fastest kernels of the processor, the same at every address.
KERNELS = {"MKL_CBWR": "AUTO"}
# What glibc's `mallopt` calls the size from which a freed piece goes back to the system, and memory at the heap's end;
# and that size, bytes.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _LARGE = -3, -1, 1 << 30


def choose_kernels() -> None:
    """Have this process, and those that it starts, compute with kernels that do not depend on addresses.

    A user's own value stands. MKL reads it at its first call, so where torch is loaded already it may be too late, and
    nothing is claimed that may not hold: this process is left as it is. A worker comes by here before it loads torch.
    """
    if "torch" not in sys.modules:
        for name, value in KERNELS.items():
            os.environ.setdefault(name, value)


def keep_memory() -> None:
    """Have this process keep the memory that it frees, where its C library is glibc.

    By itself glibc gives large pieces back to the system at once and gets them anew, emptied page by page, at every
    step: an eighth of the time of a step of grokking or of a ResNet. A user's own settings stand.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _LARGE)
        if not mallopt(_MMAP_THRESHOLD, _LARGE):
            # Older ones take no more than this.
            mallopt(_MMAP_THRESHOLD, 1 << 25)


def kernels(worker: bool = False) -> dict[str, str | None]:
    """Return the variables that choose kernels, None where one is not set, of this process or a worker of its own."""
    return {name: os.environ.get(name, KERNELS.get(name) if worker else None) for name in VARIABLES}


def unchosen() -> str | None:
    """Return a line for the user where torch was loaded before kernels could be chosen, else None."""
    missing = [f"{name}={value}" for name, value in KERNELS.items() if name not in os.environ]
    if not missing:
        return None
    return (
        f"torch was loaded before dynalab, so a seed's bits may depend on its neighbours: set {' '.join(missing)} in "
        "the environment, import dynalab first, or leave training to workers (launcher=local)"
    )


def cores(root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use: its affinity, less where a control group has a quota.

    A quota of 1.5 processors counts as 2: it is a share of time, of which one process alone would leave a third. `proc`
    and `sys` lie in `root`.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    for group in _own_groups("cpu", root):
        quota = _numbers(group / "cpu.max")
        quota = quota or [*_numbers(group / "cpu.cfs_quota_us"), *_numbers(group / "cpu.cfs_period_us")]
        # Version 1 writes -1 where there is none.
        if len(quota) == 2 and min(quota) > 0:
            count = min(count, -(-quota[0] // quota[1]))
    return count


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that are free on this machine, to this process' control groups and job, or None."""
    free = [given] if (given := job_memory()) else []
    free += [value * 1024 for value in _named(root / "proc/meminfo", "MemAvailable:")]
    for group in _own_groups("memory", root):
        for limits, usage, idle in (
            (("memory.max", "memory.high"), "memory.current", "inactive_file"),
            (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = [value for name in limits for value in _numbers(group / name)]
            used = _numbers(group / usage)
            if limit and used:
                # What is cached of files that nobody reads is given back where memory is asked for.
                cached = sum(_named(group / "memory.stat", idle))
                free.append(max(min(limit) - max(used[0] - cached, 0), 0))
    return min(free, default=None)


def file_memory(root: Path = Path("/")) -> int:
    """Return the bytes of files, libraries above all, that this process has in memory; 0 where it cannot be told."""
    return sum(_named(root / "proc/self/status", "RssFile:")) * 1024


def job_memory() -> int:
    """Return the bytes that Slurm gives the job of this process, 0 where there is none or it is not limited."""
    megabytes = {
        name: int(value)
        for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
        if (value := os.environ.get(name, "")).isdecimal()
    }
    share = megabytes.get("SLURM_MEM_PER_CPU", 0) * megabytes.get("SLURM_CPUS_ON_NODE", 1)
    return (megabytes.get("SLURM_MEM_PER_NODE") or share) << 20


def cards(root: Path = Path("/")) -> list[str]:
    """Return the names of the NVIDIA cards, as their driver has them; none where it tells nothing.

    Args:
        root: Where `proc` lies.
    """
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError):
            lines = (line.partition(":") for line in path.read_text().splitlines())
            found += [value.strip() for key, _, value in lines if key == "Model"]
    return found


def driver(root: Path = Path("/")) -> str | None:
    """Return the version of the NVIDIA driver, or None.

    Args:
        root: Where `proc` lies.
    """
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Module .*?(\d+(\.\d+)+)", text)
    return found[1] if found else None


def control_groups(controller: str, listing: Path, mount: Path) -> list[list[Path]]:
    """Return the folders of the control groups that a process is in: for each hierarchy, from the innermost outwards.

    `controller` is `cpu` or `memory`, which version 1 mounts apart, the others `/proc/self/cgroup`, `/sys/fs/cgroup`.
    """
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return []
    chains = []
    for line in lines:
        controllers, _, place = line.partition(":")[2].partition(":")
        if controllers == "":
            tops = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            # The folder may name them in another order.
            tops = [top for top in mount.glob(f"*{controller}*") if controller in top.name.split(",")]
        else:
            continue
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for top in dict.fromkeys(tops):
            # Inside a container the group, or one that holds it, may be mounted as the root of what is seen.
            places = [top.joinpath(*parts[skip:]) for skip in range(len(parts) + 1)]
            group = next((folder for folder in places if folder.is_dir()), None)
            if group is not None:
                chains.append([group, *(folder for folder in group.parents if folder.is_relative_to(top))])
    return chains


def _own_groups(controller: str, root: Path) -> list[Path]:
    chains = control_groups(controller, root / "proc/self/cgroup", root / "sys/fs/cgroup")
    return [group for chain in chains for group in chain]


def _numbers(path: Path) -> list[int]:
    """Return the whole numbers of a line of the kernel's; none where there is no file, or another word comes first."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _named(path: Path, name: str) -> list[int]:
    """Return the number behind a name in a file of the kernel's, in a list; an empty one where there is none."""
    try:
        lines = path.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[:1] == [name]]
    except (OSError, ValueError, IndexError):
        return []
