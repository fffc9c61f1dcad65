"""A dry run refuses what training would refuse, in its words and with its exit code, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL

from dynalab import train
from dynalab.cli.app import run
from dynalab.config.command import read_command
from dynalab.errors import DynalabError
from dynalab.launch import local, rehearsal
from dynalab.training.trial import rehearse

TINY = ["task=grokking", "task.modulus=7", "model.width=8"]
METRICS = """
from dynalab.tasks import grokking


class Config(grokking.Config):
    pass


def build(config):
    class Task(grokking.Grokking):
        def metrics(self, outputs, batch):
            return {"accuracy": super().metrics(outputs, batch)["accuracy"].mean()}

    return Task(config)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=grokking", "model=mlp"], "model=mlp: reads rows of numbers"),
        (
            ["task=parity", "train.batch_size=full", "model.hidden=[4]"],
            "train.batch_size=full: with task.samples",
        ),
        ([*TINY, "probes=[weights,gradients,curvature]", "train.accumulate=2", "train.batch_size=4"], None),
    ],
)
def test_a_rehearsal_refuses_what_training_refuses(words, said, one_thread, tmp_path):
    (request,) = read_command([*words, "seed=0", "train.steps=2", "launcher=inline"]).requests

    def begin() -> None:
        rehearse(request.config.as_dict(), [dict(request.runs[0].streams)], 2, "cpu")

    if said is None:
        begin()
        return
    with pytest.raises(DynalabError) as caught:
        begin()
    assert said in str(caught.value) and caught.value.exit_code == 2
    with pytest.raises(DynalabError) as trained:
        train([*words, "train.steps=2", "launcher=inline"], outputs=tmp_path / "trained")
    assert str(caught.value) in str(trained.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=regression", "probes=[numerics]"], "the probe numerics needs a classification"),
        (["task=parity", "probes=[fourier]"], "the probe fourier needs task=grokking"),
        (["task=grokking", "probes=[regions]"], "the probe regions needs inputs that are numbers"),
        (["task=mlm", "probes=[regions]"], "the probe regions needs inputs that are numbers"),
        (
            ["task=digits", "model=si_mlp,mlp", "probes=[scale_invariant]"],
            "that of model=mlp names none; legal: model=si_mlp or si_convnet (in the combination model=mlp)",
        ),
        ([*TINY, "train.sphere=true"], "train.sphere=true: needs a network that names its scale-invariant"),
        (
            [*TINY, "optimizer=lookahead", "train.modes=2"],
            "train.modes=2: replaces the weights that are trained",
        ),
    ],
)
def test_what_the_configuration_alone_refuses_needs_no_worker(words, said, outputs, monkeypatch, capsys):
    monkeypatch.setattr(local.Launcher, "_start", None)
    assert run(["train", *words, "train.steps=2"]) == 2
    line = capsys.readouterr().err
    assert said in line and len(line.splitlines()) == 1
    assert not [*outputs.rglob("run.json")]


