"""How often every p-value and interval that is printed errs where there is nothing to find: a file a subject.

The null runs are those of `tests/nulls`: cut off, of unequal lengths, with ties on the grid, of several settings. A
p-value errs below .05, an interval where it misses what it is of. The suite asks the same of each statistic
(`test_calibration.py`, with fewer permutations); here the whole analysis is asked as well, from metrics to p-values.
"""

from __future__ import annotations

import importlib
import pkgutil

from bars.calibration.base import Subject

SUBJECTS: list[Subject] = [
    importlib.import_module(f"bars.calibration.{item.name}").SUBJECT
    for item in pkgutil.iter_modules(__path__)
    if item.name != "base"
]
STATISTICS = [null for subject in SUBJECTS for null in subject.statistics]
BARS = [subject.bar() for subject in SUBJECTS]
