"""The `analyze` command without its terminal: trajectories from the store, an analysis, a stored result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynalab._version import __version__
from dynalab.analysis import claims
from dynalab.analysis.base import Trajectories
from dynalab.config.analysis import given_keys
from dynalab.config.ensemble import canonical
from dynalab.config.registry import Part
from dynalab.config.typed import non_neutral, plain
from dynalab.errors import ConfigError, NothingMatched
from dynalab.store.find import Selection
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, find_result, reading, whole_result, write_result
from dynalab.store.runfile import FINAL
from dynalab.store.stored import StoredRun

# Keys that change how an analysis is computed but not what comes out; they stay out of its id.
NOT_IDENTITY = ("workers",)
# What two stored analyses say beside each other; nobody asks for it by this name.
CONTRAST = "contrast"


@dataclass(frozen=True)
class Inputs:
    """What one analysis is made from.

    Attributes:
        ensembles: One, or several that are pooled.
        runs: The runs that enter.
        trajectories: Their trajectories.
    """

    ensembles: list[Ensemble]
    runs: list[StoredRun]
    trajectories: Trajectories


def gather(
    selection: Selection[Ensemble], part: Part, config: Any = None, *, pool: bool = False
) -> Iterator[Inputs]:
    """Yield the inputs of each analysis: one an ensemble, or one over all.

    Args:
        selection: Ensembles and their runs.
        part: The analysis; its `STATUSES`, or `statuses(config)`, says which runs it takes (default: done ones).
        config: Its typed configuration.
        pool: Whether to make one over all ensembles.

    Raises:
        NothingMatched: No run of any ensemble can enter.
    """
    statuses = getattr(part.module, "STATUSES", ("done",))
    if config is not None and hasattr(part.module, "statuses"):
        statuses = part.module.statuses(config)
    found = []
    left: list[str] = []
    for ensemble, runs in selection:
        ids = [run.id for run in runs]
        columns = getattr(part.module, "COLUMNS", None)
        trajectories = (
            ensemble.trajectories(statuses=statuses, runs=ids)
            if columns is None
            else ensemble.united(columns, statuses=statuses, runs=ids)
        )
        entered = {run.run for run in trajectories.runs}
        kept = [run for run in runs if run.id in entered]
        if kept:
            found.append(Inputs([ensemble], kept, trajectories))
        else:
            left += trajectories.warnings or (f"{ensemble.id} has no runs",)
    if not found:
        wanted = " or ".join(statuses)
        raise NothingMatched(
            f"no run is {wanted} ({'; '.join(left[:3])}); train to the end first: dynalab train"
        )
    yield from [_pooled(found)] if pool else found


def _pooled(inputs: Sequence[Inputs]) -> Inputs:
    """Put the runs of several ensembles side by side, on the metrics and the rule of convergence that all have."""
    first = inputs[0].trajectories
    shared = [name for name in first.metrics if all(name in item.trajectories.metrics for item in inputs)]
    runs = []
    for item in inputs:
        columns = [item.trajectories.metrics.index(name) for name in shared]
        runs += [replace(run, values=run.values[:, columns]) for run in item.trajectories.runs]
    warnings = tuple(line for item in inputs for line in item.trajectories.warnings)
    dropped = sorted({name for item in inputs for name in item.trajectories.metrics} - set(shared))
    if dropped:
        warnings += (f"not in every ensemble, left out: {', '.join(dropped)}",)
    rules = list(dict.fromkeys(item.trajectories.convergence for item in inputs))
    if len(rules) > 1:
        said = ", ".join("none" if rule is None else f"{rule.metric} {rule.threshold:g}" for rule in rules)
        warnings += (
            f"the ensembles converge by different rules ({said}), none is taken: give convergence.metric= and "
            "convergence.threshold=",
        )
    imported = any(item.trajectories.imported for item in inputs)
    return Inputs(
        [ensemble for item in inputs for ensemble in item.ensembles],
        [run for item in inputs for run in item.runs],
        replace(
            first,
            metrics=tuple(shared),
            runs=tuple(runs),
            convergence=rules[0] if len(rules) == 1 else None,
            warnings=warnings,
            imported=imported,
        ),
    )


def analyse(inputs: Inputs, part: Part, config: Any, outputs: Path, *, force: bool = False) -> Result:
    """Return the analysis of some inputs: the stored one if it is there, else a new one, stored.

    Args:
        inputs: Runs and trajectories.
        part: The analysis.
        config: Its typed configuration.
        outputs: The outputs folder.
        force: Compute it again.

    Raises:
        DynalabError: The analysis cannot be made of these runs, or not be stored.
    """
    stored_model = None
    if getattr(config, "decode_with", None) is not None:
        # The whole id, so that a shorter one means the same analysis.
        stored_model = _model(outputs, config.decode_with, part.name)
        config = replace(config, decode_with=f"{part.name}-{stored_model.id}")
    said = {key: value for key, value in non_neutral(config).items() if key not in NOT_IDENTITY}
    rows = {run.run: run.steps for run in inputs.trajectories.runs}
    runs = [[run.id, _reached(run, rows.get(run.id)), run.attempt] for run in inputs.runs]
    version = int(getattr(part.module, "VERSION", 1))
    identity: dict[str, Any] = {"kind": part.name, "version": version, "config": said, "runs": runs}
    if part.source:
        identity["source"] = part.source
    digest = hashlib.sha256(canonical(identity).encode()).hexdigest()[:10]
    paths = OutputPaths(outputs).analysis(part.name, digest)
    if not force and (stored := whole_result(paths)) is not None:
        return stored
    # What stands there now is damaged, or to be made again; what comes to stand there meanwhile is the same.
    again = paths.root.exists()
    if stored_model is None:
        outcome = part.module.analyse(inputs.trajectories, config)
    else:
        with reading(stored_model):
            outcome = part.module.decode(inputs.trajectories, stored_model.data, config)
    stated = {key: value for key, value in plain(config).items() if key not in NOT_IDENTITY}
    warnings = list(dict.fromkeys([*inputs.trajectories.warnings, *outcome.warnings]))
    data = {
        "id": digest,
        "kind": part.name,
        "ensemble": inputs.ensembles[0].id,
        "ensembles": [ensemble.id for ensemble in inputs.ensembles],
        "warnings": warnings,
        "config": stated,
        "keys": given_keys(part.config_class, stated),
        "inputs": [{"run": run, "steps": steps, "attempt": attempt} for run, steps, attempt in runs],
        "version": version,
        "dynalab": __version__,
        "tables": sorted(outcome.tables),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **outcome.result,
    }
    return write_result(paths, data, outcome.tables, replace=again)


def contrast(one: Result, other: Result, outputs: Path) -> Result:
    """Return what two stored hidden Markov models say of the published claims beside each other.

    It is known by what it is made from: a stored one is read, else a new one is made and stored.

    Args:
        one: The reference.
        other: What is compared with it.
        outputs: The outputs folder.

    Returns:
        A result with the keys of `claims.compare`, and `of`, the ids of the two.

    Raises:
        StoreError: One of the two has another form, or the comparison cannot be stored.
    """
    of = [f"{result.kind}-{result.id}" for result in (one, other)]
    with reading(one):
        first = claims.content(one.data)
    with reading(other):
        content = [first, claims.content(other.data)]
    identity = {"kind": CONTRAST, "version": claims.VERSION, "of": of, "content": content}
    digest = hashlib.sha256(canonical(identity).encode()).hexdigest()[:10]
    paths = OutputPaths(outputs).analysis(CONTRAST, digest)
    if (stored := whole_result(paths)) is not None:
        return stored
    data = {
        "id": digest,
        "kind": CONTRAST,
        "ensemble": one.ensemble,
        "ensembles": [one.ensemble, other.ensemble],
        "warnings": [],
        "of": of,
        "inputs": [*(one.data.get("inputs") or ()), *(other.data.get("inputs") or ())],
        "version": claims.VERSION,
        "dynalab": __version__,
        "tables": [],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **claims.compare(one.data, other.data),
    }
    return write_result(paths, data, {}, replace=paths.root.exists())


def _reached(run: StoredRun, steps: Any) -> int:
    """Steps that an analysis has seen of a run: of one that still trains, as far as its rows go."""
    if run.status in FINAL or steps is None or not len(steps):
        return run.steps
    return max(run.steps, int(steps[-1]))


def _model(outputs: Path, ref: str, kind: str) -> Result:
    """Return the stored analysis whose model decodes new runs.

    Raises:
        NothingMatched: There is none with this id.
        ConfigError: It is of another kind, or holds no model.
    """
    result = find_result(outputs, ref)
    if result.kind != kind:
        raise ConfigError(f"decode_with={ref}: {result.kind}-{result.id} is no analysis {kind}")
    if not result.data.get("model"):
        raise ConfigError(
            f"decode_with={ref}: {result.kind}-{result.id} holds no model (it was decoded with another one)"
        )
    return result
