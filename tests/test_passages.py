"""When detectors' events came, over runs of which some never had one; and what the page shades of the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_fakes import make_ensemble, read_page

from dynalab.analysis import eos, periods, slingshot
from dynalab.core.records import plain, restore
from dynalab.core.stats import passage, quartiles
from dynalab.report.sections import render
from dynalab.report.sections.context import Context
from dynalab.show import plots as figures
from dynalab.show import terminal
from dynalab.store.paths import OutputPaths
from dynalab.store.results import write_result

STEPS = np.arange(0, 4000, 20)
RISE = np.minimum(0.1 * np.exp(STEPS / 868.6), 1.0)  # reaches 1 at step 2,000
SAID = {
    (100, 200, 300, 400, None, None): "at step 350 (quartiles 200 to never)",
    (100, 1200, 1300, 1400): "at step 1,250 (quartiles 650 to 1,350)",
    (100, 250, None, None, None, None): "by step 250 in a quarter of the runs, not in half of them",
    (100, None, None, None, None): "in fewer than a quarter of the runs",
    (None, None): "in fewer than a quarter of the runs",
}


def arrivals(steps):
    """What `analyze eos` finds of runs that arrive at some steps; 0 for one of which that cannot be told."""
    verdicts = ["below_edge" if step is None else "at_edge" if step else "unknown" for step in steps]
    runs = [
        eos.RunFindings(run=f"e/{i}", verdict=verdict, onset_step=step or None, median_ratio=1.0)
        for i, (step, verdict) in enumerate(zip(steps, verdicts, strict=True))
    ]
    return eos.Findings(tuple(runs), eos.summarise(runs))


def slings(steps):
    """What `analyze slingshot` finds of runs whose first slingshot is at some steps; 0: too few rows."""
    verdicts = [
        "no_events" if step is None else "slingshot" if step else "insufficient_data" for step in steps
    ]

    def events(step):
        rest = (1.0, step + 5, step + 9, 5.0, None, None, "")
        return [slingshot.Event("slingshot", rest[0], at, *rest[1:]) for at in (step + 500, step)]

    runs = [
        slingshot.RunFindings(
            run=f"e/{i}",
            verdict=verdict,
            events=tuple(events(step)) if step else (),
            period_steps=500.0 + i if step else None,
        )
        for i, (step, verdict) in enumerate(zip(steps, verdicts, strict=True))
    ]
    return slingshot.Findings(tuple(runs), slingshot.summarise(runs))


@pytest.mark.parametrize(("steps", "said"), SAID.items())
@pytest.mark.parametrize("kind", ["eos", "slingshot"])
def test_runs_that_never_got_there_count_as_later_on_every_side(tmp_path, kind, steps, said):
    """On recorded steps, in JSON, terminal and page; runs of which it is not known do not count."""
    made, module, key = (arrivals, eos, "onset") if kind == "eos" else (slings, slingshot, "first_onset")
    findings = made((*steps, 0))
    data = {"id": "0123456789", "kind": kind, "ensemble": "e", "warnings": [], **plain(findings)}
    found = data["summary"][key]
    result = write_result(OutputPaths(tmp_path).analysis(kind, "0123456789"), data, {})
    (on_the_page,), *_ = render(result, Context((), "e"))
    in_the_terminal = "\n".join(terminal.lines(module.show(findings, ())))
    if not any(steps):
        assert found is None and "never" not in on_the_page + in_the_terminal
        return
    assert found == list(quartiles(steps)) and passage(found) == said
    assert said in in_the_terminal and f"**{said}**" in on_the_page


def test_results_of_before_are_read():
    """Their quartiles were of the runs that got there, between steps; of stays they held only how many."""
    run = {"run": "e/s0000", "verdict": "at_edge", "adaptive": False, "onset_step": 20, "end_step": None}
    run |= {"median_ratio": 1.0, "iqr_ratio": 0.0, "fraction_at_edge": 0.5, "reason": "", "stays": 2}
    data = {
        "runs": [run, run | {"run": "e/s0001"}],
        "summary": {"verdicts": {"at_edge": 2}, "onset": [10.5, 20.25, 30.0], "ratio": [1.0, 1.0, 1.0]},
    }
    (line, *_) = terminal.lines(eos.show(restore(eos.Findings, data), ()))
    assert line.endswith("; arrival at step 20 (quartiles 10 to 30), median ratio there 1.000.")
    # Of forks, one was named, and no step that it began at.
    run = {"run": "e/s0000", "verdict": "slingshot", "events": [], "period_steps": None, "period_cv": None}
    fork = {"run": "e/s0000", "fork": "f/s0000", "slingshots": 2, "fork_slingshots": 0, "fork_events": 0}
    data = {
        "runs": [{**run, "missing_channels": ["grad_norm"]}],
        "summary": {"verdicts": {"slingshot": 1}, "kinds": {}, "first_onset": None, "period": None},
        "confirmation": {"fork": "f", "runs": [{**fork, "confirmed": True}]},
    }
    lines = list(terminal.lines(slingshot.show(restore(slingshot.Findings, data), ())))
    assert lines[-2] == (
        "Trained again with the loss in float64 from the start: gone, and so confirmed, in 1 of 1 run (f)."
    )


def test_periods_of_the_page_are_those_of_runs():
    runs = [
        periods.RunFindings("e/0", "periodic", "", period_steps=step) for step in (100.0, 200.0, 400.0, 500.0)
    ]
    headline = next(iter(periods.show(periods.Findings(tuple(runs)), ())))
    assert "some **300** steps apart" in headline.text


def test_the_page_shades_the_stays_and_nothing_else(here, outputs, monkeypatch):
    """As the result has them: a run that left is not shaded afterwards."""
    ratios = [
        np.where(STEPS < 2000, RISE, 1.01),
        np.select([STEPS < 2000, STEPS < 2600], [RISE, 1.02], 0.3),
        np.select([STEPS < 2000, STEPS < 2200, STEPS < 3600], [RISE, 1.02, 0.3], 1.01),
        0.5 * RISE,
    ]
    sharpness = 10 * np.array(ratios)
    columns = {
        "sharpness": sharpness,
        "stability_threshold": np.full_like(sharpness, 10.0),
        "train_loss": 1 / (1 + sharpness),
    }
    make_ensemble(
        outputs, steps=STEPS, values=columns, overrides=("task=grokking", "optimizer=sgd", "eval.every=20")
    )
    (document,) = here("analyze", "eos", "--json").json["analyses"]
    runs = document["runs"]
    assert [(run["verdict"], len(run["stays"])) for run in runs] == [
        *(("at_edge", 1), ("visited", 1), ("at_edge", 2), ("below_edge", 0))
    ]
    lines = here("analyze", "eos").out.splitlines()
    panels = {}

    def draw(*given, **keys):
        figure = figures.events.events_over_curves(*given, **keys)
        for label, ax in zip(given[0], figure.axes[::2], strict=True):
            boxes = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
            panels[label.partition(":")[0]] = ax.get_xlim(), sorted((box.x0, box.x1) for box in boxes)
        return figure

    monkeypatch.setattr(figures, "events_over_curves", draw)
    monkeypatch.setattr("dynalab.show.svg.RASTER_DPI", 40)
    page = read_page(Path(here("report").out.strip()))
    rows = {row[0]: row for row in page.table("run", "verdict", "arrival")}
    for run in runs:
        name = run["run"].rpartition("/")[2]
        (low, high), shaded = panels[name]
        assert shaded == [pytest.approx((stay["first"], stay["last"])) for stay in run["stays"]]
        width = sum(end - begin for begin, end in shaded) / (high - low)
        assert width == pytest.approx(run["fraction_at_edge"], abs=1e-3)
        if run["end_step"] is not None:
            assert shaded[-1][1] == pytest.approx(run["end_step"]) and run["end_step"] < high
        # The same verdict, arrival and reason in the terminal and in the page's table.
        arrival = "\u2013" if run["onset_step"] is None else f"{run['onset_step']:,}"
        left = "\u2013" if run["end_step"] is None else f"{run['end_step']:,}"
        assert (
            rows[name][1:4] == [run["verdict"].replace("_", " "), arrival, left]
            and rows[name][-1] == run["reason"]
        )
        (line,) = [line for line in lines if line.strip().startswith(name)]
        assert " ".join(rows[name]) == " ".join(line.split())
    said = passage(document["summary"]["onset"])
    assert document["summary"]["onset"][2] is not None and f"arrival {said}" in lines[0] and said in page.text
