"""The exact partition of a slice: against closed forms, the forward pass, and codes on a grid."""

from __future__ import annotations

import copy
import re
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynalab
from dynalab.analysis.partition import Config, show
from dynalab.analysis.partition.findings import Over
from dynalab.analysis.partition.summary import COLOURS
from dynalab.core.batch import InputSpec
from dynalab.core.errors import ConfigError
from dynalab.models import resnet20
from dynalab.models.nets.mlp import MLP
from dynalab.models.nets.scale_invariant import ScaleInvariantConvNet, ScaleInvariantMLP
from dynalab.partition import Partition, Plane, compiled, mesh
from dynalab.show.blocks import Figure, Polygons
from dynalab.show.plots import draw


def plane(size: int, half: float | None = None, seed: int = 1) -> Plane:
    points = np.random.default_rng(seed).normal(size=(3, size))
    found = Plane.through(points)
    return found if half is None else Plane(found.origin, found.basis, half)


def flat(half: float = 1.0) -> Plane:
    return Plane(np.zeros(2), np.eye(2), half)


class Images(nn.Module):
    """Convolution, batch normalisation, maximum and mean pooling, and a residual addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(8, 3)
        self.norm.running_mean.normal_(0, 0.3)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x.view(-1, 1, 8, 8))))
        x = nn.functional.max_pool2d(x, 3, 2, padding=1)
        return self.head(nn.functional.avg_pool2d(torch.relu_(x + self.second(x)), 2).flatten(1))


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 15), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).view(-1, 5, 3)
        return self.head(y.amax(2) - 0.5 * torch.minimum(y[..., 0], y[..., 1]))


def network(name: str) -> tuple[nn.Module, Plane]:
    torch.manual_seed(0)
    spec = InputSpec(kind="image", symbols=64, classes=3, shape=(1, 8, 8))
    made: dict[str, tuple[nn.Module, Plane]] = {
        "mlp": (MLP(6, 4, [14, 14]), plane(6)),
        "leaky": (nn.Sequential(nn.Linear(6, 12), nn.LeakyReLU(0.1), nn.Linear(12, 1)), plane(6)),
        "bounded": (
            nn.Sequential(nn.Linear(6, 8), nn.Hardtanh(), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 3)),
            plane(6),
        ),
        "images": (Images(), plane(64, 1.0)),
        "maxout": (Maxout(), plane(6, 4.0)),
        "si_mlp": (ScaleInvariantMLP(6, 3, 10, 2, 10.0), plane(6)),
        "si_convnet": (ScaleInvariantConvNet((1, 8, 8), 3, 2, 10.0), plane(64, 0.25)),
        "resnet20": (resnet20.build(resnet20.Config(width=2), spec), plane(64, 0.03)),
    }
    return made[name]


NETWORKS = ["mlp", "leaky", "bounded", "images", "maxout", "si_mlp", "si_convnet", "resnet20"]


def forward(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return copy.deepcopy(module).double().eval()(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_partition_fills_its_square_and_has_the_map_of_the_forward_pass_everywhere(name: str) -> None:
    module, square = network(name)
    found = Partition.of(module, square, most=20_000)
    assert len(found) > 20
    assert (found.areas > 0).all()
    assert found.areas.sum() == pytest.approx(4 * square.half**2, abs=1e-9)
    rng = np.random.default_rng(0)
    polygons = found.polygons
    some = rng.choice(len(found), min(len(found), 300), replace=False)
    for polygon, area in zip(polygons, found.areas, strict=True):
        after = np.roll(polygon, -1, 0)
        assert np.sum(polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]) / 2 == pytest.approx(
            area, abs=1e-12
        )
    places = np.stack([rng.dirichlet(np.ones(len(polygons[k]))) @ polygons[k] for k in some])
    own = np.einsum("kci,ki->kc", found.maps[some], np.c_[places, np.ones(len(some))])
    outputs = forward(module, square.lift(places))
    assert np.abs(own - outputs).max() <= 1e-12 * max(np.abs(outputs).max(), 1)
    # Corners are shared: on each the outputs of all regions about it agree.
    assert found.outputs == pytest.approx(forward(module, square.lift(found.mesh.xy)), abs=1e-12)
    pieces = found.classes
    assert pieces.faces.areas.sum() == pytest.approx(4 * square.half**2, abs=1e-9)
    centres = pieces.faces.centres
    outputs = forward(module, square.lift(centres))
    largest = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).astype(int)
    assert (pieces.of == largest).all()
    # What a network's own numbers do at the middles of the boundary: the two largest outputs are equal.
    middles = forward(module, square.lift(pieces.boundary.mean(1)))
    top = np.sort(np.c_[middles, np.zeros(len(middles))] if middles.shape[1] == 1 else middles, 1)[:, -2:]
    assert np.ptp(top, 1).max(initial=0) < 1e-11


def test_one_layer_has_one_region_more_than_chords_and_their_crossings() -> None:
    torch.manual_seed(2)
    layer = nn.Linear(2, 25)
    found = Partition.of(nn.Sequential(layer, nn.ReLU(), nn.Linear(25, 1)), flat(1.5))
    weight, bias = (it.detach().double().numpy() for it in (layer.weight, layer.bias))
    at_corners = flat(1.5).corners @ weight.T + bias
    chords = np.flatnonzero((at_corners.min(0) < 0) & (at_corners.max(0) > 0))
    crossings = 0
    for i, j in combinations(chords, 2):
        x = np.linalg.solve(weight[[i, j]], -bias[[i, j]])
        crossings += np.abs(x).max() < 1.5
    assert len(chords) > 10
    assert crossings > 10
    assert len(found) == 1 + len(chords) + crossings


def codes(module: nn.Sequential, inputs: np.ndarray) -> np.ndarray:
    """Return which hidden units are on, (n, units)."""
    x, signs = torch.from_numpy(inputs), []
    with torch.no_grad():
        for layer in copy.deepcopy(module).double():
            if isinstance(layer, nn.ReLU):
                signs.append(x > 0)
            x = layer(x)
    return torch.cat(signs, 1).numpy()


def test_regions_do_not_overlap_have_codes_of_their_own_and_a_grid_sees_fewer() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))
    found = Partition.of(module, flat(2.0))
    own = codes(module, found.centres)
    assert len(np.unique(own, axis=0)) == len(found)
    side = np.linspace(-2, 2, 41)[1:-1]
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    seen = codes(module, grid)
    assert 50 < len(np.unique(seen, axis=0)) <= len(found)
    inside = np.ones((len(found), len(grid)), bool)
    for region, polygon in zip(inside, found.polygons, strict=True):
        along = np.roll(polygon, -1, 0) - polygon
        for (x, y), (u, v) in zip(polygon, along, strict=True):
            region &= u * (grid[:, 1] - y) - v * (grid[:, 0] - x) >= 0
    assert (inside.sum(0) == 1).all()
    assert (own[inside.argmax(0)] == seen).all()


def test_on_either_side_of_an_edge_is_what_the_forward_pass_says() -> None:
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    found = Partition.of(module, flat(2.0))
    (start, end), sides = found.mesh.xy[found.mesh.ends], found.mesh.sides
    along = end - start
    length = np.linalg.norm(along, axis=1)
    long = (length > 1e-3) & (sides.min(0) >= 0)
    assert long.sum() > 100
    normal = np.c_[-along[:, 1], along[:, 0]] / length[:, None]
    own = codes(module, found.centres)
    labels = found.mesh.labels
    for side, sign in zip(sides, (1, -1), strict=True):
        beside = (start + end)[long] / 2 + sign * 1e-9 * normal[long]
        assert (codes(module, beside) == own[side[long]]).all()
    # The two sides differ in one unit, of the layer that drew the edge.
    differ = own[sides[0, long]] != own[sides[1, long]]
    assert (differ.sum(1) == 1).all()
    assert (differ.argmax(1) // 12 == labels[long]).all()
    # The distance from the decision boundary, by brute force.
    first, last = found.classes.boundary[:, 0], found.classes.boundary[:, 1]
    share = np.linspace(0, 1, 200)[:, None, None]
    points = (first + share * (last - first)).reshape(-1, 2)
    brute = np.linalg.norm(found.centres[:, None] - points, axis=2).min(1)
    assert found.distances == pytest.approx(brute, abs=2e-3)


def test_lines_through_one_point_and_through_corners_make_no_slivers() -> None:
    torch.manual_seed(5)
    first = nn.Linear(2, 9, bias=False)
    assert len(Partition.of(nn.Sequential(first, nn.ReLU(), nn.Linear(9, 1)), flat())) == 18
    pencil = nn.Sequential(first, nn.ReLU(), nn.Linear(9, 5, bias=False), nn.ReLU(), nn.Linear(5, 1))
    found = Partition.of(pencil, flat())
    assert found.areas.min() > 1e-6
    assert found.areas.sum() == pytest.approx(4)

    class Diamond(nn.Module):
        """The diagonals of the square, and a diamond through the middles of its sides."""

        def forward(self, x: Tensor) -> Tensor:
            size = x.abs().sum(1, keepdim=True)
            return torch.relu(size - 1) + torch.maximum(x[:, :1], x[:, 1:])

    # Each quadrant is cut by the diamond through two corners that are there; the maximum, along x = y, cuts two
    # quadrants and both of their parts.
    found = Partition.of(Diamond(), flat())
    assert len(found) == 12
    assert sorted(np.round(found.areas, 12)) == [0.25] * 8 + [0.5] * 4


@pytest.mark.parametrize("name", ["mlp", "bounded", "maxout", "ties"])
def test_compiled_cuts_are_those_of_numpy_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled.installed():
        # What numba would compile, by Python itself.
        monkeypatch.setattr(mesh, "kernel", lambda: compiled._cuts)
    if name == "ties":
        # Lines through vertices and through one point.
        torch.manual_seed(1)
        own, where = (
            nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
            flat(),
        )
        for weights in own.parameters():
            weights.data = torch.randint(-1, 2, weights.shape).float()
    else:
        own, where = network(name)
    one, other = (Partition.of(own, where, compiled=asked) for asked in (False, True))
    assert len(one) == len(other) > 3
    for a, b in ((one.mesh, other.mesh), (one.classes.faces.mesh, other.classes.faces.mesh)):
        for part in ("xy", "ends", "sides", "labels"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


def test_compiled_cuts_take_numba_and_as_many_regions_as_are_asked_for(monkeypatch) -> None:
    own, where = network("mlp")
    monkeypatch.setattr(mesh, "kernel", lambda: compiled._cuts)
    with pytest.raises(ConfigError, match="more than 5 regions"):
        Partition.of(own, where, most=5, compiled=True)
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "installed", lambda: False)
    compiled.kernel.cache_clear()
    with pytest.raises(ConfigError, match=r"numba: pip install 'dynalab\[regions\]'"):
        Partition.of(own, where, compiled=True)


def test_a_network_is_run_once_at_the_vertices_where_nothing_is_held_past_a_bend() -> None:
    own, where = network("mlp")
    rows = []
    own.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    Partition.of(own, where)
    # Two readings of two and three inputs, and a pass that begins at the corners of the square.
    assert rows == [2, 3, 4]


def test_a_maximum_draws_only_where_its_place_changes() -> None:
    torch.manual_seed(6)
    layer = nn.Linear(2, 6)

    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).max(1).values

    found = Partition.of(Largest(), flat(5.0))
    side = np.linspace(-5, 5, 301)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    assert len(found) == len(np.unique(forward(layer, grid).argmax(1))) > 2


def test_a_network_that_does_not_bend_and_one_that_is_dead_have_one_region() -> None:
    for module in (nn.Linear(5, 2), nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))):
        for weight in module.parameters():
            nn.init.zeros_(weight)
        found = Partition.of(module, plane(5))
        assert (len(found), len(found.classes.faces), len(found.classes.boundary)) == (1, 1, 0)
        assert np.isinf(found.distances).all()
        assert (found.norms == 0).all()


@pytest.mark.parametrize(
    "points",
    [np.ones((3, 4)), np.arange(3)[:, None] * np.ones(4), np.eye(3)[:2], np.full((3, 4), np.nan)],
    ids=["identical", "collinear", "two", "not finite"],
)
def test_points_that_span_no_plane_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="three points"):
        Plane.through(points)


def test_a_slice_goes_through_its_points_and_holds_them() -> None:
    points = np.random.default_rng(0).normal(size=(3, 20)) + 100
    found = Plane.through(points)
    places = found.place(points)
    assert found.lift(places) == pytest.approx(points)
    assert found.basis @ found.basis.T == pytest.approx(np.eye(2), abs=1e-14)
    assert np.linalg.norm(places, axis=1).max() * 1.5 == pytest.approx(found.half)


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.GELU(), "it calls gelu"),
        (nn.LayerNorm(5), "it calls layer_norm"),
        (nn.Softmax(1), "it calls softmax"),
        (Squared(), "mul multiplies numbers that both depend on the inputs"),
        (nn.BatchNorm1d(5, track_running_stats=False), "it calls batch_norm"),
        (nn.Linear(4, 5), "does not run on rows of 3 numbers"),
        (nn.Unflatten(1, (5, 1)), "not a row of outputs for each"),
    ],
)
def test_what_is_not_piecewise_linear_is_refused_by_name(layer: nn.Module, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        Partition.of(nn.Sequential(nn.Linear(3, 5), layer), plane(3))
    assert "\n" not in str(error.value)


def test_more_regions_than_asked_for_are_refused() -> None:
    module, square = network("mlp")
    with pytest.raises(ConfigError, match="more than 100 regions"):
        Partition.of(module, square, most=100)


def test_the_command_counts_regions_and_has_the_pictures(here) -> None:
    words = [
        "task=digits",
        "model.hidden=[8]",
        "train.steps=20",
        "snapshots.at=[0,20]",
        "probes=[]",
        "seed=0,1",
    ]
    assert here("train", *words, "launcher=inline").code == 0
    done = here("analyze", "partition", "--json")
    assert done.code == 0, done.err
    (found,) = done.json["analyses"]
    run = found["runs"][0]
    assert [row["step"] for row in run["rows"]] == [0, 20]
    assert len(set(run["examples"])) == 3
    assert [own["regions"]["runs"] for own in found["summary"]["steps"]] == [2, 2]
    result = dynalab.load(found["id"])
    regions = result.value.regions
    assert set(regions["run"]) == {run["run"]}
    last = regions[regions["step"] == 20]
    assert last["area"].sum() == pytest.approx(4 * run["half"] ** 2)
    figures = [block for block in show(result.value, [result]) if isinstance(block, Figure)]
    pictures = [figure for figure in figures if isinstance(figure, Polygons)]
    assert [figure.name for figure in figures] == [f"partition-{name}" for name in COLOURS] + ["partition"]
    for figure in pictures:
        assert [len(tiling.polygons) for tiling in figure.tilings] == [
            len(tiling.values) for tiling in figure.tilings
        ]
    for figure in pictures[:2]:
        # A picture a step, and the scale of the colours.
        drawn = draw(figure)
        assert len(drawn.axes) == 3
        assert drawn.axes[0].get_title("left") == f"step 0: {run['rows'][0]['regions']} regions"
    few = here("analyze", "partition", "most=2", "--json").json["analyses"][0]
    assert {run["verdict"] for run in few["runs"]} == {"insufficient_data"}
    n = len(few["runs"])
    assert [re.sub(r"steps [\d, and]+:", "steps:", line) for line in few["warnings"]] == [
        f"{n} of {n} runs: more than 2 regions (most=; a smaller pad= has fewer) at steps: left out"
    ]
    for keys, code, said in (
        (["examples=[1,1,2]"], 2, "three examples, from 0 to"),
        (["at=[7]"], 4, "no weights of step 7"),
        (["near=1"], 2, "below 1"),
    ):
        answer = here("analyze", "partition", *keys)
        assert answer.code == code and said in answer.err and len(answer.err.splitlines()) <= 2, answer.err


def test_numbers_over_runs_are_geometric_means() -> None:
    found = Over.of([100.0, 400.0])
    half = 12.706 * np.log(2)
    assert (found.runs, found.value) == (2, pytest.approx(200))
    assert found.interval == pytest.approx((200 * np.exp(-half), 200 * np.exp(half)), rel=1e-3)
    assert Over.of([0.0, 5.0]) == Over(2, 0.0, (None, None))
    assert Over.of([None]) == Over(0, None, (None, None))
    # Where some runs have none, the others are no sample of all, and few of them have no interval.
    assert Over.of([1.6, None, 2.1, None, None]) == Over(2, pytest.approx((1.6 * 2.1) ** 0.5), (None, None))
    assert None not in Over.of([1.0, 2.0, 3.0, 4.0, 5.0, None]).interval


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["task=parity", "task.n=10", "model.hidden=[8]", "model.activation=gelu"],
            "not piecewise linear: it calls gelu",
        ),
        (["task=grokking", "task.modulus=7", "model.width=8"], "no rows of numbers (pairs)"),
    ],
)
def test_runs_without_a_partition_are_told_so_in_a_line(here, words, says) -> None:
    assert (
        here("train", *words, "train.steps=2", "snapshots.at=[0]", "probes=[]", "launcher=inline").code == 0
    )
    done = here("analyze", "partition")
    assert done.code == 4
    assert says in done.err and len(done.err.splitlines()) <= 2, done.err


@pytest.mark.parametrize("keys", [{"at": []}, {"pad": 1e300}, {"pad": 1e-300}])
def test_slices_that_rounding_would_leave_nothing_of_are_refused(keys) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        Config(**keys)
