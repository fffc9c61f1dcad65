"""A plane cut into convex faces by the zero sets of functions that are affine on every face.

Vertices and edges of the planar graph are kept once, with the faces on either side of an edge. A cut by one function
splits the edges that it changes its sign on, and joins the two new vertices of every face that it crosses by a chord;
all faces are cut together. Signs are taken at vertices, which neighbours share, so that faces neither overlap nor leave
gaps, whatever is rounded.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.partition.compiled import installed, kernel

# Below this share of the scale a function counts as zero at a vertex.
TOLERANCE = 1e-12


# Seconds of cuts after which compiled ones are loaded.
LOADING = 1.0
# Start, end, left and right of an edge that is turned round.
TURNED = np.array([1, 0, 3, 2])


class TooMany(ConfigError):
    """There are more faces than may be."""


class Mesh:
    """Convex faces that fill a convex polygon.

    Attributes:
        n_faces: Their number, K.
    """

    # Seconds that meshes of this process have spent on cuts.
    spent: ClassVar[float] = 0.0

    def __init__(self, corners: np.ndarray, most: int | None = None, compiled: bool | None = None) -> None:
        """Begin with one face.

        Args:
            corners: Of the polygon, counter-clockwise, shape (n, 2).
            most: Faces at most; None: as many as there are.
            compiled: Whether cuts are compiled, for which numba has to be there; None: where it is, once this process
                has spent a second on them, so that loading it cannot take longer than what it saves.
        """
        n = len(corners)
        self._xy = np.asarray(corners, float).T
        start, outside = np.arange(n), np.full(n, -1)
        # Start, end, the faces to the left and to the right (-1: outside), label; then room.
        self._edges = np.stack([start, (start + 1) % n, 0 * start, outside, outside])
        self._n_edges = n
        self.n_faces, self._most, self._compiled = 1, most, compiled

    @property
    def xy(self) -> np.ndarray:
        """Where the vertices are, shape (V, 2)."""
        return self._xy.T

    @property
    def ends(self) -> np.ndarray:
        """The vertices where every edge starts and ends, shape (2, E)."""
        return self._edges[:2, : self._n_edges]

    @property
    def sides(self) -> np.ndarray:
        """The faces to the left and to the right of every edge, shape (2, E); -1 is outside."""
        return self._edges[2:4, : self._n_edges]

    @property
    def labels(self) -> np.ndarray:
        """What drew every edge, shape (E,); -1 is the outline."""
        return self._edges[4, : self._n_edges]

    def cut(self, values: np.ndarray, scale: float, label: int, of: int | None = None) -> np.ndarray:
        """Cut every face along the zero sets of some functions, one after another.

        Args:
            values: Of m functions, affine on every face, at the vertices, shape (V, m).
            scale: Of the functions; what is small is measured by it.
            label: Of the edges that are drawn.
            of: How many of them are cut along, from the first on; None: all.

        Returns:
            The values of all of them at the vertices that there are then.

        Raises:
            TooMany: There are more faces than may be.
        """
        small = TOLERANCE * scale
        own = values[:, :of]
        # New vertices lie between old ones: a function that does not change its sign at these does so nowhere.
        crossing = ((own.min(0) < -small) & (own.max(0) > small)).nonzero()[0]
        if not len(crossing):
            return values
        n = len(values)
        held = _roomy(np.concatenate([self._xy, values.T]), n + n // 4 + 64)
        began = time.perf_counter()
        if self._compiled or (self._compiled is None and Mesh.spent > LOADING and installed()):
            most = -1 if self._most is None else self._most
            held, n, self._edges, self._n_edges, self.n_faces = kernel()(
                *(held, n, crossing + 2, small, label, most),
                *(self._edges, self._n_edges, self.n_faces),
            )
            self._bound()
        else:
            held, n = self._cuts(held, n, crossing + 2, small, label)
        Mesh.spent += time.perf_counter() - began
        self._xy = held[:2, :n].copy()
        return held[2:, :n].T

    def _bound(self) -> None:
        if self._most is not None and self.n_faces > self._most:
            raise TooMany(f"the slice has more than {self._most:,} regions; take a smaller one")

    def _cuts(
        self, held: np.ndarray, n: int, rows: np.ndarray, small: float, label: int
    ) -> tuple[np.ndarray, int]:
        """Cut along some rows of columns with room, of which n are taken; return them and how many are taken then."""
        for row in rows.tolist():
            ends, t = self._cut(held[row, :n], small, label)
            self._bound()
            k = len(t)
            if n + k > held.shape[1]:
                held = _roomy(held[:, :n], 2 * (n + k))
            # What is affine on faces is so along edges.
            first, second = held.take(ends[0], 1), held.take(ends[1], 1)
            second -= first
            second *= t
            np.add(first, second, out=held[:, n : n + k])
            n += k
        return held, n

    def _cut(self, values: np.ndarray, small: float, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut by one function, given at the vertices, (V,).

        Returns:
            Of the vertices that it makes, in their order, the two that each lies between, (2, k), and at which share
            of the way from the one to the other, (k,).
        """
        n_edges, faces = self._n_edges, self.n_faces
        ends = self._edges[:2, :n_edges]
        above = (values > small).take(ends)
        mixed = (above[0] ^ above[1]).nonzero()[0]
        edges = self._edges[:4].take(mixed, 1)
        # The end above and the one below; where the boundary of a face, counter-clockwise, leaves what is above and
        # where it comes back.
        up = above[0].take(mixed)
        turned = np.where(up, edges, edges.take(TURNED, 0))
        at, (leaves, enters) = values.take(turned[:2]), turned[2:]
        # Edges of which one end is above and the other below are split; else the other end is where it is zero.
        low = at[1] < -small
        clean, n = low.all(), len(values)
        if clean:
            point = new = np.arange(n, n + len(mixed))
        else:
            point = turned[1].copy()
            mixed, edges, up, turned, at = mixed[low], edges[:, low], up[low], turned[:, low], at[:, low]
            new = np.arange(n, n + len(mixed))
            point[low] = new
        k = len(new)
        back = np.empty(faces + 1, np.intp)  # the last is outside
        back[enters] = point
        crossed = leaves >= 0
        if not clean:
            crossed &= self._crossed(values < -small, leaves, enters).take(leaves)
            crossed &= back.take(leaves) != point
        split = leaves[crossed]
        more = len(split)
        ids = np.arange(faces, faces + more)
        total = n_edges + k + more
        if total > self._edges.shape[1]:
            self._edges = _roomy(self._edges[:, :n_edges], 2 * total)
        halves, chords = self._edges[:, n_edges : n_edges + k], self._edges[:, n_edges + k : total]
        halves[0], halves[1:4] = new, edges[1:]
        halves[4] = self._edges[4].take(mixed)
        self._edges[1, mixed] = new
        chords[0], chords[1], chords[2], chords[3] = point[crossed], back.take(split), ids, split
        chords[4] = label
        # Of a face that is cut, the part above is a new face.
        above_edge = np.empty(n_edges + k, bool)
        np.logical_or(above[0], above[1], out=above_edge[:n_edges])
        above_edge[mixed] = up
        np.logical_not(up, out=above_edge[n_edges:])
        cut = np.zeros(faces + 1, bool)
        cut[split] = True
        becomes = back
        becomes[split] = ids
        for side in self._edges[2:4, : n_edges + k]:
            own = cut.take(side, mode="wrap")
            own &= above_edge
            own = own.nonzero()[0]
            side[own] = becomes.take(side.take(own))
        self.n_faces, self._n_edges = faces + more, total
        return turned[:2], at[0] / (at[0] - at[1])

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
        self._xy = self._xy[:, left]
        sides = np.where(sides < 0, -1, of[sides])
        self._edges = np.concatenate([ends.reshape(2, -1), sides, labels[None]])
        self._n_edges = self._edges.shape[1]
        return left


def _roomy(values: np.ndarray, room: int) -> np.ndarray:
    """Return a copy of columns (m, n) with room for some in all."""
    held = np.empty((len(values), room), values.dtype)
    held[:, : values.shape[1]] = values
    return held
