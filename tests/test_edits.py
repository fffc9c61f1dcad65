"""Edits of the weights where a fork leaves its parent, and what a fork may change besides."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from collisions import collisions_of
from matplotlib.text import Text
from report_fakes import no_drawing
from stored import assert_same, bits

import dynalab
from dynalab import train
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched
from dynalab.core.streams import edit_generator
from dynalab.core.words import number, rounded
from dynalab.launch import inline
from dynalab.report.fork import section
from dynalab.report.write import gathered
from dynalab.store.find import select
from dynalab.store.reader import Ensemble
from dynalab.training.job import Control

STEP, END = 12, 20
DIGITS = ["task=digits", "task.n_train=40", "model=mlp", "model.hidden=[6]", "train.batch_size=16"]
SHORT = [f"train.steps={END}", "seed=0..2", "launcher=inline", "snapshots.at=never", "eval.every=4"]
TASKS = {
    "grokking": ["task.modulus=7", "model.width=8"],
    "parity": ["model.hidden=[6]", "eval.size=64"],
    "regression": ["model.hidden=[5]"],
    "mlm": [
        *("model.width=16", "model.heads=2", "model.layers=1", "model.dropout=0.1"),
        *("train.batch_size=4", "eval.size=16"),
    ],
}
OPTIMIZERS = (
    ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
    ["optimizer=adamw", "optimizer.weight_decay=0.1"],
    ["optimizer=lookahead", "optimizer.inner=adam", "optimizer.weight_decay=0.01", "optimizer.k=2"],
    ["optimizer=rmsprop", "train.clip=0.1"],
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    (made,) = train(
        [*DIGITS, *SHORT, "checkpoint.every=8", "compute.compile=false"],
        outputs=tmp_path_factory.mktemp("outputs"),
    )
    return made


def fork(parent, *words, step=STEP):
    return dynalab.fork(parent, step, [*words, "launcher=inline", "checkpoint.keep=all"])


def weights(ensemble, step, file="model"):
    """Name -> weights (S, ...) of a checkpoint, or what else is in it."""
    from safetensors.torch import load_file

    found = [
        load_file(path)
        for path in sorted(ensemble.path.glob(f"shard-*/checkpoints/step-{step:08d}/{file}.safetensors"))
    ]
    return {name: torch.cat([part[name] for part in found]) for name, x in found[0].items() if x.dim()}


@pytest.mark.parametrize("task", TASKS)
def test_a_fork_without_a_change_is_its_parent_in_every_task(task, tmp_path):
    (parent,) = train([f"task={task}", *TASKS[task], *SHORT, "seed=0..1"], outputs=tmp_path)
    (same,) = dynalab.fork(parent, 7, ["launcher=inline"])
    assert bits(same.path) == bits(parent.path) and same.id != parent.id


def test_a_fork_that_is_prolonged_or_has_other_neighbours_has_the_same_bits(parent):
    words = ["edit=perturb", "edit.scale=0.1", "optimizer.lr=0.01"]
    (short,) = fork(parent, *words, "train.steps=15")
    (longer,) = fork(parent, *words, "train.steps=20")
    assert longer.id == short.id and [run.steps for run in longer.runs] == [END] * 3
    expected = bits(longer.path)
    shutil.rmtree(longer.path)
    (alone,) = fork(parent, *words, "seed=1")
    assert_same(expected, bits(alone.path), ["s0001"])
    # The same command again, without the seed, adds the others.
    (whole,) = fork(parent, *words)
    assert bits(whole.path) == expected != bits(parent.path)
    assert bits(whole.path, STEP - 1) == bits(parent.path, STEP - 1)


def test_perturbations_have_their_size_and_each_run_its_own(parent):
    before = weights(fork(parent)[0], STEP)
    start = {name: tensor.double() for name, tensor in weights(fork(parent, step=0)[0], 0).items()}
    spread = {name: tensor.flatten(1).std(1, correction=0) for name, tensor in start.items()}
    moved = {}
    for kind in ("gaussian", "one", "direction"):
        (shaken,) = fork(parent, "edit=perturb", f"edit.kind={kind}", "edit.scale=0.01")
        now = weights(shaken, STEP)
        moved[kind] = torch.cat(
            [
                (now[name] - before[name]).double().flatten(1) / spread[name][:, None]
                for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
            ],
            1,
        )
    assert moved["gaussian"].square().mean(1).sqrt().tolist() == pytest.approx([0.01] * 3, rel=0.1)
    # By hand: the run's own stream, tensor after tensor.
    by_hand = 0.01 * edit_generator(0, 1, STEP).standard_normal(start["layers.0.weight"][0].numel())
    np.testing.assert_allclose(moved["gaussian"][1, : len(by_hand)], by_hand, atol=2e-6)
    assert (moved["one"] != 0).sum(1).tolist() == [1, 1, 1]
    np.testing.assert_allclose(moved["one"].abs().sum(1), 0.01, rtol=1e-3)
    assert moved["direction"].square().mean(1).sqrt().tolist() == pytest.approx([0.01] * 3, rel=1e-3)
    np.testing.assert_allclose(moved["direction"][0], moved["direction"][1], atol=2e-6)


def test_edits_have_ids_of_their_own(parent):
    words = (
        [],
        ["edit=perturb"],
        ["edit=perturb", "edit.scale=0.002"],
        ["edit=perturb", "edit.seed=1"],
        ["edit=rescale"],
    )
    made = [fork(parent, *item, "train.steps=13")[0] for item in words]
    assert len({item.id for item in made}) == 5
    (neutral,) = fork(parent, "edit=perturb", "edit.kind=gaussian", "edit.scale=1e-3", "train.steps=13")
    assert neutral.id == made[1].id
    several = dynalab.fork(
        parent, STEP, ["edit=rescale", "edit.factor=0.5,2", "train.steps=13", "launcher=inline"]
    )
    assert [item.config["edit"]["factor"] for item in several] == [0.5, 2.0] and several[1].id == made[4].id


@pytest.mark.parametrize("words", OPTIMIZERS, ids=lambda words: words[0])
def test_what_is_frozen_moves_by_exactly_nothing(words, tmp_path):
    (parent,) = train([*DIGITS, *SHORT, *words, "seed=0..1"], outputs=tmp_path)
    (held,) = fork(parent, "edit=freeze", "edit.keep=head")
    (free,) = fork(parent)
    first, last = weights(held, STEP), weights(held, END)
    evaluated = [weights(item, END) for item in (free, parent)]
    assert all(torch.equal(evaluated[0][name], evaluated[1][name]) for name in last)
    for name in last:
        same = torch.equal(first[name], last[name])
        assert same is not name.startswith("layers.1."), name
    states = [weights(held, step, "optim") for step in (STEP, END)]
    for name in states[0]:
        if name.endswith("/slow"):
            assert torch.equal(states[0][name], states[1][name]) is ("layers.1." not in name), name
    row = held.frame().query("step == 12").iloc[0]
    assert np.isfinite(row["update_norm"]) and row["update_norm"] >= 0
    (longer,) = fork(parent, "edit=freeze", "edit.keep=[head]", "train.steps=24")
    assert longer.id == held.id
    again = weights(longer, 24)
    assert all(torch.equal(first[name], again[name]) for name in last if not name.startswith("layers.1."))


def test_weights_are_rescaled_and_the_row_of_the_step_is_measured_after(parent):
    (twice,) = fork(parent, "edit=rescale", "edit.factor=2")
    (same,) = fork(parent)
    now, before = weights(twice, STEP), weights(same, STEP)
    assert all(torch.equal(now[name], 2 * before[name]) for name in before)
    rows = [item.frame().query("step == 12") for item in (twice, parent)]
    np.testing.assert_allclose(rows[0]["param_norm"], 2 * rows[1]["param_norm"].to_numpy(), rtol=1e-6)
    assert (rows[0]["train_loss"].to_numpy() != rows[1]["train_loss"].to_numpy()).all()
    # Of the update before it they are the parent's.
    for name in ("batch_loss", "grad_norm", "update_norm", "last_layer_update_norm", "train_loss_max"):
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    one = fork(parent, "edit=rescale", "edit.factor=0.5", "edit.parts=head")[0]
    now = weights(one, STEP)
    assert {name for name in now if torch.equal(now[name], before[name])} == {
        "layers.0.weight",
        "layers.0.bias",
    }


def test_another_stream_takes_effect_from_the_step_on(parent):
    forks = dynalab.fork(parent, STEP, ["seed_streams.order=5,6", "launcher=inline"])
    assert len(forks) == 2
    for item in forks:
        assert bits(item.path, STEP) == bits(parent.path, STEP)
    assert len({str(bits(item.path)) for item in [parent, *forks]}) == 3
    with pytest.raises(ConfigError, match="initialised already"):
        dynalab.fork(parent, STEP, ["seed_streams.init=5"])


def test_another_optimizer_begins_without_a_state_and_other_probes_have_their_columns(parent):
    (other,) = fork(parent, "optimizer=lookahead", "optimizer.inner=sgd", "optimizer.lr=0.1")
    assert bits(other.path, 8) == bits(parent.path, 8) and [run.steps for run in other.runs] == [END] * 3
    (watched,) = fork(
        parent, "probes=[weights,gradients,curvature]", "probe.curvature.every=4", "optimizer=adam"
    )
    table = watched.frame()
    late = table["step"] >= STEP
    assert table.loc[late, "preconditioned_sharpness"].notna().all()
    assert table.loc[~late, "preconditioned_sharpness"].isna().all()
    theirs = parent.frame()
    np.testing.assert_array_equal(table.loc[~late, "l2"], theirs.loc[theirs["step"] < STEP, "l2"])
    with pytest.warns(
        UserWarning, match=r"probe spectrum: .* none from step 12 to 20; probe.spectrum.every= sets"
    ):
        fork(parent, "probes=[weights,gradients,spectrum]", "probe.spectrum.every=100")
    (finer,) = fork(parent, "probes=[weights,gradients,numerics]", "probe.numerics.every=1")
    assert finer.steps("min_margin").tolist() == list(range(STEP, END + 1))


def test_what_cannot_be_forked_says_why_and_leaves_nothing(parent, tmp_path):
    there = sorted(parent.path.parent.iterdir())
    for words, said in (
        (["edit=freeze", "edit.keep=hed"], r"no such part \(did you mean head\?\)"),
        (["edit=freeze"], "name the parts that go on being trained"),
        (["edit=freeze", "edit.keep=[head,layers]"], "every trained weight"),
        (["model.hidden=[7]"], "a fork goes on with its parent's weights"),
        (["edit=pertub"], "did you mean perturb"),
        (["edit.scale=1"], "name the edit as well"),
        (["eval.every=2"], "parent's grid"),
        (["task=parity"], "parent's weights"),
        (["device=cuda"], "as its parent was"),
        (["train.steps=12"], "a fork at step 12 needs more"),
        (["edit=perturb", "edit.scale=0"], "a number above 0"),
        (["optimizer.lr=1,x"], "expected a number"),
    ):
        with pytest.raises(ConfigError, match=said):
            fork(parent, *words)
    for step in (12.0, True, -1, "12"):
        with pytest.raises(ConfigError, match="expected an integer of at least 0"):
            fork(parent, step=step)
    with pytest.raises(NothingMatched, match="the longest has 20 steps"):
        fork(parent, step=21)
    assert sorted(parent.path.parent.iterdir()) == there


def test_the_command(here, tmp_path):
    words = [*DIGITS, *SHORT[:1], "seed=0..1", "launcher=inline", "snapshots.at=never"]
    (parent,) = train(words, outputs=tmp_path / "outputs")
    plan = here(
        "fork", parent.id, "5", "edit=perturb", "edit.scale=0.1,1", "launcher=inline", "--dry-run", "--json"
    )
    assert plan.code == 0 and len(plan.json["ensembles"]) == 2
    assert (
        here("runs", "list", "--forks", "--json").json["runs"] == here("runs", "list", "--json").json["runs"]
    )
    made = here("fork", parent.id, "5", "edit=perturb", "launcher=inline", "seed=0,7", "--json")
    assert made.code == 3 and "no run that is named has seed 7" in made.err
    (child,) = made.json["ensembles"]
    assert [run["id"] for run in child["runs"]] == [f"{child['id']}/s0000"]
    assert child["config"]["parent"] == f"{parent.id}@5" and child["config"]["edit"]["name"] == "perturb"
    assert "origin" not in child["config"]
    differing = here("runs", "diff", parent.id, child["id"], "--json").json["configuration"]
    assert {row["key"].partition(".")[0] for row in differing} == {"parent", "edit"}
    # Left out where no id names it, and counted at its parent.
    listed = here("runs", "list")
    assert child["id"] not in listed.out and "+1 fork" in listed.out
    assert child["id"] in here("runs", "list", "--forks").out
    assert child["id"] in here("runs", "list", child["id"]).out
    assert here("runs", "list", "@last").out.count(child["id"]) == 1
    assert child["id"] not in here("runs", "list", "-f", "steps=20").out
    assert here("fork", parent.id, "50").code == 4
    assert "STEP=soon: expected a step" in here("fork", parent.id, "soon").err
    assert here("fork", parent.id, "-1").code == 2 and here("fork", parent.id).code == 2
    assert here("fork", parent.id, "5", "edit=perturb", "-q", "launcher=inline").code == 0


def test_the_page_shows_a_fork_beside_its_parent(here, parent, tmp_path):
    (child,) = fork(parent, "edit=rescale", "edit.factor=0.5")
    outputs = str(parent.path.parent.parent)
    # What a page says does not hang on its figures, whose words are looked at below.
    with pytest.MonkeyPatch.context() as patch:
        figures = no_drawing(patch)
        answer = here("report", child.id, "--name", "beside", "--outputs", outputs)
        drawn = {text.get_text() for figure in figures.values() for text in figure.findobj(Text)}
        assert "Beside its parent" not in here("report", parent.id, "--name", "own", "--outputs", outputs).out
    assert answer.code == 0, answer.err
    page = (parent.path.parent.parent / "reports/beside/index.html").read_text()
    assert f"A fork of <strong>{parent.id}</strong> from step 12 on." in page
    assert "Beside its parent" in page and "fork at step 12" in drawn and "edit.factor=0.5" in page
    selection = select(parent.path.parent.parent, [child.id], None, Ensemble)
    ((shown,), _) = gathered(selection, {}, parent.path.parent.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynalab.report.fork.settled", lambda block, *_: block)
        assert collisions_of(section(shown).blocks) == []
    # It is what the page begins with: its title, what it is otherwise, how far apart the runs end, both in one figure.
    assert "forked at step 12; rescale, factor 0.5" in page[page.index("<h1>") : page.index("</h1>")]
    gap = np.subtract(*(item.array("test_accuracy")[:, -1] for item in (child, parent)))
    middle = number(rounded(float(np.median(gap))))
    ends = f"less that of the parent, run by run, is <strong>in the median {middle} ("
    top = page[: page.index("<nav")]
    assert f"<strong>{middle}</strong> <span>" in top.partition('class="numbers"')[2]
    assert ends in top and "The fork beside its parent." in top and "Loss and accuracy." not in top
    # The difference of the last row that both have, by hand.
    mine, theirs = (item.array("test_loss")[:, -1] for item in (child, parent))
    assert f">{number(rounded(float(np.median(mine - theirs))))}<" in page
    words = f"dynalab fork {parent.id} {STEP} edit=rescale edit.factor=0.5 train.steps=20 seed=0..2"
    assert words in page
    shown = here("runs", "show", child.id, "--outputs", outputs)
    assert words in " ".join(shown.out.split())
    assert "A fork of" not in (parent.path.parent.parent / "reports/own/index.html").read_text()


@pytest.mark.parametrize("polls", [5, 12, 14])
def test_a_fork_that_is_interrupted_before_or_after_its_step_goes_on(parent, monkeypatch, polls):
    """No checkpoint before the step was kept: twelve updates lead up to the fork, eight follow."""
    words = ["edit=perturb", "edit.scale=0.3", f"edit.seed={polls}"]
    (whole,) = fork(parent, *words)
    expected = bits(whole.path)
    shutil.rmtree(whole.path)
    left = iter(range(polls))

    def control(**how):
        return Control(**{**how, "stop": lambda: next(left, None) is None})

    with monkeypatch.context() as patched:
        patched.setattr(inline, "Control", control)
        (part,) = fork(parent, *words)
    assert {run.status for run in part.runs} == {"partial"} and part.runs[0].steps == polls
    (again,) = fork(parent, *words)
    assert bits(again.path) == expected


OWN = '''
"""Sets a part to zero."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "blank"
    part: str = "head"
    seed: int = 0


