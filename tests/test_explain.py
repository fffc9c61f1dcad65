"""Keys explain themselves: what is declared is what help, errors, `dynalab config` and the experiments say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from dynalab.config import explain, registry
from dynalab.config.commented import commented
from dynalab.config.experiments import experiments
from dynalab.config.keys import Section, key
from dynalab.config.lookup import known, look_up
from dynalab.config.plain import key_of, neutral_of
from dynalab.errors import ConfigError

SHARED = explain.shared()


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal on which nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.parametrize("group", ["", *explain.GROUPS])
def test_every_key_says_what_it_is(group):
    """With what it may be, in a line of its own, and at the default that its class has."""
    keys = [item for items in SHARED.values() for item in items]
    if group:
        keys = [item for name in registry.names(group) for item in explain.part(group, name)]
    assert len({item.key for item in keys}) >= 4
    for item in keys:
        assert item.about and item.kind and item.kind != "a value", item
        assert "\n" not in item.about and not item.about.endswith("."), item
        assert not item.about.startswith(("null: ", "or ")), item
        # What null means stands there where null is something else than nothing.
        assert item.default is not None or "null" in item.kind or group == "analysis", item


def test_every_field_of_every_part_is_a_key():
    for group in explain.GROUPS:
        for name in registry.names(group):
            cls = registry.find(group, name).config_class
            keys = {item.key.rpartition(".")[2]: item for item in explain.part(group, name)}
            for field in dataclasses.fields(cls):
                if field.name != "name" and not dataclasses.is_dataclass(neutral_of(field)):
                    assert key_of(field.name) in keys or field.name == "convergence", (name, field.name)
    lookahead = {item.key: item for item in explain.part("optimizer", "lookahead")}
    assert {"optimizer.k", "optimizer.lr", "optimizer.momentum"} <= set(lookahead)
    assert lookahead["optimizer.lr"].about == "learning rate, which the schedule multiplies"


def test_explaining_imports_neither_torch_nor_omegaconf():
    code = (
        "import sys\nfrom dynalab.config import explain\n"
        "explain.shared(), explain.part('optimizer', 'lookahead'), explain.part('task', 'digits')\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "dynalab" in loaded and not {"torch", "omegaconf", "hydra"} & set(loaded)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A user's own.

    Attributes:
        size: How many, of
            those there are.
        parts (list): Some words: these.

    More is said here: nothing of a key.
    """

    size: int = 3
    parts: list[str] = dataclasses.field(default_factory=lambda: ["a"])
    odd: Any = None
    flag: bool | None = None
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Declared(Section, of="thing"):
    share: float = key(0.5, "share", above=0, most=1)
    word: str | None = key(None, "word", one_of=("warm", "cold"))
    sizes: list[int] = key([1], "sizes", least=1)
    count: int | None = key(None, "count", least=2, most=1 << 20)
    inner: Plain = key(Plain(), "what is in it")


@dataclass(frozen=True, kw_only=True)
class Heir(Declared):
    # Without words of its own it is what the base says.
    share: float = 0.25


def test_a_plain_dataclass_is_told_by_its_docstring():
    told = {item.key: item for item in explain.section(Plain, "task")}
    assert told["task.size"] == explain.Explained(
        "task.size", "How many, of those there are", "an integer", "", 3
    )
    assert told["task.parts"].about == "Some words: these" and told["task.parts"].kind == "a list of words"
    assert (told["task.odd"].about, told["task.odd"].kind) == ("", "a value")
    assert told["task.flag"].kind == "true, false or null" and told["task.pair"].kind == "a list of 2 numbers"
    assert "More" not in told


def test_what_is_declared_is_checked_and_inherited():
    keys = {item.key: item for item in explain.section(Heir, "thing")}
    assert (keys["thing.share"].about, keys["thing.share"].default) == ("share", 0.25)
    assert (
        keys["thing.share"].legal == "above 0 and at most 1"
        and keys["thing.count"].legal == "from 2 to 1048576"
    )
    assert keys["thing.word"].kind == "warm, cold or null" and keys["thing.inner.size"].default == 3
    assert Declared().sizes is not Declared().sizes
    Heir(share=1, word=None, sizes=[1, 2], count=2)
    for given, said in {
        "share=0": "thing.share=0: expected a number above 0 and at most 1",
        "share=nan": "thing.share=nan: expected a number above 0 and at most 1",
        "word=warn": "thing.word=warn: expected warm, cold or null (did you mean warm?)",
        "sizes=[2, 0]": "thing.sizes=[2, 0]: expected a list of integers of at least 1",
        "count=1": "thing.count=1: expected an integer from 2 to 1048576, or null",
    }.items():
        name, _, text = given.partition("=")
        value = float(text) if text == "nan" else yaml.safe_load(text)
        with pytest.raises(ConfigError) as caught:
            Heir(**{name: value})
        assert str(caught.value) == said


