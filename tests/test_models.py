"""Models of pairs: against plain modules and published forward passes; a seed's bits and its neighbours."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from second_order import check_second_derivatives
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from dynalab.errors import ConfigError
from dynalab.models.base import Matrix
from dynalab.models.describe import describe, matrices
from dynalab.tasks import grokking
from dynalab.tasks.base import Batch, InputSpec
from dynalab.training.streams import Streams

MODELS = [
    ("embedding_mlp", {}),
    ("embedding_mlp", {"width": 33, "activation": "relu"}),
    ("gromov", {}),
    ("onehot_mlp", {}),
    ("nanda", {}),
    ("nanda", {"layer_norm": True}),
    ("power", {}),
]
HAND_WRITTEN = MODELS[:4]
IDS = [f"{name}-{'-'.join(map(str, fields.values()))}".rstrip("-") for name, fields in MODELS]


pytestmark = pytest.mark.usefixtures("one_thread")


def network(name, fields, seed=0, symbols=59, classes=None):
    module = import_module(f"dynalab.models.{name}")
    spec = InputSpec(kind="pairs", symbols=symbols, classes=classes or symbols)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(module.Config(**fields), spec)


def ensemble(name, fields, seeds, symbols=59, dtype=torch.float32):
    networks = [network(name, fields, seed, symbols).to(dtype) for seed in seeds]
    params, buffers = stack_module_state(networks)
    assert not buffers
    return networks, {key: value.detach() for key, value in params.items()}


def examples(seeds, size, symbols=59):
    task = grokking.build(grokking.Config(modulus=symbols))
    streams = [Streams.from_seed(seed) for seed in seeds]
    data = task.data(streams, batch_size=None, eval_size=None, device=torch.device("cpu"))
    return task, Batch(data.train.inputs[:, :size], data.train.targets[:, :size])


def forward(base, params, inputs):
    if hasattr(base, "stacked_forward"):
        return base.stacked_forward(params, inputs)
    return vmap(lambda p, x: functional_call(base, p, (x,)))(params, inputs)


def update(base, params, task, batch):
    """What the engine does: outputs, losses and gradients of a stack."""
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    outputs = forward(base, leaves, batch.inputs)
    losses = task.loss(outputs, batch)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return {
        "outputs": outputs.detach(),
        "losses": losses.detach(),
        **dict(zip(leaves, gradients, strict=True)),
    }


@pytest.mark.parametrize("size", [64, 37])
@pytest.mark.parametrize(("name", "fields"), MODELS, ids=IDS)
def test_a_seeds_bits_do_not_depend_on_its_neighbours(name, fields, size):
    networks, params = ensemble(name, fields, range(20))
    task, batch = examples(range(20), size)
    wanted = update(networks[0], params, task, batch)
    for width, first in ((2, 0), (2, 17), (3, 4), (5, 1), (5, 15)):
        chosen = list(range(first, first + width))[::-1]
        part = {key: value[chosen] for key, value in params.items()}
        got = update(networks[0], part, task, Batch(batch.inputs[chosen], batch.targets[chosen]))
        for key, value in wanted.items():
            assert torch.equal(got[key], value[chosen]), (key, width, first)


@pytest.mark.parametrize(
    ("name", "fields"), [MODELS[0], MODELS[2], MODELS[3]], ids=["embedding", "gromov", "onehot"]
)
def test_bits_hold_for_the_full_batch(name, fields):
    networks, params = ensemble(name, fields, range(20))
    task, batch = examples(range(20), 1392)
    wanted = update(networks[0], params, task, batch)
    for chosen in ([9, 8], [3, 19, 0], [6, 2, 9, 14, 4]):
        part = {key: value[chosen] for key, value in params.items()}
        got = update(networks[0], part, task, Batch(batch.inputs[chosen], batch.targets[chosen]))
        assert all(torch.equal(got[key], value[chosen]) for key, value in wanted.items())


@pytest.mark.parametrize("name", ["embedding_mlp", "gromov", "onehot_mlp", "nanda", "power"])
def test_bits_hold_for_tiny_networks(name):
    fields = {"hidden": [3]} if name == "onehot_mlp" else {"width": 4}
    networks, params = ensemble(name, fields, range(20), symbols=5)
    task, batch = examples(range(20), 7, symbols=5)
    wanted = update(networks[0], params, task, batch)
    for chosen in ([1, 0], [7, 3, 5], [19, 2, 3, 1, 6]):
        part = {key: value[chosen] for key, value in params.items()}
        got = update(networks[0], part, task, Batch(batch.inputs[chosen], batch.targets[chosen]))
        assert all(torch.equal(got[key], value[chosen]) for key, value in wanted.items())


@pytest.mark.parametrize("size", [64, 900])
@pytest.mark.parametrize(("name", "fields"), MODELS, ids=IDS)
def test_the_stack_is_the_plain_modules(name, fields, size):
    size = min(size, 64) if (name, fields) not in HAND_WRITTEN else size
    networks, params = ensemble(name, fields, range(3), dtype=torch.float64)
    task, batch = examples(range(3), size)
    got = update(networks[0], params, task, batch)
    for s, plain in enumerate(networks):
        outputs = plain(batch.inputs[s])
        one = Batch(batch.inputs[s : s + 1], batch.targets[s : s + 1])
        loss = task.loss(outputs[None], one)[0]
        torch.testing.assert_close(got["outputs"][s], outputs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got["losses"][s], loss, rtol=1e-12, atol=0)
        for key, gradient in zip(params, torch.autograd.grad(loss, list(plain.parameters())), strict=True):
            scale = gradient.abs().max().item()
            torch.testing.assert_close(got[key][s], gradient, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize(("name", "fields"), HAND_WRITTEN, ids=IDS[:4])
def test_the_stack_written_by_hand_is_the_vmapped_module(name, fields):
    networks, params = ensemble(name, fields, range(3), dtype=torch.float64)
    _, batch = examples(range(3), 900)
    vmapped = vmap(lambda p, x: functional_call(networks[0], p, (x,)))(params, batch.inputs)
    torch.testing.assert_close(forward(networks[0], params, batch.inputs), vmapped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "fields"), MODELS, ids=IDS)
def test_second_derivatives_exist_and_are_right(name, fields):
    small = {"hidden": [6]} if name == "onehot_mlp" else {**fields, "width": 8}
    networks, params = ensemble(name, small, range(2), symbols=5, dtype=torch.float64)
    task, batch = examples(range(2), 9, symbols=5)

    def losses_at(point):
        return task.loss(forward(networks[0], point, batch.inputs), batch)

    check_second_derivatives(losses_at, params, step=1e-6, rtol=1e-5, atol=1e-6)


def numpy_params(net):
    return {key: value.detach().numpy() for key, value in net.named_parameters()}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def multi_head(x, q, k, v, heads):
    """Causal attention over a sequence (T, d), a head and a position at a time."""
    length, width = x.shape
    size = width // heads
    result = np.zeros_like(x)
    for h in range(heads):
        block = slice(h * size, (h + 1) * size)
        queries, keys, values = x @ q[block].T, x @ k[block].T, x @ v[block].T
        for t in range(length):
            weights = softmax(keys[: t + 1] @ queries[t] / math.sqrt(size))
            result[t, block] = weights @ values[: t + 1]
    return result


@pytest.mark.parametrize("normed", [False, True])
def test_nanda_against_the_whole_sequence_written_out(normed):
    net = network(
        "nanda", {"width": 16, "heads": 4, "mlp_width": 24, "layer_norm": normed}, symbols=7
    ).double()
    for parameter in net.parameters():  # so that biases and norms are not at their neutral start
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.manual_seed(3), dtype=torch.float64
        )
    p = numpy_params(net)
    pairs = np.array([[0, 0], [3, 5], [6, 1]])
    for pair, got in zip(pairs, net(torch.from_numpy(pairs)).detach().numpy(), strict=True):
        x = p["w_e"][[*pair, 7]] + p["w_pos"]
        x = x + multi_head(x, p["w_q"], p["w_k"], p["w_v"], 4) @ p["w_o"].T
        x = layer_norm(x, p["norm_1.weight"], p["norm_1.bias"]) if normed else x
        x = x + np.maximum(x @ p["w_in"].T + p["b_in"], 0) @ p["w_out"].T + p["b_out"]
        x = layer_norm(x, p["norm_2.weight"], p["norm_2.bias"]) if normed else x
        np.testing.assert_allclose(got, x[-1] @ p["w_u"].T, rtol=1e-11, atol=1e-12)


def test_power_against_the_whole_sequence_written_out():
    net = network("power", {"width": 16, "heads": 2, "layers": 3}, symbols=7).double()
    p = numpy_params(net)
    pairs = np.array([[0, 0], [3, 5], [6, 1]])
    places = np.array(
        [
            [
                math.sin(t / 10000 ** (i / 16)) if i % 2 == 0 else math.cos(t / 10000 ** ((i - 1) / 16))
                for i in range(16)
            ]
            for t in range(5)
        ]
    )
    for (a, b), got in zip(pairs, net(torch.from_numpy(pairs)).detach().numpy(), strict=True):
        x = p["embedding.weight"][[7, a, 8, b, 9]] + places
        for i in range(3):
            w = {key.removeprefix(f"blocks.{i}."): value for key, value in p.items() if f"blocks.{i}." in key}
            mixed = (
                multi_head(x, w["query.weight"], w["key.weight"], w["value.weight"], 2) @ w["mix.weight"].T
            )
            x = layer_norm(x + mixed, w["attention_norm.weight"], w["attention_norm.bias"])
            hidden = np.maximum(x @ w["expand.weight"].T, 0) @ w["contract.weight"].T
            x = layer_norm(x + hidden, w["mlp_norm.weight"], w["mlp_norm.bias"])
        np.testing.assert_allclose(got, x[-1] @ p["unembedding.weight"].T, rtol=1e-11, atol=1e-12)


def test_networks_without_attention_against_one_hot_vectors():
    pairs = torch.tensor([[0, 0], [3, 5], [6, 1]])
    onehot = np.concatenate([np.eye(7)[pairs[:, 0]], np.eye(7)[pairs[:, 1]]], axis=1)
    net = network("embedding_mlp", {}, symbols=7).double()
    p = numpy_params(net)
    hidden = onehot @ np.concatenate([p["left.weight"], p["right.weight"]])
    np.testing.assert_allclose(net(pairs).detach().numpy(), hidden**2 @ p["output.weight"].T, rtol=1e-12)
    net = network("gromov", {}, symbols=7).double()
    p = numpy_params(net)
    np.testing.assert_allclose(net(pairs).detach().numpy(), (onehot @ p["w1"].T) ** 2 @ p["w2"].T, rtol=1e-11)
    net = network("onehot_mlp", {"hidden": [9, 8]}, symbols=7).double()
    plain = nn.Sequential(nn.Linear(14, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 7)).double()
    plain.load_state_dict(
        {
            f"{2 * int(key.split('.')[1])}.{key.split('.')[2]}": value
            for key, value in net.state_dict().items()
        }
    )
    torch.testing.assert_close(net(pairs), plain(torch.from_numpy(onehot)), rtol=1e-12, atol=1e-12)


def test_gromovs_closed_form_knows_the_whole_table():
    p, width, rng = 59, 500, np.random.default_rng(0)
    net = network("gromov", {"width": width}).double()
    k = rng.integers(1, p, size=width)
    first, second = rng.uniform(0, 2 * math.pi, size=(2, width))
    angle = 2 * math.pi * np.outer(k, np.arange(p)) / p
    w1 = np.concatenate([np.cos(angle + first[:, None]), np.cos(angle + second[:, None])], axis=1)
    w2 = np.cos(angle + (first + second)[:, None]).T
    net.load_state_dict({"w1": torch.from_numpy(w1), "w2": torch.from_numpy(w2)})
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    assert torch.equal(net(pairs).argmax(1), pairs.sum(1) % p)


def test_initialisations():
    p = numpy_params(network("gromov", {"width": 400}, symbols=97))
    for weight in p.values():
        assert weight.std() == pytest.approx(0.5 / 800 ** (1 / 3), rel=0.02)
    p = numpy_params(network("nanda", {}, symbols=113))
    assert p["w_e"].shape == p["w_u"].shape == (114, 128)
    for name, variance in (("w_e", 128), ("w_k", 128), ("w_in", 128), ("w_out", 128), ("w_u", 114)):
        assert p[name].std() == pytest.approx(variance**-0.5, rel=0.03)
    assert not p["b_in"].any()
    assert not p["b_out"].any()
    p = numpy_params(network("embedding_mlp", {}))
    assert p["left.weight"].std() == pytest.approx(1, rel=0.05)
    assert np.abs(p["output.weight"]).max() <= 128**-0.5


def test_published_sizes():
    """Parameter counts by hand: Nanda et al. 2023 at p = 113, Power et al.'s 4e5 outside the embeddings."""
    count = {
        name: sum(v.size for v in numpy_params(network(name, {}, symbols=113)).values())
        for name in ("nanda", "power")
    }
    assert count["nanda"] == 2 * 114 * 128 + 3 * 128 + 4 * 128**2 + 2 * 512 * 128 + 512 + 128
    assert count["power"] - 2 * 116 * 128 == 2 * (12 * 128**2 + 4 * 128) == 394_240


