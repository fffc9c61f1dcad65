"""Local complexity: counts against closed forms and brute force, the probe, phases and their false alarms."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nulls.regions import autocorrelated
from stored import assert_same, bits
from torch import Tensor, nn

from dynalab import analyze, load, train
from dynalab.analysis import regions
from dynalab.analysis.base import Group
from dynalab.analysis.regions.contrasts import contrast, show_contrasts
from dynalab.analysis.regions.phases import FEWEST, phases_of
from dynalab.config.compose import compose
from dynalab.config.ensemble import from_tree
from dynalab.core.polytope import axes, reach
from dynalab.core.progress import telling
from dynalab.errors import ConfigError, NothingMatched
from dynalab.models.base import unit
from dynalab.models.nets.mlp import ACTIVATIONS, MLP
from dynalab.models.nets.scale_invariant import ScaleInvariantMLP
from dynalab.models.units import Units
from dynalab.probes.regions import Config, Neighbourhoods, default_every, in_words

SHORT = ["task=digits", "task.n_train=60", "task.n_test=40", "model.hidden=[12,8]", "train.batch_size=20"]
SHORT += ["train.steps=36", "eval.every=4", "launcher=inline"]
MEASURED = [*SHORT, "probes=[gradients,regions]", "probe.regions.every=4", "probe.regions.points=30"]
KEPT = [*MEASURED, "snapshots.every=4"]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def drawn(network_of, seed: int = 0, points: int = 200, size: int = 64):
    """A network, its state, points and directions."""
    torch.manual_seed(seed)
    network = network_of()
    return network, state_of(network), torch.rand(points, size), torch.tensor(axes(size, 25)).float()


def radii(units: Units, state: dict[str, Tensor], points: Tensor, directions: Tensor) -> Tensor:
    (found,) = units.radii([state], points[None], directions)
    return found


def cut(units: Units, state: dict[str, Tensor], points: Tensor, directions: Tensor, radius: float) -> Tensor:
    (found,) = units.cut([state], points[None], directions, radius)
    return found


def test_the_axes_are_orthonormal_and_reach_is_the_mean_of_the_largest_cosine():
    np.testing.assert_allclose(axes(64, 25) @ axes(64, 25).T, np.eye(25), atol=1e-12)
    assert axes(3, 25).shape == (3, 3)
    rng = np.random.default_rng(0)
    for size, count in ((64, 25), (64, 1), (5, 5), (2, 9)):
        unit_vectors = rng.normal(size=(40_000, size))
        cosines = np.abs(unit_vectors[:, :count]).max(1) / np.linalg.norm(unit_vectors, axis=1)
        assert reach(size, count) == pytest.approx(cosines.mean(), abs=5 * cosines.std() / 200), (size, count)
    # One axis in closed form, and one in the plane.
    assert reach(64, 1) == pytest.approx(math.exp(math.lgamma(32) - math.lgamma(32.5)) / math.sqrt(math.pi))
    assert reach(2, 1) == pytest.approx(2 / math.pi)


def test_the_first_layer_is_cut_where_a_hyperplane_cuts_the_polytope():
    network, state, points, directions = drawn(lambda: MLP(64, 10, [50, 20]))
    units = Units(network, state, points[0])
    assert units.sizes == (50, 20)  # outputs are none
    z = points @ state["layers.0.weight"].T + state["layers.0.bias"]
    closed = z.abs() / (directions @ state["layers.0.weight"].T).abs().amax(0)
    found = radii(units, state, points, directions)[:, :50]
    torch.testing.assert_close(found, closed, rtol=1e-3, atol=1e-6)
    for r in (0.02, 0.2):
        crossed = cut(units, state, points, directions, r)[:, :50]
        assert (crossed == (closed < r)).float().mean() > 0.9999 and 0.001 < crossed.float().mean() < 0.9


def test_deeper_layers_have_the_derivatives_of_the_network_at_the_point():
    network, state, points, directions = drawn(lambda: MLP(64, 10, [40, 30]), points=5)

    def second(x: Tensor) -> Tensor:
        return network.layers[1](torch.relu(network.layers[0](x)))

    found = radii(Units(network, state, points[0]), state, points, directions)[:, 40:]
    for x, row in zip(points, found, strict=True):
        moved = (torch.autograd.functional.jacobian(second, x) @ directions.T).abs().amax(1)
        torch.testing.assert_close(row, (second(x).abs() / moved).detach(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_to_first_order_is_what_vertices_count(activation):
    network, state, points, directions = drawn(
        lambda: MLP(64, 10, [200, 200, 200], activation=activation), points=400
    )
    units = Units(network, state, points[0])
    assert units.sizes == (200, 200, 200)
    cuts = radii(units, state, points, directions) < 0.005, cut(units, state, points, directions, 0.005)
    linearised, vertices = (of.sum(1).float() for of in cuts)
    assert linearised.mean() == pytest.approx(vertices.mean().item(), rel=0.005)
    assert np.corrcoef(linearised, vertices)[0, 1] > 0.99


def test_density_depends_on_neither_radius_nor_directions():
    network, state, points, _ = drawn(lambda: MLP(64, 10, [200, 200, 200]), points=600)
    units = Units(network, state, points[0])
    found = []
    for count, radii in ((25, (0.005, 0.02, 0.05)), (3, (0.05,))):
        around = Neighbourhoods(count, radii)
        counts = around.counts(units, [state], points[None])[0].sum(1).mean(0)
        found += (counts / torch.tensor(around.scale(64))).tolist()
    assert max(found) / min(found) < 1.1, found


def test_a_network_that_can_be_counted_by_hand():
    # Two kinks on a line, at 1 and -2, and |x| - 3 behind them: its zeros are 3 and -3.
    network = MLP(1, 1, [2, 1])
    values = {"layers.0.weight": [[1.0], [-1.0]], "layers.0.bias": [-1.0, -2.0]}
    values |= {"layers.1.weight": [[1.0, 1.0]], "layers.1.bias": [-2.0]}
    state = {**state_of(network), **{name: torch.tensor(value) for name, value in values.items()}}
    points = torch.tensor([[0.0], [1.5], [-2.5], [2.8], [6.0]])
    for method in ("linearised", "vertices"):
        around = Neighbourhoods(25, (0.6, 1.1), method)
        (counts,) = around.counts(Units(network, state, points[0]), [state], points[None])
        assert counts[:, 0].tolist() == [[0, 1], [1, 1], [1, 1], [0, 0], [0, 0]], method
        assert counts[3, 1].tolist() == [1, 1] and counts[4, 1].tolist() == [0, 0], method
    state["layers.0.weight"][0, 0] = torch.nan
    assert around.counts(Units(network, state, points[0]), [state], points[None]).isnan().all()


class Plain(nn.Module):
    """Torch's own modules, a convolution, a nonlinearity in place, one of its own, and a code of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.one, self.head = nn.Linear(48, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.conv(x.view(-1, 1, 8, 8))))
        x = nn.functional.max_pool2d(x, 2).flatten(1) + torch.sin(torch.arange(48.0))
        return self.head(own(self.one(x)))


