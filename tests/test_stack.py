"""Weights that were kept, taken up again: what is computed from them is what the rows say, to the bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_fakes import write_cifar, write_mnist

import dynalab
from dynalab.analysis.base import Group
from dynalab.core.devices import resolve_device
from dynalab.core.runs import Run
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.launch import inline
from dynalab.store import snapshot
from dynalab.store.reader import Ensemble
from dynalab.training.planner import HOLD

GROKKING = ["task=grokking", "task.modulus=7", "model.width=8"]
DIGITS = ["task=digits", "task.n_train=24", "task.n_test=20", "train.batch_size=10"]
IMAGES = ["train.batch_size=8", "eval.size=12", "task.root={data}", "task.checksums={data}/{set}.json"]
RESNET = ["model.width=4"]
# One for every shipped model and task, and for every way that a row is made.
SETTINGS = {
    "embedding_mlp": GROKKING,
    # One pass over 1,189 pairs; held out are two pieces.
    "whole_batch": ["task=grokking", "task.modulus=59", "task.train_fraction=0.35", "model.width=8"],
    "pieces": [
        *["task=grokking", "task.modulus=59", "task.train_fraction=0.35", "model.width=8"],
        "train.accumulate=2",
    ],
    # A mean over pairs and classes: as a mean over pieces it would round otherwise.
    "float64": [
        "task=grokking",
        "task.modulus=11",
        "task.loss=mse",
        "model.width=8",
        "train.loss_dtype=float64",
    ],
    "float64_batches": [*GROKKING, "train.loss_dtype=float64", "train.batch_size=5", "eval.size=11"],
    "stablemax": [*GROKKING, "task.loss=stablemax", "train.temperature=0.3", "train.norm_clamp=0.8"],
    "nanda": [*GROKKING, "model=nanda", "model.heads=2", "model.mlp_width=16", "train.batch_size=16"],
    "power": [*GROKKING, "model=power", "model.heads=2", "train.batch_size=20"],
    "gromov": [*GROKKING, "model=gromov", "task.loss=mse"],
    "onehot_mlp": ["task=grokking", "task.modulus=7", "model=onehot_mlp", "model.hidden=[12,7]"],
    "parity": ["task=parity", "task.n=10", "model.hidden=[9]"],
    "parity_sample": [
        "task=parity",
        "task.n=10",
        "task.samples=300",
        "task.label_noise=0.1",
        "task.loss=logistic",
    ],
    "polynet": ["task=parity", "task.n=10", "task.k=2", "model=polynet", "train.batch_size=5"],
    "sinusoid": ["task=parity", "task.n=10", "model=sinusoid", "train.batch_size=1"],
    "mlp": [*DIGITS, "model.hidden=[6]", "task.input_noise=0.1"],
    "si_mlp": [*DIGITS, "model=si_mlp", "model.width=8", "train.sphere=true"],
    "lookahead": [*DIGITS, "model=si_mlp", "model.width=8", "optimizer=lookahead", "optimizer.k=3"],
    "si_convnet": [*DIGITS, "model=si_convnet", "model.width=3"],
    "resnet18": [*DIGITS, "model=resnet18", *RESNET],
    "layer_norm": [*DIGITS, "model=resnet20", "model.norm=layer", *RESNET],
    "cifar": ["task=cifar", *IMAGES, *RESNET],
    "mnist": ["task=mnist", *IMAGES, "model.hidden=[6]"],
    "encoder": [
        *["task=mlm", "task.vocabulary=300", "task.length=10", "train.batch_size=4", "eval.size=80"],
        *["model.width=16", "model.heads=2", "model.mlp_width=16"],
    ],
    "regression": ["task=regression", "model.hidden=[7]"],
    "teacher": ["task=regression", "task.target=teacher", "task.teacher=[3,6,2]", "model.hidden=[7]"],
}
SHORT = [
    "train.steps=4",
    "eval.every=2",
    "snapshots.every=2",
    "probes=[gradients]",
    "probe.gradients.every=1",
]
SHORT += ["seed=0..4", "compute.width=3", "launcher=inline"]

pytestmark = pytest.mark.usefixtures("one_thread")


def untried(launcher: inline.Launcher, task: str, **request: object) -> dict[str, object]:
    """Answer for a launcher that bits hold, and nothing else."""
    return {"found": HOLD if task == "exactness" else None}


class Trained:
    """Settings that are trained when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.ensembles = root, {}

    def made(self, name: str) -> Ensemble:
        root = self.root
        if name not in self.ensembles:
            filled = {"data": root / "data", "set": "mnist" if name == "mnist" else "cifar10"}
            words = [word.format(**filled) if "{data}" in word else word for word in SETTINGS[name]]
            with pytest.MonkeyPatch.context() as patched:
                # Whether bits hold here is tried in test_bits.py.
                patched.setattr(inline.Launcher, "trial", untried)
                (self.ensembles[name],) = dynalab.train([*words, *SHORT], outputs=root / name)
        return self.ensembles[name]

    def __call__(self, name: str) -> Group:
        return self.made(name).group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return the runs of the settings, each trained once."""
    root = tmp_path_factory.mktemp("stack")
    write_cifar(root / "data")
    write_mnist(root / "data")
    return Trained(root)


def recorded(group: Group, name: str, step: int) -> np.ndarray:
    return np.array([run.series[name].at(np.array([step]))[0] for run in group.runs])


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_the_recorded_rows(trained, name):
    group = trained(name)
    assert group.kept == (0, 2, 4) and not np.isnan(recorded(group, "train_loss", 4)).any()
    shuffled = replace(group, runs=tuple(group.runs[place] for place in (3, 0, 4, 1, 2)))
    alone = replace(group, runs=group.runs[4:])
    for runs, step in ((group, 2), (shuffled, 4), (alone, 4)):
        stack = runs.stack(step)
        for split in ("train", "test"):
            losses = stack.losses(stack.params, stack.examples(split))
            assert losses.tolist() == recorded(runs, f"{split}_loss", step).tolist()


@pytest.mark.parametrize("name", ["whole_batch", "pieces"])
def test_gradients_are_those_of_the_full_batch(trained, name):
    group = trained(name)
    stack = group.stack(2)
    gradients = stack.gradients(stack.params, stack.examples("train"))
    assert {name: x.shape for name, x in gradients.items()} == {n: x.shape for n, x in stack.params.items()}
    norms = sum(x.double().flatten(1).square().sum(1) for x in gradients.values()).sqrt()
    # Row 3 has the norm of the update that began here.
    np.testing.assert_allclose(norms, recorded(group, "grad_norm", 3), rtol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "lookahead", "layer_norm"])
def test_losses_can_be_differentiated_by_whoever_likes_to(trained, name):
    stack = trained(name).stack(4)
    examples = stack.examples("test")
    leaves = {name: stack.params[name].clone().requires_grad_() for name in stack.trained}
    expected = torch.autograd.grad(stack.losses(leaves, examples).sum(), [*leaves.values()])
    found = stack.gradients({}, examples)
    assert tuple(found) == stack.trained
    for name, one in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["encoder", "lookahead", "cifar", "float64_batches", "power"])
def test_a_run_s_network_and_examples_are_its_own(trained, name):
    group = trained(name)
    stack = group.stack(4)
    outputs = stack.logits(stack.params, stack.examples("test"))
    for place, run in enumerate(group.runs[:2]):
        inputs, targets = run.examples("test")
        assert len(inputs) == len(targets) == outputs.shape[1]
        own = run.network(4).eval()(torch.from_numpy(inputs))
        torch.testing.assert_close(own.to(outputs.dtype), outputs[place], rtol=1e-4, atol=1e-5)
        weights = run.weights.at(4)
        assert all(np.array_equal(weights[name], x[place]) for name, x in stack.params.items())
    kept = torch.get_num_threads()
    alone = replace(group, runs=group.runs[:1]).stack(4, threads=3)
    alone.losses({}, alone.examples("test", 2))
    with pytest.raises(ValueError, match="the examples are of 5 runs, the networks of 1"):
        alone.logits({}, stack.examples("test"))
    assert torch.get_num_threads() == kept


@pytest.mark.parametrize("name", ["mlp", "parity", "cifar", "teacher"])
def test_a_few_examples_are_the_first_ones(trained, name):
    group = trained(name)
    for split in ("train", "test"):
        few, whole = (group.runs[1].examples(split, most) for most in (3, None))
        for some, all_of_them in zip(few, whole, strict=True):
            assert np.array_equal(some, all_of_them[:3]) and len(some) == 3
        (batch,) = group.stack(0).examples(split, 3).batches
        assert np.array_equal(batch.inputs[1], few[0]) and np.array_equal(batch.targets[1], few[1])
    spec = group.runs[0].spec
    assert np.prod(few[0].shape[1:]) == spec.symbols


def test_statistics_of_other_weights_are_means_over_batches(trained):
    stack = trained("si_mlp").stack(4)
    examples, first = stack.examples("train"), "layers.0.weight"
    other = {first: stack.params[first] * 3 + 0.1}
    fresh = stack.refresh_statistics(other, examples)
    (batch,) = examples.batches
    maps = torch.einsum("sbd,swd->sbw", batch.inputs, other[first])
    torch.testing.assert_close(fresh["norms.0.running_mean"], maps.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fresh["norms.0.running_var"], maps.var(1), rtol=1e-5, atol=1e-6)
    assert fresh["head.weight"] is stack.buffers["head.weight"]
    # Rescaled, and so the same network but for the statistics, which go with it.
    scaled = {first: stack.params[first] * 2}
    near = stack.losses(scaled, examples, stack.refresh_statistics(scaled, examples))
    mine = stack.losses({}, examples, stack.refresh_statistics({}, examples))
    torch.testing.assert_close(near, mine, rtol=1e-3, atol=0)
    assert (stack.losses(scaled, examples) - stack.losses({}, examples)).abs().min() > 1e-3
    # In pieces of unequal size, one run at a time as well, and where there are no statistics.
    pieces = replace(
        examples,
        batches=[type(batch)(batch.inputs[:, a:b], batch.targets[:, a:b]) for a, b in ((0, 8), (8, 24))],
    )
    parts = stack.refresh_statistics(other, pieces)["norms.0.running_var"]
    expected = (8 * maps[:, :8].var(1) + 16 * maps[:, 8:].var(1)) / 24
    torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-6)
    plain = trained("layer_norm").stack(4)
    assert plain.refresh_statistics({}, plain.examples("train")) == {}


def test_statistics_of_a_network_of_torch_s_own(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/normed.yaml").write_text("name: normed\n")
    (tmp_path / "model/normed.py").write_text(NORMED)
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    monkeypatch.setattr(inline.Launcher, "trial", untried)
    (ensemble,) = dynalab.train([*DIGITS, "model=normed", *SHORT])
    group = ensemble.group()
    stack = group.stack(4)
    examples = stack.examples("train")
    assert stack.losses({}, examples).tolist() == recorded(group, "train_loss", 4).tolist()
    fresh = stack.refresh_statistics({}, examples)
    (batch,) = examples.batches
    torch.testing.assert_close(fresh["0.running_mean"], batch.inputs.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fresh["0.running_var"], batch.inputs.var(1), rtol=1e-5, atol=1e-5)
    assert torch.equal(fresh["0.num_batches_tracked"], stack.buffers["0.num_batches_tracked"])


NORMED = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "normed"


def build(config, spec):
    from torch import nn

    return nn.Sequential(nn.BatchNorm1d(spec.symbols, momentum=0.3), nn.Linear(spec.symbols, spec.classes))
"""


