"""`dynalab runs export|diff|rm`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import (
    columns,
    echo,
    emit_json,
    filter_options,
    note,
    result_options,
    target,
    to_options,
    warn,
)
from dynalab.config.places import outputs_root
from dynalab.core.errors import ConfigError, DynalabError
from dynalab.core.words import count, listed
from dynalab.store.find import forks_of, readable, select
from dynalab.store.remove import plan, remove, remove_analysis, size_of
from dynalab.store.results import results, tell_apart
from dynalab.store.stored import StoredEnsemble, StoredRun

if TYPE_CHECKING:
    from pathlib import Path

    from dynalab.store.reader import Ensemble


@click.command("export")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@to_options("Where: .csv, .parquet, .jsonl or .npz.", required=True)
@click.option("--keys", is_flag=True, help="Columns of the keys in which the ensembles differ, as well.")
@result_options
def export_runs(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    to: str,
    force: bool,
    keys: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Write the rows of runs to one file.

    They are those of the runs that are named or match, or else of the last ones (@last). Its columns are run, seed,
    step and every metric of the evaluation grid. Those with other rows, as of probe.curvature, are named, with the file
    that has them.

    \b
    dynalab runs export --to runs.csv                       # the last training
    dynalab runs export -f 'task=grokking status=done' --to runs.parquet
    dynalab runs export @last --keys --to sweep.csv         # with a column optimizer.lr
    """
    from dynalab.cli.progress import pieces
    from dynalab.store.export import SUFFIXES, off_grid, table, write
    from dynalab.store.reader import Ensemble
    from dynalab.store.table import notice

    path = target(to, force, SUFFIXES)
    selection, damaged = readable(select(outputs_root(outputs), refs, filter_text, Ensemble, forks))
    with pieces("export", quiet=as_json):
        frame = table(selection, keys)
        write(frame, path)
    for ensemble, _ in selection:
        notice(ensemble.paths)
    warnings = [*damaged, *off_grid(selection)]
    warnings += [line for ensemble, _ in selection for line in ensemble.warnings]
    runs = frame["run"].unique().tolist()
    if as_json:
        shape = {"rows": len(frame), "columns": list(frame.columns)}
        emit_json({"path": str(path), **shape, "runs": runs, "warnings": warnings})
    else:
        n_metrics = len({name for item, _ in selection for name in item.metrics} & {*frame.columns})
        counts = (len(runs), "run"), (len(frame), "row"), (n_metrics, "metric")
        note(", ".join(count(*item) for item in counts))
        warn(warnings)
        echo(path)
    return 3 if damaged or any(ensemble.damaged for ensemble, _ in selection) else 0


@click.command("diff")
@click.argument("a", metavar="RUN|ENSEMBLE")
@click.argument("b", metavar="RUN|ENSEMBLE")
@result_options
def diff_runs(a: str, b: str, as_json: bool, outputs: str | None) -> int:
    """Compare two runs or ensembles.

    Their configurations, what became of them, whether their rows are equal to the bit, and from which step on they are
    not: of a fork and its parent, or of two ensembles of the same seeds.
    """
    from dynalab.store import difference

    root = outputs_root(outputs)
    (one, left), (other, right) = _one(root, a), _one(root, b)
    # Two runs of other labels have no rows to be held together.
    differ = len(left) == len(right) == 1 and left[0].label != right[0].label
    series = None if differ else difference.series(one, left, other, right)
    apart = difference.divergence(one, left, other, right) if series and series["shared"] else None
    document: dict[str, Any] = {
        "a": {"ensemble": one.id, "runs": [run.id for run in left]},
        "b": {"ensemble": other.id, "runs": [run.id for run in right]},
        "configuration": difference.configuration(one, other),
        "results": difference.results(left, right),
        "series": series,
        "divergence": apart,
    }
    warnings = [*dict.fromkeys([*one.warnings, *other.warnings])]
    code = 3 if one.damaged or other.damaged else 0
    if as_json:
        emit_json({**document, "warnings": warnings})
        return code
    rows = [[item["key"], _word(item["a"]), _word(item["b"])] for item in document["configuration"]]
    echo(columns(["key", a, b], rows) if rows else "the same configuration")
    echo()
    rows = [
        [item["what"], _word(item["a"]), _word(item["b"]), _signed(item["difference"])]
        for item in document["results"]
    ]
    known = 3 + any(row[-1] for row in rows)
    header = ["result", a, b, "difference of means [95%]"]
    echo(columns(header[:known], [row[:known] for row in rows]))
    for line in _legend(document["results"]):
        echo(line)
    if (steps := _ends(document["results"])) and one.task == other.task:
        echo(
            f"the two end at other steps ({steps}), so no difference is taken of what they end at: `dynalab analyze "
            f"compare {one.id} {other.id}` reads both at one step"
        )
    if series and series["shared"]:
        echo(f"\nrows: {series['equal']} of {series['shared']} runs of the same label are equal to the bit")
        if largest := series["largest"]:
            echo(f"largest difference {largest['difference']:.3g}, of {largest['metric']}")
    if apart and apart["metrics"]:
        _show_divergence(apart, one.blocks)
    warn(warnings)
    return code


