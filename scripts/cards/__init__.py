"""The checks of `scripts/cuda`, a file a subject, each with a list `CHECKS`; most telling first."""

from __future__ import annotations

from cards import commands, environment, graphs, kernels, speed, training, waits
from cards.base import Check

# Of the cases, and of the commands, those that tell most come before the waits.
_FIRST, _COMMANDS = 5, 3

CHECKS: list[Check] = [
    *environment.CHECKS,
    *training.CHECKS[:_FIRST],
    *commands.CHECKS[:_COMMANDS],
    *waits.CHECKS,
    *graphs.CHECKS,
    *commands.CHECKS[_COMMANDS:],
    *training.CHECKS[_FIRST:],
    *speed.CHECKS,
    *kernels.CHECKS,
]
