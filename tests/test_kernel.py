"""Tangent kernels: the contraction against J J^T, what is measured of them over training, and what it says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import Drawn, of_weights
from torch import nn

import dynalab
from dynalab.analysis import kernel
from dynalab.analysis.kernel import cone, hides, settled, windows
from dynalab.analysis.kernel.measure import Labels, aligned, angle, regression
from dynalab.analysis.kernel.summary import _settling
from dynalab.config.command import read_command
from dynalab.core.progress import telling
from dynalab.core.streams import Streams
from dynalab.networks.build import build_networks, task_and_network
from dynalab.networks.tangent import contracted, tangent_kernel

# Words of a network -> how many of its tensors are left to autograd.
MODELS = {
    "task=grokking task.modulus=7 model.width=8": 0,
    "task=grokking task.modulus=7 model=gromov task.loss=mse": 0,
    "task=grokking task.modulus=7 model=nanda model.layer_norm=true": 5,
    "task=grokking task.modulus=5 model=power model.layers=1 model.width=16": 1,
    "task=grokking task.modulus=7 model=onehot_mlp": 2,
    "task=parity": 0,
    "task=parity model=polynet": 0,
    "task=parity model=sinusoid": 0,
    "task=digits": 0,
    "task=digits model.norm=batch": 4,
    "task=digits model=si_mlp": 0,
    "task=digits model=si_convnet model.width=2": 0,
    "task=digits model=resnet20 model.width=2": 0,
    "task=digits model=resnet18 model.width=2 model.norm=group model.groups=2": 0,
    "task=mlm model.layers=1 model.width=8 model.heads=2 task.vocabulary=258 task.length=16": 3,
}


def drawn(words: str, examples: int) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64, moved off zeros and ones that hide mistakes, and some held-out inputs."""
    task, make = task_and_network(read_command(words.split()).requests[0].config)
    streams = Streams(0, 0, 0, 0)
    (network,) = build_networks(make, [streams])
    data = task.data([streams], batch_size=4, eval_size=examples, device=torch.device("cpu"))
    inputs = data.eval_batches("test")[0].inputs[0][:examples]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for x in [*network.double().parameters()]:
            x += 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return network.eval(), inputs.double() if inputs.is_floating_point() else inputs


def dense(network: nn.Module, inputs: torch.Tensor, outputs: list[int]) -> torch.Tensor:
    """J J^T, (n, K, n, K)."""
    made = network(inputs).reshape(len(inputs), -1)
    trained = [x for x in network.parameters() if x.requires_grad]
    rows = [
        torch.cat(
            [
                x.flatten()
                for x in torch.autograd.grad(made[i, k], trained, retain_graph=True, materialize_grads=True)
            ]
        )
        for i in range(len(inputs))
        for k in outputs
    ]
    jacobian = torch.stack(rows)
    shape = (len(inputs), len(outputs)) * 2
    return (jacobian @ jacobian.t()).view(shape)


