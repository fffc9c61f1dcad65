"""`launcher=slurm`: what is submitted, by fakes of Slurm's commands; and what becomes of it, under a real one.

`scripts/slurm start` starts one. Without it those tests are skipped, unless DYNALAB_DEMAND names `slurm`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Answer, Cli, run_cli
from stored import assert_same, bits, only_ensemble

from dynalab.cli.app import run
from dynalab.config.command import read_command
from dynalab.config.schema import Compute
from dynalab.core import processes
from dynalab.core.errors import ConfigError
from dynalab.launch.base import Events, Report
from dynalab.launch.jobplans import plans_of
from dynalab.launch.slurm import Launcher, options, script
from dynalab.launch.survey import short
from dynalab.store import jobs, runfile
from dynalab.store.jobs import Submission, Task
from dynalab.store.lock import Lock
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.job import Job
from dynalab.training.jobplan import Survey, plan_jobs
from dynalab.training.planner import RUN_BY_RUN, Timing, Trial

WORDS = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "train.steps=20",
    "probes=[]",
    "snapshots.at=never",
]
HOSTILE = "o u't\n$(touch pwned) %a \"`;"


def commands(folder: Path, **scripts: str) -> str:
    """Make fakes of Slurm's commands; return the PATH that has them first."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shards(outputs: Path) -> list[ShardPaths]:
    return StoredEnsemble(OutputPaths(outputs).ensembles()[0]).paths.shards()


@pytest.fixture
def prepared(here: Cli, outputs: Path) -> Callable[[int], Path]:
    """Make an outputs folder of so many shards that wait for a worker."""

    def prepare(n_shards: int) -> Path:
        seeds = f"seed=0..{n_shards - 1}"
        assert here("train", *WORDS, seeds, "compute.width=1", "--prepare").code == 0
        return outputs

    return prepare


# What is submitted


def test_a_script_runs_the_worker_of_its_shard_whatever_folders_are_called(tmp_path):
    outputs = tmp_path / HOSTILE
    made = run_cli("train", *WORDS, "seed=0..1", "compute.width=1", "--prepare", "--outputs", str(outputs))
    assert made.code == 0
    keys = read_command(
        [*WORDS, "launcher=slurm", "launcher.setup=['export WORD=\"a  b\"','echo \"$WORD\"']"]
    )
    submission = Submission.new(OutputPaths(outputs), shards(outputs))
    text = script(submission, Job(), keys.settings.slurm, 1)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "17", "SLURM_JOB_ID": "19"}
    done = subprocess.run(["bash"], input=text, text=True, env=environment, cwd=tmp_path, capture_output=True)
    first, second = map(runfile.read, shards(outputs))
    assert done.returncode == 0 and (done.stdout, done.stderr) == ("", "")
    assert (first.status, second.status) == ("planned", "done")
    assert second.attempts[-1]["job"] == "17_1"
    assert submission.log(1).read_text().startswith("a  b\n") and not (tmp_path / "pwned").exists()
    # What is written down is read again.
    assert jobs.submissions(OutputPaths(outputs)) == [submission]


def test_every_key_becomes_an_option(tmp_path):
    keys = ['partition="a,b"', "time=1-02:00:00", "gpus=a100:2", "cpus=3", "memory=4G", "constraint='x&y'"]
    keys += ["account=me", "qos=long", "at_once=5", "warn=30", "options=['--nice=10','--comment=two words']"]
    settings = read_command([*WORDS, "launcher=slurm", *(f"launcher.{key}" for key in keys)]).settings
    made = Submission(OutputPaths(tmp_path), "dynalab-0123456789ab", (ShardPaths(tmp_path),) * 3)
    assert options(made.name, 3, settings.slurm) == [
        "--parsable",
        "--job-name=dynalab-0123456789ab",
        "--array=0-2%5",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=3",
        "--partition=a,b",
        "--time=1-02:00:00",
        "--gres=gpu:a100:2",
        "--mem=4G",
        "--constraint=x&y",
        "--account=me",
        "--qos=long",
        "--signal=B:USR1@30",
        "--requeue",
        "--output=/dev/null",
        "--nice=10",
        "--comment=two words",
    ]


