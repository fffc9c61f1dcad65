"""Statistics of weights in compiled code are those of torch and NumPy, and a run's are its own to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynalab.config.compiling import compiler
from dynalab.core.state import ProbeState
from dynalab.models.base import Matrix
from dynalab.models.describe import WeightSelection
from dynalab.models.nets.mlp import MLP
from dynalab.probes import parity as probe
from dynalab.probes import spectra
from dynalab.probes.weights import WeightStatistics

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


def statistics_of(weights: list[torch.Tensor], biases: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {f"w{i}": it for i, it in enumerate(weights)} | {f"b{i}": it for i, it in enumerate(biases)}
    chosen = WeightSelection(
        tuple(Matrix(n) for n in named if n[0] == "w"), tuple(n for n in named if n[0] == "b"), None
    )
    return WeightStatistics(chosen).measure(ProbeState(0, named))


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 1)],
        [(1, 9), (9, 1)],
        [(7, 7), (5, 33)],
        [(33, 5)] * 4,
        [(59, 128), (128, 59)],
        [(50, 49), (3, 50)],
    ],
)
def test_statistics_are_those_of_torch(shapes, monkeypatch):
    """Medians and sums of one matrix to the bit or nearly, whatever is beside, also of what is not in one piece."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, *shape, generator=generator) for shape in shapes]
    # Zeros of both signs, and equal entries.
    weights[0][1, :, ::2] = -0.0
    biases = [torch.randn(3, shape[0], generator=generator) for shape in shapes[1:]]
    ours = statistics_of(weights, biases)
    turned = statistics_of([it.mT.contiguous().mT for it in weights], biases)
    alone = statistics_of([it[1:2] for it in weights], [it[1:2] for it in biases])
    without_code(monkeypatch)
    theirs = statistics_of(weights, biases)
    assert [*ours] == [*theirs]
    for name, own in ours.items():
        torch.testing.assert_close(own, theirs[name], rtol=1e-9, atol=1e-12, equal_nan=True, msg=name)
        assert torch.equal(own.nan_to_num(7), turned[name].nan_to_num(7))
        assert torch.equal(own[1:2].nan_to_num(7), alone[name].nan_to_num(7))
    for name in {"median_w", "median_b"} & {*ours}:
        assert torch.equal(ours[name], theirs[name]) and not ours[name][ours[name] == 0].signbit().any()


@pytest.mark.parametrize("count", [511, 512, 513, 1030, 20_000])
@pytest.mark.parametrize("kind", ["normal", "equal", "steps", "ascending", "heavy", "periodic"])
def test_medians_are_entries(kind, count):
    """Of many, where they are found between two of a sample, and where that fails."""
    rng, places = np.random.default_rng(0), np.arange(count)
    x = rng.normal(size=count)
    # The last: where each sampled entry is far from the median.
    others = {
        "equal": np.ones(count),
        "steps": rng.integers(0, 3, count),
        "ascending": places,
        "heavy": rng.standard_cauchy(count),
        "periodic": np.where(np.isin(places, np.arange(64) * count // 64 + count // 128), 1e9, x),
    }
    x = others.get(kind, x).astype(np.float32)
    found = statistics_of([torch.from_numpy(x)[None, None]], [])["median_w"].item()
    assert found == np.sort(x)[(count - 1) // 2]


@pytest.mark.parametrize(
    ("k", "n", "hidden", "bias"), [(3, 30, 100, True), (2, 9, 5, False), (6, 19, 33, True)]
)
def test_progress_of_parities_is_that_of_torch(k, n, hidden, bias, monkeypatch):
    torch.manual_seed(0)
    networks = [MLP(n, 1, [hidden], bias=bias) for _ in range(6)]
    then, now = (
        {name: torch.stack([dict(own.named_parameters())[name].detach() for own in some]) for name in then}
        for some in (networks[:3], networks[3:])
        for then in [dict(networks[0].named_parameters())]
    )
    # One that has not moved, and one whose others have not.
    now["layers.0.weight"][0] = then["layers.0.weight"][0]
    now["layers.0.weight"][1, :, k:] = then["layers.0.weight"][1, :, k:]
    measure = probe.build(probe.Config(k=k), networks[0]).measure

    def found(of: slice) -> dict[str, torch.Tensor]:
        state = ({name: it[of] for name, it in params.items()} for params in (now, then))
        return measure(ProbeState(1, next(state), initial=next(state)))

    ours, alone = found(slice(None)), found(slice(2, 3))
    assert ours["parity_separation"][:2].isnan().all() and ours["parity_fourier"].isfinite().all()
    without_code(monkeypatch)
    theirs = found(slice(None))
    assert [*ours] == [*theirs]
    for name, own in ours.items():
        torch.testing.assert_close(own, theirs[name], rtol=1e-11, atol=0, equal_nan=True, msg=name)
        assert torch.equal(own[2:], alone[name])
    for name in ("parity_movement", "parity_relevant", "parity_irrelevant"):
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("count", [1, 15, 32, 1000])
def test_sums_are_those_of_torch(count, monkeypatch):
    generator = torch.Generator().manual_seed(count)
    first, second = torch.randn(3, count, generator=generator), torch.randn(3, 5, generator=generator) + 1
    tensors = {"first": first, "second": second, "third": torch.tensor([1.0, -2.0, 3.0])}
    before = {name: it * (1 + 1e-6) for name, it in tensors.items()}

    def found() -> list[torch.Tensor]:
        return [*spectra.squares(tensors).values(), *spectra.squares(tensors, before).values()]

    ours = found()
    without_code(monkeypatch)
    for own, other in zip(ours, found(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-13)


def test_what_is_not_finite_is_nobody_elses():
    bad, bias = torch.randn(3, 7, 10, generator=torch.Generator().manual_seed(0)), torch.ones(3, 2)
    whole = statistics_of([bad], [bias])
    for broken, place in ((bad, (1, 4, 0)), (bias, (1, 0))):
        kept, broken[place] = broken[place].item(), torch.inf
        for name, own in statistics_of([bad], [bias]).items():
            assert torch.equal(own[[0, 2]], whole[name][[0, 2]]) and own[1].isnan()
        broken[place] = kept


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_eigenvalues_that_cannot_be_found_are_left_to_torch(value, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda it: asked.append(it) or it.new_zeros(it.shape[:-1]))
    product = torch.eye(4, dtype=torch.float64).expand(2, 1, 4, 4).clone()
    product[1, 0, 2, 1] = value
    spectra.spectra([product], 0)
    assert len(asked) == 1
