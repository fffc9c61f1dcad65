"""How alike what networks give is, at the end or after a layer: centred kernel alignment (CKA) with linear kernels."""

from __future__ import annotations

import numpy as np


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return the linear CKA of what two networks give for the same examples, (n, c) and (n, d), without bias.

    From the unbiased estimate of HSIC (Song et al. 2012), which is 0 in the mean for unrelated outputs, at which the
    published one is not: it grows with the outputs' number over that of the examples. NaN below four examples, and
    where outputs do not vary.
    """
    return alike(*(gram(x) for x in (one, other)))[0]


def biased_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Return it as published (Kornblith et al. 2019, arXiv 1905.00414): |Y^T X|^2 / (|X^T X| |Y^T Y|), centred."""
    return alike(*(gram(x) for x in (one, other)))[1]


def alike(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return both from Gram matrices (n, n) of the same examples, the unbiased one first."""
    if len(one) < 4:
        return np.nan, _cosine(_centred(one), _centred(other))
    first, second = (gram - np.diag(np.diag(gram)) for gram in (one, other))
    square = _hsic(first, first) * _hsic(second, second)
    unbiased = _hsic(first, second) / np.sqrt(square) if square > 0 else np.nan
    return float(unbiased), _cosine(_centred(one), _centred(other))


def gram(values: np.ndarray) -> np.ndarray:
    """Return the Gram matrix (n, n) of what is given for n examples, (n, p)."""
    x = np.asarray(values, float)
    # About their mean, so that large outputs that hardly vary do not drown in rounding; both estimates allow it.
    x = x - x.mean(0)
    return np.asarray(x @ x.T)


def _centred(gram: np.ndarray) -> np.ndarray:
    return np.asarray(gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean())


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / norms) if norms > 0 else np.nan


def _hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Return n (n - 3) times the unbiased estimate of HSIC of two Gram matrices without diagonals."""
    n = len(one)
    whole = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return float((one * other).sum() + whole - 2 * (one.sum(0) @ other.sum(0)) / (n - 2))
