"""Figures by matplotlib, without pyplot: a function a figure, from plain arrays, and `draw`, of a figure as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import matplotlib.figure
import numpy as np

from dynalab.core.runs import Series
from dynalab.core.words import count
from dynalab.show.blocks import (
    Dots,
    Effect,
    Figure,
    Graph,
    Halved,
    Heatmap,
    Intervals,
    Lines,
    Picture,
    Polygons,
    Profiles,
    Ranking,
    Raster,
    Regions,
    Response,
    Selection,
    Similarities,
    Strip,
    Strips,
    Surfaces,
    run_label,
)
from dynalab.show.plots.comparison import comparison
from dynalab.show.plots.curves import curves, training_curves
from dynalab.show.plots.effects import effect_rows
from dynalab.show.plots.events import ROWS, events_over_curves
from dynalab.show.plots.halved import halved_rate
from dynalab.show.plots.landmarks import landmark_steps
from dynalab.show.plots.lines import LinePanel, hidden_progress, line_panels
from dynalab.show.plots.map import forks, state_graph, training_map
from dynalab.show.plots.panels import metric_panels
from dynalab.show.plots.polygons import polygon_pictures
from dynalab.show.plots.ranking import effect, ranking, response
from dynalab.show.plots.regions import estimates_in_regions
from dynalab.show.plots.selection import model_selection
from dynalab.show.plots.shares import variance_shares
from dynalab.show.plots.similarity import similarity_maps
from dynalab.show.plots.spectrum import ROWS as MAPS
from dynalab.show.plots.spectrum import spectral_density
from dynalab.show.plots.states import state_profiles, state_raster
from dynalab.show.plots.style import Size, redrawn, state_colours, style
from dynalab.show.plots.surfaces import surface_pictures

__all__ = [
    "comparison",
    "curves",
    "draw",
    "effect",
    "effect_rows",
    "estimates_in_regions",
    "events_over_curves",
    "forks",
    "halved_rate",
    "hidden_progress",
    "landmark_steps",
    "metric_panels",
    "model_selection",
    "polygon_pictures",
    "ranking",
    "response",
    "similarity_maps",
    "spectral_density",
    "state_colours",
    "state_graph",
    "state_profiles",
    "state_raster",
    "style",
    "surface_pictures",
    "training_curves",
    "training_map",
    "variance_shares",
]

# Share of training below which what begins asks for a logarithmic axis.
EARLY = 0.03


def draw(
    block: Figure,
    label: Callable[[str], str] = run_label,
    log_steps: bool | None = None,
    size: Size | None = None,
) -> matplotlib.figure.Figure:
    """Draw a figure that an analysis gives as data.

    Args:
        block: The figure.
        label: Id of a run -> its name; by default the last part of it.
        log_steps: Logarithmic x where a kind of figure has it; None: where more than half of the steps lie in the first
            tenth.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.

    Raises:
        TypeError: There is no such kind of figure.
    """
    if isinstance(block, Picture):
        return block.figure if size is None else redrawn(block.figure, size)
    if isinstance(block, Halved):
        return _halved(block.strips[:ROWS], label, size)
    if isinstance(block, Strips):
        return _strips(block, label, size)
    if isinstance(block, Intervals):
        return variance_shares(
            block.labels,
            block.shares,
            block.intervals,
            factors=[column.name.removeprefix("seed of ") for column in block.columns],
            levels=[column.levels for column in block.columns],
            values=block.columns[0].values if block.columns else None,
            size=size,
        )
    if isinstance(block, Lines):
        return _lines(block, log_steps, size)
    if isinstance(block, Heatmap):
        return spectral_density(
            [label(item.run) for item in block.maps],
            [item.steps for item in block.maps],
            [item.values for item in block.maps],
            block.edges,
            largest=[_curve(item.line) for item in block.maps] if block.line else None,
            threshold=[_curve(item.dashed) for item in block.maps] if block.dashed else None,
            size=size,
        )
    if isinstance(block, Dots):
        return effect_rows(
            block.labels,
            block.values,
            block.intervals,
            found=block.marked,
            notes=block.notes,
            unit=block.unit,
            way=block.way,
            size=size,
        )
    if isinstance(block, Regions):
        return estimates_in_regions(
            block.labels, block.values, block.intervals, block.regions,
            notes=block.notes, places=block.places, axes=block.axes, size=size,
        )  # fmt: skip
    if isinstance(block, Ranking):
        return ranking(
            block.labels, block.values, block.estimates, block.intervals,
            notes=block.notes, axis=block.axis, last=block.last, grain=block.grain, size=size,
        )  # fmt: skip
    if isinstance(block, Effect):
        return effect(
            block.at, block.lines, block.estimates, block.intervals,
            key=block.key, axis=block.axis, ratios=block.ratios, size=size,
        )  # fmt: skip
    if isinstance(block, Response):
        return response(
            block.at, block.values, block.estimates, block.intervals,
            key=block.key, axis=block.axis, best=block.best, last=block.last, grain=block.grain,
            band=block.band, beside=block.beside, size=size,
        )  # fmt: skip
    if isinstance(block, Raster):
        return _raster(block, label, log_steps, size)
    if isinstance(block, Profiles):
        return state_profiles(block.values, block.columns, unit=block.unit, size=size)
    if isinstance(block, Graph):
        return _graph(block, size)
    if isinstance(block, Similarities):
        return similarity_maps(
            [item.title for item in block.maps],
            [item.steps for item in block.maps],
            [item.values for item in block.maps],
            spreads=[item.spread for item in block.maps],
            axis=block.axis,
            unit=block.unit,
            size=size,
        )
    if isinstance(block, Polygons):
        tilings = block.tilings
        return polygon_pictures(
            [item.title for item in tilings], [item.polygons for item in tilings], [item.values for item in tilings],
            boundaries=[item.boundary for item in tilings], points=[item.points for item in tilings],
            unit=block.unit, classes=block.classes, logarithmic=block.logarithmic, size=size,
        )  # fmt: skip
    if isinstance(block, Surfaces):
        drawn = block.surfaces
        return surface_pictures(
            [item.title for item in drawn], [(item.x, item.y) for item in drawn], [item.values for item in drawn],
            levels=[item.level for item in drawn], paths=[item.path for item in drawn],
            points=[item.points for item in drawn], axes=block.axes, unit=block.unit,
            logarithmic=block.logarithmic, size=size,
        )  # fmt: skip
    if isinstance(block, Selection):
        return model_selection(
            block.tried, block.scores, block.errors, block.criterion, block.chosen, converged=block.converged,
            paired=block.paired, size=size,
        )  # fmt: skip
    raise TypeError(f"{type(block).__name__}: no such figure")


def runs_of(block: Figure) -> list[str]:
    """Return the ids of a figure's runs, in the order of what is drawn of each; none where runs are not told apart."""
    if isinstance(block, Strips):
        return [strip.run for strip in block.strips[:ROWS]]
    if isinstance(block, Raster):
        return [*block.runs]
    if isinstance(block, Heatmap):
        return [item.run for item in block.maps[:MAPS]]
    if isinstance(block, Ranking | Response):
        return [*chain.from_iterable(block.runs), *block.settings] if block.runs else []
    if isinstance(block, Lines):
        return [*dict.fromkeys(run for panel in block.panels for own in panel.curves.values() for run in own)]
    return [*block.runs] if isinstance(block, Intervals | Picture) else []


