"""`dynalab train`."""

from __future__ import annotations

import contextlib
import sys

import click

from dynalab.cli.options import config_dir_option, note, quiet_option, result_options
from dynalab.cli.outcome import conclude, tell_prepared
from dynalab.cli.watching import interruptible, watching


@click.command("train", context_settings={"ignore_unknown_options": False})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--force", is_flag=True, help="Train again, as a new attempt beside the old one.")
@click.option("--retry-failed", is_flag=True, help="Train nothing but runs that failed or crashed.")
@click.option(
    "--prepare", is_flag=True, help="Print the shards, ready for `dynalab worker --shard`, and train none."
)
@click.option("--anyway", is_flag=True, help="Go on under other versions than a half-done run began with.")
@click.option("--steal", is_flag=True, help="Take over shards that another process holds.")
@click.option(
    "--cfg", type=click.Choice(["job"]), help="Print the composed configuration and exit, as Hydra does."
)
@click.option("-m", "--multirun", is_flag=True, help="Accepted for Hydra's sake; sweeps need no switch.")
@result_options
@config_dir_option
@quiet_option
def command(
    overrides: tuple[str, ...],
    dry_run: bool,
    force: bool,
    retry_failed: bool,
    prepare: bool,
    anyway: bool,
    steal: bool,
    cfg: str | None,
    multirun: bool,
    as_json: bool,
    outputs: str | None,
    quiet: bool,
) -> int:
    """Train the seeds of one or many configurations.

    What is stored is not trained again: the same command skips what is done, resumes what was cut off, and trains
    only seeds that are new.

    \b
    dynalab train task=grokking seed=0..19
    dynalab train task=grokking optimizer.lr=1e-3,3e-3 seed=0..9     # a sweep: 2 ensembles of 10 seeds
    dynalab train task=grokking task.operation=subtract seed=1,5,9
    dynalab train experiment=nanda2023_addition seed=0..4            # a paper's setting
    dynalab train task=grokking seed=0..99 --prepare | parallel dynalab worker --shard {}
    """
    from dynalab.core.errors import ConfigError
    from dynalab.launch import ahead

    if not overrides:
        from dynalab.config.registry import names, search_path

        raise ConfigError(
            "name what is to be trained, as task=grokking seed=0..3, or a paper's setting (`dynalab experiments`); "
            f"tasks: {', '.join(names('task', search_path()))}"
        )
    if force and retry_failed:
        raise ConfigError(
            "--force makes new attempts and --retry-failed goes on with old ones: give only one"
        )
    argv = ("dynalab", *sys.argv[1:])
    with contextlib.ExitStack() as stack:
        interruptible(stack)
        early = stack.enter_context(contextlib.ExitStack())
        if not (dry_run or prepare or cfg) and ahead.is_likely(overrides, outputs, argv):
            early.enter_context(ahead.beginning())
        # Here, since the worker is beginning meanwhile.
        from dynalab.config.command import read_command

        parsed = read_command(overrides, outputs=outputs)
        for line in parsed.notes:
            note(line)
        if cfg:
            from dynalab.cli.config import show

            show(parsed, as_json)
            return 0
        if parsed.settings.launcher != "local":
            early.close()
        from dynalab.launch.train import Options, train

        options = Options(
            force, anyway, steal, dry_run, argv, retry=retry_failed, prepare=prepare, wait=False
        )
        outcome = train(parsed, options, watching(stack, quiet), note)
    if prepare and not (dry_run or outcome.report.failures):
        return tell_prepared(outcome, as_json, quiet)
    return conclude(outcome, dry_run, as_json, quiet)
