"""`compute.compile=true`: updates in compiled code are those of the networks, whatever runs are beside, to the bit."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shlex
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stored import assert_same, bits, difference, only_ensemble, trained_in_pieces

import dynalab
from dynalab import train
from dynalab.averages import ema
from dynalab.config import compiling
from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.errors import ConfigError
from dynalab.launch import trials
from dynalab.launch.train import Options
from dynalab.launch.train import train as launch
from dynalab.networks import compiler
from dynalab.networks.compiled import LOSSES
from dynalab.optim.ascent import joint_norm
from dynalab.optim.updates import fuse
from dynalab.store import series
from dynalab.store.paths import ShardPaths
from dynalab.tasks.parity_data import random_bytes
from dynalab.training import planner, trial
from dynalab.training.compiled import Compiled, unknown
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder

pytestmark = pytest.mark.skipif(compiling.compiler() is None, reason="no C++ compiler on this machine")

PARITY = ["task=parity", "task.n=9", "train.batch_size=13", "model.hidden=[21]", "eval.every=10"]
DIGITS = ["task=digits", "task.n_train=90", "train.batch_size=37", "model=mlp", "model.hidden=[19,33]"]
GROKKING = ["task=grokking", "task.modulus=7", "model.width=20", "eval.every=10"]
ONEHOT = ["task=grokking", "task.modulus=7", "model=onehot_mlp", "model.hidden=[19,21]", "eval.every=10"]
GROMOV = [*GROKKING, "model=gromov", "task.loss=mse"]
POLYNET = ["task=parity", "task.n=9", "train.batch_size=70", "model=polynet", "eval.every=10"]
SINUSOID = ["task=parity", "task.n=9", "train.batch_size=70", "model=sinusoid", "eval.every=10"]
MODES = [
    *["train.modes=3", "train.modes_every=3", "train.modes_warmup=4", "train.modes_window=2"],
    "train.modes_share=0.2",
]
MOMENTUM = ["optimizer=sgd", "optimizer.lr=0.03", "optimizer.momentum=0.9"]
REGRESSION = ["task=regression", "model.hidden=[11]", "eval.every=10"]
TEACHER = ["task.target=teacher", "task.teacher=[5,8,5]"]
LOOKAHEAD = ["optimizer=lookahead", "optimizer.k=3"]
# Everything that the code knows, in some combination.
KNOWN = {
    "hinge": PARITY,
    "square, momentum, decay": [*PARITY, "task.loss=square", *MOMENTUM, "optimizer.weight_decay=0.01"],
    "logistic, nesterov": [*PARITY, "task.loss=logistic", *MOMENTUM, "optimizer.nesterov=true"],
    "dampening, no biases": [*PARITY, *MOMENTUM, "optimizer.dampening=0.5", "model.bias=false"],
    "bits of several words, noise": [
        *["task=parity", "task.n=130", "task.k=60", "task.label_noise=0.2", "probes=[weights,gradients]"],
        *["train.batch_size=70", "model.hidden=[150]", "eval.every=10", "eval.train_size=100"],
    ],
    "one neuron": [*PARITY, "model.hidden=[1]"],
    "deep, a sample": [*PARITY, "model.hidden=[7,40,5]", "task.samples=40"],
    "tanh, temperature": [*DIGITS, "model.activation=tanh", "train.temperature=2", *MOMENTUM],
    "gelu": [*PARITY, "model.activation=gelu", "model.hidden=[21,8]"],
    "sin": [*DIGITS, "model.activation=sin", "model.gain=3", *MOMENTUM],
    "cube, adam": [*DIGITS, "model.activation=cube", "optimizer=adam", "optimizer.lr=0.002"],
    "adam, matrices decay": [
        *DIGITS,
        "optimizer=adam",
        "optimizer.weight_decay=0.1",
        "optimizer.decay=matrices",
    ],
    "amsgrad, a schedule": [*DIGITS, "optimizer=adamw", "optimizer.amsgrad=true", "schedule=cosine"],
    "two tables": GROKKING,
    "two tables, relu, batches": [*GROKKING, "model.activation=relu", "train.batch_size=8"],
    "pieces": ["task=grokking", "task.modulus=19", "model.width=20"],
    "an average": [*GROKKING, "average=ema"],
    "a clipped gradient": [*DIGITS, *MOMENTUM, "train.clip=0.2"],
    "lookahead": [*PARITY, *LOOKAHEAD, "optimizer.inner=sgd", *MOMENTUM[1:]],
    "lookahead, adamw, clipped": [
        *DIGITS,
        *LOOKAHEAD,
        "optimizer.inner=adamw",
        "train.clip=0.2",
        "average=ema",
    ],
    "parts of unequal size": [*DIGITS, "train.accumulate=2", "train.clip=0.2"],
    "parts of bits": [*PARITY, "train.accumulate=3", "task.label_noise=0.1"],
    "parts of pairs": [*GROKKING, "train.accumulate=2", "train.batch_size=8"],
    "mean squares": [*GROKKING, "task.loss=mse", "train.temperature=2"],
    "half squares": [*DIGITS, "task.loss=mse", *MOMENTUM],
    "a regression": [*REGRESSION, "optimizer.lr=0.1", "train.temperature=2"],
    "a teacher of several outputs": [*REGRESSION, *TEACHER, "task.loss=mse", "train.batch_size=7"],
    "rmsprop": [*DIGITS, "optimizer=rmsprop", "optimizer.weight_decay=0.1"],
    "rmsprop, centered": [*DIGITS, "optimizer=rmsprop", "optimizer.centered=true"],
    "rmsprop, momentum": [
        *GROKKING,
        *LOOKAHEAD,
        "optimizer.inner=rmsprop",
        "optimizer.momentum=0.9",
        "optimizer.centered=true",
    ],
    "sam, clipped": [*DIGITS, "optimizer=sam", "optimizer.rho=0.5", "train.clip=0.2", "train.accumulate=2"],
    "sam of bits": [*PARITY, *LOOKAHEAD, "optimizer.inner=sam", "optimizer.lr=0.1", "optimizer.rho=0.3"],
    "sam of pairs": [*GROKKING, "optimizer=sam", "optimizer.inner=adamw", "optimizer.rho=0.3"],
    "lookahead, reset": [*DIGITS, *LOOKAHEAD, "optimizer.inner=adam", "optimizer.inner_state=reset"],
    "lookahead, reset, dampening": [
        *PARITY,
        *LOOKAHEAD,
        "optimizer.inner=sgd",
        *MOMENTUM[1:],
        "optimizer.dampening=0.5",
        "optimizer.inner_state=reset",
    ],
    "lookahead, pullback": [*GROKKING, *LOOKAHEAD, "optimizer.inner=adamw", "optimizer.inner_state=pullback"],
    "a clipped gradient of bits": [*PARITY, *MOMENTUM, "train.clip=0.1"],
    "stablemax": [*GROKKING, "task.loss=stablemax", "train.temperature=0.5"],
    "float64": [*DIGITS, "train.loss_dtype=float64", "train.temperature=2", *MOMENTUM],
    "stablemax, float64": [*GROKKING, "task.loss=stablemax", "train.loss_dtype=float64"],
    "a norm that is held": [*GROKKING, "train.norm_clamp=0.7"],
    "a norm of bits": [*PARITY, "optimizer.lr=0.3", "train.norm_clamp=1.3"],
    "a norm that is held, lookahead": [*DIGITS, *LOOKAHEAD, "optimizer.inner=adamw", "train.norm_clamp=0.9"],
    "orthogonal": [*DIGITS, "optimizer.orthogonal=true", "train.clip=0.2"],
    "orthogonal, sam of pairs": [
        *GROKKING,
        "optimizer=sam",
        "optimizer.inner=adamw",
        "optimizer.rho=0.3",
        "optimizer.orthogonal=true",
    ],
    "one-hot": ONEHOT,
    "one-hot, momentum, batches": [*ONEHOT, *MOMENTUM, "train.batch_size=8", "task.loss=stablemax"],
    "one-hot, one hidden layer, lookahead, sam": [
        *[*ONEHOT, "model.hidden=[5]", *LOOKAHEAD, "optimizer.inner=sam", "optimizer.lr=0.1"],
        *["optimizer.rho=0.3", "train.norm_clamp=0.9", "train.accumulate=2"],
    ],
    "gromov": GROMOV,
    "gromov, orthogonal, clipped": [
        *GROMOV,
        "optimizer.orthogonal=true",
        "train.clip=0.01",
        "train.temperature=2",
    ],
    "polynet": [*POLYNET, "model.degree=3", "optimizer.lr=0.3"],
    "polynet of many factors, square, noise": [
        *[*POLYNET, "model.degree=19", "task.loss=square", "task.label_noise=0.2", "optimizer=adam"],
        "train.batch_size=150",
    ],
    "sinusoid": [*SINUSOID, "task.loss=logistic"],
    "sinusoid, one layer": [*SINUSOID, "model.second_layer=false", *MOMENTUM],
    "hinge, float64": [*PARITY, "train.loss_dtype=float64"],
    "square, float64": [*PARITY, "train.loss_dtype=float64", "task.loss=square", "train.temperature=2"],
    "logistic, float64": [*PARITY, "train.loss_dtype=float64", "task.loss=logistic", "task.samples=40"],
    "mean squares, float64": [*GROMOV, "train.loss_dtype=float64", "train.temperature=2"],
    "half squares, float64": [*DIGITS, "task.loss=mse", "train.loss_dtype=float64", *MOMENTUM],
    "a regression, float64": [*REGRESSION, *TEACHER, "train.loss_dtype=float64"],
    "adamw, nothing under the root": [*REGRESSION, *TEACHER, "optimizer=adamw", "optimizer.eps=0"],
    "rmsprop, nothing under the root": [
        *[*REGRESSION, *TEACHER, "optimizer=rmsprop", "optimizer.eps=0", "optimizer.momentum=0.5"],
        "optimizer.lr=0.0001",
    ],
    "modes": [*GROKKING, *MODES],
    "modes, an average": [*DIGITS, *MODES, "average=ema", "average.every=2"],
}
# What it does not know, and how it says so.
UNKNOWN = {
    "model=nanda": [*GROKKING, "model=nanda"],
    "model=mlp": [*DIGITS, "model.norm=batch"],
}

NEW = (
    "one-hot",
    "gromov",
    "polynet",
    "sinusoid",
    "sinusoid, one layer",
    "hinge, float64",
    "mean squares, float64",
)
# What is tried with vectors of other widths.
NARROW = (
    *("bits of several words, noise", "cube, adam", "two tables", "parts of unequal size"),
    *("one-hot", "gromov", "polynet of many factors, square, noise", "sinusoid, one layer"),
    *("logistic, float64", "mean squares, float64", "rmsprop, nothing under the root"),
)


EVALUATED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def loop(words, seeds=range(3), compile=True) -> Loop:
    (request,) = read_command([*words, "train.steps=100"]).requests
    streams = [Streams.from_seed(seed) for seed in seeds]
    return Loop(request.config, streams, 100, torch.device("cpu"), compile=compile)


def mask(*loops: Loop) -> None:
    """Hold about half of the first parameter, the same in every run, and all of the last."""
    for made in loops:
        names, generator = list(made.stack.trained), torch.Generator().manual_seed(0)
        first, last = (made.stack.trained[name] for name in (names[0], names[-1]))
        some = (torch.rand(first.shape[1:], generator=generator) > 0.5).float()
        made.updates.masks.of[names[0]] = some.expand(first.shape).clone()
        made.updates.masks.of[names[-1]] = torch.zeros(len(last), *[1] * (last.dim() - 1))


def held(made: Loop, run: int) -> list[torch.Tensor]:
    """Return all that is a run's."""
    weights, other = made.tensors(run + 1)
    tensors = {**weights, **other}
    return [tensors[name][run] if tensors[name].dim() else tensors[name] for name in sorted(tensors)]


