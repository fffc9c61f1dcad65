"""Models of rows of numbers: against plain modules and formulas; a seed's bits and its neighbours."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from second_order import check_second_derivatives
from torch.func import stack_module_state

from dynalab.errors import ConfigError
from dynalab.models import mlp
from dynalab.models.describe import describe
from dynalab.models.nets import mlp as nets
from dynalab.tasks.base import InputSpec

# Model, fields, inputs, outputs.
MODELS = [
    ("mlp", {}, 30, 1),
    ("mlp", {"hidden": [13]}, 30, 1),
    ("mlp", {"hidden": [1]}, 7, 1),
    ("mlp", {"hidden": [33, 17], "activation": "tanh"}, 64, 10),
    ("mlp", {"hidden": [100], "activation": "tanh", "head_bias": False, "init": "xavier_normal"}, 1, 1),
    ("mlp", {"hidden": [9], "activation": "gelu", "bias": False}, 5, 3),
    ("mlp", {"hidden": [8, 5, 3], "activation": "sin"}, 6, 2),
    ("mlp", {"hidden": [11], "activation": "square", "init": "kaiming_normal"}, 5, 1),
    ("mlp", {"hidden": [11], "activation": "cube", "init": "sign"}, 5, 1),
    ("polynet", {}, 50, 1),
    ("polynet", {"degree": 1}, 3, 1),
    ("sinusoid", {}, 30, 1),
    ("sinusoid", {"second_layer": False}, 50, 1),
]
IDS = [f"{name}-{'-'.join(map(str, fields.values()))}-{n}" for name, fields, n, _ in MODELS]


pytestmark = pytest.mark.usefixtures("one_thread")


def network(name, fields, inputs=30, outputs=1, seed=0, kind="vector"):
    module = import_module(f"dynalab.models.{name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(module.Config(**fields), InputSpec(kind=kind, symbols=inputs, classes=outputs))


def ensemble(name, fields, inputs, outputs, seeds, dtype=torch.float32):
    networks = [network(name, fields, inputs, outputs, seed).to(dtype) for seed in seeds]
    params, buffers = stack_module_state(networks)
    assert not buffers
    return networks, {key: value.detach() for key, value in params.items()}


def examples(seeds, size, inputs, outputs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(99)
    shape = (seeds, size)
    return (
        torch.randn(*shape, inputs, generator=generator, dtype=dtype),
        torch.randn(*shape, outputs, generator=generator, dtype=dtype),
    )


def update(base, params, x, y, squares=True):
    """Outputs, per-run losses and gradients of a stack, as the engine makes them."""
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    outputs = base.stacked_forward(leaves, x)
    losses = (outputs - y).square().mean((1, 2)) if squares else torch.relu(1 - outputs * y).mean((1, 2))
    along, *gradients = torch.autograd.grad(losses.sum(), [outputs, *leaves.values()])
    found = dict(zip(leaves, gradients, strict=True))
    if hasattr(base, "stacked_vjp"):
        same, vjp = base.stacked_vjp(params, x)
        assert torch.equal(same, outputs)
        by_hand = vjp(along)
        found = {key: by_hand[key] for key in found}
    return {"outputs": outputs.detach(), "losses": losses.detach(), **found}


@pytest.mark.parametrize("size", [1, 3, 32, 37, 200])
@pytest.mark.parametrize(("name", "fields", "inputs", "outputs"), MODELS, ids=IDS)
def test_a_seeds_bits_do_not_depend_on_its_neighbours(name, fields, inputs, outputs, size):
    networks, params = ensemble(name, fields, inputs, outputs, range(20))
    x, y = examples(20, size, inputs, outputs)
    for squares in (True, False):
        wanted = update(networks[0], params, x, y, squares)
        for chosen in ([1, 0], [17, 3], [4, 5, 6], [9, 8, 7, 6, 5], list(range(8, 18))):
            part = {key: value[chosen] for key, value in params.items()}
            got = update(networks[0], part, x[chosen], y[chosen], squares)
            assert [key for key, value in wanted.items() if not torch.equal(got[key], value[chosen])] == []


@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
def test_activations_treat_the_last_entries_as_the_others(activation):
    """Which entries torch takes one by one depends on the size of the whole tensor."""
    act, generator = nets.ACTIVATIONS[activation], torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for length in range(1, 40):
            z = 3 * torch.randn(7, length, generator=generator, dtype=dtype)
            along = torch.randn(7, length, generator=generator, dtype=dtype)

            def both(rows, z=z, along=along):
                leaf = z[rows].clone().requires_grad_()
                value = act(leaf * 1.0)
                return value.detach(), torch.autograd.grad((value * along[rows]).sum(), leaf)[0]

            whole, part = both(list(range(7))), both([5, 2])
            assert all(torch.equal(a[[5, 2]], b) for a, b in zip(whole, part, strict=True)), (dtype, length)


@pytest.mark.parametrize(("name", "fields", "inputs", "outputs"), MODELS, ids=IDS)
def test_the_stack_is_the_plain_modules(name, fields, inputs, outputs):
    networks, params = ensemble(name, fields, inputs, outputs, range(3), torch.float64)
    x, y = examples(3, 37, inputs, outputs, torch.float64)
    got = update(networks[0], params, x, y)
    for s, plain in enumerate(networks):
        result = plain(x[s])
        loss = (result - y[s]).square().mean()
        torch.testing.assert_close(got["outputs"][s], result, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got["losses"][s], loss, rtol=1e-12, atol=0)
        for key, gradient in zip(params, torch.autograd.grad(loss, list(plain.parameters())), strict=True):
            scale = max(gradient.abs().max().item(), 1e-3)
            torch.testing.assert_close(got[key][s], gradient, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize(("name", "fields", "inputs", "outputs"), MODELS, ids=IDS)
def test_second_derivatives_exist_and_are_right(name, fields, inputs, outputs):
    networks, params = ensemble(name, fields, inputs, outputs, range(2), torch.float64)
    x, y = examples(2, 9, inputs, outputs, torch.float64)

    def losses_at(point):
        return (networks[0].stacked_forward(point, x) - y).square().mean((1, 2))

    check_second_derivatives(losses_at, params, step=1e-6, rtol=1e-5, atol=1e-6)


def numpy_params(net):
    return {key: value.detach().numpy() for key, value in net.named_parameters()}


FUNCTIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "gelu": lambda z: z * np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(z),
    "sin": np.sin,
    "square": np.square,
    "cube": lambda z: z**3,
}


@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
def test_an_mlp_is_its_formula(activation):
    net = network("mlp", {"hidden": [9, 4], "activation": activation}, 6, 3).double()
    p = numpy_params(net)
    x = np.random.default_rng(0).normal(size=(8, 6))
    act = FUNCTIONS[activation]
    hidden = act(x @ p["layers.0.weight"].T + p["layers.0.bias"])
    hidden = act(hidden @ p["layers.1.weight"].T + p["layers.1.bias"])
    wanted = hidden @ p["layers.2.weight"].T + p["layers.2.bias"]
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), wanted, rtol=1e-12, atol=1e-13)


def test_the_lists_of_words_are_those_of_the_networks():
    assert tuple(nets.ACTIVATIONS) == mlp.ACTIVATIONS
    assert tuple(nets.INITS) == mlp.INITS


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_polynet_and_the_sine_can_be_the_parity(k):
    bits = (np.arange(64)[:, None] >> np.arange(6)) & 1
    x, parity = 1.0 - 2.0 * bits, (1.0 - 2.0 * bits)[:, :k].prod(1)
    x = torch.from_numpy(x)
    poly = network("polynet", {"degree": k}, 6).double()
    p = numpy_params(poly)
    factors = x.numpy() @ p["layer.weight"].T + p["layer.bias"]
    np.testing.assert_allclose(poly(x).detach().numpy()[:, 0], np.prod(factors, axis=1), rtol=1e-12)
    poly.load_state_dict({"layer.weight": torch.eye(k, 6), "layer.bias": torch.zeros(k)})
    np.testing.assert_allclose(poly(x).detach().numpy()[:, 0], parity, rtol=1e-12)
    sine = network("sinusoid", {}, 6).double()
    weight = math.pi / 2 * (torch.arange(6) < k).double()[None]
    sine.layer.load_state_dict({"weight": weight, "bias": torch.tensor([(1 - k) * math.pi / 2]).double()})
    u, c = sine.head.weight.item(), sine.head.bias.item()
    np.testing.assert_allclose(sine(x).detach().numpy()[:, 0], u * parity + c, atol=1e-6)


def test_initialisations():
    def weights(**fields):
        p = numpy_params(network("mlp", {"hidden": [300, 200], **fields}, 400, 10))
        return [p[f"layers.{i}.weight"] for i in range(3)], [p.get(f"layers.{i}.bias") for i in range(3)]

    sizes = [(400, 300), (300, 200), (200, 10)]
    drawn, biases = weights()
    for w, b, (n, _) in zip(drawn, biases, sizes, strict=True):
        assert abs(w).max() == pytest.approx(n**-0.5, rel=0.01) and abs(w).max() <= n**-0.5
        assert w.std() == pytest.approx((3 * n) ** -0.5, rel=0.05) and b.any()
    for w, b, (n, m) in zip(*weights(init="xavier_uniform"), sizes, strict=True):
        assert abs(w).max() == pytest.approx(math.sqrt(6 / (n + m)), rel=0.01) and not b.any()
    for i, (w, (n, m)) in enumerate(zip(weights(init="xavier_normal", gain=1.9)[0], sizes, strict=True)):
        assert w.std() == pytest.approx((1.9 if i < 2 else 1.0) * math.sqrt(2 / (n + m)), rel=0.05)
    for w, (n, _) in zip(weights(init="kaiming_normal")[0], sizes, strict=True):
        assert w.std() == pytest.approx(math.sqrt(2 / n), rel=0.05)
    for w, (n, _) in zip(weights(init="sign")[0], sizes, strict=True):
        np.testing.assert_allclose(abs(w), n**-0.5, rtol=1e-6)
        assert abs(w.mean()) < 0.1 * n**-0.5
    scaled, scaled_biases = weights(scale=2.0)
    assert all(
        np.array_equal(2 * a, b) for a, b in zip([*drawn, *biases], [*scaled, *scaled_biases], strict=True)
    )
    assert weights(bias=False)[1] == [None] * 3
    assert weights(head_bias=False)[1][2] is None and weights(head_bias=False)[1][0] is not None
    assert weights(bias=False, head_bias=True)[1][2] is not None


def test_images_are_laid_out_as_rows():
    net = network("mlp", {"hidden": [7]}, 12, 3, kind="image")
    params = {key: torch.stack([value, 2 * value]).detach() for key, value in net.named_parameters()}
    images = torch.randn(2, 5, 1, 3, 4)
    assert torch.equal(net.stacked_forward(params, images), net.stacked_forward(params, images.flatten(2)))
    assert torch.equal(net(images[0]), net(images[0].flatten(1)))


def test_what_counts_as_weights():
    selection = describe(network("mlp", {"hidden": [5, 4]}, 3, 2))
    assert [matrix.parameter for matrix in selection.matrices] == [f"layers.{i}.weight" for i in range(3)]
    assert selection.last_layer == "layers.2.weight" and len(selection.biases) == 3
    assert describe(network("polynet", {})).last_layer == "layer.weight"
    assert describe(network("sinusoid", {})).matrices[0].parameter == "layer.weight"


@pytest.mark.parametrize("name", ["mlp", "polynet", "sinusoid"])
def test_other_tasks_are_refused(name):
    module = import_module(f"dynalab.models.{name}")
    with pytest.raises(ConfigError, match=rf"model={name}.*kind pairs"):
        module.build(module.Config(), InputSpec(kind="pairs", symbols=40, classes=1))
    if name != "mlp":
        with pytest.raises(ConfigError, match=rf"model={name}.*one output.*wants 10"):
            module.build(module.Config(), InputSpec(kind="vector", symbols=40, classes=10))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mlp", {"hidden": []}, r"model\.hidden=\[\]"),
        ("mlp", {"hidden": [8, 0]}, r"model\.hidden=\[8, 0\].*at least 1"),
        ("mlp", {"activation": "rleu"}, r"model\.activation=rleu.*did you mean relu"),
        ("mlp", {"init": "xavier"}, r"model\.init=xavier.*xavier_normal"),
        ("mlp", {"gain": 0.0}, r"model\.gain=0\.0"),
        ("mlp", {"scale": -1.0}, r"model\.scale=-1\.0"),
        ("polynet", {"degree": 0}, r"model\.degree=0"),
    ],
)
def test_bad_values_are_named(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        import_module(f"dynalab.models.{name}").Config(**fields)
