"""The seed grammar, and the runs that seeds and streams span."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalab.config.command import read_command, words_of
from dynalab.config.seeds import format_seeds, parse_seeds
from dynalab.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        (7, [7]),
        ("0..3", [0, 1, 2, 3]),
        ("5..5", [5]),
        ("range(3)", [0, 1, 2]),
        ("range(2,5)", [2, 3, 4]),
        ("range(0,10,4)", [0, 4, 8]),
        ("range(start=1,stop=3)", [1, 2]),
        ("[1,5,9]", [1, 5, 9]),
        ("1,5,9", [1, 5, 9]),
        ("choice(1,2)", [1, 2]),
        ("0..2,7,9..10", [0, 1, 2, 7, 9, 10]),
        ("[0..2,range(3,5)]", [0, 1, 2, 3, 4]),
        ("3,3,1..3", [3, 1, 2]),
        ("'0..1'", [0, 1]),
        ([4, "6..7"], [4, 6, 7]),
    ],
)
def test_every_spelling(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "a",
        "1.5",
        "3..1",
        "..3",
        "0..",
        "range()",
        "range(1,2,0)",
        "range(x)",
        "[]",
        "1,,2",
        True,
        None,
        1.0,
    ],
)
def test_what_names_no_seed_is_refused_with_the_key(text):
    with pytest.raises(ConfigError, match="seed"):
        parse_seeds(text)


def test_absurd_counts_are_refused_before_memory_is():
    with pytest.raises(ConfigError, match="too many"):
        parse_seeds("0..999999999999")


@settings(deadline=None, derandomize=True, database=None)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_format_and_parse_are_inverse(seeds):
    assert parse_seeds(format_seeds(seeds)) == sorted(seeds)


def test_streams_are_swept_unless_crossed():
    swept = read_command(["task=grokking", "seed=0..1", "seed_streams.init=0..2"])
    assert len(swept.requests) == 3
    assert [run.label for run in swept.requests[0].runs] == ["s0000", "s0001"]
    assert [run.streams["init"] for run in swept.requests[2].runs] == [2, 2]
    assert [run.streams["split"] for run in swept.requests[2].runs] == [0, 1]


def test_a_crossed_design_is_one_ensemble_of_all_combinations():
    words = [
        "task=grokking",
        "design=crossed",
        "seed_streams.init=0..1",
        "seed_streams.order=[3,5]",
        "seed=9",
    ]
    (request,) = read_command(words).requests
    assert [run.label for run in request.runs] == [
        "init0-order3",
        "init0-order5",
        "init1-order3",
        "init1-order5",
    ]
    assert all(run.seed is None for run in request.runs)
    assert request.runs[1].streams == {"init": 0, "split": 9, "order": 5, "noise": 9}
    # The seed is in its identity, and in the words that it is known by; the default is not, as in every id of before.
    own = ["seed_streams.split=9", "seed_streams.noise=9"]
    (same,), (usual,) = read_command([*words[:-1], *own]).requests, read_command(words[:-1]).requests
    assert same == request and usual.config.id != request.config.id
    assert usual == read_command([*words[:-1], "seed=0"]).requests[0]
    again = read_command(words_of(request.config)).requests[0]
    assert (again.config.id, again.runs) == (request.config.id, request.runs)


@pytest.mark.parametrize(
    "words",
    [["design=crossed"], ["design=crossed", "seed_streams.init=0..1", "seed=0..1"], ["seed_streams.inti=0"]],
)
def test_designs_that_span_nothing_are_refused(words):
    with pytest.raises(ConfigError):
        read_command(["task=grokking", *words])


def test_a_stream_without_effect_is_reported(here, tiny):
    answer = here("train", *tiny, "seed_streams.order=3", "--dry-run")
    assert "seed_streams.order has no effect" in answer.err
    assert (
        "no effect" not in here("train", *tiny, "seed_streams.order=3", "train.batch_size=8", "--dry-run").err
    )
