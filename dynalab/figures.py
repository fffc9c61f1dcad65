"""Figures of training, for notebooks and papers: one function, one matplotlib `Figure`.

Every function takes plain arrays (steps of shape (T,), values of shape (S, T) with a row a run) and returns a
`matplotlib.figure.Figure`; a notebook shows it, `figure.savefig("curves.pdf")` keeps it. Nothing goes through pyplot
and no global setting is changed.

    import dynalab
    ensemble = dynalab.load("@last")
    dynalab.figures.curves(
        ensemble.steps("test_loss"),
        {"train": ensemble.array("train_loss"), "test": ensemble.array("test_loss")},
        logarithmic=True,
    )
"""

from __future__ import annotations

from dynalab.report.figures import __all__ as __all__
from dynalab.report.figures import comparison as comparison
from dynalab.report.figures import curves as curves
from dynalab.report.figures import effect_rows as effect_rows
from dynalab.report.figures import events_over_curves as events_over_curves
from dynalab.report.figures import forks as forks
from dynalab.report.figures import halved_rate as halved_rate
from dynalab.report.figures import hidden_progress as hidden_progress
from dynalab.report.figures import landmark_steps as landmark_steps
from dynalab.report.figures import metric_panels as metric_panels
from dynalab.report.figures import model_selection as model_selection
from dynalab.report.figures import spectral_density as spectral_density
from dynalab.report.figures import state_colours as state_colours
from dynalab.report.figures import state_graph as state_graph
from dynalab.report.figures import state_profiles as state_profiles
from dynalab.report.figures import state_raster as state_raster
from dynalab.report.figures import style as style
from dynalab.report.figures import training_curves as training_curves
from dynalab.report.figures import training_map as training_map
from dynalab.report.figures import variance_shares as variance_shares