def test_what_has_scale_invariant_weights_is_not_refused(tmp_path, monkeypatch):
    held = ["train.sphere=true", "probes=[scale_invariant]"]
    for words in (["task=digits", "model=si_mlp"], ["task=cifar", "model=si_convnet"]):
        assert read_command([*words, *held]).requests
    # A plug-in's network is asked itself.
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "own.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Config:\n    name: str = 'own'\n\n\n"
        "def build(config, spec):\n    return None\n"
    )
    (folder / "own.yaml").write_text("name: own\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    assert read_command(["task=digits", "model=own", *held]).requests


def test_the_command_says_it_of_each_ensemble_and_writes_nothing(outputs, tmp_path, capsys):
    folder = tmp_path / "mine/task"
    folder.mkdir(parents=True)
    (folder / "odd.py").write_text(METRICS)
    shipped = (Path(__file__).parent.parent / "conf/task/grokking.yaml").read_text()
    (folder / "odd.yaml").write_text(shipped.replace("name: grokking", "name: odd"))
    words = ["task=odd", "task.modulus=7", "model=embedding_mlp,mlp"]
    code = run(["train", *words, "--dry-run", "--config-dir", str(folder.parent)])
    said = capsys.readouterr()
    assert code == 2, said.err
    assert "odd.py:" in said.err and "metrics: returned a Tensor of shape ()" in said.err
    assert "model=mlp: reads rows of numbers" in said.err and "nothing was written" in said.err
    assert not outputs.exists()


def test_a_sweep_over_rates_of_a_shipped_task_needs_no_worker(monkeypatch, capsys):
    monkeypatch.setattr(local.Launcher, "_start", None)
    assert run(["train", "task=parity", "optimizer=sgd,lookahead", "optimizer.lr=0.1,0.2", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("parity") == 4
    kinds = {
        rehearsal._kind(item.config.as_dict())
        for item in read_command(["model=nanda,power", "optimizer.lr=1,2"]).requests
    }
    assert len(kinds) == 2


def test_missing_data_and_a_folder_that_cannot_be_written_are_refused(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "task=mnist", "--dry-run"]) == 2
    assert "task=mnist: MNIST is not there; looked in" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(["train", "seed=0", "--dry-run", "--outputs", str(tmp_path / "file/below")]) == 2
    assert "below, which is below" in capsys.readouterr().err
    # Nor is anything trained by whoever only looks what the command does.
    assert run(["train"]) == 2
    assert "name what is to be trained, as task=grokking seed=0..3" in capsys.readouterr().err
    assert not outputs.exists()


LATE = """
from dynalab.tasks import grokking


class Config(grokking.Config):
    pass


def build(config):
    class Task(grokking.Grokking):
        rows = []

        def metrics(self, outputs, batch):
            self.rows.append(len(self.rows))
            if len(self.rows) > 5:
                raise RuntimeError("the sixth row")
            return super().metrics(outputs, batch)

    return Task(config)
"""


def test_what_failed_later_is_told_in_the_words_of_then_and_bits_are_not_tried(outputs, tmp_path, here):
    folder = tmp_path / "mine/task"
    folder.mkdir(parents=True)
    (folder / "late.py").write_text(LATE)
    shipped = (Path(__file__).parent.parent / "conf/task/grokking.yaml").read_text()
    (folder / "late.yaml").write_text(shipped.replace("name: grokking", "name: late"))
    words = ["train", "task=late", *TINY[1:], "train.steps=20", "eval.every=1", "seed=0", "launcher=inline"]
    words += ["--config-dir", str(folder.parent)]
    begun = here(*words, "--dry-run")
    assert begun.code == 0 and "whether bits hold is tried before it trains, not here" in begun.err
    assert "failed before" not in begun.err
    assert here(*words).code == 2
    again = here(*words, "--dry-run")
    (line,) = [line for line in again.err.splitlines() if "failed before" in line]
    assert "the sixth row" in line and "traceback in" in line and again.code == 0
    assert "bits hold is tried" not in again.err, "there is nothing new"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "schedule=warmup schedule.steps=40",
            "the rate rises over the first 40 steps; training ends after 20 steps, at 0.5",
        ),
        (
            "schedule=cosine schedule.warmup=21 schedule.total=99",
            "schedule=cosine: the rate rises over the first 21",
        ),
        ("schedule=inverse_sqrt", "schedule=inverse_sqrt: the rate rises over the first 100 steps"),
        (
            "schedule=step schedule.milestones=[5,20,2000]",
            "is to be lowered at step 20 and 2,000; training ends after 20",
        ),
        ("train.halve_at=20", "train.halve_at=20: training ends after 20 steps, before"),
        ("schedule=warmup schedule.steps=20", ""),
        ("schedule=step schedule.milestones=[5,19] train.halve_at=19", ""),
    ],
)
def test_a_rate_that_training_does_not_come_to_is_said(here, words, said):
    answer = here("train", *SMALL, *words.split(), "--dry-run")
    lines = [line for line in answer.err.splitlines() if line.startswith("warning: ")]
    assert answer.code == 0 and len(lines) == bool(said) and said in answer.err


def test_names_in_a_schedule_of_ones_own_may_stand_for_anything(here, tmp_path):
    (tmp_path / "schedule").mkdir()
    text = """\
from dataclasses import dataclass

warmup, milestones = 10, [10, 90]


@dataclass(frozen=True)
class Config:
    name: str = "mine"


def build(config, total):
    return lambda step: min(1.0, step / warmup)
"""
    (tmp_path / "schedule/mine.py").write_text(text)
    (tmp_path / "schedule/mine.yaml").write_text("name: mine\n")
    answer = here("train", *SMALL, "schedule=mine", "--dry-run", "--config-dir", str(tmp_path))
    assert answer.code == 0 and "schedule=mine:" not in answer.err


def test_what_a_plan_warns_of_is_said_where_it_is_trained_and_analysed(here, outputs):
    words = [
        "schedule=step",
        "schedule.milestones=[50]",
        "optimizer=sgd",
        "probes=[curvature]",
        "eval.every=5",
    ]
    answer = here("train", *SMALL, *words, "probe.curvature.every=10")
    assert answer.code == 0 and "warning: schedule=step: the rate is to be lowered at step 50" in answer.err
    assert "up to step 20 analyze eos needs 10" in answer.err
    judged = here("analyze", "eos")
    assert "cannot be judged: 3 rows with a ratio, at least 10 are needed" in judged.err
