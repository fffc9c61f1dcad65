"""Forks among what else is stored: found, compared, rehearsed, without their parent; and null forks of all kinds."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from image_fakes import write_cifar, write_mnist
from stored import assert_same, bits

import dynalab
from dynalab import train
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched
from dynalab.launch import inline, local
from dynalab.store import difference
from dynalab.store.find import select
from dynalab.store.paths import OutputPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.job import Control
from dynalab.training.trial import rehearse

DIGITS = ["task=digits", "task.n_train=40", "model=mlp", "model.hidden=[6]", "train.batch_size=16"]
SHORT = ["train.steps=20", "seed=0..1", "launcher=inline", "snapshots.at=never", "eval.every=4"]
IMAGES = ["train.batch_size=8", "eval.size=8", "task.checksums={table}"]
# What the tasks of `test_edits.py` do not have: state of a network, draws of augmentation, an update of several passes.
WAYS = {
    "cifar": ["task=cifar", *IMAGES, "model.width=2"],
    "mnist": ["task=mnist", *IMAGES, "model.hidden=[6]", "task.label_noise=0.2"],
    "sam": [*DIGITS, "optimizer=sam", "schedule=cosine", "train.accumulate=2"],
    "crossed": [*DIGITS, "design=crossed", "seed_streams.init=0..1", "seed_streams.order=0..1"],
}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A parent, two forks with an edit and one with another rate; their ids by name."""
    outputs = tmp_path_factory.mktemp("family") / "outputs"
    (parent,) = train([*DIGITS, *SHORT], outputs=outputs)
    own = ["launcher=inline"]
    small, large = dynalab.fork(parent, 12, ["edit=perturb", "edit.scale=1e-3,1e-1", *own])
    (slow,) = dynalab.fork(parent, 8, ["optimizer.lr=0.01", *own])
    return SimpleNamespace(outputs=outputs, parent=parent, small=small, large=large, slow=slow)


@pytest.fixture
def copy(family, outputs):
    """The family in the test's own outputs folder."""
    shutil.copytree(family.outputs, outputs)
    return outputs


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_without_a_change_is_its_parent_however_it_is_trained(way, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNALAB_DATA", str(tmp_path / "data"))
    make = {"cifar": write_cifar, "mnist": write_mnist}.get(way)
    table = make(tmp_path / "data") if make else ""
    words = [word.format(table=table) for word in WAYS[way]]
    seeds = [word for word in SHORT if not (way == "crossed" and word.startswith("seed="))]
    (parent,) = train([*seeds, *words, "train.steps=6"], outputs=tmp_path / "outputs")
    (same,) = dynalab.fork(parent, 3, ["launcher=inline"])
    assert bits(same.path) == bits(parent.path) and len(same.runs) == (4 if way == "crossed" else 2)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("parent={parent:.4}", "small large slow"),
        ("parent={parent}@12", "small large"),
        ("parent={parent}@1", ""),
        ("parent!={parent}@12", "slow"),
        ("parent={small}", ""),
        ("edit=perturb edit.scale<1e-2", "small"),
        ("edit=null", "slow"),
        ("edit!=perturb", "slow"),
        ("edit.kind=gaussian seed=1", "small large"),
        ("steps=20", "parent"),
    ],
)
def test_a_filter_on_parent_or_edit_takes_forks_in(family, text, names):
    ids = {name: getattr(family, name).id for name in ("parent", "small", "large", "slow")}
    try:
        found = {item.id for item, _ in select(family.outputs, [], text.format(**ids), StoredEnsemble)}
    except NothingMatched:
        found = set()
    assert found == {ids[name] for name in names.split()}


def test_a_filter_on_a_key_that_no_edit_has_is_a_mistake(family):
    with pytest.raises(ConfigError, match=r"did you mean edit\.scale"):
        select(family.outputs, [], "edit.sclae<1", StoredEnsemble)


