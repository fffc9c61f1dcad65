"""Optimizers around another: whose settings they train with, what is printed, and which ids may move."""

from __future__ import annotations

import json

import pytest

from dynalab.config.command import read_command
from dynalab.config.ensemble import EnsembleConfig, from_tree
from dynalab.errors import ConfigError


def config_of(*words: str) -> EnsembleConfig:
    (request,) = read_command(list(words)).requests
    return request.config


# As they were before an inner optimizer took the task's settings, where it trained with these very settings.
KEPT = {
    "grokking sam": "4c42c02a5a",
    "grokking lookahead": "e819e5dbfa",
    "grokking lookahead sgd": "9adf13b07a",
    "grokking lookahead adamw": "e819e5dbfa",
    "grokking lookahead sam": "1b415e4277",
    "parity sam": "464e358a3b",
    "parity lookahead": "15a203f545",
    "parity lookahead adam": "55e8effe36",
    "digits lookahead sgd": "01493cc944",
    "digits lookahead adam": "c921967533",
    "mnist lookahead adamw": "1b96aa5fcb",
    "mnist lookahead rmsprop": "7dc6206831",
    "cifar lookahead sgd": "4d0076b387",
    "cifar lookahead adamw": "ab771c5ee6",
    "regression lookahead sgd": "33ad59f664",
    "regression lookahead sam": "739f9dd150",
}
# These trained with sgd at 0.1 without momentum, whatever trains the task; now with the task's own optimizer.
MOVED = {
    "digits lookahead": ("86f0d57e7b", "01493cc944"),
    "mnist lookahead": ("92b876b0c0", "1b96aa5fcb"),
    "cifar lookahead": ("8cbe8dd3ed", "4d0076b387"),
    "regression lookahead": ("45ec3cafc5", "33ad59f664"),
}


def words_of(said: str) -> list[str]:
    task, outer, *inner = said.split()
    return [f"task={task}", f"optimizer={outer}", *(f"optimizer.inner={name}" for name in inner)]


def test_an_id_moves_exactly_where_training_changes():
    expected = {**KEPT, **{said: new for said, (_, new) in MOVED.items()}}
    assert {said: config_of(*words_of(said)).id for said in expected} == expected
    # That of mlm holds a hash of Python's text as well.
    assert config_of("task=mlm", "optimizer=lookahead").identity()["optimizer"] == {
        "name": "lookahead",
        "inner": "adamw",
        "lr": 3e-3,
        "weight_decay": 0.01,
        "betas": [0.9, 0.98],
    }


@pytest.mark.parametrize("task", ["digits", "mlm", "parity"])
@pytest.mark.parametrize("inner", [[], ["sam"], ["rmsprop"]])
def test_every_key_is_printed_at_the_value_of_training_and_says_nothing_new(task, inner):
    said = [f"task={task}", "optimizer=lookahead", *(f"optimizer.inner={name}" for name in inner)]
    config = config_of(*said)
    tree = json.loads(json.dumps(config.as_dict()))
    assert None not in tree["optimizer"].values()
    assert from_tree(tree).id == config.id
    typed = [
        f"optimizer.{key}={json.dumps(value)}" for key, value in tree["optimizer"].items() if key != "name"
    ]
    assert config_of(*said, *typed).id == config.id


def test_an_ensemble_of_before_has_its_id_and_its_settings():
    """Its section holds the fields of every inner optimizer, null where nothing was said."""
    tree = config_of("task=digits", "optimizer=lookahead").as_dict()
    unsaid = dict.fromkeys(("lr", "momentum", "nesterov", "betas", "weight_decay", "rho", "inner_alpha"))
    before = {"name": "lookahead", "inner": "sgd", "k": 5, "alpha": 0.5, "inner_state": "keep", **unsaid}
    # It was evaluated on all its training examples.
    tree["eval"].pop("train_size")
    old = from_tree({**tree, "optimizer": before})
    assert old.id == MOVED["digits lookahead"][0]
    assert (old.optimizer.lr, old.optimizer.momentum) == (0.1, 0.0)
    # One whose task said a neutral value, which was hashed.
    said = {**before, "inner": "adam", "lr": 1e-3}
    assert from_tree({**tree, "optimizer": said}).id == "330004ec31"


def test_the_inner_optimizer_takes_its_own_settings_of_the_task_unless_told():
    def lookahead(*words: str):
        return config_of("task=digits", "optimizer=lookahead", *words).optimizer

    assert (lookahead().inner, lookahead().lr, lookahead().momentum) == ("sgd", 0.05, 0.9)
    assert (lookahead("optimizer.lr=0.2").lr, lookahead("optimizer.lr=0.2").momentum) == (0.2, 0.9)
    assert config_of("task=mnist", "optimizer=lookahead").optimizer.inner == "adamw"
    assert lookahead("optimizer.inner=sam").rho == 0.05 and lookahead("optimizer.inner=sam").momentum == 0.9
    # What the task says of sam it says of sam around sgd.
    sam = config_of("task=grokking", "optimizer=sam", "optimizer.inner=adam").optimizer
    assert (sam.lr, sam.betas, sam.inner_config().name) == (3e-3, (0.9, 0.98), "adam")
    for words, said in (
        (["optimizer=sam", "optimizer.inner=lookahead"], "optimizer.inner=lookahead: expected another"),
        (
            ["optimizer=lookahead", "optimizer.inner=adamv"],
            "optimizer.inner=adamv: no such optimizer (did you mean",
        ),
        (
            ["optimizer=lookahead", "optimizer.inner=adam", "optimizer.momentum=0"],
            "optimizer.momentum: no such key",
        ),
        (
            ["optimizer=lookahead", "optimizer.inner=rmsprop", "optimizer.inner_alpha=2"],
            "optimizer.inner_alpha=2",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            config_of("task=digits", *words)
        assert said in str(caught.value)
