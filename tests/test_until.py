"""A run as it stood at a step. What analyses say of a prefix is in `test_every_analysis.py`."""

from dataclasses import replace

import numpy as np

from dynalab.analysis.base import Run


def test_a_divergence_counts_from_its_step_on():
    run = Run("e/s0000", {}, np.arange(0, 100, 10), status="diverged", diverged_step=95)
    assert run.until(94).status == "done" and run.until(94).diverged_step is None
    assert run.until(95).status == "diverged" and run.until(95).diverged_step == 95
    # Where its step is not known it came after the last row.
    unknown = replace(run, diverged_step=None)
    assert unknown.until(90).status == "diverged" and unknown.until(89).status == "done"
