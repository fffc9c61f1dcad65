"""Averaged weights: against plain references, at every width, through a resume, a divergence, a fork and the store."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stored import assert_same, trained_in_pieces
from torch import nn
from torch.optim import swa_utils

import dynalab
from dynalab.averages.base import COLUMNS
from dynalab.averages.copies import Copy
from dynalab.config import compiling
from dynalab.config.command import read_command
from dynalab.core.errors import ConfigError
from dynalab.launch import inline
from dynalab.optim.lines import padded
from dynalab.training import exactness
from dynalab.training.handover import carry
from dynalab.training.loop import Loop
from dynalab.training.planner import HOLD
from dynalab.training.streams import Streams
from dynalab.training.trial import size

BASE = ["task=grokking", "task.modulus=7", "model.width=8", "eval.every=4"]
DIGITS = ["task=digits", "task.n_train=24", "task.n_test=20", "train.batch_size=10", "eval.every=4"]
PARITY = [
    "task=parity",
    "task.n=9",
    "model.hidden=[21]",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=0.01",
]
NORMED = [*DIGITS, "model=si_mlp", "model.width=8", "optimizer=lookahead", "optimizer.k=3"]
AVERAGES = {
    "ema": ["average=ema", "average.decay=0.8"],
    "lawa": ["average=lawa", "average.window=3", "average.every=2"],
    "swa": ["average=swa", "average.every=3", "average.from=5"],
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def untried(monkeypatch):
    """What a trial would find of bits is known here, and nobody asks for more."""
    monkeypatch.setattr(inline.Launcher, "trial", lambda self, name, **_: {"bits": HOLD} if name else {})


def loop_of(words, seeds=(0, 1, 2), steps=40, compile=False):
    (request,) = read_command([*words, f"train.steps={steps}"]).requests
    streams = [Streams.from_seed(seed) for seed in seeds]
    return Loop(request.config, streams, steps, torch.device("cpu"), compile=compile)


def go(loop, to):
    """Train up to a step; return step -> row of the evaluation."""
    rows = {}
    while loop.step < to:
        loop.update()
        if row := loop.rows().get("every-4"):
            rows[loop.step] = {name: value.clone() for name, value in row.items()}
    return rows


# Against references --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AVERAGES)
def test_it_is_the_plain_average_of_every_seed(name):
    """Of each seed torch's own average of its weights; of lawa a mean over a list."""
    loop = loop_of([*BASE, *AVERAGES[name], "average.from=5"])
    every, own = loop.config.average.every, loop.stack.trained

    def parameters(seed):
        return nn.ParameterList(nn.Parameter(param.detach()[seed].clone()) for param in own.values())

    rule = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.8)} if name == "ema" else {}
    plain = [swa_utils.AveragedModel(parameters(seed), **rule) for seed in range(3)]
    taken = [[] for _ in range(3)]
    assert loop.averaging.of(0) is None
    for step in range(1, 18):
        loop.update()
        for seed in range(3) if step >= 5 and (step - 5) % every == 0 else ():
            plain[seed].update_parameters(parameters(seed))
            taken[seed].append([param.detach()[seed].clone() for param in own.values()])
        if step < 5:
            assert loop.averaging.of(step) is None
            continue
        weights, _ = loop.averaging.of(step)
        for seed in range(3):
            expected = list(plain[seed].module)
            if name == "lawa":
                expected = [torch.stack(some).mean(0) for some in zip(*taken[seed][-3:], strict=True)]
            for param, averaged in zip(expected, weights.values(), strict=True):
                torch.testing.assert_close(averaged[seed], param.detach(), rtol=1e-6, atol=1e-7)


def defined(name, taken):
    """Return the average of weights in the order in which they are taken in, by its definition."""
    if name != "ema":
        return np.mean(taken[-3:] if name == "lawa" else taken, 0)
    found = taken[0]
    for weights in taken[1:]:
        found = 0.8 * found + 0.2 * weights
    return found


def flat(weights):
    return np.concatenate([x.detach().double().flatten(1).numpy() for x in weights.values()], 1)


