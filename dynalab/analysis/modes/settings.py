"""What a network is made of, from the snapshots of a run: modes, an average, principal components, the last ones.

All but modes are sums of snapshots: a setting is a row of their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODES, LAST, PCA = "modes", "last", "pca"
AVERAGES = ("ema", "lawa", "swa")
METHODS = (MODES, LAST, *AVERAGES, PCA)
# Modes, snapshots of a window, and principal components that are tried, where there are as many snapshots. A window of
# one is the last weights: where nothing is to be gained by averaging, an average that is tuned comes to that.
SIZES = (1, 2, 3, 5, 10, 20, 50)
# Copies that `lawa` holds, and snapshots between them.
COPIES, APART = (2, 3, 5, 10), (1, 2, 5, 10, 20)
# The number of a mode takes a byte up to so many of them, then two; a float takes four.
BYTE, FLOAT = 256, 4


@dataclass(frozen=True)
class Setting:
    """One way of making a network.

    Attributes:
        method: One of `METHODS`.
        size: Modes, snapshots of the window, or components.
        apart: Of `lawa`, snapshots from one that is taken to the next.
    """

    method: str
    size: int = 1
    apart: int = 1

    def stored(self, weights: int, rows: int) -> int:
        """Return the floats that are stored of so many weights and snapshots.

        Modes are a slope, an offset and a number a weight, and the references' paths; principal components a direction
        each, their mean, and the paths along them; LAWA's copies are held one by one, so that the oldest can go.
        """
        if self.method == MODES:
            numbers = -(-weights * (1 if self.size <= BYTE else 2) // FLOAT)
            return 2 * weights + numbers + self.size * rows
        if self.method == PCA:
            return (self.size + 1) * weights + self.size * rows
        return self.size * weights if self.method == "lawa" else weights

    def shares(self, rows: int, components: np.ndarray) -> np.ndarray:
        """Return the share of each snapshot, shape (T,), of all methods but modes.

        Args:
            rows: Snapshots, T.
            components: Paths along the principal components, columns of norm 1, shape (T, T).
        """
        found = np.zeros(rows)
        if self.method == LAST:
            found[-1] = 1
        elif self.method == "ema":
            found[:] = (1 - 1 / self.size) ** np.arange(rows - 1, -1, -1) / self.size
            # The first are taken whole.
            found[0] *= self.size
        elif self.method == "lawa":
            found[rows - 1 - self.apart * np.arange(self.size)] = 1 / self.size
        elif self.method == "swa":
            found[-self.size :] = 1 / self.size
        else:
            some = components[:, : self.size]
            found[:] = 1 / rows + some[-1] @ some.T
        return found


def settings(rows: int, counts: Sequence[int]) -> list[Setting]:
    """Return what is tried of runs with so many snapshots at least; what stores least comes first.

    Args:
        rows: Snapshots.
        counts: Numbers of modes.
    """
    sizes = [size for size in SIZES if size < rows]
    return [
        Setting(LAST),
        *(Setting("swa", size) for size in (*sizes, rows)),
        *(Setting("ema", size) for size in sizes),
        *(Setting("lawa", n, apart) for n in COPIES for apart in APART if (n - 1) * apart < rows),
        *(Setting(PCA, size) for size in SIZES if size < rows - 1),
        *(Setting(MODES, count) for count in counts),
    ]
