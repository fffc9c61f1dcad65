"""`dynalab fork`."""

from __future__ import annotations

import contextlib
import sys

import click

from dynalab.cli import next_step
from dynalab.cli.options import config_dir_option, note, quiet_option, result_options


@click.command("fork")
@click.argument("ref")
@click.argument("step")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--anyway", is_flag=True, help="Go on under other versions than a half-done run began with.")
@click.option("--steal", is_flag=True, help="Take over shards that another process holds.")
@result_options
@config_dir_option
@quiet_option
def command(
    ref: str,
    step: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    anyway: bool,
    steal: bool,
    as_json: bool,
    outputs: str | None,
    quiet: bool,
) -> int:
    """Go on from a stored state with something changed: keys, or an edit of the weights.

    REF is an ensemble, or one of its runs; STEP is where the forks leave it. Up to there a fork is its parent to the
    bit, whatever checkpoints were kept. `train.steps` is counted from the parent's start; `seed=` chooses among its
    seeds. Several values of a key, or of a stream, are several forks. Without a word the fork is its parent again.
    Afterwards @last is the fork.

    \b
    dynalab fork cb7150eb3e 200 edit=perturb edit.scale=1e-3,1e-2
    dynalab fork cb7150eb3e 200 optimizer.lr=1e-4 train.steps=4000 seed=0..4
    dynalab fork cb7150eb3e 200 edit=freeze edit.keep=[head]
    dynalab fork cb7150eb3e 500 seed_streams.order=1..5  # the same state, five other orders of batches
    """
    from dynalab.cli.outcome import conclude
    from dynalab.cli.watching import interruptible, watching
    from dynalab.config.places import outputs_root
    from dynalab.core.errors import ConfigError
    from dynalab.launch.fork import make_forks, read_fork
    from dynalab.launch.train import Options

    if not step.isdecimal():
        raise ConfigError(f"STEP={step}: expected a step, an integer of at least 0")
    root = outputs_root(outputs)
    forking = read_fork(root, ref, int(step), overrides)
    for line in forking.left_out:
        note(f"left out: {line}")
    options = Options(False, anyway, steal, dry_run, ("dynalab", *sys.argv[1:]), wait=False)
    with contextlib.ExitStack() as stack:
        interruptible(stack)
        outcome = make_forks(forking, options, watching(stack, quiet), note)
    code = conclude(outcome, dry_run, as_json, quiet=True)
    code = code or (3 if forking.left_out else 0)
    if not (code or dry_run or as_json or quiet):
        next_step.report(root, [layout.paths.digest for layout in outcome.layouts])
    return code
