"""Smoke sweeps: every task under every optimizer, two seeds, a few steps, then the analysis and the report.

The bits of one seed alone are compared with its bits beside the other one for every pair on the way.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from image_fakes import write_cifar, write_mnist
from report_fakes import no_drawing
from stored import bits, difference

from dynalab.config import registry
from dynalab.models.resnet18 import Config as ResNet18
from dynalab.models.resnet20 import Config as ResNet20

OPTIMIZERS = ["sgd", "adamw", "lookahead"]
# These step as the others do, so one task each is enough: with batch normalisation, and without.
MORE = {"digits": ["sam"], "parity": ["adam"], "regression": ["rmsprop"]}
# Small enough that a pair takes about a second; everything else is the task's default.
SMALL: dict[str, list[str]] = {
    "grokking": ["task.modulus=11", "model.width=16"],
    "parity": ["task.n=10", "model.hidden=[16]", "eval.size=64"],
    "regression": ["model.hidden=[8]"],
    "digits": ["task.n_train=64", "eval.size=64", "model=resnet20", "model.width=4", "train.batch_size=32"],
    "mnist": ["model.hidden=[16]", "train.batch_size=20"],
    "mlm": [
        "task.vocabulary=300",
        "task.length=12",
        "model.width=16",
        "model.layers=1",
        "eval.size=8",
        "train.batch_size=4",
    ],
    "cifar": ["model.width=4", "eval.size=20", "train.batch_size=20"],
}


def test_every_task_is_here():
    assert set(registry.names("task")) == set(SMALL)
    more = {name for names in MORE.values() for name in names}
    assert {*OPTIMIZERS, *more} == set(registry.names("optimizer"))


@pytest.mark.parametrize("task", SMALL)
def test_a_task_under_every_optimizer(task, here, outputs, tmp_path, monkeypatch):
    # Blocks are alike; training is in this process.
    monkeypatch.setattr(ResNet20, "stages", (1, 1))
    monkeypatch.setattr(ResNet18, "stages", (1, 1))
    optimizers = [*OPTIMIZERS, *MORE.get(task, [])]
    words = [f"task={task}", f"optimizer={','.join(optimizers)}", "optimizer.lr=0.001", "train.clip=1.0"]
    words += ["compute.workers=1"]
    words += ["train.steps=6", "eval.every=1", *SMALL[task], *data_for(task, tmp_path)]
    answer = here("train", *words, "seed=0..1", "--json")
    assert answer.code == 0, answer.err
    ensembles = answer.json["ensembles"]
    assert [entry["config"]["optimizer"]["name"] for entry in ensembles] == optimizers
    assert {run["status"] for entry in ensembles for run in entry["runs"]} == {"done"}

    alone = here("train", *words, "seed=1", "--json", DYNALAB_OUTPUTS=str(tmp_path / "alone"))
    assert alone.code == 0, alone.err
    for one, other in zip(ensembles, alone.json["ensembles"], strict=True):
        beside, single = bits(Path(one["path"]))["s0001"], bits(Path(other["path"]))["s0001"]
        assert difference(beside, single) == [], one["config"]["optimizer"]["name"]

    fast = ["max_states=1", "restarts=1", "folds=2", "stability=false", "baselines=false"]
    found = here("analyze", "hmm", *fast, "--json")
    assert found.code == 0, found.err
    assert len(found.json["analyses"]) == len(optimizers)
    # What a page shows of a task does not depend on the optimizer; the sweep as a whole is shown for one task.
    no_drawing(monkeypatch)
    page = here("report", *([] if task == "grokking" else [ensembles[-1]["id"]]))
    assert page.code == 0 and Path(page.out.strip()).is_file(), page.err


def data_for(task: str, folder: Path) -> list[str]:
    """Write the data set that a task reads from disk, in its real format, and return the words that name it."""
    if task not in ("mnist", "cifar"):
        return []
    table = {"mnist": write_mnist, "cifar": write_cifar}[task](folder / "data")
    return [f"task.root={folder / 'data'}", f"task.checksums={table}"]
