"""Every subject of scripts/bench, in the order of the table; add one by its file's SUBJECT."""

from __future__ import annotations

from benches import (
    averages,
    complexity,
    curvature,
    directions,
    grokking,
    hmm,
    jax_peer,
    landscapes,
    many,
    memory,
    modes,
    order,
    page,
    parity,
    probes,
    regions,
    rows,
    single,
    wide,
)
from benches.base import Subject

SUBJECTS: list[Subject] = [
    grokking.SUBJECT,
    parity.SUBJECT,
    *jax_peer.SUBJECTS,
    *wide.SUBJECTS,
    single.SUBJECT,
    probes.SUBJECT,
    rows.SUBJECT,
    averages.SUBJECT,
    memory.SUBJECT,
    many.SUBJECT,
    order.SUBJECT,
    hmm.SUBJECT,
    curvature.SUBJECT,
    directions.SUBJECT,
    landscapes.SUBJECT,
    modes.SUBJECT,
    page.SUBJECT,
    regions.SUBJECT,
    complexity.SUBJECT,
]
