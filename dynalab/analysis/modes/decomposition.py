"""The modes of a run from its stored weights, without holding them: two passes over blocks of weights.

The first gathers the sample that is clustered and the inner products of snapshots, the second what each weight has to
do with the references. These are found without every fourth snapshot; slopes and offsets are fitted without it, to be
asked for it, and with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Run
from dynalab.analysis.modes.settings import MODES, Setting
from dynalab.analysis.stored import Shapes, Tables
from dynalab.core.modes import Clusters, sample

# The draw of the sample: the same for every run, so that what differs is its weights.
_DRAW = 0x6D6F646573
# One snapshot in so many is held out.
HELD_OUT = 4
# Share of the variance there by which a smaller number may be worse than the best.
WITHIN = 0.01


@dataclass(frozen=True)
class Gathered:
    """What the first pass over a run's snapshots gives; rows from where they are no longer finite on are left out.

    Attributes:
        tables: The snapshots.
        places: Of the weights that were sampled, shape (K,).
        rows: Their paths, shape (T, K).
        gram: Inner products of all snapshots less the first, shape (T, T).
        weights: How many there are.
    """

    tables: Tables
    places: np.ndarray
    rows: np.ndarray
    gram: np.ndarray
    weights: int

    @classmethod
    def of(cls, run: Run, shapes: Shapes, steps: Sequence[int], sampled: int) -> Gathered:
        """Read the snapshots of some steps once."""
        tables = Tables(run, steps, shapes.sizes)
        sizes = [rows * width for rows, width in shapes.sizes.values()]
        places = sample(sizes, sampled, np.random.default_rng(_DRAW))
        gram, picked, first = np.zeros((len(steps), len(steps))), [], 0
        # What is not finite is cut off below.
        with np.errstate(all="ignore"):
            for table, _ in tables.blocks():
                last = first + table.shape[1]
                picked.append(table[:, places[(places >= first) & (places < last)] - first])
                away = table - table[0]
                gram += away @ away.T
                first = last
        bad = np.flatnonzero(~np.isfinite(np.diag(gram)))
        n = int(bad[0]) if len(bad) else len(steps)
        return cls(tables, places, np.concatenate(picked, axis=1)[:n], gram[:n, :n], first)

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Return paths along the principal components, columns of norm 1, (T, T), and their shares of the variance."""
        centred = self.gram - self.gram.mean(axis=0)
        centred = centred - centred.mean(axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(centred)
        values = np.maximum(values[::-1], 0.0)
        return vectors[:, ::-1], values / (values.sum() or 1.0)


@dataclass(frozen=True)
class Members:
    """Weights of a tensor in each of M modes."""

    count: np.ndarray  # shape (M,)
    correlation: np.ndarray  # sum of their absolute correlations with the reference, shape (M,)


@dataclass(frozen=True)
class Decomposition:
    """The modes of a run, for every number of them that is tried (C).

    Attributes:
        references: Of each number the places in the sample of its references, shapes (M,).
        r2: Share of the variance of the weights over the snapshots, shape (C,).
        errors: Squared errors at the snapshots that were held out, shape (C, H).
        variance: What the weights' means over the others have there, shape (H,).
        members: Of each number, tensor -> the weights in each mode.
        networks: What every setting comes to at the last snapshot, (A, N), float32; None where it is not asked for.
    """

    references: list[np.ndarray]
    r2: np.ndarray
    errors: np.ndarray
    variance: np.ndarray
    members: list[dict[str, Members]]
    networks: np.ndarray | None

    def chosen(self) -> int:
        """Return the place of the smallest number that is about as good as the best at what was held out.

        By one standard error of the difference over the snapshots, or a hundredth of the variance: where every weight
        moves a little on its own, more modes hold more up to the last.
        """
        gaps = self.errors - self.errors[self.errors.sum(axis=1).argmin()]
        held = gaps.shape[1]
        errors = gaps.std(axis=1, ddof=1) / np.sqrt(held) if held > 1 else np.zeros(len(gaps))
        enough = np.maximum(errors, WITHIN * self.variance.mean())
        return int(np.flatnonzero(gaps.mean(axis=1) <= enough)[0])

    @property
    def heldout_r2(self) -> np.ndarray:
        """Share of the variance at the snapshots that were held out, shape (C,)."""
        total = self.variance.sum()
        return 1 - self.errors.sum(axis=1) / total if total > 0 else np.zeros(len(self.errors))


class References:
    """The references of every number of modes, and their paths as they are fitted to some of the snapshots.

    Args:
        rows: Paths of the sample, shape (T, K).
        fitted: Which snapshots slopes and offsets are fitted to, shape (T,).
        of: Of each number, the places of its references in the sample.

    Attributes:
        of: Likewise.
        paths: Paths of all of these, about their means and with norm 1 over the snapshots that are fitted, (T, U).
        among: Of each number, where its references are among these.
    """

    def __init__(self, rows: np.ndarray, fitted: np.ndarray, of: Sequence[np.ndarray]) -> None:
        self.of, self.fitted = of, fitted
        every, where = np.unique(np.concatenate(of), return_inverse=True)
        self.among = np.split(where, np.cumsum([len(own) for own in self.of])[:-1])
        away = rows[:, every] - rows[0, every]
        away = away - away[fitted].mean(axis=0)
        norms = np.sqrt((away[fitted] ** 2).sum(axis=0))
        self.paths = away / np.where(norms > 0, norms, 1.0)

    def products(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return paths (T, b) about their means over what is fitted, norms (b,) there, and products with all (U, b)."""
        away = table - table[0]
        away -= away[self.fitted].mean(axis=0)
        own = away if self.fitted.all() else away[self.fitted]
        return away, np.sqrt(np.einsum("tb,tb->b", own, own)), self.paths[self.fitted].T @ own


def decompose(
    gathered: Gathered,
    counts: Sequence[int],
    settings: Sequence[Setting],
    components: np.ndarray,
) -> Decomposition:
    """Return the modes of a run; see `Decomposition`.

    Args:
        gathered: Of the first pass.
        counts: Numbers of modes that are tried.
        settings: What networks are made of, modes among them; none: no network is made.
        components: As in `Setting.shares`.
    """
    rows, n = gathered.rows, len(gathered.rows)
    held = np.arange(n) % HELD_OUT == HELD_OUT // 2
    clusters = Clusters(rows[~held])
    of_each = [clusters.references(count) for count in counts]
    every, others = (References(rows, fitted, of_each) for fitted in (np.ones(n, bool), ~held))
    shares = np.array([s.shares(n, components) for s in settings if s.method != MODES])
    explained, total = np.zeros(len(counts)), 0.0
    errors, variance = np.zeros((len(counts), held.sum())), np.zeros(held.sum())
    members: list[dict[str, Members]] = [{} for _ in counts]
    networks = np.empty((len(settings), gathered.weights), np.float32) if settings else None
    first = 0
    for table, tensors in gathered.tables.blocks(n):
        away, norms, products = every.products(table)
        here = slice(first, first + table.shape[1])
        if networks is not None:
            networks[: len(shares), here] = shares @ table
        for place, (sampled, among) in enumerate(zip(every.of, every.among, strict=True)):
            of, own = _strongest(products[among], gathered.places[sampled] - first)
            explained[place] += float((own**2).sum())
            moving = norms > 0
            alike = np.divide(np.abs(own), norms, out=np.zeros(len(own)), where=moving)
            for name, columns in tensors:
                one = of[columns][moving[columns]]
                found = [
                    np.bincount(one, weights, len(among))
                    for weights in (None, alike[columns][moving[columns]])
                ]
                before = members[place].get(name)
                both = found if before is None else [before.count + found[0], before.correlation + found[1]]
                members[place][name] = Members(*both)
            if networks is not None:
                middle = table[-1] - away[-1]
                networks[len(shares) + place, here] = middle + own * every.paths[-1, among][of]
        total += float((norms**2).sum())
        away, _, products = others.products(table)
        variance += (away[held] ** 2).sum(axis=1)
        for place, (sampled, among) in enumerate(zip(others.of, others.among, strict=True)):
            of, own = _strongest(products[among], gathered.places[sampled] - first)
            told = others.paths[held][:, among][:, of] * own
            errors[place] += ((away[held] - told) ** 2).sum(axis=1)
        first += table.shape[1]
    return Decomposition(of_each, explained / (total or 1.0), errors, variance, members, networks)


def _strongest(products: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mode of each of b weights and its product with the mode's reference, both (b,).

    Args:
        products: With all references, shape (M, b).
        references: Where these are among the weights, shape (M,); one beyond them is in another block.
    """
    of = np.abs(products).argmax(axis=0)
    inside = np.flatnonzero((references >= 0) & (references < len(of)))
    # Of references that correlate fully each keeps its own.
    of[references[inside]] = inside
    return of, np.take_along_axis(products, of[None], axis=0)[0]
