"""That a seed's bits are its own is tried on the machine at hand, kept where it can be, and else taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored import assert_same, bits, difference, only_ensemble

from dynalab import fork, train
from dynalab.config.command import read_command
from dynalab.core.machine import VARIABLES
from dynalab.errors import ConfigError
from dynalab.launch import compare, inline, trials
from dynalab.store import runfile
from dynalab.store.paths import ShardPaths
from dynalab.training import exactness
from dynalab.training.planner import ADDRESS, DRAWN, HOLD, RUN_BY_RUN, Plan, with_bits
from dynalab.training.provenance import bits_of

# A line fitted by a network whose forward pass depends on what it should not; `{factor}` says on what.
MODEL = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "odd"
    rate: float = 1.0


def build(config, spec):
    import torch

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(spec.symbols, spec.classes)

        def stacked_forward(self, params, inputs):
            weight, bias = params["layer.weight"], params["layer.bias"]
            outputs = inputs @ weight.transpose(1, 2) + bias[:, None]
            return outputs * {factor}

    return Odd()
"""
FACTORS = {
    HOLD: "1.0",
    ADDRESS: "(1 + 1e-5 * (weight.data_ptr() % 64 // 16))",
    "inputs": "(1 + 1e-5 * (inputs.data_ptr() % 32 > 0))",
    RUN_BY_RUN: "(1 + 1e-5 * (len(weight) > 2))",
    "last": "(1 + 1e-5 * (torch.arange(len(weight)) == max(len(weight) - 1, 2)))[:, None, None]",
    DRAWN: "(1 + 1e-5 * torch.rand(()))",
    "numpy": "(1 + 1e-5 * __import__('numpy').random.rand())",
    "error": "(1 / 0)",
}
WORDS = ["task=digits", "task.n_train=20", "model=odd", "train.steps=6", "eval.every=3", "probes=[gradients]"]
WORDS += ["launcher=inline", "snapshots.at=never"]


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what makes the network depend on something."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "mine"))
    # The suite is run under other kernels as well.
    for name in VARIABLES[1:]:
        monkeypatch.delenv(name, raising=False)

    def make(factor: str) -> None:
        folder = tmp_path / "mine/model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "odd.py").write_text(MODEL.replace("{factor}", FACTORS[factor]))
        (folder / "odd.yaml").write_text("name: odd\nrate: 1.0\n")

    return make


def plans(outputs: Path) -> list[dict]:
    return [json.loads(path.read_text())["plan"] for path in sorted(outputs.glob("*/*/shard-*/run.json"))]


@pytest.mark.parametrize(
    ("factor", "width", "verdict"),
    [
        (HOLD, 5, HOLD),
        (HOLD, 1, HOLD),
        (ADDRESS, 5, ADDRESS),
        (ADDRESS, 1, ADDRESS),
        ("inputs", 1, ADDRESS),
        (RUN_BY_RUN, 5, RUN_BY_RUN),
        (RUN_BY_RUN, 2, HOLD),
        ("last", 4, RUN_BY_RUN),
        ("last", 5, RUN_BY_RUN),
        (DRAWN, 1, DRAWN),
        ("numpy", 1, DRAWN),
        ("error", 5, None),
    ],
)
def test_kernels_that_round_by_address_or_width_are_told_apart(odd, one_thread, factor, width, verdict):
    odd(factor)
    (request,) = read_command(WORDS).requests
    folders = [str(folder) for folder in read_command(WORDS).settings.folders]
    assert exactness.exactness(request.config.as_dict(), width, 1e3, folders) == verdict


def test_where_width_shows_every_run_is_trained_by_itself_and_its_bits_are_its_own(odd, tmp_path):
    odd(RUN_BY_RUN)
    train([*WORDS, "seed=0..4", "compute.width=5"], outputs=tmp_path / "together")
    assert [plan["bits"] for plan in plans(tmp_path / "together")] == [RUN_BY_RUN] * 5
    train([*WORDS, "seed=3"], outputs=tmp_path / "alone")
    assert [plan["bits"] for plan in plans(tmp_path / "alone")] == [HOLD]
    together, alone = (bits(only_ensemble(tmp_path / name)) for name in ("together", "alone"))
    assert difference(together["s0003"], alone["s0003"]) == []


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (ADDRESS, "bits do not hold on this machine for this network"),
        (DRAWN, "the same seed gave other numbers the second time"),
    ],
)
def test_where_bits_are_not_a_seeds_own_one_line_says_so_and_the_runs_keep_it(odd, tmp_path, verdict, said):
    odd(verdict)
    with pytest.warns(UserWarning, match=said) as told:
        train([*WORDS, "seed=0..2", "compute.width=3"], outputs=tmp_path / "o")
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert [plan["bits"] for plan in plans(tmp_path / "o")] == [verdict]


def test_a_network_is_tried_once_whatever_the_learning_rate(odd, tmp_path, monkeypatch):
    odd(HOLD)
    asked = []
    monkeypatch.setattr(
        inline.Launcher,
        "trial",
        lambda self, task, **request: asked.append(request["width"]) or {"found": HOLD},
    )
    for words in (["seed=0..1"], ["seed=2", "optimizer.lr=0.01,0.02"], ["seed=4..5", "train.steps=7"]):
        train([*WORDS, *words, "compute.workers=1"], outputs=tmp_path / "o")
    assert asked == [2, 1]
    # Another kernel, another machine.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    train([*WORDS, "seed=0..1", "compute.workers=1"], outputs=tmp_path / "p")
    # Bits that are not promised are not tried; a file that is damaged is none.
    train([*WORDS, "seed=0..1", "compute.exact=false"], outputs=tmp_path / "q")
    trials.path(trials.EXACTNESS).write_text("[1")
    train([*WORDS, "seed=6", "compute.workers=1"], outputs=tmp_path / "p")
    assert asked == [2, 1, 2, 1]


