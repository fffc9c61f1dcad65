"""Every shipped experiment trains five steps at a reduced size."""

from __future__ import annotations

import pytest
from image_fakes import write_cifar, write_mnist

from dynalab import train
from dynalab.config.command import read_command
from dynalab.config.registry import conf_dir

NAMES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
SMALL = {
    "mlp": ["model.hidden=[16]"],
    "nanda": ["model.width=16", "model.mlp_width=32"],
    "power": ["model.width=16"],
    "gromov": ["model.width=16"],
    "resnet18": ["model.width=4"],
    "resnet20": ["model.width=4"],
}


# So few steps are too few for some probes.
@pytest.mark.filterwarnings("ignore:probe .* it has a row every:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    (request,) = read_command([f"experiment={name}"]).requests
    task, model = request.config.task.name, request.config.model.name
    words = [f"experiment={name}", "train.steps=5", "eval.every=5", "launcher=inline", "snapshots.at=never"]
    words += SMALL.get(model, [])
    if task == "grokking":
        words.append("task.modulus=11")
    if task in ("mnist", "cifar"):
        classes = request.config.task.classes if task == "cifar" else 10
        table = write_cifar(tmp_path / "data", classes) if task == "cifar" else write_mnist(tmp_path / "data")
        words += [f"task.root={tmp_path / 'data'}", f"task.checksums={table}", "train.batch_size=20"]
        if request.config.task.n_train is not None:
            words.append("task.n_train=30")
    (ensemble,) = train([*words, "seed=0..1"], outputs=tmp_path / "outputs")
    assert [run.status for run in ensemble.runs] == ["done", "done"]
    assert ensemble.steps("train_loss").tolist() == [0, 5]
