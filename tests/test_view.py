"""What an analysis says outside of the page: in a notebook, block by block, and cells as HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from groups import EXAMPLES
from matplotlib.figure import Figure as Drawn
from report_fakes import make_ensemble, make_hmm
from report_reading import altered

import dynalab
from dynalab.analysis import progress
from dynalab.errors import ConfigError
from dynalab.show import page, plots, terminal
from dynalab.show.blocks import Cell, Code, Figure, Heatmap, Lines, Picture, Say, Table, Warnings, run_cell

STEPS = np.arange(0, 201, 10)


def stairs(low: float, high: float, at: list[int]) -> np.ndarray:
    return np.where(STEPS[None] >= np.array(at)[:, None], high, low)


def test_a_notebook_shows_what_the_page_shows(outputs: Path):
    values = {
        "test_accuracy": stairs(0.5, 1.0, [100, 120, 140]),
        "parity_fourier": stairs(1.0, 50.0, [60, 80, 160]),
    }
    ensemble = make_ensemble(outputs, n_runs=3, steps=STEPS, values=values)
    result = dynalab.analyze("progress", ensemble)
    view = dynalab.view(f"progress-{result.id}")
    headline, figure, table = view
    assert (
        isinstance(headline, Say)
        and isinstance(figure, Lines)
        and isinstance(table, Table)
        and len(view) == 3
    )
    text = repr(view)
    assert text.startswith("Hidden progress: Fourier coefficient above 4") and "s0002  follows" in text
    shown = view._repr_html_()
    assert (
        shown.count("<svg") == shown.count('role="img"') == 1 and "<strong>Hidden progress:</strong>" in shown
    )
    assert '<td class="number" data-sort="40.0">40</td>' in shown and "SVG</a>" not in shown
    ids = re.findall(r'\bid="([^"]+)"', shown)
    assert len(ids) == len({*ids}) and all(name.startswith(f"progress-{result.id}-") for name in ids)
    # Where the runs are gone, words and tables are left.
    assert dynalab.load("@last").path == ensemble.path
    ensemble.path.rename(outputs.parent / "gone")
    assert [type(block) for block in dynalab.view(result)] == [Say, Table]


def test_what_cannot_be_viewed_is_a_line(outputs: Path):
    result = make_hmm(outputs, make_ensemble(outputs))
    assert "3 states" in repr(dynalab.view(result))
    result = altered(result, edges=[{"of": 3}])
    with pytest.raises(ConfigError, match=f"hmm-{result.id}: another version"):
        dynalab.view(result)


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_figures_of_every_analysis_are_drawn_with_the_names_they_are_given(kind):
    from dynalab.analysis.command import findings_of
    from dynalab.config.registry import find

    part, example = find("analysis", kind), EXAMPLES[kind]()
    findings = findings_of(example.groups, part, part.module.Config(**example.keys))
    blocks = [block for block in part.module.show(findings, example.groups) if isinstance(block, Figure)]
    for block in blocks:
        figure = plots.draw(block, str.upper)
        assert isinstance(figure, Drawn) and figure.axes and plots.caption(block)
        if isinstance(block, Heatmap):
            assert figure.axes[0].get_title(loc="left") == "E/S0000"


def test_lines_have_a_row_a_run_whatever_their_grids():
    example = EXAMPLES["progress"]()
    group = example.group
    thin = replace(group.runs[0], series={name: own.until(90) for name, own in group.runs[0].series.items()})
    group = replace(group, runs=(thin, *group.runs[1:]))
    findings = progress.analyse([group], progress.Config())
    _, figure, _ = progress.show(findings, [group])
    above, below = plots.draw(figure).axes
    lengths = sorted({len(line.get_xdata()) for line in above.lines if len(line.get_xdata()) > 2})
    # One run ends at step 90, one diverged, three and the median go on to the end.
    assert lengths == [10, 16, 21] and below.get_yscale() == "log"
    (cross,) = {line.get_xdata()[0] for line in above.lines if line.get_marker() == "x"}
    assert cross == 150
    logged = plots.draw(figure, log_steps=True).axes[0]
    assert logged.get_xscale() == "symlog" and above.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("value", "text", "sort", "number", "tone"),
    [
        (None, "\u2013", None, True, "quiet"),
        (True, "yes", "True", False, ""),
        (1260, "1,260", 1260.0, True, ""),
        (0.25, "0.25", 0.25, True, ""),
        ("a", "a", "a", False, ""),
        (Cell(None, "not by 9", "bad"), "not by 9", None, True, "bad"),
        (Cell(0.5, "50%"), "50%", 0.5, True, ""),
        (Cell(3, swatch="#fff"), "3", 3.0, False, ""),
        (run_cell("e/s0001"), "s0001", "e/s0001", False, ""),
    ],
)
def test_a_cell_has_its_text_and_what_it_is_sorted_by(value, text, sort, number, tone):
    made = page.piece(value)
    assert [made[key] for key in ("text", "sort", "number", "tone")] == [text, sort, number, tone]


def test_every_block_is_html_and_nothing_of_it_is_trusted():
    blocks = [
        Say("**a** `b` <c>"),
        Say("small", note=True),
        Warnings(["<d>"]),
        Table(["<e>"], [["<f>"]], "**g**", folded=True, sortable=False),
        Code("<h>", "i"),
    ]
    made = page.html(blocks)
    for piece in (
        *(
            "<strong>a</strong> <code>b</code> &lt;c&gt;",
            '<p class="note">small</p>',
            "&lt;d&gt;",
            "&lt;e&gt;",
        ),
        *('<td data-sort="&lt;f&gt;">&lt;f&gt;</td>', "<summary><strong>g</strong></summary>", "&lt;h&gt;"),
    ):
        assert piece in made, piece
    assert list(terminal.lines(blocks)) == ["a `b` <c>", "small", "<d>"]
    with pytest.raises(TypeError, match="Figure: no such figure"):
        page.settled(Figure(name="x", caption="", alt=""))
    drawn = Picture(name="x", caption="", alt="", figure=Drawn())
    assert plots.draw(drawn) is drawn.figure


def test_runs_are_named_as_the_page_names_them():
    table = page.settled(Table(["run", "n"], [[run_cell("e/s0001"), 1]]), lambda run: f"<{run}>")
    assert isinstance(table, Table) and table.rows[0][0].text == "<e/s0001>" and table.rows[0][1] == 1


def test_what_is_no_analysis_is_refused_in_a_line():
    with pytest.raises(ConfigError, match="expected a stored analysis or its id, not int"):
        dynalab.view(3)  # type: ignore[arg-type]


def test_a_run_is_named_by_its_label_unless_its_cell_says_something_else():
    table = Table(["", "", ""], [[run_cell("aa/s0000"), Cell("aa/s0000", "aa", run="aa/s0000"), 1]], "")
    named = page.settled(table, lambda run: f"seed {run[-1]}")
    assert isinstance(named, Table)
    (row,) = named.rows
    assert [row[0].text, row[1].text, row[2]] == ["seed 0", "aa", 1] and row[1].run == "aa/s0000"
