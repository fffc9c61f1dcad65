"""Where nothing happened a figure shows the oddest run alone; else those in which something did come first."""

import numpy as np
import pytest

from dynalab.analysis import eos, periods, slingshot
from dynalab.analysis.base import Group
from dynalab.show.blocks import Span, Strip, Strips, telling

STEPS = np.arange(0.0, 4000, 10)
FALLING = np.exp(-STEPS / 1000)


def strips(analysis, columns_of_runs, config=None):
    runs = {f"s{place:04d}": columns for place, columns in enumerate(columns_of_runs)}
    groups = [Group.of(runs, STEPS, config=config or {})]
    findings = analysis.analyse(groups, analysis.Config())
    return next(block for block in analysis.show(findings, groups) if isinstance(block, Strips))


def test_those_with_something_to_see_come_first():
    quiet, marked = Strip(run="a"), Strip(run="b", marks={"arrival": 0})
    shaded, unmarked = Strip(run="c", spans=[Span(1, 2, "edge")]), Strip(run="d", marks={"arrival": None})
    oddity = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 2.0}
    drawn = telling([quiet, marked, shaded, unmarked], oddity)
    assert [strip.run for strip in drawn] == ["b", "c", "d", "a"]
    assert [strip.run for strip in telling([quiet, unmarked], oddity)] == ["d"]
    assert telling([], {}) == []


def test_without_slingshots_the_run_whose_loss_rose_the_most_is_drawn():
    runs = [
        {"train_loss": FALLING * (1 + rise * (STEPS == 2000)), "last_layer_norm": 1 + 0 * STEPS}
        for rise in (0.0, 0.1, 0.02)
    ]
    block = strips(slingshot, runs)
    assert [strip.run for strip in block.strips] == ["e/s0001"]
    assert "No run has an event" in block.caption and "0.03705 decades" in block.caption
    still = [{"train_loss": FALLING, "last_layer_norm": 1 + 0 * STEPS} for _ in range(2)]
    assert "drawn is that of the first run: no loss ever rose." in strips(slingshot, still).caption


def test_below_the_edge_the_run_nearest_to_it_is_drawn():
    runs = [
        {"sharpness": level * (1 - FALLING) + 1, "stability_threshold": 20 + 0 * STEPS, "train_loss": FALLING}
        for level in (2, 9, 5)
    ]
    block = strips(eos, runs)
    assert [strip.run for strip in block.strips] == ["e/s0001"]
    assert "No run arrived" in block.caption


def test_without_jumps_the_run_whose_norm_changed_the_most_is_drawn():
    runs = [
        {"train_loss": FALLING, "scale_invariant_norm": np.linspace(1, last, len(STEPS))}
        for last in (1.0, 1.1, 1.5)
    ]
    block = strips(periods, runs)
    assert [strip.run for strip in block.strips] == ["e/s0002"]
    assert "changed the most, 1.5 times" in block.caption


@pytest.mark.parametrize("analysis", [eos, slingshot, periods])
def test_a_lone_run_is_drawn_as_ever(analysis):
    column = {"sharpness": 1 + FALLING, "stability_threshold": 20 + 0 * STEPS}
    column |= {"train_loss": FALLING, "last_layer_norm": 1 + 0 * STEPS, "scale_invariant_norm": 1 + 0 * STEPS}
    block = strips(analysis, [column])
    assert len(block.strips) == 1 and "No run" not in block.caption and "no run" not in block.caption
