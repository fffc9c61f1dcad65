"""Stored analyses in `dynalab runs list --analyses` and `dynalab runs show ANALYSIS`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dynalab.cli.options import columns, echo, emit_json, note, shortened, warn
from dynalab.store.find import select
from dynalab.store.results import Result, damaged_results, find_result, results
from dynalab.store.stored import StoredEnsemble


def list_analyses(root: Path, refs: Sequence[str], filter_text: str | None, as_json: bool) -> int:
    """List the stored analyses: all, or those about some ensembles. Returns the exit code."""
    about = None
    if refs or filter_text is not None:
        about = [ensemble.id for ensemble, _ in select(root, refs, filter_text, StoredEnsemble)]
    stored, damaged = results(root, about), damaged_results(root, about)
    if as_json:
        emit_json({"analyses": [_fields(result) for result in stored], "warnings": damaged})
        return 3 if damaged else 0
    if stored:
        rows = [_row(result) for result in stored]
        echo(columns(["analysis", "ensembles", "runs", "made", "path"], rows))
    else:
        note(f"no analyses in {root}; make one: dynalab analyze hmm")
    warn(damaged)
    return 3 if damaged else 0


def show_analysis(root: Path, ref: str, as_json: bool) -> int:
    """Show what an analysis is, what it was made from and with which settings. Returns the exit code.

    Raises:
        NothingMatched: Several analyses have this id.
        StoreError: It is damaged.
    """
    result = find_result(root, ref)
    document = {
        **_fields(result),
        **{key: result.data.get(key) for key in ("dynalab", "version", "config", "inputs")},
        "tables": {name: str(path) for name, path in result.paths.tables().items()},
        "warnings": result.warnings,
    }
    if as_json:
        emit_json({"analyses": [document]})
    else:
        echo(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100).rstrip())
    return 0


def _fields(result: Result) -> dict[str, Any]:
    return {
        "id": result.id,
        "kind": result.kind,
        "ensembles": result.ensembles,
        "created": result.data.get("created"),
        "path": str(result.paths.root),
    }


def _row(result: Result) -> list[Any]:
    made = str(result.data.get("created") or "").replace("T", " ")[:16] or None
    inputs = result.data.get("inputs")
    runs = None if inputs is None else len(inputs)
    return [f"{result.kind}-{result.id}", shortened(result.ensembles), runs, made, result.paths.root]
