"""What workers are forked from begins while their command is still being read: to import torch takes longer than that.

Only where the words promise that it will be needed, and there is a second core to do it on. The last command again,
which mostly finds nothing to do, begins none; where another is refused, or finds all done, the other core has begun in
vain.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

from dynalab.config.places import outputs_root
from dynalab.core.errors import DynalabError
from dynalab.core.machine import cores
from dynalab.launch.forkserver import ForkServer
from dynalab.store.paths import OutputPaths

# As `compute.exact` has it, unless there is a word about it.
_THREADS = 1
_ABOUT = ("launcher", "compute.threads", "compute.exact")
_begun: list[ForkServer] = []


@contextlib.contextmanager
def beginning() -> Iterator[None]:
    """Have a server begin, for `server` to take while the block lasts; one that was not taken is ended."""
    _begun.append(ForkServer(_THREADS))
    try:
        yield
    finally:
        _end()


def server(threads: int) -> ForkServer:
    """Start what workers for so many threads are forked from, or take what was begun."""
    if _begun and _begun[0].serves(threads):
        return _begun.pop()
    _end()
    return ForkServer(threads)


def _end() -> None:
    while _begun:
        _begun.pop().close()


def is_likely(words: Sequence[str], outputs: str | None, argv: Sequence[str]) -> bool:
    """Return whether the words of a `train` look as if a worker of one thread will be needed, and can begin beside it.

    Args:
        words: Those of its configuration.
        outputs: Its `--outputs`.
        argv: The whole command. The last one of the outputs folder again mostly finds all done.
    """
    keys = {word.lstrip("+~").partition("=")[0]: word.partition("=")[2] for word in words}
    if cores() < 2 or any(key.startswith(_ABOUT) for key in keys):
        return False
    try:
        last = json.loads(OutputPaths(outputs_root(keys.get("outputs") or outputs)).last.read_bytes())
        return bool(last["argv"] != list(argv))
    except (OSError, ValueError, KeyError, TypeError):
        return True
    except DynalabError:
        return False
