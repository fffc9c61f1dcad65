"""What every command costs before it does anything: imports, not seconds, so that a busy machine cannot lie."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dynalab import train
from dynalab.cli.app import run

HEAVY = {
    "torch",
    "hmmlearn",
    "matplotlib",
    "scipy",
    "sklearn",
    "statsmodels",
    "pandas",
    "pyarrow",
    "hydra",
    "rich",
}


def imported(*words: str) -> set[str]:
    code = (
        "import sys\n"
        "from dynalab.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print('\\nMODULES', *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["analyze", "--help"],
        ["runs", "--help"],
        ["worker", "--help"],
        ["doctor", "--help"],
        ["import", "--help"],
        ["reproduce", "--help"],
    ],
)
def test_help_imports_nothing_heavy(words):
    assert not imported(*words) & (HEAVY | {"numpy", "omegaconf"})


@pytest.mark.parametrize("group", ["runs", "data"])
def test_no_line_of_a_groups_help_is_cut(group, capsys):
    assert run([group, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_listing_imports_nothing_heavy(tmp_path):
    train(["task=grokking", "task.modulus=7", "model.width=8", "train.steps=2", "launcher=inline"])
    assert not imported("runs", "list") & (HEAVY | {"numpy", "omegaconf"})
    assert not imported("runs", "list", "--analyses") & (HEAVY | {"numpy", "omegaconf"})
    assert not imported("runs", "list", "-f", "task=grokking", "--json") & HEAVY


def test_composing_imports_no_torch():
    assert not imported("config", "task=grokking") & (HEAVY - {"hydra"})
    assert not imported("train", "task=grokking", "--dry-run") & (HEAVY - {"hydra"})


def test_the_package_itself_is_light_and_lazy():
    code = "import sys, dynalab; assert not {'torch','numpy','hydra'} & set(sys.modules); dynalab.train; dynalab.load"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_parent_of_a_training_never_imports_torch(tmp_path):
    words = ["train", "task=grokking", "task.modulus=7", "model.width=8", "train.steps=2", "seed=0..1"]
    assert not imported(*words) & {"torch", "hmmlearn", "matplotlib", "pandas"}


def test_a_process_that_fits_imports_no_more_than_it_needs():
    code = (
        "import sys\n"
        "from dynalab.analysis.hmm import baselines, selection, stability\n"
        "print(*{name for name in sys.modules if name in {'sklearn', 'scipy', 'pandas', 'torch'}})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()
