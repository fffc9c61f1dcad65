"""How alike the outputs of networks are: centred kernel alignment (CKA) with linear kernels."""

from __future__ import annotations

import numpy as np


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return the linear CKA of what two networks give for the same examples, (n, c) and (n, d), without bias.

    From the unbiased estimate of HSIC (Song et al. 2012), which is 0 in the mean for unrelated outputs, at which the
    published one is not: it grows with the outputs' number over that of the examples. NaN below four examples, and
    where outputs do not vary.
    """
    gram, other_gram = (_without_diagonal(x) for x in (one, other))
    n = len(gram)
    if n < 4:
        return np.nan
    square = _hsic(gram, gram) * _hsic(other_gram, other_gram)
    return float(_hsic(gram, other_gram) / np.sqrt(square)) if square > 0 else np.nan


def biased_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return it as published (Kornblith et al. 2019, arXiv 1905.00414): |Y^T X|^2 / (|X^T X| |Y^T Y|), centred."""
    x, y = (np.asarray(z, float) - np.mean(z, axis=0) for z in (one, other))
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.square(np.linalg.norm(y.T @ x)) / norms) if norms > 0 else np.nan


def _without_diagonal(values: np.ndarray) -> np.ndarray:
    gram = np.asarray(values, float) @ np.asarray(values, float).T
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return n (n - 3) times the unbiased estimate of HSIC of two Gram matrices without diagonals."""
    n = len(one)
    whole = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return float((one * other).sum() + whole - 2 * (one.sum(0) @ other.sum(0)) / (n - 2))
