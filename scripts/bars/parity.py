"""Sparse parities are learnt by every seed, and their hidden progress is seen before accuracy moves."""

from __future__ import annotations

from pathlib import Path

from bars.base import Bar, dynalab

SEEDS = 20
LEVEL = 0.995
SETTINGS = {
    "polynet": [
        "model=polynet",
        "task.n=50",
        "train.batch_size=64",
        "optimizer.lr=0.1",
        "train.steps=1000",
        "eval.every=10",
    ],
    "relu": ["task.n=30", "train.batch_size=32", "optimizer.lr=0.1", "train.steps=3000", "eval.every=50"],
}


def learnt(work: Path, setting: str) -> tuple[str, bool]:
    """Train 20 seeds of a setting and count those that reach the level on held-out examples."""
    words = ["task=parity", "task.k=3", *SETTINGS[setting], f"seed=0..{SEEDS - 1}", "probes=[]"]
    document = dynalab("train", *words, outputs=work / "parity")
    (entry,) = document["ensembles"]
    # The task's level for `generalised_step` is the bar's, or this figure is of something else.
    assert entry["config"]["levels"]["test_accuracy"] == LEVEL
    steps = sorted(
        run["summary"]["generalised_step"]
        for run in entry["runs"]
        if run["summary"]["generalised_step"] is not None
    )
    figure = f"{len(steps)} of {SEEDS}"
    if steps:
        figure += f", steps {steps[0]} to {steps[-1]}, median {steps[len(steps) // 2]}"
    return figure, len(steps) == SEEDS


def polynet(work: Path) -> tuple[str, bool]:
    """PolyNet, n 50, k 3."""
    return learnt(work, "polynet")


def relu(work: Path) -> tuple[str, bool]:
    """ReLU network of width 100, n 30, k 3."""
    return learnt(work, "relu")


SOURCES = (
    "conf/task/_defaults.yaml",
    "conf/task/parity.yaml",
    "conf/model/mlp.yaml",
    "conf/model/polynet.yaml",
    "conf/optimizer/sgd.yaml",
    "dynalab/training",
    "dynalab/networks",
    "dynalab/optim/sgd.py",
    "dynalab/models/mlp.py",
    "dynalab/models/polynet.py",
    "dynalab/models/nets/mlp.py",
    "dynalab/models/nets/parity.py",
    "dynalab/tasks/parity.py",
    "dynalab/tasks/parity_data.py",
)

BARS = [
    Bar(
        "polynet",
        "parity (50, 3), PolyNet, batches of 64, SGD at 0.1, 20 seeds: held-out accuracy 99.5%",
        "20 of 20",
        "test_parity_progress.py",
        polynet,
        SOURCES,
    ),
    Bar(
        "relu-parity",
        "parity (30, 3), ReLU network, batches of 32, SGD at 0.1, 20 seeds: held-out accuracy 99.5%",
        "20 of 20",
        "test_parity_progress.py",
        relu,
        SOURCES,
    ),
]
