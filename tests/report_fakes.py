"""Small stores made by the store's own writers, for tests of the report: no training, no fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from msgspec import to_builtins

from dynalab.analysis.hmm import Findings
from dynalab.analysis.hmm import states as decoded
from dynalab.analysis.hmm.claims import claims
from dynalab.analysis.hmm.paths import path_table
from dynalab.config.compose import compose
from dynalab.config.ensemble import from_tree
from dynalab.core.atomic import write_json
from dynalab.core.records import plain, restore
from dynalab.store import runfile, series
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, write_result

ATTEMPT = {
    "dynalab": "0.1.0",
    "torch": "2.14.1",
    "cpu": "a processor (avx2)",
    "commit": "180b60b87a5af18a208f8567efc412f9a43b4c41",
    "dirty": True,
    "python": "3.11.7",
    "host": "a-host",
    "device": "cpu",
    "argv": ["/usr/bin/dynalab", "train", "task=grokking", "seed=0..3"],
    "started": "2026-11-22T01:44:37+00:00",
    "ended": "2026-11-22T01:45:59+00:00",
    "first_step": 0,
    "step": 200,
    "seconds": 82.04,
    "train_seconds": 80.3,
}


def steps_of(last: int = 200, every: int = 10) -> np.ndarray:
    return np.arange(0, last + 1, every)


def training(n_runs: int, steps: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return metric -> values (S, T) that look like grokking: run s generalises at about step 80 + 10 s."""
    noise = np.random.default_rng(seed).normal(0, 0.01, (n_runs, len(steps)))
    late = (80 + 10 * np.arange(n_runs))[:, None]
    test = 0.5 + 0.5 * np.tanh((steps[None] - late) / 10.0)
    return {
        "train_loss": np.exp(-steps / 20.0)[None] * np.exp(noise),
        "test_loss": 5 * (1 - test) + 1e-4 * np.exp(noise),
        "train_accuracy": np.minimum(1, steps[None] / 40.0) + 0 * noise,
        "test_accuracy": test,
        "l2": 50 - steps[None] / 10.0 + noise,
        "grad_norm": np.where(steps[None] == 0, np.nan, np.exp(-steps / 30.0)[None] + 0 * noise),
    }


def summary(
    steps: np.ndarray, values: Mapping[str, np.ndarray], row: int, diverged: int | None
) -> dict[str, Any]:
    inside = steps < (np.inf if diverged is None else diverged)

    def first(metric: str) -> int | None:
        if metric not in values:
            return None
        found = np.flatnonzero((values[metric][row] >= 0.99) & inside)
        return int(steps[found[0]]) if len(found) else None

    last = int(np.flatnonzero(inside)[-1])
    final: dict[str, Any] = {"step": int(steps[last])}
    for name, array in values.items():
        value = float(array[row, last])
        final[name] = value if np.isfinite(value) else None
    return {
        "memorised_step": first("train_accuracy"),
        "generalised_step": first("test_accuracy"),
        "diverged_step": diverged,
        "final": final,
    }


