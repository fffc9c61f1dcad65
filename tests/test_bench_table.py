"""The benchmark's own parts: its loop trains what dynalab trains, its floor counts what a step multiplies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SMALL = ("task=grokking", "task.modulus=11", "model.width=16", "eval.every=5")


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize(
    "words",
    [SMALL, ("task=parity", "model.hidden=[8]", "eval.every=5"), ("task=regression", "eval.every=5")],
    ids=["grokking", "parity", "regression"],
)
def test_the_bare_loop_trains_what_dynalab_trains(words, tmp_path):
    from benches import loop

    import dynalab

    rows = loop.train(loop.configuration(words), seed=2, steps=20)
    (ensemble,) = dynalab.train([*words, "seed=2", "train.steps=20", "launcher=inline"], outputs=tmp_path)
    assert [row["step"] for row in rows] == list(ensemble.steps("test_loss"))
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose([row[name] for row in rows], ensemble.array(name)[0], rtol=2e-3)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_the_floor_counts_the_products_of_a_step():
    from benches import floor, loop

    calls, flops = floor.record(loop.configuration(SMALL))
    # One layer after the tables, on 48 of 121 pairs: forward, and the gradients of its weights and of its inputs.
    assert (len(calls), flops) == (3, 3 * 2 * 48 * 16 * 11)
    shapes = sorted(tuple(call().shape) for call in calls)
    assert shapes == [(11, 16), (48, 11), (48, 16)]


def test_seeds_scale_and_starting_does_not():
    from benches.base import Row
    from benches.loop import Timing

    timing = Timing(start=2.0, first=1.5, seed=1.0, gap=0.1, end=0.5, steps_per_second=10.0)
    assert timing.of(1) == pytest.approx(4.0) and timing.of(20) == pytest.approx(4.0 + 19 * 1.1)
    faster, cheaper = Row("a", "b", [1.0, 2.5, 3.0], 2.0), Row("a", "b", [1.0, 1.2, 1.3], 1.1, at_least=False)
    assert faster.reached and cheaper.reached is False and Row("a", "b", [1.0]).reached is None


@pytest.mark.usefixtures("one_thread")
def test_the_quick_table_is_well_formed(tmp_path, capsys):
    import bench_table

    assert bench_table.main(["--quick", "probes", "--keep", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    header, rule, *rest = said.splitlines()
    assert header.split() == ["work", "against", "measured", "bar", "reached"] and set(rule) == {"-", " "}
    columns = [header.index(word) for word in header.split()]
    for line in rest[: rest.index("")]:
        assert float(line[columns[2] :].split()[0]) > 0 and line.split()[-2:] == ["-", "-"]
    assert "Machine:" in said and "reduced sizes" in said
    kept = json.loads((tmp_path / "probes-quick.json").read_text())
    assert kept["schema_version"] == 1 and kept["rows"][0]["values"][0] > 0


def test_an_unknown_subject_is_told(capsys):
    import bench_table

    with pytest.raises(SystemExit) as ended:
        bench_table.main(["nonsense"])
    assert ended.value.code == 2 and "no subject nonsense" in capsys.readouterr().err
    assert bench_table.main(["--list"]) == 0


def test_jax_names_its_four_subjects():
    import bench_table

    assert [subject.name for subject in bench_table.chosen(["jax"])] == [
        "jax-grokking",
        "jax-parity",
        "jax-parity-200",
        "jax-parity-1000",
    ]
    assert [subject.name for subject in bench_table.chosen(["parity", "jax-parity-200"])] == [
        "parity",
        "jax-parity-200",
    ]


def test_a_peer_that_cannot_be_installed_is_told_once_and_the_others_are_measured(
    tmp_path, monkeypatch, capsys
):
    import bench_table
    from benches import base, jax_peer

    calls = []

    def offline(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, "pip" in command, "", "first\nERROR: no connection\n")

    jax_peer.python.cache_clear()
    monkeypatch.setattr(jax_peer.subprocess, "run", offline)
    monkeypatch.setenv("DYNALAB_JAX", str(tmp_path / "jax"))
    probes = base.Subject("probes", "", lambda options: [base.Row("some work", "another", [2.0])])
    monkeypatch.setattr(bench_table, "SUBJECTS", [*jax_peer.SUBJECTS, probes])
    monkeypatch.setattr(
        bench_table,
        "machine",
        lambda: dict.fromkeys(("cpu", "cores", "torch", "commit", "date"), "") | {"load": 0.0},
    )
    assert bench_table.main(["--keep", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "2.00 times" in said.out
    assert said.err.count("could not be installed") == 1 and "ERROR: no connection" in said.err
    assert "Traceback" not in said.err and len(calls) == 2
    jax_peer.python.cache_clear()


def test_what_learns_otherwise_is_no_comparison():
    from benches.jax_peer import alike

    assert alike([1.0, 0.998, 1.0], [0.999, 1.0, 1.0]) and alike([0.7, 1.0, 0.6, 0.9], [0.8, 1.0, 1.0, 0.7])
    assert not alike([1.0, 1.0, 1.0], [0.95, 0.95, 0.95])
    assert not alike([0.5, 0.52, 0.51, 0.5], [0.7, 0.68, 0.71, 0.72])


def test_the_commands_of_many_runs_are_of_one_study():
    from benches.many import commands

    from dynalab.config.command import read_command

    words = commands(40)
    first, second, both = (
        read_command(words[name][1:-1]) for name in ("train", "train, another rate", "both rates again")
    )
    assert [len(request.runs) for request in (*first.requests, *second.requests)] == [40, 40]
    ids = [request.config.id for request in (*first.requests, *second.requests)]
    assert [request.config.id for request in both.requests] == ids and len({*ids}) == 2
    assert words["the same command again"] == words["train"]
