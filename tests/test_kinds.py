"""What an analysis is: one rule for the command line, Python and lists; and what its keys may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fakes import make_ensemble

import dynalab
from dynalab.cli.app import run
from dynalab.config import registry
from dynalab.config.analysis import read_analysis
from dynalab.config.overrides import Override
from dynalab.errors import ConfigError

OWN = """
from dataclasses import dataclass
from dynalab.analysis.base import Keys, runs_of


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    least: float = 0.5


@dataclass(frozen=True)
class Findings:
    rows: int
    least: float


def analyse(groups, config):
    return Findings(sum(len(run.grid) for run in runs_of(groups)), config.least)
"""
SHIPPED = ["butterfly", "compare", "connectivity", "directions", "eos", "examples", "hmm", "hybrid", "kernel"]
SHIPPED += [
    "landscape",
    "modes",
    "partition",
    "periods",
    "progress",
    "regions",
    "slingshot",
    "spectrum",
    "variance",
]
HELPERS = ["base", "command", "convergence", "missing", "rates", "__init__", "words"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "analysis").mkdir(parents=True)
    (folder / "analysis" / "rows.py").write_text(OWN)
    (folder / "analysis" / "helper.py").write_text("def analyse(trajectories, config): ...\n")
    (folder / "analysis" / "broken.py").write_text("def (\n")
    return folder


@pytest.mark.parametrize("name", HELPERS)
def test_a_module_beside_the_analyses_is_none(name, capsys):
    assert run(["analyze", name]) == 2
    said = capsys.readouterr().err
    assert f"analysis={name}: no such analysis" in said and said.count("\n") == 1
    assert said.rstrip().endswith(f"there are {', '.join(SHIPPED)}")
    with pytest.raises(ConfigError, match="no such analysis"):
        read_analysis(name, [])


def test_an_analysis_of_ones_own_is_listed_and_helpers_are_not(own):
    assert registry.names("analysis") == SHIPPED
    assert registry.names("analysis", [own]) == sorted([*SHIPPED, "rows"])
    with pytest.raises(ConfigError, match=r"helper\.py has no dataclass named Config"):
        registry.find("analysis", "helper", [own])
    (own / "analysis" / "helper.py").write_text(OWN.replace("def analyse", "def describe"))
    with pytest.raises(ConfigError, match=r"helper\.py has no function analyse"):
        registry.find("analysis", "helper", [own])
    with pytest.raises(ConfigError, match=r"did you mean rows\?"):
        registry.find("analysis", "row", [own])


def test_an_analysis_of_ones_own_is_found_from_python_as_from_the_command_line(
    outputs, own, monkeypatch, capsys
):
    ensemble = make_ensemble(outputs)
    with pytest.raises(ConfigError, match="no such analysis"):
        dynalab.analyze("rows", ensemble)
    monkeypatch.setenv("DYNALAB_PATH", str(own))
    result = dynalab.analyze("rows", ensemble, least=0.25)
    assert result["rows"] == 84 and result["keys"] == {"least": 0.25}
    assert run(["analyze", "rows", "least=0.25"]) == 0
    *said, path = capsys.readouterr().out.splitlines()
    assert path == str(result.paths.root) and [line.split() for line in said] == [
        ["rows", "84"],
        ["least", "0.25"],
    ]


def test_findings_leave_the_names_that_every_result_has(outputs, own, monkeypatch):
    text = OWN.replace("rows: int", "inputs: int")
    (own / "analysis" / "rows.py").write_text(text)
    monkeypatch.setenv("DYNALAB_PATH", str(own))
    with pytest.raises(ConfigError, match="may not have a field inputs"):
        dynalab.analyze("rows", make_ensemble(outputs))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("n_iter=-1", "n_iter=-1: expected an integer of at least 1, or null"),
        ("n_iter=0", "n_iter=0: expected an integer of at least 1, or null"),
        ("tol=-1", "tol=-1.0: expected a number above 0, or null"),
        ("emission=", "emission=: expected a value, or null for the default"),
        ("covariance=", "covariance=: expected a value, or null for the default"),
        ("decode_with=", "decode_with=: expected a value, or null for the default"),
        ("convergence.metric=", "convergence.metric=: expected a value, or null for the default"),
    ],
)
def test_no_number_and_no_empty_word_stands_for_the_presets_value(word, said, capsys):
    assert run(["analyze", "hmm", word]) == 2
    assert capsys.readouterr().err == f"dynalab: {said}\n"


@pytest.mark.parametrize(("preset", "n_iter", "tol"), [("robust", 200, 1e-4), ("paper", 32, 1e-2)])
def test_null_stands_for_the_presets_value(preset, n_iter, tol):
    words = [f"preset={preset}", "n_iter=null", "tol=null", "emission=null", "covariance=null"]
    config = read_analysis("hmm", words)[1]
    assert (
        config
        == read_analysis("hmm", words[:1])[1]
        == read_analysis("hmm", [Override.of("preset", preset)])[1]
    )
    assert (config.n_iter, config.tol, config.covariance) == (n_iter, tol, "full")
