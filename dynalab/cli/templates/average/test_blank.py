"""The average blank lies between the first weights and the latest."""

from pathlib import Path

import dynalab
import pytest
import torch


def test_it_lies_between_the_first_weights_and_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNALAB_PATH", str(Path(__file__).resolve().parents[1]))
    words = ["task=regression", "seed=0..1", "train.steps=4", "eval.every=2", "launcher=inline"]
    words += ["average=blank", "average.share=0.25", "snapshots.every=2"]
    (ensemble,) = dynalab.train(words, outputs=tmp_path)
    for seed in (0, 1):
        first, last = (dict(ensemble.model(seed, step).named_parameters()) for step in (0, 4))
        averaged = dict(ensemble.model(seed, 4, average=True).named_parameters())
        for name, weights in averaged.items():
            torch.testing.assert_close(weights, 0.75 * first[name] + 0.25 * last[name])
