"""What outputs and tables over a circle of n symbols are made of, frequency by frequency; one run, float64.

A network that adds places on a circle, a + b = c modulo n, has logits near a sum over few frequencies k of
alpha_k cos(w_k (a + b - c)), w_k = 2 pi k / n (Nanda et al. 2023, arXiv 2301.05217). The projection of logits
L[a, b, c] on cos(w_k (a + b)) and sin(w_k (a + b)), for every c, depends on a + b alone, so all of it is in the n x n
table of their means over the pairs of one sum, and its discrete Fourier transform over the sum.

Frequencies are 0, the mean over pairs, to n // 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Outputs on all pairs (a, b) and classes c, by a + b."""

    means: Floats  # Shape (n, n): the mean over the pairs of a sum, of every class.
    # Sum over pairs and classes of the squares of outputs, from which their mean over classes is taken.
    squares: float

    def power(self) -> Floats:
        """Return the share of the outputs' variance along cos(w_k (a + b - c)), k from 1 to n // 2.

        Their variance is what is left of them once their means over pairs and over classes are taken out. 0 where it
        is.
        """
        n = len(self.means)
        pairs_mean = self.means.mean(0)
        variance = self.squares - n * n * np.square(pairs_mean - pairs_mean.mean()).sum()
        places, frequencies = np.arange(n), np.arange(1, n // 2 + 1)
        turns = np.exp(2j * np.pi * (np.outer(frequencies, places) % n) / n)
        along = (np.fft.rfft(self.means, axis=0)[1:] * turns).sum(1).real
        # Each of the n values of a + b has n pairs; a cosine's mean square is 1/2, of alternating signs 1.
        mean_square = np.where(2 * frequencies == n, 1.0, 0.5)
        if variance <= 1e-12 * self.squares:
            return np.zeros(len(frequencies))
        return np.square(along) / (n * mean_square * variance)

    def part(self, keys: NDArray[np.bool_]) -> Floats:
        """Return the part of the outputs at some frequencies, by a + b and class, (n, n); keys (n // 2,) from 1 on."""
        spectrum = np.fft.rfft(self.means, axis=0)
        spectrum[~np.concatenate([[False], keys])] = 0.0
        return np.fft.irfft(spectrum, n=len(self.means), axis=0)


def component_norms(table: Floats) -> Floats:
    """Return the norms (n,) over columns of a table's (n, d) components in the orthonormal Fourier basis of its rows.

    In the order constant, cos 1, cos 2, ..., sin 1, sin 2, ...
    """
    n = len(table)
    spectrum = np.fft.rfft(table, axis=0) / np.sqrt(n)
    whole = 2 * np.arange(len(spectrum)) % n == 0
    spectrum[~whole] *= np.sqrt(2.0)
    parts = np.concatenate([spectrum.real, spectrum.imag[~whole]])
    return np.sqrt(np.square(parts).sum(1))


def gini(sizes: Floats) -> float:
    """Return the Gini coefficient of sizes (n,): 0 where all are equal, 1 - 1/n where one is all; NaN where all are 0.

    1 - 2 sum over i of x_(i) / sum(x) (n - i + 1/2) / n, x_(1) <= ... <= x_(n) (Hurley and Rickard 2009, arXiv
    0811.4706).
    """
    n, total = len(sizes), sizes.sum()
    if not total > 0:
        return float("nan")
    return float(1 - 2 * (np.sort(sizes) / total * (n - np.arange(n) - 0.5) / n).sum())


def participation(table: Floats) -> float:
    """Return the mean over the columns of a table (n, d) of their inverse participation ratio over frequencies.

    Sum over frequencies of the squared shares of a column's power, a real column's spectrum being its frequencies from
    0 to n // 2: 1 where it is one wave, near 4 / n for white noise, the power of a frequency being exponential
    (Gromov 2023, arXiv 2301.02679, r = 2). Columns of zeros have none and are left out; NaN where there are no others.
    """
    spectrum = np.abs(np.fft.rfft(table, axis=0))
    spectrum = spectrum[:, spectrum.any(0)]
    # Columns that weight decay has left have powers that a float cannot hold.
    powers = np.square(spectrum / spectrum.max(0, initial=0.0))
    if not powers.size:
        return float("nan")
    return float(np.square(powers / powers.sum(0)).sum(0).mean())