@pytest.mark.parametrize(
    "word",
    [
        "time=soon",
        "memory=4X",
        "gpus=0",
        "gpus=true",
        "cpus=0",
        "partition='a b'",
        "options=[nice]",
        "options=['--array=0-9']",
        "restarts=-1",
        "wait=perhaps",
        "partiton=x",
    ],
)
def test_a_key_that_sbatch_could_not_use_is_named(word):
    with pytest.raises(ConfigError, match=f"launcher.{word.partition('=')[0]}"):
        read_command([*WORDS, "launcher=slurm", f"launcher.{word}"])


def test_keys_of_slurm_change_no_id_and_a_file_of_ones_own_is_a_launcher(tmp_path, monkeypatch):
    plain = read_command(WORDS)
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher/mine.yaml").write_text("name: slurm\npartition: gpu\ngpus: 1\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    mine = read_command([*WORDS, "launcher=mine", "launcher.gpus=2"])
    assert mine.requests[0].config.id == plain.requests[0].config.id
    assert (mine.settings.launcher, mine.settings.slurm.partition, mine.settings.slurm.gpus) == (
        "slurm",
        "gpu",
        2,
    )


def test_without_sbatch_a_line_says_so(tmp_path, outputs):
    answer = run_cli("train", *WORDS, "launcher=slurm", PATH=str(tmp_path))
    assert answer.code == 2 and "there is no sbatch here" in answer.err and "Traceback" not in answer.err
    assert not outputs.exists() or not list(outputs.glob("*/*/shard-*"))


def test_where_the_queue_does_not_answer_nothing_is_submitted_twice(tmp_path):
    path = commands(
        tmp_path / "bin",
        squeue="exit 0",
        sbatch=f'cat > {tmp_path}/script; echo "$@" >> {tmp_path}/said; echo 17',
    )
    answer = run_cli("train", *WORDS, "seed=0..1", "compute.width=1", "launcher=slurm", "--json", PATH=path)
    assert answer.code == 0
    told = sorted(answer.json["jobs"], key=lambda item: item["job"])
    assert [item["said"] for item in told] == ["submitted as job 17_0", "submitted as job 17_1"]
    assert [(item["job"], item["standing"]) for item in told] == [
        ("17_0", "submitted"),
        ("17_1", "submitted"),
    ]
    path = commands(
        tmp_path / "bin",
        squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
    )
    again = run_cli("train", *WORDS, "seed=0..1", "compute.width=1", "launcher=slurm", PATH=path)
    assert again.code == 3 and "squeue does not answer: slurm_load_jobs error" in again.err
    # The queue has them: they are told, by any state that is not the end.
    name = (tmp_path / "said").read_text().split("--job-name=")[1].split()[0]
    path = commands(
        tmp_path / "bin", squeue=f"echo '{name}|17|0|PENDING|Resources'; echo '{name}|17|1|COMPLETING|None'"
    )
    again = run_cli("train", *WORDS, "seed=0..1", "compute.width=1", "launcher=slurm", PATH=path)
    assert again.code == 0 and "1 shard queued as job 17 (Resources)" in again.err
    assert "1 shard running as job 17" in again.err
    watched = run_cli("runs", "watch", "--json", PATH=path)
    assert watched.json["training"] and watched.json["total"]["runs"] == {"waiting": 2}
    assert (tmp_path / "said").read_text().count("\n") == 1


def test_what_sbatch_refuses_is_told_and_leaves_no_submission(tmp_path, outputs):
    refusal = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    path = commands(tmp_path / "bin", squeue="exit 0", sbatch=f"echo '{refusal}' >&2; exit 1")
    answer = run_cli("train", *WORDS, "launcher=slurm", "launcher.partition=no", PATH=path)
    assert answer.code == 2 and f"sbatch refuses: {refusal}" in answer.err
    assert not list((outputs / ".jobs").glob("*.json"))


def test_a_strangers_submissions_name_shards_and_nothing_else(tmp_path):
    folder = tmp_path / ".jobs"
    folder.mkdir()
    for name, held in {"a" * 12: '["../../etc"]', "b" * 12: "[7]", "c" * 12: "7"}.items():
        (folder / f"dynalab-{name}.json").write_text(f'{{"schema_version": 1, "shards": {held}}}')
    (folder / "dynalab-$(x).json").write_text('{"shards": []}')
    (folder / f"dynalab-{'d' * 12}.json").write_text("{")
    assert jobs.submissions(OutputPaths(tmp_path)) == []


