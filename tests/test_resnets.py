"""Networks on images: against plain modules, torch's batch norm, and a seed's bits against its neighbours."""

from importlib import import_module

import pytest
import torch
from second_order import check_second_derivatives
from torch import nn
from torch.nn import functional as F

from dynalab.errors import ConfigError
from dynalab.models.base import Context
from dynalab.models.describe import describe, matrices, parts_of
from dynalab.models.nets import images
from dynalab.tasks.base import InputSpec

SMALL = {
    "resnet18": {"width": 8},
    "resnet20": {"width": 8},
    "si_mlp": {"width": 24},
    "si_convnet": {"width": 6},
    "mlp": {"hidden": [12]},
}
CASES = [
    ("resnet20", {}),
    ("resnet20", {"norm": "layer"}),
    ("resnet20", {"norm": "group", "groups": 4}),
    ("resnet20", {"norm": "none"}),
    ("resnet20", {"residual": False}),
    ("resnet18", {}),
    ("resnet18", {"norm": "none", "residual": False}),
    ("si_mlp", {}),
    ("si_mlp", {"width": 7, "depth": 3}),
    ("mlp", {"hidden": [24, 7], "norm": "batch"}),
    ("si_convnet", {}),
]
IDS = ["-".join([name, *map(str, fields.values())]) for name, fields in CASES]
RESNETS = CASES[:7]


pytestmark = pytest.mark.usefixtures("one_thread")


def spec(shape=(1, 8, 8), classes=10):
    channels, height, width = shape
    return InputSpec(kind="image", symbols=channels * height * width, classes=classes, shape=shape)


def network(name, fields=None, seed=0, shape=(1, 8, 8), small=True):
    module = import_module(f"dynalab.models.{name}")
    config = module.Config(**{**(SMALL[name] if small else {}), **(fields or {})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(config, spec(shape))


def ensemble(name, fields, seeds, dtype=torch.float32, shape=(1, 8, 8)):
    networks = [network(name, fields, seed, shape).to(dtype) for seed in seeds]
    for seed, one in zip(seeds, networks, strict=True):  # away from the neutral start of norms and statistics
        generator = torch.Generator().manual_seed(seed)
        for key, tensor in one.named_parameters():
            if "norm" in key:
                tensor.data += 0.2 * torch.randn(tensor.shape, generator=generator, dtype=dtype)
        for key, tensor in one.named_buffers():
            if "running" in key:
                tensor += torch.rand(tensor.shape, generator=generator, dtype=dtype)
    params = {
        key: torch.stack([n.get_parameter(key).detach() for n in networks])
        for key, _ in networks[0].named_parameters()
    }
    buffers = {
        key: torch.stack([n.get_buffer(key) for n in networks]) for key, _ in networks[0].named_buffers()
    }
    return networks, params, buffers


def examples(seeds, size, dtype=torch.float32, shape=(1, 8, 8)):
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 + seed)
        images = torch.rand(size, shape[0] * shape[1] * shape[2], generator=generator, dtype=dtype)
        rows.append((images, torch.randint(0, 10, (size,), generator=generator)))
    return tuple(map(torch.stack, zip(*rows, strict=True)))


def losses_of(outputs, targets):
    flat = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape).mean(1)


def update(base, params, buffers, inputs, targets):
    """What the engine does in an update, and an evaluation after it."""
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    kept = {key: value.clone() for key, value in buffers.items()}
    outputs = base.stacked_forward(leaves, inputs, Context(True, kept))
    gradients = torch.autograd.grad(losses_of(outputs, targets).sum(), list(leaves.values()))
    with torch.no_grad():
        evaluated = base.stacked_forward(leaves, inputs, Context(False, kept))
    return {
        "outputs": outputs.detach(),
        "evaluated": evaluated,
        **dict(zip(leaves, gradients, strict=True)),
        **{f"buffer {key}": value for key, value in kept.items()},
    }


