"""What is shown of a configuration, the command that makes it again, and the folder it gets."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from dynalab import train
from dynalab.cli.app import run
from dynalab.config.command import read_command, words_of
from dynalab.config.registry import conf_dir
from dynalab.training.shown import shown, shown_stored


def request_of(*words: str):
    (request,) = read_command(list(words)).requests
    return request


def of(*words: str):
    request = request_of(*words)
    return shown(request.config, request.steps)


def test_every_key_is_shown_at_the_value_of_training():
    parity = of("task=parity")
    assert parity["eval"]["size"] == 1024 and parity["probe"]["weights"]["every"] == 100
    assert parity["model"]["head_bias"] is True and parity["train"]["epochs"] is None
    digits = of(
        "task=digits",
        "schedule=cosine",
        "probes=[weights,curvature]",
        "train.steps=48",
        "probe.weights.at=log",
    )
    assert digits["schedule"]["total"] == 48 and digits["train"]["epochs"] == 2.0
    assert digits["probe"]["curvature"]["size"] == 1000 and digits["probe"]["curvature"]["every"] % 10 == 0
    assert digits["probe"]["weights"] == {"name": "weights", "every": None, "at": "log"}
    assert digits["eval"]["size"] == "all"
    assert of("task=digits", "train.batch_size=5000")["train"]["batch_size"] == "full"
    assert of("task=regression")["task"]["test_samples"] == 19
    assert of("task=cifar")["task"]["n_train"] == 50_000
    # A null that is left means that there is none.
    assert parity["train"]["clip"] is None and parity["seed_streams"]["init"] is None


def test_what_is_shown_moves_no_id_and_is_not_what_is_stored():
    request = request_of("task=parity", "schedule=cosine")
    before = json.dumps(request.config.as_dict())
    shown(request.config, request.steps)
    assert json.dumps(request.config.as_dict()) == before and request.config.as_dict()["eval"]["size"] is None
    # Of a plug-in that is not here, and of an import, what is stored is shown.
    for tree in ({"task": {"name": "gone"}}, {"task": {"name": "x"}, "import": {}}):
        assert shown_stored(tree) == tree


def test_the_command_line_shows_it_and_a_stored_run_its_command(capsys, outputs):
    words = ["task=digits", "optimizer=lookahead", "train.steps=3", "model.hidden=[4]", "launcher=inline"]
    (ensemble,) = train([*words, "seed=0..1", "snapshots.at=never"])
    assert run(["runs", "show", ensemble.id]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    optimizer = document["config"]["optimizer"]
    assert (optimizer["lr"], optimizer["momentum"]) == (0.05, 0.9) and document["config"]["train"][
        "steps"
    ] == 3
    again = shlex.split(document["command"])
    assert again[:2] == ["dynalab", "train"] and again[-2:] == ["train.steps=3", "seed=0..1"]
    assert request_of(*again[2:]).config.id == ensemble.id
    assert run(["config", *words, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["ensembles"]
    assert entry["config"]["optimizer"] == optimizer
    assert (
        "planner" in entry["config"]["compute"]["workers"]
        and "clock" in entry["config"]["checkpoint"]["every"]
    )


@pytest.mark.parametrize(
    "words",
    [
        [f"experiment={path.stem}"]
        for path in sorted((conf_dir() / "experiment").glob("*.yaml"))
    ]
    + [
        ["task=parity", "optimizer=lookahead", "optimizer.inner=rmsprop", "optimizer.inner_alpha=0.5"],
        ["design=crossed", "seed_streams.init=0..2", "seed_streams.order=1,2"],
        ["seed_streams.init=0", "schedule=cosine", "train.steps=77", "probe.weights.at=[1,2]"],
    ],
    ids=lambda words: words[0].partition("=")[2],
)  # fmt: skip
def test_a_stored_configuration_has_a_command_of_its_id(words):
    config = request_of(*words).config
    again = words_of(config)
    assert again is not None and not any(word.startswith("experiment") for word in again)
    assert request_of(*again).config.id == config.id


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (["task=cifar", "task.root=/home/me/data"], "default"),
        (["convergence.threshold=0.5", "levels.test_accuracy=0.5"], "default"),
        (["probes=[weights]", "optimizer.lr=3e-4"], "probes_weights-lr_0.0003"),
        (["task.operation=x/y"], "operation_divide"),
        (
            ["model=onehot_mlp", "model.hidden=[8,8,8,8,8,8,8,8,8,8,8,8,8]"],
            "onehot_mlp-hidden_8_8_8_8_8_8_8_8_8_8_8_8",
        ),
    ],
)
def test_a_folders_name_says_what_decides_and_no_path(words, slug):
    assert request_of(*words).slug == slug


def test_a_notebooks_own_hydra_is_put_back(tmp_path):
    (tmp_path / "conf").mkdir()
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        request_of("task=grokking")
        assert mine is not None and GlobalHydra.instance().hydra is mine