class InProcess:
    """A launcher whose worker is this process."""

    apart, elsewhere = True, False

    def __init__(self, count: int, threads: int) -> None:
        self.asked = 0

    def device(self, asked: str) -> str:
        return "cpu"

    def trial(self, task: str, **request: Any) -> dict[str, Any]:
        try:
            rehearse(**request)
        except DynalabError as error:
            return {"event": "refused", "message": str(error), "exit_code": error.exit_code}
        return {"event": "finished"}

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edit=freeze", "edit.keep=[nosuch]"], "edit.keep=nosuch: this network has no such part"),
        (["edit=rescale", "edit.parts=hed"], "did you mean head?"),
        (["edit=freeze", "edit.keep=[head],[layers,head]"], "every trained weight"),
        (["edit=perturb", "optimizer=lookahead"], ""),
    ],
)
def test_a_dry_run_says_what_the_worker_would_refuse(family, copy, here, monkeypatch, words, said):
    monkeypatch.setattr(local, "Launcher", InProcess)
    before = sorted(copy.rglob("*"))
    answer = here("fork", family.parent.id, "12", *words, "compute.workers=1", "--dry-run")
    assert (answer.code, said in answer.err) == (2 if said else 0, True), answer
    assert answer.err.count("failed: ") == (1 if said else 0)
    assert sorted(copy.rglob("*")) == before


def test_a_dry_run_of_another_rate_needs_no_worker(family, copy, here, monkeypatch):
    def none(*_: object) -> None:
        raise AssertionError("a worker was asked for")

    monkeypatch.setattr(InProcess, "__init__", none)
    monkeypatch.setattr(local, "Launcher", InProcess)
    assert here("fork", family.parent.id, "12", "optimizer.lr=0.1,0.2", "--dry-run").code == 0


def test_a_fork_of_a_fork_is_new_until_it_is_trained(family, copy, here):
    # What was cut out of its parent was trained in its parent's segments, and is nothing of its own yet.
    words = ["fork", family.small.id, "16", "edit=freeze", "launcher=inline"]
    before = sorted(copy.glob("digits/*"))
    refused = here(*words)
    assert refused.code == 2 and "2 new, 0 to go on" in refused.err and "edit.keep=[]" in refused.err
    assert sorted(copy.glob("digits/*")) == before
    made, longer = here(*words, "edit.keep=[head]"), here(*words, "edit.keep=[head]", "train.steps=24")
    assert (made.code, longer.code) == (0, 0)
    assert "2 new, 0 to go on" in made.err and "0 new, 2 to go on" in longer.err


def test_forks_go_on_without_their_parent(family, copy, here, monkeypatch):
    words = ["edit=perturb", "edit.scale=0.1", "train.steps=24", "launcher=inline"]
    half = ["fork", family.parent.id, "16", "edit=rescale", "launcher=inline"]
    assert here(*half).code == 0
    (whole,) = select(copy, ["@last"], None, StoredEnsemble)
    expected = bits(whole[0].path)
    shutil.rmtree(whole[0].path)
    left = iter(range(6))
    with monkeypatch.context() as patched:
        patched.setattr(
            inline, "Control", lambda **how: Control(**{**how, "stop": lambda: next(left, None) is None})
        )
        here(*half)
    gone = here("runs", "rm", family.parent.id, "--yes")
    assert (
        gone.code == 0
        and f"{family.parent.id} has 4 forks that stay" in gone.err
        and family.small.id in gone.err
    )
    # One that was cut off before its own first step, and one that is prolonged: to the bit as with the parent.
    assert here(*half).code == 0 and bits(whole[0].path) == expected
    longer = here("fork", family.parent.id[:6], "12", *words)
    assert longer.code == 0, longer.err
    (with_parent,) = dynalab.fork(family.parent, 12, words)
    assert_same(
        bits(with_parent.path), bits(copy / with_parent.path.relative_to(family.outputs)), ["s0000", "s0001"]
    )
    # A new one would need what is gone.
    new = here("fork", family.parent.id, "12", "edit=perturb", "edit.scale=0.2")
    assert new.code == 4 and "is not stored any more" in new.err and f"{family.slow.id} (step 8)" in new.err
    assert here("fork", "nosuch", "12").code == 4
    shown = here("runs", "show", family.slow.id)
    assert shown.code == 0 and f"goes on from {family.parent.id}, which is not in " in shown.err
    assert "is not in" not in here("runs", "show", family.slow.id, "--outputs", str(family.outputs)).err


def test_a_parent_goes_with_its_forks_without_a_word(family, copy, here):
    ids = [getattr(family, name).id for name in ("parent", "small", "large", "slow")]
    assert "stay" not in here("runs", "rm", *ids, "--yes").err