def make_ensemble(
    outputs: Path,
    *,
    n_runs: int = 4,
    steps: np.ndarray | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    overrides: Sequence[str] = ("task=grokking",),
    config: Mapping[str, Any] | None = None,
    digest: str | None = None,
    slug: str = "default",
    task: str = "grokking",
    labels: Sequence[str] | None = None,
    status: str = "done",
    diverged: Mapping[int, int] | None = None,
    shards: int = 1,
    attempt: Mapping[str, Any] | None = None,
) -> Ensemble:
    """Store an ensemble and make it `@last`.

    Args:
        outputs: The outputs folder.
        n_runs: S.
        steps: Steps (T,).
        values: Metric -> values (S, T).
        overrides: What overrides.yaml says, and what the configuration is composed from.
        config: The configuration instead.
        digest: Its id; None for that of the configuration.
        slug: Its folder's name.
        task: Its task's folder.
        labels: Names of the runs instead of `s0000`, ...: they have no seeds.
        status: Of every shard; a `partial` one has no summaries.
        diverged: Row -> step at which it diverged.
        shards: Number of shards that the runs are dealt into, in order.
        attempt: Its provenance.
    """
    steps = steps_of() if steps is None else steps
    values = training(n_runs, steps) if values is None else values
    if config is None:
        typed = from_tree(compose(list(overrides)))
        config, digest = typed.as_dict(), digest or typed.id
    paths = OutputPaths(outputs).ensemble(task, slug, digest or "0123456789")
    paths.root.mkdir(parents=True)
    paths.overrides.write_text(yaml.safe_dump(list(overrides)))
    paths.config.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    for rows in np.array_split(np.arange(n_runs), shards):
        shard = paths.shard(f"shard-{rows[0]:04d}-{rows[-1]:04d}-{len(rows)}")
        shard.root.mkdir()
        every = config["eval"]["every"]
        writer = series.SeriesWriter(shard.series(f"every-{every}"), list(values), len(rows))
        columns = {name: array[rows].T for name, array in values.items()}
        writer.append(steps, np.zeros(len(steps)), columns)
        mark = writer.sync()
        writer.close()
        runs = []
        for row in rows:
            gone = (diverged or {}).get(int(row))
            said = summary(steps, values, int(row), gone) if status in runfile.FINAL else None
            label = labels[row] if labels else f"s{row:04d}"
            runs.append(
                runfile.Run(
                    label,
                    None if labels else int(row),
                    dict.fromkeys(("init", "split", "order", "noise"), int(row)),
                    "diverged" if gone is not None else status,
                    int(steps[-1]),
                    said,
                )
            )
        asked = int(steps[-1]) * (1 if status in runfile.FINAL else 2)
        record = runfile.Shard(
            runs,
            asked,
            status=status,
            steps=int(steps[-1]),
            attempts=[dict(ATTEMPT if attempt is None else attempt)],
            marks={f"every-{every}": [mark.rows, mark.crc]},
            started=ATTEMPT["started"],
        )
        runfile.write(shard, record)
    write_json(OutputPaths(outputs).last, {"schema_version": 1, "ensembles": [paths.digest]})
    return Ensemble(paths)


