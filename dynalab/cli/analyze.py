"""`dynalab analyze KIND`."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli import next_step
from dynalab.cli.options import (
    comment_width,
    config_dir_option,
    echo,
    emit_json,
    filter_options,
    note,
    result_options,
    split_arguments,
    table_width,
    warn,
)
from dynalab.config import explain
from dynalab.config.commented import value_in_words
from dynalab.config.places import outputs_root
from dynalab.config.registry import Part, names, search_path, searching
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.plugins import naming
from dynalab.core.records import restore
from dynalab.core.words import count
from dynalab.store.find import readable, select
from dynalab.store.results import Result, reading

if TYPE_CHECKING:
    from dynalab.explore.drive import Trainer
    from dynalab.launch.fork import Forking


class _Analyze(click.Command):
    """The command, whose help knows the keys of the analysis that is named before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words for the help, which click prints before it reads them."""
        ctx.meta["words"] = [*args]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the keys of the analysis."""
        words = ctx.meta.get("words", [])
        pairs = itertools.pairwise(["", *words])
        dirs = [word for before, word in pairs if before == "--config-dir"]
        dirs += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
        with searching(dirs):
            kind = next((word for word in words if word in names("analysis", search_path())), None)
            if kind is None:
                return
            keys = [(item.key, item) for item in explain.part("analysis", kind, search_path())]
        with formatter.section(f"Keys of {kind}, KEY=VALUE"):
            formatter.write_dl(
                [(key, f"{item.about or item.kind} [{value_in_words(item.default)}]") for key, item in keys]
            )


