"""Several cards, and the memory of one, by what a launcher says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dynalab.config.command import read_command
from dynalab.config.schema import Compute
from dynalab.core.batch import Batch
from dynalab.launch import local
from dynalab.launch.base import Work
from dynalab.launch.local import Launcher
from dynalab.launch.process import Worker
from dynalab.launch.trials import Plans
from dynalab.training.job import Job
from dynalab.training.objective import objective
from dynalab.training.planner import Timing, Trial, plan


def test_a_stack_for_every_card_and_memory_is_that_of_one():
    def widths(n_runs: int, cards: int, shared_by: int = 1, **keys: Any) -> tuple[int, ...]:
        return plan(n_runs, Compute(**keys), "cuda", shared_by, cards=cards).widths

    assert widths(200, 1) == (200,) and widths(200, 4) == (50,) * 4 and widths(3, 4) == (1, 1, 1)
    # Three ensembles keep two cards busy with a stack each; over eight, each has two.
    assert widths(200, 2, shared_by=3) == (200,) and widths(200, 8, shared_by=3) == (100, 100)
    assert widths(200, 4, width=200) == (200,)
    assert plan(200, Compute(), "cuda", cards=4).workers == 4
    trial = Trial((Timing(2, 1, 1.0), Timing(4, 1, 1.0)), run_bytes=1e9, free_bytes=10**10)
    # Two workers on each of two cards have half its memory each.
    four = plan(100, Compute(workers=4), "cuda", trial=trial, cards=2)
    assert max(four.widths) == 3 and four.workers == 4


class Cards:
    """A launcher on two cards, of which `free` bytes are free; it notes what it is asked."""

    cards = 2

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked: list[str] = []

    def device(self, asked: str) -> str:
        return "cuda"

    def trial(self, task: str, **request: Any) -> dict[str, Any]:
        self.asked.append(task)
        timings = [[2, 1, 0.1], [4, 1, 0.1]]
        return (
            {"found": {"timings": timings, "run_bytes": 10.0, "free_bytes": self.free}}
            if task == "trial"
            else {"found": self.free}
        )


def test_free_memory_is_asked_each_time_and_a_row_with_more_on_is_tried_anew():
    def widest(free: int, *words: str) -> tuple[int, list[str]]:
        command = read_command(["task=parity", "seed=0..99", "device=cuda", "train.steps=9999", *words])
        plans, cards = Plans(command), Cards(free)
        plans.ask(cards)  # type: ignore[arg-type]
        return max(plans.of(command.requests[0], 100).widths), cards.asked

    # Shards of at most 60% of what is free, as even as can be.
    assert widest(500) == (25, ["trial"])
    assert widest(250) == (15, ["room"])
    assert widest(500, "train.steps=5", "optimizer.lr=0.01")[1] == ["room"]
    assert widest(500, "probes=[weights,gradients,curvature]")[1] == ["trial"]
    assert widest(500, "eval.size=64")[1] == ["trial"]


def test_workers_are_numbered_by_what_is_free_and_cards_are_not_shared(monkeypatch):
    sent: list[tuple[int, str]] = []
    server = SimpleNamespace(serves=lambda threads: True, worker=SimpleNamespace)
    monkeypatch.setattr(local.ahead, "server", lambda threads: server)
    monkeypatch.setattr(local.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(
        Worker, "send", lambda self, **keys: sent.append((self.card, keys.get("task", "settings")))
    )
    launcher = Launcher(3, 1)
    assert sent == [(0, "settings"), (1, "settings"), (2, "settings")]
    del launcher._workers[1]
    launcher._start()
    assert [worker.card for worker in launcher._workers] == [0, 2, 1]
    sent.clear()
    shards = [SimpleNamespace(root=f"shard-{place}") for place in range(3)]
    for device, handed in (("cuda", [0, 1]), ("cpu", [0, 2])):
        work = Work(shards, 2, Job(device=device))  # type: ignore[arg-type]
        waiting = local.collections.deque(shards)
        for worker in launcher._workers:
            worker.shard = None
        for worker in launcher._workers:
            launcher._hand_out(worker, waiting, work)
        assert [card for card, _ in sent] == handed and len(waiting) == 1
        sent.clear()


@pytest.mark.parametrize("shared", [True, False])
def test_examples_that_runs_share_are_in_memory_once(shared):
    rows = torch.arange(24.0).view(1, 8, 3).expand(5, 8, 3)
    rows = rows if shared else rows.clone()
    targets = rows[..., 0]
    pieces = [Batch(rows[:, :3], targets[:, :3]), Batch(rows[:, 3:], targets[:, 3:])]
    stack: Any = SimpleNamespace(network=None, width=5, noise_of=lambda step, inputs: {})
    data = SimpleNamespace(eval_batches=lambda split: pieces)
    batch = objective(stack, None, lambda eval_size: data, 6).batch  # type: ignore[arg-type, return-value]
    assert torch.equal(batch.inputs, rows[:, :6]) and torch.equal(batch.targets, targets[:, :6])
    assert batch.inputs.untyped_storage().nbytes() == (1 if shared else 5) * 8 * 3 * 4
