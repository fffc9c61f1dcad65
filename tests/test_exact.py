"""A seed's bits are its own: alone, beside others, by any number of workers, in one go or in pieces."""

from __future__ import annotations

import pytest
from stored import assert_same, bits, only_ensemble

from dynalab import train

BASE = ["task=grokking", "task.modulus=11", "train.steps=24", "probe.weights.every=12", "eval.every=12"]
BASE += ["probes=[weights,gradients,fourier]", "probe.fourier.every=12"]
WAYS = {
    "embedding_mlp": ["model.width=16"],
    "relu": ["model.width=16", "model.activation=relu", "optimizer=sgd"],
    "gromov": ["model=gromov", "model.width=24", "task.loss=mse"],
    "nanda": ["model=nanda", "model.width=16", "model.mlp_width=32", "train.batch_size=16"],
    "nanda_layer_norm": ["model=nanda", "model.width=16", "model.mlp_width=32", "model.layer_norm=true"],
    "power": ["model=power", "model.width=16", "train.batch_size=20", "schedule=warmup"],
    "onehot_mlp": ["model=onehot_mlp", "model.hidden=[12,7]", "optimizer=adam", "train.clip=0.5"],
    "float64_loss": ["model.width=16", "train.loss_dtype=float64", "train.batch_size=7"],
}


def trained(folder, *words: str) -> dict:
    train([*BASE, "launcher=inline", *words], outputs=folder)
    return bits(only_ensemble(folder))


@pytest.mark.parametrize("way", WAYS)
def test_width_workers_and_interruption_do_not_show(way, tmp_path):
    words = WAYS[way]
    together = trained(tmp_path / "together", *words, "seed=0..6", "compute.width=7")
    # Two, two, and one alone.
    apart = trained(tmp_path / "apart", *words, "seed=0,2,5,6,3", "compute.width=2")
    assert_same(together, apart, apart)
    # In pieces: 10 steps, then 24, from the checkpoint.
    trained(tmp_path / "pieces", *words, "seed=1..3", "train.steps=10")
    pieces = trained(tmp_path / "pieces", *words, "seed=1..3")
    assert_same(together, pieces, pieces)


def test_workers_leave_the_same_bits_as_this_process(tmp_path):
    words = WAYS["embedding_mlp"]
    inline = trained(tmp_path / "inline", *words, "seed=0..4")
    workers = trained(tmp_path / "local", *words, "seed=0..4", "launcher=local", "compute.workers=2")
    assert_same(inline, workers, inline)


def test_inline_puts_torchs_settings_back(tmp_path):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    trained(tmp_path, "model.width=8", "seed=0")
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.set_num_threads(before)
