"""`dynalab figure`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import (
    columns,
    config_dir_option,
    echo,
    emit_json,
    filter_options,
    note,
    result_options,
    target,
    to_options,
    warn,
)
from dynalab.config.places import outputs_root
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dynalab.report.asked import Asked
    from dynalab.report.figures import Named
    from dynalab.report.gather import Shown

# Inches of a unit of length.
UNITS = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_LENGTH = re.compile(r"([0-9.]+) ?([a-z]*)")


@click.command("figure")
@click.argument("name", required=False, metavar="[FIGURE]")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE|ANALYSIS|REPRODUCTION]...")
@to_options("Where: .pdf, .svg or .png.")
@click.option("--width", metavar="LENGTH", help="3.25in, 84mm, 8.4cm, 240pt (default: as on the page).")
@click.option("--height", metavar="LENGTH", help="Likewise (default: what the figure takes at its width).")
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Of curves, metrics, comparison.")
@click.option("--setting", "settings", metavar="TERMS", multiple=True, help="As -f: 'optimizer.lr=0.1'.")
@click.option("--run", "runs", metavar="LABEL", multiple=True, help="Only these runs: s0003, or the seed 3.")
@click.option("--list", "as_list", is_flag=True, help="List the figures; every argument is a reference then.")
@filter_options
@result_options
@config_dir_option
def command(
    name: str | None,
    refs: tuple[str, ...],
    to: str | None,
    force: bool,
    width: str | None,
    height: str | None,
    metrics: tuple[str, ...],
    settings: tuple[str, ...],
    runs: tuple[str, ...],
    as_list: bool,
    filter_text: str | None,
    forks: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Draw one figure of the page for a paper: at a width of its own, with its letters embedded.

    FIGURE is the name of one, or its number on the page; without one they are listed. References mean what they mean to
    `dynalab report`. The papers' own: cohen2021 (a sweep of rates), thilak2022 (one run).

    \b
    dynalab figure --list
    dynalab figure curves --to curves.pdf --width 3.25in
    dynalab figure metrics cb7150eb3e --metric l2 --metric sharpness --to norms.svg --width 5in
    dynalab figure cohen2021 --to sharpness.pdf --width 84mm
    """
    from dynalab.cli.progress import pieces
    from dynalab.report.asked import asked
    from dynalab.report.figures import check_name, figures, named
    from dynalab.report.names import OF_METRICS
    from dynalab.report.write import composed, gathered
    from dynalab.show.save import SUFFIXES
    from dynalab.store.paths import OutputPaths

    listing = as_list or name is None
    if as_list and name is not None:
        refs = (name, *refs)
    if name is not None and not listing and to is None:
        # A mistyped name is said before anything else is asked for.
        check_name(name)
    if to is None and not listing:
        raise ConfigError(f"--to FILE is missing: a name that ends in {', '.join(SUFFIXES)}")
    path = None if to is None or listing else target(to, force, [*SUFFIXES])
    size = inches("--width", width), inches("--height", height)
    if metrics and not listing and name not in OF_METRICS:
        raise ConfigError(f"--metric: chooses the curves of {listed([*OF_METRICS])}, not of {name}")
    root = outputs_root(outputs)
    terms = " ".join([*([filter_text] if filter_text else []), *settings]) or None
    with pieces("figure", quiet=as_json):
        about = _of_runs(asked(root, refs, terms, forks), runs)
        shown, lost = gathered(
            about.selection, {name: choice.shown for name, choice in about.choices.items()}, root
        )
        _only(shown, metrics)
        page = composed(shown, lost, root, OutputPaths(root).report("figure"))
    code = 3 if any(item.damaged for item, _ in about.selection) else 0
    broken = [str(error) for item in shown for error in item.broken]
    warnings = list(dict.fromkeys([*lost, *about.refused, *broken]))
    if path is None:
        made = figures(page, shown)
        if as_json:
            emit_json({"figures": [_json(item) for item in made], "warnings": warnings})
            return code
        rows = [[item.name, item.number, item.about, item.where] for item in made]
        echo(columns(["name", "figure", "shows", "section"], rows))
        warn(warnings)
        return code
    assert name is not None
    with pieces("figure", quiet=as_json):
        item = named(name, page, shown)
        drawn = _write(item, path, size)
    if as_json:
        emit_json({"path": str(path), **_json(item), "size": drawn, "warnings": warnings})
        return code
    warn(warnings)
    note(f"{item.about}: {drawn[0]:.2f} x {drawn[1]:.2f} inches")
    echo(path)
    return code


def inches(option: str, text: str | None) -> float | None:
    """Return a length in inches; None where none was given.

    Raises:
        ConfigError: It is no length, or no width or height that a figure can have.
    """
    from dynalab.show.plots.style import LEAST, MOST

    if text is None:
        return None
    match = _LENGTH.fullmatch(text.strip())
    try:
        value = float(match[1]) * UNITS[match[2]] if match else None
    except (ValueError, KeyError):
        value = None
    if value is None or not LEAST <= value <= MOST:
        units = listed([*UNITS][1:], last="or")
        raise ConfigError(
            f"{option} {text}: expected a length such as 3.25in (or {units}), {LEAST:g}in to {MOST:g}in"
        )
    return value


def _of_runs(about: Asked, runs: Sequence[str]) -> Asked:
    """Return what was asked for with some runs alone, by label or seed."""
    if not runs:
        return about
    labels = {run.label for _, own in about.selection for run in own}
    kept = [
        (item, [run for run in own if {run.label, str(run.seed), run.id} & {*runs}])
        for item, own in about.selection
    ]
    known = {name for _, own in kept for run in own for name in (run.label, str(run.seed), run.id)}
    if missing := [name for name in runs if name not in known]:
        near = did_you_mean(missing[0], labels)
        raise NothingMatched(
            f"--run {missing[0]}: no such run here{near}; there are {listed(sorted(labels), 6)}"
        )
    return replace(about, selection=[(item, own) for item, own in kept if own])


def _only(shown: Sequence[Shown], metrics: Sequence[str]) -> None:
    """Leave only some metrics to be drawn."""
    if not metrics:
        return
    known = {name for item in shown for name in item.values}
    if missing := [name for name in metrics if name not in known]:
        near = did_you_mean(missing[0], known)
        raise ConfigError(f"--metric {missing[0]}: not recorded{near}; there are {listed(sorted(known), 12)}")
    for item in shown:
        item.values = {name: item.values[name] for name in metrics if name in item.values}
        item.steps = {name: item.steps[name] for name in item.values}


def _write(item: Named, path: Path, size: tuple[float | None, float | None]) -> tuple[float, float]:
    """Draw a figure into a file, and return its width and height in inches."""
    from dynalab.show.plots import draw
    from dynalab.show.save import save

    natural = item.picture.figure
    if size == (None, None):
        figure = natural
    else:
        figure = draw(item.picture, size=(natural.get_figwidth() if size[0] is None else size[0], size[1]))
    save(figure, path)
    return round(figure.get_figwidth(), 4), round(figure.get_figheight(), 4)


def _json(item: Named) -> dict[str, Any]:
    return {
        "name": item.name,
        "number": item.number,
        "shows": item.about,
        "section": item.where,
        "caption": item.picture.caption,
    }
