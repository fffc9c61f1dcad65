"""`dynalab runs rerun`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import config_dir_option, echo, emit_json, note, quiet_option, result_options, warn
from dynalab.config.places import outputs_root
from dynalab.config.registry import search_path
from dynalab.config.seeds import format_seeds
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.forks import parent_and_step
from dynalab.core.words import count, listed
from dynalab.store.find import select
from dynalab.store.runfile import TORCH, is_compiled

if TYPE_CHECKING:
    from dynalab.config.command import Command
    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.launch.fork import Forking
    from dynalab.store.reader import Ensemble
    from dynalab.store.stored import StoredRun

# Keys of a plan -> what they name.
_BUILDS = {"rows": "what statistics of weights are found by", "compiled": "what updates are made by"}


@click.command("rerun")
@click.argument("ref", metavar="RUN|ENSEMBLE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="No more than so many updates.")
@result_options
@config_dir_option
@quiet_option
def rerun(
    ref: str, overrides: tuple[str, ...], steps: int | None, as_json: bool, outputs: str | None, quiet: bool
) -> int:
    """Train runs again, and say whether they agree to the bit.

    What is made is removed afterwards; what is stored stays as it is. On the type of CPU and under the versions that
    trained them they have to agree, whatever lies beside them; elsewhere it says from which step on they part. A fork
    is made again from its parent, which has to be stored. Keys say how it is trained: launcher, compute.workers,
    compute.width. Exit code 3 where they differ.

    \b
    dynalab runs rerun cb7150eb3e/s0003
    dynalab runs rerun cb7150eb3e --steps 200
    """
    from dynalab.cli.watching import interruptible, watching
    from dynalab.core.atomic import discard
    from dynalab.launch.fork import make_forks
    from dynalab.launch.train import Options
    from dynalab.store.reader import Ensemble
    from dynalab.training.provenance import bits_of

    root = outputs_root(outputs)
    ensemble, runs = _chosen(root, ref)
    # Hidden, and on the disk that has room for such runs.
    place = Path(tempfile.mkdtemp(prefix=".rerun.", suffix=".tmp", dir=root))
    try:
        asked = _planned(ensemble, runs, overrides, steps, place)
        for line in asked.left_out:
            note(f"left out: {line}")
        with contextlib.ExitStack() as stack:
            interruptible(stack)
            options = Options(argv=("dynalab", *sys.argv[1:]), remember=False)
            outcome = make_forks(asked, options, watching(stack, quiet), note)
        outcome.require_whole()
        again = Ensemble(outcome.layouts[0].paths)
        document = _compared(ensemble, runs, again)
    finally:
        discard(place)
    before, now = runs[0].record.attempts[-1], bits_of(worker=True)
    document["changed"] = {
        name: [before[name], value] for name, value in now.items() if name in before and before[name] != value
    }
    for run in runs:
        if other := again.by_label.get(run.label):
            made = [{"compiled": TORCH, **item.record.plan} for item in (run, other)]
            builds = {name: [plan.get(name) for plan in made] for name in _BUILDS}
            document["changed"] |= {
                n: both for n, both in builds.items() if None not in both and both[0] != both[1]
            }
    warnings = [*dict.fromkeys([*ensemble.warnings, *again.warnings])]
    code = 0 if document["agrees"] and not asked.left_out else 3
    if as_json:
        emit_json({**document, "warnings": [*asked.left_out, *warnings]})
        return code
    warn(warnings)
    for name, (there, here) in document["changed"].items():
        note(f"{_BUILDS.get(name, name)} was {there} and is {here}; bits hold under one")
    echo(_said(document))
    return code


def _chosen(root: Path, ref: str) -> tuple[Ensemble, list[StoredRun]]:
    from dynalab.store.reader import Ensemble

    selection = select(root, [ref], None, Ensemble)
    if len(selection) != 1:
        raise ConfigError(f"{ref} means {len(selection)} ensembles; name one")
    ((ensemble, runs),) = selection
    if ensemble.imported:
        raise ConfigError(f"{ensemble.id} was imported; dynalab did not train it and cannot do so again")
    ended = [run for run in runs if run.steps and run.record.attempts]
    if not ended:
        raise NothingMatched(f"{ref}: none of its runs was trained; there is nothing to compare with")
    return ensemble, ended


def _planned(
    ensemble: Ensemble, runs: list[StoredRun], overrides: tuple[str, ...], steps: int | None, place: Path
) -> Forking:
    """Return what is trained again: of forks from what their parent keeps, else from the start."""
    from dynalab.config.ensemble import from_stored
    from dynalab.launch.fork import Forking, plan_replay

    if any(word.lstrip("+").startswith("outputs=") for word in overrides):
        raise ConfigError(
            "outputs=: what is trained again is not kept; --outputs says where the stored runs are"
        )
    config = from_stored(ensemble.config, search_path())
    longest = max(run.steps for run in runs)
    if config.depends_on_total and steps is not None and steps < longest:
        raise ConfigError(f"--steps {steps}: its schedule depends on the total; leave --steps away")
    length = min(steps or longest, longest)
    if ensemble.is_fork:
        return plan_replay(ensemble, runs, overrides, length, outputs=place)
    ways: dict[tuple[str, ...], list[StoredRun]] = {}
    for run in runs:
        ways.setdefault(_made(run.record.plan), []).append(run)
    named = {run.label for run in runs}
    commands = [
        _command(ensemble, config, made, some, named, overrides, length, place) for made, some in ways.items()
    ]
    return Forking([command for command in commands if command.requests[0].runs])


def _made(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return words for how runs were trained, as far as their bits are of it."""
    words = [f"device={plan.get('device', 'cpu')}"]
    if not plan.get("exact", True):
        words += ["compute.exact=false", f"compute.threads={plan.get('threads', 1)}"]
    return (*words, f"compute.compile={str(is_compiled(plan)).lower()}")


