"""Smoke sweeps: every task under every optimizer, two seeds, a few steps, then the analysis and the report.

The bits of one seed alone are compared with its bits beside the other one for every pair on the way.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import bits, difference

from dynalab.config import registry

OPTIMIZERS = ["sgd", "adam", "adamw", "lookahead"]
# Small enough that a pair takes about a second; everything else is the task's default.
SMALL: dict[str, list[str]] = {
    "grokking": ["task.modulus=11", "model.width=16"],
}


def test_every_task_is_here():
    assert set(registry.names("task")) == set(SMALL)
    assert set(OPTIMIZERS) <= set(registry.names("optimizer"))


@pytest.mark.parametrize("task", SMALL)
def test_a_task_under_every_optimizer(task, cli, outputs, tmp_path):
    steps = "train.steps=6"
    words = [
        f"task={task}",
        f"optimizer={','.join(OPTIMIZERS)}",
        "optimizer.lr=0.001",
        steps,
        "eval.every=1",
        *SMALL[task],
    ]
    environment = data_for(task, tmp_path)
    answer = cli("train", *words, "seed=0..1", "--json", **environment)
    assert answer.code == 0, answer.err
    ensembles = answer.json["ensembles"]
    assert [entry["config"]["optimizer"]["name"] for entry in ensembles] == OPTIMIZERS
    assert {run["status"] for entry in ensembles for run in entry["runs"]} == {"done"}

    alone = cli("train", *words, "seed=1", "--json", **environment, DYNALAB_OUTPUTS=str(tmp_path / "alone"))
    assert alone.code == 0, alone.err
    for one, other in zip(ensembles, alone.json["ensembles"], strict=True):
        beside, single = bits(Path(one["path"]))["s0001"], bits(Path(other["path"]))["s0001"]
        assert difference(beside, single) == [], one["config"]["optimizer"]["name"]

    found = cli("analyze", "hmm", "max_states=1", "restarts=1", "folds=2", "--json")
    assert found.code == 0, found.err
    assert len(found.json["analyses"]) == len(OPTIMIZERS)
    page = cli("report")
    assert page.code == 0 and Path(page.out.strip()).is_file(), page.err


def data_for(task: str, folder: Path) -> dict[str, str]:
    """Write the data set that a task reads from disk, and return the environment that names it."""
    return {}
