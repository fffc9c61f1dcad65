"""The optimizer blank moves weights as it says, each run by itself, and goes on where it was cut off."""

from pathlib import Path

import dynalab
import numpy as np
import pytest
import torch
from dynalab.config.registry import find

FOLDER = Path(__file__).resolve().parents[1]


def test_it_moves_weights_as_it_says() -> None:
    part = find("optimizer", "blank", [FOLDER])
    param = torch.zeros(2, 3)  # two runs of three weights
    optimizer = part.build(part.config_class(lr=0.1, momentum=0.5), [param])
    for gradient in ([[1.0, -2.0, 0.0], [0.0, 0.0, 3.0]], [[-4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]):
        param.grad = torch.tensor(gradient)
        optimizer.step()
    # The mean of the first weight's gradients has turned round; in the others its direction stays.
    torch.testing.assert_close(param, torch.tensor([[0.0, 0.2, 0.0], [0.0, 0.0, -0.2]]))


def test_a_run_is_the_same_beside_others_and_in_two_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNALAB_PATH", str(FOLDER))
    words = ["task=regression", "optimizer=blank", "optimizer.lr=0.01", "eval.every=1", "launcher=inline"]
    found = {}
    for name, seeds, lengths in (("whole", "0..2", (8,)), ("alone", "1", (8,)), ("pieces", "0..2", (4, 8))):
        for steps in lengths:
            train = [*words, f"seed={seeds}", f"train.steps={steps}"]
            (ensemble,) = dynalab.train(train, outputs=tmp_path / name)
        found[name] = ensemble.array("train_loss")  # runs by rows
    assert np.array_equal(found["whole"], found["pieces"])
    assert np.array_equal(found["whole"][1], found["alone"][0])