@pytest.mark.parametrize("size", [32, 21])
@pytest.mark.parametrize(("name", "fields"), CASES, ids=IDS)
def test_a_seeds_bits_do_not_depend_on_its_neighbours(name, fields, size):
    networks, params, buffers = ensemble(name, fields, range(7))
    inputs, targets = examples(range(7), size)
    wanted = update(networks[0], params, buffers, inputs, targets)
    for chosen in ([5, 0], [6, 1, 3], [2, 4, 5, 6, 0]):
        part = [{key: value[chosen] for key, value in tensors.items()} for tensors in (params, buffers)]
        got = update(networks[0], *part, inputs[chosen], targets[chosen])
        for key, value in wanted.items():
            assert torch.equal(got[key], value[chosen]), (key, chosen)


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("resnet20", (3, 32, 32), 4),
        ("resnet18", (3, 32, 32), 3),
        ("resnet20", (1, 28, 28), 5),
        ("si_convnet", (3, 32, 32), 4),
    ],
)
def test_bits_hold_at_the_sizes_of_cifar_and_mnist(name, shape, size):
    networks, params, buffers = ensemble(name, {}, range(3), shape=shape)
    inputs, targets = examples(range(3), size, shape=shape)
    wanted = update(networks[0], params, buffers, inputs, targets)
    for chosen in ([2, 0], [1]):  # a network that is done run by run needs no companion
        part = [{key: value[chosen] for key, value in tensors.items()} for tensors in (params, buffers)]
        got = update(networks[0], *part, inputs[chosen], targets[chosen])
        assert all(torch.equal(got[key], value[chosen]) for key, value in wanted.items())


class PlainBlock(nn.Module):
    """A basic block as textbooks write it."""

    def __init__(self, before, after, stride, norm, residual, project):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = norm(after)
        self.residual, self.stride, self.more = residual, stride, after - before
        if residual and project and (stride > 1 or self.more):
            self.project = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm(after))

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if not self.residual:
            return F.relu(y)
        if hasattr(self, "project"):
            return F.relu(y + self.project(x))
        if self.more:
            x = F.avg_pool2d(x, 1, self.stride)
            x = torch.cat([x, x.new_zeros(len(x), self.more, *x.shape[2:])], dim=1)
        return F.relu(y + x)


class PlainResNet(nn.Module):
    def __init__(self, name, width, norm, residual, shape):
        super().__init__()
        count, blocks = (3, 3) if name == "resnet20" else (4, 2)
        self.stem = nn.Conv2d(shape[0], width, 3, 1, 1, bias=False)
        self.stem_norm = norm(width)
        layers, before = [], width
        for stage in range(count):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(PlainBlock(before, width << stage, stride, norm, residual, name == "resnet18"))
                before = width << stage
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(before, 10)
        self.shape = shape

    def forward(self, x):
        x = self.blocks(F.relu(self.stem_norm(self.stem(x.view(-1, *self.shape)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def plain_twin(name, fields, one, shape):
    norms = {
        "batch": nn.BatchNorm2d,
        "layer": lambda n: nn.GroupNorm(1, n),
        "group": lambda n: nn.GroupNorm(fields.get("groups", 8), n),
        "none": lambda n: nn.Identity(),
    }
    plain = PlainResNet(
        name, SMALL[name]["width"], norms[fields.get("norm", "batch")], fields.get("residual", True), shape
    )
    plain.double()
    # Same layers in the same order, so that the tensors correspond one to one.
    theirs = [key for key in plain.state_dict() if "num_batches" not in key]
    ours = one.state_dict()
    assert [plain.state_dict()[key].shape for key in theirs] == [value.shape for value in ours.values()]
    plain.load_state_dict(dict(zip(theirs, ours.values(), strict=True)), strict=False)
    return plain, dict(zip(ours, theirs, strict=True))


def close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * max(wanted.abs().max().item(), 1e-30))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10)], ids=str)
@pytest.mark.parametrize(("name", "fields"), RESNETS, ids=IDS[:7])
def test_the_stack_is_plain_modules_with_torchs_norms(name, fields, shape):
    networks, params, buffers = ensemble(name, fields, range(2), torch.float64, shape)
    inputs, targets = examples(range(2), 9, torch.float64, shape)
    got = update(networks[0], params, buffers, inputs, targets)
    for s, one in enumerate(networks):
        plain, names = plain_twin(name, fields, one, shape)
        plain.train()
        outputs = plain(inputs[s])
        close(got["outputs"][s], outputs)
        gradients = torch.autograd.grad(F.cross_entropy(outputs, targets[s]), list(plain.parameters()))
        theirs = dict(zip(dict(plain.named_parameters()), gradients, strict=True))
        for key in params:
            close(got[key][s], theirs[names[key]])
        for key in buffers:
            close(got[f"buffer {key}"][s], plain.state_dict()[names[key]])
        plain.eval()
        close(got["evaluated"][s], plain(inputs[s]))


@pytest.mark.parametrize(("name", "fields"), CASES, ids=IDS)
def test_the_module_itself_is_its_stack(name, fields):
    """`Ensemble.model` hands out the module; its own pass must be that of training."""
    networks, params, buffers = ensemble(name, fields, range(2), torch.float64)
    inputs, _ = examples(range(2), 9, torch.float64)
    for training in (True, False):
        kept = {key: value.clone() for key, value in buffers.items()}
        got = networks[0].stacked_forward(params, inputs, Context(training, kept))
        for s, one in enumerate(networks):
            close(got[s], one.train(training)(inputs[s]))
            if training:
                for key, value in one.named_buffers():
                    close(kept[key][s], value)
                one.load_state_dict({**one.state_dict(), **{key: value[s] for key, value in buffers.items()}})


