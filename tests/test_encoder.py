"""The encoder: against torch's own, stacked against plain, a seed's bits, dropout, what counts as weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dynalab.errors import ConfigError
from dynalab.models import encoder
from dynalab.models.base import Context
from dynalab.models.describe import describe, matrices
from dynalab.networks.stack import Stack
from dynalab.tasks import mlm
from dynalab.tasks.base import Batch, InputSpec
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task():
    return mlm.build(mlm.Config(vocabulary=300, length=20))


def data_of(task, seeds, batch_size=8, eval_size=30, **fixed):
    streams = [Streams.from_seed(seed, **fixed) for seed in seeds]
    return task.data(streams, batch_size=batch_size, eval_size=eval_size, device=CPU)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 0}, r"model\.layers=0"),
        ({"heads": 3}, r"model\.width=64.*model\.heads=3"),
        ({"mlp_width": 0}, r"model\.mlp_width=0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ],
)
def test_bad_models_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        encoder.Config(**fields)


def test_other_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"model=encoder.*pairs"):
        encoder.build(encoder.Config(), InputSpec(kind="pairs", symbols=5, classes=5))


SMALL = {"width": 16, "heads": 2, "mlp_width": 24}
ODD = {"width": 12, "heads": 3, "mlp_width": 7, "layers": 3, "tied": False}


def networks(task, seeds, dtype=torch.float32, **fields):
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        net = encoder.build(encoder.Config(**{**SMALL, **fields}), task.spec).to(dtype)
        for parameter in net.parameters():  # so that biases and norms are not at their neutral start
            parameter.data += 0.05 * torch.randn_like(parameter)
        found.append(net)
    return found


@pytest.mark.parametrize("fields", [{}, {"tied": False, "layers": 1}, {"layers": 3, "heads": 4}])
def test_encoder_against_torchs_own(task, fields):
    """The same weights in `nn.TransformerEncoder`, run over the whole sequence and read at the places."""
    (net,) = networks(task, [0], torch.float64, **fields)
    heads, layers = net.blocks[0].heads, len(net.blocks)
    layer = nn.TransformerEncoderLayer(16, heads, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    other = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(16), enable_nested_tensor=False).double()
    p = net.state_dict()
    weights = {"norm.weight": p["norm.weight"], "norm.bias": p["norm.bias"]}
    names = {
        "mix": "self_attn.out_proj",
        "expand": "linear1",
        "contract": "linear2",
        "attention_norm": "norm1",
        "mlp_norm": "norm2",
    }
    for i in range(layers):
        for own, theirs in names.items():
            for kind in ("weight", "bias"):
                weights[f"layers.{i}.{theirs}.{kind}"] = p[f"blocks.{i}.{own}.{kind}"]
        q, k, v = (p[f"blocks.{i}.{name}.weight"] for name in ("query", "key", "value"))
        weights[f"layers.{i}.self_attn.in_proj_weight"] = torch.cat([q, k, v])
        # The keys' bias, which ours has not: whatever it is, it cancels.
        three = p[f"blocks.{i}.query.bias"], torch.randn(16).double(), p[f"blocks.{i}.value.bias"]
        weights[f"layers.{i}.self_attn.in_proj_bias"] = torch.cat(three)
    other.load_state_dict(weights)
    batch = data_of(task, [0]).train_batch(0).inputs[0]
    words, places = batch[:, :20], batch[:, 20:]
    hidden = other(p["tokens.weight"][words] + p["positions.weight"])
    read = hidden.gather(1, places[..., None].expand(-1, -1, 16))
    table = p["tokens.weight"] if net.head is None else p["head.weight"]
    torch.testing.assert_close(net(batch), read @ table.T + p["bias"], rtol=1e-10, atol=1e-10)


def update(nets, task, batch, seeds, step=7):
    """What the engine does: outputs, losses and gradients of a stack, in training."""
    stack = Stack(nets, [Streams.from_seed(s) for s in seeds], CPU)
    noise = stack.noise_of(step, batch.inputs)
    outputs = stack.forward(batch.inputs, training=True, noise=noise)
    losses = task.loss(outputs, batch)
    gradients = torch.autograd.grad(losses.sum(), list(stack.params.values()))
    found = {"outputs": outputs.detach(), "losses": losses.detach()}
    return noise, found | dict(zip(stack.params, gradients, strict=True))


@pytest.mark.parametrize(
    "fields", [{}, {"dropout": 0.2}, {**ODD, "dropout": 0.1}], ids=["plain", "dropout", "odd"]
)
def test_stack_against_plain_modules(task, fields):
    """Three runs under vmap and one by one with autograd, in float64."""
    seeds = [4, 0, 9]
    batch = data_of(task, seeds).train_batch(2)
    plain = networks(task, seeds, torch.float64, **fields)
    noise, found = update(networks(task, seeds, torch.float64, **fields), task, batch, seeds)
    assert sorted(noise) == sorted(plain[0].noise_shapes((8, 23)))
    for run, net in enumerate(plain):
        context = Context(training=True, noise={name: value[run] for name, value in noise.items()})
        outputs = net(batch.inputs[run], context)
        loss = task.loss(outputs[None], Batch(batch.inputs[run : run + 1], batch.targets[run : run + 1]))[0]
        loss.backward()
        torch.testing.assert_close(found["outputs"][run], outputs, rtol=1e-10, atol=1e-10)
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name][run], parameter.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("fields", "size"),
    [({}, 8), ({"dropout": 0.1}, 8), ({**ODD, "dropout": 0.3}, 5), ({**ODD, "width": 6, "layers": 1}, 1)],
    ids=["plain", "dropout", "odd", "tiny"],
)
def test_a_seeds_bits_do_not_depend_on_its_neighbours(task, fields, size):
    seeds = range(12)
    batch = data_of(task, seeds, batch_size=size).train_batch(2)
    _, wanted = update(networks(task, seeds, **fields), task, batch, seeds)
    for chosen in ([1, 0], [11, 10], [7, 3, 5], [2, 3, 1, 6, 11]):
        part = Batch(batch.inputs[chosen], batch.targets[chosen])
        _, got = update(networks(task, chosen, **fields), task, part, chosen)
        assert [key for key, value in wanted.items() if not torch.equal(got[key], value[chosen])] == []


def test_bits_hold_at_the_default_size():
    task = mlm.build(mlm.Config(length=32))
    seeds = range(6)
    fields = {"width": 64, "heads": 4, "mlp_width": 256, "dropout": 0.1}
    batch = data_of(task, seeds, batch_size=32).train_batch(0)
    _, wanted = update(networks(task, seeds, **fields), task, batch, seeds)
    for chosen in ([5, 4], [2, 0, 1]):
        part = Batch(batch.inputs[chosen], batch.targets[chosen])
        _, got = update(networks(task, chosen, **fields), task, part, chosen)
        assert [key for key, value in wanted.items() if not torch.equal(got[key], value[chosen])] == []


def test_dropout_drops_its_share_keeps_the_mean_and_rests_in_evaluation(task):
    (net,) = networks(task, [0], dropout=0.25)
    inputs = data_of(task, [0]).train_batch(0).inputs[0]
    shapes = net.noise_shapes(tuple(inputs.shape))
    assert shapes == {
        "embedding": (8, 20, 16),
        "attention_0": (8, 20, 16),
        "mlp_0": (8, 20, 16),
        "attention_1": (8, 3, 16),
        "mlp_1": (8, 3, 16),
    }
    x = torch.ones(400, 20, 16)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    dropped = net._drop(x, Context(training=True, noise={"embedding": noise}), "embedding")
    kept = dropped != 0
    assert abs(kept.double().mean().item() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / x.numel())
    assert torch.equal(dropped[kept], torch.full_like(dropped[kept], 1 / 0.75))
    drawn = {name: torch.rand(shape) for name, shape in shapes.items()}
    for name in shapes:  # each of them has an effect
        assert not torch.equal(net(inputs, Context(training=True, noise={name: drawn[name]})), net(inputs))
    (bare,) = networks(task, [0])
    assert torch.equal(net(inputs, Context(training=False)), bare(inputs))
    assert bare.noise_shapes(tuple(inputs.shape)) == {}


def test_what_counts_as_weights(task):
    """Hu et al. 2023 for BERT: keys, queries, values whole, attention's output, both MLP layers, the MLP's biases."""
    for tied, last in ((True, "tokens.weight"), (False, "head.weight")):
        (net,) = networks(task, [0], tied=tied)
        selection = describe(net)
        shapes = [
            tuple(m.shape[1:]) for m in matrices({k: v[None] for k, v in net.named_parameters()}, selection)
        ]
        assert shapes == 2 * [*4 * [(16, 16)], (24, 16), (16, 24)]
        assert selection.biases == tuple(
            f"blocks.{i}.{name}.bias" for i in (0, 1) for name in ("expand", "contract")
        )
        assert selection.last_layer == last


def test_initialisation(task):
    torch.manual_seed(0)
    net = encoder.build(encoder.Config(width=256, heads=4), task.spec)
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.02 * math.sqrt(768 / 256), rel=0.03), name
        else:
            start = 1.0 if name.endswith("norm.weight") else 0.0
            assert (parameter == start).all(), name
