"""The exact partition of a slice: the polygons on which a piecewise-linear network is affine, on a square of a plane.

After SplineCAM (Humayun et al. 2023, arXiv 2302.12828), for any network that is made of affine maps, ReLU and its
family, and maxima, whatever its graph; in float64. Call by call of the network, the regions so far are cut along the
zeros of the numbers that bend there, which are affine on each: the network is run at the vertices of the regions, and a
cut is made in all of them together.

    from dynalab.partition import Partition, Plane

    partition = Partition.of(network, Plane.through(points))      # points (3, D)
    len(partition), partition.areas, partition.polygons, partition.maps, partition.classes.boundary
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dynalab.partition.mesh import TOLERANCE, Mesh
from dynalab.partition.mesh import TooMany as TooMany
from dynalab.partition.plane import Plane as Plane

if TYPE_CHECKING:
    from torch import nn

    from dynalab.partition.kinks import PiecewiseLinear

# Numbers that are looked at at once where windows are.
BLOCK = 1 << 22


class Faces:
    """The faces of a mesh as polygons.

    Attributes:
        mesh: The mesh.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def __len__(self) -> int:
        return self.mesh.n_faces

    @cached_property
    def _halves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Face, start and end of every edge as its faces go round it, counter-clockwise, by face and start."""
        ends = self.mesh.ends
        face, start, end = self.mesh.sides.ravel(), ends.ravel(), ends[::-1].ravel()
        order = np.argsort(face * len(self.mesh.xy) + start)
        # Those that are outside come first.
        order = order[np.count_nonzero(face < 0) :]
        return face.take(order), start.take(order), end.take(order)

    @cached_property
    def _doubled(self) -> np.ndarray:
        """Twice the area to the left of every half edge, as seen from the first corner, (H,)."""
        _, start, end = self._halves
        xy = self.mesh.xy - self.mesh.xy[0]
        return xy[start, 0] * xy[end, 1] - xy[start, 1] * xy[end, 0]

    @cached_property
    def areas(self) -> np.ndarray:
        """Area of every polygon, shape (K,)."""
        return np.bincount(self._halves[0], self._doubled, len(self)) / 2

    @cached_property
    def centres(self) -> np.ndarray:
        """Mean of the corners of every polygon, a point inside it, shape (K, 2)."""
        return self.mean(self.mesh.xy)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the corners of every polygon, (K, m), of values at vertices, (V, m)."""
        face, start, _ = self._halves
        first = np.flatnonzero(np.diff(face, prepend=-1))
        return np.add.reduceat(values[start], first) / np.diff(first, append=len(face))[:, None]

    @cached_property
    def loops(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners of all polygons one after another, (H,), counter-clockwise, and where each begins, (K + 1,)."""
        face, start, end = self._halves
        key = len(self.mesh.xy)
        # By face, where they end: at each such place, the edge that starts there is the next.
        after = np.empty(len(face), np.intp)
        after[np.argsort(face * key + end)] = np.arange(len(face))
        begins = np.searchsorted(face, np.arange(len(self) + 1))
        corners = np.empty(len(face), np.intp)
        at = begins[:-1]
        to, last = begins[:-1], begins[1:]
        while len(to):
            corners[to] = start.take(at)
            to = to + 1
            more = (to < last).nonzero()[0]
            at, to, last = after.take(at.take(more)), to.take(more), last.take(more)
        return corners, begins

    @property
    def polygons(self) -> list[np.ndarray]:
        """The corners of every polygon, counter-clockwise, (n, 2) each."""
        corners, begins = self.loops
        places = self.mesh.xy[corners]
        return [places[i:j] for i, j in pairwise(begins.tolist())]


@dataclass(frozen=True)
class Classes:
    """The regions cut where the class changes.

    Attributes:
        faces: What they are cut into.
        of: The class of each of these, an integer, shape (K',).
        boundary: The decision boundary: the two ends of every piece of it, shape (n, 2, 2).
    """

    faces: Faces
    of: np.ndarray
    boundary: np.ndarray

    def distances(self, places: np.ndarray) -> np.ndarray:
        """Return the distance of places (n, 2) of the plane from the boundary, (n,); infinite where there is none.

        Of a thousandth of the side it may be too long.
        """
        from scipy.spatial import KDTree

        if not len(self.boundary):
            return np.full(len(places), np.inf)
        first, along = self.boundary[:, 0], self.boundary[:, 1] - self.boundary[:, 0]
        lengths = np.linalg.norm(along, axis=1)
        # Points on the pieces, closely enough that the nearest of them is on the nearest piece or almost so.
        extent = np.ptp(self.faces.mesh.xy, axis=0).max()
        counts = np.ceil(lengths / (extent / 1000)).astype(int) + 1
        piece = np.repeat(np.arange(len(counts)), counts)
        share = (np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)) / np.maximum(
            counts - 1, 1
        )[piece]
        near = piece[KDTree(first[piece] + share[:, None] * along[piece]).query(places)[1]]
        way, squared = places - first[near], np.maximum(lengths[near] ** 2, np.finfo(float).tiny)
        part = np.clip((way * along[near]).sum(1) / squared, 0, 1)
        return np.linalg.norm(way - part[:, None] * along[near], axis=1)


class Partition(Faces):
    """The regions of a network on a square of a plane, as polygons in the coordinates of the plane.

    Attributes:
        plane: The square.
        network: The network, as it was read.
        mesh: Vertices, edges and faces; an edge's label is the place of the call that drew it.
    """

    def __init__(self, plane: Plane, network: PiecewiseLinear, mesh: Mesh) -> None:
        """Take what `of` has made."""
        super().__init__(mesh)
        self.plane, self.network = plane, network

    @classmethod
    def of(
        cls, network: nn.Module, plane: Plane, most: int | None = None, compiled: bool | None = None
    ) -> Partition:
        """Return the partition of a network that takes rows (n, D) to outputs (n, C).

        A region is where no number changes its sign that a ReLU or the like takes, and no maximum the place where it
        is. Time goes with the regions. Where a network holds on to what comes before a bend, as a residual one does,
        it is run at the vertices up to each of its later bends in turn, and time goes with their number as well.

        Args:
            network: A plain module; a copy in float64 is run, in evaluation.
            plane: The square.
            most: Regions at most; None: as many as there are.
            compiled: Whether cuts are compiled by numba; None: where it is installed, once that pays (`Mesh`). The
                result is the same to the bit.

        Raises:
            ConfigError: The network is not piecewise linear.
            TooMany: There are more regions than may be, or than fit in memory.
        """
        from dynalab.partition.kinks import PiecewiseLinear

        read = PiecewiseLinear(network, plane.basis.shape[1])
        mesh = Mesh(plane.corners, most, compiled)

        def cut(place: int, values: np.ndarray) -> np.ndarray:
            windows = read.kinks[place].windows
            if windows is None:
                return mesh.cut(values, _scale(values), place)
            return cut_by_maxima(mesh, values, windows, place)

        for place in range(read.walk(plane.lift(mesh.xy), cut), len(read.kinks)):
            cut(place, read.at(place, plane.lift(mesh.xy)))
        return cls(plane, read, mesh)

    @cached_property
    def outputs(self) -> np.ndarray:
        """The network's outputs at the vertices, shape (V, C)."""
        return self.network.outputs(self.plane.lift(self.mesh.xy))

    def slopes(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return outputs (n, C) at places of the plane, (n, 2), and their slopes along it, (n, C, 2)."""
        return self.network.slopes(self.plane.lift(places), self.plane.basis)

    @cached_property
    def maps(self) -> np.ndarray:
        """The affine map of every region, shape (K, C, 3): outputs are maps[k] @ (x, y, 1), in the plane."""
        values, slopes = self.slopes(self.centres)
        shift = values - np.einsum("kcd,kd->kc", slopes, self.centres)
        return np.concatenate([slopes, shift[..., None]], -1)

    @property
    def norms(self) -> np.ndarray:
        """Frobenius norm of the slopes of every region's map along the plane, shape (K,)."""
        return np.linalg.norm(self.maps[..., :2], axis=(1, 2))

    @cached_property
    def classes(self) -> Classes:
        """The regions cut where the largest output is another one; a single output is of two classes, by its sign."""
        mesh, outputs = copy.deepcopy(self.mesh), self.outputs
        if outputs.shape[1] == 1:
            outputs = np.concatenate([np.zeros_like(outputs), outputs], 1)
        kinks = len(self.network.kinks)
        outputs = cut_by_maxima(mesh, outputs, np.arange(outputs.shape[1])[None], kinks)
        faces = Faces(mesh)
        of = faces.mean(outputs).argmax(1)
        left, right = mesh.sides
        between = (left >= 0) & (right >= 0) & (of[left] != of[right])
        return Classes(faces, of, mesh.xy[mesh.ends.T[between]])

    @cached_property
    def distances(self) -> np.ndarray:
        """Distance of every region's centre from the decision boundary within the plane, shape (K,)."""
        return self.classes.distances(self.centres)


def cut_by_maxima(mesh: Mesh, values: np.ndarray, windows: np.ndarray, label: int) -> np.ndarray:
    """Cut a mesh where the place of a maximum changes.

    Args:
        mesh: The mesh.
        values: At its vertices, affine on its faces, shape (V, m).
        windows: Which of them each maximum is of, shape (n, k); -1 is none.
        label: Of the edges that are drawn.

    Returns:
        The values at all vertices that there are then.
    """
    scale = _scale(values)
    # What is none is less than all others.
    values = np.concatenate([values, np.full((len(values), 1), -2 * scale - 1)], 1)
    largest = values[:, windows[:, 0]]
    n, m = len(windows), values.shape[1]
    for column in windows.T[1:]:
        # Both are affine on what is cut; their maximum is so only then.
        own = np.concatenate([values[:, column] - largest, values, largest], 1)
        own = mesh.cut(own, scale, label, n)
        values, largest = own[:, n : n + m], own[:, n + m :]
        largest = np.maximum(values[:, column], largest)
    # Where two were equal that a later one exceeds, the maximum does not change its place.
    drawn = np.flatnonzero(mesh.labels == label)
    if len(drawn):
        left, right = mesh.sides[:, drawn]
        places = _places(Faces(mesh).mean(values), windows, scale)
        kept = mesh.join(drawn[(places[left] == places[right]).all(1)])
        values = values[kept]
    return values[:, :-1]


def _places(values: np.ndarray, windows: np.ndarray, scale: float) -> np.ndarray:
    """Return the first place that has the maximum of each window, (K, n), of values (K, m)."""
    places = np.empty((len(values), len(windows)), np.int32)
    rows = max(BLOCK // max(windows.size, 1), 1)
    for first in range(0, len(values), rows):
        own = values[first : first + rows, windows]
        near = own >= own.max(2, keepdims=True) - TOLERANCE * scale
        places[first : first + rows] = near.argmax(2)
    return places


def _scale(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0)) or 1.0
