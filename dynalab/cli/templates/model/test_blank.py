"""The model blank learns, from another initialisation in every seed."""

from pathlib import Path

import dynalab
import pytest
import torch


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have dynalab find what lies in this folder."""
    monkeypatch.setenv("DYNALAB_PATH", str(Path(__file__).resolve().parents[1]))


def test_it_learns_from_its_own_initialisation(tmp_path: Path) -> None:
    words = ["task=regression", "model=blank", "model.width=8", "optimizer=adam", "optimizer.lr=0.01"]
    (ensemble,) = dynalab.train([*words, "seed=0..1", "train.steps=40", "launcher=inline"], outputs=tmp_path)
    loss = ensemble.array("train_loss")  # runs by rows
    assert (loss[:, -1] < 0.9 * loss[:, 0]).all()
    first, other = (ensemble.model(seed=seed, step=0) for seed in (0, 1))
    for param, same in zip(first.parameters(), other.parameters(), strict=True):
        assert not torch.equal(param, same)
    assert first(torch.zeros(5, 1)).shape == (5, 1)
    # Every parameter has a part in the output.
    first(torch.rand(5, 1)).sum().backward()
    assert all(param.grad is not None for param in first.parameters())
