"""The machine: quotas of control groups of both versions, and the variables by which kernels are chosen."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dynalab.core.machine import VARIABLES, cards, cores, driver, file_memory, free_memory, kernels

GB = 10**9


def tree(root: Path, listing: str, **files: str) -> Path:
    """Make a machine of 8 GB free in which this process is in some control groups."""
    everything = {"proc/self/cgroup": listing, "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000000 kB\n"}
    for place, text in {
        **everything,
        **{f"sys/fs/cgroup/{key}": value for key, value in files.items()},
    }.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(
    group: str, cpu: str = "max 100000", memory: str = "max", used: int = 0, idle: int = 0
) -> dict[str, str]:
    limits = {"cpu.max": cpu, "memory.max": memory, "memory.high": "max", "memory.current": str(used)}
    limits["memory.stat"] = f"anon 5\ninactive_file {idle}\n"
    return {f"{group}/{name}": f"{text}\n" for name, text in limits.items()}


def v1(
    group: str, quota: int = -1, limit: int = 2**63 - 4096, used: int = 0, idle: int = 0
) -> dict[str, str]:
    return {
        f"cpu,cpuacct/{group}/cpu.cfs_quota_us": f"{quota}\n",
        f"cpu,cpuacct/{group}/cpu.cfs_period_us": "100000\n",
        f"memory/{group}/memory.limit_in_bytes": f"{limit}\n",
        f"memory/{group}/memory.usage_in_bytes": f"{used}\n",
        f"memory/{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {idle}\n",
    }


V1 = "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a/b\n"
FREE = 8000000 * 1024


@pytest.mark.parametrize(
    ("listing", "files", "processors", "memory"),
    [
        ("", {}, 16, FREE),
        ("0::/a/b\n", v2("a/b"), 16, FREE),
        ("0::/a/b\n", v2("a/b", "100000 100000", str(2 * GB), GB // 2), 1, 3 * GB // 2),
        # The least on the way to the root counts, wherever it stands, also above a group without controllers.
        ("0::/a/b\n", v2("a", "200000 100000", str(GB)) | v2("a/b", "400000 100000", str(2 * GB)), 2, GB),
        ("0::/a/b/c\n", v2("a", "300000 100000", str(GB)) | {"a/b/c/cgroup.procs": ""}, 3, GB),
        # Part of a processor is used too; what is cached of idle files is free.
        ("0::/a\n", v2("a", "150000 100000", str(GB), used=GB, idle=GB // 4), 2, GB // 4),
        ("0::/a\n", v2("a", "20000 100000", str(GB), used=2 * GB), 1, 0),
        ("0::/a\n", v2("a") | {"a/memory.high": f"{GB}\n"}, 16, GB),
        # In a container: its group is the root of what is seen, whatever the kernel calls it.
        ("0::/\n", v2(".", "250000 50000", str(GB)), 5, GB),
        ("0::/system.slice/docker-1f.scope\n", v2(".", "100000 100000", str(GB)), 1, GB),
        ("0::/docker/1f/job\n", v2(".") | v2("job", "200000 100000", str(GB)), 2, GB),
        ("0::/../other\n", v2(".", "300000 100000"), 3, FREE),
        (V1, v1("a/b"), 16, FREE),
        (V1, v1("a/b", 100000, GB, GB // 2, GB // 4), 1, 3 * GB // 4),
        (V1, v1("a/b", 800000) | v1("a", 250000, GB), 3, GB),
        (V1, v1(".", 200000, GB), 2, GB),
        # The folder may name its controllers in another order than the kernel.
        ("3:cpuacct,cpu:/a/b\n", v1("a/b", 200000), 2, FREE),
        # Hybrid: version 2 is there, without controllers.
        ("0::/a/b\n" + V1, v1("a/b", 200000, GB) | {"unified/a/b/cgroup.procs": ""}, 2, GB),
        # What the kernel never writes limits nothing.
        ("nonsense\n0::/a\n", {"a/cpu.max": "\n", "a/memory.max": "much\n", "a/memory.current": "1\n"}, 16, FREE),
    ],
)  # fmt: skip
def test_quotas_of_nested_control_groups_are_seen(tmp_path, monkeypatch, listing, files, processors, memory):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    root = tree(tmp_path, listing, **files)
    assert cores(root) == processors
    assert free_memory(root) == memory


def test_fewer_processors_than_the_quota_are_what_the_affinity_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores(tree(tmp_path, "0::/a\n", **v2("a", "400000 100000"))) == 1
    assert free_memory(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("variables", "megabytes"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "64"}, 64),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "10", "SLURM_CPUS_ON_NODE": "3"}, 30),
        ({"SLURM_MEM_PER_NODE": "all"}, None),
    ],
)
def test_a_job_has_the_memory_that_slurm_gives_it(tmp_path, monkeypatch, variables, megabytes):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert free_memory(tmp_path) == (megabytes and megabytes << 20)


def told(code: str, **environment: str) -> list:
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_kernels_are_chosen_before_torch_is_loaded_and_a_users_value_stands():
    # A module of this name is enough for what is asked: it has been loaded.
    late = "import sys; sys.modules['torch'] = sys; import dynalab.core.machine as m; "
    early = "import dynalab.core.machine as m; "
    code = (
        "import json; print(json.dumps([m.kernels()['MKL_CBWR'], m.kernels(True)['MKL_CBWR'], m.unchosen()]))"
    )
    assert told(early + code) == ["AUTO", "AUTO", None]
    assert told(early + code, MKL_CBWR="COMPATIBLE") == ["COMPATIBLE", "COMPATIBLE", None]
    here, worker, line = told(late + code)
    assert (here, worker) == (None, "AUTO") and "set MKL_CBWR=AUTO" in line and "\n" not in line
    assert told(late + code, MKL_CBWR="COMPATIBLE") == ["COMPATIBLE", "COMPATIBLE", None]


def test_this_process_has_its_kernels_chosen():
    assert kernels()["MKL_CBWR"] and set(kernels()) == set(VARIABLES)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.12  Wed Sep 20 09:35:17 UTC 2023\n",
            "535.104.12",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n", "570.86.15"),
    ],
)
def test_the_driver_names_its_cards_and_itself(tmp_path, said, version):
    assert cards(tmp_path) == [] and driver(tmp_path) is None
    folder = tmp_path / "proc/driver/nvidia"
    for place, name in (("0000:01:00.0", "NVIDIA H100"), ("0000:02:00.0", "NVIDIA H200")):
        (folder / "gpus" / place).mkdir(parents=True)
        (folder / "gpus" / place / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 16\n")
    (folder / "version").write_text(said)
    assert cards(tmp_path) == ["NVIDIA H100", "NVIDIA H200"] and driver(tmp_path) == version


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(
    ("own", "kept"),
    [({}, True), ({"MALLOC_TOP_PAD_": "0"}, False), ({"GLIBC_TUNABLES": "glibc.malloc.top_pad=0"}, False)],
)
def test_memory_that_is_freed_is_kept_unless_the_user_says_how(own, kept):
    code = """
import ctypes
import resource
import numpy as np
from dynalab.core.machine import keep_memory
# PR_SET_THP_DISABLE: where pages are huge there are few faults, whatever is kept.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
keep_memory()
faults = []
for _ in range(20):
    # Two pieces, so that none lies as the heap's end was found.
    pieces = np.ones(1 << 20), np.ones(1 << 20)
    del pieces
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | own
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 1000) == kept


def test_what_libraries_take_is_told_from_other_memory(tmp_path):
    assert file_memory(tmp_path) == 0
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("Name:\tpython\nRssAnon:\t  700 kB\nRssFile:\t  300 kB\n")
    assert file_memory(tmp_path) == 300 * 1024
