"""A plane cut into convex faces by the zero sets of functions that are affine on every face.

Vertices and edges of the planar graph are kept once, with the faces on either side of an edge. A cut by one function
splits the edges that it changes its sign on, and joins the two new vertices of every face that it crosses by a chord;
all faces are cut together. Signs are taken at vertices, which neighbours share, so that faces neither overlap nor leave
gaps, whatever is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.core.errors import ConfigError

# Below this share of the scale a function counts as zero at a vertex.
TOLERANCE = 1e-12


class TooMany(ConfigError):
    """There are more faces than may be."""


class Column:
    """An array that grows at its end, with room to spare."""

    def __init__(self, values: np.ndarray) -> None:
        """Copy the first values, (n, ...)."""
        self._held, self._n = values.copy(), len(values)

    @property
    def now(self) -> np.ndarray:
        """The values so far, a view."""
        return self._held[: self._n]

    def append(self, values: np.ndarray) -> None:
        """Put values (k, ...) behind the others."""
        n = self._n + len(values)
        if n > len(self._held):
            room = np.empty((2 * n, *self._held.shape[1:]), self._held.dtype)
            room[: self._n] = self.now
            self._held = room
        self._held[self._n : n] = values
        self._n = n


@dataclass(frozen=True)
class Born:
    """The vertices that one function makes: each on an edge from a to b, at a share t of the way, all (n,)."""

    a: np.ndarray
    b: np.ndarray
    t: np.ndarray


def extended(values: np.ndarray, born: Sequence[Born]) -> np.ndarray:
    """Return what is affine along edges, (V, ...), at later vertices as well."""
    n = len(values)
    result = np.empty((n + sum(len(new.t) for new in born), *values.shape[1:]))
    result[:n] = values
    for new in born:
        first, t = result.take(new.a, 0), new.t.reshape(-1, *[1] * (values.ndim - 1))
        result[n : n + len(t)] = first + t * (result.take(new.b, 0) - first)
        n += len(t)
    return result


class Mesh:
    """Convex faces that fill a convex polygon.

    Attributes:
        n_faces: Their number, K.
    """

    def __init__(self, corners: np.ndarray, most: int | None = None) -> None:
        """Begin with one face.

        Args:
            corners: Of the polygon, counter-clockwise, shape (n, 2).
            most: Faces at most; None: as many as there are.
        """
        n = len(corners)
        self._xy = Column(np.asarray(corners, float))
        # From a start to an end; a face on the left, another on the right, or -1.
        self._start, self._end = Column(np.arange(n)), Column((np.arange(n) + 1) % n)
        self._left, self._right = Column(np.zeros(n, np.intp)), Column(np.full(n, -1))
        self._label = Column(np.full(n, -1))
        self.n_faces, self._most = 1, most

    @property
    def xy(self) -> np.ndarray:
        """Where the vertices are, shape (V, 2)."""
        return self._xy.now

    @property
    def ends(self) -> np.ndarray:
        """The vertices where every edge starts and ends, shape (2, E)."""
        return np.stack([self._start.now, self._end.now])

    @property
    def sides(self) -> np.ndarray:
        """The faces to the left and to the right of every edge, shape (2, E); -1 is outside."""
        return np.stack([self._left.now, self._right.now])

    @property
    def labels(self) -> np.ndarray:
        """What drew every edge, shape (E,); -1 is the outline."""
        return self._label.now.copy()

    def cut(self, values: np.ndarray, scale: float, label: int) -> list[Born]:
        """Cut every face along the zero sets of some functions, one after another.

        Args:
            values: Of m functions, affine on every face, at the vertices, shape (V, m).
            scale: Of the functions; what is small is measured by it.
            label: Of the edges that are drawn.

        Returns:
            The new vertices, in their order.

        Raises:
            TooMany: There are more faces than may be.
        """
        small = TOLERANCE * scale
        # New vertices lie between old ones: a function that does not change its sign at these does so nowhere.
        crossing = np.flatnonzero((values.min(0) < -small) & (values.max(0) > small))
        n = len(values)
        held = np.empty((len(crossing), 2 * n + 64))
        held[:, :n] = values[:, crossing].T
        born = []
        for place in range(len(crossing)):
            new = self._cut(held[place, :n], small, label)
            if self._most is not None and self.n_faces > self._most:
                raise TooMany(f"the slice has more than {self._most:,} regions; take a smaller one")
            k = len(new.t)
            if n + k > held.shape[1]:
                room = np.empty((len(held), 2 * (n + k)))
                room[:, :n] = held[:, :n]
                held = room
            rest = held[place + 1 :]
            first = rest.take(new.a, 1)
            rest[:, n : n + k] = first + new.t * (rest.take(new.b, 1) - first)
            n += k
            born.append(new)
        return born

    def _cut(self, values: np.ndarray, small: float, label: int) -> Born:
        """Cut by one function, given at the vertices, shape (V,)."""
        start, end, left, right = (it.now for it in (self._start, self._end, self._left, self._right))
        above = values > small
        above_start, above_end = above.take(start), above.take(end)
        mixed = np.flatnonzero(above_start != above_end)
        a, b, up = start.take(mixed), end.take(mixed), above_start.take(mixed)
        low = values.take(np.where(up, b, a)) < -small
        # Edges of which one end is above and the other below are split; else the other end is where it is zero.
        split, a, b, split_up = mixed[low], a[low], b[low], up[low]
        from_a = values.take(a)
        t = from_a / (from_a - values.take(b))
        new = np.arange(len(values), len(values) + len(t))
        point = np.where(up, end.take(mixed), start.take(mixed))
        point[low] = new
        # Where the boundary of a face, counter-clockwise, leaves what is above and where it comes back.
        of_left, of_right = left.take(mixed), right.take(mixed)
        leaves, enters = np.where(up, of_left, of_right), np.where(up, of_right, of_left)
        back = np.empty(self.n_faces + 1, np.intp)  # the last is outside
        back[enters] = point
        crossed = leaves >= 0
        if not low.all():
            crossed &= self._crossed(values < -small, leaves, enters).take(leaves)
            crossed &= back.take(leaves) != point
        faces, leave = leaves[crossed], point[crossed]
        enter = back.take(faces)
        xy = self.xy
        first = xy.take(a, 0)
        self._xy.append(first + t[:, None] * (xy.take(b, 0) - first))
        above_edge = above_start | above_end
        above_edge[split] = split_up
        above_edge = np.concatenate([above_edge, ~split_up])
        end[split] = new
        self._append(new, b, left.take(split), right.take(split), self._label.now.take(split))
        # Of a face that is cut, the part above is a new face.
        cut = np.zeros(self.n_faces + 1, bool)
        cut[faces] = True
        ids = np.arange(self.n_faces, self.n_faces + len(faces))
        becomes = back
        becomes[faces] = ids
        for side in (self._left.now, self._right.now):
            own = np.flatnonzero(cut.take(side, mode="wrap") & above_edge)
            side[own] = becomes.take(side.take(own))
        self._append(leave, enter, ids, faces, np.full(len(faces), label))
        self.n_faces += len(faces)
        return Born(a, b, t)

    def _append(self, *columns: np.ndarray) -> None:
        own = (self._start, self._end, self._left, self._right, self._label)
        for column, values in zip(own, columns, strict=True):
            column.append(values)

    def _crossed(self, below: np.ndarray, leaves: np.ndarray, enters: np.ndarray) -> np.ndarray:
        """Return which faces are crossed where some vertices are on the line, shape (K + 1,).

        A face that only touches it has nothing below; one that is thinner than what is small may seem to leave twice.
        """
        crossed = np.zeros(self.n_faces + 1, bool)
        some = np.flatnonzero(below.take(self._start.now) | below.take(self._end.now))
        for side in (self._left.now, self._right.now):
            crossed[side.take(some)] = True
        for faces in (leaves, enters):
            crossed[:-1] &= np.bincount(faces[faces >= 0], minlength=self.n_faces) == 1
        return crossed

    def join(self, needless: np.ndarray) -> np.ndarray:
        """Remove some edges, given by their places.

        Returns:
            Which of the vertices are left, in their order.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = self.sides[:, needless]
        graph = coo_array((np.ones(len(needless)), (pairs[0], pairs[1])), shape=(self.n_faces, self.n_faces))
        self.n_faces, of = connected_components(graph, directed=False)
        ends, sides, labels = (np.delete(it, needless, -1) for it in (self.ends, self.sides, self.labels))
        left, ends = np.unique(ends, return_inverse=True)
        self._xy = Column(self.xy[left])
        self._start, self._end = map(Column, ends.reshape(2, -1))
        self._left, self._right = map(Column, np.where(sides < 0, -1, of[sides].astype(np.intp)))
        self._label = Column(labels)
        return left