def test_nothing_later_than_the_last_step_is_there(trained):
    group = trained("embedding_mlp")
    prefix = group.until(3)
    assert prefix.kept == (0, 2) and prefix.until(1).kept == prefix.until(1).until(3).kept == (0,)
    with pytest.raises(
        NothingMatched, match=r"s0000: no weights of step 4 were kept: .*0 and 2; .*up to step 3$"
    ):
        prefix.stack(4)
    with pytest.raises(NothingMatched, match=r"no weights of step 4"):
        prefix.runs[1].network(4)
    lost = replace(group.runs[0], diverged_step=3, weights=replace(group.runs[0].weights, diverged_step=3))
    assert lost.weights.steps == (0, 2) and lost.until(2).weights.diverged_step is None
    with pytest.raises(NothingMatched, match=r"those of steps 0 and 2; the run diverged at step 3$"):
        lost.weights.at(4)


def test_what_was_not_kept_is_named_with_what_keeps_it(trained):
    group = trained("embedding_mlp")
    line = r"s0000: no weights of step 3 were kept: there are those of steps 0, 2 and 4; dynalab train "
    line += r"\.\.\. 'snapshots.at=\[3\]' keeps them$"
    for ask in (group.stack, group.runs[0].network, group.runs[0].weights.at):
        with pytest.raises(NothingMatched, match=line) as told:
            ask(3)
        assert told.value.exit_code == 4 and "\n" not in str(told.value)
    many = replace(group.runs[0].weights, kept=lambda: range(0, 1000, 10))
    with pytest.raises(NothingMatched, match=r"those of steps 440, 450.*550, the nearest of 100;"):
        many.at(495)
    with pytest.raises(NothingMatched, match="e/s0000: its network and its data are not known"):
        _ = Run("e/s0000", {}).spec
    with pytest.raises(ConfigError, match="device=cuda:7: this machine has"):
        group.stack(4, device="cuda:7")


