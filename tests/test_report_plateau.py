"""Hidden progress: what is found of runs, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from report_fakes import make_ensemble, steps_of

import dynalab
from dynalab.analysis.base import Group
from dynalab.analysis.progress import Config, analyse, show
from dynalab.errors import NothingMatched
from dynalab.show.blocks import Say

STEPS = steps_of(200, 10)


def values(**columns):
    return {"test_accuracy": stairs(0.5, 1.0, [100, 120, 140, 999]), **columns}


def stairs(low, high, at):
    return np.where(STEPS[None] >= np.array(at)[:, None], high, low)


def found(steps=STEPS, keys=None, **columns):
    recorded = {name: array for name, array in columns.items() if name != "test_accuracy"}
    rows = values(**recorded) | (
        {"test_accuracy": columns["test_accuracy"]} if "test_accuracy" in columns else {}
    )
    runs = {f"s{row:04d}": {name: array[row] for name, array in rows.items()} for row in range(4)}
    return analyse([Group.of(runs, steps)], Config(**(keys or {})))


def said(findings):
    (text,) = [block.text for block in show(findings, ()) if isinstance(block, Say)]
    return text


def test_the_headline_counts_runs_and_their_lead():
    findings = found(parity_fourier=stairs(1.0, 50.0, [60, 80, 160, 999]))
    text = said(findings)
    assert "above 4 for 3 rows on end at median step **120** [quartiles 70 to 160], 3 of 4 runs" in text
    assert "accuracy above 0.55 at median step **130** [quartiles 110 to 140], 3 of 4 runs" in text
    assert "earlier in **2 of 3 runs** that had either" in text
    verdicts = [(run.verdict, run.lead_steps) for run in findings.runs]
    assert verdicts == [("leads", 40), ("leads", 40), ("follows", -20), ("on_plateau", None)]
    earlier = findings.summary.earlier
    assert (earlier.runs, earlier.total) == (2, 3) and earlier.interval[0] < 2 / 3 < earlier.interval[1]


def test_runs_of_too_few_rows_are_said_to_be_so():
    findings = found(parity_fourier=stairs(1.0, 50.0, [60] * 4), keys={"steps": 10, "persistence": 30})
    assert said(findings) == "**Hidden progress:** no run has enough rows to judge by."


def test_what_never_comes_is_later_than_all_others():
    findings = found(parity_fourier=stairs(1.0, 50.0, [60, 999, 999, 50]))
    assert [run.verdict for run in findings.runs] == ["leads", "follows", "follows", "leads"]
    lead = findings.summary.lead_steps
    assert (lead.runs, lead.reached, lead.median, lead.quartiles) == (4, 1, None, (None, 40.0))
    assert "by **" not in said(findings)


def test_the_movement_stands_in_where_there_is_no_coefficient():
    text = said(found(parity_separation=stairs(1.0, 3.0, [60, 80, 90, 100])))
    assert "movement above 2" in text and "coefficient" not in text
    assert "earlier in **4 of 4 runs**" in text
    # A column without a value is none.
    findings = found(
        parity_separation=stairs(1.0, 3.0, [60, 80, 90, 100]), parity_fourier=np.full((4, len(STEPS)), np.nan)
    )
    assert findings.summary.measure == "parity_separation"


def test_one_high_row_is_no_progress():
    high = np.ones(len(STEPS))
    high[[3, 5, 6, 10, 11, 12]] = 9.0
    measure = np.stack([high, *[np.ones(len(STEPS))] * 3])
    findings = found(parity_fourier=measure)
    assert [run.progress_step for run in findings.runs] == [100, None, None, None]
    assert found(parity_fourier=measure, keys={"persistence": 1}).runs[0].progress_step == 30
    assert found(parity_fourier=measure, keys={"fourier": 9.5}).runs[0].progress_step is None


def test_rows_of_the_coarser_grid_count_where_grids_differ():
    measure = stairs(1.0, 50.0, [60, 80, 160, 999])
    measure[:, 1::2] = np.nan
    assert [run.progress_step for run in found(parity_fourier=measure).runs] == [60, 80, 160, None]


def addition(loss="cross_entropy", **columns):
    """Four runs that learn an addition; accuracy goes from .5 to 1 at steps 100, 120, 140 and never."""
    runs = {
        f"s{row:04d}": {name: array[row] for name, array in values(**columns).items()} for row in range(4)
    }
    return Group.of(runs, STEPS, config={"task": {"name": "grokking", "operation": "add", "loss": loss}})


def test_the_restricted_loss_leads_where_it_falls_before_accuracy_rises():
    recorded = {
        "fourier_restricted_loss": stairs(4.0, 0.01, [60, 80, 160, 999]),
        "fourier_excluded_loss": stairs(1.0, 8.0, [60, 80, 160, 999]),
    }
    group = addition(**recorded)
    findings = analyse([group], Config())
    text = said(findings)
    assert "restricted loss below 0.1 for 3 rows on end at median step **120** [quartiles 70 to 160]" in text
    assert "accuracy above 0.9 at median step **130**" in text and findings.summary.accuracy == 0.9
    assert [run.verdict for run in findings.runs] == ["leads", "leads", "follows", "on_plateau"]
    assert analyse([group], Config(accuracy=0.4)).runs[0].verdict == "from_the_start"
    stays = analyse([addition(fourier_restricted_loss=stairs(4.0, 0.2, [60] * 4))], Config()).runs[0]
    assert stays.reason == "the measure stays above its level up to step 200"
    _, figure, table = show(findings, [group])
    assert [panel.title for panel in figure.panels] == ["accuracy on held-out examples", "loss"]
    assert figure.panels[1].level == 0.1 and figure.panels[1].logarithmic
    assert len(table.header) == 6


def test_squared_errors_are_judged_by_the_participation_ratio():
    columns = {
        "fourier_restricted_loss": stairs(0.02, 0.001, [10] * 4),
        "fourier_participation_embedding": stairs(0.07, 0.4, [60, 80, 160, 999]),
    }
    findings = analyse([addition("mse", **columns)], Config())
    assert findings.summary.measure == "fourier_participation_embedding"
    assert [run.progress_step for run in findings.runs] == [60, 80, 160, None]
    del columns["fourier_participation_embedding"]
    with pytest.raises(NothingMatched, match=r"task\.loss=mse, stablemax\) it is the participation ratio"):
        analyse([addition("mse", **columns)], Config())


@pytest.mark.parametrize("columns", [{}, {"parity_movement": np.ones((4, len(STEPS)))}])
def test_other_ensembles_have_no_such_analysis(outputs, columns):
    ensemble = make_ensemble(outputs, steps=STEPS, values=values(**columns))
    with pytest.raises(
        NothingMatched, match=r"no parity_fourier or parity_separation or .* recorded, .* task=parity"
    ):
        dynalab.analyze("progress", ensemble)
