"""The cuts of a mesh compiled by numba, where that is installed (the extra `regions`); bit for bit those of `Mesh`.

With some hundred faces a cut in NumPy is the fixed cost of forty calls, most of which this saves; with ten thousand it
saves a quarter of a partition.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dynalab.core.errors import ConfigError

# From columns with room, how many of them are taken, the rows that are cut along, what is small, the label, the most
# faces (-1: any), edges with room, how many of these are taken, and of faces: columns, edges and their numbers after.
Kernel = Callable[..., tuple[np.ndarray, int, np.ndarray, int, int]]


@cache
def installed() -> bool:
    """Return whether numba is."""
    return importlib.util.find_spec("numba") is not None


@cache
def kernel() -> Kernel:
    """Return the compiled cuts. Loading them takes half a second, making them, once after each installation, five.

    Raises:
        ConfigError: There is no numba.
    """
    if not installed():
        raise ConfigError("compiled cuts need numba: pip install 'dynalab[regions]'")
    from numba import njit

    try:
        compiled: Kernel = njit(cache=True)(_cuts)
    except RuntimeError:
        # Neither beside the source nor in the user's folder may be written.
        compiled = njit(_cuts)
    return compiled


def _cuts(
    held: Any, n: int, rows: Any, small: float, label: int, most: int, edges: Any, n_edges: int, faces: int
) -> tuple[Any, int, Any, int, int]:
    """Cut along some rows of `held`, one after another; see `Mesh.cut` and `Mesh._cut`, whose order this keeps."""
    for row in rows:
        values = held[row]
        above = np.empty(n_edges, np.bool_)
        mixed = np.empty(n_edges, np.int64)
        m = 0
        for e in range(n_edges):
            first, second = values[edges[0, e]] > small, values[edges[1, e]] > small
            above[e] = first or second
            if first != second:
                mixed[m] = e
                m += 1
        # Of every edge that changes: its end above and below, the faces left and entered, and where the line meets it.
        met = np.empty((5, m), np.int64)
        up = np.empty(m, np.bool_)
        back = np.empty(faces + 1, np.int64)
        k = 0
        for i in range(m):
            e = mixed[i]
            up[i] = values[edges[0, e]] > small
            turn = 0 if up[i] else 1
            met[0, i], met[1, i] = edges[turn, e], edges[1 - turn, e]
            met[2, i], met[3, i] = edges[2 + turn, e], edges[3 - turn, e]
            met[4, i] = met[1, i]
            if values[met[1, i]] < -small:
                met[4, i] = n + k
                k += 1
            back[met[3, i]] = met[4, i]
        crossed = np.ones(faces + 1, np.bool_)
        if k < m:
            crossed[:] = False
            for e in range(n_edges):
                if values[edges[0, e]] < -small or values[edges[1, e]] < -small:
                    crossed[edges[2, e]] = True
                    crossed[edges[3, e]] = True
            for side in (2, 3):
                counts = np.zeros(faces + 1, np.int64)
                for i in range(m):
                    counts[met[side, i]] += 1
                for face in range(faces):
                    crossed[face] &= counts[face] == 1
        split = np.empty(m, np.int64)
        more = 0
        for i in range(m):
            face = met[2, i]
            if face >= 0 and crossed[face] and (k == m or back[face] != met[4, i]):
                split[more] = i
                more += 1
        total = n_edges + k + more
        if total > edges.shape[1]:
            room = np.empty((edges.shape[0], 2 * total), edges.dtype)
            room[:, :n_edges] = edges[:, :n_edges]
            edges = room
        if n + k > held.shape[1]:
            wider = np.empty((held.shape[0], 2 * (n + k)), held.dtype)
            wider[:, :n] = held[:, :n]
            held = wider
            values = held[row]
        becomes = np.arange(faces + 1)
        for j in range(more):
            i = split[j]
            face, to = met[2, i], n_edges + k + j
            edges[0, to], edges[1, to] = met[4, i], back[face]
            edges[2, to], edges[3, to], edges[4, to] = faces + j, face, label
            becomes[face] = faces + j
        becomes[-1] = -1
        # New vertices, and the two halves of their edges.
        new_above = np.empty(k, np.bool_)
        for i in range(m):
            at = met[4, i]
            if at < n:
                continue
            e, half = mixed[i], n_edges + at - n
            for part in range(1, 5):
                edges[part, half] = edges[part, e]
            edges[0, half] = at
            edges[1, e] = at
            above[e], new_above[at - n] = up[i], not up[i]
            a, b = met[0, i], met[1, i]
            t = values[a] / (values[a] - values[b])
            for it in range(held.shape[0]):
                held[it, at] = held[it, a] + (held[it, b] - held[it, a]) * t
        # Of a face that is cut, the part above is a new face.
        for e in range(n_edges + k):
            if above[e] if e < n_edges else new_above[e - n_edges]:
                edges[2, e] = becomes[edges[2, e]]
                edges[3, e] = becomes[edges[3, e]]
        n += k
        n_edges = total
        faces += more
        if 0 <= most < faces:
            break
    return held, n, edges, n_edges, faces