@unit
def own(x: Tensor) -> Tensor:
    return x * torch.relu(x)


@pytest.mark.parametrize(
    ("network_of", "sizes"),
    [(Plain, (192, 7)), (lambda: ScaleInvariantMLP(64, 3, 20, 2, 10.0), (20, 20))],
)
def test_units_are_found_in_networks_of_any_make(network_of, sizes):
    network, state, points, directions = drawn(network_of, points=60)
    units = Units(network, state, points[0])
    assert units.sizes == sizes
    outputs = network.train(False)(points)
    for r in (0.02, 0.1):
        one, two = radii(units, state, points, directions) < r, cut(units, state, points, directions, r)
        shares = [[layer.float().mean().item() for layer in of.split(sizes, 1)] for of in (one, two)]
        assert shares[0] == pytest.approx(shares[1], rel=0.1, abs=0.01)
    torch.testing.assert_close(network(points), outputs)
    # Each point has its own, whatever goes through beside it.
    alone = radii(units, state, points[7:8], directions)
    torch.testing.assert_close(alone[0], radii(units, state, points, directions)[7], rtol=1e-3, atol=1e-5)


class Reading(nn.Module):
    """Reads its inputs, and what a first layer makes of them, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.one, self.two = way, nn.Linear(64, 12), nn.Linear(12, 9)
        self.other = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "shifted in place":
            x = x.sub_(0.5)
        h = self.one(x.view(-1, 64))
        if self.way == "a view in place":
            return torch.tanh(self.two(torch.relu_(h.view(-1, 3, 4)).flatten(1)))
        y = torch.relu(h) if self.way != "overwritten" else torch.relu_(h)
        if self.way == "a shortcut":
            y = y + h
        if self.way == "read twice":
            y = torch.cat([y[:, :6], torch.relu(self.other(x))[:, 6:]], 1) + x.reshape(-1, 64)[:, :12]
        return torch.tanh(self.two(y))


class Read(nn.Module):
    """The same, of inputs that were read before."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * 1.0)


