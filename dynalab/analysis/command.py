"""The `analyze` command without its terminal: trajectories from the store, an analysis, a stored result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynalab.analysis import repeats
from dynalab.analysis.base import Needs, runs_of
from dynalab.config.analysis import given_keys
from dynalab.config.ensemble import canonical
from dynalab.config.keys import Stored, stored_keys
from dynalab.config.registry import Part
from dynalab.config.typed import non_neutral, plain
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.plugins import naming, require
from dynalab.core.records import plain as plain_findings
from dynalab.core.records import restore
from dynalab.core.records import tables as tables_of
from dynalab.core.runs import Group
from dynalab.core.version import __version__
from dynalab.show.blocks import Block
from dynalab.show.values import tables_of as tables_of_values
from dynalab.store.find import Selection
from dynalab.store.paths import AnalysisPaths, OutputPaths
from dynalab.store.read import read_bytes
from dynalab.store.reader import Ensemble
from dynalab.store.results import CONTRAST, Result, find_result, results, whole_result, write_result
from dynalab.store.runfile import FINAL
from dynalab.store.stored import StoredRun

# Keys that change how an analysis is computed but not what comes out; they stay out of its id.
NOT_IDENTITY = ("workers",)


@dataclass(frozen=True)
class Inputs:
    """What one analysis is made from: one ensemble or several, their runs that enter, and a group of these for each."""

    ensembles: list[Ensemble]
    runs: list[StoredRun]
    groups: tuple[Group, ...]

    @property
    def warnings(self) -> list[str]:
        """What was left out on the way here."""
        return [line for group in self.groups for line in group.warnings]


def needs_of(part: Part, config: Any = None) -> Needs:
    """Return what an analysis needs, with this configuration."""
    declared = getattr(part.module, "NEEDS", Needs())
    needs: Needs = declared(config) if callable(declared) else declared
    require(
        isinstance(needs, Needs),
        declared if callable(declared) else part.module,
        needs,
        "NEEDS to be a Needs",
    )
    return needs


def gather(
    selection: Selection[Ensemble],
    part: Part,
    config: Any = None,
    *,
    pool: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Inputs]:
    """Yield the inputs of each analysis: one an ensemble, and one a task where it is of both; or one over all.

    Args:
        selection: Ensembles and their runs.
        part: The analysis.
        config: Its typed configuration.
        pool: Whether to make one over all ensembles.
        tell: Takes a line about each ensemble that is left out, as none of its runs can enter.

    Raises:
        NothingMatched: No run of any ensemble can enter.
    """
    needs = needs_of(part, config)
    ready: list[Inputs] = []
    left: list[str] = []
    for ensemble, runs in selection:
        group = ensemble.group(needs.statuses, [run.id for run in runs], needs.names, needs.blocks)
        entered = {run.id for run in group.runs}
        if kept := [run for run in runs if run.id in entered]:
            ready.append(Inputs([ensemble], kept, (group,)))
        else:
            left += group.warnings or (f"left out: {ensemble.id} has no runs",)
    if not ready:
        wanted = " or ".join(needs.statuses)
        raise NothingMatched(
            f"no run is {wanted} ({'; '.join(left[:3])}); train to the end first: dynalab train"
        )
    for line in left:
        tell(line)
    if pool or needs.across:
        yield _together(ready)
        return
    yield from ready
    tasks: dict[str, list[Inputs]] = {}
    for inputs in ready if needs.together else ():
        tasks.setdefault(inputs.ensembles[0].task, []).append(inputs)
    yield from (_together(several) for several in tasks.values() if len(several) > 1)


def _together(parts: Sequence[Inputs]) -> Inputs:
    """Return the inputs of one analysis over all."""
    ensembles, runs, groups = (
        [item for inputs in parts for item in getattr(inputs, name)]
        for name in ("ensembles", "runs", "groups")
    )
    return Inputs(ensembles, runs, tuple(groups))


# What makes findings of groups, an analysis and its configuration, and lines about what failed on the way.
Find = Callable[[Sequence[Group], Part, Any], tuple[Any, Sequence[str]]]


def _without_training(groups: Sequence[Group], part: Part, config: Any) -> tuple[Any, Sequence[str]]:
    return findings_of(groups, part, config), ()


def analyse(
    inputs: Inputs,
    part: Part,
    config: Any,
    outputs: Path,
    *,
    force: bool = False,
    find: Find = _without_training,
) -> Result:
    """Return the analysis of some inputs: the stored one if it is there, else a new one, stored.

    Args:
        inputs: Runs and trajectories.
        part: The analysis.
        config: Its typed configuration.
        outputs: The outputs folder.
        force: Compute it again; what something failed for is always made again.
        find: How; by default as `findings_of` does.

    Raises:
        DynalabError: The analysis cannot be made of these runs, or not be stored.
    """
    config = resolved(config, outputs)
    keys = {key: value for key, value in non_neutral(config).items() if key not in NOT_IDENTITY}
    rows = {run.id: run.grid for run in runs_of(inputs.groups)}
    runs = [[run.id, _reached(run, rows.get(run.id)), run.attempt] for run in inputs.runs]
    version = int(getattr(part.module, "VERSION", 1))
    identity: dict[str, Any] = {"kind": part.name, "version": version, "config": keys, "runs": runs}
    if part.source:
        identity["source"] = part.source
    if elsewhere := _checkpoints_of(inputs.ensembles):
        identity["checkpoints"] = elsewhere
    paths = _place(outputs, identity)
    if not force and (stored := whole_result(paths)) is not None and not stored.failed:
        return stored
    # What stands there now is damaged, or to be made again; what comes to stand there meanwhile is the same.
    again = paths.root.exists()
    findings, failed = find(inputs.groups, part, config)
    repeated = repeats.warning([group.until(config.steps) for group in inputs.groups])
    stated = {key: value for key, value in plain(config).items() if key not in NOT_IDENTITY}
    about = {
        "config": stated,
        "keys": given_keys(part.config_class, stated),
        "inputs": [{"run": run, "steps": steps, "attempt": attempt} for run, steps, attempt in runs],
        "version": version,
        **({"failed": list(failed)} if failed else {}),
    }
    ensembles = [ensemble.id for ensemble in inputs.ensembles]
    with naming(_function(part)):
        return _stored(paths, findings, ensembles, about, [*inputs.warnings, *repeated, *failed], again)


def _checkpoints_of(ensembles: Iterable[Ensemble]) -> dict[str, str]:
    """Return a digest of what is noted of checkpoints that stand elsewhere, by the ensembles that have some."""
    return {
        ensemble.id: hashlib.sha256(read_bytes(ensemble.paths.checkpoints)).hexdigest()
        for ensemble in ensembles
        if ensemble.paths.checkpoints.is_file() and not ensemble.paths.checkpoints.is_symlink()
    }


def _function(part: Part) -> Any:
    return part.module.explore if trains(part) else part.module.analyse


def trains(part: Part) -> bool:
    """Return whether an analysis trains when it is called."""
    return not hasattr(part.module, "analyse")


def _place(outputs: Path, identity: Mapping[str, Any]) -> AnalysisPaths:
    """Return where a result lies that is known by this; its id is the folder's digest."""
    digest = hashlib.sha256(canonical(identity).encode()).hexdigest()[:10]
    return OutputPaths(outputs).analysis(identity["kind"], digest)


