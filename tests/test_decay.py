"""Decoupled weight decay against L2 in Adam's gradient: a reduced run, and what the bar makes of test errors."""

from __future__ import annotations

import numpy as np
import pytest
from bars.decay import COST, judge_coupled, judge_decoupled

from dynalab import train


def errors(tmp_path, optimizer, rate, decays):
    words = ["experiment=loshchilov2019_decay_digits", f"optimizer={optimizer}", f"optimizer.lr={rate}"]
    words += [
        f"optimizer.weight_decay={decays}",
        "train.steps=300",
        "eval.every=300",
        "probes=[]",
        "seed=0..1",
    ]
    found = train([*words, "launcher=inline"], outputs=tmp_path)
    return [1 - ensemble.array("test_accuracy")[:, -1] for ensemble in found]


def test_a_tenth_ruins_adam_and_helps_adamw(tmp_path):
    (coupled,) = errors(tmp_path, "adam", "1e-3", "0.1")
    little, good, much = errors(tmp_path, "adamw", "1e-2", "0.1,1,10")
    assert (coupled > 0.8).all()
    assert (little < 0.35).all() and (good < little).all() and (good < 0.2).all()
    assert (much > good + 0.2).all()


def row(*means):
    spread = np.array([-0.01, 0.0, 0.01])
    return {decay: mean + spread for decay, mean in zip((0.1, 1.0, 3.0, 10.0), means, strict=True)}


def test_the_bar_asks_for_one_best_decay_that_is_no_cliff():
    good = {1e-3: row(0.2, 0.13, 0.14, 0.4), 1e-2: row(0.2, 0.15, 0.2, 0.6)}
    figure, reached = judge_decoupled(good)
    assert reached and "best 1 at every rate" in figure and "15.0±0.6% (5.0±0.0 more)" in figure
    moved = {**good, 1e-2: row(0.14, 0.15, 0.2, 0.6)}
    figure, reached = judge_decoupled(moved)
    assert not reached and "0.01: 0.1" in figure
    steep = {**good, 1e-3: row(0.2, 0.13, 0.13 + COST + 0.01, 0.4)}
    assert not judge_decoupled(steep)[1]


@pytest.mark.parametrize(
    ("low", "high", "reached"),
    [
        ({1e-2: 0.12, 1e-1: 0.9}, {1e-2: 0.15, 1e-1: 0.9}, True),
        ({1e-2: 0.12, 1e-1: 0.3}, {1e-2: 0.15, 1e-1: 0.9}, False),
        ({1e-2: 0.12, 1e-1: 0.9}, {1e-2: 0.11, 1e-1: 0.9}, False),
        ({1e-2: 0.12, 1e-1: 0.9}, {1e-2: 0.9, 1e-1: 0.11}, False),
        ({1e-2: 0.12, 1e-1: 0.11}, {1e-2: 0.15, 1e-1: 0.9}, False),
    ],
)
def test_the_bar_asks_that_l2_fails_as_published(low, high, reached):
    spread = np.array([-0.01, 0.01])
    found = {
        rate: {decay: mean + spread for decay, mean in rows.items()}
        for rate, rows in ((1e-3, low), (1e-2, high))
    }
    assert judge_coupled(found)[1] is reached
