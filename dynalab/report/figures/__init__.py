"""One function, one matplotlib figure, from plain arrays; nothing here knows the store or pyplot."""

from __future__ import annotations

from dynalab.report.figures.comparison import comparison
from dynalab.report.figures.curves import curves, training_curves
from dynalab.report.figures.effects import effect_rows
from dynalab.report.figures.events import events_over_curves
from dynalab.report.figures.halved import halved_rate
from dynalab.report.figures.landmarks import landmark_steps
from dynalab.report.figures.map import forks, state_graph, training_map
from dynalab.report.figures.panels import metric_panels
from dynalab.report.figures.plateau import hidden_progress
from dynalab.report.figures.selection import model_selection
from dynalab.report.figures.shares import variance_shares
from dynalab.report.figures.spectrum import spectral_density
from dynalab.report.figures.states import state_profiles, state_raster
from dynalab.report.figures.style import state_colours, style

__all__ = [
    "comparison",
    "curves",
    "effect_rows",
    "events_over_curves",
    "forks",
    "halved_rate",
    "hidden_progress",
    "landmark_steps",
    "metric_panels",
    "model_selection",
    "spectral_density",
    "state_colours",
    "state_graph",
    "state_profiles",
    "state_raster",
    "style",
    "training_curves",
    "training_map",
    "variance_shares",
]
