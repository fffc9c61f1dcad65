"""Sheets that were changed, that lie elsewhere, and whose removals are not compared; and what is interrupted early."""

from __future__ import annotations

import importlib.abc
import json
import os
import runpy
import sys
from pathlib import Path

import msgspec
import pytest
from collisions import collisions_of
from conftest import TINY
from report_fakes import make_ensemble, no_drawing, read_page

from dynalab import cli
from dynalab.config.overrides import Override
from dynalab.report import reproductions
from dynalab.report.reproductions import section
from dynalab.reproduce import result
from dynalab.reproduce.commands import Run
from dynalab.reproduce.elsewhere import elsewhere
from dynalab.reproduce.reading import parse_sheet
from dynalab.reproduce.result import Reproduction
from dynalab.reproduce.run import reproduce
from dynalab.show.blocks import Cell, Regions, Table
from dynalab.show.plots.regions import COLOURS, INSIDE, MUTED, OUTSIDE, estimates_in_regions

SHEET = f"""\
title: Weights shrink
claims:
  fits:
    says: The loss falls
    published: always
    rows: {{analysis: train, value: "rows[-1].train_loss < rows[0].train_loss"}}
    statistic: share
    agrees: [0.1, 1]
scales:
  cpu:
    minutes: 0.01
    commands: {{base: "train {" ".join(TINY)} train.steps=20 seed=0..1"}}
    removals:
      - removes: these seeds
        commands: {{base: "train {" ".join(TINY)} train.steps=20 seed=1..2"}}
"""


def made(**more) -> Reproduction:
    """A reproduction of a sheet `x` at scale cpu."""
    about = {
        "says": "so",
        "published": 1,
        "section": "",
        "statistic": "mean",
        "region": [0, 1],
        "n": 9,
        "why": "w",
    }
    outcomes = [
        {"id": name, "verdict": name, "measured": None if name == "not_at_this_scale" else 0.5, **about}
        for name in ("agrees", "disagrees", "undecided", "not_at_this_scale")
    ]
    removed = [{"removes": "it", "claim": "agrees", "n": 9, "why": "w", "measured": 0.5, "interval": None}]
    tree = {
        **dict.fromkeys(("title", "paper", "arxiv", "main", "commit"), "x"),
        **{"name": "x", "scale": "cpu", "sheet": "aaaaaaaaaa", "dynalab": "1", "failed": []},
        **{"ensembles": [], "analyses": [], "removed": []},
        "claims": [{**item, "interval": [0.4, 0.6]} for item in outcomes],
        "removals": [{**item, "verdict": verdict} for item in removed for verdict in ("agrees", "disagrees")],
    }
    return msgspec.convert({**tree, **more}, Reproduction)


# A sheet that was changed.


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """An outputs folder, and what a call of the sheet with another region says of it."""
    folder = tmp_path_factory.mktemp("tried")
    settings = [Override.of("launcher", "inline"), Override.of("compute.workers", 1)]

    def again(region: str) -> list[str]:
        file = folder / "x.yaml"
        file.write_text(SHEET.replace("[0.1, 1]", region))
        said: list[str] = []
        reproduce("x", parse_sheet(file), "cpu", Run(folder / "outputs", settings, warn=said.append))
        return said

    assert again("[0.1, 1]") == []
    return folder / "outputs", again


def test_a_sheet_that_was_changed_says_so_and_keeps_what_it_was(tried):
    outputs, again = tried
    path = result.find(outputs, "x-cpu")
    before = path.read_bytes()
    assert again("[0.1, 1]") == [] and path.read_bytes() == before
    (line,) = again("[0, 0.1]")
    first, now = json.loads(before)["sheet"], result.read(path).sheet
    kept = path.with_name(f"result-{first}.json")
    assert f"its hash was {first} and is {now}" in line and "fits was agrees and is disagrees" in line
    assert f"reproduce/x-cpu/{kept.name} keeps what it was" in line and kept.read_bytes() == before
    (line,) = again("[0, 0.11]")
    assert "its verdicts are the same" in line and "\n" not in line
    assert len([*path.parent.iterdir()]) == 3 and result.find(outputs, "x-cpu") == path
    # A stranger's result names no file.
    path.write_text(path.read_text().replace(result.read(path).sheet, "../x"))
    assert again("[0.1, 1]") == [] and len([*path.parent.iterdir()]) == 3


# Runs of removals.


def test_runs_of_removals_are_not_among_those_of_claims(tried, here, monkeypatch):
    no_drawing(monkeypatch)
    outputs, _ = tried
    (ensemble,) = (stored := result.read(result.find(outputs, "x-cpu"))).ensembles
    assert stored.removed == () and stored.removed_runs == (f"{ensemble}/s0002",)
    answer = here("report", "x-cpu", "--json", "--outputs", str(outputs))
    (shown,) = answer.json["ensembles"]
    assert shown["runs"] == [f"{ensemble}/s0000", f"{ensemble}/s0001"] and answer.json["name"] == "x-cpu"
    text = read_page(Path(answer.json["path"])).text
    assert "not compared with these" in text and f"dynalab report {ensemble}/s0002" in text
    assert "dynalab report x-cpu" in text