@pytest.mark.parametrize("words", MODELS)
def test_the_contraction_is_that_of_all_gradients(words):
    network, inputs = drawn(words, 5)
    every = network(inputs[:2])[0].numel()
    outputs = sorted({0, every // 2, every - 1})
    contract = contracted(network, inputs)
    trained = {name for name, x in network.named_parameters() if x.requires_grad}
    assert contract <= trained and len(trained - contract) == MODELS[words]
    expected = dense(network, inputs, outputs)
    full = tangent_kernel(network, inputs, outputs, contract=contract, full=True)
    summed = tangent_kernel(network, inputs, outputs, contract=contract)
    scale = expected.abs().max()
    assert (full - expected).abs().max() <= 1e-12 * scale
    assert (summed - torch.einsum("ikjk->ij", expected)).abs().max() <= 1e-12 * scale * len(outputs)


class Odd(nn.Module):
    """Products that look like layers and are none: places before examples, a weight used twice, one that is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)
        self.tied = nn.Parameter(torch.randn(4, 4))
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, inputs):
        x = self.mix(inputs.view(len(inputs), 2, 4).transpose(0, 1).contiguous()).transpose(0, 1)
        x = torch.tanh(x) @ self.tied.t()
        return ((x * self.scale) @ self.tied).flatten(1)


def test_what_only_looks_like_a_layer_falls_to_autograd():
    torch.manual_seed(0)
    network, inputs = Odd().double(), torch.randn(2, 8, dtype=torch.float64)
    # With two examples and two places the axes cannot be told by their lengths: three examples tell.
    three = torch.randn(3, 8, dtype=torch.float64)
    assert contracted(network, three) == frozenset()
    for some in (inputs, three):
        found = tangent_kernel(network, some, [0, 5], contract=contracted(network, three), full=True)
        expected = dense(network, some, [0, 5])
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_alignment_regression_and_angles_by_hand():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.integers(3, size=12)]
    value, permuted = aligned(labels @ labels.T, labels)
    assert value == pytest.approx(1.0) and 0 < permuted < 0.3
    other = rng.normal(size=(12, 12))
    other = other @ other.T
    draws = [aligned(other, labels[rng.permutation(12)])[0] for _ in range(3000)]
    assert aligned(other, labels)[1] == pytest.approx(np.mean(draws), abs=5 * np.std(draws) / 3000**0.5)
    # With a linear kernel it is ridge regression; one kernel a class is the same for all when they are equal.
    x, y = rng.normal(size=(15, 4)), rng.normal(size=(10, 2))
    gram, ridge = x @ x.T, 1e-3
    found = regression(gram, y, ridge)
    damping = ridge * np.trace(gram[:10, :10]) / 10
    weights = np.linalg.solve(x[:10].T @ x[:10] + damping * np.eye(4), x[:10].T @ (y - y.mean(0)))
    np.testing.assert_allclose(found, x[10:] @ weights + y.mean(0))
    np.testing.assert_allclose(regression(np.einsum("ij,kl->ikjl", gram, np.eye(2)), y, ridge), found)
    # An angle of a millionth of a degree is one; a cosine in float64 would say 0.
    assert angle(np.eye(2), np.array([[1, 1e-8], [1e-8, 1]])) == pytest.approx(np.degrees(1e-8), rel=1e-6)
    assert Labels.of(np.array([[1, 2]]), np.array([[1, 2]]), 3) is None
    signs = Labels.of(np.array([1.0, -1.0]), np.array([1.0, -1.0, -1.0]), 1)
    assert signs.accuracy(np.array([[2.0], [0.1], [-3.0]])) == pytest.approx(2 / 3)
    assert signs.chance == pytest.approx(2 / 3)


def test_where_the_kernel_comes_to_be_slow_and_its_cone():
    assert settled(np.array([1.0, 9, 3, 0.5, 0.5, 0.5, 8]), 0.1, 3) == 3
    assert settled(np.array([0.1, 0.1, 0.1, 9, 3]), 0.1, 3) is None
    # A window of 140 steps may hide 100 slow ones if the rest can have turned as far; where it cannot, it moves.
    assert hides(np.array([1.0, 0.5]), np.array([100, 140]), 100, 0.1)
    assert not hides(np.array([1.0, 0.9]), np.array([100, 130]), 100, 0.1)
    assert hides(np.array([1.0, 0.9]), np.array([100, 140]), 100, 0.1)
    assert not hides(np.array([0.5, 1.0]), np.array([100, 140]), 100, 0.1)
    # Straight on, an angle of 0 however a walk would turn; at random, that of the walk.
    way = np.arange(6.0)[:, None, None] * np.ones((6, 30, 30))
    assert cone([*way])[0] == pytest.approx(0, abs=1e-5) and cone([*way])[1] > 20
    walk = np.cumsum(np.random.default_rng(0).normal(size=(8, 40, 40)), axis=0)
    value, null = cone([*walk])
    assert value == pytest.approx(null, abs=1.5)
    assert all(np.isnan(cone([*way[:3]])))


@pytest.mark.parametrize("end", [200.0, 600.0])
def test_when_it_is_slow_does_not_hang_on_how_weights_were_kept(end):
    """A kernel that turns in a plane up to a step and jitters beside it, at even steps and at those of `at=log`."""
    rng = np.random.default_rng(0)
    log = np.unique(np.concatenate([[0], np.round(10 ** np.arange(0, 3.01, 0.1))])).astype(int)
    even = np.arange(0, 1001, 50)
    found = {}
    for name, steps in (("log", log[log <= 1000]), ("even", even)):
        turn = np.radians(60) * np.minimum(steps, end) / end
        jitter = 0.003 * rng.normal(size=(len(steps), 10))
        points = np.column_stack([np.cos(turn), np.sin(turn), jitter])
        starts, ends = windows(steps, 0.25)
        gaps = steps[ends] - steps[starts]
        assert gaps.min() >= 250 and gaps.max() <= 500
        turns = [angle(points[a], points[b]) for a, b in zip(starts, ends, strict=True)]
        velocity = np.array(turns) / gaps
        slow = settled(velocity, 0.1, 1)
        top = int(np.argmax(velocity))
        found[name] = (
            velocity[top],
            max(steps[starts[slow]], steps[ends[top]]),
            np.diff(steps)[starts[slow] - 1],
        )
    assert found["log"][0] == pytest.approx(found["even"][0], rel=0.2)
    # Up to the gap between rows.
    assert abs(found["log"][1] - found["even"][1]) <= found["log"][2] + found["even"][2]


def test_a_kernel_that_stays_and_one_that_moves():
    """Weights that move by a hundredth of their size have a kernel that stays, whatever the path."""
    rng, steps = np.random.default_rng(0), np.arange(0, 81, 10)
    start, aim = rng.normal(size=(2, 51))
    far = 1 - np.exp(-steps / 10)
    paths = {f"s000{i}": start + size * far[:, None] * aim for i, size in enumerate((0.01, 2.0))}
    group = of_weights(paths, steps, 1)
    group = replace(group, runs=tuple(replace(run, learner=Drawn(0)) for run in group.runs))
    found = kernel.analyse([group], kernel.Config(probes=9))
    assert [run.verdict for run in found.runs] == ["lazy", "settles"]
    lazy, moves = (run.measures for run in found.runs)
    assert lazy["distance"].value < 1e-3 < 0.05 < moves["distance"].value
    assert found.runs[1].settle_step in (20, 30, 40) and found.runs[0].settle_step is None
    assert found.summary.settles.reached == 1 and found.summary.verdicts == {"lazy": 1, "settles": 1}
    # Straight on towards where it goes: updates in other places do not take the kernel as far in one direction.
    table = found.maps[found.maps["run"] == "e/s0001"]
    first = table[table["step"] == 0].set_index("other")["cosine"]
    distances = found.curves[found.curves["run"] == "e/s0001"]["distance"].to_numpy()
    np.testing.assert_allclose(1 - first.to_numpy(), distances, atol=1e-9)


WORDS = ["task=digits", "task.n_train=60", "task.n_test=50", "model.hidden=[8]", "train.batch_size=20"]
WORDS += ["train.steps=12", "eval.every=4", "seed=0..1", "launcher=inline"]


def test_the_command_and_what_it_refuses(here, outputs):
    (runs,) = dynalab.train([*WORDS, "snapshots.every=4"], outputs=outputs)
    answer = here("analyze", "kernel", runs.id, "probes=20", "--json")
    assert answer.code == 0, answer.err
    (found,) = answer.json["analyses"]
    assert (found["probes"], found["held_out"], found["outputs"], len(found["runs"])) == (20, 20, 10, 2)
    # The kernel of the weights that were kept, as any other way to it has it.
    network = runs.model(0, 12).double()
    inputs = torch.from_numpy(runs.group().runs[0].examples("train", 20)[0]).double()
    labels = Labels.of(*(runs.group().runs[0].examples("train", 20)[1],) * 2, 10).train
    expected = torch.einsum("ikjk->ij", dense(network, inputs, list(range(10)))).numpy()
    value = found["runs"][0]["measures"]["alignment"]["value"]
    assert value == pytest.approx(aligned(expected, labels)[0], rel=1e-4)
    told: list[object] = []
    with telling(lambda *what: told.append(what)):
        full = here("analyze", "kernel", runs.id, "probes=20", "full=true", "--json").json["analyses"][0]
    rows = found["runs"][0]["rows"]
    own = [it for it in told if not it[0].startswith("reading ")]
    assert own == [(f"run {run} of 2", done, rows, "rows") for run in (1, 2) for done in range(rows + 1)]
    assert full["runs"][0]["measures"]["alignment"]["value"] == pytest.approx(value, rel=1e-5)
    for words, code, line in (
        (["at=[0,5]"], 4, "no weights of step 5 were kept"),
        (["at=[4]"], 2, "at=[4]: name two steps at least"),
        (["apex=3"], 2, "apex=3"),
        (["full=true", "most_outputs=3"], 2, "full=true"),
        (["steps=2"], 4, "weights were kept at 1 step"),
    ):
        wrong = here("analyze", "kernel", runs.id, "probes=20", *words)
        assert wrong.code == code, wrong.err
        assert line in wrong.err.strip().splitlines()[-1] and len(wrong.err.strip().splitlines()) <= 2, (
            wrong.err
        )


def test_how_many_runs_settle_is_said_before_when():
    time = SimpleNamespace(reached=3, median_step=150.0, interval=(None, None))
    summary = SimpleNamespace(settles=time, after_memorising=SimpleNamespace(median=-40.0))
    text = "in 3 of 4 runs it **moves slowly** from step **150** on, 40 steps before they memorise"
    assert _settling(summary, 4) == text
    assert _settling(summary, 4, True).startswith("in 3 of the other 4 runs it")
    summary.settles.reached = 0
    assert _settling(summary, 1, True) == "it moves on up to the last row in the other run"
    assert _settling(summary, 4) == "it moves on up to the last row in all 4 runs"
    summary.settles.reached = 1
    assert _settling(summary, 1).endswith(
        "it **moves slowly** from step **150** on, 40 steps before the run memorises"
    )
