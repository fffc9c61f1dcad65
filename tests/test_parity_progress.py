"""Training on sparse parities: steps until they are known, hidden progress, bits; and the probe's formulas."""

from itertools import combinations

import numpy as np
import pytest
import torch
from fourier_gap import coefficients, inputs
from stored import bits, difference, only_ensemble
from torch import nn

from dynalab import analyze, train
from dynalab.analysis import progress
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.models.nets.mlp import MLP
from dynalab.models.nets.parity import PolyNet
from dynalab.probes import parity as probe
from dynalab.probes.base import ProbeState
from dynalab.probes.parity_fourier import coefficients_of
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(*words, seeds):
    (request,) = read_command([*words, "probes=[]"]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, CPU)


def test_relu_networks_learn_within_two_thousand_steps(tmp_path):
    (ensemble,) = train(
        [
            "task=parity",
            "seed=0..3",
            "train.steps=2000",
            "launcher=inline",
            "probes=[parity]",
            "eval.every=50",
        ],
        outputs=tmp_path,
    )
    accuracy = ensemble.array("test_accuracy")
    assert (accuracy.max(1) >= 0.995).all()
    assert (accuracy[:, ensemble.steps("test_accuracy") <= 400] < 0.6).all(), "a plateau comes first"

    # The coefficient tells the coordinates apart while accuracy stands still; the movement does not.
    coefficient, separation = ensemble.array("parity_fourier"), ensemble.array("parity_separation")
    assert (coefficient[:, 0] < 3).all()
    for run in range(4):
        leaves = int(np.argmax(accuracy[run] > 0.55))
        assert coefficient[run, leaves - 1] > 15
        assert (coefficient[run, leaves - 3 : leaves] > 4).all()
        assert separation[run, leaves - 1] < 2

    # And so a reader sees it in the report.
    findings = analyze("progress", ensemble).value
    assert {run.verdict for run in findings.runs} == {"leads"}
    headline, figure, _ = progress.show(findings, [ensemble.group()])
    assert "earlier in **4 of 4 runs**" in headline.text
    first, later = figure.marks.values()
    assert 200 < first < later - 100


def test_polynet_learns_within_three_hundred_steps(tmp_path):
    words = [
        "task=parity",
        "task.n=50",
        "model=polynet",
        "train.batch_size=64",
        "train.steps=300",
        "seed=0..4",
    ]
    (ensemble,) = train([*words, "launcher=inline", "probes=[]"], outputs=tmp_path)
    assert (ensemble.array("test_accuracy").max(1) >= 0.995).all()


def test_progress_tells_coordinates_apart_before_accuracy_moves(tmp_path):
    words = ["task=parity", "task.n=50", "model=polynet", "train.batch_size=64", "optimizer.lr=0.01"]
    rest = ["train.steps=1500", "eval.every=50", "probes=[parity]", "seed=0..4", "launcher=inline"]
    (ensemble,) = train([*words, *rest], outputs=tmp_path)
    accuracy, separation = ensemble.array("test_accuracy"), ensemble.array("parity_separation")
    coefficient = ensemble.array("parity_fourier")
    relevant, others = ensemble.array("parity_relevant"), ensemble.array("parity_irrelevant")
    for run in range(5):
        leaves = int(np.argmax(accuracy[run] > 0.55))
        assert ensemble.steps("test_accuracy")[leaves] >= 400, "a plateau, no slope"
        assert (accuracy[run, :leaves] > 0.4).all()
        assert separation[run, leaves - 1] > 4
        assert coefficient[run, leaves - 1] > 8
        assert relevant[run, leaves - 1] > 1.5 * others[run, leaves - 1]
        assert accuracy[run].max() > 0.9
    assert np.isnan(separation[:, 0]).all() and not relevant[:, 0].any()
    assert np.array_equal(np.maximum(relevant, others), ensemble.array("parity_movement"))


def test_coordinates_that_do_not_matter_are_not_told_apart():
    loop = loop_of(
        "task=parity",
        "task.n=50",
        "model=polynet",
        "train.batch_size=64",
        "optimizer.lr=0.01",
        seeds=range(5),
    )
    before = loop.stack.params["layer.weight"].detach().clone()
    for _ in range(600):
        loop.update()
    moved = (loop.stack.params["layer.weight"].detach() - before).square().mean(1)
    triples = moved[:, :48].unflatten(1, (16, 3)).mean(2)
    assert (triples[:, 0] > 2 * triples[:, 1:].amax(1)).all(), "the relevant three, and no other three"
    others = triples[:, 1:]
    assert (others.amax(1) < 4 * others.mean(1)).all()


def exact(network, sets, n):
    """Coefficients by enumeration of the 2^n inputs."""
    with torch.no_grad():
        values = network.double()(torch.from_numpy(inputs(n)))[:, 0]
    return torch.from_numpy(coefficients(values.numpy()))[(1 << sets).sum(1)]