def test_verdicts_have_the_figures_colours_and_words(monkeypatch):
    monkeypatch.setattr(reproductions, "settled", lambda block: block)
    blocks = section(made()).blocks
    claims, removals, _ = [block for block in blocks if isinstance(block, Table)]
    (figure,) = [block for block in blocks if isinstance(block, Regions)]
    assert collisions_of([figure]) == []
    # Each axis says what stands on it.
    assert list(figure.axes) == [
        f"{claim.statistic}, n = {claim.n}" for claim in made().claims if claim.measured
    ]
    cells: list[Cell] = [row[-1] for row in claims.rows]
    assert [cell.swatch for cell in cells] == [INSIDE, OUTSIDE, MUTED, ""]
    assert [cell.text for cell in cells] == ["agrees", "disagrees", "undecided", "not at this scale"]
    assert [COLOURS[place] for place in figure.places] == [cell.swatch for cell in cells[:3]]
    agrees, disagrees = (row[-1] for row in removals.rows)
    assert (agrees.text, agrees.tone) == ("agrees, which it must not", "bad") and disagrees.tone == ""


def test_a_row_looks_as_its_verdict_and_without_colour_too():
    # A claim whose command failed is undecided wherever its interval lies.
    rows = ["a", "b", "c"], [0.5] * 3, [(0.4, 0.6)] * 3, [(0, 1)] * 3
    drawn = estimates_in_regions(*rows, places=["inside", "outside", "open"])
    marks = [ax.lines[-1] for ax in drawn.axes]
    assert [mark.get_color() for mark in marks] == [INSIDE, OUTSIDE, MUTED]
    assert len({mark.get_marker() for mark in marks}) == 3 and marks[2].get_markerfacecolor() == "white"


# What was probably meant.


@pytest.mark.parametrize(
    "name, said",
    [
        ("mine", "mine.yaml is not searched for; name its folder: `dynalab reproduce mine --config-dir sub`"),
        ("mnie", "(did you mean mine?)"),
        ("here", "`dynalab reproduce here --config-dir .`"),
        ("shipped", "`dynalab reproduce shipped --config-dir conf`"),
        ("loose", "move it to reproduce/loose.yaml, then `dynalab reproduce loose --config-dir .`"),
        ("./my/sheet.yaml", "move it to my/reproduce/sheet.yaml, then `dynalab reproduce sheet --config-dir my`"),
        ("sub/reproduce/mine.yaml", "named, not its file: `dynalab reproduce mine --config-dir sub`"),
        ("a b/reproduce/mine.yaml", "`dynalab reproduce mine --config-dir 'a b'`"),
        ("sub/reproduce/none.yaml", "nor a file; a sheet is named: `dynalab reproduce NAME --config-dir DIR`"),
        ("hu2023.yaml", "`dynalab reproduce hu2023`"),
        ("sub/", "but a folder; a sheet is named"),
        ("hu203", "did you mean hu2023?"),
        ("veiled", "no such sheet; there are"),
    ],
)  # fmt: skip
def test_a_sheet_that_is_not_found_is_said_where_it_lies(here, tmp_path, monkeypatch, name, said):
    places = ["sub/reproduce/mine", "a b/reproduce/mine", "reproduce/here", "conf/reproduce/shipped", "loose"]
    for place in [*places, "my/sheet", ".hidden/reproduce/veiled"]:
        file = tmp_path / "cwd" / f"{place}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("title: x\n")
    monkeypatch.chdir(tmp_path / "cwd")
    answer = here("reproduce", name)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1
    # A folder that is searched has it.
    assert elsewhere(name, [tmp_path / "cwd/sub"]) == "" or name not in ("mine", "mnie")


def test_a_word_that_names_nothing_is_said_what_it_may_be(here, outputs):
    make_ensemble(outputs)
    paths = outputs / "reproduce/x-cpu/result.json"
    paths.parent.mkdir(parents=True)
    result.write(outputs, made())
    said = {
        "x-cpv": "did you mean x-cpu?",
        "batch": "(of analyses: `--analyses`), or name x-cpu",
        "grokking": "did you mean -f task=grokking?",
        "groking": "did you mean -f task=grokking?",
        "power2022": "`dynalab reproduce power2022` tries them",
        "power2022-ci": "`dynalab reproduce power2022 --scale ci` tries them",
    }
    for word, line in said.items():
        answer = here("report", word)
        assert answer.code == 4 and line in answer.err and answer.err.count("\n") == 1, answer.err
    # Another command takes no reproductions.
    assert "x-cpu" not in here("analyze", "hmm", "x-cpv").err


# Interrupted before anything is watched.


class Interrupting(importlib.abc.MetaPathFinder):
    """Ctrl-C while a module is looked for."""

    def find_spec(self, name, path=None, target=None):
        if name == "dynalab.cli.app":
            raise KeyboardInterrupt


@pytest.mark.parametrize("start", [cli.main, lambda: runpy.run_module("dynalab", run_name="__main__")])
def test_an_interrupt_while_modules_are_imported_is_a_line(monkeypatch, capsys, start):
    monkeypatch.delitem(sys.modules, "dynalab.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    monkeypatch.setattr(sys, "path", [os.devnull, *sys.path])
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130 and capsys.readouterr().err == "dynalab: interrupted\n"