@pytest.mark.parametrize("words", KNOWN.values(), ids=KNOWN)
def test_updates_are_those_of_the_networks(words, one_thread):
    ours, plain = loop(words), loop(words, compile=False)
    assert ours.updates.is_compiled and not plain.updates.is_compiled
    for steps, most in ((1, 1e-5), (19, 1e-3)):
        for _ in range(steps):
            ours.advance(ours.step + 1)
            plain.update()
        for one, other in zip(ours.params, plain.params, strict=True):
            assert (one - other).abs().max() <= most * max(1, other.abs().max())
        (one, other) = (
            (made.rows()[made.measuring.eval_grid.name] for made in (ours, plain)) if steps > 1 else ({}, {})
        )
        for name in ("train_loss", "test_loss") if one else ():
            assert torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-4), name
    assert ours.updates.tensors().keys() == plain.updates.tensors().keys()
    if plain.averaging is not None:
        averages = (made.averaging.stored(made.step) for made in (ours, plain))
        for one, other in zip(*(stored.values() for stored in averages), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    for name, moment in plain.updates.tensors().items():
        torch.testing.assert_close(ours.updates.tensors()[name], moment, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("name", ["hinge", *NEW])
def test_gradients_are_those_of_doubles(name, one_thread):
    """To what single precision resolves of all of a run's gradient."""
    made = loop(KNOWN[name])
    batch, weights = made.updates._data.train_batch(0), made.stack.trained
    leaves = {key: param.detach().double().requires_grad_() for key, param in weights.items()}
    inputs = batch.inputs.double() if batch.inputs.is_floating_point() else batch.inputs
    replace(made.updates._loss, dtype=torch.float64)(
        made.stack.forward(inputs, leaves), batch
    ).sum().backward()
    made.updates.make_block(1, ["gradients"])
    norms = joint_norm(leaf.grad for leaf in leaves.values())
    for key, leaf in leaves.items():
        apart = (made.updates.last.gradients[key] - leaf.grad).flatten(1).norm(dim=1)
        assert (apart <= 3e-7 * norms).all(), key


@pytest.mark.parametrize("name", NEW)
def test_long_trainings_stay_together(name, one_thread):
    ours, plain = loop(KNOWN[name], range(2)), loop(KNOWN[name], range(2), compile=False)
    while plain.step < 500:
        plain.update()
    while ours.step < 500:
        ours.advance(500)
    for split in ("train", "test"):
        one, other = (made.measuring.evaluate(split)[f"{split}_loss"] for made in (ours, plain))
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("words", KNOWN.values(), ids=KNOWN)
def test_evaluations_are_those_of_the_networks(words, one_thread):
    ours, plain = loop(words, range(2)), loop(words, range(2), compile=False)
    for _ in range(8):
        plain.update()
    weights = plain.updates.evaluated()
    for split in ("train", "test"):
        right: list[list[torch.Tensor]] = [[], []]
        one, other = (
            made.measuring._evaluation.of(split, weights, own if hasattr(made.task, "correct") else None)
            for made, own in zip((ours, plain), right, strict=True)
        )
        assert one.keys() == other.keys()
        for name, values in other.items():
            torch.testing.assert_close(one[name], values, rtol=1e-5, atol=1e-6)
        assert ours.measuring._evaluation.compiled is not None
        assert len(right[0]) == len(right[1]) and all(map(torch.equal, *right))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are of x86")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx -mno-fma"])