def test_scale_invariant_mlp_against_torchs_layers():
    (one,), params, buffers = ensemble("si_mlp", {"width": 12, "depth": 2}, [3], torch.float64)
    plain = nn.Sequential(
        *(nn.Linear(64, 12, bias=False), nn.BatchNorm1d(12, affine=False), nn.ReLU()),
        *(nn.Linear(12, 12, bias=False), nn.BatchNorm1d(12, affine=False), nn.ReLU()),
        nn.Linear(12, 10),
    ).double()
    keys = [key for key in plain.state_dict() if "num_batches" not in key]
    state = one.state_dict()
    order = (
        [f"layers.{i}.weight" for i in range(2)],
        [f"norms.{i}.running_{w}" for i in range(2) for w in ("mean", "var")],
    )
    ours = [order[0][0], *order[1][:2], order[0][1], *order[1][2:], "head.weight", "head.bias"]
    plain.load_state_dict({key: state[mine] for key, mine in zip(keys, ours, strict=True)}, strict=False)
    inputs, targets = examples([3], 9, torch.float64)
    got = update(one, params, buffers, inputs, targets)
    outputs = plain(inputs[0])
    close(got["outputs"][0], outputs)
    weights = [plain[0].weight, plain[3].weight]
    for key, gradient in zip(
        params, torch.autograd.grad(F.cross_entropy(outputs, targets[0]), weights), strict=True
    ):
        close(got[key][0], gradient)
    for key, mine in zip(keys, ours, strict=True):
        if "running" in mine:
            close(got[f"buffer {mine}"][0], plain.state_dict()[key])
    close(got["evaluated"][0], plain.eval()(inputs[0]))


def test_normalised_mlp_against_its_formula():
    (one,), params, buffers = ensemble("mlp", {"hidden": [12, 7], "norm": "batch"}, [3], torch.float64)
    inputs, targets = examples([3], 9, torch.float64)
    got = update(one, params, buffers, inputs, targets)
    x, own = inputs[0], {key: value[0] for key, value in params.items()}
    for i in range(2):
        x = x @ own[f"layers.{i}.weight"].T + own[f"layers.{i}.bias"]
        x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        x = (x * own[f"norms.{i}.weight"] + own[f"norms.{i}.bias"]).relu()
    close(got["outputs"][0], x @ own["layers.2.weight"].T + own["layers.2.bias"])
    assert not torch.equal(got["buffer norms.1.running_var"], buffers["norms.1.running_var"])
    assert parts_of(one)["norm"] == [f"norms.{i}.{name}" for i in range(2) for name in ("weight", "bias")]


def test_scale_invariant_convnet_against_torchs_layers():
    (one,), params, buffers = ensemble("si_convnet", {}, [3], torch.float64, (3, 16, 16))
    inputs, targets = examples([3], 6, torch.float64, (3, 16, 16))
    got = update(one, params, buffers, inputs, targets)
    x = inputs[0].view(-1, 3, 16, 16)
    for i in range(4):
        x = F.conv2d(x, params[f"convs.{i}.weight"][0], padding=1)
        x = (
            (x - x.mean((0, 2, 3), keepdim=True))
            / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        ).relu()
        x = F.max_pool2d(x, 2) if i else x
    assert x.shape[2:] == (2, 2)
    x = F.max_pool2d(x, 2).flatten(1)
    close(got["outputs"][0], x @ buffers["head.weight"][0].T + buffers["head.bias"][0])


