"""What holds of every analysis, whoever wrote it."""

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
from collisions import collisions
from groups import EXAMPLES

from dynalab.analysis.base import Group, Run, Series
from dynalab.analysis.command import findings_of, needs_of
from dynalab.config.registry import find
from dynalab.core.blocks import BlockRows
from dynalab.core.convergence import ConvergenceKeys
from dynalab.core.progress import telling
from dynalab.core.records import plain, restore, tables
from dynalab.errors import DynalabError, NothingMatched
from dynalab.show import terminal
from dynalab.show.blocks import Figure, Say, Table
from dynalab.show.plots import draw

KINDS = sorted(EXAMPLES)
# What each tells of how far it is; and those that look at a series of each run once, in milliseconds.
TOLD: dict[str, list[tuple]] = {}
AT_ONCE = {"eos", "periods", "slingshot", "spectrum", "variance"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    part, example = find("analysis", request.param), EXAMPLES[request.param]()
    config = part.module.Config(**example.keys)
    with telling(lambda *what: TOLD.setdefault(part.name, []).append(what)):
        return part, example, config, findings_of(example.groups, part, config)


def stored(findings):
    """The findings as JSON and tables have them, with what is to be read before the numbers."""
    frames = {name: frame.to_dict("list") for name, frame in tables(findings).items()}
    return plain(findings), frames, tuple(getattr(findings, "warnings", ()))


def ended(run: Run, last: int) -> Run:
    """The run as it would have been stored had it ended at a step."""
    series = {
        name: Series.of(own.steps[own.steps <= last], own.values[own.steps <= last])
        for name, own in run.series.items()
    }
    blocks = {name: own.until(last) for name, own in run.blocks.items()}
    grid = run.grid[run.grid <= last]
    weights = replace(run.weights.until(last), diverged_step=None)
    return replace(
        run, series=series, blocks=blocks, grid=grid, weights=weights, status="done", diverged_step=None
    )


def test_a_prefix_is_judged_as_runs_that_ended_there(kind):
    part, example, config, _ = kind
    for last in example.cuts:
        cut = [replace(group, runs=tuple(ended(run, last) for run in group.runs)) for group in example.groups]
        prefix = stored(findings_of(example.groups, part, replace(config, steps=last)))
        # With the key, which findings may name among what made them.
        np.testing.assert_equal(prefix, stored(findings_of(cut, part, replace(config, steps=last))))


def test_no_words_of_a_figure_overlap(kind):
    part, example, _, findings = kind
    for block in (one for one in part.module.show(findings, example.groups) if isinstance(one, Figure)):
        assert collisions(draw(block, size=(3.25, None))) == [], block.name


def test_an_analysis_tells_how_far_it_is(kind):
    part, *_ = kind
    told = TOLD.get(part.name, [])
    assert bool(told) != (part.name in AT_ONCE)
    # The last piece of the last part is told.
    assert not told or told[-1][1] == told[-1][2] > 0


def test_findings_come_back_from_json(kind):
    part, _, _, findings = kind
    text = json.dumps(plain(findings), allow_nan=False)
    again = restore(part.module.Findings, json.loads(text), tables(findings).get)
    assert json.dumps(plain(again)) == text and tables(again).keys() == tables(findings).keys()


def test_order_of_runs_and_columns_does_not_matter(kind):
    part, example, config, findings = kind
    turned = [
        replace(
            group,
            runs=tuple(
                replace(run, series=dict(reversed([*run.series.items()]))) for run in reversed(group.runs)
            ),
            metrics=group.metrics[::-1],
        )
        for group in example.groups
    ]
    mine, theirs = plain(findings), plain(findings_of(turned, part, config))
    for key, value in mine.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and "run" in value[0]:
            theirs[key] = sorted(
                theirs[key], key=lambda row: [item["run"] for item in value].index(row["run"])
            )
    np.testing.assert_equal(theirs, mine)


@pytest.mark.parametrize("poor", ["one run", "one row", "nothing", "constant"])
def test_poor_runs_end_in_findings_or_in_a_line(kind, poor):
    part, example, config, _ = kind
    rows = {
        "one run": lambda series: series,
        "one row": lambda series: Series(series.steps[:1], series.values[:1]),
        "nothing": lambda series: Series(series.steps[:0], series.values[:0]),
        "constant": lambda series: Series(series.steps, 1.0 + 0 * series.values),
    }[poor]
    blocks = {
        "one run": lambda block: block,
        "one row": lambda block: block.until(block.steps[0]),
        "nothing": lambda block: block.until(-1),
        "constant": lambda block: BlockRows(block.steps, np.repeat(block.values[:1], len(block), axis=0)),
    }[poor]
    kept = {
        "one run": lambda weights: weights,
        "one row": lambda weights: weights.until(0),
        "nothing": lambda weights: replace(weights, kept=tuple),
        "constant": lambda weights: replace(weights, read=lambda step: weights.read(0)),
    }[poor]
    groups = [
        replace(
            group,
            runs=tuple(
                replace(
                    run,
                    weights=kept(run.weights),
                    series={name: rows(series) for name, series in run.series.items()},
                    blocks={name: blocks(block) for name, block in run.blocks.items()},
                    grid=run.grid[:1] if poor == "one row" else run.grid,
                )
                for run in (group.runs[:1] if poor == "one run" else group.runs)
            ),
        )
        for group in example.groups
    ]
    try:
        findings = findings_of(groups, part, config)
    except DynalabError as error:
        # No word is wrong: it is the runs that do not permit it.
        assert error.exit_code == 4 and len(str(error).splitlines()) == 1
    else:
        json.dumps(plain(findings), allow_nan=False)
        read(part, findings, groups)


# Words that name what these runs do not have, or contradict themselves, and words that are fine where the runs are not.
REFUSALS = [
    ("compare", {"metrics": ["none_such"]}, 2),
    ("compare", {"convergence": {"metric": "none_such", "threshold": 0.5}}, 2),
    ("connectivity", {"at": 7}, 4),
    ("directions", {"parts": ["none_such"]}, 2),
    ("hmm", {"metrics": ["none_such"]}, 2),
    ("hmm", {"convergence": {"metric": "none_such", "threshold": 0.5}}, 2),
    ("hmm", {"n_states": 500}, 4),
    ("hmm", {"preset": "paper", "convergence": {"metric": "none_such", "threshold": 0.5}}, 2),
    ("kernel", {"at": [7, 9]}, 4),
    ("landscape", {"at": 7}, 4),
    ("partition", {"at": [7]}, 4),
    ("regions", {"layers": [99]}, 2),
    ("variance", {"convergence": {"metric": "none_such", "threshold": 0.5}}, 2),
    ("variance", {"convergence": {"threshold": 2.0}}, 4),
]


@pytest.mark.parametrize(("name", "keys", "code"), REFUSALS)
def test_a_wrong_word_is_two_and_runs_that_do_not_permit_it_are_four(name, keys, code):
    part, example = find("analysis", name), EXAMPLES[name]()
    with pytest.raises(DynalabError) as error:
        nested = ConvergenceKeys(**keys["convergence"]) if "convergence" in keys else None
        config = part.module.Config(**example.keys | keys | ({"convergence": nested} if nested else {}))
        findings_of(example.groups, part, config)
    assert error.value.exit_code == code and len(str(error.value).splitlines()) == 1


def test_what_was_not_recorded_is_named_with_what_records_it(kind):
    part, _, config, _ = kind
    needs = needs_of(part, config)
    if not needs.columns and not needs.blocks:
        pytest.skip("takes whatever was recorded")
    group = Group.of({"s0000": {"of_no_use": np.arange(3.0)}}, np.arange(3))
    with pytest.raises(NothingMatched, match=r"needs: dynalab train \.\.\. ") as error:
        findings_of([group], part, config)
    assert needs.record and needs.record in str(error.value)


def read(part, findings, groups):
    """Everything that is said of findings, on every medium."""
    blocks = list(part.module.show(findings, groups))
    undeclared = [
        block.name
        for block in blocks
        if isinstance(block, Figure)
        and not any(fnmatchcase(block.name, name) for name in part.module.FIGURES)
    ]
    assert not undeclared
    words = [block.text for block in blocks if isinstance(block, Say)]
    words += [text for block in blocks if isinstance(block, Figure) for text in (block.caption, block.alt)]
    assert all(words)
    rows = [row for block in blocks if isinstance(block, Table) for row in block.rows]
    words += [value for row in rows for value in row if isinstance(value, str)]
    for text in words:
        assert not {"None", "nan", "inf"} & {*re.findall(r"\w+", text)}, text
    assert any(isinstance(block, Say) and block.headline for block in blocks)
    names = [block.name for block in blocks if isinstance(block, Figure)]
    assert len(names) == len({*names})
    assert list(terminal.lines(blocks))
    return blocks


def test_what_it_says_has_a_headline_and_no_holes(kind):
    part, example, _, findings = kind
    alone, beside = (read(part, findings, groups) for groups in ([], example.groups))
    assert not any(isinstance(block, Figure) for block in alone)
    assert [block for block in beside if not isinstance(block, Figure)] == alone


def headline(kind, group):
    part, example = find("analysis", kind), EXAMPLES[kind]()
    findings = findings_of([group(example.group)], part, part.module.Config(**example.keys))
    return next(block.text for block in part.module.show(findings, []) if isinstance(block, Say))


def test_a_spectrum_of_one_row_moves_nowhere():
    one, all_rows = (
        headline("spectrum", change) for change in (lambda group: group.until(5), lambda group: group)
    )
    assert "eigenvalue is **2.5**; **30%** negative" in one and one.endswith(
        "a single row shows no movement."
    )
    assert "goes from" not in one and "at the end" not in one and "eigenvalue goes from 2.5 to **" in all_rows


def test_an_edge_that_cannot_be_judged_is_undecided():
    text = headline(
        "eos",
        lambda group: replace(
            group,
            runs=tuple(
                replace(
                    run,
                    config={},
                    series={name: own for name, own in run.series.items() if name != "stability_threshold"},
                )
                for run in group.runs
            ),
        ),
    )
    assert text == "**Edge of stability:** of 2 runs, **2 undecided**."
