"""`dynalab bench`: what a user is told of speed, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dynalab.cli.app import run
from dynalab.launch.throughput import Cell, worker_counts

SMALL = ["task=grokking", "task.modulus=7", "model.width=8", "compute.workers=2"]


def test_it_times_every_width_in_two_workers_at_once_and_writes_nothing(outputs):
    code = (
        "import sys\n"
        "from dynalab.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", *SMALL, "--seconds", "0.02", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *said, torch = done.stderr.splitlines()
    assert torch == "False" and len(said) == 5 and "2 workers, 20 seeds wide" in said[-1]
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1 and found["config"]["task"]["modulus"] == 7
    assert [(cell["width"], cell["workers"]) for cell in found["cells"]] == [
        (w, 2) for w in (1, 2, 5, 10, 20)
    ]
    for cell in found["cells"]:
        assert cell["seed_steps_per_second"] == pytest.approx(2 * cell["width"] * cell["steps_per_second"])
    best = max(found["cells"], key=lambda cell: cell["seed_steps_per_second"])
    assert found["fastest"] == {**best, "ask": f"compute.width={best['width']} compute.workers=2"}
    assert not outputs.exists()


def test_the_table_names_the_fastest_and_how_to_ask_for_it(monkeypatch, capsys):
    cells = [Cell(1, 1, 100.0, 100.0), Cell(10, 2, 40.0, 800.0), Cell(20, 2, 15.0, 600.0)]
    monkeypatch.setattr("dynalab.launch.throughput.measure", lambda *_: cells)
    assert run(["bench", "task=grokking"]) == 0
    header, *rows, _, fastest = capsys.readouterr().out.strip().splitlines()
    assert header.startswith("width  workers  steps/s") and len(rows) == 3
    assert rows[2].split() == ["20", "2", "15.0", "600", "0.75"]
    assert "compute.width=10 compute.workers=2" in fastest and "20 seeds or more" in fastest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=grokking", "optimizer.lr=0.1,0.2"], "one configuration"),
        (["task=grokin"], "did you mean"),
        (["task=grokking", "--seconds", "0"], "--seconds"),
        (["task=parity", "train.batch_size=full", "compute.workers=1"], "train.batch_size=full"),
    ],
)
def test_what_cannot_be_timed_is_one_clear_line(cli, words, said):
    answer = cli("bench", *words)
    assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err, answer.err


def test_numbers_of_workers_are_few_on_any_machine():
    assert [worker_counts(most) for most in (1, 2, 4)] == [[1], [1, 2], [1, 2, 3, 4]]
    assert worker_counts(12) == [1, 2, 3, 4, 8, 12] and worker_counts(64) == [1, 2, 3, 4, 8, 16, 32, 64]
    assert Cell(5, 2, 1.0, 10.0).ask == "compute.width=5 compute.workers=2"
