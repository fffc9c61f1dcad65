"""Blocks as HTML, for the page and for notebooks: figures drawn, runs named, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dynalab.core.words import number, plain
from dynalab.show import plots, svg
from dynalab.show.blocks import Block, Cell, Code, Figure, Picture, Say, Table, Warnings, run_label
from dynalab.show.drawer import Drawer
from dynalab.show.plots.style import call_of

TEMPLATES = Path(__file__).parent / "templates"
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")
# Browsers break lines behind a hyphen.
_POWER = re.compile(r"[\d.]+e-\d+")
_KINDS = {"say": Say, "warnings": Warnings, "picture": Picture, "table": Table, "code": Code}


def piece(value: Any) -> dict[str, Any]:
    """Return a plain value or a cell as the templates take it: numbers right-aligned, a quiet dash for what is missing.

    A click on the column's head sorts by `sort`; None is last.
    """
    cell = value if isinstance(value, Cell) else Cell(value)
    inner, tone, aligned = cell.value, cell.tone, not cell.swatch
    sort: float | str | None = None
    if inner is None:
        text, tone = number(None), tone or "quiet"
    elif isinstance(inner, int | float) and not isinstance(inner, bool):
        text, sort = number(inner), float(inner)
    else:
        text, sort, aligned = (
            "yes" if inner is True else "no" if inner is False else str(inner),
            str(inner),
            False,
        )
    return {**vars(cell), "text": cell.text or text, "sort": sort, "number": aligned, "tone": tone}


def whole(text: str) -> Markup:
    """Return text as HTML: everything escaped, then numbers such as 1e-07 in one piece."""
    return Markup(_POWER.sub(r'<span class="whole">\g<0></span>', str(escape(text))))


def rich(text: str) -> Markup:
    """Return text as HTML: everything escaped, numbers in one piece, then `**bold**` and `` `code` ``."""
    return Markup(_CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<strong>\1</strong>", str(whole(text)))))


def settled(
    block: Block,
    label: Callable[[str], str] = run_label,
    log_steps: bool | None = None,
    size: tuple[float, float | None] | None = None,
) -> Block:
    """Return a block whose figure is drawn, as `plots.draw` does, and whose runs are named by their ids' labels."""
    if isinstance(block, Figure):
        figure, about = plots.draw(block, label, log_steps, size), plots.caption(block)
        runs = plots.runs_of(block)
        return Picture(
            name=block.name, figure=figure, caption=about, alt=block.alt, titles=block.titles, runs=runs
        )
    if isinstance(block, Table):
        return replace(block, rows=[[_named(value, label) for value in row] for row in block.rows])
    return block


def _named(value: Any, label: Callable[[str], str]) -> Any:
    if not isinstance(value, Cell):
        return value
    # A cell that says something else of its run goes on saying it.
    own = bool(value.run) and value.text in ("", run_label(value.run))
    named = replace(value, text=label(value.run)) if own else value
    if value.state is None:
        return named
    place, n_states = value.state
    return replace(named, swatch=plots.state_colours(n_states)[place])


def drawing(
    picture: Picture,
    name: str,
    document: str,
    files: str = "",
    *,
    page: bool = False,
    drawer: Drawer | None = None,
) -> dict[str, Any]:
    """Return a picture as the templates take it, with its name before the ids in its SVG document, so that none clash.

    `files` is the address of its files without suffix; empty where there are none. `page`: for a page, with its values
    on the other scale as well, where there is one, in which the figure stays, and drawn for a phone where it is wider;
    one that is drawn for a phone already stands there once. `drawer`: who may have drawn it so.
    """
    figure = picture.figure

    def plot(document: str, scales: str, kind: str = "") -> dict[str, str]:
        prefix = f"{name}-{kind}" if kind else name
        element = svg.inline(document, prefix, picture.alt, picture.titles, picture.runs)
        return {"svg": Markup(element), "scales": scales, "kind": kind}

    drawn = [plot(document, svg.scales(figure))]
    small, other = svg.is_small(figure), None
    if page and not small:
        if other := svg.other_scale(figure):
            drawn.append(plot(other[0], svg.scales(figure), "other"))
        if svg.is_wide(figure) and (call := call_of(figure)) is not None:
            narrow = partial(svg.narrow, call)
            drawn.append(plot(*(drawer.take(figure, "narrow", narrow) if drawer else narrow()), "narrow"))
    ensembles = {run.partition("/")[0] for run in picture.runs}
    return {
        "plots": drawn,
        "other": other and other[1],
        "small": small,
        "ensemble": ensembles.pop() if len(ensembles) == 1 else "",
        "file": files,
        "number": None,
    }


def run_of(row: Sequence[Any]) -> str:
    """Return the id of the run that a row of a table is about; empty where it is about none."""
    return next((cell.run for cell in row if isinstance(cell, Cell) and cell.run), "")


def settings_of(row: Sequence[Any]) -> list[str]:
    """Return the ids of the ensembles that the cells of a row name."""
    return [cell.setting for cell in row if isinstance(cell, Cell) and cell.setting]


# Columns that say less than others of what a row is about.
_LESS = frozenset({"seed", "status", "steps", "runs", "ensemble", "p", "p (Holm)", "times", "of"})


def brief(header: Sequence[str]) -> list[bool]:
    """Return which columns a narrow page shows: the first, and what says most; the others are behind a fold."""
    return [not place or name not in _LESS for place, name in enumerate(header)]


def environment(*folders: Path) -> Environment:
    """Return the templates of blocks, and those of some folders before them."""
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "rich": rich,
        "whole": whole,
        "plain": plain,
        "piece": piece,
        "run_of": run_of,
        "settings_of": settings_of,
        "brief": brief,
    }
    # Boxes to tick need the page's style.
    made.globals["styled"] = bool(folders)
    made.tests |= {name: lambda block, kind=kind: isinstance(block, kind) for name, kind in _KINDS.items()}
    return made


@lru_cache(maxsize=1)
def _blocks() -> Any:
    return environment().get_template("blocks.html.j2").module


def html(
    blocks: Iterable[Block], prefix: str = "dynalab", size: tuple[float, float | None] | None = None
) -> str:
    """Return blocks as HTML without a page around them, with a prefix before the ids in figures of a size."""
    parts = []
    for block in (settled(block, size=size) for block in blocks):
        made = None
        if isinstance(block, Picture):
            made = drawing(block, f"{prefix}-{block.name}", svg.to_svg(block.figure))
        parts.append(str(_blocks().block(block, made)))
    return "\n".join(parts)
