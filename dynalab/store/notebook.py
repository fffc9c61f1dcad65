"""How a notebook shows what is stored: an ensemble as a table of its runs, an analysis by what it says and of what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dynalab.core import html
from dynalab.core.words import listed, plain

if TYPE_CHECKING:
    from dynalab.store.results import Result
    from dynalab.store.stored import StoredEnsemble

# Rows, and columns of final metrics, that a table has at most.
ROWS = 50
METRICS = 6
LANDMARKS = ("memorised_step", "generalised_step", "diverged_step")
# The metrics that are shown first.
_MAIN = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def ensemble(item: StoredEnsemble) -> str:
    """Return an ensemble as HTML: a row a run, with its status, steps, landmarks and final metrics."""
    summaries: list[Mapping[str, Any]] = [run.summary or {} for run in item.runs]
    finals = [summary.get("final") or {} for summary in summaries]
    recorded = dict.fromkeys(name for final in finals for name in final if name != "step")
    metrics = [*(name for name in _MAIN if name in recorded), *(n for n in recorded if n not in _MAIN)][
        :METRICS
    ]
    landmarks = [name for name in LANDMARKS if any(summary.get(name) is not None for summary in summaries)]
    header = ["run", "seed", "status", "steps", *(name.removesuffix("_step") for name in landmarks), *metrics]
    rows = [
        [run.label, run.seed, run.status, run.steps, *map(summary.get, landmarks), *map(final.get, metrics)]
        for run, summary, final in zip(item.runs[:ROWS], summaries, finals, strict=False)
    ]
    more = [f"and {len(item.runs) - ROWS:,} more runs"] if len(item.runs) > ROWS else []
    return html.table(repr(item), header, rows, [*more, *item.warnings])


def result(item: Result) -> str:
    """Return an analysis as HTML: what it says, of which ensembles, its tables and its warnings."""
    facts: list[list[Any]] = [
        ["says", item.headline and plain(item.headline)],
        ["ensembles", listed(item.ensembles)],
        ["made", str(item.data.get("created") or "").replace("T", " ")[:16] or None],
        ["tables", listed(item.tables())],
        *(["warning", line] for line in item.warnings),
    ]
    notes = [f"dynalab.view('{item.kind}-{item.id}') shows it whole"]
    return html.table(repr(item), [], [fact for fact in facts if fact[1] is not None], notes)