def _command(
    ensemble: Ensemble,
    config: EnsembleConfig,
    made: Sequence[str],
    runs: list[StoredRun],
    named: Collection[str],
    overrides: tuple[str, ...],
    length: int,
    place: Path,
) -> Command:
    """Return the command that trains runs again that were made in one way; of those that are named it may have none."""
    from dynalab.config.command import read_command, words_of
    from dynalab.config.ensemble import RunSpec

    words = words_of(config)
    if words is None:
        raise ConfigError(f"{ensemble.id}: no words of train compose to its configuration as it is stored")
    if not config.depends_on_total:
        words.append(f"train.steps={length}")
    if seeds := [run.seed for run in runs if run.seed is not None]:
        words.append(f"seed={format_seeds(seeds)}")
    command = read_command([*words, *made, *overrides], outputs=place)
    if [request.config.id for request in command.requests] != [ensemble.id]:
        raise ConfigError(
            f"{' '.join(overrides)}: makes another ensemble; rerun takes keys of how it is trained, as compute.width"
        )
    (request,) = command.requests
    asked = {spec.label: spec.seed for spec in request.runs}
    if strange := [label for label, seed in asked.items() if seed is not None and label not in named]:
        raise ConfigError(f"{listed(strange, 3)}: not among the runs of {ensemble.id} that are trained again")
    # With the streams that they had.
    specs = [
        RunSpec(run.label, run.seed, run.record.runs[run.index].streams) for run in runs if run.label in asked
    ]
    return replace(command, requests=[replace(request, runs=specs)])


def _compared(ensemble: Ensemble, runs: list[StoredRun], again: Ensemble) -> dict[str, Any]:
    from dynalab.store import difference

    rows = difference.series(ensemble, runs, again, again.runs)
    weights = difference.weights(runs, again.runs)
    apart = difference.divergence(ensemble, runs, again, again.runs)
    agrees = rows["shared"] > 0 and not (
        rows["differing"] or weights["differing"] or apart["step"] is not None
    )
    return {
        "ensemble": ensemble.id,
        "runs": [run.id for run in runs if run.label in again.by_label],
        "first_step": parent_and_step(ensemble.parent)[1] if ensemble.parent else 0,
        "steps": max((run.steps for run in again.runs), default=0),
        "agrees": agrees,
        "series": rows,
        "weights": weights,
        "divergence": apart,
    }


def _said(document: dict[str, Any]) -> str:
    runs, last, first = count(document["series"]["shared"], "run"), document["steps"], document["first_step"]
    steps = f"steps {first:,} to {last:,}" if first else f"{last:,} steps"
    if document["agrees"]:
        n = document["weights"]["compared"]
        weights = f", weights of {count(n, 'run')} included" if n else ""
        return f"{runs}, {steps}: equal to the bit{weights}"
    apart = document["divergence"]
    if apart["step"] is None:
        if differing := document["weights"]["differing"]:
            return (
                f"{runs}, {steps}: the rows are equal to the bit; the weights of {listed(differing)} differ"
            )
        return (
            f"{runs}, {steps}: no rows to compare"
            if not document["series"]["shared"]
            else f"{runs}: rows differ"
        )
    names = [item["metric"] for item in apart["metrics"] if item["step"] == apart["step"]]
    largest = document["series"]["largest"]
    size = (
        f"; the largest difference is {largest['difference']:.3g}, of {largest['metric']}" if largest else ""
    )
    return f"{runs}, {steps}: they part at step {apart['step']:,}, in {listed(names, 4)}{size}"