@pytest.mark.parametrize(
    "way", ["overwritten", "kept", "a view in place", "a shortcut", "read twice", "shifted in place"]
)
def test_sums_that_are_made_late_are_those_that_are_read(way):
    network, state, points, directions = drawn(lambda: Reading(way), points=20)
    plain = Units(network, state, points[0])
    wrapped = Units(Read(network), {f"inner.{name}": value for name, value in state.items()}, points[0])
    own = {f"inner.{name}": value for name, value in state.items()}
    found, expected = radii(plain, state, points, directions), radii(wrapped, own, points, directions)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-6)
    cuts = cut(plain, state, points, directions, 0.05), cut(wrapped, own, points, directions, 0.05)
    assert (cuts[0] == cuts[1]).float().mean() > 0.999 and 0.01 < cuts[0].float().mean() < 0.9


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Three runs with weights and the probe on the same steps, cut off on the way."""
    outputs = tmp_path_factory.mktemp("kept")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train([*KEPT, "seed=1..3", "train.steps=16"], outputs=outputs)
    (ensemble,) = train([*KEPT, "seed=1..3"], outputs=outputs)
    torch.set_num_threads(before)
    return ensemble


def test_rows_do_not_depend_on_neighbours_or_interruptions_and_move_nothing(kept, tmp_path, one_thread):
    (alone,) = train([*KEPT, "seed=2"], outputs=tmp_path)
    assert_same(bits(alone.path), bits(kept.path), ["s0002"])
    (without,) = train([*SHORT, "probes=[gradients]", "seed=2"], outputs=tmp_path)
    for name in (
        "train_loss",
        "test_loss",
        "param_norm" if "param_norm" in without.metrics else "train_loss",
    ):
        np.testing.assert_array_equal(without.array(name), alone.array(name))


def test_the_analysis_counts_what_the_probe_does(kept):
    by_weights, by_probe = (
        analyze("regions", kept, source=source, points=30).value for source in ("weights", "probe")
    )
    assert by_weights.radii == by_probe.radii == (0.05, 0.005) and by_weights.points == by_probe.points == 30
    for name in ("local_complexity", "density", "density_1"):
        np.testing.assert_allclose(
            by_probe.curves[name], by_weights.curves[name], atol=0.04 if name[0] == "l" else 3
        )
    assert [run.source for run in by_probe.runs] == ["probe"] * 3
    assert len(by_weights.by_layer) == 3 * 10 * 3 * 2
    told: list[object] = []
    with telling(lambda *what: told.append(what)):
        one = analyze("regions", kept, source="weights", points=30, layers=[1]).value
    assert told[-4:] == [(kept.id, done, 3, "runs") for done in range(4)]
    total = by_weights.by_layer.groupby("layer")["local_complexity"].sum()
    assert one.curves["local_complexity"].sum() == pytest.approx(total[1])


@pytest.mark.usefixtures("undrawn")
def test_the_command_its_page_and_its_refusals(kept, here, monkeypatch):
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(kept.path.parents[1]))
    done = here("analyze", "regions", "--json", "points=30")
    assert done.code == 0, done.err
    (found,) = done.json["analyses"]
    assert [of["points"] for of in found["summary"]["sets"]] == ["train", "test", "random"]
    assert found["summary"]["runs"] == 3 and found["runs"][0]["train"]["first"] > 0
    text = Path(here("report").out.strip()).read_text()
    assert "Linear regions over training" in text and "density of regions" in text
    for words, code, said in (
        (["layers=[2]"], 2, "has the layers of units 0 to 1"),
        (["radii=[0.1,0]"], 2, "a list of numbers above 0"),
        (["radii=[]"], 2, "at least one"),
        (["layers=[]"], 2, "name layers of units from 0"),
        (["method=vertex"], 2, "did you mean vertices?"),
        (["steps=20"], 4, "weights were kept at 6 steps, and phases take 8"),
        (["source=probe", "steps=4"], 4, "the probe has rows at 2 steps"),
    ):
        answer = here("analyze", "regions", *words)
        assert answer.code == code and said in answer.err and len(answer.err.splitlines()) <= 2, answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=grokking", "task.modulus=7"], "needs inputs that are numbers"),
        (["task=parity", "model=polynet"], "a network with nonlinear units"),
    ],
)
def test_what_has_no_regions_is_refused_in_a_line(words, said, tmp_path, here):
    short = [*words, "train.steps=10", "snapshots.every=1", "seed=0", "launcher=inline"]
    with pytest.raises(ConfigError, match=said):
        train([*short, "probes=[regions]", "probe.regions.every=10"], outputs=tmp_path)
    (ensemble,) = train([*short, "probes=[gradients]"], outputs=tmp_path)
    with pytest.raises(NothingMatched, match=r"symbols|no nonlinear units"):
        analyze("regions", load(ensemble.id, outputs=tmp_path))
    if "task=grokking" in words:
        # More rows, which would be trained for in vain, are not asked for.
        with pytest.raises(NothingMatched, match="its inputs are symbols"):
            analyze("regions", load(ensemble.id, outputs=tmp_path), steps=4)


def phases(values, change=0.2):
    return phases_of(np.arange(len(values)) * 10, np.asarray(values, float), change).phases


def test_phases_are_falls_and_rises_with_their_turns():
    curve = np.interp(np.arange(61), [0, 10, 40, 60], [4.0, 2.0, 6.0, 3.0])
    first, ascent, second = phases(curve)
    assert [(p.onset_step, p.end_step, p.ended) for p in (first, ascent, second)] == [
        (0, 100, True),
        (100, 400, True),
        (400, 600, False),
    ]
    assert (first.before, first.after, second.after) == (4, 2, 3)
    rng = np.random.default_rng(0)
    noisy = phases(curve + 0.1 * rng.normal(size=61))
    assert len(noisy) == 3
    for one, exact in zip(noisy, (0, 100, 400), strict=True):
        low, high = one.onset_interval
        assert low <= exact <= high and high - low <= 200
    assert phases(2.0 + 0 * curve) == phases(np.zeros(61)) == phases([1.0]) == ()
    assert len(phases(np.linspace(1, 5, 20))) == len(phases(np.linspace(5, 1, 20))) == 1


def test_noise_and_monotone_curves_raise_few_false_alarms():
    rng = np.random.default_rng(0)
    for n in (8, 20, 100):
        alarms = {"constant": 0, "monotone": 0, "decay": 0}
        for _ in range(400):
            noise = 0.1 * rng.normal(size=n)
            alarms["constant"] += bool(phases(1 + noise, 0.05))
            alarms["monotone"] += len(phases(1 + np.linspace(0, 2, n) + noise, 0.05)) > 1
            alarms["decay"] += len(phases(1 + 2 * np.exp(-np.arange(n) / (n / 5)) + noise, 0.05)) > 1
        assert max(alarms.values()) <= 0.07 * 400, (n, alarms)


@pytest.mark.parametrize("rows", [20, 50, 100])
def test_noise_that_neighbouring_rows_share_raises_few_false_alarms(rows):
    rng = np.random.default_rng(0)
    for rho in (0.5, 0.7):
        alarms = sum(bool(phases(1 + 0.1 * one, 0.05)) for one in autocorrelated(rho, (300, rows), rng))
        assert alarms <= 0.07 * 300, (rho, alarms)


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(
    ("rows", "flat", "noise"), [(30, 12, 0.05), (60, 12, 0.1), (100, 40, 0.05), (200, 80, 0.1)]
)
def test_an_onset_after_a_flat_stretch_is_between_its_ends(rows, flat, noise, alike):
    """The lowest row is anywhere in the noise of what is flat; the interval holds the step from which on it rises.

    Also where neighbouring rows err alike, of which differences from row to row show less: these held it in 40%.
    """
    curve = np.interp(np.arange(rows), [0, flat, rows - 1], [1.0, 1.0, 3.0])
    rises = [
        one
        for row in autocorrelated(alike, (200, rows), np.random.default_rng(0))
        for one in phases(curve + noise * row)[-1:]
        if one.after > one.before
    ]
    held = [one.onset_interval[0] <= 10 * flat <= one.onset_interval[1] for one in rises]
    assert len(rises) >= 180 and np.mean(held) >= 0.93
    # And says something: it ends soon after.
    assert np.median([one.onset_interval[1] for one in rises]) < 10 * (flat + 0.3 * rows)


def test_leads_that_onsets_do_not_tell_are_said_not_to_be_known():
    """Where a run's rows tell its onset within 200 steps, that it leads by 50 is not known, whatever runs agree on."""
    steps = np.arange(0, 610, 10)
    rng = np.random.default_rng(0)
    columns = {
        f"s{row}": {
            "local_complexity_train": np.interp(steps, [0, 200, 600], [2.0, 2.0, 6.0])
            + 0.05 * rng.normal(size=61),
            "train_accuracy": (steps >= 150).astype(float),
        }
        for row in range(6)
    }
    config = {"levels": {"train_accuracy": 0.99, "test_accuracy": 0.99}}
    found = regions.analyse([Group.of(columns, steps, config=config)], regions.Config())
    ascent = found.summary.sets[0].phases["ascent"]
    assert ascent.onset.interval[0] <= 200 <= ascent.onset.interval[1]
    assert ascent.onset_within[0] < ascent.onset.median_step < ascent.onset_within[1]
    low, high = ascent.after_memorising.interval
    assert low < 50 < high and low < 0
    headline, *_, table = regions.show(found, ())
    assert (
        f"whether before or after the run memorises cannot be told ({low:+,.0f} to {high:+,.0f} steps)"
        in headline.text
    )
    first = found.runs[0].train.ascent
    assert f"{first.onset_step} [{first.onset_interval[0]}, {first.onset_interval[1]}]" in [
        getattr(cell, "text", "") for cell in table.rows[0]
    ]


