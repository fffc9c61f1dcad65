"""The analysis blank finds the step in curves where one knows it."""

from pathlib import Path

import numpy as np
from dynalab.analysis.base import Group
from dynalab.config.registry import find

PART = find("analysis", "blank", [Path(__file__).resolve().parents[1]])
STEPS = np.arange(0, 101, 10)


def test_the_step_is_the_first_at_the_share() -> None:
    falling = {"train_loss": 2.0 * np.exp(-STEPS / 50)}  # at half of it from step 34.7 on
    flat = {"train_loss": np.ones(len(STEPS))}
    group = Group.of({"s0000": falling, "s0001": flat}, STEPS)
    findings = PART.module.analyse([group], PART.config_class(share=0.5))
    assert [fall.step for fall in findings.runs] == [40, None]
    strict = PART.module.analyse([group], PART.config_class(share=0.01))
    assert [fall.step for fall in strict.runs] == [None, None] and strict.median_step is None


def test_it_says_so_with_and_without_curves() -> None:
    group = Group.of({"s0000": {"train_loss": np.linspace(1.0, 0.0, len(STEPS))}}, STEPS)
    findings = PART.module.analyse([group], PART.config_class())
    for groups in ((), (group,)):
        first = next(iter(PART.module.show(findings, groups)))
        assert first.headline and "1 of 1 run" in first.text