def apply(state, context):
    for name in context.parameters([context.edit.part], "edit.part"):
        for weights in state.copies(name):
            weights.zero_()
        for moment in state.moments(name):
            moment.zero_()
    return state
'''


def test_an_edit_of_ones_own(parent, tmp_path, monkeypatch):
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit/blank.py").write_text(OWN)
    (tmp_path / "edit/blank.yaml").write_text("name: blank\npart: head\nseed: 0\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    (child,) = fork(parent, "edit=blank")
    now = weights(child, STEP)
    assert not now["layers.1.weight"].any() and now["layers.0.weight"].any()
    assert child.config["sources"]["edit"]
    # Another source is another fork.
    (tmp_path / "edit/blank.py").write_text(OWN.replace("Sets", "Puts"))
    assert fork(parent, "edit=blank")[0].id != child.id
    (tmp_path / "edit/blank.py").write_text(OWN.replace("state.copies", "state.copiez"))
    with pytest.raises(DynalabError, match="copiez"):
        fork(parent, "edit=blank", "edit.seed=3")


@pytest.mark.parametrize("text", ["nobody", "x@", "@3", "a@1e3", "../x@3", "a@-1", 7])
def test_a_strangers_word_for_a_parent_is_damage_and_no_bug(here, tmp_path, text):
    (made,) = train([*DIGITS, "train.steps=2", "launcher=inline"], outputs=tmp_path / "outputs")
    config = made.path / "config.yaml"
    config.write_text(config.read_text().replace("\nlevels:", f"\nparent: {text!r}\nlevels:"))
    for words in (["runs", "list"], ["runs", "show", made.id], ["report", made.id], ["fork", made.id, "1"]):
        answer = here(*words)
        assert answer.code in (3, 4) or words[:2] == ["runs", "list"], (words, answer)
        assert "is damaged" in answer.err and "Traceback" not in answer.err, (words, answer)
