"""Runs that have learnt nothing are named."""

from __future__ import annotations

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.learnt import unlearnt


def test_whose_loss_has_not_come_down():
    losses = {"a": [2.0, 1.0, 0.5], "b": [2.0, 2.0, 1.95], "c": [2.0, 3.0, 0.1]}
    runs = Group.of(
        {label: {"train_loss": np.array(own)} for label, own in losses.items()}, np.arange(3)
    ).runs
    assert unlearnt(runs, 2) == "in 1 of 3 runs the training loss is not 5% below that of the first row"
    assert str(unlearnt(runs, 1)).startswith("in 2 of 3 runs") and unlearnt(runs[::2], 2) is None
    assert str(unlearnt(runs, 0)).startswith("in 3 of 3 runs")
    assert unlearnt(Group.of({"a": {"test_loss": np.ones(2)}}, np.arange(2)).runs, 1) is None
