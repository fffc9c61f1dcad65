"""Runs that repeat the rows of another are named with their number, and none is left out."""

import numpy as np
import pandas as pd

from dynalab.analysis.base import Group
from dynalab.analysis.repeats import repeats, warning

STEPS = np.arange(0, 100, 10)


def runs(*seeds: int) -> dict[str, dict[str, np.ndarray]]:
    draws = {seed: np.random.default_rng(seed).normal(size=(2, 10)) for seed in seeds}
    columns = {seed: {"loss": loss, "norm": norm} for seed, (loss, norm) in draws.items()}
    return {f"r{place}": columns[seed] for place, seed in enumerate(seeds)}


def test_a_run_that_is_there_again_is_named_in_a_group_and_across_groups():
    one, other = Group.of(runs(0, 1, 0), STEPS, id="a"), Group.of(runs(2, 1), STEPS, id="b")
    assert repeats([one]) == {"a/r2": "a/r0"} and repeats([other]) == {}
    assert repeats([one, other]) == {"a/r2": "a/r0", "b/r1": "a/r1"}
    # What one group alone recorded does not set its copies apart.
    more = Group.of({"r0": runs(0)["r0"] | {"accuracy": STEPS / 100}}, STEPS, id="c")
    assert repeats([one, more]) == {"a/r2": "a/r0", "c/r0": "a/r0"}
    assert warning([one]) == [
        "1 of 3 runs repeats the rows of another (a/r2 is a/r0): it counts as a run of its own, so that intervals and "
        "p-values are too small where these are copies"
    ]
    (line,) = warning([one, more, Group.of(runs(0), STEPS, id="d")])
    assert line.startswith(
        "3 of 5 runs repeat the rows of another (a/r2 is a/r0, c/r0 is a/r0 and 1 more): each"
    )


def test_a_fork_repeats_its_parent_up_to_its_step_alone():
    parent = runs(0)["r0"]
    fork = {name: np.where(STEPS > 50, -values, values) for name, values in parent.items()}
    one, other = Group.of({"s0": parent}, STEPS, id="a"), Group.of({"s0": fork}, STEPS, id="b")
    longer = Group.of(
        {"s0": {name: np.append(values, 0) for name, values in parent.items()}}, np.append(STEPS, 100)
    )
    assert warning([one, other]) == warning([one, longer]) == []
    assert repeats([one.until(50), other.until(50)]) == {"b/s0": "a/s0"}
    # One metric that differs sets runs apart.
    changed = Group.of({"s0": parent | {"norm": -parent["norm"]}}, STEPS, id="b")
    assert repeats([one, changed]) == {}


def test_imports_of_the_same_runs_are_named_where_they_are_analysed_together(here, outputs, tmp_path):
    frames = [
        pd.DataFrame({"run": run, "step": STEPS, "train_loss": loss, "test_loss": loss + 1})
        for run, loss in ((name, columns["loss"]) for name, columns in runs(0, 1, 2, 3).items())
    ]
    for name, chosen in (("mine", frames[:3]), ("again", frames[1:])):
        pd.concat(chosen).to_csv(tmp_path / f"{name}.csv", index=False)
        assert here("import", str(tmp_path / f"{name}.csv"), "--outputs", str(outputs)).code == 0
    answer = here("analyze", "compare", "mine", "again", "--outputs", str(outputs))
    assert answer.code == 0 and answer.err.count("2 of 6 runs repeat the rows of another") == 1