def test_files_are_checked_once_and_damage_is_one_line(trained, monkeypatch, tmp_path):
    ensemble = Ensemble(shutil.copytree(trained.made("embedding_mlp").path, tmp_path / "x-0123456789"))
    group, read = ensemble.group(), []
    monkeypatch.setattr(snapshot, "check", lambda path, own=snapshot.check: read.append(path) or own(path))
    group.stack(2)
    assert len(read) == len({run.shard.root for run in ensemble.runs}) == 2
    path = ensemble.runs[0].shard.snapshot(2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=f"{path.name} is damaged: its checksum does not fit$"):
        group.stack(2)
    with pytest.raises(StoreError, match="the weights are not of this network"):
        group.runs[0].require_learner().network({"embedding.weight": np.zeros(3)})
    # The runs of the other shard are whole, and the weights of the last checkpoint do where no snapshot is.
    assert replace(group, runs=group.runs[3:]).stack(2).width == 2
    ensemble.runs[0].shard.snapshot(4).unlink()
    stack = Ensemble(ensemble.path).group().stack(4)
    assert stack.losses({}, stack.examples("test")).tolist() == recorded(group, "test_loss", 4).tolist()


DRIFT = '''
"""Drift: how far the weights have come from where they began, and what the loss is half way."""

from dataclasses import dataclass

import torch

from dynalab.analysis.base import Keys, Needs
from dynalab.show.blocks import Say

VERSION = 1
NEEDS = Needs(network=True)


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    pass


@dataclass(frozen=True)
class Findings:
    step: int
    distances: list[float]
    half_way: list[float]


def analyse(groups, config):
    (group,) = groups
    first, last = (group.stack(group.kept[place]) for place in (0, -1))
    moved = [(last.params[name] - own).flatten(1) for name, own in first.params.items()]
    middle = {name: torch.lerp(own, last.params[name], 0.5) for name, own in first.params.items()}
    losses = last.losses(middle, last.examples("train"))
    return Findings(group.kept[-1], torch.cat(moved, 1).norm(dim=1).tolist(), losses.tolist())


def show(findings, groups):
    yield Say(f"Up to step {findings.step} weights moved by {min(findings.distances):.2g}.", headline=True)
'''