def test_what_is_said_of_a_job():
    assert Task("17_3", "PENDING", "Priority").said == "queued as job 17_3 (Priority)"
    assert Task("17_3", "RUNNING", "None").said == "running as job 17_3"
    assert Task("17_3").array.said == "submitted as job 17"


@pytest.mark.parametrize(
    ("line", "environment", "code", "requeued"),
    [
        ("kill -USR1 $$", {}, 143, True),
        ("set -eu; kill -USR1 $$", {}, 143, True),
        ("kill -USR1 $$", {"SLURM_RESTART_COUNT": "2"}, 143, False),
        ("kill -TERM $$", {}, 143, False),
        # The worker's Python is there, and listens to nothing yet.
        ("set -e; (sleep 0.05; kill -USR1 $$) &", {}, 143, True),
        ("exit 7", {}, 7, False),
    ],
)
def test_a_signal_before_the_worker_listens_loses_no_run(
    prepared, tmp_path, line, environment, code, requeued
):
    """While the user's lines run, or right after them."""
    outputs = prepared(1)
    path = commands(tmp_path / "bin", scontrol=f'echo "$@" >> {tmp_path}/said; exit 1')
    keys = read_command([*WORDS, "launcher=slurm", f"launcher.setup=['{line}']", "launcher.restarts=2"])
    submission = Submission.new(OutputPaths(outputs), shards(outputs))
    about = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "17", "SLURM_JOB_ID": "19", "PATH": path}
    text = script(submission, Job(), keys.settings.slurm, 1)
    done = subprocess.run(["bash"], input=text, text=True, env={**os.environ, **about, **environment})
    assert done.returncode == code, submission.log(0).read_text()
    said = tmp_path / "said"
    assert (said.read_text() if said.exists() else "") == "requeue 19\n" * requeued
    (record,) = map(runfile.read, shards(outputs))
    assert (record.status, record.attempts) == ("planned", [])


def test_a_card_is_the_jobs_own_and_no_processor_takes_its_place(prepared, tmp_path, outputs):
    """What Slurm gives a job stands in CUDA_VISIBLE_DEVICES, and reaches the worker as it is."""
    path = commands(tmp_path / "bin", squeue="exit 0", sbatch=f'cat > {tmp_path}/script; echo "$@"; echo 17')
    words = [
        *WORDS,
        "launcher=slurm",
        "launcher.gpus=1",
        "launcher.setup=['echo card $CUDA_VISIBLE_DEVICES']",
    ]
    assert run_cli("train", *words, PATH=path).code == 0
    (shard,) = shards(outputs)
    assert (
        Job.read(shard).device == "cuda" and "CUDA_VISIBLE_DEVICES=" not in (tmp_path / "script").read_text()
    )
    about = {"SLURM_ARRAY_TASK_ID": "0", "CUDA_VISIBLE_DEVICES": "3"}
    done = subprocess.run(["bash", tmp_path / "script"], env={**os.environ, **about})
    (log,) = outputs.glob(".jobs/*.txt")
    assert done.returncode == 2 and log.read_text().startswith("card 3\n") and "cuda" in log.read_text()


def test_a_shard_that_another_process_trains_has_not_crashed(prepared, tmp_path):
    outputs = prepared(2)
    mine, other = shards(outputs)
    for shard, job in ((mine, "17_0"), (other, "16_0")):
        record = runfile.read(shard)
        record.settle("running")
        record.attempts.append(
            {"job": job, "host": "n7", "uncompiled": "updates are made by torch, for no reason"}
        )
        runfile.write(shard, record)
    launcher, report = object.__new__(Launcher), Report()
    with Lock(mine.lock), Lock(other.lock):
        for index, shard in enumerate((mine, other)):
            launcher._settle(shard, f"17_{index}", Events(), report)
    assert [*report.failures] == [mine] and "job 17_0: crashed" in report.failures[mine]
    # Jobs train on other machines, which may have no compiler.
    assert report.warnings == [
        f"{mine.ensemble.root.name}: on n7 updates are made by torch, for no reason",
    ]
    assert [*report.held] == [other] and "is being trained by" in report.held[other]


# A trial job, where nothing was measured