def _stored(
    paths: AnalysisPaths,
    findings: Any,
    ensembles: Sequence[str],
    about: Mapping[str, Any],
    warnings: Sequence[str] = (),
    replace: bool = False,
) -> Result:
    """Store findings, with `about` beside them.

    Raises:
        ConfigError: They have a field that every result has.
    """
    tables, values = tables_of(findings), plain_findings(findings)
    data = {
        "id": paths.digest,
        "kind": paths.kind,
        "ensemble": ensembles[0],
        "ensembles": list(ensembles),
        "warnings": list(dict.fromkeys([*warnings, *getattr(findings, "warnings", ())])),
        **about,
        "dynalab": __version__,
        "tables": sorted(tables),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if taken := sorted(set(values) & set(data)):
        raise ConfigError(
            f"analysis={paths.kind}: its findings may not have a field {taken[0]}: every result has one"
        )
    return write_result(paths, data | values, tables, replace=replace)


def resolved(config: Any, outputs: Path) -> Any:
    """Return a configuration whose keys that name other stored results hold them, by their whole ids.

    `@last` is the newest of the analysis, unless it was itself made with the key: what decodes is a model.

    Raises:
        NothingMatched: There is none with this id.
        ConfigError: It is of another kind.
        StoreError: It has another form.
    """
    for name, kind in stored_keys(type(config)).items():
        if (ref := getattr(config, name)) is None:
            continue
        result = _newest(outputs, kind, name) if ref == "@last" else find_result(outputs, ref)
        if result.kind != kind:
            raise ConfigError(f"{name}={ref}: {result.kind}-{result.id} is no analysis {kind}")
        config = replace(config, **{name: Stored.of(f"{kind}-{result.id}", result.restored())})
    return config


def _newest(outputs: Path, kind: str, without: str) -> Result:
    made = [
        result for result in results(outputs, kind=kind) if without not in (result.data.get("keys") or {})
    ]
    if not made:
        raise NothingMatched(
            f"{without}=@last: no analysis {kind} is stored; `dynalab analyze {kind}` makes one"
        )
    return made[-1]


def findings_of(groups: Sequence[Group], part: Part, config: Any) -> Any:
    """Return what an analysis finds in some groups, as they stood at `steps=`; raises as `prepared` does."""
    return checked(part.module.analyse(prepared(groups, part, config), config), part)


def prepared(groups: Sequence[Group], part: Part, config: Any) -> list[Group]:
    """Return groups that have what an analysis needs, as they stood at `steps=`.

    Raises:
        NothingMatched: A group lacks a metric, or the weights or networks of its runs; of imported runs the line names
            the columns to import, of others the words that record them.
    """
    needs = needs_of(part, config)
    for group in groups:
        if missing := needs.missing(group.columns, group.blocks):
            names = " and ".join(missing)
            how = f"dynalab train ... {needs.record}"
            if group.imported:
                how = (
                    f"dynalab import a table with columns named {needs.imports or names} "
                    "(a constant one: --const NAME=NUMBER)"
                )
            raise NothingMatched(f"{group.id}: no {names} recorded, which analyze {part.name} needs: {how}")
    groups = [group.until(config.steps) for group in groups]
    for group in groups:
        needs.require_weights(group)
    return groups


def checked(findings: Any, part: Part) -> Any:
    """Return findings that are what the analysis says they are; a `PluginError` of others."""
    form, function = getattr(part.module, "Findings", None), _function(part)
    is_form = isinstance(form, type) and is_dataclass(form)
    require(is_form, part.module, form, f"a dataclass named Findings, which {function.__name__} returns")
    require(isinstance(findings, form or object), function, findings, "Findings")
    if part.source:
        # That what is stored can be read again.
        with naming(form):
            restore(type(findings), plain_findings(findings))
    return findings


def blocks_of(part: Part, findings: Any, groups: Sequence[Group] = ()) -> list[Block]:
    """Return what an analysis says of its findings; a terminal gives no groups.

    Raises:
        PluginError: What a plug-in's `show` yields is no block.
    """
    show = getattr(part.module, "show", None)
    if show is None:
        return list(tables_of_values(plain_findings(findings)))
    made = show(findings, groups)
    require(isinstance(made, Iterable), show, made, "blocks (dynalab.show.blocks), one after another")
    blocks = list(made)
    for block in blocks:
        require(isinstance(block, Block), show, block, "blocks (dynalab.show.blocks)")
    return blocks


def contrast(part: Part, one: Result, other: Result, outputs: Path) -> Result:
    """Return what the findings of two stored results say beside each other.

    It is known by what it is made from: a stored one is read, else a new one is made and stored. It has the keys of
    what the analysis' `contrast` returns, and `of`, the ids of the two, of which the first is the reference.

    Raises:
        StoreError: One of the two has another form, or the comparison cannot be stored.
    """
    of = [f"{result.kind}-{result.id}" for result in (one, other)]
    findings = dict(zip(of, (result.restored() for result in (one, other)), strict=True))
    compared = getattr(part.module, "compared", plain_findings)
    version = int(getattr(part.module, "CONTRAST_VERSION", 1))
    content = [compared(item) for item in findings.values()]
    paths = _place(outputs, {"kind": CONTRAST, "version": version, "of": of, "content": content})
    if (stored := whole_result(paths)) is not None:
        return stored
    again = paths.root.exists()
    inputs = [*(one.data.get("inputs") or ()), *(other.data.get("inputs") or ())]
    about = {"of": of, "inputs": inputs, "version": version}
    ensembles = [one.ensemble, other.ensemble]
    with naming(part.module.contrast):
        return _stored(paths, part.module.contrast(findings), ensembles, about, replace=again)


def _reached(run: StoredRun, steps: Any) -> int:
    """Steps that an analysis has seen of a run: of one that still trains, as far as its rows go."""
    if run.status in FINAL or steps is None or not len(steps):
        return run.steps
    return max(run.steps, int(steps[-1]))
