"""Runs whose phases set in, and that reach landmarks, some after what is seen of them; curves in noise."""

from __future__ import annotations

from functools import cache

import numpy as np
from nulls.alike import alike

from dynalab.analysis.base import Group
from dynalab.analysis.regions.findings import Around, RunFindings
from dynalab.analysis.regions.phases import Phase

LENGTH = 1000
# Law -> mean steps of the onset and of the landmark, and what they have in common.
LAWS = {
    "all are seen": (400.0, 500.0, 0.0),
    "a third of the ascents come too late": (920.0, 500.0, 0.0),
    "late runs are late in both": (800.0, 900.0, 0.9),
}


def _latent(law: str, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    *means, share = LAWS[law]
    drawn = alike(runs, share, seed)
    onset, landmark = (mean + 200 * own for mean, own in zip(means, drawn, strict=True))
    return np.maximum(onset, 10), np.maximum(landmark, 10)


@cache
def lag(law: str) -> float:
    """Return the median over all runs of the onset of the ascent less the landmark."""
    onset, landmark = _latent(law, 1_000_001, 0)
    return float(np.median(onset - landmark))


def runs(law: str, n: int, seed: int) -> list[RunFindings]:
    """Return runs whose ascent is seen where it sets in before training ends, after a descent that all have."""
    found = []
    for place, (onset, landmark) in enumerate(zip(*_latent(law, n, seed + 1), strict=True)):
        at = min(int(onset), LENGTH)
        seen = onset < LENGTH
        # Where the next phase is not seen the descent comes to some row before.
        end = at if seen else LENGTH // 2
        descent = Phase(0, (0, 0), end, (end, end), 4.0, 2.0, seen)
        ascent = Phase(at, (at, at), LENGTH, (LENGTH, LENGTH), 2.0, 3.0, False) if seen else None
        around = Around("", "", 4.0, 2.0, 4.0, 3.0, None, None, descent, ascent, None, (), 0.0)
        reached = int(landmark) if landmark <= LENGTH else None
        found.append(
            RunFindings(
                f"e/s{place:04d}", "", "", None, last_step=LENGTH, memorised_step=reached, train=around
            )
        )
    return found


# Mean shares of training after which curves rise and the level is reached, how far runs lie around, and the noise.
RISES, REACHES, APART, NOISE = 0.4, 0.3, 0.05, 0.1


def autocorrelated(share: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return noise of deviation 1, of which neighbours along the last axis correlate by a share."""
    noise = rng.normal(size=shape)
    for row in range(1, shape[1]):
        noise[:, row] = share * noise[:, row - 1] + np.sqrt(1 - share**2) * noise[:, row]
    return noise


def rising(n: int, rows: int, share: float, seed: int) -> tuple[Group, np.ndarray]:
    """Return runs whose curves are flat, then rise to three times as much, in such noise, and the rows they rise from.

    With rows 1 + 20 m the medians of these rows, and of those that reach the level, are known.
    """
    rng = np.random.default_rng([seed, n, rows])
    last = rows - 1
    onsets, reached = (
        np.clip(np.round(last * (at + APART * rng.normal(size=n))), 1, last - 1) for at in (RISES, REACHES)
    )
    noise, places = NOISE * autocorrelated(share, (n, rows), rng), np.arange(rows)
    columns = {
        f"s{run:04d}": {
            "local_complexity_train": np.interp(places, [0, onsets[run], last], [1.0, 1.0, 3.0]) + noise[run],
            "train_accuracy": (places >= reached[run]).astype(float),
        }
        for run in range(n)
    }
    levels = {"levels": {"train_accuracy": 0.99, "test_accuracy": 0.99}}
    return Group.of(columns, places, config=levels), onsets