@pytest.mark.parametrize("compile", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize(
    "base",
    [BASE, [*BASE, "optimizer=lookahead", "optimizer.k=4"], [*BASE, "train.norm_clamp=0.7"], PARITY],
    ids=["adamw", "lookahead", "a norm", "sgd"],
)
@pytest.mark.parametrize("name", AVERAGES)
def test_the_average_at_a_step_has_the_weights_after_its_update(name, base, compile):
    """All that is done to them included; with the weights of a step sooner or later it would be another."""
    if compile and compiling.compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    words = [*base, "eval.every=17", "probes=[]"]
    plain = loop_of(words, compile=compile)
    weights = [flat(plain.updates.evaluated())]
    while plain.step < 40:
        plain.advance(plain.step + 1)
        weights.append(flat(plain.updates.evaluated()))
    loop = loop_of([*words, *AVERAGES[name]], compile=compile)
    assert loop.updates.is_compiled == plain.updates.is_compiled == compile
    keys, seen = loop.config.average, 0
    while loop.step < 39:
        loop.advance(39)
        loop.rows()
        if loop.step < keys.from_:
            continue
        seen += 1
        now, *others = (
            defined(
                name, [weights[max(step + by, 0)] for step in range(keys.from_, loop.step + 1, keys.every)]
            )
            for by in (0, -1, 1)
        )
        error = abs(flat(loop.averaging.of(loop.step)[0]) - now).max()
        # Lookahead's slow weights stay where they are for some steps.
        apart = [found for other in others if (found := abs(other - now).max())]
        assert error < 1e-6 and all(found > 30 * error for found in apart), (loop.step, error, apart)
        assert apart or loop.step < 17
    assert seen >= (3 if compile else 35)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("share", [1e-3, 0.2, 0.5, 0.8, 1.0])
def test_copies_move_to_the_bits_of_lerp(share, dtype):
    """Of what fills its last vector, of what lies otherwise, and of what has nothing behind it, as a buffer."""
    torch.manual_seed(0)
    tensors = [torch.randn(size, dtype=dtype) for size in ((3, 7, 5), (5, 3), (3, 5))]
    tensors[:2] = padded(tensors[0]), tensors[1].T
    held, plain = Copy(tensors), [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.normal_()
    for weights in (tensors, tensors, [2 * tensor for tensor in tensors]):
        held.approach(weights, share)
        for own, x in zip(plain, weights, strict=True):
            own.lerp_(x, share) if share < 1 else own.copy_(x)
    assert all(one.equal(other) for one, other in zip(held.tensors, plain, strict=True))


def test_weights_that_a_trial_lays_elsewhere_are_averaged_there():
    here, elsewhere = (loop_of([*BASE, *AVERAGES["ema"]]) for _ in range(2))
    exactness._shift(elsewhere.stack, 64)
    elsewhere.averaging.edited(0)
    for loop in (here, elsewhere):
        go(loop, 3)
    one, other = (loop.averaging.of(3)[0] for loop in (here, elsewhere))
    for name, averaged in one.items():
        torch.testing.assert_close(averaged, other[name])


MODEL = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "normed"


def build(config, spec):
    from torch import nn

    return nn.Sequential(nn.BatchNorm1d(spec.symbols, momentum=0.3), nn.Linear(spec.symbols, spec.classes))
"""


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_batch_statistics_are_those_that_torch_would_have(name, tmp_path, monkeypatch, untried):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/normed.yaml").write_text("name: normed\n")
    (tmp_path / "model/normed.py").write_text(MODEL)
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path))
    words = [*DIGITS, "model=normed", f"average={name}", "average.every=2", "train.steps=12", "seed=0..1"]
    (ensemble,) = dynalab.train([*words, "snapshots.every=2", "launcher=inline"])
    networks = [ensemble.model(1, step) for step in range(0, 13, 2)]
    rule = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.99), "use_buffers": True}
    torchs = swa_utils.AveragedModel(networks[0], **(rule if name == "ema" else {}))
    for network in networks:
        torchs.update_parameters(network)
    run = ensemble.group().runs[1]
    if name == "swa":
        swa_utils.update_bn([torch.from_numpy(run.examples("train", None)[0])], torchs)
    averaged = ensemble.model(1, 12, average=True)
    for (key, mine), theirs in zip(
        averaged.state_dict().items(), torchs.module.state_dict().values(), strict=True
    ):
        if "num_batches" not in key:
            torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=1e-6, msg=key)
    # And the row is that network's.
    inputs, targets = map(torch.from_numpy, run.examples("test", None))
    loss = nn.functional.cross_entropy(averaged.eval()(inputs), targets.long())
    recorded = ensemble.array("average_test_loss")[1, -1]
    assert recorded == pytest.approx(loss.item(), rel=1e-5)
    assert recorded != ensemble.array("test_loss")[1, -1]


# Bits ----------------------------------------------------------------------------------------------------------------


def same(one, other):
    return one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize(("name", "base"), [("ema", NORMED), ("lawa", BASE), ("swa", NORMED)])
def test_width_and_interruption_do_not_show(name, base):
    words = [*base, *AVERAGES[name]]
    seeds = range(7)
    together = loop_of(words, seeds)
    rows = go(together, 20)
    for some in ([3], [1, 6, 3]):
        alone = go(loop_of(words, some), 20)
        for step, row in alone.items():
            assert {*COLUMNS} <= {*row}
            for column, value in row.items():
                assert same(value[len(some) - 1], rows[step][column][3]), (some, step, column)
    # In the middle of a window, by what a checkpoint holds of three runs.
    early = loop_of(words, [1, 6, 3])
    go(early, 13)
    again = loop_of(words, [1, 6, 3])
    again.load(13, *({n: x.clone() for n, x in part.items()} for part in early.tensors(3)))
    for step, row in go(again, 20).items():
        assert all(same(value[2], rows[step][column][3]) for column, value in row.items()), step
    whole, rest = together.tensors(7)[1], again.tensors(3)[1]
    held = [key for key in rest if key.startswith(("average/", "averaging/"))]
    assert len(held) > len(together.stack.trained)
    assert all(
        rest[key].equal(whole[key]) if "count" in key else rest[key][2].equal(whole[key][3]) for key in held
    )


def test_training_itself_is_what_it_was():
    plain, averaged = loop_of(NORMED), loop_of([*NORMED, *AVERAGES["lawa"]])
    before, rows = go(plain, 8), go(averaged, 8)
    assert all(rows[step][name].equal(value) for step, row in before.items() for name, value in row.items())
    assert all(x.equal(averaged.tensors(3)[0][name]) for name, x in plain.tensors(3)[0].items())


def test_a_training_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch, untried):
    words = [
        *NORMED,
        *AVERAGES["swa"],
        "train.steps=24",
        "seed=0..2",
        "launcher=inline",
        "checkpoint.every=7",
    ]
    whole, pieces = trained_in_pieces(words, tmp_path, monkeypatch)
    assert_same(whole, pieces, whole)
    assert any(key.endswith("average_test_loss") for key in whole["s0000"])


# Runs that diverge, and forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ema", "lawa"])
def test_a_run_that_diverges_leaves_its_siblings_average_alone(name):
    words = [*BASE, *AVERAGES[name]]
    healthy, poisoned = loop_of(words), loop_of(words)
    go(healthy, 10), go(poisoned, 10)
    with torch.no_grad():
        poisoned.params[0][1] = torch.inf
    rows, found = go(healthy, 68), go(poisoned, 68)
    for step, row in rows.items():
        assert all(same(row[column][[0, 2]], found[step][column][[0, 2]]) for column in COLUMNS)
    assert poisoned.lost(3) == [1]
    for part in (poisoned.snapshot(3), *poisoned.tensors(3)):
        averaged = [x for key, x in part.items() if key.startswith("averag") and x.dim()]
        assert all(x.isfinite().all() and not x[1].any() for x in averaged)


def test_a_fork_goes_on_with_an_average_of_the_same_keys_and_begins_another():
    parent = loop_of([*BASE, *AVERAGES["lawa"]])
    go(parent, 17)
    own = parent.averaging.of(17)[0]
    parts = parent.tensors(3)
    same = loop_of([*BASE, *AVERAGES["lawa"], "optimizer.lr=1e-4"])
    carry(parent, same, *parts)
    assert all(x.equal(own[name]) for name, x in same.averaging.of(17)[0].items())
    # Of other keys, also where its grid does not have the step; an edit of the same fork comes first.
    other = loop_of([*BASE, "average=swa", "average.every=5"])
    carry(parent, other, *parts)
    now = {name: param.detach().clone() for name, param in other.stack.params.items()}
    assert all(x.equal(now[name]) for name, x in other.averaging.of(17)[0].items())
    with torch.no_grad():
        other.params[0].mul_(2)
    for loop in (other, same):
        loop.averaging.edited(17)
    first = next(iter(now))
    assert other.averaging.of(17)[0][first].equal(2 * now[first])
    assert all(x.equal(own[name]) for name, x in same.averaging.of(17)[0].items())
    # From a parent without one, later.
    plain, later = loop_of(BASE), loop_of([*BASE, "average=ema", "average.from=20"])
    go(plain, 17)
    carry(plain, later, *plain.tensors(3))
    assert later.averaging.of(17) is None
    rows = go(later, 24)
    assert rows[20]["average_test_loss"].equal(rows[20]["test_loss"])


# What a user meets ---------------------------------------------------------------------------------------------------


def test_networks_of_averaged_weights_come_from_snapshots_and_checkpoints(tmp_path, untried):
    words = [
        *BASE,
        "seed=0..1",
        "launcher=inline",
        "train.steps=12",
        "snapshots.at=[8]",
        "checkpoint.every=10",
    ]
    (ensemble,) = dynalab.train([*words, "average=ema", "average.decay=0.9", "average.from=4"])
    inputs, targets = map(torch.from_numpy, ensemble.group().runs[1].examples("test", None))
    for step in (8, 12):
        network = ensemble.model(1, step, average=True)
        loss = nn.functional.cross_entropy(network(inputs), targets.long()).item()
        at = ensemble.steps("test_loss").tolist().index(step)
        assert ensemble.array("average_test_loss")[1, at] == pytest.approx(loss, rel=1e-5)
        assert ensemble.array("test_loss")[1, at] != pytest.approx(loss, rel=1e-5)
    assert not any(name.startswith("average") for name in ensemble.group().runs[0].weights.at(8))
    early = ensemble.array("average_test_loss")[:, :1]
    assert np.isnan(early).all() and np.isfinite(ensemble.array("average_test_loss")[:, 1:]).all()
    (unbegun,) = dynalab.train([*words, "average=swa", "average.from=11"])
    with pytest.raises(ConfigError, match=r"s0000: by step 8 no weights had been averaged yet$"):
        unbegun.model(0, 8, average=True)
    (plain,) = dynalab.train(words)
    with pytest.raises(ConfigError, match=r"no weights were averaged; train with average=ema, lawa or swa$"):
        plain.model(0, 8, average=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["average=eam"], "average=eam: no such average (did you mean ema?); there are ema, lawa, swa"),
        (["average=ema", "average.decay=1"], "average.decay=1.0: expected a number above 0 and below 1"),
        (["average=ema", "average.decay=0"], "average.decay=0.0: expected a number above 0 and below 1"),
        (["average=ema", "average.window=3"], "average.window: no such key"),
        (["average=lawa", "average.window=0"], "average.window=0: expected an integer of at least 1"),
        (["average=swa", "average.every=0"], "average.every=0: expected an integer of at least 1"),
        (["average=swa", "average.from=-1"], "average.from=-1: expected an integer of at least 0"),
        (["average=swa", "average.form=3"], "average.form: no such key (did you mean average.from?)"),
        (
            ["average=swa", "average.from=101"],
            "average.from=101: expected a step of the training, which has 100",
        ),
        (["average.decay=0.9"], "average.decay: name the average as well, for example average=ema"),
        (["average=[ema,swa]"], "average=[ema,swa]: expected one average; average=ema,swa trains each of"),
        (["average=3"], "average=3: no such average; there are ema, lawa, swa"),
    ],
)
def test_what_cannot_be_averaged_is_said(words, said):
    with pytest.raises(ConfigError) as error:
        read_command(["train.steps=100", *words])
    assert said in str(error.value)


def test_it_is_in_the_identity_where_it_is_given():
    def id_of(*words):
        (request,) = read_command(list(words)).requests
        return request.config.id

    assert id_of("average=null") == id_of() == "cb7150eb3e"
    ids = [id_of(f"average={name}") for name in AVERAGES] + [id_of("average=ema", "average.decay=0.9")]
    assert len({*ids, id_of()}) == 5
    assert id_of("average=ema", "average.decay=0.99", "average.from=0") == ids[0]
    config = read_command(["average=swa", "average.from=5"]).requests[0].config
    assert config.as_dict()["average"] == {"name": "swa", "every": 10, "from": 5}
    assert copy.copy(config).identity()["average"] == {"name": "swa", "from": 5}


def test_what_it_takes_is_counted():
    with pytest.raises(
        ConfigError, match=r"average.window=1000000000: so many copies .* 3 runs take .* are free$"
    ):
        loop_of([*BASE, "average=lawa", "average.window=1000000000"])
    (request,) = read_command(BASE).requests
    (averaged,) = read_command([*BASE, "average=lawa"]).requests
    assert size(averaged.config.as_dict()) == 2 * size(request.config.as_dict())
    loop = loop_of([*BASE, *AVERAGES["lawa"]])
    held = loop.averaging._state()
    # A window of copies is there from the beginning, not first where it is filled.
    assert len(held) == 3 * len(loop.stack.trained)
    assert all(x.any() for key, x in held.items() if loop.stack.params[key.partition("/")[2]].any())
