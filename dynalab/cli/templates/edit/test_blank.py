"""The edit blank sets the smallest weights to zero, and leaves the others alone."""

from pathlib import Path

import dynalab
import pytest
import torch


def test_the_smallest_weights_become_zero_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNALAB_PATH", str(Path(__file__).resolve().parents[1]))
    words = ["task=regression", "seed=0..1", "train.steps=4", "eval.every=2", "launcher=inline"]
    (parent,) = dynalab.train(words, outputs=tmp_path)
    words = ["edit=blank", "edit.share=0.25", "train.steps=6", "checkpoint.keep=[4]", "launcher=inline"]
    (fork,) = dynalab.fork(parent, 4, words, outputs=tmp_path)
    for seed in (0, 1):
        nets = (parent.model(seed=seed, step=4), fork.model(seed=seed, step=4))
        before, after = (dict(net.named_parameters()) for net in nets)
        for name, weights in before.items():
            cut = after[name] == 0
            assert int(cut.sum()) == int(0.25 * weights.numel()), name
            assert torch.equal(after[name][~cut], weights[~cut]), name
            if cut.any():
                assert weights[cut].abs().max() <= weights[~cut].abs().min(), name
