"""Pages and terminal lines as a reader has them, with the figures of the pages, undrawn."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fakes import Page, read_page

from dynalab.cli.app import run
from dynalab.core.records import restore
from dynalab.report.write import write_report
from dynalab.show.terminal import lines as lines_of
from dynalab.store.find import select
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, results

ARROW = " \u2192 "
DASH = "\u2013"


@dataclass
class Shown:
    """A written page: its text without line breaks and wide spaces, its source, and its figures by name."""

    page: Page
    source: str
    figures: dict[str, Figure]

    @property
    def text(self) -> str:
        return " ".join(self.page.text.replace("\u00a0", " ").split())

    def says(self, *sentences: str) -> None:
        for sentence in sentences:
            assert sentence in self.text, sentence

    def figure(self, name: str) -> Figure:
        (found,) = [figure for key, figure in self.figures.items() if f"-{key}".endswith(f"-{name}")]
        return found

    def table(self, *heads: str) -> list[list[str]]:
        return [[item.replace("\u00a0", " ") for item in row] for row in self.page.table(*heads)]

    def alts(self) -> list[str]:
        return [unescape(item) for item in re.findall(r'<svg[^>]*aria-label="([^"]*)"', self.source)]

    def sorts(self) -> dict[str, str]:
        """Return text -> what a click on the head sorts by, of the cells of all tables that have such a key."""
        return {
            unescape(text): key
            for key, text in re.findall(r'<td[^>]* data-sort="([^"]*)">([^<]*)<', self.source)
        }

    def tones(self, tone: str) -> set[str]:
        """Return the texts of the cells of a tone."""
        return {
            unescape(text)
            for text in re.findall(rf'<td class="[^"]*\b{tone}\b[^"]*"[^>]*>([^<]*)<', self.source)
        }

    def swatches(self) -> list[str]:
        return re.findall(r'class="swatch" style="background:(#[0-9A-Fa-f]{6})"', self.source)


class Writer:
    """Writes pages of an outputs folder without drawing them."""

    def __init__(self, outputs: Path, made: dict[str, Figure]) -> None:
        self.outputs, self.made = outputs, made

    def __call__(self, *refs: str, found: Mapping[str, Sequence[Result]] | None = None) -> Shown:
        self.made.clear()
        path = write_report(select(self.outputs, refs, None, Ensemble), found or {}, self.outputs)
        return Shown(read_page(path), path.read_text(encoding="utf-8"), dict(self.made))


def terminal(result: Result) -> list[str]:
    """Return what `analyze` prints of a result."""
    module = importlib.import_module(f"dynalab.analysis.{result.kind}")
    if not hasattr(module, "show"):
        return module.describe(result.data)
    return list(lines_of(module.show(restore(module.Findings, result.data), ())))


def analysed(
    outputs: Path, kind: str, capsys: pytest.CaptureFixture[str], *keys: str
) -> tuple[Result, list[str]]:
    """Make an analysis of `@last`; return it and the lines that the terminal had."""
    capsys.readouterr()
    assert run(["analyze", kind, *keys]) == 0
    lines = capsys.readouterr().out.splitlines()
    (result,) = [item for item in results(outputs) if lines[-1].endswith(item.id)]
    return result, lines[:-1]


def curve(line: Any) -> list[list[float]]:
    return [np.asarray(part, float).tolist() for part in line.get_data()]


def shades(ax: Any) -> list[list[float]]:
    return [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in ax.patches]


def labels(figure: Figure) -> list[str]:
    return [item.get_text() for item in figure.legends[0].get_texts()]


def altered(result: Result, **values: Any) -> Result:
    result.data.update(values)
    # What was restored of it is of the former values.
    result.__dict__.pop("value", None)
    return result