SWEEP = [*WORDS, "seed=0..19", "launcher=slurm"]
# Runs what it is given at once, as a machine of the partition would.
AT_ONCE = (
    "export SLURM_ARRAY_TASK_ID=0 SLURM_JOB_PARTITION=long SLURM_MEM_PER_NODE=64\n"
    'echo "$@" >> {said}; cat > {said}-script\n'
    "grep -q DYNALAB {said}-script && bash {said}-script; echo 17"
)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Callable[..., str]:
    """Fakes of Slurm's commands and a cache of the test's own; what sbatch was told is in `said`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(**scripts: str) -> str:
        usual = {
            "squeue": "exit 0",
            "scancel": f'echo "$@" >> {tmp_path}/cancelled',
            "scontrol": "echo 'ClusterName = one'",
            "sinfo": "echo '8|64000|(null)|a'; echo '8|64000|(null)|a'; echo '16|64000|(null)|b'",
            "sbatch": AT_ONCE.format(said=tmp_path / "said"),
        }
        return commands(tmp_path / "bin", **usual | scripts)

    return make


@pytest.fixture
def now(capsys) -> Callable[..., Answer]:
    """Run `dynalab` in this process, with the launcher that the words name."""

    def run_now(*words: str) -> Answer:
        code = run([*words])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run_now


def said(tmp_path: Path, file: str = "said") -> list[str]:
    path = tmp_path / file
    return path.read_text().splitlines() if path.exists() else []


def test_where_nothing_was_measured_a_job_measures_first_and_once(fake, now, tmp_path, outputs, monkeypatch):
    path = fake()
    monkeypatch.setenv("PATH", path)
    # Of the task as it is, of which no training is begun to see whether it can be.
    dry = now("train", "task=grokking", "seed=0..19", "launcher=slurm", "--dry-run")
    assert dry.code == 0 and "not measured on these machines, which a trial job does first" in dry.err
    assert said(tmp_path) == [] and not outputs.exists()
    first = now("train", *SWEEP)
    assert first.code == 0 and "trial job 17 does it first" in first.err, first.err
    assert "ms a step and run on " in first.err and "one of 2 kinds of machines of the partition" in first.err
    trial, training = said(tmp_path)
    assert "--array=0-0" in trial and "--time=10" in trial and "--time" not in training
    assert not list(outputs.glob(".jobs/*trial*"))
    (known,) = json.loads((tmp_path / "cache/dynalab/surveys.json").read_text()).values()
    # The job's memory, not this machine's.
    assert known["memory"] == 64 << 20 and known["bits"] and known["partition"] == "long" and known["size"]
    assert all(runfile.read(shard).plan["bits"] == known["bits"] for shard in shards(outputs))
    # The same machines are known; another partition's and another cluster's are not.
    assert "ms a step and run on " in planned() and len(said(tmp_path)) == 2
    assert "not measured on these machines" in planned("launcher.partition=gpu")
    fake(scontrol="echo 'ClusterName = two'")
    assert "not measured on these machines" in planned()


def planned(*words: str) -> str:
    command = read_command([*SWEEP, *words])
    return plans_of(command).of(command.requests[0], 20).reason


@pytest.mark.parametrize(
    ("words", "scripts", "line"),
    [
        (["launcher.setup=['echo no such module','exit 1']"], {}, "it ended before it had measured"),
        ([], {"sbatch": "cat > {said}-script; echo 17"}, "it ended before it had measured"),
        (["launcher.trial=0"], {}, "not measured on these machines; compute.width="),
        (["model.heads=3"], {}, "heads"),
    ],
)
def test_a_trial_job_that_finds_nothing_is_told_and_costs_no_training(
    fake, now, tmp_path, outputs, monkeypatch, words, scripts, line
):
    monkeypatch.setattr("dynalab.launch.survey.LATE_SECONDS", 0.0)
    scripts = {name: text.format(said=tmp_path / "said") for name, text in scripts.items()}
    monkeypatch.setenv("PATH", fake(**scripts))
    answer = now("train", *SWEEP, *words)
    if words == ["model.heads=3"]:
        assert answer.code == 2 and line in answer.err
        return
    assert answer.code == 0 and line in answer.err and "1 shard submitted as job 17" in answer.err, answer.err
    assert not list(outputs.glob(".jobs/*trial*")) and not (tmp_path / "cache/dynalab/surveys.json").exists()


def test_a_trial_job_that_does_not_begin_is_cancelled_after_a_while(
    fake, now, tmp_path, outputs, monkeypatch
):
    """And where sbatch refuses, as of a partition that is not there, nothing of the command stays."""
    path = fake(
        sbatch=f'echo "$@" >> {tmp_path}/said; cat > /dev/null; echo 17',
        squeue='for word; do case $word in --name=*) echo "${word#--name=}|17|0|PENDING|Priority";; esac; done',
    )
    launched = ["launcher.trial=1"]
    monkeypatch.setattr("dynalab.launch.survey.SECONDS_OF_MINUTE", 0.0)
    monkeypatch.setenv("PATH", path)
    answer = now("train", *SWEEP, *launched)
    assert answer.code == 0 and "not begun after 1 minute (queued as job 17_0 (Priority))" in answer.err
    assert said(tmp_path, "cancelled") == ["17"] and len(said(tmp_path)) == 2
    refusing = fake(sbatch="echo 'sbatch: error: invalid partition specified: no' >&2; exit 1")
    other = outputs.parent / "other"
    refused = run_cli("train", *SWEEP, "launcher.partition=no", "--outputs", str(other), PATH=refusing)
    assert refused.code == 2 and "invalid partition" in refused.err and not list(other.glob("*"))


def test_a_plan_is_made_for_the_jobs_memory_and_by_their_times():
    times = (Timing(4, 1, 1e-3), Timing(10, 1, 5e-4), Timing(20, 1, 4e-4))
    wide = Survey(Trial(times, 1e6), "node1", "a processor", memory=10**9)
    compute = Compute()
    assert plan_jobs(20, compute, "cpu", 1, wide).widths == (20,)
    small = plan_jobs(20, compute, "cpu", 1, replace(wide, memory=10**7))
    assert small.widths == (5, 5, 5, 5) and "more would not fit in memory" in small.reason
    # Each of several jobs has as much.
    assert plan_jobs(20, Compute(workers=2), "cpu", 1, replace(wide, memory=2 * 10**7)).widths == (10, 10)
    assert plan_jobs(20, compute, "cpu", 1, replace(wide, bits=RUN_BY_RUN)).widths == (1,) * 20
    # On cards each has one of its own.
    card = replace(wide, trial=Trial(times[:1], 1e6, 10**7), memory=None)
    assert plan_jobs(20, compute, "cuda", 1, card).widths == (5, 5, 5, 5)
    assert plan_jobs(20, Compute(workers=4), "cuda", 1).widths == (5, 5, 5, 5)


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [(None, 10), (3, 3), (0, 1), ("5:30", 5), ("0:4:00", 4), ("1:00:00", 10), ("0-0:07", 7), ("2-0", 10)],
)
def test_a_trial_job_is_short(limit, minutes):
    assert short(limit) == minutes


# What becomes of it

SLOW = """
import itertools
import os
import time
from dataclasses import dataclass, field