def caption(block: Figure) -> str:
    """Return what stands under a figure: its caption, and how many of its runs are drawn."""
    if isinstance(block, Strips) and len(block.strips) > ROWS:
        return block.caption.replace(".**", f" ({ROWS} of {count(len(block.strips), 'run')}).**", 1)
    return block.caption


def _names(strips: Sequence[Strip], label: Callable[[str], str]) -> list[str]:
    return [label(strip.run) + (f": {strip.label}" if strip.label else "") for strip in strips]


def _halved(
    strips: Sequence[Strip], label: Callable[[str], str], size: Size | None
) -> matplotlib.figure.Figure:
    rows = []
    for strip in strips:
        steps = np.empty(0) if strip.left is None else strip.left.steps
        curves = {"sharpness": strip.left, "threshold": strip.dashed, "parent_sharpness": strip.right}
        absent = np.full(len(steps), np.nan)
        columns = {name: absent if curve is None else curve.at(steps) for name, curve in curves.items()}
        rows.append({"step": steps, **columns})
    marks = [next((int(step) for step in strip.marks.values() if step is not None), 0) for strip in strips]
    return halved_rate(_names(strips, label), rows, marks, size=size)


def _strips(block: Strips, label: Callable[[str], str], size: Size | None) -> matplotlib.figure.Figure:
    strips = block.strips[:ROWS]
    return events_over_curves(
        _names(strips, label),
        [_curve(strip.left) for strip in strips],
        [_curve(strip.right) for strip in strips] if block.right else None,
        [
            [(it.begin, np.inf if it.end is None else it.end, it.kind) for it in strip.spans]
            for strip in strips
        ],
        names=(block.left, block.right),
        dashed=[_curve(strip.dashed) for strip in strips] if block.dashed else None,
        dashed_name=block.dashed,
        marked=[strip.marks for strip in strips],
        size=size,
    )


