"""`dynalab report --watch`: the page again and again while what it shows is trained."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynalab.cli.options import note
from dynalab.core.errors import NothingMatched
from dynalab.store import commands
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.standing import Lookout

LOOK_SECONDS = 0.5
# A shard may be between two hands for a moment: so many looks in a row must find nothing that is trained.
ENDED = 3
# Between two pages there are so many seconds, and so many times those that a page takes: training needs the processors.
LEAST_SECONDS, TIMES = 10.0, 4.0


def follow(root: Path, write: Callable[[], list[ShardPaths]], *, quiet: bool = False) -> bool:
    """Write a page whenever what it shows has moved on, until nothing of it is trained.

    The page of the end is left to the caller.

    Args:
        root: The outputs folder.
        write: Writes the page; returns the shards of the runs that it shows.
        quiet: Say nothing of the pages.

    Returns:
        False where Ctrl-C ended it.
    """
    outputs, lookout = OutputPaths(root), Lookout(OutputPaths(root))
    shards: list[ShardPaths] = []

    def look() -> tuple[bool, Any]:
        standings, _ = lookout.look(shards)
        moved = [(item.paths, item.step, item.states) for item in standings]
        return any(item.active for item in standings), moved

    drawn, due, ended = None, 0.0, 0
    try:
        while ended < ENDED:
            living = commands.living(outputs)
            (active, moved), now = look(), time.monotonic()
            # A command that plans what it trains has not laid it out yet.
            planning = any(not item.shards for item in living)
            ended = 0 if active or planning else ended + 1
            if now >= due and ((active and moved != drawn) or not (shards or planning)):
                # What has no run yet may have some soon.
                with contextlib.suppress(*([NothingMatched] if living else [])):
                    known, shards = shards, write()
                    drawn = moved if known == shards else look()[1]
                    if not (known or quiet):
                        note("the page is written again while this is trained; Ctrl-C ends that alone")
                due = time.monotonic() + max(LEAST_SECONDS, TIMES * (time.monotonic() - now))
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        note("no longer watched; training goes on, and the page stands as it was last written")
        return False
    return True