def test_processors_with_narrower_vectors_make_the_same(without, one_thread, monkeypatch):
    monkeypatch.setenv("CXX", f"{shlex.join(compiling.require())} {without}")
    for name in NARROW:
        test_updates_are_those_of_the_networks(KNOWN[name], one_thread)
        test_evaluations_are_those_of_the_networks(KNOWN[name], one_thread)


@pytest.mark.parametrize(
    "name",
    [
        "hinge",
        "square, momentum, decay",
        "adam, matrices decay",
        "amsgrad, a schedule",
        "two tables",
        "a clipped gradient",
        "lookahead",
        "rmsprop, momentum",
        "sam of pairs",
        "one-hot",
        "gromov",
        "polynet",
        "orthogonal",
        "lookahead, reset",
        "lookahead, pullback",
    ],
)
def test_what_an_edit_holds_stays_whatever_moves_it(name, one_thread):
    """Exactly, while the rest goes on as it does in torch; gradients and moments are 0 there."""
    ours, plain = loop([*KNOWN[name], "average=ema"]), loop([*KNOWN[name], "average=ema"], compile=False)
    for _ in range(4):
        plain.update()
    ours.load(4, *({key: x.clone() for key, x in own.items()} for own in plain.tensors(3)))
    mask(ours, plain)
    before = {key: x.clone() for key, x in ours.updates.evaluated().items()}
    ours.updates.make_block(13, ["gradients", "previous"])
    for _ in range(13):
        plain.update()
    assert ours.updates.is_compiled
    for key, one in ours.updates.evaluated().items():
        torch.testing.assert_close(one, plain.updates.evaluated()[key], rtol=1e-3, atol=1e-4)
        assert not torch.equal(one, before[key]) or key == list(before)[-1]
    for key, own in ours.updates.masks.of.items():
        still = (own == 0).expand(before[key].shape)
        assert still.any() and torch.equal(ours.updates.evaluated()[key][still], before[key][still])
        held = {what: x for what, x in ours.updates.moments()[key].items() if x.dim() and what != "slow"}
        assert not any(x[still].any() for x in (ours.updates.last.gradients[key], *held.values()))
    moments = ours.updates.tensors(), plain.updates.tensors()
    for key, moment in moments[1].items():
        torch.testing.assert_close(moments[0][key], moment, rtol=1e-2, atol=1e-3, msg=key)
    (one, other) = (made.averaging.stored(made.step) for made in (ours, plain))
    for key, averaged in other.items():
        torch.testing.assert_close(one[key], averaged, rtol=1e-3, atol=1e-4)


def test_the_gradient_that_is_clipped_is_a_runs_own(one_thread):
    """Each is scaled by its norm where that is above the largest, and those of a probe are as they were before."""
    free, clipped = loop(DIGITS), loop([*DIGITS, "train.clip=0.3"])
    before = [x.detach().clone() for x in clipped.params]
    for made in (free, clipped):
        made.updates.make_block(1, ["gradients"])
    gradients = clipped.updates.last.gradients
    assert all(map(torch.equal, gradients.values(), free.updates.last.gradients.values()))
    norms = sum(x.double().flatten(1).square().sum(1) for x in gradients.values()).sqrt()
    assert (norms > 0.3).any() and (norms < 0.3).any(), norms
    rate = clipped.config.optimizer.lr
    for was, now, gradient in zip(before, clipped.params, gradients.values(), strict=True):
        factor = (0.3 / norms).clamp(max=1).float().view(-1, *[1] * (gradient.dim() - 1))
        torch.testing.assert_close(now.detach(), was - rate * factor * gradient, rtol=1e-5, atol=1e-7)


