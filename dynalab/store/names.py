"""What files and folders of an outputs folder are called; what is called otherwise is nobody's business.

An outputs folder is data, perhaps somebody else's: a name that is read from a file becomes part of a path only if
`is_name` holds, what is looked for in a folder has exactly the names that dynalab gives, whatever else lies there, and
nothing is written or removed through a link (`refuse_links`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dynalab.core.errors import StoreError

# The series of the rows that spikes of a run's loss forced, on no grid.
FORCED = "forced"
# Before the name of a block, that of its series.
_BLOCK = "block-"
# Before the name of a parameter or buffer, what is stored of averaged weights beside the weights.
AVERAGE = "average/"
# Before what a checkpoint holds of modes that weights are replaced by.
MODES = "modes/"

# A label, a cadence, the name of a table: a part of a file's name, and short enough to stand twice in one.
NAME = re.compile(r"\w[\w.+-]{0,149}")
# A file manager's or a synchroniser's copy of one of these has another form, and is nobody's business.
TASK = re.compile(r"\w[\w.+-]*")
ENSEMBLE = re.compile(r"(?!\.)[\w.-]*-[0-9a-f]{10}")
SHARD = re.compile(r"shard-[0-9a-z-]+-[0-9]+(-a[0-9]+)?")
BLOCK = re.compile(r"[a-z][a-z0-9_]{0,99}")
CADENCE = re.compile(
    rf"every-[0-9]+|log|at-[0-9a-f]{{8}}|imported|{FORCED}|{FORCED}-({NAME.pattern})|{_BLOCK}({BLOCK.pattern})"
)
STEP = re.compile(r"step-([0-9]{8,18})")
ANALYSIS = re.compile(r"\w[\w.+-]*-[0-9a-f]{10}")


def is_name(value: object) -> bool:
    """Return whether a stored value may become a part of a file's name."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def refuse_links(*paths: Path) -> None:
    """Raise a `StoreError` where a path that is about to be written or removed is a link."""
    for path in paths:
        if path.is_symlink():
            raise StoreError(
                f"{path} is a link; dynalab reads through links, and writes and removes nothing there"
            )


def inside(folder: Path, name: re.Pattern[str], suffix: str = "") -> Iterator[Path]:
    """Yield what lies in a folder and has a name of a form and a suffix, in order; nothing where it cannot be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if path.name.endswith(suffix) and name.fullmatch(path.name.removesuffix(suffix)):
            yield path


def block_series(name: str) -> str:
    """Return the name of the series of a block; it stands in the place of a cadence."""
    return f"{_BLOCK}{name}"


def block_of(cadence: str) -> str | None:
    """Return the block that a series is of; None for one of metrics."""
    return cadence.removeprefix(_BLOCK) if cadence.startswith(_BLOCK) else None


def forced_cadence(label: str) -> str:
    """Return the name of the series that such rows of one run once had, a column of every run of the shard in it."""
    return f"{FORCED}-{label}"


def is_shard(value: object) -> bool:
    """Return whether a stored value names a shard's folder from the outputs folder on, `TASK/ENSEMBLE/SHARD`."""
    names = value.split("/") if isinstance(value, str) else []
    forms = (TASK, ENSEMBLE, SHARD)
    return len(names) == 3 and all(form.fullmatch(name) for form, name in zip(forms, names, strict=True))
