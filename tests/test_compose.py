"""Composition of shipped parts: every combination composes, or says which file is in the way; a sweep is its cells."""

from __future__ import annotations

import itertools
import random
from functools import cache
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import OmegaConf

from dynalab.cli.app import run
from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.config.compose import Composer
from dynalab.config.ensemble import from_tree
from dynalab.config.overrides import parse
from dynalab.errors import ConfigError

PARTS = {group: registry.names(group) for group in ("task", "model", "optimizer", "schedule")}
EXPERIMENTS = registry.names("experiment")


def combinations() -> list[list[str]]:
    """Return the words of all combinations of shipped parts, and of experiments with an option of each group."""
    whole = [
        [f"{group}={name}" for group, name in zip(PARTS, names, strict=True)]
        for names in itertools.product(*PARTS.values())
    ]
    replaced = [
        [f"experiment={name}", f"{group}={option}"]
        for name in EXPERIMENTS
        for group, options in PARTS.items()
        for option in options
    ]
    return [*whole, *replaced]


def unexplained(every: int = 1) -> list[str]:
    """Walk every so many combinations; returns a line for each that neither composes nor says what is in the way."""
    composer, known, found = Composer(), {}, []
    parsed = cache(lambda word: parse([word])[0])
    for words in combinations()[::every]:
        cell = [parsed(word) for word in words]

        def read(*more, cell=cell):
            from_tree(composer.compose([*cell, *map(parsed, more)]), known=known)

        try:
            read()
        except ConfigError as error:
            said = str(composer.explain(error, cell, read))
            if "sets it" not in said or len(said.splitlines()) > 1:
                found.append(f"{' '.join(words)}: {said}")
    return found


def ids(*words: str) -> list[str]:
    return [request.config.id for request in read_command(words).requests]


def test_every_combination_composes_or_names_the_file_in_the_way():
    # A part of them; scripts/verify walks all.
    assert not unexplained(every=23)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            "task=mlm schedule=cosine",
            "schedule=cosine has no steps: left out of what conf/task/mlm.yaml sets",
        ),
        (
            "experiment=cohen2021_eos model=nanda",
            "model=nanda has no hidden, activation, head_bias, init, gain: left out of what "
            "conf/experiment/cohen2021_eos.yaml sets",
        ),
        (
            "experiment=thilak2022_slingshot_epsilon optimizer=sgd",
            "optimizer=sgd has no eps: left out of what conf/experiment/thilak2022_slingshot_epsilon.yaml sets",
        ),
        (
            "experiment=cohen2021_eos probes=[weights]",
            "probes=weights has no curvature: left out of what conf/experiment/cohen2021_eos.yaml sets",
        ),
        (
            "experiment=liu2023_omnigrok task=grokking",
            "task=grokking has no n_train, n_test: left out of what conf/experiment/liu2023_omnigrok.yaml sets",
        ),
    ],
)
def test_keys_of_a_replaced_option_are_left_out_with_a_note(words, note):
    assert note in read_command(words.split()).notes


