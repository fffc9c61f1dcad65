"""Statistics of weights in compiled code are those of torch and NumPy, and a run's are its own to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynalab.config.compiling import compiler
from dynalab.probes import spectra

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler"),
    pytest.mark.usefixtures("one_thread"),
]
SIZES = [*range(1, 35), 64, 100]


def without_code(monkeypatch) -> None:
    monkeypatch.setattr(spectra, "library", lambda: None)


def of_rank(rank: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(2, n, rank)) @ rng.normal(size=(2, rank, n))


def kinds_of(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    halves = np.zeros((2, n, n))
    halves[:, : n // 2, : n // 2] = rng.normal(size=(2, n // 2, n // 2))
    halves[:, n // 2 :, n // 2 :] = rng.normal(size=(2, n - n // 2, n - n // 2))
    return {
        "full": rng.normal(size=(2, n, n)),
        "of low rank": of_rank(max(n // 3, 1), n, rng),
        "graded": rng.normal(size=(2, n, n)) * np.logspace(1, -9, n)[:, None],
        "diagonal": np.stack([np.diag(np.arange(n) % 3 - 1.0), np.eye(n)]),
        "split": halves,
        "equal": np.ones((2, n, n)),
        "small": 1e-60 * rng.normal(size=(2, n, n)),
        "large": 1e60 * rng.normal(size=(2, n, n)),
        "nothing": np.zeros((2, n, n)),
    }


@pytest.mark.parametrize("n", SIZES)
def test_singular_values_against_numpy(n):
    """Up to the root of float64's precision below the largest, which forming the product costs; a mean up to 1e-11."""
    for name, x in kinds_of(n).items():
        values = np.linalg.svd(x, compute_uv=False)
        scale = values.max() or 1.0
        least = 1e-6 * scale
        values[values < least] = 0
        products = torch.from_numpy(x @ x.transpose(0, 2, 1))[:, None]
        found = spectra.spectra([products], least)[:, :, 0].numpy()
        expected = values[:, 0], values.mean(1), values.var(1)
        for ours, theirs, power in zip(found, expected, (1, 1, 2), strict=True):
            np.testing.assert_allclose(
                ours / scale**power, theirs / scale**power, rtol=1e-9, atol=1e-13, err_msg=name
            )


def test_a_matrix_has_the_same_bits_beside_any_others():
    drawn = {n: torch.from_numpy(kinds_of(n)["full"]) for n in (3, 8, 17, 40)}
    products = {n: (x @ x.mT)[:, None] for n, x in drawn.items()}
    alone = {n: spectra.spectra([x[:1]], 1e-5) for n, x in products.items()}
    for order in ([3, 8, 17, 40], [40, 3], [8] * 3 + [17] * 40):
        found = spectra.spectra([products[n] for n in order], 1e-5)
        for place, n in enumerate(order):
            assert torch.equal(found[:, 0, place], alone[n][:, 0, 0])


def test_only_the_lower_triangle_counts():
    x = torch.from_numpy(kinds_of(20)["full"])
    product = (x @ x.mT)[:, None]
    assert torch.equal(spectra.spectra([product.tril()], 0), spectra.spectra([product], 0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 7), (5, 33), (33, 5), (59, 128), (128, 59), (50, 49)])
def test_products_are_those_of_torch(shape, monkeypatch):
    weights = torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    ours = spectra.grams(weights)
    # Not in one piece.
    turned = spectra.grams(weights.mT.contiguous().mT)
    without_code(monkeypatch)
    theirs = spectra.grams(weights)
    for several in zip(ours, theirs, turned, strict=True):
        own, other, again = (it.tril() if it.dim() == 4 else it for it in several)
        torch.testing.assert_close(own, other, rtol=1e-13, atol=1e-12)
        assert torch.equal(own, again)


@pytest.mark.parametrize("count", [1, 15, 32, 1000])
def test_sums_are_those_of_torch(count, monkeypatch):
    generator = torch.Generator().manual_seed(count)
    first, second = torch.randn(3, count, generator=generator), torch.randn(3, 5, generator=generator) + 1
    tensors = {"first": first, "second": second, "third": torch.tensor([1.0, -2.0, 3.0])}
    before = {name: it * (1 + 1e-6) for name, it in tensors.items()}

    def found() -> list[torch.Tensor]:
        own = [*spectra.squares(tensors).values(), *spectra.squares(tensors, before).values()]
        return [*own, *spectra.moments([first, second])]

    ours = found()
    without_code(monkeypatch)
    for own, other in zip(ours, found(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-13)


def test_what_is_not_finite_is_nobody_elses():
    bad = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    whole = spectra.moments([bad])
    bad[1, 40] = torch.inf
    for own, before in zip(spectra.moments([bad]), whole, strict=True):
        assert torch.equal(own[[0, 2]], before[[0, 2]]) and not own[1].isfinite()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_eigenvalues_that_cannot_be_found_are_left_to_torch(value, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda it: asked.append(it) or it.new_zeros(it.shape[:-1]))
    product = torch.eye(4, dtype=torch.float64).expand(2, 1, 4, 4).clone()
    product[1, 0, 2, 1] = value
    spectra.spectra([product], 0)
    assert len(asked) == 1