def test_a_configuration_is_yaml_with_what_its_keys_are(here):
    words = ["config", "task=parity", "optimizer=lookahead", "seed=0..3"]
    text = here(*words, COLUMNS="90").out
    (entry,) = here(*words, "--json").json["ensembles"]
    assert yaml.safe_load(text) == entry["config"] and text.startswith(f"# id {entry['id']}\n")
    lines = text.splitlines()
    assert all(len(line) <= 90 for line in lines if "#" in line[:40])
    (sphere,) = (line for line in lines if line.strip().startswith("sphere:"))
    assert sphere.startswith("  sphere: false ") and "# rescale the scale-invariant weights" in sphere
    # What null stands for is said where the value is, and not again.
    (workers,) = (line for line in lines if line.strip().startswith("workers:"))
    assert workers == "  workers: by the planner, from a trial of the step # worker processes"
    assert text.count("30 s of training") == 1 and "# learning rate" in text
    (clip,) = (line for line in lines if line.strip().startswith("clip:"))
    assert clip.endswith(" ...; null: not clipped") and len(clip) <= 90
    part = here("config", "-p", "optimizer").out
    assert yaml.safe_load(part)["lr"] == 0.003 and "# learning rate, which" in part
    odd = {"a": "x # y", "b": {"c": [1, {"d": None}], "e": {}}, "f": "two\nlines", "g": "y" * 200}
    told = {name: explain.Explained(name, "about it", "", "", None) for name in ("a", "b.c", "b.e", "f", "g")}
    assert yaml.safe_load(commented(odd, told, 60)) == odd


def test_a_key_is_explained_with_its_value_and_what_says_it(here):
    def of(*words):
        answer = here("config", "--explain", *words)
        assert answer.code == 0, answer.err
        return answer.out

    out = of("train.sphere")
    assert (
        out.startswith("train.sphere: rescale the scale-invariant weights")
        and "true or false; default false" in out
    )
    # Parts in which it is the same thing share an answer; those in which it is not have their own.
    assert "0.001 (adam, adamw), 0.1 (lookahead, sam, sgd), 0.01 (rmsprop)" in " ".join(
        of("optimizer.lr").split()
    )
    assert of("optimizer.eps").count("optimizer.eps: ") == 2
    out = of(
        "task=parity",
        "optimizer.lr",
        "optimizer",
        "model.scale",
        "model.scale=2",
        "train.steps",
        "train.clip",
    )
    assert (
        "  here 0.1, from conf/task/parity.yaml (tuned.optimizer.sgd)\n" in out
        and "default 0.1 (sgd)\n" in out
    )
    assert "\n  here sgd\n" in out and "\n  here 2.0, your word\n" in out
    assert "here 3000, from conf/task/parity.yaml" in out and "here null, the default" in out
    assert of("optimizer.lr=0.3").endswith("here 0.3, your word\n")
    assert "optimizer=sgd, which is chosen, does not have it" in of("task=parity", "optimizer.eps")
    out = of("optimizer=lookahead,sgd", "optimizer.lr", "seed", "seed=0..3")
    assert "with optimizer=lookahead: 0.003, from conf/task/grokking.yaml (tuned.optimizer.adamw)" in out
    assert "with optimizer=sgd: 0.3" in out and "here 0..3, your word" in out
    assert "here 0.4, from conf/experiment/cohen2021_eos.yaml" in of(
        "experiment=cohen2021_eos", "optimizer.lr"
    )
    assert "here 4, from conf/probe/parity.yaml" in of("task=parity", "task.k=4", "probe.parity.k")
    for word, about in {
        "hmm.max_states": "largest number of states",
        "edit.scale": "standard deviations of the tensor",
        "probe.curvature.every": "steps between measurements",
        "seed": "seeds of the runs",
        "optimizer.sam": "optimizer.rho: radius",
        "checkpoint": "checkpoint.keep: how many",
        "schedule.constant": "no keys of its own",
        "edit": "perturb  moves weights a little, at random\n",
        "experiment": "gromov2023_addition",
        "analysis": "periods",
        "": "task: what is learnt",
    }.items():
        assert about in of(*filter(None, [word])), word
    (item,) = here("config", "--explain", "--json", "optimizer.lr", "optimizer=sgd").json["keys"]
    assert item["defaults"] == [{"part": "sgd", "default": 0.1}] and item["range"] == "at least 0"
    assert item["values"] == [
        {"overrides": "optimizer=sgd", "value": 0.3, "from": "conf/task/grokking.yaml (tuned.optimizer.sgd)"}
    ]


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("train.spere", "train.sphere"),
        ("optimiser.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("probe.every", "probe."),
        ("hmm.max_state", "hmm.max_states"),
        ("sgd", "optimizer.sgd"),
        ("optimizer.sgd.lr", ""),
        ("", ""),
    ],
)
def test_a_key_that_there_is_not_is_told_what_is_near(here, word, near):
    answer = here("config", "--explain", word)
    assert answer.code == 2 and near in answer.err and len(answer.err.splitlines()) == 1, answer
    assert answer.err.startswith(f"dynalab: {word}: no such key")


