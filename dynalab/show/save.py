"""A figure as a file for a paper: PDF, SVG or PNG, the same bytes for the same figure."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from dynalab.core.atomic import write_bytes
from dynalab.core.errors import ConfigError
from dynalab.show.plots.fit import COLLAPSED
from dynalab.show.plots.style import style

# Suffix of a file -> what is not written into it: when and by what it was made.
SUFFIXES: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    ".png": {"Software": None},
}
DPI = 300


def save(figure: Figure, path: Path) -> None:
    """Write a figure; its letters are part of the file: fonts embedded in a PDF, outlines in an SVG.

    Raises:
        ConfigError: Its size has no room for what it shows.
        StoreError: It cannot be written.
    """
    buffer, suffix = io.BytesIO(), path.suffix.lower()
    with style(), matplotlib.rc_context({"svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("error", COLLAPSED, UserWarning)
        try:
            figure.savefig(buffer, format=suffix[1:], metadata=SUFFIXES[suffix], dpi=DPI)
        except UserWarning as error:
            width, height = figure.get_size_inches()
            raise ConfigError(
                f"{width:g} x {height:g} inches have no room for this figure's labels: make it wider or higher"
            ) from error
    write_bytes(path, buffer.getvalue())
