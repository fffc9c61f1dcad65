"""A square in a plane of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynalab.core.errors import ConfigError

# Share of the largest distance below which points are on a line.
FLAT = 1e-9


@dataclass(frozen=True)
class Plane:
    """A square of a plane; a point of it is origin + x basis[0] + y basis[1], |x| and |y| at most `half`."""

    origin: np.ndarray  # shape (D,)
    basis: np.ndarray  # two orthonormal rows, shape (2, D)
    half: float = 1.0  # half of a side

    @classmethod
    def through(cls, points: np.ndarray, pad: float = 1.5) -> Plane:
        """Return the square about the centroid of three points, along two of their differences (Gram-Schmidt).

        Args:
            points: Shape (3, D).
            pad: Half of a side, in units of the largest distance of a point from the centroid.

        Raises:
            ConfigError: The points are on a line.
        """
        points = np.asarray(points, float)
        if points.ndim != 2 or len(points) != 3 or points.shape[1] < 2 or not np.isfinite(points).all():
            raise ConfigError(f"a slice takes three points of two or more finite numbers, not {points.shape}")
        origin = points.mean(0)
        along, across = points[1] - points[0], points[2] - points[0]
        reach = np.linalg.norm(points - origin, axis=1).max()
        length = np.linalg.norm(along)
        if length > FLAT * reach:
            along = along / length
            across = across - (across @ along) * along
            across = across - (across @ along) * along  # again, for what the first left by rounding
            length = np.linalg.norm(across)
            if length > FLAT * reach:
                return cls(origin, np.stack([along, across / length]), float(pad * reach))
        raise ConfigError("a slice takes three points that are not on a line")

    @property
    def corners(self) -> np.ndarray:
        """Those of the square, counter-clockwise, shape (4, 2)."""
        return self.half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    def lift(self, xy: np.ndarray) -> np.ndarray:
        """Return the inputs (..., D) at places of the plane, (..., 2)."""
        return self.origin + xy @ self.basis

    def place(self, inputs: np.ndarray) -> np.ndarray:
        """Return the places (..., 2) of inputs (..., D), those off the plane projected."""
        return (inputs - self.origin) @ self.basis.T
