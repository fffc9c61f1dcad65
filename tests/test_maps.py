"""What is read of layers in compiled code is what torch reads; calls that are made again are those of the network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_regions import Plain, drawn
from torch import Tensor, nn

from dynalab.config.compiling import compiler
from dynalab.core.batch import InputSpec
from dynalab.models import maps, resnet20
from dynalab.models.folds import Fold, Folding
from dynalab.models.nets.mlp import MLP
from dynalab.models.units import Units
from dynalab.models.unrolled import Unrolled

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30)


def without_code(monkeypatch) -> None:
    monkeypatch.setattr(maps, "library", lambda: None)


@needs_compiler
@pytest.mark.parametrize(("points", "units"), [(3, 7), (1, 2048), (2, 5000)])
@pytest.mark.parametrize(("odd", "summed"), [(False, False), (False, True), (True, True)])
def test_layers_are_read_as_torch_reads_them_to_the_bit(points, units, odd, summed, monkeypatch):
    torch.manual_seed(units)
    more = torch.randn(5, points, units) if summed else None
    given = torch.randn(5, points, units) + torch.randn(units)
    if odd:
        for number, value in enumerate(ODD):
            given[number % 5, points - 1, number::29] = value
    found = []
    for compiled in (True, False):
        if not compiled:
            without_code(monkeypatch)
        seen = given.clone()
        # Between the entries of other layers.
        places = [torch.full((points, units + 3), 7.0) for _ in range(3)]
        maps.tangents(seen, more, 5, *(place[:, 1:-2] for place in places))
        assert all((place[:, [0, -2, -1]] == 7).all() for place in places)
        found.append([seen, *places])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert maps.library() is None and odd == bool(found[0][0].isnan().any())


@needs_compiler
@pytest.mark.parametrize("value", [None, *ODD])
def test_units_are_counted_as_torch_counts_them(value, monkeypatch):
    torch.manual_seed(0)
    here, up, down = torch.randn(4, 60), torch.rand(4, 60), -torch.rand(4, 60)
    if value is not None:
        here[1, 7] = up[2, 50] = down[3, 59] = value
        here[0, 3], up[0, 4] = value, value
    given = [it.clone() for it in (here, up, down)]
    arguments = (*given, (10, 0, 50), (0.3, 3.0), 0.5)
    ours = maps.nearer(*arguments)
    without_code(monkeypatch)
    theirs = maps.nearer(*arguments)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert ours.shape == (4, 2, 3) and (ours[:, :, 1].nan_to_num() == 0).all()
    unknown = value is not None and (math.isnan(value) or value == math.inf)
    assert ours[0].isnan().all() == unknown
    if not unknown:
        moved, near = torch.maximum(up[0], -down[0]), here[0].abs() * 0.5
        assert ours[0, 1, 2] == (near / moved < 3)[10:].sum()


@needs_compiler
def test_weights_of_folds_are_those_of_torch_to_the_bit(monkeypatch):
    torch.manual_seed(0)
    shapes = {
        "linear": (3, 6),
        "convolution": (4, 3, 3, 3),
        "over rows": (2, 5, 4),
        "small maps": (4, 5, 3, 4),
    }
    state, folds = {}, {}
    for name, shape in shapes.items():
        parts = [f"{name}.{part}" for part in ("bias", "mean", "var", "scale", "shift")]
        state |= {part: torch.rand(shape[0]) + 0.1 for part in parts} | {name: torch.randn(shape)}
        unrolled = Unrolled((2, 3), (2, 4), (2, 1), (1, 2), True) if name == "small maps" else None
        folds[len(folds)] = Fold(name, *parts, 1e-5, False, len(shape) == 4, unrolled)
    folds[4] = Fold("linear", None, "linear.mean", "linear.var", None, None, 0.1, False, False, None)
    # Strides, paddings and kernels beyond the maps.
    folds[5] = replace(folds[3], unrolled=Unrolled((2, 2), (3, 2), (3, 4), (4, 4), True))
    found = []
    for compiled in (True, False):
        if not compiled:
            without_code(monkeypatch)
        folding = Folding(folds, state)
        for own in folding.weights.values():
            own.weight.fill_(torch.nan)
        folding.make(state)
        found.append([*folding.weights.values()])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
        assert ours.weight.stride() == theirs.weight.stride() and ours.weight.any()


def residual() -> nn.Module:
    spec = InputSpec(kind="image", symbols=64, classes=10, shape=(1, 8, 8))
    return resnet20.build(resnet20.Config(width=4), spec)


class Asking(nn.Module):
    """A pass that calls as its values say, or as its inputs are many, or where nobody can look."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.one, self.two = way, nn.Linear(64, 12), nn.Linear(12, 9)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        match self.way:
            case "values":
                h = h if h.sum() > 1e9 else h + 0.01
            case "lengths":
                h = h + 0.01 * torch.ones(len(x), 1)
            case "elsewhere":
                h = torch.from_numpy(h.numpy() * 2)
        return torch.relu(self.two(torch.relu_(h)))


NETWORKS = {
    "MLP": lambda: MLP(64, 10, [30, 20]),
    "normalised": lambda: MLP(64, 10, [30, 20], norm="layer"),
    "pooling": Plain,
    "residual": residual,
    "plain": lambda: Asking("plain"),
    **{way: lambda way=way: Asking(way) for way in ("values", "lengths", "elsewhere")},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_do_not_depend_on_how_they_are_made(name, monkeypatch):
    network, state, points, directions = drawn(NETWORKS[name], points=40)
    units = Units(network, state, points[0])
    assert (units._recorded is None) == (name in ("values", "lengths", "elsewhere"))
    spoilt = {key: value.clone() for key, value in state.items()}
    next(iter(spoilt.values())).view(-1)[0] = torch.nan

    def counts(units: Units) -> Tensor:
        return units.counts([state, spoilt], points.expand(2, -1, -1), directions, (0.02, 0.2))

    ours = counts(units)
    distances = units.radii([state], points[None], directions)[0]
    by_radius = [
        torch.stack([layer.sum(1) for layer in (distances < r).split(units.sizes, 1)], 1) for r in (0.02, 0.2)
    ]
    assert (ours[0] == torch.stack(by_radius, 1)).all() and ours[0].sum() > 20
    assert ours[1].isnan().all()
    units._recorded = None
    torch.testing.assert_close(counts(units), ours, rtol=0, atol=0, equal_nan=True)
    without_code(monkeypatch)
    torch.testing.assert_close(counts(units), ours, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(counts(Units(network, state, points[0])), ours, rtol=0, atol=0, equal_nan=True)


def test_calls_that_are_made_again_hold_no_more_than_a_network_does():
    network, state, points, _ = drawn(residual, points=1)
    recorded = Units(network, state, points[0])._recorded
    assert recorded is not None
    made = {step.made for step in recorded.steps}
    done = [place for step in recorded.steps for place in step.done]
    assert len(done) == len(set(done)) and made <= {*done}


@needs_compiler
def test_a_machine_without_a_compiler_counts_in_torch(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    maps.library.cache_clear()
    try:
        assert maps.library() is None
    finally:
        maps.library.cache_clear()
