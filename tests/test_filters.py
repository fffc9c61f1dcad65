"""Filters compare values: what they choose, what they never choose, and what they are told that cannot be meant."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalab.cli.app import run as run_command
from dynalab.config.command import read_command
from dynalab.errors import ConfigError, NothingMatched
from dynalab.launch import layout, train
from dynalab.store import runfile
from dynalab.store.filters import Filter
from dynalab.store.find import select
from dynalab.store.paths import EnsemblePaths, OutputPaths
from dynalab.store.stored import StoredEnsemble


@cache
def config_of(words: str) -> tuple[str, dict[str, Any]]:
    (request,) = read_command(words.split()).requests
    return request.config.id, request.config.as_dict()


def store(outputs: Path, words: str, seeds: int = 2, **shard: Any) -> str:
    """Store an ensemble as if its runs had been trained; returns its id."""
    digest, tree = config_of(words)
    paths = OutputPaths(outputs).ensemble(tree["task"]["name"], "some", digest)
    _store(paths, tree, seeds, **shard)
    return digest


def _store(paths: EnsemblePaths, tree: dict[str, Any], seeds: int, **shard: Any) -> None:
    runs = [
        runfile.Run(f"s{seed:04d}", seed, dict.fromkeys(("init", "split", "order", "noise"), seed))
        for seed in range(seeds)
    ]
    for place, run in enumerate(runs):
        run.status, run.steps = "done", 100
        run.summary = {
            "generalised_step": 50 if place == 0 else None,
            "final": {"test_accuracy": 0.5 + place},
        }
    folder = paths.shard(runfile.folder_name(runs, 1))
    folder.root.mkdir(parents=True)
    record = {"status": "done", "steps": 100, "started": "2026-03-04T10:00:00+00:00", **shard}
    runfile.write(folder, runfile.Shard(runs, 100, **record))
    paths.config.write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture
def stored(outputs: Path) -> dict[str, str]:
    """Return the ids of two trained ensembles, and of an imported one that has two names and no model."""
    ids = {
        "mlp": store(outputs, "task=digits model.hidden=[64,64] optimizer.lr=0.001 train.clip=1.0"),
        "embedding": store(outputs, "task=grokking", started="2026-05-06T10:00:00+00:00"),
        "table": "0123456789",
    }
    paths = OutputPaths(outputs).ensemble("imported", "table", ids["table"])
    _store(paths, {"import": {"names": ["table", "007"]}}, 1)
    return ids


def chosen(outputs: Path, text: str) -> set[str]:
    try:
        selection = select(outputs, [], text, StoredEnsemble)
    except NothingMatched:
        return set()
    return {run.id for _, runs in selection for run in runs}


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("model.hidden=[64,64]", "mlp"),
        ("model.hidden=[64, 64.0]", "mlp"),
        ("model.hidden!=[64,64]", ""),
        ("model.hidden!=[64]", "mlp"),
        ("optimizer.lr=1e-3", "mlp"),
        ("optimizer.lr=.001", "mlp"),
        ("optimizer.lr!=0.001", "embedding"),
        ("optimizer.lr<0.002", "mlp"),
        ("optimizer.lr>=0.003", "embedding"),
        ("optimizer=adamw", "embedding"),
        ("optimizer!=adamw", "mlp"),
        ("model=mlp schedule=constant", "mlp"),
        ("train.clip=null", "embedding"),
        ("train.clip!=null", "mlp"),
        ("train.sphere=False", "mlp embedding"),
        ("train.batch_size=full", "embedding"),
        ("train.batch_size!=64", "embedding"),
        ("train.batch_size<100", "mlp"),
        ("probes=[weights,gradients]", "mlp embedding"),
        ("task=digits", "mlp"),
        ("task!=digits", "embedding table"),
        ("name=007", "table"),
        ("name='table'", "table"),
        ("name!=table", ""),
        ("started>2026-04-01", "embedding"),
        ("started=2026-03-04", "mlp table"),
        ("started<2026-03-04T11:00 task=digits", "mlp"),
        ("ensemble=01234", "table"),
        ("task=regression", ""),
        # In whichever order: an imported run has no learning rate, so nothing is said of it.
        ("optimizer.lr<1 task=digits", "mlp"),
        ("task=digits optimizer.lr<1", "mlp"),
        ("optimizer.lr!=0.5", "mlp embedding"),
    ],
)
def test_values_are_compared_not_texts(stored, outputs, text, which):
    assert {run.partition("/")[0] for run in chosen(outputs, text)} == {
        stored[name] for name in which.split()
    }


def test_runs_are_told_apart(stored, outputs):
    mlp = stored["mlp"]
    assert chosen(outputs, "task=digits seed=1..5") == {f"{mlp}/s0001"}
    assert chosen(outputs, "task=digits generalised<100") == {f"{mlp}/s0000"}
    assert chosen(outputs, "task=digits generalised!=3") == {f"{mlp}/s0000"}, "s0001 never did"
    assert chosen(outputs, "task=digits generalised_step=null") == {f"{mlp}/s0001"}
    assert chosen(outputs, "task=digits final.test_accuracy>1") == {f"{mlp}/s0001"}
    assert chosen(outputs, f"id={mlp}/s0001") == {f"{mlp}/s0001"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimiser.lr=3", "optimiser.lr is neither a field of a run nor a configuration key of any"),
        ("optimiser.lr=3", "did you mean optimizer.lr?"),
        ("train=3", "train is a section, not a value; there are "),
        # Also behind a term that holds for nothing.
        ("task=regression modle=mlp", "did you mean model?"),
        ("optimizer.lr!=0,01", "optimizer.lr is a number"),
        ("optimizer.lr=fast", "optimizer.lr is a number"),
        (
            "status=finished",
            "no such status; there are crashed, diverged, done, failed, partial, planned, running",
        ),
        ("status!=divergd", "no such status (did you mean diverged?)"),
        ("train.sphere!=yes", "train.sphere is true or false"),
        ("model.hidden!=64", "model.hidden is a list"),
        ("optimizer.lr<fast", "< compares numbers"),
        ("task<grokking", "< compares numbers"),
        ("seed=fast", "seed=fast: expected an integer"),
        ("started>yesterday", "expected a date"),
        ("task", "task is no term"),
        ("task=", "compares with nothing"),
        ("name='a b", "a quote has no other end"),
        ("model.hidden=[64", "a bracket has no other end"),
        ("", "names no term"),
        ("  ", "names no term"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(stored, outputs, text, said):
    with pytest.raises(ConfigError) as caught:
        select(outputs, [], text, StoredEnsemble)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_configuration_is_read_only_where_a_term_asks_for_it(stored, outputs, monkeypatch):
    monkeypatch.setattr(StoredEnsemble, "config", property(lambda self: pytest.fail("config.yaml was read")))
    assert len(chosen(outputs, "task=digits seed<1 status=done")) == 1


def test_values_with_spaces_are_quoted():
    (one, two) = Filter("name='a b=c' seed=1").terms
    assert (one.given.text, two.sign) == ("a b=c", "=")


@pytest.mark.parametrize("text", ["model.hidden!=[64,64]", "optimizer.lr!=0,01", "generalised!=50", "", " "])
def test_rm_removes_nothing_that_did_not_match(stored, outputs, text, capsys):
    before = sorted(outputs.rglob("run.json"))
    assert run_command(["runs", "rm", "@all", "-f", text, "--yes"]) in (2, 4)
    assert sorted(outputs.rglob("run.json")) == before
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2


def test_what_is_stored_is_timed_once_for_a_whole_sweep(outputs, monkeypatch):
    words = "task=grokking task.modulus=7 optimizer.lr="
    timed = {"step": 100, "first_step": 0, "train_seconds": 4.0}
    for rate in ("0.1", "0.2", "0.3"):
        store(outputs, words + rate, attempts=[timed])
    command = read_command(f"{words}0.1,0.2,0.3 seed=0..2 train.steps=100".split())
    layouts = []
    for request in command.requests:
        paths = layout.find_ensemble(OutputPaths(outputs), request)
        layouts.append(layout.Layout(request, paths, work=[paths.shard("shard-0002-0002-1")]))
    opened = []
    monkeypatch.setattr(train, "StoredEnsemble", lambda path: opened.append(path) or StoredEnsemble(path))
    # Four seconds for a hundred steps of two runs.
    assert train.seconds_per_step(layouts) == [0.02] * 3
    assert len(opened) == 3
