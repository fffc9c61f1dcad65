"""`dynalab doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from dynalab.cli.options import columns, echo, emit_json, note, result_options
from dynalab.config.places import outputs_root
from dynalab.core.words import count


@click.command("doctor")
@result_options
def command(as_json: bool, outputs: str | None) -> int:
    """Look whether all that training relies on holds here, before a long one is begun.

    The installation, processor and bits, memory, threads and quotas, the outputs folder (room, speed, locks, clock),
    runs that crashed, and whether workers start. Takes some seconds and leaves nothing behind. Exit code 3 where
    something failed; what is a warning alone is not in the way.
    """
    from dynalab.launch.health import FAILED, WARNING, checks

    found = list(checks(outputs_root(outputs)))
    states = [item.state for item in found]
    if as_json:
        emit_json({"checks": [asdict(item) for item in found]})
    else:
        echo(columns(["what", "state", "finding"], [[item.what, item.state, item.finding] for item in found]))
        counts = [
            count(states.count(name), word) for name, word in ((FAILED, "failure"), (WARNING, "warning"))
        ]
        note(", ".join(counts) if {*states} & {FAILED, WARNING} else "all is well")
    return 3 if FAILED in states else 0