def _show_divergence(apart: dict[str, Any], blocks: Collection[str]) -> None:
    """Print from which step on series differ; `blocks` are the names of those that are no metrics."""
    metrics = apart["metrics"]
    same = [item for item in metrics if item["step"] is None]
    if apart["step"] is None:
        rows = max(item["rows"] for item in metrics)
        n_blocks = sum(item["metric"] in blocks for item in metrics)
        what = count(len(metrics) - n_blocks, "metric") + (
            f" and {count(n_blocks, 'block')}" if n_blocks else ""
        )
        echo(f"equal in all {count(rows, 'row')} that both have, in all of {what}")
        return
    echo(f"the first row that differs is that of step {apart['step']:,}")
    echo()
    rows = [[item["metric"], item["step"], item["runs"]] for item in metrics if item["step"] is not None]
    echo(columns(["metric", "differs from step", "in runs"], rows))
    if same:
        echo(f"equal in all rows that both have: {listed([item['metric'] for item in same])}")


def _one(root: Path, ref: str) -> tuple[Ensemble, list[StoredRun]]:
    from dynalab.store.reader import Ensemble

    selection = select(root, [ref], None, Ensemble)
    if len(selection) != 1:
        raise ConfigError(f"{ref} means {len(selection)} ensembles; name one")
    return selection[0]


def _ends(results: Sequence[dict[str, Any]]) -> str:
    """Return at which steps two sides end, where these are others; empty where they are not."""
    sides = [side for item in results if item["what"] == "steps" for side in (item["a"], item["b"]) if side]
    said = [f"{side[0]:,}" if len(side) == 1 else f"{side[0]:,} to {side[-1]:,}" for side in sides]
    return " and ".join(said) if len({*said}) == 2 else ""