def make_hmm(
    outputs: Path,
    ensemble: Ensemble,
    paths: Sequence[Sequence[int]] | None = None,
    *,
    n_states: int = 3,
    digest: str = "7ebafd365b",
    created: str = "2026-11-23T00:00:00+00:00",
    warnings: Sequence[str] = (),
    single: bool = False,
) -> Result:
    """Store a hidden Markov model's result of the shape that `dynalab.analysis.hmm` gives it.

    Args:
        outputs: The outputs folder.
        ensemble: What it is about; every run enters.
        paths: States of every run, shapes (T,); None: 0, 1, 2 in thirds, and the second run leaps over 1.
        n_states: K.
        digest: Its id.
        created: When it was made.
        warnings: What it warns of.
        single: As of one run: nothing is held out.
    """
    grid = ensemble.steps("train_loss")
    ids = [run.id for run in ensemble.runs]
    if paths is None:
        third = np.minimum(np.arange(len(grid)) * n_states // len(grid), n_states - 1)
        paths = [np.where(third == 1, 0, third) if row == 1 else third for row in range(len(ids))]
    states = [np.asarray(path) for path in paths]
    names = ["l2", "grad_norm"]
    level = np.linspace(-1, 1, n_states * len(names)).reshape(n_states, len(names))
    steps = [(run.summary or {}).get("generalised_step") for run in ensemble.runs]
    convergence = [
        {"run": run, "step": step, "censored": step is None} for run, step in zip(ids, steps, strict=True)
    ]
    counts = decoded.transition_counts(states, n_states)
    data = {
        "id": digest,
        "kind": "hmm",
        "ensemble": ensemble.id,
        "ensembles": [ensemble.id],
        "warnings": list(warnings),
        "config": {
            "max_states": 6,
            "metrics": names,
            "seed": 0,
            "steps": None,
            "convergence": {"metric": None},
        },
        "inputs": [{"run": run.id, "steps": run.steps, "attempt": run.attempt} for run in ensemble.runs],
        "created": created,
        "n_states": n_states,
        "selection": [
            {
                "n_states": k,
                "heldout_ll_per_frame": None if single else 10.0 - (k - n_states) ** 2,
                "se": None if single else 0.4,
                "bic": -1000.0 + 10 * (k - n_states) ** 2,
                "converged": k != 1,
            }
            for k in range(1, n_states + 1)
        ],
        "state_order": list(range(n_states)),
        "states": [
            {"run": run, "steps": grid.tolist(), "states": path.tolist()}
            for run, path in zip(ids, states, strict=True)
        ],
        "state_profiles": [
            {
                "state": k,
                "runs": sum(bool((path == k).any()) for path in states),
                "rows": sum(int((path == k).sum()) for path in states),
                "mean_first_step": decoded.first_entry(states, [grid] * len(states), k),
                "level": dict(zip(names, level[k].tolist(), strict=True)),
                "drift": None if k == 1 else dict(zip(names, (level[k] / 50).tolist(), strict=True)),
            }
            for k in range(n_states)
        ],
        "transitions": {
            "counts": counts.tolist(),
            "probabilities": ((counts + 1e-3) / (counts + 1e-3).sum(1, keepdims=True)).tolist(),
        },
        "edge_change": "drift, z-units per row",
        "edges": to_builtins(decoded.edges(states, names, level)),
        "paths": to_builtins(path_table(states, [grid] * len(states), ids, convergence)),
        "metrics": names,
        "emission": "ar",
        "convergence": convergence,
        "convergence_rule": {
            "metric": "test_accuracy",
            "threshold": 0.99,
            "direction": "up",
            "persistence": 5,
        },
        "settings": {"preset": "robust"},
    }
    data["claims"] = plain(claims(restore(Findings, data)))
    return write_result(OutputPaths(outputs).analysis("hmm", digest), data, {})


def no_drawing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Let figures be made but neither laid out nor drawn; return those of the pages to come, by their files' names."""
    made: dict[str, Figure] = {}

    def save(figure: Figure, document: str, folder: Path, name: str, drawer: object) -> None:
        made[name] = figure
        (folder / f"{name}.svg").touch()

    monkeypatch.setattr("dynalab.show.svg.to_svg", lambda figure: '<svg viewBox="0 0 9 9"></svg>')
    # Which would leave the figure with its values on the other scale.
    monkeypatch.setattr("dynalab.show.svg.other_scale", lambda figure: None)
    monkeypatch.setattr("dynalab.show.svg.save", save)
    # Its package has a function of this name.
    monkeypatch.setattr(import_module("dynalab.show.plots.style"), "settle", lambda figure: None)
    return made


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        errors: Tags that do not nest.
        loads: Addresses that a browser would fetch by itself.
        ids: Every id.
        anchors: Anchors that links lead to.
        tables: Rows of every table, as lists of texts.
        text: All text outside of scripts, styles and drawings.
    """

    _VOID = frozenset(
        ["base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
    )

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.errors: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, dict(attrs))
        if tag not in self._VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, dict(attrs))

    def _look(self, tag: str, attrs: dict[str, str | None]) -> None:
        if attrs.get("id"):
            self.ids.append(str(attrs["id"]))
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster"):
            value = attrs.get(name) or ""
            if value.startswith("#"):
                self.anchors.append(value[1:])
            elif value and tag != "a" and not value.startswith("data:"):
                self.loads.append(f"<{tag} {name}={value}>")
            elif "//" in value and not value.startswith("data:"):
                self.loads.append(f"<{tag} {name}={value[:40]}>")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.errors.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if {"script", "style", "svg"} & set(self._open):
            return
        self.text += data
        if self.tables and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def table(self, *heads: str) -> list[list[str]]:
        """Return the rows of the first table whose head begins with some words."""
        return next(rows[1:] for rows in self.tables if rows and rows[0][: len(heads)] == list(heads))


def read_page(path: Path) -> Page:
    """Return a page, checked: it nests, loads nothing, repeats no id, and its anchors exist."""
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert not page.errors, page.errors[:3]
    assert not page.loads, page.loads[:3]
    assert "http:" not in source and "https:" not in source and "@import" not in source
    assert len(page.ids) == len(set(page.ids))
    assert set(page.anchors) <= set(page.ids), set(page.anchors) - set(page.ids)
    return page