def shapes(name, fields=None):
    networks, params = ensemble(name, fields or {}, range(2))
    selection = describe(networks[0])
    return selection, [tuple(m.shape) for m in matrices(params, selection)]


def test_what_counts_as_weights():
    selection, found = shapes("nanda")
    assert found == [(2, 32, 128)] * 12 + [(2, 128, 128), (2, 512, 128), (2, 128, 512)]
    assert selection.biases == ("b_in", "b_out")
    assert selection.last_layer == "w_u"
    selection, found = shapes("power")
    assert found == 2 * ([(2, 32, 128)] * 12 + [(2, 128, 128), (2, 512, 128), (2, 128, 512)])
    assert selection.biases == ()
    selection, found = shapes("embedding_mlp")
    assert found == [(2, 59, 128)] * 3
    assert selection.last_layer == "output.weight"
    assert shapes("gromov")[1] == [(2, 500, 118), (2, 59, 500)]
    selection, found = shapes("onehot_mlp")
    assert found == [(2, 128, 118), (2, 128, 128), (2, 59, 128)]
    assert selection.biases == ("layers.0.bias", "layers.1.bias", "layers.2.bias")
    assert selection.last_layer == "layers.2.weight"


def test_defaults_for_a_network_without_hints():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 4)
            self.conv = nn.Conv2d(3, 6, 3, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.head = nn.Linear(6, 2)

    net = Net()
    selection = describe(net)
    assert selection.matrices == (Matrix("conv.weight"), Matrix("head.weight"))
    assert selection.biases == ("head.bias",)
    assert selection.last_layer == "head.weight"
    stacked = {key: torch.stack([value, value]) for key, value in net.named_parameters()}
    conv, head = matrices(stacked, selection)
    assert conv.shape == (2, 6, 27)
    assert conv.data_ptr() == stacked["conv.weight"].data_ptr()
    assert head.shape == (2, 2, 6)
    assert describe(nn.ReLU()).last_layer is None


def test_parts_are_blocks_of_rows():
    net = network("nanda", {"width": 8, "heads": 2, "mlp_width": 6}, symbols=5)
    stacked = {key: value.detach()[None] for key, value in net.named_parameters()}
    found = list(matrices(stacked, describe(net)))
    assert torch.equal(found[0][0], net.w_k[:4])
    assert torch.equal(found[1][0], net.w_k[4:])


def test_bad_hints_are_named():
    net = nn.Linear(4, 3)
    net.weight_matrices = [Matrix("weight", parts=2)]
    with pytest.raises(ConfigError, match=r"weight of shape \(3, 4\) into 2"):
        describe(net)
    net.weight_matrices = [Matrix("wieght")]
    with pytest.raises(ConfigError, match="wieght"):
        describe(net)
    net.weight_matrices = [Matrix("bias")]
    with pytest.raises(ConfigError, match="two axes"):
        describe(net)
    net.weight_matrices, net.last_layer = [], "head"
    with pytest.raises(ConfigError, match="head"):
        describe(net)


@pytest.mark.parametrize("name", ["embedding_mlp", "gromov", "onehot_mlp", "nanda", "power"])
def test_other_tasks_are_refused(name):
    module = import_module(f"dynalab.models.{name}")
    with pytest.raises(ConfigError, match=rf"model={name}.*vector"):
        module.build(module.Config(), InputSpec(kind="vector", symbols=40, classes=2))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "embedding_mlp",
            {"activation": "rleu"},
            r"model\.activation=rleu.*square or relu.*did you mean relu",
        ),
        ("embedding_mlp", {"width": 0}, r"model\.width=0"),
        ("gromov", {"width": -1}, r"model\.width=-1"),
        ("nanda", {"heads": 3}, r"model\.width=128.*model\.heads=3"),
        ("nanda", {"mlp_width": 0}, r"model\.mlp_width=0"),
        ("power", {"layers": 0}, r"model\.layers=0"),
        ("onehot_mlp", {"hidden": []}, r"model\.hidden=\[\]"),
        ("onehot_mlp", {"hidden": [8, 0]}, r"model\.hidden=\[8, 0\].*at least 1"),
    ],
)
def test_bad_values_are_named(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        import_module(f"dynalab.models.{name}").Config(**fields)


@pytest.mark.parametrize("name", ["nanda", "power", "embedding_mlp"])
def test_more_classes_than_symbols_fit(name):
    net = network(name, {}, symbols=5, classes=9)
    assert net(torch.tensor([[0, 4]])).shape[1] >= 9