def test_phases_are_seen_through_noise():
    rng = np.random.default_rng(0)
    curve = np.interp(np.arange(100), [0, 35, 75, 99], [1.05, 0.73, 3.14, 0.84])
    found = [phases(curve + 0.05 * rng.normal(size=100)) for _ in range(100)]
    assert sum(len(of) == 3 and of[0].after < of[0].before for of in found) >= 95


def judged(columns: dict[str, np.ndarray], **about):
    group = Group.of(
        {
            label: {"local_complexity_train": values, "region_density_train": values}
            for label, values in columns.items()
        },
        np.arange(0, 610, 10),
        **about,
    )
    return regions.analyse([group], regions.Config())


def test_verdicts_and_what_never_came_counts_as_later():
    rng = np.random.default_rng(1)
    curve = np.interp(np.arange(61), [0, 10, 40, 60], [4.0, 2.0, 6.0, 3.0])
    cases = {
        "double_descent": curve,
        "descent_and_ascent": np.interp(np.arange(61), [0, 30, 60], [4.0, 2.0, 4.0]),
        "ascent_and_descent": np.interp(np.arange(61), [0, 30, 60], [1.0, 3.0, 1.0]),
        "descent": np.linspace(3, 1, 61),
        "flat": 3 + 0.01 * rng.normal(size=61),
        "cannot_tell": 3 + 0.3 * rng.normal(size=61),
    }
    found = judged(cases)
    assert [run.verdict for run in found.runs] == [*cases]
    assert found.runs[0].test is None and [of.points for of in found.summary.sets] == ["train"]
    second = found.summary.sets[0].phases["second_descent"]
    # Two of six have it: half of the runs have not come so far.
    assert (second.onset.reached, second.onset.median_step) == (2, None)
    assert second.share == pytest.approx(1 / 3) and second.share_interval[0] < 0.1 < second.share_interval[1]
    # Where a run is cut before the turn, the end is later than its rows.
    ascent = judged({f"s{row}": curve for row in range(6)}).summary.sets[0].phases["ascent"]
    assert (ascent.end.reached, ascent.end.median_step, ascent.end.interval) == (6, 400, (400, 400))
    group = Group.of({"s0": {"local_complexity_train": curve}}, np.arange(0, 610, 10)).until(300)
    cut = regions.analyse([group], regions.Config()).summary.sets[0].phases["ascent"]
    assert (cut.onset.reached, cut.end.reached, cut.end.median_step) == (1, 0, None)


