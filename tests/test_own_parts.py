"""Schedules and inner optimizers of one's own, and plug-ins that are edited while the process lives."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import assert_same, bits, only_ensemble

import dynalab
from dynalab import train
from dynalab.config.command import read_command
from dynalab.config.ensemble import from_tree
from dynalab.errors import ConfigError

SCHEDULE = """
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "ramp"
    rise: int = 10


def needs_total(config):
    return False


def build(config, total):
    return lambda step: min((step + 1) / config.rise, 1.0)
"""
OPTIMIZER = """
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "signed"
    lr: float = 0.01
    k: float = 0.5


def build(config, params):
    import torch

    class Signed(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(params, {"lr": config.lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.sub_(group["lr"] * config.k * param.grad.sign())

    return Signed()
"""
BASE = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "eval.every=5",
    "launcher=inline",
    "snapshots.at=never",
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    for name, text in {
        "schedule/ramp.py": SCHEDULE,
        "schedule/ramp.yaml": "name: ramp\nrise: 10\n",
        "optimizer/signed.py": OPTIMIZER,
        "optimizer/signed.yaml": "name: signed\nlr: null\nk: null\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("DYNALAB_PATH", str(folder))
    return folder


def config_of(*words: str):
    (request,) = read_command([*BASE, *words]).requests
    return request.config


def test_a_schedule_of_ones_own_trains_and_goes_on_exactly(mine, tmp_path):
    words = [
        *BASE,
        "schedule=ramp",
        "schedule.rise=20",
        "optimizer=lookahead",
        "optimizer.inner=signed",
        "seed=0..1",
    ]
    for steps in (7, 20):
        train([*words, f"train.steps={steps}"], outputs=tmp_path / "pieces")
    (whole,) = train([*words, "train.steps=20"], outputs=tmp_path / "whole")
    one, other = bits(only_ensemble(tmp_path / "pieces")), bits(only_ensemble(tmp_path / "whole"))
    assert_same(one, other, one)
    norms = whole.array("update_norm")[0]
    assert 0 < norms[1] < norms[2], "the rate rises"


def test_the_length_is_part_of_the_id_unless_the_schedule_says_that_it_does_not_need_it(mine):
    short, long = (config_of("schedule=ramp", f"train.steps={steps}") for steps in (5, 9))
    assert short.id == long.id and short.identity()["sources"].keys() == {"schedule"}
    assert from_tree(short.as_dict(), [mine]).id == short.id
    silent = mine / "schedule/ramp.py"
    silent.write_text(SCHEDULE.replace("needs_total", "something_else"))
    assert config_of("schedule=ramp", "train.steps=5").id != config_of("schedule=ramp", "train.steps=9").id


@pytest.mark.parametrize(("outer", "key"), [("lookahead", "inner_k"), ("sam", "k")])
def test_an_optimizer_of_ones_own_is_an_inner_one_with_its_fields_beside(mine, outer, key):
    words = [f"optimizer={outer}", "optimizer.inner=signed", f"optimizer.{key}=0.25", "optimizer.lr=0.02"]
    config = config_of(*words)
    assert config.optimizer.inner_config().k == 0.25 and config.optimizer.lr == 0.02
    assert config.identity()["sources"].keys() == {"optimizer.inner"}
    assert from_tree(config.as_dict(), [mine]).id == config.id
    (ensemble,) = train([*BASE, *words, "train.steps=5", "seed=0"])
    assert ensemble.runs[0].status == "done"
    path = mine / "optimizer/signed.py"
    path.write_text(path.read_text() + "# changed\n")
    assert config_of(*words).id != config.id
    with pytest.raises(ConfigError, match=r"optimizer\.weight_decay: no such key"):
        config_of(*words, "optimizer.weight_decay=1")


def test_an_edited_plug_in_is_imported_again_and_so_is_what_it_imports(mine, monkeypatch):
    """Of the same length and in the same second, which is what Python's own compiled files do not tell apart."""
    (mine / "rates_of_mine.py").write_text("FACTOR = 1.0\n")
    monkeypatch.syspath_prepend(mine)
    path = mine / "schedule/ramp.py"
    path.write_text("from rates_of_mine import FACTOR\n" + SCHEDULE.replace("1.0)", "1.0) * FACTOR * 2"))

    def updates(steps: int) -> float:
        (ensemble,) = train([*BASE, "schedule=ramp", "optimizer=sgd", f"train.steps={steps}", "seed=0"])
        return float(ensemble.array("update_norm")[0, 1])

    def factor() -> float:
        from dynalab.config import registry

        part = registry.find("schedule", "ramp", [mine])
        return part.build(part.config_class(), 100)(50)

    first = updates(5), factor()
    path.write_text(path.read_text().replace("* 2", "* 4"))
    second = updates(5), factor()
    assert second[1] == 2 * first[1] and second[0] > first[0]
    (mine / "rates_of_mine.py").write_text("FACTOR = 3.0\n")
    assert factor() == 3 * second[1]
    assert not list(mine.rglob("__pycache__"))


def test_metrics_of_a_copied_task_are_recorded_where_it_says_its_loss_by_name(mine, tmp_path):
    """Compiled code evaluates by the name of a loss, and knows no metrics but dynalab's own."""
    own = Path(dynalab.__file__).parent / "tasks"
    text = (own / "regression.py").read_text().replace('name: str = "regression"', 'name: str = "fitted"')
    other = text.replace("return {}\n", 'return {"furthest": (outputs - batch.targets).abs().amax((1, 2))}\n')
    assert other != text
    (mine / "task").mkdir()
    (mine / "task/fitted.py").write_text(other)
    keys = Path(__file__).parents[1] / "conf/task/regression.yaml"
    (mine / "task/fitted.yaml").write_text(keys.read_text().replace("name: regression", "name: fitted"))
    words = [
        "task=fitted",
        "model.hidden=[5]",
        "train.steps=4",
        "eval.every=2",
        "launcher=inline",
        "seed=0..1",
    ]
    (made,) = train(words, outputs=tmp_path / "outputs")
    assert {"train_loss", "train_furthest", "test_furthest"} <= {*made.metrics}
