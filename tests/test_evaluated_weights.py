"""What is evaluated fits together: Lookahead's slow weights with their running statistics, on the sphere as well."""

from __future__ import annotations

import pytest
import torch
from stored import assert_same, bits, only_ensemble

from dynalab import train
from dynalab.config.command import read_command
from dynalab.models.nets.parts import parts
from dynalab.networks import evaluation
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

WORDS = [
    "task=digits",
    "model=si_mlp",
    "model.width=8",
    "task.n_train=64",
    "train.batch_size=16",
    "eval.every=1",
]
WORDS += [
    "optimizer=lookahead",
    "optimizer.inner=sgd",
    "optimizer.lr=0.2",
    "optimizer.k=4",
    "optimizer.alpha=0.5",
]
WORDS += ["probes=[scale_invariant]", "eval.size=64"]

pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(*words: str) -> Loop:
    (request,) = read_command([*WORDS, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in (0, 1)], 40, torch.device("cpu"))


def test_slow_weights_are_evaluated_with_averaged_statistics():
    """The reference averages at every synchronisation."""
    loop = loop_of()
    names = [name for name in loop.stack.buffers if "running" in name]
    slow = {name: loop.stack.buffers[name].clone() for name in names}
    for step in range(1, 11):
        loop.update()
        if step % 4 == 0:
            slow = {name: old + 0.5 * (loop.stack.buffers[name] - old) for name, old in slow.items()}
        kept = loop.snapshot(2)
        for name in names:
            assert torch.equal(kept[name], slow[name]) and torch.equal(
                loop.stack.evaluated_buffers[name], slow[name]
            )
            assert step % 4 == 0 or not torch.equal(slow[name], loop.stack.buffers[name])
        held = {
            **loop.updates.evaluated(),
            **slow,
            **{n: loop.stack.buffers[n] for n in ("head.weight", "head.bias")},
        }
        (batch,) = loop.data.eval_batches("test")
        outputs = loop.stack.network._run(held, batch.inputs, False)
        expected = loop.task.loss(outputs, batch).double()
        torch.testing.assert_close(loop.rows()["every-1"]["test_loss"], expected, rtol=1e-6, atol=0)


def test_slow_statistics_survive_a_resume_and_old_checkpoints_go_on(tmp_path):
    words = [*WORDS, "launcher=inline", "compute.width=2", "seed=0..1", "checkpoint.keep=all"]
    for steps in (6, 13):
        train([*words, f"train.steps={steps}"], outputs=tmp_path / "pieces")
    (ensemble,) = train([*words, "train.steps=13"], outputs=tmp_path / "whole")
    one, other = bits(only_ensemble(tmp_path / "pieces")), bits(only_ensemble(tmp_path / "whole"))
    assert_same(one, other, one)
    loop = loop_of()
    for _ in range(6):
        loop.update()
    weights, rest = loop.tensors(2)
    # The checkpoint of a step that is not on the grid of snapshots: evaluated weights with their statistics.
    restored = ensemble.model(1, 13).state_dict()
    for _ in range(7):
        loop.update()
    for name, tensor in loop.snapshot(2).items():
        assert torch.equal(restored[name], tensor[1]), name
    before = {key: value for key, value in rest.items() if "running" not in key}
    again = loop_of()
    again.load(6, weights, before)
    assert all(torch.equal(again.stack.evaluated_buffers[n], x) for n, x in again.stack.buffers.items())


def test_the_sphere_holds_the_slow_weights():
    loop = loop_of("train.sphere=true")
    radius = loop.rows()["every-1"]["scale_invariant_norm"]
    seen = []
    for _ in range(9):
        loop.update()
        torch.testing.assert_close(loop.rows()["every-1"]["scale_invariant_norm"], radius, rtol=1e-6, atol=0)
        fast = (
            torch.stack([p.detach().double().flatten(1).square().sum(1) for p in loop.params]).sum(0).sqrt()
        )
        torch.testing.assert_close(fast, radius, rtol=1e-6, atol=0)
        seen.append(loop.updates.evaluated()["layers.0.weight"].clone())
    # Between synchronisations nothing touches them.
    assert all(torch.equal(seen[i], seen[i + 1]) == ((i + 2) % 4 != 0) for i in range(8))
    assert torch.equal(loop.stack.params["layers.0.weight"], seen[-1]) is False


def test_each_run_has_its_own_slow_weights_when_they_are_restored(tmp_path):
    words = [*WORDS, "launcher=inline", "compute.width=2", "seed=0..1", "snapshots.at=never", "train.steps=6"]
    (ensemble,) = train(words, outputs=tmp_path)
    nets = [ensemble.model(seed, 6).state_dict() for seed in (0, 1)]
    assert not torch.equal(nets[0]["layers.0.weight"], nets[1]["layers.0.weight"])


@pytest.mark.parametrize("model", ["mlp", "mlp model.norm=batch", "si_mlp"])
def test_a_few_runs_at_a_time_are_evaluated_as_all_at_once(model, monkeypatch):
    words = [
        "task=digits",
        "task.n_train=64",
        "train.batch_size=16",
        "eval.size=64",
        *f"model={model}".split(),
    ]
    (request,) = read_command([*words, "probes=[]"]).requests
    loop = Loop(request.config, [Streams.from_seed(s) for s in range(7)], 40, torch.device("cpu"))
    for _ in range(3):
        loop.update()
    widths = []
    forward = loop.stack.forward

    def watched(inputs, *more, **named):
        widths.append(len(inputs))
        return forward(inputs, *more, **named)

    monkeypatch.setattr(loop.stack, "forward", watched)
    found = []
    for entries, expected in ((1 << 17, [7]), (3 * 64 * 64, [3, 4]), (1, [2, 2, 3])):
        monkeypatch.setattr(evaluation, "MOST_ENTRIES", entries)
        found.append(loop.measuring.evaluate("test"))
        assert widths == expected
        widths.clear()
    assert all(torch.equal(values[name], found[0][name]) for values in found for name in found[0])


def test_parts_cover_all_and_none_is_too_narrow():
    assert parts(1, 4) == [slice(0, 1)]
    for width in range(2, 14):
        for size in (0, 1, 2, 3, 5, 20):
            cut = parts(width, size)
            assert [run for part in cut for run in range(width)[part]] == [*range(width)]
            assert all(2 <= part.stop - part.start <= max(size, 2) + 1 for part in cut)
