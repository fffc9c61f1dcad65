"""Composition: what a command's words become, and what they are told when they cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from dynalab.config import registry
from dynalab.config.analysis import read_analysis
from dynalab.config.command import read_command
from dynalab.config.experiments import experiments
from dynalab.config.registry import searching
from dynalab.errors import ConfigError


def config_of(*words: str):
    (request,) = read_command(list(words)).requests
    return request.config


@pytest.mark.parametrize("group", ["model", "optimizer", "schedule", "probe", "task"])
def test_every_yaml_file_has_exactly_the_keys_of_its_dataclass(group):
    names = registry.names(group)
    assert names
    for name in names:
        part = registry.find(group, name)
        tree = yaml.safe_load(part.defaults())
        keys = set(tree["task"]) if group == "task" else set(tree)
        fields = {field.name for field in dataclasses.fields(part.config_class)}
        assert keys == fields, name


@pytest.mark.parametrize("experiment", experiments(), ids=lambda experiment: experiment.name)
def test_every_experiment_composes_and_its_command_is_one(experiment):
    words = experiment.command.removeprefix("dynalab train ").split()
    assert words[0] == f"experiment={experiment.name}"
    for request in read_command(words).requests:
        assert request.slug.startswith(experiment.name) and request.steps > 0


def test_optimizers_take_the_tasks_own_settings_unless_told():
    assert (config_of("task=grokking").optimizer.lr, config_of("task=grokking").optimizer.weight_decay) == (
        3e-3,
        1.0,
    )
    assert config_of("task=grokking", "optimizer=sgd").optimizer.momentum == 0.9
    assert config_of("task=grokking", "optimizer=sgd", "optimizer.momentum=0").optimizer.momentum == 0
    # An experiment's word is stronger than the task's.
    assert config_of("experiment=gromov2023_addition").optimizer.weight_decay == 5.0


def test_sweeps_span_the_product_without_a_switch():
    command = read_command(["task=grokking", "optimizer=sgd,adamw", "optimizer.lr=0.1,0.01", "seed=0..1"])
    found = {(request.config.optimizer.name, request.config.optimizer.lr) for request in command.requests}
    assert found == {("sgd", 0.1), ("sgd", 0.01), ("adamw", 0.1), ("adamw", 0.01)}
    assert all(len(request.runs) == 2 for request in command.requests)
    assert len(read_command(["optimizer.lr=range(1,4)"]).requests) == 3
    assert len(read_command(["optimizer.lr=1e-3,0.001"]).requests) == 1, "the same ensemble twice is one"


def test_lists_are_values_not_sweeps():
    assert config_of("model=onehot_mlp", "model.hidden=[8,8]").model.hidden == [8, 8]
    assert config_of("probes=[weights]").probes == ("weights",)


def test_hydra_habits_work():
    assert config_of("++optimizer.lr=0.5").optimizer.lr == 0.5
    assert config_of("task=grokking", "optimizer.betas=[0.5,0.6]").optimizer.betas == (0.5, 0.6)
    assert config_of("probe.weights.every=50").probe["weights"].every == 50


def test_steps_and_epochs():
    def steps(*words: str) -> int:
        return read_command(list(words)).requests[0].steps

    assert steps("task=grokking", "train.epochs=7") == 7
    # 1,392 of 3,481 pairs train: 6 batches of 256 an epoch.
    assert steps("task=grokking", "train.epochs=2", "train.batch_size=256") == 12
    assert steps("experiment=hu2023_modular", "train.steps=5") == 5
    assert steps("experiment=hu2023_modular") == 20_000
    assert (
        steps("train.steps=1e3") == 1000 and config_of("eval.every=2e1").id == config_of("eval.every=20").id
    )
    with pytest.raises(ConfigError, match="only one"):
        steps("train.steps=3", "train.epochs=3")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("task=groking", "did you mean grokking"),
        ("optimizer=adamm", "did you mean adam"),
        ("trian.steps=5", "did you mean train.steps"),
        ("train.stpes=5", "did you mean train.steps"),
        ("lr=3", "did you mean optimizer.lr"),
        ("optimizer.bta=3", "did you mean optimizer.betas"),
        ("optimizer.learning_rate=3", "no such key; there are"),
        ("+foo=1", "foo: no such key"),
        ("+train.foo=1", "train.foo: no such key"),
        ("train.steps=abc", "train.steps=abc: expected an integer"),
        ("train.steps=1.5", "train.steps=1.5: expected an integer"),
        ("train.steps=-1", "at least 0"),
        ("train.batch_size=none", "full or an integer"),
        ("train.loss_dtype=float16", "float32 or float64"),
        ("optimizer.lr=fast", "expected a number"),
        ("optimizer.lr=-1", "optimizer.lr=-1"),
        ("optimizer.lr=inf", "optimizer.lr=inf: expected a finite number"),
        ("optimizer.lr=1e-3,inf", "optimizer.lr=inf"),
        ("optimizer.weight_decay=inf", "optimizer.weight_decay=inf"),
        ("train.clip=inf", "train.clip=inf"),
        ("train.epochs=inf", "train.epochs=inf"),
        ("train.batch_size=inf", "train.batch_size=inf"),
        ("levels.test_accuracy=nan", "levels.test_accuracy=nan"),
        ("optimizer.betas=[0.9,1.5]", "optimizer.betas"),
        ("optimizer.amsgrad=perhaps", "expected true or false"),
        ("eval.every=0", "eval.every=0"),
        ("checkpoint.keep=1", "2 or more"),
        ("compute.threads=4", "compute.exact=false"),
        ("snapshots.at=sometimes", "log, never or a list"),
        ("probes=[weights,foo]", "no probe foo"),
        ("probes=weights", "expected a list"),
        ("probe.curvature.every=3", "not among probes"),
        ("device=gpu", "auto, cpu, cuda"),
        ("launcher=joblib", "there are inline, local, slurm"),
        ("launcher.partition=gpu", "launcher.partition: launcher=local has no keys; launcher=slurm has"),
        ("launcher.patition=gpu", "launcher=slurm has"),
        ("launcher=local,inline", "takes one value"),
        ("design=nested", "seeds or crossed"),
        ("hydra.run.dir=x", "use outputs=DIR"),
        ("hydra/launcher=joblib", "launcher=inline"),
        ("hydra.sweep.dir=x", "use outputs=DIR"),
        ("train.precision=16", "mixed precision is not supported yet"),
        ("task", "expected KEY=VALUE"),
        ("seed", "seed: expected KEY=VALUE"),
        ("seed_streams.init", "expected KEY=VALUE"),
        ("optimizer.lr=[1", "optimizer.lr=[1: cannot be parsed: a bracket has no other end"),
        ("optimizer.lr=1e-3,", "optimizer.lr=1e-3,: cannot be parsed: a value is missing beside a comma"),
        ("optimizer.lr=1,,2", "a value is missing beside a comma"),
        ("task.operation='add", "a quote has no other end"),
        ("task.operation=a:b=c$", "special characters need quotes"),
        ("task.operation=ad", "did you mean add"),
        ("task.modulus=1", "task.modulus"),
        ("task.train_fraction=1.5", "task.train_fraction"),
        ("model.width=0", "model.width"),
        ("experiment=nanda2032_addition", "did you mean nanda2023_addition"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line_or_two(word, said):
    with pytest.raises(ConfigError) as caught:
        read_command([word])
    message = str(caught.value)
    assert said in message
    assert len(message.splitlines()) <= 2
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["hmm", "variance"])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("convergence.threshold=abc", "convergence.threshold=abc: expected a number"),
        ("convergence={threshold:abc}", "convergence.threshold=abc: expected a number"),
        ("convergence.persistence=1.5", "convergence.persistence=1.5: expected an integer"),
        ("convergence.treshold=1", "did you mean convergence.threshold"),
        ("convergence=3", "convergence=3: expected its keys, convergence.direction"),
        ("convergence.threshold=inf", "convergence.threshold=inf"),
        ("folds=3,", "folds=3,: cannot be parsed: a value is missing beside a comma"),
    ],
)
def test_what_is_wrong_in_a_nested_section_is_named_by_its_own_key(kind, word, said):
    with pytest.raises(ConfigError) as caught:
        read_analysis(kind, [word])
    assert said in str(caught.value) and "ConvergenceKeys" not in str(caught.value)


def test_a_folder_of_ones_own_is_searched_first(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ntask: {modulus: 13}\nseed: 2..3\n"
    )
    with searching([str(tmp_path)]):
        (request,) = read_command(["experiment=mine"]).requests
    assert request.config.task.modulus == 13
    assert [run.seed for run in request.runs] == [2, 3]
    with pytest.raises(ConfigError, match="no such folder"), searching([str(tmp_path / "nowhere")]):
        pass


def test_every_setting_can_be_said_on_the_command_line():
    """A key that the shipped YAML lacks is one that only its dataclass knows."""
    settings = read_command([]).settings
    for section in ("compute", "checkpoint"):
        kept = getattr(settings, section)
        for field in dataclasses.fields(kept):
            value = getattr(kept, field.name)
            word = "null" if value is None else str(value).lower()
            assert getattr(read_command([f"{section}.{field.name}={word}"]).settings, section) == kept
