"""Training on the sphere: the norm is held, the direction is SGD's, bits hold, and other networks are refused."""

import pytest
import torch

from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

CPU = torch.device("cpu")
WORDS = ["task=digits", "model=si_mlp", "task.n_train=64", "train.batch_size=32", "probes=[]"]
WORDS += ["optimizer.lr=0.3", "optimizer.momentum=0", "train.steps=20"]


def loop_of(*words, seeds=(0, 1, 2)):
    (request,) = read_command([*WORDS, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, CPU)


def norms(loop):
    return torch.stack([p.detach().double().flatten(1).square().sum(1) for p in loop.params]).sum(0).sqrt()


def test_the_norm_is_held_and_the_direction_is_that_of_a_plain_step():
    held, free = loop_of("train.sphere=true"), loop_of()
    before = norms(held)
    held.update()
    free.update()
    assert norms(held) == pytest.approx(before, rel=1e-6) and not torch.allclose(
        norms(free), before, rtol=1e-6
    )
    scale = before / norms(free)
    for a, b in zip(held.params, free.params, strict=True):
        torch.testing.assert_close(a, b * scale.float().view(-1, 1, 1))
    for _ in range(19):
        held.update()
    assert norms(held) == pytest.approx(before, rel=1e-6)


def test_bits_do_not_depend_on_the_neighbours_nor_on_a_checkpoint():
    among, alone = loop_of("train.sphere=true"), loop_of("train.sphere=true", seeds=(1,))
    for _ in range(5):
        among.update()
        alone.update()
    for a, b in zip(among.params, alone.params, strict=True):
        assert torch.equal(a[1], b[0])
    weights, other = among.tensors(3)
    resumed = loop_of("train.sphere=true")
    resumed.load(5, {k: v.clone() for k, v in weights.items()}, {k: v.clone() for k, v in other.items()})
    for loop in (among, resumed):
        for _ in range(3):
            loop.update()
    for a, b in zip(among.params, resumed.params, strict=True):
        assert torch.equal(a, b)


def test_it_needs_scale_invariant_weights():
    with pytest.raises(ConfigError, match=r"train.sphere=true.*si_mlp"):
        loop_of("train.sphere=true", "model=mlp")