def test_what_cannot_be_told_is_said_for_what_it_is():
    def headline(values, **about) -> str:
        found = judged({"s0": values, "s1": values})
        return next(iter(regions.show(replace(found, **about), ()))).text

    few = np.arange(61) % 3 == 0
    assert "nothing changes**: local complexity is the same in every row of 2 runs." in headline(
        np.full(61, 2.0)
    )
    assert "the same in every row" in judged({"s0": np.full(61, 2.0)}).runs[0].reason
    told = headline(0.1 * few, points=50)
    assert "no phase can be told** in 2 of 2 runs, whose rows count fewer than 8 units" in told
    one = headline(few * 2.0, points=1)
    assert one.endswith("; one point has no spread over points, so that counts have no interval.")
    noise = np.random.default_rng(1).normal(size=61)
    assert "cannot be told from noise" in headline(3 + 0.3 * noise, points=50)


def test_phases_are_held_against_landmarks():
    curve = np.interp(np.arange(61), [0, 10, 40, 60], [4.0, 2.0, 6.0, 3.0])
    steps = np.arange(0, 610, 10)
    columns = {
        f"s{row}": {
            "local_complexity_train": curve,
            "train_accuracy": (steps >= 300 + 10 * row).astype(float),
            "test_accuracy": 0.5 + 0 * steps,
        }
        for row in range(5)
    }
    config = {"levels": {"train_accuracy": 0.99, "test_accuracy": 0.99}}
    found = regions.analyse([Group.of(columns, steps, config=config)], regions.Config())
    assert [run.memorised_step for run in found.runs] == [300, 310, 320, 330, 340]
    second = found.summary.sets[0].phases["second_descent"]
    assert second.after_memorising.median == 80 and second.after_memorising.interval == (50, 110)
    assert second.after_generalising.runs == 0 and found.summary.generalised.median_step is None