def test_a_trial_that_would_take_long_is_not_made(odd, one_thread, monkeypatch):
    odd(RUN_BY_RUN)
    (request,) = read_command(WORDS).requests
    tree, folders = request.config.as_dict(), [str(folder) for folder in read_command(WORDS).settings.folders]
    monkeypatch.setattr(exactness, "SECONDS", 0.0)
    assert exactness.exactness(tree, 5, 1.0, folders) is None
    # It is worth what it takes where training takes much longer.
    assert exactness.exactness(tree, 5, 1e9, folders) == RUN_BY_RUN


def test_what_a_trial_says_decides_the_plan():
    laid = Plan(2, 1, (4, 3), "as usual", 0.5)
    assert with_bits(laid, HOLD) == Plan(2, 1, (4, 3), "as usual", 0.5, HOLD)
    assert with_bits(laid, ADDRESS).widths == (4, 3)
    apart = with_bits(laid, RUN_BY_RUN)
    assert (apart.widths, apart.workers, apart.bits) == ((1,) * 7, 2, RUN_BY_RUN) and "4 wide" in apart.reason


def begun(**values: str | None) -> runfile.Shard:
    """Return a shard of three steps whose last attempt knew some of what bits depend on."""
    return runfile.Shard([], 10, steps=3, attempts=[values])


def test_a_half_done_run_goes_on_under_the_same_kernels_alone():
    paths, here = ShardPaths(Path("o/t/e/shard-0000-0000-1")), bits_of()
    # Runs of before say nothing of the variables: not known is not another.
    old = {name: here[name] for name in ("dynalab", "torch", "cpu")}
    for known in (here, old, {}):
        compare.check_bits(paths, begun(**known), here)
    other = here | {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2", "torch": "1.0"}
    with pytest.raises(ConfigError) as told:
        compare.check_bits(paths, begun(**other), here | {"MKL_CBWR": "AUTO", "ATEN_CPU_CAPABILITY": None})
    line = str(told.value)
    assert "begun under torch 1.0, MKL_CBWR=COMPATIBLE, ATEN_CPU_CAPABILITY=avx2, this is torch" in line
    assert "MKL_CBWR=AUTO, ATEN_CPU_CAPABILITY unset" in line and "--anyway" in line


def test_what_bits_depend_on_is_written_down_and_refused_where_it_changed(odd, tmp_path, monkeypatch):
    odd(HOLD)
    train([*WORDS, "seed=0"], outputs=tmp_path)
    (record,) = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/shard-*/run.json")]
    assert record["attempts"][-1].items() >= {**bits_of(), "threads": 1}.items()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    train([*WORDS, "seed=0"], outputs=tmp_path)
    with pytest.raises(ConfigError, match="under ONEDNN_MAX_CPU_ISA unset, this is ONEDNN_MAX_CPU_ISA=AVX2"):
        train([*WORDS, "seed=0", "train.steps=9"], outputs=tmp_path)


def test_where_torch_was_loaded_first_one_line_says_so(odd, tmp_path, monkeypatch):
    odd(HOLD)
    monkeypatch.delenv("MKL_CBWR")
    with pytest.warns(UserWarning, match="torch was loaded before dynalab.*set MKL_CBWR=AUTO") as told:
        train([*WORDS, "seed=0"], outputs=tmp_path)
    assert len(told) == 1
    (record,) = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/shard-*/run.json")]
    assert record["attempts"][-1]["MKL_CBWR"] is None


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_shards_are_in_work_than_the_plan_has_workers(tmp_path, workers):
    from dynalab.launch import local, process
    from dynalab.launch.base import Events, Work
    from dynalab.training.job import Job

    most, pool = [], local.Launcher.__new__(local.Launcher)

    class Worker(process.Worker):
        """Ends its shard as soon as the next event is asked for."""

        def send(self, **values):
            most.append(sum(worker.shard is not None for worker in pool._workers))
            pool._events.put((self, {"event": "finished", "found": {"status": "done", "warnings": []}}))

    pool.__init__(0, 1)
    pool._workers = [Worker(None, ready=True) for _ in range(3)]
    done: list[str] = []
    shards = [ShardPaths(tmp_path / f"shard-{number}") for number in range(7)]
    work = Work(shards, workers, Job(threads=1))
    pool.run(work, Events(finished=lambda shard, status: done.append(shard.root.name)))
    assert sorted(done) == [shard.root.name for shard in shards] and max(most) == workers


def test_a_fork_is_trained_as_its_parent_was(tmp_path):

    words = [word.replace("odd", "mlp") for word in WORDS] + ["model.hidden=[3]", "checkpoint.keep=[3]"]
    (parent,) = train([*words, "seed=0..1", "compute.exact=false", "compute.threads=2"], outputs=tmp_path)
    (parent,) = train([*words, "seed=2"], outputs=tmp_path)
    for step in (0, 3):
        (forked,) = fork(parent, step, ["train.halve_at=4", "launcher=inline"])
        how = {run.label: run.record.plan for run in forked.runs}
        kept = [tuple(how[label][key] for key in ("device", "exact", "threads")) for label in sorted(how)]
        assert kept == [("cpu", False, 2), ("cpu", False, 2), ("cpu", True, 1)]
        assert_same(bits(parent.path, 3), bits(forked.path, 3), how)
    # A device that is not here is not another one's to take.
    for path in parent.path.glob("shard-*/run.json"):
        path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda:1"'))
    (again,) = train([*words, "seed=0..2"], outputs=tmp_path)
    with pytest.raises(ConfigError, match="device=cuda:1: this machine has no CUDA device"):
        fork(again, 0, ["train.halve_at=5", "launcher=inline"])