def test_a_note_is_said_once_for_a_whole_sweep(capsys):
    assert run(["config", "task=mlm", "schedule=cosine,constant", "optimizer.lr=0.1,0.2"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all("left out" in line for line in said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # What was typed is never left out.
        ("experiment=cohen2021_eos optimizer=adam optimizer.momentum=0.9", "optimizer.momentum: no such key"),
        ("task=mlm schedule=cosine schedule.steps=3", "schedule.steps: no such key"),
        ("experiment=cohen2021_eos probes=[weights] probe.curvature.every=3", "not among probes"),
        # What cannot stand there is named with its file, and with what gets rid of it.
        (
            "experiment=cohen2021_eos model=embedding_mlp",
            "conf/experiment/cohen2021_eos.yaml sets it, model.activation=null takes it away",
        ),
        # Null is what k is without a file: 3 again.
        (
            "task=parity task.n=2",
            "task.k=3: expected an integer from 1 to task.n=2; conf/task/parity.yaml sets it",
        ),
        ("optimizer=sgd,adam optimizer.momentum=0.9", "(in the combination optimizer=adam)"),
        ("task=grokking optimizer.lr=0.1,-1", "(in the combination optimizer.lr=-1)"),
    ],
)
def test_what_does_not_compose_is_said_in_one_line(words, said):
    with pytest.raises(ConfigError) as caught:
        read_command(words.split())
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert "takes it away" in said or "takes it away" not in str(caught.value)


def test_what_gets_rid_of_a_key_does():
    assert ids("experiment=cohen2021_eos", "model=embedding_mlp", "model.activation=null")


def test_a_mistake_in_ones_own_file_is_not_left_out(tmp_path: Path):
    folder = tmp_path / "it's a=b, dir"
    (folder / "experiment").mkdir(parents=True)
    own = folder / "experiment" / "mine.yaml"
    text = "# @package _global_\ndefaults: [override /optimizer: sgd]\noptimizer: {momentum: 0.5, %s: 3}\n"
    own.write_text(text % "lrr")
    for words in (["experiment=mine"], ["experiment=mine", "optimizer=adam"]):
        with (
            pytest.raises(
                ConfigError, match=r"optimizer.lrr: no such key .* sets it, ~optimizer.lrr takes"
            ) as caught,
            registry.searching([str(folder)]),
        ):
            read_command(words)
        assert str(own) in str(caught.value)
    own.write_text(text % "lr")
    with registry.searching([str(folder)]):
        (request,) = read_command(["experiment=mine", "optimizer=adam"]).requests
    assert request.config.optimizer.lr == 3


def test_the_cells_of_a_sweep_are_those_composed_one_by_one():
    draw = random.Random(0)
    axes = {
        "optimizer": PARTS["optimizer"],
        "schedule": PARTS["schedule"],
        "optimizer.lr": ["0.1", "1e-3", ".02"],
        "optimizer.weight_decay": ["0", "0.3"],
        "train.batch_size": ["full", "64"],
        "train.clip": ["null", "1"],
        "eval": ["{every:5,size:10}", "{every:7}"],
        "probes": ["[weights]", "[gradients,weights]", "[]"],
        "model.width": ["8", "16"],
        "seed_streams.init": ["0", "1"],
    }
    for task in ("grokking", "parity"):
        chosen = {key: draw.sample(values, 2) for key, values in draw.sample(sorted(axes.items()), 3)}
        swept = [f"task={task}", *(f"{key}={','.join(values)}" for key, values in chosen.items())]
        alone = [
            ids(f"task={task}", *(f"{key}={value}" for key, value in zip(chosen, values, strict=True)))[0]
            for values in itertools.product(*chosen.values())
        ]
        assert ids(*swept) == list(dict.fromkeys(alone)), swept


def test_files_are_composed_once_for_each_choice_of_groups(monkeypatch):
    read = []
    whole = Composer._read
    monkeypatch.setattr(Composer, "_read", lambda self, choices: read.append(choices) or whole(self, choices))
    assert len(ids("task=grokking", "optimizer=sgd,adam", "optimizer.lr=0.1,0.2,0.3", "train.clip=1,2")) == 12
    # Two, and the task's own, by which folders are named.
    assert len(read) == 3


@pytest.mark.parametrize("words", ["task=grokking", "optimizer.lrr=3", "task=groking", "optimizer.lr=[1"])
def test_a_programs_own_hydra_is_left_alone(words):
    with initialize_config_dir(str(registry.conf_dir()), version_base="1.2"):
        OmegaConf.clear_resolver("now")
        before = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
        if "=grokking" in words:
            read_command([words, "outputs=x-${now:%Y}"])
        else:
            with pytest.raises(ConfigError):
                read_command([words])
        assert (GlobalHydra.instance().hydra, VersionBase.instance().getbase()) == before
        assert not OmegaConf.has_resolver("now")


def values(word: str) -> list[object]:
    (override,) = parse([word], lambda group: PARTS.get(group, ()))
    return list(override.values)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # As the list has them: 0.3, not 0.30000000000000004; and 0.9 is not below 0.9.
        ("optimizer.lr=range(0.1,0.5,0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("optimizer.lr=range(0.6,0.9,0.1)", [0.6, 0.7, 0.8]),
        ("optimizer.lr=sort(range(0.1,0.4,0.1),reverse=true)", [0.3, 0.2, 0.1]),
        ("train.steps=range(5,1,-2)", [5, 3]),
        ("optimizer.lr=sort(3,1,2)", [1, 2, 3]),
        ("optimizer.lr=tag(a,choice(1,2))", [1, 2]),
        ("optimizer=glob(*)", PARTS["optimizer"]),
        ("optimizer=glob([a*,s*],exclude=sam)", ["adam", "adamw", "sgd"]),
        ("task.operation='a,b'", ["a,b"]),
        ("model.hidden=[1,2],[3]", [[1, 2], [3]]),
        ("train.clip=null", [None]),
        ("task.operation=", [""]),
    ],
)
def test_words_have_the_values_that_hydra_users_expect(word, expected):
    assert values(word) == expected
    assert sorted(values("optimizer.lr=shuffle(1,2,3)")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimizer.lr=interval(0,1)", "an interval names no values"),
        ("optimizer=glob(zzz*)", "names no value: none of adam, adamw"),
        ("optimizer.lr=glob(*)", "optimizer.lr is no group"),
        ("optimizer.lr=range(0,1,0)", "a step that is not 0"),
        ("optimizer.lr=range(0,10000000000)", "too many for one command"),
        ("seed=${oc.env:DYNALAB_NOWHERE}", "seed: Environment variable 'DYNALAB_NOWHERE' not found"),
        ("optimizer.lr=${optimizer.lr}", "optimizer.lr: Recursive interpolation"),
        ("optimizer.lr=${task.nope}", "there is no task.nope here; give optimizer.lr=VALUE"),
        ("probes=[parity]", "probe.parity.k=${task.k}: there is no task.k here; give probe.parity.k=VALUE"),
        ("seed=interval(0,1)", "seed=interval(0,1): expected an integer"),
        ("task=null", "task=null: no such task"),
        ("optimizer=", "optimizer=: no such optimizer"),
        ("~optimizer", "no such optimizer"),
        ("+train.steps=5", "train.steps is there already, 3000; train.steps=5 sets it"),
        ("~train.zzz", "train.zzz: no such key"),
        ("~optimizer.lr=5", "optimizer.lr is null"),
        ("train=3", "train=3: expected its keys"),
        ("probe.weights=3", "probe.weights=3: expected its keys"),
        ("probe=curvature", "probe=curvature: expected keys of probes"),
        ("outputs=[a]", "expected a folder"),
        ("train.steps=???", "train.steps: needs a value"),
        ("optimizer.lr@there=3", "optimizer.lr is no group"),
        ("optimizer.lr=foo(3)", "cannot be parsed: Unknown function 'foo'"),
        ("optimizer.lr.x=3", "optimizer.lr.x: no such key (did you mean optimizer.lr?)"),
        ("x" * 5000 + "=1", "...: no such key"),
        ("optimizer.lr=" + "9" * 5000, "cannot be parsed"),
        ("optimizer.lr=" + "[" * 400, "a bracket has no other end"),
    ],
)
def test_words_that_cannot_be_used_are_told_so_in_one_line(words, said):
    with pytest.raises(ConfigError) as caught:
        read_command([words])
    message = str(caught.value)
    assert said in message and len(message.splitlines()) == 1 and len(message) < 500


