"""By how much a setting is right on more examples than another, where examples are a sample as well as seeds.

Two claims are told apart. On this test set: the examples are these, and other seeds of the two settings would differ
as these do. On new examples: another test set, drawn as this one was, would have it too. The error of a difference of
mean accuracies has three parts: what sets the seeds of a setting apart, which more seeds take away; what the settings
are right on in common with none but their own seeds, which more examples take away and seeds do not; and the luck of
single runs on single examples, which either takes away. The first and the third make the error of the first claim,
all three that of the second.

They are those of a crossed design (Owen 2007, arXiv 0712.1111), estimated by moments, without bias: with y_si what
example i adds to the accuracy of run s, less its mean, the mean over pairs of runs s != t of a setting of sum_i y_si
y_ti is the variance that examples give to that setting's mean were its runs without number, and the same over runs of
two settings is what these have in common. Runs that hold out examples of their own are in it: what they do not share
has no product. Degrees of freedom are Satterthwaite's, of examples from the contributions of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.compare.pairs import Gap, between_values
from dynalab.analysis.compare.samples import Values
from dynalab.core.means import OPEN, Bounds
from dynalab.core.survival import LEVEL


@dataclass(frozen=True)
class Answers:
    """The runs of a setting at one step.

    Attributes:
        labels: Of the S runs.
        right: Whether a run is right on an example, False where it was not tested on it, shape (S, N).
        held: Whether it was tested on it, (S, N); every run on two examples or more.
    """

    labels: tuple[str, ...]
    right: np.ndarray
    held: np.ndarray

    @property
    def values(self) -> Values:
        """The accuracies, shape (S,)."""
        return Values(self.labels, self.right.sum(1) / self.held.sum(1))

    def on(self, examples: np.ndarray) -> Answers:
        """Return the runs on some of the examples, (N,) bool; those with fewer than two of them are left out."""
        right, held = self.right[:, examples], self.held[:, examples]
        kept = held.sum(1) > 1
        labels = tuple(label for label, keep in zip(self.labels, kept, strict=True) if keep)
        return Answers(labels, right[kept], held[kept])

    def of(self, labels: Sequence[str]) -> Answers:
        """Return some of the runs, in this order."""
        rows = [self.labels.index(label) for label in labels]
        return Answers(tuple(labels), self.right[rows], self.held[rows])

    @property
    def added(self) -> np.ndarray:
        """What each example adds to the accuracies, less its mean there, shape (S, N)."""
        sizes = self.held.sum(1, keepdims=True).astype(float)
        mean = self.right.sum(1, keepdims=True) / sizes
        return np.asarray((self.right - mean * self.held) / np.sqrt(sizes * (sizes - 1)))


@dataclass(frozen=True)
class Errors:
    """Variance of a mean over runs and examples, by what it comes from.

    Attributes:
        seeds: From what sets runs apart whatever the examples.
        examples: From the number of examples, were the runs without number.
        both: From the luck of single runs on single examples.
        freedom: Degrees of freedom of the sum.
    """

    seeds: float
    examples: float
    both: float
    freedom: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.seeds + self.examples + self.both

    def reach(self) -> float:
        """Return half the width of the 95% interval; 0 where nothing varies."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 1 - LEVEL / 2)) * math.sqrt(self.total) if self.total > 0 else 0.0

    def p(self, estimate: float) -> float:
        """Return the p of an estimate, two-sided."""
        from scipy.special import stdtr

        if self.total <= 0:
            return 1.0
        return min(1.0, 2 * float(stdtr(self.freedom, -abs(estimate) / math.sqrt(self.total))))


@dataclass(frozen=True)
class Difference:
    """How much more the runs of a second setting are right on than those of the first.

    Attributes:
        here: On this test set: the comparison of the accuracies.
        errors: Of the difference on new examples.
        interval: 95% interval of it there, nowhere narrower than on this test set, and none where there is none.
        p: Two-sided, never below that on this test set.
    """

    here: Gap
    errors: Errors
    interval: Bounds
    p: float


def difference(one: Answers, other: Answers, n_pairs: int = 1) -> Difference | None:
    """Compare two settings, `n_pairs` in all; None of fewer than two runs of either."""
    if min(len(one.labels), len(other.labels)) < 2:
        return None
    gap = between_values(one.values, other.values, n_pairs)
    assert gap.estimate is not None
    if gap.paired:
        one, other = together(one, other)
        errors = errors_of([(other.values.values - one.values.values, other.added - one.added)])
    else:
        errors = errors_of([(item.values.values, item.added) for item in (other, one)])
    reach = errors.reach()
    low, high = gap.interval
    if low is not None and high is not None:
        reach = max(reach, (high - low) / 2)
    # Where seeds are at an end it is not known by how much they vary, whatever examples do.
    interval = OPEN if gap.interval == OPEN else (gap.estimate - reach, gap.estimate + reach)
    return Difference(gap, errors, interval, max(errors.p(gap.estimate), gap.p))


def together(one: Answers, other: Answers) -> tuple[Answers, Answers]:
    """Return the runs that have a label in both settings, in the order of the first."""
    labels = [label for label in one.labels if label in other.labels]
    return one.of(labels), other.of(labels)


def errors_of(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Errors:
    """Return the errors of a mean, or of a first less a second.

    Args:
        rows: For each mean the values of its runs, (S,), and what examples add to them, (S, N).
    """
    spreads, alike, luck = [], [], 0.0
    for values, added in rows:
        n, squares = len(values), (added**2).sum(0)
        spreads.append(float(values.var(ddof=1)) / n)
        alike.append((added.sum(0) ** 2 - squares) / (n * (n - 1)))
        luck += (float(squares.sum()) / n - float(alike[-1].sum())) / n
    # What each example gives to the variance that is left with runs without number.
    given = np.sum(alike, axis=0)
    if len(rows) > 1:
        given = given - 2 * np.prod([added.mean(0) for _, added in rows], axis=0)
    seen, both, examples = sum(spreads), max(luck, 0.0), max(float(given.sum()), 0.0)
    seeds = max(seen - both, 0.0)
    total = seeds + both + examples
    own = sum(spread**2 / (len(values) - 1) for spread, (values, _) in zip(spreads, rows, strict=True))
    # Satterthwaite's of the spreads, at the size that they are taken to have.
    scale = (seeds + both) / seen if seen > 0 else 0.0
    unsure = 2 * own * scale**2 + float(((given - given.mean()) ** 2).sum())
    return Errors(seeds, examples, both, 2 * total**2 / unsure if unsure > 0 else math.inf)
