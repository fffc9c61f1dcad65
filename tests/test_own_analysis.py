"""An analysis of a user's own: one file in a folder, and it has all that a shipped one has."""

import html
import re
import shlex
from pathlib import Path

import pytest

import dynalab
from dynalab.core.words import count

KNEES = '''
"""Knees: where the training loss has come down to a share of what it began with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dynalab.analysis.base import Frame, Group, Keys, Needs, key, runs_of
from dynalab.core.stats import quantile
from dynalab.core.words import count, number
from dynalab.show.blocks import Block, Say, Strip, Strips, Table, run_cell

VERSION = 1
NEEDS = Needs(columns=("train_loss",), record="eval.every=10", statuses=("done", "diverged"))
TITLE = "Knees of the loss"


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    share: float = key(0.5, "share of the first loss that is to be reached", above=0, below=1)


@dataclass(frozen=True)
class Knee:
    run: str
    verdict: str
    step: int | None = None
    last_share: float | None = None


@dataclass(frozen=True)
class Findings:
    runs: tuple[Knee, ...]
    median_step: float | None
    warnings: tuple[str, ...] = ()
    curves: Frame = None


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    knees, rows = [], []
    for run in runs_of(groups):
        loss = run.first("train_loss")
        if loss is None:
            knees.append(Knee(run.id, "no_rows"))
            continue
        shares = loss.values / loss.values[0]
        below = np.flatnonzero(shares <= config.share)
        step = int(loss.steps[below[0]]) if len(below) else None
        knees.append(Knee(run.id, "bent" if len(below) else "straight", step, float(shares[-1])))
        rows += [{"run": run.id, "step": int(s), "share": float(x)} for s, x in zip(loss.steps, shares)]
    never = sum(knee.step is None for knee in knees)
    notes = (f"{never} of {len(knees)} runs have no knee",) if never else ()
    middle = quantile([knee.step for knee in knees], 0.5)
    return Findings(tuple(knees), middle, notes, pd.DataFrame(rows, columns=["run", "step", "share"]))


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    bent = sum(knee.step is not None for knee in findings.runs)
    where = "" if findings.median_step is None else f", at median step **{number(findings.median_step)}**"
    yield Say(f"**Knees** in {bent} of {count(len(findings.runs), 'run')}{where}.", headline=True)
    strips = [
        Strip(run=run.id, left=run.first("train_loss"), marks={"knee": knee.step})
        for run, knee in zip(runs_of(groups), findings.runs)
    ]
    if strips:
        yield Strips(
            name="knees", caption="**Loss and its knee.**", alt="Loss of runs, knees marked", strips=strips,
            left="training loss",
        )
    rows = [[run_cell(knee.run), knee.verdict, knee.step, knee.last_share] for knee in findings.runs]
    yield Table(["run", "verdict", "knee", "share at the end"], rows, "Every run")
'''


def folder_with_knees(parent: Path) -> Path:
    folder = parent / "mine" / "analysis"
    folder.mkdir(parents=True)
    (folder / "knees.py").write_text(KNEES)
    return folder.parent


@pytest.mark.usefixtures("undrawn")
def test_a_file_in_a_folder_is_an_analysis_like_any_other(here, tiny, outputs, tmp_path, monkeypatch):
    assert len(KNEES.strip().splitlines()) <= 80
    monkeypatch.setenv("DYNALAB_PATH", str(folder_with_knees(tmp_path)))
    assert here("train", *tiny, "optimizer.lr=0.01", "eval.every=10", "seed=0..1").code == 0

    said = here("analyze", "knees", "share=0.9")
    assert said.code == 0, said.err
    assert said.out.startswith("Knees in 2 of 2 runs, at median step ")
    head, *rows = (line.split() for line in said.out.splitlines()[1:4])
    assert head[:2] == ["run", "verdict"] and [row[:2] for row in rows] == [
        ["s0000", "bent"],
        ["s0001", "bent"],
    ]

    (whole,) = here("analyze", "knees", "share=0.9", "--json").json["analyses"]
    assert whole["config"] == {"share": 0.9, "steps": None} and whole["tables"] == ["curves"]
    assert [run["verdict"] for run in whole["runs"]] == ["bent", "bent"]
    last = whole["runs"][0]["step"] - 10
    (prefix,) = here("analyze", "knees", "share=0.9", f"steps={last}", "--json").json["analyses"]
    assert prefix["runs"][0]["verdict"] == "straight" and prefix["id"] != whole["id"]
    assert any("no knee" in line for line in prefix["warnings"])

    result = dynalab.load(f"knees-{whole['id']}")
    assert result.value.runs[0].step == whole["runs"][0]["step"]
    assert list(result.value.curves.columns) == ["run", "step", "share"]
    assert (
        result.value == result.value
        and dynalab.analyze("knees", result.ensemble, share=0.9).id == whole["id"]
    )

    keys = here("analyze", "knees", "--cfg", "job").out
    assert "share: 0.5" in keys and "# share of the first loss that is to be reached" in keys
    assert (
        here("analyze", "knees", "share=2")
        .err.strip()
        .endswith("share=2.0: expected a number above 0 and below 1")
    )
    assert "knees" in here("analyze", "kneez").err
    listed = here("runs", "list", "--analyses", "--json").json["analyses"]
    assert {item["kind"] for item in listed} == {"knees"}

    report = here("report", f"knees-{whole['id']}")
    assert report.code == 0, report.err
    (page,) = outputs.glob("reports/*/index.html")
    text = page.read_text()
    assert "Knees of the loss" in text and f"in 2 of {count(2, 'run')}" in text
    assert list(page.parent.glob("figures/*knees*.svg"))


@pytest.mark.usefixtures("undrawn")
def test_a_page_is_made_with_the_folder_of_an_analysis_and_its_commands_lead_there(
    here, tiny, outputs, tmp_path
):
    option = ["--config-dir", str(folder_with_knees(tmp_path))]
    assert here("train", *tiny, "optimizer.lr=0.01", "eval.every=10", "seed=0").code == 0
    (found,) = here("analyze", "knees", "share=0.9", *option, "--json").json["analyses"]
    assert here("report", *option).code == 0
    (page,) = outputs.glob("reports/*/index.html")
    text = html.unescape(re.sub("<[^>]*>", "", page.read_text()))
    assert "Knees of the loss" in text
    again = shlex.join(["dynalab", "analyze", "knees", found["ensemble"], "share=0.9", *option])
    assert again in text
    assert here(*shlex.split(again)[1:], "--json").json["analyses"][0]["id"] == found["id"]
    assert shlex.join(["dynalab", "report", found["ensemble"], *option]) in text
    # A folder is a command's own: the next one knows nothing of it.
    assert here("analyze", "knees").code == 2
    assert here("report", "--config-dir", str(tmp_path / "nowhere")).code == 2
