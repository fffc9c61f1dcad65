"""Weights that were kept, taken up again: what is computed from them is what the rows say, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from image_fakes import write_cifar, write_mnist

import dynalab
from dynalab.analysis.base import Group
from dynalab.core.weights import Weights
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.launch import inline
from dynalab.training.planner import HOLD

GROKKING = ["task=grokking", "task.modulus=7", "model.width=8"]
DIGITS = ["task=digits", "task.n_train=24", "task.n_test=20", "train.batch_size=10"]
IMAGES = ["train.batch_size=8", "eval.size=12", "task.root={data}", "task.checksums={data}/{set}.json"]
RESNET = ["model.width=4"]
# One for every shipped model and task, and for every way that a row is made.
SETTINGS = {
    "embedding_mlp": GROKKING,
    # One pass over 1,189 pairs; held out are two pieces.
    "whole_batch": ["task=grokking", "task.modulus=59", "task.train_fraction=0.35", "model.width=8"],
    "pieces": [
        *["task=grokking", "task.modulus=59", "task.train_fraction=0.35", "model.width=8"],
        "train.accumulate=2",
    ],
    "float64": ["task=grokking", "task.modulus=17", "model.width=8", "train.loss_dtype=float64"],
    "float64_batches": [*GROKKING, "train.loss_dtype=float64", "train.batch_size=5", "eval.size=11"],
    "nanda": [*GROKKING, "model=nanda", "model.heads=2", "model.mlp_width=16", "train.batch_size=16"],
    "power": [*GROKKING, "model=power", "model.heads=2", "train.batch_size=20"],
    "gromov": [*GROKKING, "model=gromov", "task.loss=mse"],
    "onehot_mlp": ["task=grokking", "task.modulus=7", "model=onehot_mlp", "model.hidden=[12,7]"],
    "parity": ["task=parity", "task.n=10", "model.hidden=[9]"],
    "parity_sample": ["task=parity", "task.n=10", "task.samples=30", "task.label_noise=0.1"],
    "polynet": ["task=parity", "task.n=10", "task.k=2", "model=polynet", "train.batch_size=5"],
    "sinusoid": ["task=parity", "task.n=10", "model=sinusoid", "train.batch_size=1"],
    "mlp": [*DIGITS, "model.hidden=[6]", "task.input_noise=0.1"],
    "si_mlp": [*DIGITS, "model=si_mlp", "model.width=8", "train.sphere=true"],
    "lookahead": [*DIGITS, "model=si_mlp", "model.width=8", "optimizer=lookahead", "optimizer.k=3"],
    "si_convnet": [*DIGITS, "model=si_convnet", "model.width=3"],
    "resnet18": [*DIGITS, "model=resnet18", *RESNET],
    "layer_norm": [*DIGITS, "model=resnet20", "model.norm=layer", *RESNET],
    "cifar": ["task=cifar", *IMAGES, *RESNET],
    "mnist": ["task=mnist", *IMAGES, "model.hidden=[6]"],
    "encoder": ["task=mlm", "task.vocabulary=300", "task.length=10", "train.batch_size=4", "eval.size=80"]
    + ["model.width=16", "model.heads=2", "model.mlp_width=16"],
    "regression": ["task=regression", "model.hidden=[7]"],
    "teacher": ["task=regression", "task.target=teacher", "task.teacher=[3,6,2]", "model.hidden=[7]"],
}
SHORT = [
    "train.steps=4",
    "eval.every=2",
    "snapshots.every=2",
    "probes=[gradients]",
    "probe.gradients.every=1",
]
SHORT += ["seed=0..4", "compute.width=3", "launcher=inline"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Group]:
    """Return the runs of a setting, each setting trained once."""
    root, made = tmp_path_factory.mktemp("stack"), {}
    write_cifar(root / "data")
    write_mnist(root / "data")

    def of(name: str) -> Group:
        if name not in made:
            filled = {"data": root / "data", "set": "mnist" if name == "mnist" else "cifar10"}
            words = [word.format(**filled) if "{data}" in word else word for word in SETTINGS[name]]
            with pytest.MonkeyPatch.context() as patched:
                # Whether bits hold here is tried in test_bits.py.
                patched.setattr(inline, "exactness", lambda **request: HOLD)
                (made[name],) = dynalab.train([*words, *SHORT], outputs=root / name)
        return made[name].group()

    return of


def recorded(group: Group, name: str, step: int) -> np.ndarray:
    return np.array([run.series[name].at(np.array([step]))[0] for run in group.runs])


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_the_recorded_rows(trained, name):
    group = trained(name)
    assert group.kept == (0, 2, 4) and not np.isnan(recorded(group, "train_loss", 4)).any()
    shuffled = replace(group, runs=tuple(group.runs[place] for place in (3, 0, 4, 1, 2)))
    alone = replace(group, runs=group.runs[4:])
    for runs, step in ((group, 2), (shuffled, 4), (alone, 4)):
        stack = runs.stack(step)
        for split in ("train", "test"):
            losses = stack.losses(stack.params, stack.examples(split))
            assert losses.tolist() == recorded(runs, f"{split}_loss", step).tolist()