def test_an_analysis_of_weights_only_writes_mathematics(here, trained, tmp_path, monkeypatch):
    assert len(DRIFT.strip().splitlines()) < 40
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis/drift.py").write_text(DRIFT)
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    ensemble = trained.made("embedding_mlp")
    where = [ensemble.id, "--outputs", str(ensemble.path.parent.parent), "--json"]
    said = here("analyze", "drift", *where)
    assert said.code == 0, said.err
    (whole,), run = said.json["analyses"], ensemble.group().runs[1]
    one, other = (run.weights.at(step) for step in (0, 4))
    distance = np.sqrt(sum(((one[name] - other[name]).astype(float) ** 2).sum() for name in one))
    assert whole["step"] == 4 and whole["distances"][1] == pytest.approx(distance, rel=1e-5)
    (prefix,) = here("analyze", "drift", *where, "steps=3").json["analyses"]
    assert prefix["step"] == 2 and prefix["distances"] != whole["distances"]
    table = tmp_path / "runs.csv"
    table.write_text("run,step,loss\na,0,1.0\na,1,0.5\n")
    assert here("import", str(table)).code == 0
    said = here("analyze", "drift")
    assert said.code == 4 and "no weights were kept: the run was imported, and has metrics alone" in said.err


@pytest.mark.parametrize("asked", ["tpu", "cuda:x", "", "cpu:0"])
def test_a_device_that_is_none_is_refused(asked):
    with pytest.raises(ConfigError, match="expected cpu, cuda, cuda:N or auto"):
        resolve_device(asked, 0)
