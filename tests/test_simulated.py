"""Simulated ensembles from metrics to detours, reduced: a few cases with few restarts; the bars take hundreds."""

import pytest
from bars import simulated

# Fewer starts and candidates than the defaults: the suite has seconds.
REDUCED = {"restarts": 2, "folds": 2, "max_states": 3}


@pytest.mark.parametrize(("number", "emission"), [(0, "level"), (5, "ar")])
def test_states_and_detour_of_a_planted_case(number, emission):
    found = simulated.whole(number, None, emission=emission, **REDUCED)
    assert found["states"] == found["true"] and found["rand"] > 0.95 and found["found"]
    assert found["published"]


def test_a_state_without_a_cost_is_no_detour():
    found = simulated.whole(5, 0.0, emission="ar", **REDUCED)
    assert found["states"] == found["true"] and not found["detours"]


def test_the_bars_measure_and_judge(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "PLANTED", 1)
    monkeypatch.setattr(simulated, "WITHOUT", 1)
    figure, reached = simulated.detour_test(tmp_path)
    assert figure.startswith("found 1 of 1") and "false in 0 of 1" in figure and not reached
    assert len((tmp_path / "given-planted.jsonl").read_text().splitlines()) == 1