def _lines(block: Lines, log_steps: bool | None, size: Size | None) -> matplotlib.figure.Figure:
    # A row a run in every panel: those that diverged are marked in all.
    runs = runs_of(block)
    panels = []
    for panel in block.panels:
        everything = [series.steps for own in panel.curves.values() for series in own.values()]
        steps = np.unique(np.concatenate(everything or [np.empty(0, np.int64)]))
        absent = np.full(len(steps), np.nan)
        series = {
            label: np.stack([own[run].at(steps) if run in own else absent for run in runs])
            for label, own in panel.curves.items()
        }
        dashed = {name: _curve(own) for name, own in panel.dashed.items()}
        panels.append(LinePanel(panel.title, steps, series, panel.logarithmic, panel.level, dashed))
    diverged = np.array([block.diverged.get(run, np.nan) for run in runs], float)
    return line_panels(
        panels, marked=block.marks, diverged=diverged, log_steps=log_steps, axis=block.axis, size=size
    )


def _raster(
    block: Raster, label: Callable[[str], str], log_steps: bool | None, size: Size | None
) -> matplotlib.figure.Figure:
    landmarks = {name: np.array(steps, dtype=float) for name, steps in block.landmarks.items()}
    last = max(float(steps[-1]) for steps in block.steps)
    # A first state of a sliver's width would not be seen on a linear axis.
    early = log_steps and block.begins is not None and block.begins < EARLY * last
    order = (
        next(reversed(landmarks.values()), None)
        if block.order is None
        else np.array(block.order, dtype=float)
    )
    return state_raster(
        block.steps,
        block.states,
        [label(run) for run in block.runs],
        block.n_states,
        order_by=order,
        landmarks=landmarks,
        log_steps=True if early else None,
        size=size,
    )


def _graph(block: Graph, size: Size | None) -> matplotlib.figure.Figure:
    return training_map(
        len(block.nodes),
        [{"from": arrow.start, "to": arrow.end, "runs": arrow.runs} for arrow in block.arrows],
        block.total,
        occupancy=[node.share for node in block.nodes],
        runs=[node.runs for node in block.nodes],
        captions=[node.text for node in block.nodes],
        forked={(arrow.start, arrow.end) for arrow in block.arrows if arrow.marked},
        size=size,
    )


def _curve(series: Series | None) -> tuple[np.ndarray, np.ndarray]:
    if series is None:
        return np.empty(0), np.empty(0)
    some = np.isfinite(series.values)
    return series.steps[some], series.values[some]
