"""The schedule blank begins at the full rate, comes down, and begins again; training goes by it."""

from pathlib import Path

import dynalab
import pytest
from dynalab.config.registry import find

FOLDER = Path(__file__).resolve().parents[1]


def test_it_begins_at_the_full_rate_comes_down_and_begins_again() -> None:
    part = find("schedule", "blank", [FOLDER])
    factor = part.build(part.config_class(period=4, low=0.2), 100)
    assert [factor(step) for step in (0, 2, 4, 6)] == pytest.approx([1.0, 0.6, 1.0, 0.6])
    assert all(0.2 <= factor(step) <= 1.0 for step in range(100))


def test_training_goes_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALAB_PATH", str(FOLDER))
    found = []
    for words in (["schedule=constant"], ["schedule=blank", "schedule.period=2"]):
        words += ["task=regression", "train.steps=2", "eval.every=1", "launcher=inline"]
        (ensemble,) = dynalab.train(words, outputs=tmp_path)
        found.append(ensemble.array("update_norm")[0])  # row t: of the update before it
    constant, falling = found
    assert falling[1] == constant[1] and falling[2] == pytest.approx(constant[2] / 2)