def test_every_word_that_is_suggested_has_an_answer():
    words = known()
    assert {"train.sphere", "optimizer.lr", "hmm.max_states", "probe.weights.at", "edit"} <= set(words)
    for word in words[::20]:
        assert look_up(word), word


def test_the_keys_of_an_analysis_are_those_that_its_command_takes(here, tmp_path):
    text = here("analyze", "hmm", "max_states=4", "pool=true", "--cfg", "job").out
    keys = yaml.safe_load(text)
    assert keys["max_states"] == 4 and keys["pool"] is True and keys["convergence"]["metric"] is None
    assert (
        list(keys)[-3:] == ["steps", "pool", "outputs"] and "# largest number of states that is tried" in text
    )
    assert (
        here("analyze", "hmm", "max_states=4", "pool=true", "--cfg", "job", "--json").json["config"] == keys
    )
    out = here("analyze", "eos", "--help").out
    assert "Keys of eos" in out and "[0.9]" in out and " pool " in out
    assert "Keys of" not in here("analyze", "--help").out + here("analyze", "no_such", "--help").out
    # A user's preset, and a user's own analysis with a plain dataclass.
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis/eos.yaml").write_text("low: 0.5\n")
    source = "from dataclasses import dataclass\n@dataclass\nclass Config:\n    '''Keys.\n\n    Attributes:\n        "
    source += "size: How many.\n    '''\n    size: int = 1\n    steps: int | None = None\n"
    source += "def analyse(groups, config): ...\n"
    (tmp_path / "analysis/mine.py").write_text(source)
    option = ["--config-dir", str(tmp_path)]
    assert yaml.safe_load(here("analyze", "eos", "--cfg", "job", *option).out)["low"] == 0.5
    assert "How many [1]" in here("analyze", *option, "mine", "--help").out


def test_experiments_say_what_they_show(here, tmp_path):
    shipped = experiments()
    for item in shipped:
        assert item.paper and item.arxiv and item.shows and item.text, item.name
        assert len(item.shows) <= 110 and not item.shows.endswith("."), item.name
        assert item.arxiv.count(".") == 1 and len(item.arxiv) == 10, item.name
    listed = here("experiments", COLUMNS="80").out.splitlines()
    assert max(map(len, listed)) <= 80 and "Cohen et al. 2021, arXiv 2103.00065" in listed
    assert sum(line.startswith("  ") for line in listed) == len(shipped)
    out = here("experiments", "thilak2022_slingshot").out
    for said in (
        "Adam at 1e-3 with betas (.9, .95)",
        "task=digits",
        "n_train: 200",
        "dynalab analyze slingshot",
    ):
        assert said in " ".join(out.split())
    assert "\ndynalab train experiment=thilak2022_slingshot seed=0..4\n" in out
    one = here("experiments", "-f", "DIGITS cohen", "--json").json["experiments"]
    assert {item["name"] for item in one} == {"cohen2021_eos_digits", "cohen2022_aeos"}
    assert one[0]["keys"]["optimizer"] == {"lr": 0.4, "momentum": 0.0} and one[0]["arxiv"] == "2103.00065"

    # A user's own needs no words, and may have a line alone; one that is no YAML is listed.
    (tmp_path / "experiment").mkdir()
    for name, text in {
        "bare": "train: {steps: 3}",
        "said": "about: tiny\ntrain: {steps: 4}",
        "torn": "a: [",
    }.items():
        (tmp_path / f"experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    option = ["--config-dir", str(tmp_path)]
    own = {item["name"]: item for item in here("experiments", *option, "--json").json["experiments"]}
    assert own["said"]["shows"] == "tiny" and own["bare"]["keys"] == {"train": {"steps": 3}}
    assert own["torn"]["shows"] == "" and here("experiments", "bare", *option).code == 0
    (ensemble,) = here("config", "experiment=said", *option, "--json").json["ensembles"]
    assert ensemble["config"]["train"]["steps"] == 4 and "about" not in ensemble["config"]
    assert here("experiments", "cohen2021_eoz").code == 2 and here("experiments", "-f", "nothing").code == 4
