"""Batch norms that are folded into products: which are, and that only rounding tells what comes of it apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynalab.core.batch import InputSpec
from dynalab.core.polytope import axes
from dynalab.models import resnet18, resnet20
from dynalab.models.nets.mlp import MLP
from dynalab.models.units import Units
from dynalab.models.unrolled import Unrolled

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """Convolutions and batch norms of 6 channels in one of several orders."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, tracked = way, way != "statistics of the batch"
        self.one, self.two = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.first, self.second = (nn.BatchNorm2d(6, track_running_stats=tracked) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x.view(-1, *SHAPE))
        match self.way:
            case "norm before convolution":
                return torch.relu(self.two(torch.relu(self.first(torch.relu(x)))))
            case "convolution read twice":
                x = torch.relu(self.first(x) + x)
            case "convolution read before":
                y = torch.relu(x)
                x = torch.relu(self.first(x) + y)
            case "weights made anew":
                x = F.conv2d(torch.relu(x), self.two.weight - self.two.weight.mean(), padding=1)
                return torch.relu(self.first(x))
            case "overwritten between":
                # The norm reads the convolution's value at once, but not as it was made.
                return torch.relu(self.first(x.mul_(2)))
            case "sum read twice":
                y = self.first(x)
                z = torch.relu(y + 1)
                x = torch.relu(y) + z
            case _:
                x = torch.relu(self.first(x))
        return torch.relu_(self.second(self.two(x)) + x)


class Rows(nn.Module):
    """Linear layers with batch norms, one of them over places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.places, self.two = nn.Linear(64, 12), nn.Linear(4, 3), nn.Linear(9, 7)
        self.first, self.middle = nn.BatchNorm1d(12, affine=False), nn.BatchNorm1d(3)
        self.last = nn.BatchNorm1d(7, eps=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(F.linear(x.flatten(1), weight=self.one.weight, bias=self.one.bias)))
        x = torch.tanh(self.middle(self.places(x.view(-1, 3, 4))))
        return torch.relu(self.last(self.two(x.flatten(1))))


def trained(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a network whose batch norms are not the identity."""
    for module in network.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if name == "running_var" or (name == "weight" and tensor.ndim == 1):
                tensor.data.uniform_(0.3, 2)
            elif name in ("running_mean", "bias"):
                tensor.data.normal_(0, 0.2)
    return network.to(dtype)


def both(network: nn.Module, dtype: torch.dtype = torch.float64, points: int = 12):
    """Return units with folds and without, the state, points and directions."""
    torch.manual_seed(0)
    network = trained(network, dtype)
    state = {name: it.detach() for name, it in (*network.named_parameters(), *network.named_buffers())}
    drawn, directions = torch.rand(points, 64, dtype=dtype), torch.tensor(axes(64, 25)).to(dtype)
    units, plain = Units(network, state, drawn[0]), Units(network, state, drawn[0])
    plain.folds = {}
    return units, plain, state, drawn, directions


def resnet(module, **keys) -> nn.Module:
    return module.build(
        module.Config(width=4, **keys), InputSpec(kind="image", symbols=64, classes=10, shape=SHAPE)
    )


@pytest.mark.parametrize(
    ("make", "places"),
    [
        (lambda: Net("norms behind"), [0, 1]),
        (lambda: Net("norm before convolution"), []),
        (lambda: Net("convolution read twice"), [1]),
        (lambda: Net("convolution read before"), [1]),
        (lambda: Net("weights made anew"), []),
        (lambda: Net("overwritten between"), []),
        (lambda: Net("sum read twice"), [0, 1]),
        (lambda: Net("statistics of the batch"), []),
        (Rows, [0, 2]),
        (lambda: MLP(64, 10, [20, 9], norm="batch"), []),
        (lambda: resnet(resnet20), [*range(19)]),
        (lambda: resnet(resnet18), [*range(20)]),
        (lambda: resnet(resnet20, residual=False), [*range(19)]),
        (lambda: resnet(resnet20, norm="none"), []),
    ],
)
def test_folds_are_found_by_structure_and_change_nothing_but_rounding(make, places):
    units, plain, state, points, directions = both(make())
    assert [*units.folds] == places
    before = {name: tensor.clone() for name, tensor in state.items()}
    ours, theirs = (of.radii([state], points[None], directions) for of in (units, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    ours, theirs = (of.cut([state], points[None], directions, 0.2) for of in (units, plain))
    assert torch.equal(ours, theirs) and ours.any() and not ours.all()
    # The state and the network keep the weights that they have.
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.items())
    network = units._network
    assert all(
        it is state[name] or it.data_ptr() == state[name].data_ptr()
        for name, it in network.state_dict().items()
    )


def test_in_float32_counts_differ_where_an_argument_is_0_but_for_rounding():
    units, plain, state, points, directions = both(resnet(resnet20), torch.float32, 30)
    ours, theirs = (of.radii([state], points[None], directions) for of in (units, plain))
    for r in (0.005, 0.05):
        apart = (ours < r) != (theirs < r)
        assert ((ours[apart] - r).abs() < 1e-2 * r).all()
        assert apart.float().mean() < 1e-4 and (ours < r).float().mean() > 1e-3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "kernel", "keys"),
    [
        ((2, 2), 3, {"padding": 1}),
        ((1, 1), 3, {"padding": 1}),
        ((2, 3), (3, 4), {"padding": (1, 2), "stride": (2, 1)}),
        ((2, 2), 5, {"padding": 4, "stride": 3}),
    ],
)
def test_a_convolution_of_maps_smaller_than_its_kernel_is_a_matrix(size, kernel, keys, layout):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, kernel, dtype=torch.float64, **keys)
    maps = torch.randn(5, 3, *size, dtype=torch.float64).to(memory_format=layout)
    given, made = (maps, convolution.weight, convolution.bias), convolution(maps)
    unrolled = Unrolled.of(made, layout is torch.channels_last, *given, **keys)
    assert unrolled is not None
    matrix = unrolled.empty(convolution.weight).fill_(torch.nan)
    unrolled.fill(matrix, convolution.weight)
    ours = unrolled.convolve(maps, matrix, given[2])
    torch.testing.assert_close(ours, made, rtol=1e-12, atol=1e-12)
    assert ours.is_contiguous(memory_format=layout)


def test_no_other_convolution_is():
    weight = torch.randn(4, 4, 3, 3)
    for maps, keys in (
        (torch.randn(2, 4, 3, 3), {"padding": 1}),
        (torch.randn(2, 4, 2, 2), {"padding": 2, "dilation": 2}),
        (torch.randn(2, 4, 2, 2), {"padding": "same"}),
    ):
        assert Unrolled.of(F.conv2d(maps, weight, **keys), False, maps, weight, **keys) is None
    maps, apart = torch.randn(2, 4, 2, 2), weight[:, :2]
    assert (
        Unrolled.of(F.conv2d(maps, apart, padding=1, groups=2), False, maps, apart, None, 1, 1, 1, 2) is None
    )
    units, *_ = both(resnet(resnet20))
    assert [place for place, fold in units.folds.items() if fold.unrolled] == [*range(14, 19)]
