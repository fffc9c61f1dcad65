"""One line at the end of a command that went well: what one types next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.cli.options import note
from dynalab.config.places import typed
from dynalab.config.registry import find, names, search_path, typed_folders
from dynalab.core.errors import ConfigError, NothingMatched, StoreError
from dynalab.store.find import select
from dynalab.store.results import results
from dynalab.store.stored import StoredEnsemble

if TYPE_CHECKING:
    from dynalab.launch.layout import Layout

# What is recorded without being asked for, and the analysis of whatever was recorded.
PROBES, USUAL = {"weights", "gradients"}, "hmm"
_RECORD = re.compile(r"probes=\[([\w,]*)\]")
_CROSSED = "design=crossed"


def say(root: Path, *words: str) -> None:
    """Print the line; `words` are the command's."""
    folders = [word for folder in typed_folders() for word in ("--config-dir", folder)]
    note(f"next: {typed(*words, *folders, outputs=root)}")


def after_training(layouts: Sequence[Layout]) -> None:
    """Say which analysis is for what was recorded, or how to see it where that is made."""
    root, ids = layouts[0].paths.root.parent.parent, [layout.request.config.id for layout in layouts]
    kind = _kind(layouts)
    about = {result.kind for result in results(root, ids)}
    say(root, "report") if kind in about else say(root, "analyze", kind)


def report(root: Path, ids: Sequence[str]) -> None:
    """Say how some ensembles are seen: by name, unless they are what `@last` means."""
    try:
        last = {ensemble.id for ensemble, _ in select(root, ["@last"], None, StoredEnsemble)}
    except (NothingMatched, StoreError):
        last = set()
    say(root, "report", *([] if last == {*ids} else dict.fromkeys(ids)))


def _kind(layouts: Sequence[Layout]) -> str:
    """Return the analysis of a sweep, else that which a probe or the design was chosen for, as they say themselves.

    Else it is the usual one.
    """
    configs = [layout.request.config for layout in layouts]
    recorded = set.intersection(*({*config.probes} for config in configs))
    crossed = all(config.design == "crossed" for config in configs)
    swept = len(configs) > 1 and len({config.task.name for config in configs}) == 1
    if recorded <= PROBES and not (crossed or swept):
        return USUAL
    from dynalab.analysis.command import needs_of

    # To import all analyses for this line would take half a second.
    words = {*(recorded - PROBES), *[_CROSSED] * crossed, *["sweeps"] * swept}
    for kind in names("analysis", search_path(), mentioning=words):
        try:
            part = find("analysis", kind, search_path())
            needs = needs_of(part, part.config_class())
        except (ConfigError, TypeError):
            # A plug-in's may be broken, or have keys without a default.
            continue
        if swept and needs.sweeps:
            return kind
        # Beside what is always recorded; there may be several ways.
        ways = [{*probes.split(",")} - {"", *PROBES} for probes in _RECORD.findall(needs.record)]
        if (crossed and _CROSSED in needs.record) or any(way and way <= recorded for way in ways):
            return kind
    return USUAL