from dynalab.probes.base import Cadence


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    name: str = "slow"
    every: int | None = 1


@dataclass(frozen=True)
class Probe:
    needs: frozenset[str] = frozenset()
    times: itertools.count = field(default_factory=itertools.count)

    def measure(self, state):
        if os.path.exists(os.environ.get("DYNALAB_SLOW", "")):
            # Soon there is something to be seen; and then, however slow the machine, 400 steps outlast every wait.
            time.sleep(0.2 if next(self.times) < 50 else 2)
        return {"slow": next(iter(state.params.values())).flatten(1).double().sum(dim=1)}


def build(config, network):
    return Probe()
"""
LONG = [*WORDS[:3], "train.steps=400", "probes=[slow]", "snapshots.at=never", "compute.width=1"]


@pytest.fixture
def real() -> Iterator[None]:
    """A Slurm that answers, of this test alone."""
    if (
        shutil.which("sbatch") is None
        or subprocess.run(["sinfo"], capture_output=True, timeout=120).returncode
    ):
        if "slurm" in os.environ.get("DYNALAB_DEMAND", ""):
            pytest.fail("no Slurm runs here: scripts/slurm start")
        pytest.skip("no Slurm runs here: scripts/slurm start")
    with open("/tmp/dynalab-slurm-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        subprocess.run(["scancel", "--me"], capture_output=True, timeout=120)
        # What is ending still has its processors.
        until(lambda: not queued())


def ask(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def queued(*words: str) -> str:
    """Return the names and states of jobs in the queue, a job a line."""
    return ask("squeue", "--noheader", "--format=%j %T", *words)


def until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain; {ask('squeue')}"
        time.sleep(0.1)


class Cluster:
    """Trainings that take their time while a file is there, and the same in this machine's own workers."""

    def __init__(self, folder: Path, outputs: Path) -> None:
        self.outputs, self._slow, self._straight = outputs, folder / "slow", folder / "straight"
        (folder / "own/probe").mkdir(parents=True)
        (folder / "own/probe/slow.py").write_text(SLOW)
        (folder / "own/probe/slow.yaml").write_text("name: slow\nevery: 1\nat: null\n")
        self._environment = {"DYNALAB_SLOW": str(self._slow)}
        self._own = ["--config-dir", str(folder / "own")]
        self._slow.touch()

    def train(self, *words: str) -> Answer:
        return run_cli("train", *LONG, "launcher=slurm", *words, *self._own, **self._environment)

    def steps(self) -> list[int]:
        """How far the shards are, by what those that train them say."""
        found = []
        for shard in shards(self.outputs):
            path = shard.progress if shard.progress.is_file() else shard.run
            document = json.loads(path.read_text())
            found.append(document.get("step", document.get("steps", 0)))
        return found

    def under_way(self) -> None:
        def trained() -> bool:
            self._nudge()
            return min(self.steps()) > 0

        until(trained)

    def _nudge(self) -> None:
        """Have what was put in the queue again begin at once: Slurm has it wait for two minutes."""
        for task in jobs.under_way(OutputPaths(self.outputs)).values():
            if task.waits:
                words = ["scontrol", "update", f"jobid={task.job}", "starttime=now"]
                subprocess.run(words, capture_output=True, timeout=120)

    def task(self) -> Task:
        (task,) = jobs.under_way(OutputPaths(self.outputs)).values()
        return task

    def states(self) -> list[str]:
        return [runfile.read(shard).status for shard in shards(self.outputs)]

    def hurry(self) -> None:
        """Let what runs end, and what was put in the queue again as well."""
        self._slow.unlink(missing_ok=True)

        def ended() -> bool:
            self._nudge()
            return not jobs.under_way(OutputPaths(self.outputs))

        until(ended)

    def attempts(self) -> list[dict[str, object]]:
        return [item for shard in shards(self.outputs) for item in runfile.read(shard).attempts]

    def assert_whole(self, *words: str) -> None:
        """All is done, to the bits of a training that nothing happened to, and the command has no more to do."""
        again = self.train(*words)
        assert again.code == 0 and "nothing to train: all is done" in again.err, again.err
        assert not list(self.outputs.glob(".jobs/*"))
        own = [word for word in words if not word.startswith("launcher.")]
        straight = run_cli("train", *LONG, *own, *self._own, "--outputs", str(self._straight))
        assert straight.code == 0, straight.err
        one, other = (bits(only_ensemble(folder)) for folder in (self.outputs, self._straight))
        assert_same(one, other, sorted(other))