def test_too_few_rows_are_said():
    group = Group.of({"s0": {"local_complexity_train": np.ones(3)}}, np.arange(3))
    with pytest.raises(
        NothingMatched, match=rf"s0: the probe has rows at 3 steps, and phases take {FEWEST}: .*regions"
    ):
        regions.analyse([group], regions.Config())
    long = Group.of({"s1": {"local_complexity_train": np.ones(20)}}, np.arange(20))
    found = regions.analyse([replace(group, runs=(*group.runs, *long.runs))], regions.Config())
    assert [run.verdict for run in found.runs] == ["insufficient_data", "flat"]


def test_rows_of_the_probe_without_numbers_are_left_out():
    total, layer = np.linspace(100, 40, 20), np.linspace(50, 20, 20)
    total[3], layer[5] = np.inf, np.nan
    columns = {"local_complexity_train": total, "local_complexity_train_0": layer}
    group = Group.of({"s0": columns}, np.arange(20))
    (run,) = regions.analyse([group], regions.Config()).runs
    # A layer that is missing in a row is no reason to lose the row.
    assert (run.verdict, run.rows, run.train.first, run.train.last) == ("descent", 19, 100, 40)
    lost = Group.of({"s0": {"local_complexity_train": np.full(20, np.inf)}}, np.arange(20))
    (run,) = regions.analyse([lost], regions.Config()).runs
    assert run.verdict == "insufficient_data" and "0 rows of finite numbers" in run.reason