def test_random_bytes_are_numpys():
    made = Compiled.__new__(Compiled)
    made.library = ctypes.CDLL(str(compiler.library()))
    streams = [Streams.from_seed(seed) for seed in (0, 7, 2**32 - 1, 2**40 + 3, 2**127 + 5)]
    for name, key, size in (("order", 0, 8160), ("noise", 2**31, 13), ("split", 5, 1)):
        assert np.array_equal(
            made.random_bytes(streams, name, key, size), random_bytes(streams, name, key, size)
        )
    (large,) = made.random_bytes([Streams.from_seed(2**128)], "order", 3, 21)
    assert large[:21].tobytes() == Streams.from_seed(2**128).numpy("order", 3).bytes(21)


@pytest.mark.parametrize("more", [[], [*MOMENTUM, "optimizer.weight_decay=0.01"]], ids=["rests", "moves on"])
def test_examples_without_a_gradient_are_left_out_as_if_they_were_not(more, one_thread):
    """With a wide margin few examples have a gradient, in some batches none; momentum and decay move weights on."""
    words = [*PARITY, "task.k=1", *more, "optimizer.lr=0.3"]
    ours, plain = (loop(words, compile=own) for own in (True, False))
    nothing = []
    while plain.step < 60:
        plain.update()
        nothing.append(bool((plain._losses._last == 0).any()))
        if plain.step == 4:
            ours.load(4, *({name: x.clone() for name, x in own.items()} for own in plain.tensors(3)))
        while 4 <= ours.step < plain.step:
            ours.advance(plain.step)
    assert any(nothing[4:]) and not all(nothing[4:])
    for one, other in zip(ours.params, plain.params, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_first_of_the_largest_outputs_counts(one_thread):
    ours, plain = loop(GROKKING), loop(GROKKING, compile=False)
    weights = {name: torch.zeros_like(param) for name, param in ours.updates.evaluated().items()}
    one, other = (made.measuring._evaluation.of("test", weights) for made in (ours, plain))
    assert torch.equal(one["test_accuracy"], other["test_accuracy"]) and other["test_accuracy"].any()


@pytest.mark.parametrize(
    "average",
    [
        ["average=ema"],
        ["average=ema", "average.decay=0.3", "average.from=7", "average.every=2"],
        ["average=lawa", "average.window=4", "average.every=3"],
        ["average=lawa", "average.window=1"],
        ["average=swa", "average.every=3"],
    ],
    ids="-".join,
)
@pytest.mark.parametrize(
    ("name", "masked"),
    [
        *((name, False) for name in ("hinge", "square, momentum, decay", "amsgrad, a schedule", "lookahead")),
        *(
            (name, False)
            for name in ("rmsprop, centered", "one neuron", "a norm of bits", "modes", "one-hot")
        ),
        *((name, True) for name in ("hinge", "amsgrad, a schedule")),
    ],
)
def test_averages_are_those_of_the_weights_after_every_update(name, masked, average, one_thread):
    """To the bit what is made of them by torch, an update at a time."""
    ours, plain = (loop([*KNOWN[name], *average]) for _ in range(2))
    mask(*(ours, plain) if masked else ())
    plain.updates._averaging = None
    while ours.step < 70:
        ours.advance(70)
    while plain.step < 70:
        plain.advance(plain.step + 1)
        plain.averaging.take(plain.step, None)
    assert ours.updates.is_compiled
    one, other = (made.averaging.tensors(70) for made in (ours, plain))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_an_average_that_does_not_say_how_is_taken_as_without(one_thread, monkeypatch):
    class Own(ema.Ema):
        def take(self, tensors, count):
            super().take(tensors, count)

    monkeypatch.setattr(ema, "build", lambda config, tensors: Own(config.decay, tensors))
    made = loop([*GROKKING, "average=ema"])
    assert made.updates.uncompiled == "it does not know average=ema"
    made.advance(2)
    assert made.step == 1


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize(
    "name",
    [
        "hinge",
        "amsgrad, a schedule",
        "an average",
        "lookahead, adamw, clipped",
        "parts of bits",
        "half squares",
        "sam of bits",
        "stablemax, float64",
        "orthogonal",
        "a norm that is held, lookahead",
        "gelu",
        "lookahead, reset, dampening",
        "lookahead, pullback",
        "a teacher of several outputs",
        "one-hot",
        "gromov",
        "polynet of many factors, square, noise",
        "sinusoid, one layer",
        "logistic, float64",
        "mean squares, float64",
        "adamw, nothing under the root",
    ],
)
def test_a_runs_bits_depend_on_nothing_beside_it(name, masked, one_thread):
    """Neither on who is beside it, nor on how many steps are made at once, nor on where it was interrupted."""
    alone, many, by_step = (
        loop(KNOWN[name], [5]),
        loop(KNOWN[name], [1, 5, 2, 8, 3, 9, 4]),
        loop(KNOWN[name], [5, 6]),
    )
    mask(*(alone, many, by_step) if masked else ())
    resumed = loop(KNOWN[name], [5])
    while alone.step < 40:
        alone.advance(40)
    resumed.load(40, *({key: x.clone() for key, x in own.items()} for own in alone.tensors(1)))
    for made in (alone, many, resumed):
        while made.step < 70:
            made.advance(70)
    for _ in range(70):
        by_step.advance(by_step.step + 1)
    grid = alone.measuring.eval_grid.name
    rows, *others = (made.rows()[grid] for made in (alone, many, by_step, resumed))
    for place, made, own in ((1, many, others[0]), (0, by_step, others[1]), (0, resumed, others[2])):
        for one, other in zip(held(alone, 0), held(made, place), strict=True):
            assert torch.equal(one, other)
        assert all(torch.equal(own[name][place], rows[name][0]) for name in EVALUATED if name in rows)


@pytest.mark.parametrize("name", ["adam, matrices decay", "lookahead"])
def test_the_last_update_of_a_block_can_be_looked_at(name, one_thread):
    words = [*KNOWN[name], "probe.gradients.every=7", "eval.every=50"]
    ours, plain = loop(words), loop(words, compile=False)
    ours.advance(50)
    assert ours.step == 7
    for _ in range(7):
        plain.update()
    for name, gradient in plain.updates.last.gradients.items():
        torch.testing.assert_close(ours.updates.last.gradients[name], gradient, rtol=1e-3, atol=1e-5)
    rows = [made.rows()["every-7"] for made in (ours, plain)]
    assert rows[0].keys() == rows[1].keys()
    for name, values in rows[1].items():
        torch.testing.assert_close(rows[0][name], values, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize(
    "words",
    [
        ["task=grokking", "task.modulus=59", "model.width=9"],
        [*GROKKING, "optimizer=sam", "train.temperature=2", "task.loss=stablemax"],
        [*GROKKING, "train.loss_dtype=float64"],
        [*ONEHOT, "task.modulus=59", "model.hidden=[9]"],
        ["task=parity", "task.n=9", "task.samples=150", "train.batch_size=full", "model.hidden=[21]"],
    ],
    ids=["two pieces", "sam", "float64", "one-hot", "a sample of a parity"],
)
def test_the_next_update_tells_what_an_evaluation_would(words, one_thread):
    made, names = loop([*words, "eval.every=5"]), EVALUATED[:2]
    for turn in range(3):
        row = made.measuring.rows()["every-5"]
        expected = made.measuring.evaluate("train")
        if turn == 1:
            assert all(torch.equal(row[name].result(), expected[name]) for name in names)
        while made.step < 5 * (turn + 1):
            made.advance(100)
        # By now an evaluation would find other losses.
        assert not torch.equal(made.measuring.evaluate("train")["train_loss"], expected["train_loss"])
        assert all(torch.equal(row[name].result(), expected[name]) for name in names)


def test_a_row_that_an_update_will_tell_of_waits_for_it(tmp_path, one_thread, monkeypatch):
    made, paths = loop([*GROKKING, "eval.every=5"]), ShardPaths(tmp_path)
    paths.series_folder.mkdir()
    recorder, asked = Recorder(paths, 3, {}), list[int]()
    evaluate = made.measuring.evaluate
    monkeypatch.setattr(made.measuring, "evaluate", lambda split: asked.append(made.step) or evaluate(split))
    expected, written = [], []
    for step in range(0, 25, 5):
        while made.step < step:
            made.advance(step)
        expected.append(evaluate("train")["train_loss"].numpy())
        for name, row in made.measuring.rows().items():
            recorder.add(name, step, row)
        if step != 5:
            recorder.flush(made.settle(), whole=step == 20)
        path = paths.series("every-5")
        written.append([*series.read(path)["step"]])
    recorder.close()
    # Alone it is written at once, as it is at an end.
    assert written == [[0], [0], [0, 5], [0, 5, 10], [0, 5, 10, 15, 20]] and asked == [0, 20]
    np.testing.assert_array_equal(series.read(path)["train_loss"], expected)


def test_what_is_evaluated_otherwise_is_told_by_no_update(one_thread):
    for words in (DIGITS, [*GROKKING, "task.loss=mse"], [*GROKKING, "eval.size=5"], KNOWN["lookahead"]):
        rows = loop(words).measuring.rows()
        assert all(isinstance(value, torch.Tensor) for row in rows.values() for value in row.values())


@pytest.mark.parametrize("modulus", [7, 17])
def test_gradients_of_what_is_almost_certain_are_torchs(modulus, one_thread):
    """Rounding the label's probability before 1 is taken from it moves all examples one way, and training with them."""
    words = [
        "task=grokking",
        f"task.modulus={modulus}",
        "model.width=20",
        "optimizer=adam",
        "optimizer.lr=0.01",
    ]
    ours, plain = (loop([*words, "probe.gradients.every=1"], compile=own) for own in (True, False))
    plain.update()
    while plain._losses._last.max() > 2e-6:
        plain.update()
        assert plain.step < 2000
    ours.load(plain.step, *({name: x.clone() for name, x in own.items()} for own in plain.tensors(3)))
    for made in (ours, plain):
        made.advance(made.step + 1)
    # Sums over narrow vectors are rounded otherwise than torch's, which moves 1 - 2e-6 by a step of float32, 3%.
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    most = 0.02 if wide and "-mno-avx " not in os.environ.get("CXX", "") else 0.1
    for name, gradient in plain.updates.last.gradients.items():
        apart = (ours.updates.last.gradients[name] - gradient).flatten(1).norm(dim=1)
        assert (apart < most * gradient.flatten(1).norm(dim=1)).all(), name


def test_a_run_that_diverges_stops_alone(one_thread):
    words = [*PARITY, "task.loss=square", "optimizer.lr=0.05", "average=lawa", "average.window=3"]

    def trained(seeds, broken=(), compile=True):
        made = loop(words, seeds, compile)
        with torch.no_grad():
            for place in broken:
                made.params[0][place] = 1e20
        while made.step < 100:
            made.advance(100)
            made.rows()
        return made

    alone, beside, plain = trained([4]), trained([3, 4], [0]), trained([3, 4], [0], False)
    assert beside.settle().tolist() == plain.settle().tolist() and beside.settle()[0] >= 0
    assert all(torch.equal(one, other) for one, other in zip(held(alone, 0), held(beside, 1), strict=True))
    assert not beside.params[0][0].any()
    assert not any(averaged[0].any() for averaged in beside.averaging.stored(100).values())


@pytest.mark.parametrize("part", ["inputs", "targets"])
@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_symbol_or_label_that_there_is_not_is_an_error(part, wrong):
    """And no memory of others is read or written."""
    made = loop([*GROKKING, "train.batch_size=8"])
    batch = made.updates._data.train_batch(0)
    broken = replace(batch, **{part: torch.full_like(getattr(batch, part), wrong)})
    made.updates._data = SimpleNamespace(train_batch=lambda step: broken)
    with pytest.raises(IndexError, match="out of range"):
        made.advance(1)


@pytest.mark.parametrize("words", UNKNOWN.values(), ids=UNKNOWN)
def test_what_it_does_not_know_is_trained_as_without(words, one_thread, request):
    ours, plain = loop(words), loop(words, compile=False)
    word = request.node.callspec.id
    assert not ours.updates.is_compiled and word in ours.updates.uncompiled
    for made in (ours, plain):
        made.advance(30)
    assert ours.step == 1 and all(map(torch.equal, held(ours, 0), held(plain, 0)))


def test_an_optimizer_of_ones_own_is_not_known():
    made = loop(DIGITS)

    def said(build, **keys) -> str | None:
        first, *rest = made.params
        parts = [{"params": [first]}, {"params": rest, **keys}] if keys else made.params
        optimizer = build(parts)
        fuse(optimizer)
        return unknown(made.config, made.stack, made.updates._loss, optimizer)

    sgd, rmsprop = (partial(kind, foreach=True) for kind in (torch.optim.SGD, torch.optim.RMSprop))
    assert said(sgd) is said(sgd, weight_decay=0.1) is said(rmsprop, weight_decay=0.1) is None
    for build in (torch.optim.Adagrad, partial(sgd, maximize=True), partial(rmsprop, maximize=True)):
        assert said(build) == "it does not know optimizer=sgd"
    for build, keys in ((sgd, {"momentum": 0.9}), (sgd, {"lr": 0.5}), (rmsprop, {"alpha": 0.5})):
        assert "differ in more than weight decay" in said(build, **keys)


RUNS = [
    *PARITY,
    "train.steps=24",
    "average=swa",
    "average.every=5",
    "launcher=inline",
    "compute.workers=1",
    "snapshots.at=[0,7]",
]
COMPILED = [*RUNS, "compute.compile=true"]
PLAIN = [*RUNS, "compute.compile=false"]


def test_a_command_trains_runs_that_go_on_to_the_bit(tmp_path, monkeypatch):
    words = [*COMPILED, "seed=0..2", "checkpoint.every=9"]
    whole, pieces = trained_in_pieces(words, tmp_path, monkeypatch)
    assert_same(whole, pieces, whole)
    # Further steps, with another word of it, and a seed alone, by default.
    with pytest.warns(UserWarning, match="goes on as it began, with compute.compile=true"):
        train([*PLAIN, "seed=0..2", "train.steps=31"], outputs=tmp_path / "pieces")
    train([*RUNS, "seed=1", "train.steps=31"], outputs=tmp_path / "alone")
    further, alone = (bits(only_ensemble(tmp_path / name)) for name in ("pieces", "alone"))
    assert difference(further["s0001"], alone["s0001"]) == []
    train([*PLAIN, "seed=1", "train.steps=31"], outputs=tmp_path / "plain")
    assert only_ensemble(tmp_path / "plain").name == only_ensemble(tmp_path / "alone").name
    assert difference(bits(only_ensemble(tmp_path / "plain"))["s0001"], alone["s0001"])


def test_a_fork_is_made_by_the_same_code(tmp_path):
    (parent,) = train([*COMPILED, "seed=0..1", "checkpoint.keep=[12]"], outputs=tmp_path)
    (fork,) = dynalab.fork(parent, 12, ["snapshots.at=[20]", "launcher=inline"])
    (shard,) = Path(fork.path).glob("shard-*")
    assert json.loads((shard / "run.json").read_text())["plan"]["compile"] is True
    ours, parents = (bits(Path(item.path)) for item in (fork, parent))
    for label, run in ours.items():
        assert difference(run, parents[label]) == [], "a fork that changes nothing is its parent"
    # Nor does an edit that holds weights change the code: the first update of the others is the control's.
    words = ["snapshots.at=[13]", "launcher=inline", "train.steps=13"]
    free, frozen = (
        dynalab.fork(parent, 12, [*words, *edit])[0] for edit in ([], ["edit=freeze", "edit.keep=layers.1"])
    )
    before, one, other = (
        item.model(1, step).state_dict() for item, step in ((parent, 12), (frozen, 13), (free, 13))
    )
    for name in one:
        same = (other if name.startswith("layers.1") else before)[name]
        assert torch.equal(one[name], same), name
    with pytest.raises(ConfigError, match="a fork is trained as its parent was"):
        dynalab.fork(parent, 12, ["compute.compile=false"])


@pytest.mark.parametrize("key", ["train.loss_dtype=float64", "train.norm_clamp=0.9", "task.loss=stablemax"])
def test_forks_that_change_what_it_knows_are_compiled(key, tmp_path, one_thread):
    """So that they differ from their parents by the change alone; and theirs, which changes nothing, in no bit."""
    words = [*GROKKING, "train.steps=24", "launcher=inline"]
    (parent,) = train([*words, "seed=0..1", "checkpoint.keep=[12]"], outputs=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (fork,) = dynalab.fork(parent, 12, [key, "launcher=inline", "checkpoint.keep=[18]"])
        (again,) = dynalab.fork(fork, 18, ["launcher=inline"])
    before, after = (item.model(1, 24).state_dict() for item in (parent, fork))
    assert not all(torch.equal(after[name], x) for name, x in before.items())
    for item in (fork, again):
        plans = [json.loads(path.read_text())["plan"] for path in Path(item.path).glob("shard-*/run.json")]
        assert plans and all(plan["compile"] for plan in plans)
    ours, theirs = (bits(Path(item.path)) for item in (again, fork))
    for label, run in ours.items():
        assert difference(run, theirs[label]) == []


def test_a_norm_is_held_where_it_was(one_thread):
    """Of all weights together, and of the slow ones by themselves; a run that was let go stays empty."""
    made = loop(KNOWN["a norm that is held, lookahead"])
    begin = joint_norm(x.detach() for x in made.params)
    while made.step < 6:
        made.advance(6)
    for weights in (made.params, made.updates.evaluated().values()):
        found = joint_norm(x.detach() for x in weights)
        torch.testing.assert_close(found, 0.9 * begin, rtol=1e-6, atol=0)
    with torch.no_grad():
        for x in (*made.params, *made.updates.evaluated().values()):
            x[1] = 0
    made.updates._losses.diverged_step[1] = 6
    made.updates.gradients.lost = made.updates._losses.diverged_step >= 0
    made.advance(7)
    assert not any(x[1].any() for x in made.params) and all(x[0].any() for x in made.params)


def test_what_it_cannot_do_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr("dynalab.networks.compiled.LOSSES", LOSSES[:2])
    line = "it does not know the loss of task=parity"
    with pytest.warns(UserWarning, match=f"compute.compile=true has no effect, for {line}") as told:
        train([*COMPILED, "task.loss=logistic"], outputs=tmp_path)
    assert len(told) == 1
    (parent,) = train([*RUNS, "train.steps=5", "train.clip=1"], outputs=tmp_path)
    with pytest.warns(
        UserWarning,
        match=f"by rounding, too: those were made in compiled code, and {line}",
    ):
        dynalab.fork(parent, 4, ["task.loss=logistic", "launcher=inline"])
    train([*PLAIN, "train.steps=5", "seed=1"], outputs=tmp_path / "plain")
    with pytest.warns(UserWarning, match="goes on as it began, without compute.compile=true"):
        train([*COMPILED, "seed=1"], outputs=tmp_path / "plain")


def test_without_a_compiler_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(
        ConfigError, match=r"CXX=no-such-compiler -O2 is no command on this machine; install one"
    ):
        train(COMPILED, outputs=tmp_path / "outputs")
    monkeypatch.setenv("CXX", shutil.which("false") or "false")
    with pytest.raises(ConfigError, match=r"could not compile compiled\.cpp: it ended with 1"):
        train(COMPILED, outputs=tmp_path / "outputs")
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(compiling, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(
        ConfigError, match="a C\\+\\+ compiler is needed, and there is none of no-such-compiler"
    ):
        train(COMPILED, outputs=tmp_path / "outputs")
    assert not list(tmp_path.glob("outputs/*/*")) and not list((tmp_path / "cache").rglob("*.so"))


def test_it_is_compiled_once_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    made = compiler.library(said.append)
    assert made.is_file() and "updates were compiled for this machine" in said[0]
    assert compiler.library(said.append) == made and len(said) == 1
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_code_of_another_compiler_is_refused(tmp_path, monkeypatch):
    train([*COMPILED, "seed=1"], outputs=tmp_path)
    record = next(tmp_path.glob("*/*/shard-*")) / "run.json"
    whole = record.read_text()
    for key, name in ("rows", "spectra"), ("compiled", "compiled"):
        record.write_text(whole.replace(f'"{key}": "{name}-', f'"{key}": "{name}-0'))
        assert record.read_text() != whole
        before = record.read_text()
        with pytest.raises(ConfigError, match="begun in code of another compiler"):
            train([*COMPILED, "seed=1", "train.steps=30"], outputs=tmp_path)
        # What is done stays so.
        assert record.read_text() == before
    command = read_command([*COMPILED, "seed=1", "train.steps=30"], outputs=tmp_path)
    assert launch(command, Options(anyway=True)).exit_code == 0


def test_images_that_are_many_are_evaluated_a_piece_at_a_time(one_thread, monkeypatch):
    """To the same bits as where they are few: finished once, and through the code at once."""
    monkeypatch.setattr("dynalab.tasks.images.task.CHUNK_SMALL", 32)

    def found() -> tuple[dict[str, torch.Tensor], Loop, int]:
        finished, made = [], loop(DIGITS)
        for split in made.data.eval_batches("train"), made.data.eval_batches("test"):
            finish = split._finish
            split._finish = lambda chosen, finish=finish: finished.append(chosen) or finish(chosen)
        rows = {**made.measuring.evaluate("train"), **made.measuring.evaluate("test")}
        both = made.measuring._evaluation.both(made.updates.evaluated())
        assert all(torch.equal(both[name], rows[name]) for name in EVALUATED)
        return rows, made, len(finished)

    few, made, once = found()
    monkeypatch.setattr("dynalab.tasks.images.data.KEPT_BYTES", 0)
    monkeypatch.setattr("dynalab.networks.compiled.MOST_BYTES", 0)
    many, _, twice = found()
    assert all(torch.equal(few[name], many[name]) for name in EVALUATED)
    splits = [made.data.eval_batches(name) for name in ("train", "test")]
    assert once == sum(map(len, splits)) > 2 and twice == 2 * once
    assert splits[0][0] is next(iter(splits[0]))


def test_by_default_it_is_where_there_is_a_compiler(tmp_path, monkeypatch):
    """And what was begun in one way goes on in it."""

    def plan(name):
        (record,) = (tmp_path / name).glob("*/*/shard-*/run.json")
        return json.loads(record.read_text())["plan"]

    train([*RUNS, "seed=1"], outputs=tmp_path / "compiled")
    assert plan("compiled")["compile"] is True and plan("compiled")["compiled"].startswith("compiled-")
    train([*RUNS, "seed=1", "model.norm=batch"], outputs=tmp_path / "unknown")
    assert plan("unknown")["compile"] is False and "compiled" not in plan("unknown")
    with monkeypatch.context() as patched:
        patched.delenv("CXX", raising=False)
        patched.setattr(compiling, "COMPILERS", ("no-such-compiler",))
        train([*RUNS, "seed=1"], outputs=tmp_path / "plain")
        with pytest.raises(ConfigError, match="updates were made in compiled code, which cannot be had here"):
            train([*RUNS, "seed=1", "train.steps=31"], outputs=tmp_path / "compiled")
    assert plan("plain")["compile"] is False
    with pytest.warns(UserWarning, match="updates go on by torch, for they could not be compiled before"):
        train([*RUNS, "seed=1", "train.steps=31"], outputs=tmp_path / "plain")
    assert plan("plain")["compile"] is False


def test_large_networks_are_left_to_torch_unless_it_is_asked_for():
    words = [*PARITY, "model.hidden=[990,990]"]
    assert [loop(words, [0], compile=asked).updates.is_compiled for asked in (None, True)] == [True, True]
    words = [*PARITY, "model.hidden=[1001,1001]"]
    assert [loop(words, [0], compile=asked).updates.is_compiled for asked in (None, True)] == [False, True]


@pytest.mark.parametrize(
    ("asked", "layouts", "codes"),
    [
        (None, [(2, 1), (2, 2)], [None, False]),
        (True, [(2, 1), (2, 2)], [True, True]),
        (None, [(2, 2), (3, 2)], [None, None]),
    ],
)
def test_a_trial_of_several_threads_beside_one_is_of_torchs(asked, layouts, codes, one_thread, monkeypatch):
    """Compiled code has one; where it is asked for it is what is tried."""
    tried = []
    monkeypatch.setattr(
        trial, "_loop", lambda *given: tried.append(given[-1]) or SimpleNamespace(is_compilable=True)
    )
    monkeypatch.setattr(trial, "_seconds", lambda loop: 1.0)
    found = trial.trial({}, layouts, 1000, "cpu", exact=False, compile=asked)
    assert tried == codes and [timing.threads for timing in found["timings"]] == [t for _, t in layouts]


@pytest.mark.filterwarnings("ignore:.* goes on as it began")
@pytest.mark.parametrize(("faster", "compiled"), [(1, True), (2, False)])
def test_where_more_threads_are_faster_torch_trains_with_them(faster, compiled, tmp_path, monkeypatch):
    timings = [planner.Timing(1, threads, 1.0 if threads == faster else 2.0) for threads in (1, 2)]
    tried = planner.Trial(tuple(timings))
    monkeypatch.setattr(planner, "cores", lambda: 2)
    monkeypatch.setattr(trials.Plans, "_timed", lambda _, request, new: tried if new else None)
    words = [*(word for word in RUNS if not word.startswith(("launcher", "compute"))), "seed=1"]
    words += ["launcher=local", "compute.exact=false"]
    train(words, outputs=tmp_path)
    train([*words, "train.steps=31", "compute.threads=1"], outputs=tmp_path)
    (record,) = tmp_path.glob("*/*/shard-*/run.json")
    plan = json.loads(record.read_text())["plan"]
    assert (plan["threads"], plan["compile"]) == (faster, compiled)


def test_losses_of_stored_weights_are_the_recorded_rows(tmp_path, one_thread):
    for name in (
        "hinge",
        "bits of several words, noise",
        "tanh, temperature",
        "two tables, relu, batches",
        "pieces",
        "float64",
        "stablemax",
        "one-hot",
        "gromov",
        "polynet",
        "sinusoid, one layer",
        "hinge, float64",
        "mean squares, float64",
        "modes",
        "a teacher of several outputs",
    ):
        words = [*KNOWN[name], "train.steps=4", "eval.every=2", "snapshots.every=2", "launcher=inline"]
        (made,) = train([*words, "seed=0..2", "compute.width=2"], outputs=tmp_path / name)
        group = made.group()
        stack = group.stack(4)
        for split in ("train", "test"):
            found = stack.measures(stack.params, stack.examples(split))
            for what in found:
                recorded = [run.series[f"{split}_{what}"].at(np.array([4]))[0] for run in group.runs]
                assert found[what].tolist() == recorded, (name, split, what)
        leaves = {name: param.clone().requires_grad_() for name, param in stack.params.items()}
        loss = stack.losses(leaves, stack.examples("test"))
        plain = stack.losses(stack.params, stack.examples("test"))
        torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-6)
        assert loss.requires_grad


@pytest.mark.parametrize("kind", [torch.float64, torch.int64])
@pytest.mark.parametrize("words", [[*PARITY, "task.samples=40"], GROKKING], ids=["numbers", "symbols"])
def test_examples_of_other_types_are_what_they_are_to_torch(words, kind, one_thread):
    made = {}
    for compile in (True, False):
        own = loop(words, compile=compile)
        batch = other = own.updates._data.train_batch(0)
        if words is not GROKKING:
            other = replace(batch, targets=batch.targets.to(kind))
        elif compile:
            # Torch's loss asks for labels that are int64; symbols may be int32.
            other = replace(batch, targets=batch.targets.to(torch.int32), inputs=batch.inputs.to(torch.int32))
        own.updates._bits, own.updates._data = (
            None,
            SimpleNamespace(train_batch=lambda step, other=other: other),
        )
        own.updates.gradients._data = own.updates._data
        own.advance(1)
        made[compile] = own
    for one, other in zip(made[True].params, made[False].params, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_examples_of_another_width_are_refused():
    made = loop([*PARITY, "task.samples=40"])
    batch = made.updates._data.train_batch(0)
    broken = replace(batch, inputs=batch.inputs[:, :, :-1])
    made.updates._data = SimpleNamespace(train_batch=lambda step: broken)
    with pytest.raises(ValueError, match="examples have 8 inputs, the networks 9"):
        made.advance(1)


def test_code_that_cannot_be_loaded_is_done_without(tmp_path, monkeypatch):
    """Unless it is asked for; and a compiler that fails is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Not loaded: this process would go on with what it has.
    library = compiling._made(compiler.SOURCE, lambda command, seconds: None)
    library.write_bytes(b"")
    said: list[str] = []
    assert compiler.made(None, said.append) is None and "cannot be loaded" in said[0]
    with pytest.raises(ConfigError, match="cannot be loaded; delete it"):
        compiler.made(True)
    library.unlink()
    monkeypatch.setenv("CXX", shutil.which("false") or "false")
    line = "updates are made by torch, for "
    assert compiler.made(None, said.append) is None and line in said[1] and "could not compile" in said[1]
    # The command says so, the shard's log, and the attempt, which `runs show` has.
    with pytest.warns(UserWarning, match=line):
        (made,) = train([*RUNS, "seed=1"], outputs=tmp_path / "outputs")
    assert made.runs[0].status == "done"
    (shard,) = Path(made.path).glob("shard-*")
    (attempt,) = json.loads((shard / "run.json").read_text())["attempts"]
    assert attempt["uncompiled"] == said[1] and said[1] in (shard / "log.txt").read_text()
    # On a machine without a compiler the command says it only of long trainings: see test_train_cli.
    monkeypatch.setenv("CXX", "no-such-compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (made,) = train([*RUNS, "seed=2"], outputs=tmp_path / "outputs")
    attempts = [json.loads(path.read_text())["attempts"] for path in Path(made.path).glob("shard-*/run.json")]
    assert all("updates are made by torch, for " in attempt["uncompiled"] for (attempt,) in attempts)


def test_what_went_on_without_its_code_stays_without(tmp_path, monkeypatch):
    def plan():
        (record,) = tmp_path.glob("*/*/shard-*/run.json")
        return json.loads(record.read_text())["plan"]

    train([*RUNS, "seed=1"], outputs=tmp_path)
    further = read_command([*RUNS, "seed=1", "train.steps=30"], outputs=tmp_path)
    with monkeypatch.context() as patched:
        patched.delenv("CXX", raising=False)
        patched.setattr(compiling, "COMPILERS", ("no-such-compiler",))
        # Rows as well are found by other code.
        assert launch(further, Options(anyway=True)).exit_code == 0
    assert (plan()["compile"], plan()["compiled"]) == (False, "torch")
    further = read_command([*RUNS, "seed=1", "train.steps=40"], outputs=tmp_path)
    assert launch(further, Options(anyway=True)).exit_code == 0
    assert (plan()["compile"], plan()["compiled"]) == (False, "torch")
