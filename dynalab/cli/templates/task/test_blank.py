"""The task blank is learnt, and a run's examples are its own."""

from pathlib import Path

import dynalab
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have dynalab find what lies in this folder."""
    monkeypatch.setenv("DYNALAB_PATH", str(Path(__file__).resolve().parents[1]))


def loss(outputs: Path, *words: str) -> np.ndarray:
    """Train, and return the losses on the test examples, runs by rows."""
    (ensemble,) = dynalab.train(["task=blank", "launcher=inline", *words], outputs=outputs)
    return ensemble.array("test_loss")


def test_it_is_learnt(tmp_path: Path) -> None:
    found = loss(tmp_path, "seed=0..1", "train.steps=100")
    assert (found[:, -1] < 0.5 * found[:, 0]).all()


def test_a_seed_has_the_same_numbers_alone_and_beside_others(tmp_path: Path) -> None:
    words = ("train.steps=10", "train.batch_size=8")
    three, alone = loss(tmp_path / "three", "seed=0..2", *words), loss(tmp_path / "alone", "seed=1", *words)
    assert np.array_equal(three[1], alone[0])
    assert not np.array_equal(three[1], three[0])
