"""Runs with slingshots beside forks of theirs in which no loss is rounded to 0: which slingshots go away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.core.runs import Group
from dynalab.core.words import count, listed
from dynalab.show.blocks import run_label

if TYPE_CHECKING:
    from dynalab.analysis.slingshot.findings import RunFindings


@dataclass(frozen=True)
class Forked:
    """A run and its fork, from step `from_step` on: slingshots of both, and all events of the fork."""

    run: str  # its id
    fork: str  # id of the fork's run
    from_step: int = 0  # step that the fork goes on from
    slingshots: int = 0  # of the run, from there on
    fork_slingshots: int = 0  # of the fork, from there on
    fork_events: int = 0  # spikes of the fork of any kind, from there on
    confirmed: bool = False  # whether all are gone


@dataclass(frozen=True)
class Confirmation:
    """What forks say in which no loss is rounded to 0; a run is confirmed where its fork has no slingshots."""

    change: str = ""  # the word that the forks change
    forks: tuple[str, ...] = ()  # ids of their ensembles
    runs: tuple[Forked, ...] = ()  # every run beside its fork


def compare(
    runs: Sequence[RunFindings], forks: Sequence[tuple[Group, Sequence[RunFindings]]]
) -> Confirmation:
    """Return what forks with a float64 loss, of the same labels, say of slingshots, from where each begins."""
    forked = {
        run_label(run.run): (run, int(group.keys["from_step"])) for group, judged in forks for run in judged
    }
    rows = []
    for run in runs:
        fork, step = forked.get(run_label(run.run), (None, 0))
        if fork is None:
            continue
        before, after = (sum(onset >= step for onset in item.slingshots) for item in (run, fork))
        events = sum(event.onset_step >= step for event in fork.spikes)
        rows.append(Forked(run.run, fork.run, step, before, after, events, bool(before and not after)))
    ids = dict.fromkeys(fork.id for fork, _ in forks)
    return Confirmation("train.loss_dtype=float64", tuple(ids), tuple(rows))


def words(confirmation: Confirmation) -> str:
    """Return what the forks say of all runs, in a sentence."""
    rows = confirmation.runs
    gone, still = sum(row.confirmed for row in rows), sum(bool(row.fork_slingshots) for row in rows)
    # Results of before name one fork, in the ids of its runs alone.
    forks = confirmation.forks or tuple(dict.fromkeys(row.fork.rpartition("/")[0] for row in rows))
    more = f"; still there in {still:,}" if still else ""
    return (
        f"**Trained again with the loss in float64 {since(rows)}: gone, and so confirmed, in {gone:,} of "
        f"{count(len(rows), 'run')}{more}** ({listed(forks)})."
    )


def since(rows: Sequence[Forked]) -> str:
    """Return from where forks were trained."""
    steps = sorted({row.from_step for row in rows})
    if not any(steps):
        return "from the start"
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return f"from {'their' if len(rows) > 1 else 'its'} checkpoint{'s' * (len(steps) > 1)} of step {span}"
