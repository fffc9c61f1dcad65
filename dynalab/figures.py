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
        size=(3.25, 2.2),
    )

`size` is width and height in inches: 3.25 is a column of a paper with two. Letters have the same size in points at
every size, so a figure is best drawn at the size that it is printed at.
"""

from __future__ import annotations

from dynalab.show.plots import *  # noqa: F403
from dynalab.show.plots import __all__ as __all__