def test_seeds_and_streams_take_interpolations(monkeypatch):
    monkeypatch.setenv("DYNALAB_SEEDS", "2")
    (request,) = read_command(
        ["seed=0..${oc.env:DYNALAB_SEEDS}", "seed_streams.init=${oc.env:DYNALAB_SEEDS}"]
    ).requests
    assert [run.seed for run in request.runs] == [0, 1, 2] and request.config.seed_streams.init == 2


def test_a_reference_in_a_sweep_is_shown_as_it_was_typed():
    words = ["task=digits", "optimizer.lr=${tuned.optimizer.adam.lr},0.5"]
    first, _ = read_command(words).requests
    assert first.overrides == ["task=digits", "optimizer.lr=${tuned.optimizer.adam.lr}"]
    assert first.config.optimizer.lr == 0.001


def test_of_several_words_about_a_key_the_last_counts():
    assert ids("optimizer.lr=1", "optimizer.lr=0.5", "seed=1") == ids("optimizer.lr=0.5")
    assert ids("optimizer=sgd", "optimizer=adam", "experiment=null") == ids("optimizer=adam")
    assert ids("~optimizer.lr", "~experiment") == ids() == ids("optimizer.lr=null")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "expected keys and values"),
        ("a: &x [*x]", "nested too deeply, or in itself"),
        ("defaults: [mine]", "a configuration file includes itself"),
        ("defaults: [3]", "Unsupported type in defaults"),
        ("defaults: [override /task: nope]", "Could not find 'task/nope'"),
        ("task: 3", "task=3: expected its keys"),
        ("tuned: {optimizer: 3}", "tuned.optimizer=3: expected its keys"),
        ("zzz: 1", "sets it, ~zzz takes it away"),
        ("probe: {curvature: {every: 3}}", "sets it, ~probe.curvature takes it away"),
        ("train: {steps: '${nope}'}", "sets it, train.steps=null takes it away"),
        ("optimizer: {lr: [1]}", "sets it, optimizer.lr=null takes it away"),
        ("a: 1\na: 2", "is no YAML"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, monkeypatch, text, said):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        read_command(["experiment=mine"])
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1
    if "takes it away" in said:
        word = said.removeprefix("sets it, ").removesuffix(" takes it away")
        assert read_command(["experiment=mine", word]).requests


def test_a_file_of_ones_own_goes_before_a_shipped_one(tmp_path):
    (tmp_path / "optimizer").mkdir()
    shipped = (registry.conf_dir() / "optimizer" / "sgd.yaml").read_text()
    (tmp_path / "optimizer" / "sgd.yaml").write_text(shipped.replace("lr: null", "lr: 0.7"))
    with registry.searching([str(tmp_path)]):
        (request,) = read_command(["optimizer=sgd"]).requests
    assert request.config.optimizer.lr == 0.7


@pytest.mark.parametrize(
    "words",
    [
        "trian task=grokking",
        "train task=grokkin",
        "train taks=grokking",
        "train task grokking",
        "train --dryrun",
        "train seed=0...5",
        "train model=mpl",
        "train experiment=nanda",
        "train probe.weight.every=3",
        "analyze hm",
        "analyze hmm max_sates=3",
        "analyze hmm max_states=${oc.env:DYNALAB_NOWHERE}",
        "runs lst",
        "runs diff a",
        "config tsak=grokking",
        "config -p optimizr",
        "import",
        "data verify cifar11",
        "bench taks=mlm",
        "--hepl",
    ],
)
def test_a_mistyped_command_is_told_so_in_one_line(words, capsys):
    assert run(words.split()) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1 and not said.out
