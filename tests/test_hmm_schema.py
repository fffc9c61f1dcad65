"""Every key of `analyze hmm --json`, through the command line: names, types, and that they agree with each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_import import table

import dynalab
from dynalab.cli.app import run as command


def number(x: Any) -> None:
    assert isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x), x


def integer(x: Any) -> None:
    assert isinstance(x, int) and not isinstance(x, bool), x


def text(x: Any) -> None:
    assert isinstance(x, str) and x, x


def boolean(x: Any) -> None:
    assert isinstance(x, bool), x


def probability(x: Any) -> None:
    number(x)
    assert 0 <= x <= 1


def maybe(check: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda x: None if x is None else check(x)


def several(check: Callable[[Any], None]) -> Callable[[Any], None]:
    def all_of(x: Any) -> None:
        assert isinstance(x, list), x
        for item in x:
            check(item)

    return all_of


def having(**fields: Callable[[Any], None]) -> Callable[[Any], None]:
    """An object with at least these keys: a part may say more."""

    def check(x: Any) -> None:
        assert isinstance(x, dict) and set(fields) <= set(x), (set(fields) - set(x), x)
        for name, own in fields.items():
            own(x[name])

    return check


def interval(x: Any) -> None:
    """Bounds in order; one that lies beyond what was seen (censoring) is null."""
    assert isinstance(x, list) and len(x) == 2
    for bound in x:
        maybe(number)(bound)
    assert None in x or x[0] <= x[1]


RESULT = having(
    n_states=integer,
    selection=several(
        having(
            n_states=integer,
            heldout_ll_per_frame=maybe(number),
            se=maybe(number),
            bic=maybe(number),
            converged=boolean,
        )
    ),
    state_order=several(integer),
    states=several(having(run=text, steps=several(integer), states=several(integer))),
    transitions=having(counts=several(several(integer)), probabilities=several(several(probability))),
    edges=several(
        having(
            runs=integer,
            interval=interval,
            features=several(having(name=text, change=number, interval=maybe(interval))),
            **{"from": integer, "to": integer},
        )
    ),
    paths=several(
        having(
            states=several(integer), runs=integer, median_step=maybe(number), quartiles=several(maybe(number))
        )
    ),
    convergence=maybe(several(having(run=text, step=maybe(integer), censored=boolean))),
    detours=several(
        having(
            state=integer,
            verdict=boolean,
            effect_steps=maybe(number),
            interval=maybe(interval),
            p=maybe(probability),
            p_adjusted=maybe(probability),
        )
    ),
    dissimilarity=maybe(
        having(total_variation=having(value=maybe(number), interval=maybe(interval), runs=integer))
    ),
    stability=several(having(over=text, fits=integer, adjusted_rand=maybe(number))),
    baselines=several(having()),
    metrics=several(text),
    emission=text,
    id=text,
    ensemble=text,
    warnings=several(text),
    model=having(
        features=several(having(name=text, log=boolean, mean=number, sd=number)),
        start=several(probability),
        transitions=several(several(probability)),
        emission=text,
    ),
    claims=having(
        forks=several(having(state=integer, runs=integer, fork=boolean)),
        off_path=having(runs=integer, share=probability, interval=interval),
        detours=maybe(having(states=several(integer))),
        spread=maybe(having(median=maybe(number), cv=maybe(number), cv_interval=maybe(interval))),
    ),
)


def analysed(*words: str) -> list[str]:
    dynalab.import_runs(table(10), "mine", run="run", step="step")
    keys = [
        "convergence.metric=acc",
        "convergence.threshold=0.9",
        "convergence.direction=up",
        "max_states=3",
        "folds=3",
        "restarts=2",
    ]
    return ["analyze", "hmm", "mine", "hmm.workers=1", *keys, *words, "--json"]


def test_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(analysed()) == 0
    document = json.loads(capsys.readouterr().out)
    assert next(iter(document)) == "schema_version" and document["kind"] == "hmm"
    (result,) = document["analyses"]
    RESULT(result)
    k, runs = result["n_states"], result["states"]
    assert sorted(result["state_order"]) == list(range(k))
    assert [row["n_states"] for row in result["selection"]] == [1, 2, 3]
    assert all(
        len(run["steps"]) == len(run["states"]) and set(run["states"]) <= set(range(k)) for run in runs
    )
    assert [len(row) for row in result["transitions"]["counts"]] == [k] * k
    assert all(sum(row) == pytest.approx(1) for row in result["transitions"]["probabilities"])
    frames = sum(len(run["steps"]) - 1 for run in runs)
    assert sum(map(sum, result["transitions"]["counts"])) == frames
    assert sum(path["runs"] for path in result["paths"]) == len(runs)
    assert [item["run"] for item in result["convergence"]] == [run["run"] for run in runs]
    assert all((item["step"] is None) == item["censored"] for item in result["convergence"])
    entered = [min(run["states"].index(s) for run in runs if s in run["states"]) for s in range(k)]
    assert entered[0] == 0
    assert all(edge["from"] != edge["to"] and edge["runs"] >= 1 for edge in result["edges"])
    path = Path(result["path"])
    assert json.loads((path / "result.json").read_text())["id"] == result["id"]
    assert {item.suffix for item in path.iterdir()} == {".json", ".parquet"}


def test_from_python_and_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(analysed("stability=false", "baselines=false")) == 0
    (analysis,) = json.loads(capsys.readouterr().out)["analyses"]
    assert analysis["stability"] is analysis["baselines"] is None
    result = dynalab.load(f"hmm-{analysis['id']}")
    assert result["n_states"] == analysis["n_states"] and result.ensemble == analysis["ensemble"]
    states = result.table("states")
    assert isinstance(states, pd.DataFrame) and list(states.columns[:3]) == ["run", "step", "state"]
    assert dynalab.load(analysis["id"][:6]).id == analysis["id"]
    assert set(result.frames()) == set(result.tables()) >= {"states", "selection", "transitions"}
    assert dynalab.load("mine").array("acc").shape[0] == 10

    dynalab.import_runs(table(3, seed=4), "new", run="run", step="step")
    assert command(["analyze", "hmm", "new", f"decode_with=hmm-{analysis['id']}", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["analyses"]
    own = ("model", "claims", "detours", "stability", "baselines")
    assert all(result[key] is None for key in own[2:])
    filled = {"stability": [], "baselines": [], "detours": []}
    RESULT({**result, **{key: analysis[key] for key in own[:2]}, **filled})
    having(
        decoded_with=text,
        heldout_ll_per_frame=maybe(number),
        states=several(
            having(posterior=several(several(probability)), ll_per_frame=number, held_out=boolean)
        ),
    )(result)
    assert result["decoded_with"] == analysis["id"]