def test_rows_cost_a_tenth_of_training():
    for words in (["task=digits"], ["task=mnist", "train.batch_size=16"], ["task=digits", "optimizer=sam"]):
        config = from_tree(compose(words))
        every, points = default_every(Config(), config), in_words(Config(), config)["points"]
        passes = {"sam": 6}.get(config.optimizer.name, 3) * config.train.batch_size
        assert points >= 50 and every % config.eval.every == 0
        assert (
            points * Config().passes
            <= 0.1 * passes * every
            < points * Config().passes + passes * config.eval.every
        )


def test_counts_that_are_mostly_zero_have_no_phases():
    rng = np.random.default_rng(3)
    for points, most in ((200, 0.03), (None, 0.05)):
        alarms = [
            bool(phases_of(np.arange(8), rng.poisson(mean, 8) / 200, 0.2, points).phases)
            for mean in (0.2, 0.5, 1.0, 2.0, 5.0)
            for _ in range(120)
        ]
        assert np.mean(alarms) <= most, points
    # Of curves that are as low there are the phases that rows have counted.
    fall = np.linspace(1.0, 0.0, 12) ** 2 / 10
    assert [len(phases_of(np.arange(12), fall, 0.2, points).phases) for points in (400, 60)] == [1, 0]
    assert (
        phases_of(np.arange(12), fall, 0.2, 60).few and len(phases_of(np.arange(12), fall, 0.2).phases) == 1
    )


def test_two_settings_are_held_against_each_other_and_unlike_counts_are_not(kept):
    one = analyze("regions", kept, source="weights", points=30).value
    around = [run.train for run in one.runs]
    raised = replace(
        one,
        runs=tuple(
            replace(run, train=replace(own, highest=3 * own.highest, last=2 * own.last, second_descent=None))
            for run, own in zip(one.runs, around, strict=True)
        ),
    )
    found = contrast({"a": one, "b": raised})
    ratios = {(item.points, item.of): item.ratio for item in found.differences}
    assert ratios == pytest.approx({("train", "highest"): 3, ("train", "last"): 2, **dict.fromkeys(SAME, 1)})
    seen = next(item for item in found.seen if (item.points, item.phase) == ("train", "second_descent"))
    assert seen.runs == (sum(own.second_descent is not None for own in around), 0) and seen.of == (3, 3)
    said, table, note = show_contrasts({"noisy": found}, {"clean": one, "noisy": raised})
    assert re.search(r"of noisy\*\* against clean: .* at its highest \*\*3\*\*", said.text), said.text
    # Phases that no run of either has are not said.
    assert (
        len(table.rows) == 4 + sum(any(item.runs) for item in found.seen) < 10
        and "random labels" in note.text
    )
    other = analyze("regions", kept, source="weights", points=30, radii=[0.2]).value
    refused = contrast({"a": one, "b": other})
    assert not refused.differences and refused.reason == "neighbourhoods are of radius 0.05 and 0.2"
    (line,) = show_contrasts({"b": refused}, {"a": one, "b": other})
    assert line.text.endswith("not compared, since neighbourhoods are of radius 0.05 and 0.2.")
    # As many layers, but others.
    first, second = (analyze("regions", kept, source="weights", points=30, layers=[n]).value for n in (0, 1))
    assert (
        contrast({"a": first, "b": second}).reason
        == "layers of units 0 of the one and 1 of the other are counted"
    )
    assert not contrast({"a": first, "b": first}).reason
    assert not contrast({"a": first, "b": replace(first, counted_layers=None)}).reason


SAME = (("test", "highest"), ("test", "last"))