@pytest.mark.parametrize("name", ["si_mlp", "si_convnet"])
def test_scale_does_not_matter_and_the_head_is_frozen(name):
    networks, params, buffers = ensemble(name, {}, range(2), torch.float64)
    inputs, targets = examples(range(2), 16, torch.float64)
    assert networks[0].scale_invariant == list(params)
    for one in networks:
        assert one.head.weight.norm() == pytest.approx(10)
    assert not torch.equal(buffers["head.weight"][0], buffers["head.weight"][1])
    # Large, so that torch's epsilon in the variance does not count.
    params = {key: 100 * value for key, value in params.items()}
    wanted = update(networks[0], params, buffers, inputs, targets)
    larger = {key: 3 * value for key, value in params.items()}
    got = update(networks[0], larger, buffers, inputs, targets)
    torch.testing.assert_close(got["outputs"], wanted["outputs"], rtol=1e-3, atol=1e-3)
    for key, value in params.items():
        along = (wanted[key] * value).flatten(1).sum(1)
        assert (along.abs() < 2e-3 * wanted[key].flatten(1).norm(dim=1) * value.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize(("name", "fields"), [*CASES[:2], CASES[7], CASES[-1]])
def test_second_derivatives_exist_and_are_right(name, fields):
    networks, params, buffers = ensemble(name, {**fields, "width": 8}, range(2), torch.float64)
    inputs, targets = examples(range(2), 6, torch.float64)

    def losses_at(point):
        kept = {key: value.clone() for key, value in buffers.items()}
        return losses_of(networks[0].stacked_forward(point, inputs, Context(True, kept)), targets)

    check_second_derivatives(losses_at, params, step=1e-7, rtol=1e-3, atol=1e-5)


def test_published_sizes():
    """Parameters of ResNet-20 (0.27 million, He et al. 2016, table 6) and of ResNet-18 for CIFAR (11.17 million)."""
    count = {
        name: sum(p.numel() for p in network(name, shape=(3, 32, 32), small=False).parameters())
        for name in ("resnet20", "resnet18")
    }
    assert count == {"resnet20": 269_722, "resnet18": 11_173_962}


def test_what_counts_as_weights():
    one = network("resnet18", shape=(3, 32, 32), small=False)
    selection = describe(one)
    stacked = {key: value.detach()[None].expand(2, *value.shape) for key, value in one.named_parameters()}
    shapes = [tuple(m.shape) for m in matrices(stacked, selection)]
    assert shapes[:2] == [(2, 64, 27), (2, 64, 576)]
    assert shapes[-1] == (2, 10, 512)
    assert len(shapes) == 1 + 16 + 1
    assert selection.biases == ("fc.bias",)
    assert selection.last_layer == "fc.weight"
    assert len(describe(network("resnet20")).matrices) == 1 + 18 + 1
    selection = describe(network("si_convnet"))
    assert [m.parameter for m in selection.matrices] == [f"convs.{i}.weight" for i in range(4)]
    assert selection.biases == ()


def test_initialisation_of_resnet20_is_he_normal():
    weight = network("resnet20", small=False).blocks[8].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", list(SMALL))
def test_other_tasks_are_refused(name):
    module = import_module(f"dynalab.models.{name}")
    with pytest.raises(ConfigError, match=rf"model={name}.*pairs"):
        module.build(module.Config(), InputSpec(kind="pairs", symbols=5, classes=5))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "resnet18",
            {"norm": "bacth"},
            r"model\.norm=bacth.*batch, layer, group or none.*did you mean batch",
        ),
        ("resnet20", {"norm": "group", "groups": 5}, r"model\.width=16.*model\.groups=5"),
        ("resnet20", {"width": 0}, r"model\.width=0"),
        ("si_mlp", {"depth": 0}, r"model\.depth=0"),
        ("si_convnet", {"head_norm": 0.0}, r"model\.head_norm=0\.0.*above 0"),
    ],
)
def test_bad_values_are_named(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        import_module(f"dynalab.models.{name}").Config(**fields)


def test_a_batch_of_one_is_refused_in_training():
    networks, params, buffers = ensemble("si_mlp", {}, range(2))
    inputs, _ = examples(range(2), 1)
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        networks[0].stacked_forward(params, inputs, Context(True, buffers))
    networks[0].stacked_forward(params, inputs, Context(False, buffers))


def test_images_too_small_are_refused():
    with pytest.raises(ConfigError, match="at least 8 x 8"):
        network("si_convnet", shape=(1, 4, 8))


@pytest.mark.parametrize("products_from", [images.PRODUCTS_FROM, 2])
@pytest.mark.parametrize(("name", "fields"), [*RESNETS, CASES[-1]])
def test_runs_side_by_side_are_the_loop_over_them(name, fields, products_from, monkeypatch):
    monkeypatch.setattr(images, "PRODUCTS_FROM", products_from)
    networks, params, buffers = ensemble(name, fields, range(3), torch.float64)
    inputs, targets = examples(range(3), 5, torch.float64)
    found = []
    for forward in (networks[0].stacked_forward, networks[0].side_by_side):
        leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
        kept = {key: value.clone() for key, value in buffers.items()}
        outputs = forward(leaves, inputs, Context(True, kept))
        gradients = torch.autograd.grad(
            losses_of(outputs, targets).sum(), list(leaves.values()), create_graph=True
        )
        second = torch.autograd.grad(
            sum(g.square().sum() for g in gradients), list(leaves.values()), allow_unused=True
        )
        with torch.no_grad():
            evaluated = forward(leaves, inputs, Context(False, kept))
        found.append([outputs, evaluated, *kept.values(), *gradients, *(g for g in second if g is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * float(one.detach().abs().max()))
