"""Figures of training, for notebooks and papers: one function, one matplotlib `Figure`.

Every function takes plain arrays (steps of shape (T,), values of shape (S, T) with a row a run) and returns a
`matplotlib.figure.Figure`; a notebook shows it, `figure.savefig("curves.pdf")` keeps it. Nothing goes through pyplot
and no global setting is changed. `draw` takes a figure that an analysis gives as data.

    import dynalab
    ensemble = dynalab.load("@last")
    dynalab.figures.curves(
        ensemble.steps("test_loss"),
        {"train": ensemble.array("train_loss"), "test": ensemble.array("test_loss")},
        logarithmic=True,
    )
"""

from __future__ import annotations

from dynalab.show.plots import __all__ as __all__
from dynalab.show.plots import comparison as comparison
from dynalab.show.plots import curves as curves
from dynalab.show.plots import draw as draw
from dynalab.show.plots import effect_rows as effect_rows
from dynalab.show.plots import events_over_curves as events_over_curves
from dynalab.show.plots import forks as forks
from dynalab.show.plots import halved_rate as halved_rate
from dynalab.show.plots import hidden_progress as hidden_progress
from dynalab.show.plots import landmark_steps as landmark_steps
from dynalab.show.plots import metric_panels as metric_panels
from dynalab.show.plots import model_selection as model_selection
from dynalab.show.plots import spectral_density as spectral_density
from dynalab.show.plots import state_colours as state_colours
from dynalab.show.plots import state_graph as state_graph
from dynalab.show.plots import state_profiles as state_profiles
from dynalab.show.plots import state_raster as state_raster
from dynalab.show.plots import style as style
from dynalab.show.plots import training_curves as training_curves
from dynalab.show.plots import training_map as training_map
from dynalab.show.plots import variance_shares as variance_shares