@pytest.fixture
def cluster(tmp_path: Path, outputs: Path, real: None) -> Cluster:
    return Cluster(tmp_path, outputs)


def test_a_sweep_is_submitted_once_watched_and_collected(cluster):
    words = ["task=grokking", "seed=0..2"]
    first = cluster.train(*words)
    assert first.code == 0 and "3 shards submitted as job" in first.err
    # Two at a time, and while they run: never twice.
    command = [sys.executable, "-m", "dynalab", "train", *LONG, "launcher=slurm", *words, *cluster._own, "-q"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    assert [item.communicate(timeout=240) and item.returncode for item in both] == [0, 0]
    cluster.under_way()
    again = cluster.train(*words, "--json")
    assert again.code == 0 and len(again.json["jobs"]) == 3
    assert all(item["standing"] == "running" for item in again.json["jobs"])
    watched = run_cli("runs", "watch", "--json").json
    assert watched["total"]["runs"] == {"running": 3} and watched["total"]["step"] > 0
    assert len(jobs.submissions(OutputPaths(cluster.outputs))) == 1
    cluster.hurry()
    assert len({str(item["job"]) for item in cluster.attempts()}) == 3 == len(cluster.attempts())
    cluster.assert_whole(*words)


def test_waiting_ends_as_a_local_training_does_and_tells_a_job_that_never_trained(cluster):
    cluster._slow.unlink()
    words = ["seed=0", "launcher.wait=true"]
    failed = cluster.train(*words, "launcher.setup=[echo no such module,exit 1]")
    assert failed.code == 3 and "no such module" in failed.err and "planned when its job ended" in failed.err
    again = cluster.train(*words)
    assert again.code == 0 and "its job ended before it trained; submitted again" in again.err
    assert cluster.states() == ["done"]
    cluster.assert_whole("seed=0")


def test_a_real_trial_job_measures_and_one_that_waits_in_vain_ends_with_the_command(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "dynalab", "train", *SWEEP]
    whole = ask("sinfo", "--noheader", "--partition=main", "--format=%c").strip("+")
    ask("sbatch", f"--cpus-per-task={whole}", "--output=/dev/null", "--job-name=full", "--wrap=sleep 1000")
    until(lambda: queued("--name=full").endswith("RUNNING"))
    waiting = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a script, they ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = ""
    while "Ctrl-C ends it" not in said:
        said += waiting.stderr.readline()
        assert waiting.poll() is None, said
    assert "dynalab-" in queued()
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 130, said + err
    until(lambda: "dynalab-" not in queued())
    assert not list(cluster.outputs.glob("**/*.json*"))
    ask("scancel", "--name=full")
    answer = run_cli("train", *SWEEP)
    assert answer.code == 0 and "ms a step and run on " in answer.err and "submitted as job" in answer.err


def test_the_time_limit_saves_requeues_and_ends_in_the_same_bits(cluster):
    # Slurm looks every half a minute, and warns that much early: 15 to 45 s after the job began.
    words = ["seed=0", "launcher.time=1", "launcher.warn=15"]
    assert cluster.train(*words).code == 0
    cluster.under_way()
    until(lambda: cluster.task().waits)
    assert cluster.states() == ["partial"] and 0 < runfile.read(shards(cluster.outputs)[0]).steps < 400
    assert "queued as job" in cluster.train(*words).err
    cluster.hurry()
    first, second = cluster.attempts()
    assert first["job"] == second["job"] and second["first_step"] == first["step"]
    cluster.assert_whole("seed=0")


def test_a_job_that_is_cancelled_saves_and_the_same_command_submits_it_again(cluster):
    cluster.train("seed=0")
    cluster.under_way()
    job = cluster.task().job
    ask("scancel", job)
    until(lambda: not jobs.under_way(OutputPaths(cluster.outputs)))
    assert cluster.states() == ["partial"]
    again = cluster.train("seed=0")
    assert again.code == 0 and "submitted as job" in again.err
    cluster.hurry()
    first, second = cluster.attempts()
    assert first["job"] == job != second["job"] and second["first_step"] == first["step"] > 0
    cluster.assert_whole("seed=0")


def test_a_pre_empted_job_goes_on_by_itself(cluster):
    whole = ask("sinfo", "--noheader", "--partition=main", "--format=%c").strip("+")
    cluster.train("seed=0", f"launcher.cpus={whole}")
    cluster.under_way()
    ask("sbatch", "--partition=urgent", f"--cpus-per-task={whole}", "--output=/dev/null", "--wrap=sleep 1")
    until(lambda: cluster.task().waits)
    assert cluster.states() == ["partial"]
    cluster.hurry()
    first, second = cluster.attempts()
    assert first["job"] == second["job"] and second["first_step"] == first["step"] > 0
    cluster.assert_whole("seed=0")


def test_a_job_outlives_a_stop_of_its_nodes_daemon_and_a_kill_is_gone_on_from(cluster):
    cluster.train("seed=0")
    cluster.under_way()
    pid = int(Path(ask("bash", "-c", "scontrol show config | sed -n 's/^SlurmdPidFile *= //p'")).read_text())
    os.kill(pid, signal.SIGTERM)
    until(lambda: not processes.exists(pid))
    steps = cluster.steps()
    assert "running as job" in cluster.train("seed=0").err
    ask("slurmd")
    until(lambda: cluster.steps() > steps)
    # Without a warning: what was done since the last checkpoint is done once more.
    worker = json.loads(shards(cluster.outputs)[0].lock.read_bytes())["pid"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: not jobs.under_way(OutputPaths(cluster.outputs)))
    again = cluster.train("seed=0", "--retry-failed")
    assert again.code == 0 and "crashed" in again.err and "submitted again" in again.err
    cluster.hurry()
    cluster.assert_whole("seed=0")
