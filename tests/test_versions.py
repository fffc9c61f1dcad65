"""Stored analyses of older versions, and what Python returns for one ensemble, several, and all together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fakes import make_ensemble, no_drawing, read_page

import dynalab
from dynalab.analysis import periods
from dynalab.cli.app import run
from dynalab.errors import NothingMatched
from dynalab.report.choice import choose
from dynalab.store.paths import OutputPaths
from dynalab.store.results import Result, write_result

STEPS = np.arange(0, 301, 10)


@pytest.fixture
def ensemble(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> dynalab.store.reader.Ensemble:
    no_drawing(monkeypatch)
    return make_ensemble(
        outputs, n_runs=2, steps=STEPS, values={"scale_invariant_norm": np.ones((2, len(STEPS)))}
    )


def old(outputs: Path, made: Result, digest: str, **more: Any) -> Result:
    """Store what an older version of the analysis would have made, with a form of its own."""
    data = {**made.data, "id": digest, "version": periods.VERSION - 1, "runs": [{"run": 1}], **more}
    return write_result(OutputPaths(outputs).analysis("periods", digest), data, {})


def test_what_an_older_version_made_is_a_line_with_the_command(outputs, ensemble, capsys):
    made = dynalab.analyze("periods", ensemble, window=30)
    other = old(outputs, made, "a" * 10, keys={"jump": 0.2})
    # Newer than that of the current version, and with default keys: it does not take its place.
    oldest = old(outputs, made, "b" * 10, keys={}, created="2099-01-01T00:00:00+00:00")
    assert [result.id for result in choose(outputs, ensemble.id, []).shown] == [made.id]
    capsys.readouterr()
    assert run(["report"]) == 0
    said = capsys.readouterr()
    page = read_page(Path(said.out.strip()))
    for result, keys in ((other, " jump=0.2"), (oldest, "")):
        line = f"was made by version {periods.VERSION - 1} of the analysis, which is at {periods.VERSION}: "
        command = f"dynalab analyze periods {ensemble.id}{keys}"
        assert f"periods-{result.id} {line}{command} makes it anew." in " ".join(page.text.split())
        assert f"periods-{result.id} {line}`{command}` makes it anew\n" in said.err
    # As plain data it opens; its findings are none of today's.
    loaded = dynalab.load("periods-aaaaaaaaaa")
    assert (
        loaded["version"] == periods.VERSION - 1 and loaded["runs"] == [{"run": 1}] and loaded.value is None
    )


def test_the_line_goes_where_the_command_was_given_and_a_named_one_is_shown_with_it(
    outputs, ensemble, capsys
):
    made = dynalab.analyze("periods", ensemble)
    same = old(outputs, made, "c" * 10)
    capsys.readouterr()
    assert run(["report"]) == 0
    said = capsys.readouterr()
    assert "makes it anew" not in said.err and "makes it anew" not in read_page(Path(said.out.strip())).text
    assert run(["report", ensemble.id, f"periods-{same.id}"]) == 0
    page = read_page(Path(capsys.readouterr().out.strip()))
    assert f"periods-{same.id} was made by version" in page.text and made.id in page.text


def test_only_what_is_older_is_left_out(outputs, ensemble):
    made = dynalab.analyze("periods", ensemble)
    later = old(outputs, made, "d" * 10, version=periods.VERSION + 1, created="2099-01-01T00:00:00+00:00")
    assert [result.id for result in choose(outputs, ensemble.id, []).shown] == [later.id]
    old(outputs, made, "e" * 10)
    (outputs / "analysis" / f"periods-{made.id}" / "result.json").unlink()
    (outputs / "analysis" / f"periods-{later.id}" / "result.json").unlink()
    assert choose(outputs, ensemble.id, []).shown == []


ACROSS = """
from dataclasses import dataclass
from dynalab.analysis.base import Keys, Needs

NEEDS = Needs(across=True)


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    pass


@dataclass(frozen=True)
class Findings:
    runs: int
    groups: int


def analyse(groups, config):
    return Findings(sum(len(group.runs) for group in groups), len(groups))
"""


def test_python_returns_one_result_of_a_kind_across_ensembles_and_else_a_list(
    outputs, ensemble, tmp_path, monkeypatch
):
    own = tmp_path / "own" / "analysis"
    own.mkdir(parents=True)
    (own / "together.py").write_text(ACROSS)
    monkeypatch.setenv("DYNALAB_PATH", str(own.parent))
    other = make_ensemble(
        outputs, n_runs=3, overrides=["task=grokking", "optimizer.lr=0.01"], slug="b",
        steps=STEPS, values={"scale_invariant_norm": np.ones((3, len(STEPS)))},
    )  # fmt: skip
    both = dynalab.analyze("together", [ensemble, other.id])
    assert (both["runs"], both["groups"], both.ensembles) == (5, 2, [ensemble.id, other.id])
    assert dynalab.analyze("together", ensemble)["runs"] == 2
    each = dynalab.analyze("periods", [ensemble, other])
    assert [result.ensemble for result in each] == [ensemble.id, other.id]
    assert [result.ensemble for result in dynalab.analyze("periods", (other,))] == [other.id]
    assert dynalab.analyze("periods", other).id == each[1].id and dynalab.analyze("periods", []) == []
    with pytest.raises(NothingMatched, match="needs ensembles"):
        dynalab.analyze("together", [])
