"""Blocks as HTML, for the page and for notebooks: figures drawn, runs named, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dynalab.core.words import number, plain
from dynalab.show import plots, svg
from dynalab.show.blocks import (
    Block,
    Cell,
    Code,
    Figure,
    Picture,
    Say,
    Table,
    Warnings,
    run_label,
)

TEMPLATES = Path(__file__).parent / "templates"
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")
_KINDS = {"say": Say, "warnings": Warnings, "picture": Picture, "table": Table, "code": Code}


@dataclass(frozen=True)
class Piece:
    """A cell as the page has it."""

    text: str  # what is shown
    sort: float | str | None  # what a click on the column's head sorts by; None is last
    number: bool  # whether it stands right-aligned
    tone: str  # as that of a `Cell`
    swatch: str  # as that of a `Cell`
    link: str  # as that of a `Cell`


def piece(value: Any) -> Piece:
    """Return a plain value or a cell as a piece: numbers right-aligned, a quiet dash for what is missing."""
    cell = value if isinstance(value, Cell) else Cell(value)
    inner, tone, aligned = cell.value, cell.tone, False
    text: str
    sort: float | str | None
    if inner is None:
        text, sort, tone, aligned = number(None), None, tone or "quiet", True
    elif isinstance(inner, bool):
        text, sort = "yes" if inner else "no", str(inner)
    elif isinstance(inner, int | float):
        text, sort, aligned = number(inner), float(inner), True
    else:
        text = sort = str(inner)
    return Piece(cell.text or text, sort, aligned and not cell.swatch, tone, cell.swatch, cell.link)


def rich(text: str) -> Markup:
    """Return text as HTML: everything escaped, then `**bold**` and `` `code` ``."""
    safe = str(escape(text))
    return Markup(_CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<strong>\1</strong>", safe)))


def settled(block: Block, label: Callable[[str], str] = run_label, log_steps: bool | None = None) -> Block:
    """Return a block whose figure is drawn and whose runs are named.

    Args:
        block: The block.
        label: Id of a run -> its name.
        log_steps: As `plots.draw` takes it.
    """
    if isinstance(block, Figure):
        figure = plots.draw(block, label, log_steps)
        return Picture(
            name=block.name, figure=figure, caption=plots.caption(block), alt=block.alt, titles=block.titles
        )
    if isinstance(block, Table):
        return replace(block, rows=[[_named(value, label) for value in row] for row in block.rows])
    return block


def _named(value: Any, label: Callable[[str], str]) -> Any:
    if not isinstance(value, Cell):
        return value
    named = replace(value, text=label(value.run)) if value.run else value
    if value.state is None:
        return named
    place, n_states = value.state
    return replace(named, swatch=plots.state_colours(n_states)[place])


def drawing(picture: Picture, name: str, document: str, files: str = "") -> dict[str, Any]:
    """Return a picture as the templates take it.

    Args:
        picture: The picture.
        name: Put before the ids in it, so that those of several do not clash.
        document: Its SVG document.
        files: Address of its files without suffix; empty where there are none.
    """
    return {"svg": Markup(svg.inline(document, name, picture.alt, picture.titles)), "file": files}


def environment(*folders: Path) -> Environment:
    """Return the templates of blocks, and those of some folders before them."""
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"rich": rich, "plain": plain, "piece": piece}
    made.tests |= {name: _tester(kind) for name, kind in _KINDS.items()}
    return made


def _tester(kind: type) -> Callable[[Any], bool]:
    return lambda block: isinstance(block, kind)


@lru_cache(maxsize=1)
def _blocks() -> Any:
    return environment().get_template("blocks.html.j2").module


def html(blocks: Iterable[Block], prefix: str = "dynalab") -> str:
    """Return blocks as HTML without a page around them.

    Args:
        blocks: The blocks.
        prefix: Put before the ids in figures.
    """
    parts = []
    for block in map(settled, blocks):
        made = None
        if isinstance(block, Picture):
            made = drawing(block, f"{prefix}-{block.name}", svg.to_svg(block.figure))
        parts.append(str(_blocks().block(block, made)))
    return "\n".join(parts)