def _legend(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what the brackets of results are."""
    middles = [side for item in results for side in (item["a"], item["b"]) if isinstance(side, dict)]
    if any("median" in side and side["runs"] > 1 for side in middles):
        yield "of several runs: the median [lower to upper quartile], and how many runs have a value"
    differences = [item["difference"] for item in results if item["difference"] is not None]
    laws = {
        "of pairs of one label" if item["paired"] else "of runs that are no pairs (Welch)"
        for item in differences
    }
    if laws:
        how = f"Student's t, {listed(sorted(laws))}"
        yield f"differences: the mean of the second less that of the first [95% interval by {how}]"


def _signed(difference: dict[str, Any] | None) -> str | None:
    if difference is None:
        return None
    low, high = difference["interval"]
    pairs = ", paired" if difference["paired"] else ""
    return f"{difference['estimate']:+.4g} [{low:.4g} to {high:.4g}]{pairs}"


def _word(value: Any) -> str | None:
    """Return a value as a cell: medians with quartiles, counts by name, lists cut short."""
    if isinstance(value, dict) and "median" in value:
        low, middle, high = (
            "never" if one is None else f"{one:.5g}"
            for one in (value["quartiles"][0], value["median"], value["quartiles"][1])
        )
        if value["runs"] == 1 and middle != "never":
            return middle
        return f"{middle} [{low} to {high}], {count(value['runs'], 'run')}"
    if isinstance(value, dict):
        return ", ".join(f"{n} {name}" for name, n in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value[:6])) + (" ..." if len(value) > 6 else "")
    return None if value is None else str(value)


@click.command("rm")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE|ANALYSIS]...")
@filter_options
@click.option("--yes", is_flag=True, help="Do it; without it nothing is removed.")
@result_options
def remove_runs(
    refs: tuple[str, ...], filter_text: str | None, forks: bool, yes: bool, as_json: bool, outputs: str | None
) -> int:
    """Remove runs, ensembles or analyses from the disk, for good.

    Analyses, reports and forks of runs that are removed stay, and a fork goes on without its parent. Seeds that were
    trained stacked share their files and go together.

    \b
    dynalab runs rm cb7150eb3e          # says what would go; --yes does it
    dynalab runs rm hmm-7ebafd365b
    dynalab runs rm -f 'status=failed' --yes
    """
    from dynalab.store.table import refresh

    if not refs and not filter_text:
        raise ConfigError("rm: name what to remove, an id or -f TERMS (@last is the last that were trained)")
    root = outputs_root(outputs)
    of_runs, analyses = tell_apart(root, refs)
    names = [paths.root.name for paths in analyses]
    if analyses and filter_text is not None:
        raise ConfigError(f"rm: -f chooses among runs, and {names[0]} is an analysis; remove it without -f")
    removals = []
    if of_runs or filter_text is not None:
        removals = plan(select(root, of_runs, filter_text, StoredEnsemble, forks), root, note)
    size = size_of([*(folder for item in removals for folder in item.folders), *(p.root for p in analyses)])
    runs = [run for item in removals for run in item.runs]
    for item in removals:
        what = "whole" if item.whole else count(len(item.folders), "shard")
        note(f"{item.ensemble.root}: {count(len(item.runs), 'run')} ({what})")
    whole = [item.ensemble.digest for item in removals if item.whole]
    for parent, left in forks_of(root, whole).items() if whole else ():
        if parent in whole:
            stay = "stays and can" if len(left) == 1 else "stay and can each"
            note(
                f"{parent} has {count(len(left), 'fork')} that {stay} go on by itself: {listed(left)}; new forks of "
                f"{parent} cannot be made any more"
            )
    for paths in analyses:
        note(f"{paths.root}: an analysis")
    for result in results(root) if analyses else []:
        model = f"{result.kind}-{result.data.get('decoded_with')}"
        if model in names and result.paths not in analyses:
            name = f"{result.kind}-{result.id}"
            note(f"{name} was decoded with {model}: it stays, and cannot be made again without it")
    counts = [count(len(runs), "run")] if runs or not analyses else []
    counts += [count(len(analyses), "analysis", "analyses")] if analyses else []
    what = f"{', '.join(counts)}, {size / 1e6:.1f} MB"
    if not yes:
        if as_json or not sys.stdin.isatty() or not sys.stderr.isatty():
            raise ConfigError(f"rm: {what} would be removed for good; --yes does it")
        if not click.confirm(f"remove {what} for good?", err=True):
            return 130
    removed: list[str] = []
    try:
        for item in removals:
            remove(item, root)
            removed.append(item.ensemble.digest if item.whole else ", ".join(item.runs))
            if not item.whole:
                refresh(item.ensemble)
        for paths in analyses:
            remove_analysis(paths, root)
            removed.append(paths.root.name)
    except DynalabError:
        if removed:
            note(f"removed before this went wrong: {', '.join(removed)}")
        raise
    if as_json:
        emit_json({"removed": runs, "analyses": names, "bytes": size})
    else:
        note(f"removed {what}")
    return 0
