"""The probe blank records what one counts in the weights by hand."""

from pathlib import Path

import dynalab
import pytest


def test_it_records_what_one_counts_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALAB_PATH", str(Path(__file__).resolve().parents[1]))
    words = ["task=regression", "probes=[blank]", "probe.blank.every=2", "probe.blank.below=0.1"]
    (ensemble,) = dynalab.train([*words, "seed=0..1", "train.steps=4", "launcher=inline"], outputs=tmp_path)
    assert ensemble.steps("blank_share").tolist() == [0, 2, 4]
    for row, seed in enumerate((0, 1)):
        weights = [param.detach() for param in ensemble.model(seed=seed, step=4).parameters()]
        small = sum(int((tensor.abs() < 0.1).sum()) for tensor in weights)
        expected = small / sum(tensor.numel() for tensor in weights)
        assert 0 < expected < 1
        assert ensemble.array("blank_share")[row, -1] == pytest.approx(expected)