def test_forks_are_taken_in_with_an_ensemble_that_is_named_and_each_is_compared_with_it(family, copy, here):
    answer = here("fork", family.slow.id, "16", "optimizer.lr=0.1", "launcher=inline", "--json")
    assert answer.code == 0, answer.err
    (grand,) = (
        item
        for item in map(StoredEnsemble, OutputPaths(copy).ensembles())
        if str(item.parent).endswith("@16")
    )
    names = {"parent": family.parent, "small": family.small, "large": family.large, "slow": family.slow}
    ids = {name: item.id for name, item in names.items()} | {"grand": grand.id}
    found = [item.id for item, _ in select(copy, [ids["parent"]], None, StoredEnsemble, forks=True)]
    assert {*found} == {*ids.values()} and len(found) == 5
    chosen = select(copy, [f"{ids['slow']}/s0001"], None, StoredEnsemble, forks=True)
    assert [(item.id, [run.label for run in runs]) for item, runs in chosen] == [
        (ids["slow"], ["s0001"]),
        (ids["grand"], ["s0001"]),
    ]
    assert [item.id for item, _ in select(copy, [ids["slow"]], None, StoredEnsemble)] == [ids["slow"]]
    edited = [ids["parent"], ids["small"], ids["large"]]
    (result,) = here("analyze", "compare", *edited, "--json").json["analyses"]
    pairs = {frozenset((pair["a"], pair["b"])) for pair in result["pairs"] if pair["of"] == "test_loss"}
    assert len(pairs) == 3 and result["uncompared"] == 0 and not result["effects"]
    (result,) = here("analyze", "compare", ids["parent"], "--forks", "--json").json["analyses"]
    assert {setting["ensemble"] for setting in result["settings"]} == {*ids.values()}
    said = here("analyze", "compare", ids["parent"], "--forks").out
    n = result["uncompared"]
    assert n > 0 and f"{n} of 10 pairs of settings differ in more than one key and are not compared" in said


def test_diff_names_the_row_from_which_a_fork_differs(family, copy, here):
    found = here("runs", "diff", family.parent.id, family.large.id, "--json").json["divergence"]
    steps = {row["metric"]: row["step"] for row in found["metrics"]}
    # Measured after the edit; what belongs to the update before it is the parent's.
    assert found["step"] == steps["param_norm"] == 12 and steps["batch_loss"] == 16
    assert {row["rows"] for row in found["metrics"]} == {12} and found["metrics"][0]["runs"] == 2
    said = here("runs", "diff", f"{family.parent.id}/s0001", f"{family.slow.id}/s0001").out
    assert "the first row that differs is that of step 12" in said
    same = here("runs", "diff", family.parent.id, family.parent.id).out
    assert "equal in all 12 rows that both have, in all of " in same


class Side:
    """Stored rows of a metric or two: run -> metric -> (steps, values)."""

    def __init__(self, **runs: dict[str, tuple[list[int], list[float]]]) -> None:
        self.metrics = [*dict.fromkeys(name for run in runs.values() for name in run)]
        self.runs: Any = [SimpleNamespace(label=label, own=own) for label, own in runs.items()]
        self.blocks: list[str] = []

    def rows(self, run: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(map(np.array, run.own[name]))


def test_values_are_compared_to_the_bit_where_both_have_a_row():
    nan = float("nan")
    one = Side(
        a={"x": ([0, 4, 8], [1.0, nan, nan]), "y": ([0, 4], [0.0, 1.0]), "z": ([0], [1.0])},
        b={"x": ([0], [1.0])},
    )
    other: Any = Side(
        a={"x": ([0, 4, 6, 8], [1.0, nan, 7.0, 2.0]), "y": ([0, 4], [-0.0, 1.0]), "w": ([0], [1.0])}
    )
    found = difference.divergence(one, one.runs, other, other.runs)  # type: ignore[arg-type]
    assert found["step"] == 0 and found["metrics"] == [
        {"metric": "y", "step": 0, "runs": 1, "rows": 2},
        {"metric": "x", "step": 8, "runs": 1, "rows": 3},
    ]


def test_a_probe_that_has_no_row_is_named_before_anything_is_trained(tmp_path, here, monkeypatch):
    monkeypatch.setattr(local, "Launcher", InProcess)
    words = [*DIGITS, *SHORT, "optimizer.lr=0.1,0.2"]
    answer = here("train", *words, "probe.gradients.every=40", "--dry-run")
    line = "probe gradients: it has a row every 40 steps, and none from step 1 to 20; probe.gradients.every= sets"
    assert answer.code == 0 and answer.err.count(line) == 1
    assert "probe gradients" not in here("train", *words, "probe.gradients.every=20", "--dry-run").err
    with pytest.warns(UserWarning, match="probe gradients: it has a row every 40 steps"):
        train([*words, "optimizer.lr=0.1", "probe.gradients.every=40", "seed=0"], outputs=tmp_path)
