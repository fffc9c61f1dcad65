"""The shape of a path of weights, and that of a random walk with the same start and the same steps.

Everything follows from squares and inner products: nothing here holds weights. The mean of the cosines between all
pairs of rows up to t, i = j among them, is the squared length of the mean of their unit vectors, which takes O(p T)
and no pairs (Singh et al. 2024, arXiv 2403.07379, call it the mean directional similarity).

A random walk in many dimensions has <d_i, d_j> = V_min(i, j), V_t the sum of its first t squared steps and d_t its
distance from the start: cosines of d are sqrt(V_i / V_j), whose mean is 2/3 for many equal steps, and the first
principal component of the centred walk has 6/pi^2 of the variance. So what is true of a walk in expectation is read off
a path made of these numbers, by the functions that measure any other path. Corrections are of order 1/p: in fewer than
`MANY` dimensions walks are drawn and measured in the place of that. Where few weights make all of the steps, p is in
effect as small as they are few, and the closed form is off by as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Measure = Literal[
    "directional_similarity",
    "relative_similarity",
    "principal_share",
    "update_angle",
    "apex_angle",
    "origin_angle",
    "displacement",
    "tortuosity",
]
# Dimensions from which on the closed form is off by less than half a hundredth.
MANY = 100
# Numbers that are drawn for the walks of a part, and how many of these there are at least and at most.
DRAWN, FEWEST, MOST = 1_000_000, 20, 200


@dataclass(frozen=True)
class Path:
    """A path of n rows of p weights: d_t is its row t less its row 0, u_t its row t less the row before."""

    size: int  # p
    squares: np.ndarray  # squared norm of every row, shape (n,)
    moved: np.ndarray  # squared norm of d_t, shape (n,)
    strides: np.ndarray  # squared norm of u_1, u_2, ..., shape (n - 1,)
    turns: np.ndarray  # <u_t, u_(t+1)>, shape (n - 2,)
    units: np.ndarray  # squared length of the sum of the unit vectors of rows 0 to t, shape (n,)
    relative_units: np.ndarray  # that of the unit vectors of d, shape (n,)
    chosen: np.ndarray  # places of m of the rows, the first and the last among them, shape (m,)
    gram: np.ndarray  # <d_i, d_j> of these, shape (m, m)

    @classmethod
    def of(cls, rows: np.ndarray, chosen: np.ndarray) -> Path:
        """Return the path of rows (n, p)."""
        found, away = norms(rows), rows - rows[0]
        units = summed_units(rows, found["squares"]), summed_units(away, found["moved"])
        return cls(rows.shape[1], **found, units=units[0], relative_units=units[1], chosen=chosen,
                   gram=away[chosen] @ away[chosen].T)  # fmt: skip

    @property
    def directional_similarity(self) -> np.ndarray:
        """Mean directional similarity of the rows up to t, shape (n,); rows that are 0 have no direction."""
        return _mean_cosine(self.units, self.squares)

    @property
    def relative_similarity(self) -> np.ndarray:
        """That of d; NaN up to where the path leaves its start."""
        return _mean_cosine(self.relative_units, self.moved)

    @property
    def length(self) -> np.ndarray:
        """Length of the path up to row t, shape (n,)."""
        return np.concatenate([[0.0], np.cumsum(np.sqrt(self.strides))])

    @property
    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines between the chosen rows, and between their d, both (m, m); NaN of what has no direction."""
        diagonal, squares = np.diag(self.gram), self.squares[self.chosen]
        between = diagonal[:, None] + diagonal - 2 * self.gram
        return _cosines((squares[:, None] + squares - between) / 2, squares), _cosines(self.gram, diagonal)

    def measures(self) -> dict[Measure, float]:
        """Return what is measured of the whole path, by name; NaN where it is not defined. Angles are in degrees."""
        far, length = float(np.sqrt(self.moved[-1])), float(self.length[-1])
        start, end = self.squares[0], self.squares[-1]
        upper = np.triu_indices(len(self.chosen), 1)
        return {
            "directional_similarity": float(self.directional_similarity[-1]),
            "relative_similarity": float(self.relative_similarity[-1]),
            "principal_share": self._principal_share(),
            "update_angle": _mean_angle(_ratio(self.turns, np.sqrt(self.strides[1:] * self.strides[:-1]))),
            "apex_angle": _mean_angle(self.maps[1][upper]),
            "origin_angle": _mean_angle(
                _ratio(np.atleast_1d((start + end - self.moved[-1]) / 2), np.sqrt(start * end))
            ),
            "displacement": far,
            "tortuosity": length / far if far else np.nan,
        }

    def _principal_share(self) -> float:
        """Return the share of the first principal component in the variance of the chosen rows, which are centred."""
        centred = self.gram - self.gram.mean(0) - self.gram.mean(1)[:, None] + self.gram.mean()
        total = np.trace(centred)
        return float(np.linalg.eigvalsh(centred)[-1] / total) if total > 0 else np.nan

    def walk(self) -> Path:
        """Return what is expected of a random walk in many dimensions with this start and steps of these lengths."""
        moved = np.concatenate([[0.0], np.cumsum(self.strides)])
        squares = self.squares[0] + moved
        at = moved[self.chosen]
        return replace(
            self, squares=squares, moved=moved, turns=0.0 * self.turns,
            units=_walked(squares, self.squares > 0), relative_units=_walked(moved, self.moved > 0),
            gram=np.minimum(at[:, None], at),
        )  # fmt: skip

    def null(self) -> tuple[dict[Measure, float], dict[str, np.ndarray]]:
        """Return the measures that are expected of such a walk, and its two similarities up to every row."""
        if self.size >= MANY or not self.strides.any():
            walk = self.walk()
            return walk.measures(), {name: getattr(walk, name) for name in CURVES}
        rng, n = np.random.default_rng(0), len(self.squares)
        draws = int(np.clip(DRAWN // (n * self.size), FEWEST, MOST))
        walks = [self._drawn(rng) for _ in range(draws)]
        measures = [walk.measures() for walk in walks]
        means = {name: float(_mean(np.array([item[name] for item in measures]))) for name in measures[0]}
        # Of a tortuosity in one or two dimensions there is no mean.
        far = means["displacement"]
        means["tortuosity"] = float(self.length[-1]) / far if far else np.nan
        curves = {name: _mean(np.stack([getattr(walk, name) for walk in walks])) for name in CURVES}
        return means, curves

    def _drawn(self, rng: np.random.Generator) -> Path:
        steps = rng.normal(size=(len(self.strides), self.size))
        steps *= np.sqrt(self.strides / _dots(steps, steps))[:, None]
        rows = np.concatenate([np.zeros((1, self.size)), np.cumsum(steps, axis=0)])
        rows[:, 0] += np.sqrt(self.squares[0])
        return Path.of(rows, self.chosen)


CURVES = ("directional_similarity", "relative_similarity")


# By how many each of `norms` is shorter than the rows.
NORMS = {"squares": 0, "moved": 0, "strides": 1, "turns": 2}


def norms(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return those fields of a path that add up over pieces (n, b) of its rows."""
    away, updates = rows - rows[0], np.diff(rows, axis=0)
    found = (_dots(rows, rows), _dots(away, away), _dots(updates, updates), _dots(updates[1:], updates[:-1]))
    return dict(zip(NORMS, found, strict=True))


def summed_units(rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the squared length of the sum of the unit vectors of rows (n, b) up to each, shape (n,).

    `squares`, (n,), are the squared norms of whole rows: what is returned of pieces of them adds up.
    """
    scale = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
    sums = rows * scale[:, None]
    np.cumsum(sums, axis=0, out=sums)
    return _dots(sums, sums)


def choose(n: int, most: int) -> np.ndarray:
    """Return places of at most so many of n rows, evenly, with the first and the last, shape (m,)."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _dots(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", one, other)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(0), known.sum(0).astype(float))


def _mean_angle(cosines: np.ndarray) -> float:
    return float(_mean(np.degrees(np.arccos(np.clip(cosines, -1, 1)))))


def _cosines(products: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return inner products (m, m) divided by the norms; rows that are 0 have NaN."""
    norms = np.sqrt(squares)
    return np.clip(_ratio(products, norms[:, None] * norms), -1, 1)


def _mean_cosine(units: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.minimum(_ratio(units, np.cumsum(squares > 0.0).astype(float) ** 2), 1.0)


def _walked(levels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return `units` of a walk whose cosines are sqrt(levels_i / levels_j), of the rows that count, shape (n,)."""
    roots = np.sqrt(levels) * known
    # Row t adds its own 1 and twice its cosines with the rows before.
    return np.cumsum(np.where(roots > 0, 2 * np.cumsum(roots) / np.where(roots > 0, roots, 1.0) - 1.0, 0.0))
