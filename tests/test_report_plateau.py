"""Hidden progress on the page: shown for any ensemble with the columns, with what the columns say."""

from __future__ import annotations

import numpy as np
import pytest
from report_fakes import make_ensemble, steps_of

from dynalab.report import plateau
from dynalab.report.gather import gather

STEPS = steps_of(200, 10)


def values(**columns):
    return {"test_accuracy": stairs(0.5, 1.0, [100, 120, 140, 999]), **columns}


def stairs(low, high, at):
    return np.where(STEPS[None] >= np.array(at)[:, None], high, low)


def blocks(outputs, **columns):
    ensemble = make_ensemble(outputs, steps=STEPS, values=values(**columns))
    return plateau.blocks(gather(ensemble, ensemble.runs, []))


def test_the_caption_counts_runs_and_their_lead(outputs):
    (block,) = blocks(outputs, parity_fourier=stairs(1.0, 50.0, [60, 80, 160, 999]))
    assert (
        "above 4 for 3 rows on end at median step **80** [quartiles 60 to 160], 3 of 4 runs" in block.caption
    )
    assert "accuracy above 0.55 at median step **120** [quartiles 100 to 140], 3 of 4 runs" in block.caption
    assert "earlier in **2 of 3 runs** that had either" in block.caption


def test_the_movement_stands_in_where_there_is_no_coefficient(outputs):
    (block,) = blocks(outputs, parity_separation=stairs(1.0, 3.0, [60, 80, 90, 100]))
    assert "movement above 2" in block.caption and "coefficient" not in block.caption
    assert "earlier in **4 of 4 runs**" in block.caption


def test_one_high_row_is_no_progress():
    high = np.ones(len(STEPS))
    high[[3, 5, 6, 10, 11, 12]] = 9.0
    assert plateau.crossings(STEPS, np.stack([high, np.ones(len(STEPS))]), 4.0) == [100, None]


@pytest.mark.parametrize("columns", [{}, {"parity_movement": np.ones((4, len(STEPS)))}])
def test_other_ensembles_have_no_such_part(outputs, columns):
    assert blocks(outputs, **columns) == []
