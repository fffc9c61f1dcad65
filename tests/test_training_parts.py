"""The small parts of training: cadences, streams, schedules, the planner, landmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynalab.config import registry
from dynalab.config.schema import Compute, Levels
from dynalab.training.cadence import cadence, is_log_step
from dynalab.training.planner import Timing, Trial, plan, to_try
from dynalab.training.streams import NAMES, Streams
from dynalab.training.summary import summarise


def test_cadences_are_functions_of_the_step_alone():
    assert [step for step in range(31) if step in cadence(10)] == [0, 10, 20, 30]
    assert [step for step in range(9) if step in cadence(at=[3, 5])] == [3, 5]
    assert not any(step in cadence(at="never") for step in range(100))
    assert cadence(10).name == "every-10" and cadence(at=[5, 3]).name == cadence(at=[3, 5]).name


def test_the_log_grid_has_ten_steps_a_decade():
    grid = [step for step in range(100_001) if is_log_step(step)]
    assert grid[:9] == [0, 1, 2, 3, 4, 5, 6, 8, 10]
    assert grid == sorted({0, *(round(10 ** (k / 10)) for k in range(51))})


def test_streams_are_numpys_spawned_sequences():
    streams = Streams.from_seed(7, init=3)
    expected = np.random.SeedSequence(7, spawn_key=(NAMES["order"], 5)).generate_state(1, np.uint64)[0] >> 1
    assert streams.integer("order", 5) == expected
    assert streams.init == 3 and streams.split == 7
    drawn = {name: streams.numpy(name).integers(2**62) for name in NAMES}
    assert len(set(drawn.values())) == 4
    assert Streams.from_seed(8).integer("init") != Streams.from_seed(7).integer("init")
    assert streams.torch("noise").initial_seed() == streams.integer("noise")


def factor(name: str, length: int, **fields):
    part = registry.find("schedule", name)
    return part.module.build(part.config_class(**fields), length)


def test_schedules_agree_with_their_closed_forms():
    assert [factor("constant", 10)(step) for step in (0, 9)] == [1.0, 1.0]
    assert [factor("warmup", 10, steps=4)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = factor("cosine", 100, final=0.1)
    assert [cosine(step) for step in (0, 50, 100, 200)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert factor("cosine", 10, warmup=5)(0) == 0.2 and factor("cosine", 10, warmup=5)(5) == 1.0
    assert factor("cosine", 7, total=100)(50) == pytest.approx(0.5)
    drops = factor("step", 10, milestones=[3, 6], gamma=0.5)
    assert [drops(step) for step in (2, 3, 6)] == [1, 0.5, 0.25]
    root = factor("inverse_sqrt", 10, warmup=4)
    assert [root(step) for step in (0, 3, 15)] == pytest.approx([0.25, 1.0, math.sqrt(4 / 16)])


@pytest.mark.parametrize(
    ("n_runs", "compute", "widths"),
    [
        (20, Compute(workers=2), (10, 10)),
        (5, Compute(workers=2), (3, 2)),
        (1, Compute(workers=4), (1,)),
        (0, Compute(workers=2), ()),
        (7, Compute(workers=2, width=3), (3, 2, 2)),
        (100, Compute(workers=2), (25, 25, 25, 25)),
        # Seven of 28 or 29 would leave a worker idle in the last of four rounds.
        (200, Compute(workers=2), (25,) * 8),
    ],
)
def test_the_plan_balances_shards(n_runs, compute, widths):
    assert plan(n_runs, compute).widths == widths
    assert str(compute.workers) in plan(n_runs, compute).reason


def trial_of(*timings: tuple[int, int, float], run_bytes: float = 0.0, free: int | None = None) -> Trial:
    return Trial(tuple(Timing(*timing) for timing in timings), run_bytes, free)


def test_the_plan_follows_a_trial():
    two = Compute(workers=2)
    assert to_try(20, two) == [(10, 1), (5, 1), (2, 1)]
    # Narrower stacks only where they are clearly faster.
    slower, faster = trial_of((2, 1, 1.0), (5, 1, 0.99), (10, 1, 1.0)), trial_of((2, 1, 0.5), (10, 1, 1.0))
    assert plan(20, two, trial=slower).widths == (10, 10)
    assert plan(20, two, trial=faster).widths == (2,) * 10
    assert "500 ms a step and run" in plan(20, two, trial=faster).reason
    # Five shards for two workers take three rounds: worth less than it looks.
    assert plan(10, two, trial=trial_of((2, 1, 0.9), (5, 1, 1.0))).widths == (5, 5)
    assert to_try(2, two) == [] and to_try(20, Compute(width=4)) == []
    # Wider ones than usual likewise.
    assert to_try(200, two) == [(32, 1), (16, 1), (7, 1), (100, 1)] and (128, 1) in to_try(1000, two)
    assert plan(200, two, trial=trial_of((7, 1, 1.1), (32, 1, 1.0), (100, 1, 0.95))).widths == (25,) * 8
    assert plan(200, two, trial=trial_of((7, 1, 1.1), (32, 1, 1.0), (100, 1, 0.8))).widths == (100, 100)
    assert plan(1000, two, trial=trial_of((32, 1, 1.0), (128, 1, 0.8))).widths == (125,) * 8


def test_the_plan_respects_memory():
    tight = trial_of((2, 1, 1.0), (10, 1, 1.0), run_bytes=1e9)
    bounded = plan(20, Compute(workers=2), trial=tight, memory=10 * 10**9)
    assert max(bounded.widths) == 3 and sum(bounded.widths) == 20 and "memory" in bounded.reason
    device = trial_of((2, 1, 1.0), (4, 1, 1.0), run_bytes=1e9, free=10**10)
    assert plan(100, Compute(), device="cuda", trial=device).widths[0] == 6


def test_without_exactness_few_runs_get_all_cores():
    free = Compute(exact=False)
    assert to_try(1, free, available=4) == [(1, 4), (1, 1)]
    assert plan(1, free, available=4).threads == 4
    assert plan(1, free, available=4, trial=trial_of((1, 1, 1.0), (1, 4, 2.0))).threads == 1
    # Its rows want a core as well, so further threads have to be worth it.
    assert plan(1, free, available=4, trial=trial_of((1, 1, 1.0), (1, 4, 0.95))).threads == 1
    assert plan(1, free, available=4, trial=trial_of((1, 1, 1.0), (1, 4, 0.8))).threads == 4
    # Several threads are torch's where one was tried beside; not where they are said.
    beside = [trial_of((1, 1, 1.0), (1, 4, seconds)) for seconds in (0.95, 0.8)]
    assert [plan(1, free, available=4, trial=trial).by_torch for trial in beside] == [False, True]
    said = Compute(exact=False, threads=4)
    assert not plan(8, said, available=4, trial=trial_of((2, 4, 0.9), (8, 4, 1.0))).by_torch
    # Work that is over before two layouts were tried takes the one that was.
    assert plan(1, free, available=4, trial=trial_of((1, 1, 1.0))).threads == 1
    assert plan(1000, free, available=4).threads == 1 and plan(1000, free, available=4).workers == 4
    both = plan(2, free, available=4, trial=trial_of((1, 2, 1.0), (1, 1, 1.0), (2, 4, 0.4)))
    assert (both.widths, both.threads, both.workers) == ((2,), 4, 1)
    # With exactness a faster way is said, not taken.
    told = plan(1, Compute(), available=4, trial=trial_of((1, 1, 1.0), (1, 4, 0.4)))
    assert told.threads == 1 and "compute.exact=false would be 2.5 times faster" in told.reason


def test_a_wide_sweep_needs_fewer_shards_an_ensemble():
    assert plan(10, Compute(workers=2), shared_by=4).widths == (10,)
    assert plan(1000, Compute(workers=1), device="cuda:0").widths == (1000,)


def test_landmarks_are_first_rows_and_null_where_they_did_not_happen():
    rows = np.zeros(
        4, [("step", "<i8"), ("wall", "<f8"), ("train_accuracy", "<f8", (2,)), ("test_loss", "<f8", (2,))]
    )
    rows["step"] = [0, 10, 20, 30]
    rows["train_accuracy"] = [[0, 0.5], [0.99, 0.5], [0.2, np.nan], [1.0, 0.98]]
    rows["test_loss"] = np.inf
    first, second = (summarise(rows, index, Levels(), None) for index in (0, 1))
    assert first["memorised_step"] == 10 and second["memorised_step"] is None
    assert first["generalised_step"] is None, "a metric that was not recorded"
    assert first["final"] == {"step": 30, "train_accuracy": 1.0, "test_loss": None}
    cut = summarise(rows, 0, Levels(), diverged_step=10)
    assert cut["memorised_step"] is None and cut["diverged_step"] == 10 and cut["final"]["step"] == 0