def test_coefficients_of_polynet_are_exact():
    torch.manual_seed(0)
    for k in (2, 3, 4):
        network = PolyNet(9, k)
        sets = torch.tensor(list(combinations(range(9), k)))
        stacked = {"layer.weight": torch.stack([network.layer.weight.detach()] * 2)}
        found = coefficients_of(network, k)(stacked, sets)
        assert torch.allclose(found[1], exact(network, sets, 9), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_coefficients_of_relu_networks_are_near(k):
    torch.manual_seed(1)
    network = MLP(15, 1, [60], scale=0.7)
    sets = torch.tensor(list(combinations(range(15), k)))
    params = {name: param.detach()[None] for name, param in network.named_parameters()}
    found = coefficients_of(network, k)(params, sets)[0]
    expected = exact(network, sets, 15)
    print(
        k, torch.corrcoef(torch.stack([found, expected]))[0, 1], (found - expected).norm() / expected.norm()
    )
    # Correlation over sets .9996, .994, .990; relative error .05, .21, .31.
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.98
    assert (found - expected).norm() < 0.35 * expected.norm()


def test_only_networks_with_a_formula_have_coefficients():
    assert coefficients_of(MLP(9, 1, [4, 4]), 3) is None
    assert coefficients_of(MLP(9, 1, [4], activation="tanh"), 3) is None
    assert coefficients_of(MLP(9, 2, [4]), 3) is None
    assert coefficients_of(PolyNet(9, 2), 3) is None
    assert coefficients_of(PolyNet(9, 7), 7) is None
    assert probe.build(probe.Config(k=3), MLP(8, 1, [4])).coefficients is None, "two sets of others at least"


WAYS = {
    "fresh": ["task.label_noise=0.1"],
    "fresh_logistic_adam": [
        "task.loss=logistic",
        "optimizer=adam",
        "model.hidden=[13]",
        "train.batch_size=7",
    ],
    "sample": ["task.samples=50", "task.loss=square", "optimizer=adamw", "model.activation=tanh"],
    "polynet": ["model=polynet", "task.k=2", "train.batch_size=5"],
    "sinusoid": ["model=sinusoid", "train.batch_size=1"],
}


@pytest.mark.parametrize("way", WAYS)
def test_width_and_interruption_do_not_show(way, tmp_path):
    words = ["task=parity", "task.n=11", "eval.size=37", "train.steps=90", "eval.every=30", "launcher=inline"]
    words += ["probes=[weights,gradients,parity]", *WAYS[way]]

    def trained(folder, *more):
        train([*words, *more], outputs=tmp_path / folder)
        return bits(only_ensemble(tmp_path / folder))

    together = trained("together", "seed=0..4", "compute.width=5")
    alone = trained("alone", "seed=3")
    assert difference(together["s0003"], alone["s0003"]) == []
    apart = trained("apart", "seed=4,2,0", "compute.width=3")
    assert [label for label in apart if difference(together[label], apart[label])] == []
    trained("pieces", "seed=1..2", "train.steps=50")
    pieces = trained("pieces", "seed=1..2")
    assert [label for label in pieces if difference(together[label], pieces[label])] == []


# The probe.


def test_the_probe_is_its_formulas():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    measure = probe.build(probe.Config(k=2), net).measure
    generator = torch.Generator().manual_seed(0)
    then, now = (
        {
            "0.weight": torch.randn(3, 4, 6, generator=generator),
            "0.bias": torch.randn(3, 4, generator=generator),
        }
        for _ in range(2)
    )
    got = measure(ProbeState(step=5, params=now, initial=then))
    moved = (now["0.weight"].double() - then["0.weight"].double()).numpy()
    np.testing.assert_allclose(got["parity_movement"], abs(moved).max((1, 2)))
    np.testing.assert_allclose(got["parity_relevant"], abs(moved[..., :2]).max((1, 2)))
    np.testing.assert_allclose(got["parity_irrelevant"], abs(moved[..., 2:]).max((1, 2)))
    wanted = np.sqrt((moved[..., :2] ** 2).mean((1, 2)) / (moved[..., 2:] ** 2).mean((1, 2)))
    np.testing.assert_allclose(got["parity_separation"], wanted)
    assert all(value.dtype == torch.float64 for value in got.values())
    everything = probe.build(probe.Config(k=6), net).measure(ProbeState(step=5, params=now, initial=then))
    assert list(everything) == ["parity_movement", "parity_relevant"]


def test_the_probe_takes_the_tasks_k_and_refuses_what_it_cannot_measure():
    (request,) = read_command(["task=parity", "task.k=4", "probes=[parity]"]).requests
    assert request.config.probe["parity"].k == 4
    (request,) = read_command(["task=parity", "model=polynet", "task.k=4"]).requests
    assert request.config.model.degree == 4
    with pytest.raises(ConfigError, match=r"probe\.parity\.k=9.*1 to 6"):
        probe.build(probe.Config(k=9), nn.Linear(6, 4))
    with pytest.raises(ConfigError, match="weight matrix"):
        probe.build(probe.Config(), nn.ReLU())
    with pytest.raises(ConfigError, match=r"probe\.parity\.k=0"):
        probe.Config(k=0)
    with pytest.raises(ConfigError, match=r"task\.k"):
        read_command(["task=grokking", "probes=[parity]"])
