"""The fourteen weight statistics and the norms, against plain float64 loops with NumPy's singular values."""

import numpy as np
import pytest
import torch
from oracles import fourteen
from torch import nn

from dynalab.models.base import Matrix
from dynalab.models.describe import describe
from dynalab.probes import gradients, weights
from dynalab.probes.base import Probe, ProbeState

NAMES = [
    *("l1", "l2", "l1_over_l2", "mean_w", "median_w", "var_w", "mean_b", "median_b", "var_b"),
    *("trace", "lambda_max", "trace_over_lambda_max", "mean_sv", "var_sv"),
]
BIAS_NAMES = {"mean_b", "median_b", "var_b"}


class Net(nn.Module):
    """Matrices tall, wide, cut in parts and from a convolution, two of one shape, and two biases."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 5)
        self.first = nn.Linear(7, 12)
        self.second = nn.Linear(12, 7, bias=False)
        self.third = nn.Linear(7, 4, bias=False)
        self.weight_matrices = [
            *(Matrix("conv.weight"), Matrix("first.weight", parts=3), Matrix("second.weight")),
            Matrix("third.weight"),
        ]


pytestmark = pytest.mark.usefixtures("one_thread")


def draw(net, runs, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn((runs, *value.shape), generator=generator, dtype=torch.float64).to(dtype) + 0.1
        for key, value in net.named_parameters()
    }


def pieces(params, s):
    p = {key: value[s].numpy() for key, value in params.items()}
    found = [
        p["conv.weight"].reshape(4, 15),
        *np.split(p["first.weight"], 3),
        p["second.weight"],
        p["third.weight"],
    ]
    return found, [p["conv.bias"], p["first.bias"]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fourteen_against_a_plain_fourteen(dtype):
    net = Net()
    probe = weights.build(weights.Config(), net)
    assert isinstance(probe, Probe)
    params = draw(net, 4, dtype=dtype)
    got = probe.measure(ProbeState(step=0, params=params))
    assert list(got) == NAMES
    for s in range(4):
        for name, value in fourteen(*pieces(params, s)).items():
            assert got[name].dtype == torch.float64
            assert got[name].shape == (4,)
            assert got[name][s].item() == pytest.approx(value, rel=1e-12, abs=1e-15), name


def test_without_biases_their_columns_are_absent():
    net = nn.Linear(5, 3, bias=False)
    got = weights.build(weights.Config(), net).measure(ProbeState(step=0, params=draw(net, 2)))
    assert list(got) == [name for name in NAMES if name not in BIAS_NAMES]
    assert weights.build(weights.Config(), nn.ReLU()).measure(ProbeState(step=0, params={})) == {}


@pytest.mark.parametrize("shape", [(59, 128), (128, 59)])
def test_rank_deficient_matrices(shape):
    rng = np.random.default_rng(0)
    net = nn.Linear(shape[1], shape[0], bias=False)
    low = rng.normal(size=(shape[0], 4)) @ rng.normal(size=(4, shape[1]))
    decay = np.linalg.qr(rng.normal(size=(shape[0], 59)))[0] * np.logspace(1, -7, 59)
    decay = decay @ np.linalg.qr(rng.normal(size=(shape[1], 59)))[0].T
    params = {"weight": torch.from_numpy(np.stack([low, low.astype(np.float32), decay]))}
    got = weights.build(weights.Config(), net).measure(ProbeState(step=0, params=params))
    for s in range(3):
        for name, value in fourteen([params["weight"][s].numpy()], [np.zeros(1)]).items():
            if name not in BIAS_NAMES:
                assert got[name][s].item() == pytest.approx(value, rel=1e-11), name


def test_a_zero_matrix_has_no_ratios():
    net = nn.Linear(5, 3, bias=False)
    params = {"weight": torch.stack([torch.zeros(3, 5), torch.ones(3, 5)])}
    got = weights.build(weights.Config(), net).measure(ProbeState(step=0, params=params))
    assert {name for name, value in got.items() if value[0].isnan()} == {
        "l1_over_l2",
        "trace_over_lambda_max",
    }
    assert got["mean_sv"][1].item() == pytest.approx(15**0.5 / 3)


@pytest.mark.parametrize("where", ["first.weight", "conv.bias"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_run_that_is_not_finite_is_nan_and_alone(bad, where):
    net = Net()
    probe = weights.build(weights.Config(), net)
    params = draw(net, 3)
    before = probe.measure(ProbeState(step=0, params=params))
    params[where].view(3, -1)[1, 2] = bad
    after = probe.measure(ProbeState(step=0, params=params))
    assert list(after) == NAMES
    for name in NAMES:
        assert after[name][1].isnan(), name
        assert torch.equal(after[name][[0, 2]], before[name][[0, 2]]), name


def test_infinities_of_both_signs():
    net = nn.Linear(5, 3)
    params = draw(net, 2)
    params["weight"][0, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    got = weights.build(weights.Config(), net).measure(ProbeState(step=0, params=params))
    assert all(value[0].isnan() and value[1].isfinite() for value in got.values())


def test_the_median_has_one_zero():
    net = nn.Linear(3, 1, bias=False)
    params = {"weight": torch.tensor([[[-0.0, 0.0, -0.0]], [[0.0, -0.0, -0.0]]])}
    got = weights.build(weights.Config(), net).measure(ProbeState(step=0, params=params))
    assert not got["median_w"].signbit().any()


@pytest.mark.parametrize("kind", ["odd", "59x128"])
def test_bits_do_not_depend_on_the_neighbours(kind):
    net = Net() if kind == "odd" else nn.Linear(128, 59)
    params = draw(net, 20)
    previous = draw(net, 20, seed=1)
    probes = [weights.build(weights.Config(), net), gradients.build(gradients.Config(), net)]
    for probe in probes:
        whole = probe.measure(ProbeState(step=1, params=params, previous=previous, gradients=previous))
        for chosen in ([4, 3], [19, 0, 7], [5, 4, 3, 2, 1], [8]):
            part = {key: value[chosen] for key, value in params.items()}
            old = {key: value[chosen] for key, value in previous.items()}
            got = probe.measure(ProbeState(step=1, params=part, previous=old, gradients=old))
            for name, value in whole.items():
                assert torch.equal(got[name], value[chosen]), (name, chosen)


def test_norms_against_numpy():
    net = Net()
    probe = gradients.build(gradients.Config(), net)
    assert isinstance(probe, Probe)
    assert probe.needs == {"gradients", "previous"}
    params, previous, slopes = (draw(net, 3, seed=seed) for seed in range(3))
    got = probe.measure(ProbeState(step=1, params=params, previous=previous, gradients=slopes))
    assert list(got) == [
        "grad_norm",
        "update_norm",
        "param_norm",
        "last_layer_norm",
        "last_layer_update_norm",
    ]
    for s in range(3):

        def flat(tensors, s=s):
            return np.concatenate([t[s].numpy().astype(np.float64).ravel() for t in tensors])

        moved = flat(params.values()) - flat(previous.values())
        last = flat([params["third.weight"]])
        expected = {
            "grad_norm": flat(slopes.values()),
            "update_norm": moved,
            "param_norm": flat(params.values()),
            "last_layer_norm": last,
            "last_layer_update_norm": last - flat([previous["third.weight"]]),
        }
        for name, vector in expected.items():
            assert got[name].dtype == torch.float64
            assert got[name][s].item() == pytest.approx(np.linalg.norm(vector), rel=1e-13), name


def test_row_0_has_no_update():
    net = Net()
    got = gradients.build(gradients.Config(), net).measure(ProbeState(step=0, params=draw(net, 2)))
    for name, value in got.items():
        assert value.shape == (2,)
        assert value.isnan().all() == (name not in ("param_norm", "last_layer_norm"))


def test_a_network_without_a_last_layer():
    net = nn.LayerNorm(4)
    assert describe(net).last_layer is None
    got = gradients.build(gradients.Config(), net).measure(ProbeState(step=0, params=draw(net, 2)))
    assert list(got) == ["grad_norm", "update_norm", "param_norm"]
