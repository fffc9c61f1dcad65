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


class Columns:
    """Columns of numbers, (k, n), that grow at their end, with room to spare."""

    def __init__(self, values: np.ndarray) -> None:
        """Copy the first values, (k, n)."""
        self._held, self._n = np.array(values), values.shape[1]

    @property
    def now(self) -> np.ndarray:
        """The values so far, a view."""
        return self._held[:, : self._n]

    def grow(self, n: int) -> np.ndarray:
        """Make room for n more, which have no value yet, and return all."""
        more = self._n + n
        if more > self._held.shape[1]:
            room = np.empty((len(self._held), 2 * more), self._held.dtype)
            room[:, : self._n] = self.now
            self._held = room
        self._n = more
        return self.now


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
        self._xy = Columns(np.asarray(corners, float).T)
        start, outside = np.arange(n), np.full(n, -1)
        # Start, end, the faces to the left and to the right (-1: outside), label.
        self._edges = Columns(np.stack([start, (start + 1) % n, 0 * start, outside, outside]))
        self.n_faces, self._most = 1, most

    @property
    def xy(self) -> np.ndarray:
        """Where the vertices are, shape (V, 2)."""
        return self._xy.now.T

    @property
    def ends(self) -> np.ndarray:
        """The vertices where every edge starts and ends, shape (2, E)."""
        return self._edges.now[:2]

    @property
    def sides(self) -> np.ndarray:
        """The faces to the left and to the right of every edge, shape (2, E); -1 is outside."""
        return self._edges.now[2:4]

    @property
    def labels(self) -> np.ndarray:
        """What drew every edge, shape (E,); -1 is the outline."""
        return self._edges.now[4]

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
        start, end, left, right, _ = self._edges.now
        above = values > small
        above_start, above_end = above.take(start), above.take(end)
        mixed = (above_start ^ above_end).nonzero()[0]
        a, b, up = start.take(mixed), end.take(mixed), above_start.take(mixed)
        # Where the boundary of a face, counter-clockwise, leaves what is above and where it comes back.
        of_left, of_right = left.take(mixed), right.take(mixed)
        leaves, enters = np.where(up, of_left, of_right), np.where(up, of_right, of_left)
        point = np.where(up, b, a)
        # Edges of which one end is above and the other below are split; else the other end is where it is zero.
        low = values.take(point) < -small
        clean = low.all()
        split, split_up = mixed, up
        if not clean:
            split, a, b, split_up = mixed[low], a[low], b[low], up[low]
        n, k, n_edges = len(values), len(split), len(start)
        new = np.arange(n, n + k)
        point[low] = new
        back = np.empty(self.n_faces + 1, np.intp)  # the last is outside
        back[enters] = point
        crossed = leaves >= 0
        if not clean:
            crossed &= self._crossed(values < -small, leaves, enters).take(leaves)
            crossed &= back.take(leaves) != point
        faces, leave = leaves[crossed], point[crossed]
        enter = back.take(faces)
        from_a = values.take(a)
        t = from_a / (from_a - values.take(b))
        xy = self._xy.grow(k)
        first = xy.take(a, 1)
        xy[:, n:] = first + t * (xy.take(b, 1) - first)
        edges = self._edges.grow(k + len(faces))
        halves, chords = edges[:, n_edges : n_edges + k], edges[:, n_edges + k :]
        halves[0], halves[1], halves[2:] = new, b, edges[2:].take(split, 1)
        edges[1, split] = new
        ids = np.arange(self.n_faces, self.n_faces + len(faces))
        for row, what in zip(chords, (leave, enter, ids, faces, label), strict=True):
            row[:] = what
        # Of a face that is cut, the part above is a new face.
        above_edge = np.empty(n_edges + k, bool)
        np.logical_or(above_start, above_end, out=above_edge[:n_edges])
        above_edge[split] = split_up
        above_edge[n_edges:] = ~split_up
        cut = np.zeros(self.n_faces + 1, bool)
        cut[faces] = True
        becomes = back
        becomes[faces] = ids
        for side in edges[2:4, : n_edges + k]:
            own = (cut.take(side, mode="wrap") & above_edge).nonzero()[0]
            side[own] = becomes.take(side.take(own))
        self.n_faces += len(faces)
        return Born(a, b, t)

    def _crossed(self, below: np.ndarray, leaves: np.ndarray, enters: np.ndarray) -> np.ndarray:
        """Return which faces are crossed where some vertices are on the line, shape (K + 1,).

        A face that only touches it has nothing below; one that is thinner than what is small may seem to leave twice.
        """
        crossed = np.zeros(self.n_faces + 1, bool)
        some = below.take(self.ends).any(0)
        crossed[self.sides[:, some]] = True
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
        self._xy = Columns(self._xy.now[:, left])
        sides = np.where(sides < 0, -1, of[sides])
        self._edges = Columns(np.concatenate([ends.reshape(2, -1), sides, labels[None]]))
        return left
