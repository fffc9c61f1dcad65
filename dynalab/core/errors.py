"""Errors that a user can act on, each with the exit code that the command line ends with.

An error of these classes is shown as one or two plain lines. Anything else that escapes is a bug of dynalab's
own and ends with exit code 1 and a traceback in a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class DynalabError(Exception):
    """Base of every error that is the user's to read; `exit_code` is what the shell sees.

    Attributes:
        ensembles: Where `dynalab.train` raised it after training: what is stored of what it would have returned.
    """

    exit_code = 2
    ensembles: Sequence[Any] = ()


class ConfigError(DynalabError):
    """A key, value, seed or path that cannot be used: exit code 2."""

    exit_code = 2


class RunsFailed(DynalabError):
    """Some runs failed or some stored shards are unreadable; the others are whole: exit code 3."""

    exit_code = 3


class StoreError(RunsFailed):
    """A stored file is damaged or cannot be written: exit code 3."""


class Locked(RunsFailed):
    """Another live process is writing this shard: exit code 3."""


class NothingMatched(DynalabError):
    """No stored run fits what was asked for: exit code 4."""

    exit_code = 4


class Interrupted(DynalabError):
    """Ctrl-C or SIGTERM; the state is saved and the same command goes on: exit code 130."""

    exit_code = 130
