"""What a spike was: the causes are tried in a fixed order, and the first whose evidence holds names it.

1. `data`: the loss ends in NaN or infinity, the rate changed, or a batch was odd (only the batch's loss spikes).
2. `slingshot`: accuracy 1 before, losses of exactly 0, an adaptive optimizer with a small epsilon, and the norm's cycle
   of growth and plateau. A channel that was not recorded is taken to hold, and is listed; the norm's cycle has to be
   seen. All but the cycle: `spike_without_norm_cycle`.
3. `bn_wd_period`: scale-invariant weights under weight decay, whose log norm fell by the rate times the decay a step.
4. `edge_spike`: sharpness at its threshold before the spike (edge ratio of 1 or more).
5. `adam_lag`: curvature along the gradient above the threshold while the second moment lags behind the gradient (Bai et
   al. 2025, arXiv 2506.04805).
6. `unknown`.

The mechanism of 2 is that of Liu et al. 2026 (arXiv 2605.06152).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.analysis.slingshot.norms import Cycle
from dynalab.core.runs import Series
from dynalab.core.stats import theil_sen

if TYPE_CHECKING:
    from dynalab.analysis.slingshot import Config

ADAPTIVE = ("adam", "adamw", "rmsprop", "nadam", "adamax", "adagrad")
# How far the slope of a scale-invariant norm may be from the rate times the decay.
DECAY_TOLERANCE = 0.15
# Mean square of the gradient before the spike over its second moment's window, below which the moment lags.
LAG = 0.1


@dataclass(frozen=True)
class Evidence:
    """What is known around one spike."""

    onset: float  # step of its onset
    peak: float  # step of its peak
    window: float  # steps before it that count as before
    channels: Mapping[str, Series]  # channel -> its series over the whole run, those that were recorded
    cycle: Cycle  # what the norm did
    optimizer: Mapping[str, Any]  # the optimizer's section of the configuration; empty where it is not known
    rates: tuple[float, ...] = ()  # steps at which the rate changed
    ended: bool = False  # whether the run's loss ended in NaN or infinity during this spike
    full_batch: bool | None = None  # whether updates see all examples; None where it is not known
    # Share by which weight decay shrinks weights, a step, at the rows of `scale_invariant_norm`; None where that is
    # not known.
    decay: np.ndarray | None = None

    def before(self, name: str) -> np.ndarray | None:
        """Return a channel's values in the window before the onset; its last value before where there is none."""
        if name not in self.channels:
            return None
        channel = self.channels[name]
        earlier = channel.values[channel.steps < self.onset]
        some = int((channel.steps[: len(earlier)] >= self.onset - self.window).sum())
        return earlier[-max(some, 1) :] if len(earlier) else None


@dataclass(frozen=True)
class Named:
    """A spike's name."""

    kind: str  # one of the kinds of the module
    confidence: float  # share of the evidence for the kind that was recorded, and holds
    reason: str  # in words


def name(evidence: Evidence, config: Config) -> Named:
    """Say what a spike was."""
    for test in (_data, _slingshot, _decay, _edge, _lag):
        if named := test(evidence, config):
            return named
    unseen = "zero_loss_fraction" not in evidence.channels and adaptive(evidence) is not False
    if evidence.cycle.verdict is False and unseen:
        why = "the norm of the last layer does not grow and stand still"
        return Named("spike_without_norm_cycle", 1 / 6, why)
    return Named("unknown", 0.0, "no recorded channel explains it")


def adaptive(evidence: Evidence) -> bool | None:
    """Whether the optimizer divides by a second moment; None where it is not known."""
    label = evidence.optimizer.get("inner") or evidence.optimizer.get("name")
    return None if label is None else str(label) in ADAPTIVE


def _data(evidence: Evidence, config: Config) -> Named | None:
    if evidence.ended:
        return Named("data", 1.0, "the loss became NaN or infinite")
    if any(evidence.onset - evidence.window / 4 <= rate <= evidence.peak for rate in evidence.rates):
        return Named("data", 1.0, "the learning rate changed")
    if evidence.full_batch is False and "train_loss" in evidence.channels:
        around = evidence.channels["train_loss"].between(evidence.onset, evidence.peak + 1)
        base = evidence.before("train_loss")
        if len(around) and base is not None and np.nanmax(around) < 3 * np.median(base):
            return Named("data", 0.5, "the batch's loss rose, that of the training set did not")
    return None


def _slingshot(evidence: Evidence, config: Config) -> Named | None:
    divides, eps = adaptive(evidence), evidence.optimizer.get("eps")
    small = None if eps is None or not divides else float(eps) <= config.eps
    accuracy, zeros = (evidence.before(channel) for channel in ("train_accuracy", "zero_loss_fraction"))
    fitted = None if accuracy is None else bool(np.median(accuracy) >= 1.0)
    rounded = None if zeros is None else bool(np.median(zeros) >= config.zero_fraction)
    checks = (divides, small, fitted, rounded)
    if False in checks:
        return None
    known = checks.count(True)
    if evidence.cycle.verdict:
        # The rise of the loss and the norm's cycle are seen.
        why = "the norm of the last layer grows before and stands still after"
        return Named("slingshot", (known + 2) / 6, why)
    if rounded:
        state = "cannot be told" if evidence.cycle.verdict is None else "is not there"
        why = f"losses are rounded to 0, the norm's cycle {state}"
        return Named("spike_without_norm_cycle", (known + 1) / 6, why)
    return None


def _decay(evidence: Evidence, config: Config) -> Named | None:
    norm = evidence.channels.get("scale_invariant_norm")
    if norm is None or evidence.decay is None:
        return None
    steps, values = norm.steps, norm.values
    # Just before a jump the gradient has grown and holds the norm up; before its maximum lies the jump before.
    some = (steps >= evidence.onset - 5 * evidence.window) & (steps <= evidence.onset - evidence.window / 2)
    rows = np.flatnonzero(some & (values > 0))
    rows = rows[int(np.argmax(values[rows])) :] if len(rows) else rows
    if len(rows) < 4:
        return None
    slope, _ = theil_sen(steps[rows], np.log(values[rows]))
    expected = -float(evidence.decay[rows].mean())
    if abs(slope / expected - 1) > DECAY_TOLERANCE:
        return None
    why = f"the scale-invariant norm fell by {-slope:.3g} a step, rate times decay is {-expected:.3g}"
    return Named("bn_wd_period", 1.0, why)


def _edge(evidence: Evidence, config: Config) -> Named | None:
    ratio = evidence.before("edge_ratio")
    if ratio is None or not np.nanmax(ratio[-5:]) >= 1.0:
        return None
    return Named("edge_spike", 1.0, f"the edge ratio was {np.nanmax(ratio[-5:]):.2f} before")


def _lag(evidence: Evidence, config: Config) -> Named | None:
    along, threshold = evidence.before("gradient_curvature"), evidence.before("stability_threshold")
    gradient = evidence.before("grad_norm")
    if along is None or threshold is None or gradient is None or not adaptive(evidence):
        return None
    lags = float(gradient[-1] ** 2) < LAG * float(np.mean(gradient**2))
    if not lags or not np.nanmax(along[-5:]) > threshold[-1]:
        return None
    why = "curvature along the gradient exceeds the threshold while the second moment lags"
    return Named("adam_lag", 1.0, why)