@click.command("analyze", cls=_Analyze)
@click.argument("kind", metavar="KIND")
@click.argument("arguments", nargs=-1, metavar="[RUN|ENSEMBLE|KEY=VALUE]...")
@filter_options
@click.option(
    "--cfg", type=click.Choice(["job"]), help="Print the keys of the analysis with their defaults, and exit."
)
@click.option(
    "--confirm",
    is_flag=True,
    help="Train runs again with one thing changed, and say what that tells of what was found.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what an analysis that trains would train first, and write nothing.",
)
@click.option("--force", is_flag=True, help="Compute it again, even if it is stored.")
@result_options
@config_dir_option
def command(
    kind: str,
    arguments: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    cfg: str | None,
    confirm: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Infer what happened from stored trajectories; KIND is the name of an analysis (one that is none names them all).

    An argument with = is a key of the analysis, any other a run or ensemble (the beginning of its id is enough);
    without one, the last that were trained.

    \b
    dynalab analyze hmm
    dynalab analyze hmm max_states=6 metrics=[l2,lambda_max]
    dynalab analyze hmm --cfg job           # its keys
    dynalab analyze hmm -f 'task=grokking optimizer.lr<0.01'
    dynalab analyze hmm pool=true           # one model over all ensembles
    dynalab analyze hmm NEW decode_with=hmm-7ebafd365b   # runs still training, under a stored model
    dynalab analyze slingshot --confirm     # trains its runs again with the loss in float64
    dynalab analyze eos --confirm           # ... at half the rate once they have arrived
    dynalab analyze hybrid --dry-run        # what it would train: some analyses do, launcher= says by whom
    """
    from dynalab.analysis.command import gather, trains
    from dynalab.cli import names as called
    from dynalab.cli.progress import pieces
    from dynalab.config.analysis import keys_of, pooled, read_analysis
    from dynalab.config.overrides import settings
    from dynalab.config.typed import plain as plain_keys
    from dynalab.explore import drive
    from dynalab.store.reader import Ensemble

    refs, words = split_arguments(arguments)
    own, overrides = settings(keys_of(kind, words), "outputs", "launcher")
    pool, overrides = pooled(overrides)
    outputs = own["outputs"] or outputs
    part, config = read_analysis(kind, overrides)
    if cfg:
        _show_keys(
            kind, part, {**plain_keys(config), "pool": pool, "outputs": str(outputs_root(outputs))}, as_json
        )
        return 0
    training = confirm or trains(part)
    for word, given in (("launcher", own["launcher"]), ("--dry-run", dry_run)):
        if given and not training:
            how = " without --confirm" if hasattr(part.module, "explore") else ""
            raise ConfigError(f"{word}: analyze {kind} trains nothing{how}")
    root = outputs_root(outputs)
    results: list[Result] = []
    selection, left_out = readable(select(root, refs, filter_text, Ensemble, forks))
    warn(left_out)
    with ExitStack() as stack:
        shown = ExitStack()
        trainer = drive.Trainer(root)
        if training:
            trainer = _trainer(stack, root, own["launcher"], shown, as_json)
        with pieces(kind, shown, quiet=as_json):
            gathered = [*gather(selection, part, config, pool=pool, tell=lambda line: warn([line]))]
        if dry_run:
            return _plan(drive.first_wave(gathered, part, config, trainer), as_json)
        for inputs in gathered:
            if confirm:
                drive.require_confirmable(inputs, part, config)
            if not as_json:
                names = ", ".join(ensemble.id for ensemble in inputs.ensembles)
                note(f"{kind}: {count(len(inputs.runs), 'run')} of {names}")
            try:
                with pieces(kind, shown, quiet=as_json):
                    result = drive.analyse(inputs, part, config, trainer, force=force)
                    confirmed = drive.confirm(inputs, result, part, config, trainer) if confirm else None
            except (NothingMatched, ConfigError) as error:
                # What is said of each stands, where nothing can be said of all together.
                if not results or len(inputs.ensembles) == 1:
                    raise
                warn([f"the ensembles are not compared: {error}"])
                continue
            if confirm and confirmed is None:
                note(f"analyze {kind} found nothing that training again could confirm")
            results.append(confirmed or result)
    damaged = left_out or any(ensemble.damaged for ensemble, _ in selection)
    unstored = [result.unstored for result in results if result.unstored]
    if as_json:
        paths = [None if result.unstored else str(result.paths.root) for result in results]
        analyses = [dict(result.data) | {"path": path} for result, path in zip(results, paths, strict=True)]
        emit_json({"kind": kind, "analyses": analyses})
    else:
        labels: dict[str, str] = {}
        if len(results) > 1:
            # Without them several could not be told apart.
            ensembles = [ensemble for inputs in gathered for ensemble in inputs.ensembles]
            places = called.names([ensemble.paths for ensemble in ensembles])
            labels = {ensemble.id: places[ensemble.paths.root] for ensemble in ensembles}
        for result in results:
            if labels and len(result.ensembles) == 1:
                (digest,) = result.ensembles
                echo(f"{labels[digest]} ({digest})")
            with reading(result):
                lines = _lines(part, result)
            for line in lines:
                echo(line)
            if not result.unstored:
                echo(result.paths.root)
            warn(result.warnings)
        if not (damaged or unstored):
            next_step.report(root, [ensemble for result in results for ensemble in result.ensembles])
    warn(unstored)
    return 3 if damaged or unstored or any(result.failed for result in results) else 0


def _trainer(stack: ExitStack, root: Path, launcher: str | None, shown: ExitStack, quiet: bool) -> Trainer:
    """Return how an analysis trains until `stack` ends, drawing it in `shown`; `quiet` shows nothing on the way."""
    from dynalab.cli.watching import interruptible, watching
    from dynalab.explore.drive import Trainer

    interruptible(stack)
    return Trainer(root, search_path(), watching(stack, quiet, shown), launcher or "local")


def _plan(forking: Forking, as_json: bool) -> int:
    """Print what would be trained; return the exit code."""
    from dynalab.cli.outcome import conclude
    from dynalab.launch.fork import make_forks
    from dynalab.launch.train import Options

    if not forking.commands:
        note("nothing to train; nothing was written")
        if as_json:
            emit_json({"dry_run": True, "plan": "", "ensembles": []})
        return 0
    outcome = make_forks(forking, Options(dry_run=True, remember=False), tell=note)
    return conclude(outcome, dry_run=True, as_json=as_json, quiet=True)


def _show_keys(kind: str, part: Part, keys: dict[str, Any], as_json: bool) -> None:
    """Print the keys of an analysis at the values that it would use."""
    from dynalab.config.commented import commented

    if as_json:
        emit_json({"kind": kind, "config": keys})
        return
    explained = explain.of_part("analysis", kind, part.config_class)
    # Each with the keys of its own in the order of the help.
    order = dict.fromkeys(item.key.partition(".")[0] for item in explained)
    echo(f"# dynalab analyze {kind} [KEY=VALUE]...: these keys, or with {kind}. before them.")
    tree = {name: keys[name] for name in order}
    echo(commented(tree, {item.key: item for item in explained}, comment_width()))


def _lines(part: Part, result: Result) -> list[str]:
    """Return what an analysis says of its result on a terminal."""
    from dynalab.analysis.command import blocks_of
    from dynalab.show import terminal

    findings = restore(part.module.Findings, result.data)
    with naming(getattr(part.module, "show", None)):
        return list(terminal.lines(blocks_of(part, findings), table_width()))
