"""Negative eigenvalues, by `analyze spectrum`."""

from __future__ import annotations

from bars.calibration.base import NULLS, Errors, Null, Subject


def negative(seed: int) -> Errors:
    """Eigenvalues of which none is negative beyond those near zero: half a percent that is called so is an error."""
    from nulls.spectrum import GRID, flat

    from dynalab.analysis import spectrum

    largest, shares = flat(range(100 * seed, 100 * seed + 100))
    rows = [spectrum.read(0, *row, GRID, 0.01) for row in zip(largest.tolist(), shares, strict=True)]
    return {"spectrum: negative share": [row.negative > 0.005 for row in rows]}


SUBJECT = Subject(
    "spectrum",
    [Null("spectra without negative eigenvalues, a hundred at once", negative, NULLS // 100)],
    ("dynalab/analysis/spectrum.py", "dynalab/curvature", "tests/nulls/spectrum.py"),
)
