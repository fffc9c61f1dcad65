"""Hessian-vector products, eigenvalues, traces and densities, against dense Hessians in float64."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dynalab.curvature.hessian import Hessian
from dynalab.curvature.lanczos import Lanczos, largest
from dynalab.curvature.spectrum import hutchinson, quadrature
from dynalab.models import encoder, resnet18
from dynalab.models.base import Context
from dynalab.models.nets.encoder import Encoder
from dynalab.models.nets.mlp import MLP
from dynalab.models.nets.resnet import ResNet
from dynalab.models.nets.scale_invariant import ScaleInvariantMLP
from dynalab.models.nets.transformers import NandaTransformer
from dynalab.networks.stack import Stack
from dynalab.tasks.classification import cross_entropy, half_squared_error
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


class Fused(nn.Module):
    """A user's network: torch's own layer norm and fused attention, under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(3, 12), nn.LayerNorm(4)
        self.outer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.outer(self.norm(mixed + v)).mean(1)


class PlainNorm(nn.Module):
    """Torch's own batch normalisation with running statistics, under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


class OneBlock(resnet18.Config):
    stages = (1,)


def resnet(norm: str) -> ResNet:
    return ResNet((1, 6, 6), 3, OneBlock(width=2, norm=norm, groups=1))


def images(generator: torch.Generator) -> Tensor:
    return torch.randn(3, 8, 36, generator=generator)


def pairs(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 5, (3, 10, 2), generator=generator)


def vectors(generator: torch.Generator) -> Tensor:
    return torch.randn(3, 9, 5, generator=generator)


def sequences(generator: torch.Generator) -> Tensor:
    return torch.cat(
        [torch.randint(0, 6, (3, 4, 5), generator=generator), torch.zeros(3, 4, 2).long() + 1], 2
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Tensor]]] = {
    "mlp": (lambda: MLP(5, 3, [6], activation="tanh"), vectors),
    "convolution": (lambda: resnet("none"), images),
    "batch_norm": (lambda: resnet("batch"), images),
    "layer_norm": (lambda: resnet("layer"), images),
    "stacked_batch_norm": (lambda: ScaleInvariantMLP(5, 3, 6, 2, 10.0), vectors),
    "torch_batch_norm": (PlainNorm, vectors),
    "attention": (lambda: NandaTransformer(5, 5, width=4, heads=2, mlp_width=8, layer_norm=True), pairs),
    "torch_attention": (Fused, lambda g: torch.randn(3, 6, 4, 3, generator=g)),
    "dropout": (
        lambda: Encoder(
            6, 3, 5, encoder.Config(width=4, heads=2, mlp_width=6, layers=1, dropout=0.3, tied=False)
        ),
        sequences,
    ),
}


class Case:
    """Three runs of a network in float64, their loss as the engine has it and as one run by itself has it."""

    def __init__(self, name: str) -> None:
        make, draw = NETWORKS[name]
        generator = torch.Generator().manual_seed(7)
        torch.manual_seed(3)
        self.plain = make().to(torch.float64)
        networks = [make() for _ in range(3)]
        self.stack = Stack(networks, [Streams.from_seed(s) for s in range(3)], CPU)
        noisy = name == "dropout"
        self.inputs = draw(generator)
        if self.inputs.is_floating_point():
            self.inputs = self.inputs.to(torch.float64)
        self.noise = self.stack.noise_of(0, self.inputs) if noisy else {}
        self.params = {
            key: (value.detach() + 0.3 * torch.randn(value.shape, generator=generator)).to(torch.float64)
            for key, value in self.stack.params.items()
        }
        self.buffers = {
            key: value.to(torch.float64) if value.is_floating_point() else value
            for key, value in self.stack.buffers.items()
        }
        with sdpa_kernel(SDPBackend.MATH):
            shape = self.stacked(self.params).shape
        self.targets = torch.randint(0, shape[-1], shape[:-1], generator=generator)

    def stacked(self, params) -> Tensor:
        dtype = next(iter(params.values())).dtype
        inputs = self.inputs.to(dtype) if self.inputs.is_floating_point() else self.inputs
        kept = {
            k: v.to(dtype, copy=True) if v.is_floating_point() else v.clone() for k, v in self.buffers.items()
        }
        return self.stack.forward(inputs, params, training=True, noise=self.noise, buffers=kept)

    def losses(self, params) -> Tensor:
        outputs = self.stacked(params)
        targets = self.targets
        if outputs.dim() > 3:
            outputs, targets = outputs.flatten(1, 2), targets.flatten(1)
        return half_squared_error(outputs, targets) + cross_entropy(outputs, targets)

    @functools.cached_property
    def dense(self) -> Tensor:
        """The Hessian of the last run's loss by torch's double backward of the plain module, row by row."""
        run = 2
        names = list(self.params)
        shapes = [self.params[key].shape[1:] for key in names]
        buffers = {key: value[run] for key, value in self.buffers.items()}
        self.plain.train()

        def loss(flat: Tensor) -> Tensor:
            parts = flat.split([shape.numel() for shape in shapes])
            state = {key: part.view(shape) for key, part, shape in zip(names, parts, shapes, strict=True)}
            state |= {key: value.clone() for key, value in buffers.items()}
            more = ()
            if self.noise:
                more = (Context(True, {}, {key: value[run] for key, value in self.noise.items()}),)
            outputs = functional_call(self.plain, state, (self.inputs[run], *more)).flatten(0, -2)[None]
            targets = self.targets[run].flatten()[None]
            return (half_squared_error(outputs, targets) + cross_entropy(outputs, targets))[0]

        flat = torch.cat([self.params[key][run].flatten() for key in names])
        with sdpa_kernel(SDPBackend.MATH):
            return torch.autograd.functional.hessian(loss, flat)


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Case(request.param)
    yield found
    torch.set_num_threads(before)


def test_products_eigenvalues_and_trace_are_those_of_the_dense_hessian(case):
    kept = {key: value.clone() for key, value in case.buffers.items()}
    hessian = Hessian(case.losses, case.params)
    size, width = hessian.layout.size, hessian.layout.width
    random = torch.randn(3, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    random[:, size:] = 0
    found = hessian.product(random)
    start = hessian.layout.random(1, random).expand(3, -1)
    pairs = largest(hessian.product, start, 3, tolerance=1e-7, most=size, size=size)
    trace, error = hutchinson(hessian.product, hessian.layout, random, starts=size)
    assert (error == 0).all()
    dense = case.dense
    assert dense.shape == (size, size)
    scale = float(torch.linalg.matrix_norm(dense, 2))
    torch.testing.assert_close(found[2, :size], dense @ random[2, :size], rtol=1e-9, atol=1e-9 * scale)
    values, vectors = torch.linalg.eigh(dense)
    torch.testing.assert_close(pairs.values[2], values[-3:].flip(0), rtol=1e-5, atol=1e-9)
    assert abs(pairs.vectors[2, 0, :size] @ vectors[:, -1]).item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(trace[2], dense.trace(), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, kept[key]) for key, value in case.buffers.items())


def finite_difference_error(case: Case) -> float:
    """Return the largest relative error of a product against a central difference of gradients."""
    hessian = Hessian(case.losses, case.params)
    v = torch.randn(3, hessian.layout.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v[:, hessian.layout.size :] = 0
    moved = []
    for sign in (1.0, -1.0):
        step = hessian.layout.tensors(sign * 1e-6 * v)
        moved.append(Hessian(case.losses, {k: p + step[k] for k, p in case.params.items()}).gradient)
    product = hessian.product(v)
    return ((product - (moved[0] - moved[1]) / 2e-6).norm(dim=1) / product.norm(dim=1)).max().item()


def test_products_are_finite_differences_and_symmetric(case):
    """Catches what a wrong batching rule of torch would do without a word."""
    assert finite_difference_error(case) < 1e-6
    hessian = Hessian(case.losses, case.params)
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, 3, hessian.layout.width, dtype=torch.float64, generator=generator)
    u[:, hessian.layout.size :], v[:, hessian.layout.size :] = 0, 0
    left, right = (u * hessian.product(v)).sum(1), (hessian.product(u) * v).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def test_single_precision_is_near(case):
    single = Hessian(case.losses, {key: value.float() for key, value in case.params.items()})
    start = single.layout.random(0, single.gradient).expand(3, -1)
    pairs = largest(single.product, start, tolerance=1e-3, size=single.layout.size)
    exact = torch.linalg.eigvalsh(case.dense)[-1].item()
    assert pairs.values[2, 0].item() == pytest.approx(exact, rel=1e-5)


def operators(spectra: list[np.ndarray]):
    """Diagonal operators with given spectra, seen through random rotations."""
    rng = np.random.default_rng(0)
    turned = []
    for values in spectra:
        q, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
        turned.append(torch.from_numpy(q @ np.diag(values) @ q.T))
    matrices = torch.stack(turned)
    return lambda rows: torch.bmm(matrices, rows[:, :, None])[:, :, 0]


def test_a_run_converges_by_itself():
    """A hard neighbour (clustered eigenvalues) changes neither value, residual, vector nor count of an easy run."""
    easy = np.r_[10.0, np.linspace(-1, 1, 59)]
    hard = np.linspace(-10, 1, 60)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 60, dtype=torch.float64, generator=generator)
    both = largest(operators([easy, hard]), start, most=40)
    alone = largest(operators([easy, easy]), start[:1].expand(2, -1), most=40)
    assert both.products[0] == alone.products[0] < both.products[1]
    torch.testing.assert_close(both.values[0], alone.values[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(both.vectors[0], alone.vectors[0], rtol=1e-9, atol=1e-12)
    assert both.residuals[0].max() <= 1e-3 * 10 and both.values[0, 0] == pytest.approx(10, rel=1e-6)


def test_it_is_the_largest_not_the_largest_in_size():
    pairs = largest(operators([np.r_[-50.0, np.linspace(-3, 2, 30)]] * 2), torch.ones(2, 31).double())
    assert pairs.values[:, 0].tolist() == pytest.approx([2.0, 2.0], rel=1e-5)


def test_degenerate_operators_end():
    """The zero operator, one that is not finite, and a start in an invariant subspace."""
    start = torch.ones(2, 8, dtype=torch.float64)
    assert largest(lambda rows: 0 * rows, start).values.tolist() == [[0.0], [0.0]]
    broken = largest(lambda rows: rows * torch.tensor([[torch.nan], [3.0]]), start)
    assert broken.values[0].isnan() and broken.values[1, 0] == pytest.approx(3)
    assert broken.vectors[0].abs().sum() == 0 and broken.products[1] == 1


def test_a_crossing_is_seen_by_a_warm_start():
    """The vector of the old largest eigenvalue alone would be an invariant subspace."""
    scale = torch.tensor([5.0, 6.0, *np.linspace(0, 1, 30)], dtype=torch.float64)
    old = torch.zeros(2, 32, dtype=torch.float64)
    old[:, 0] = 1
    noise = torch.randn(32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stuck = largest(lambda rows: rows * scale, old)
    assert stuck.values[0, 0] == 5 and stuck.residuals[0, 0] == 0
    found = largest(lambda rows: rows * scale, old + 0.3 * noise / noise.norm())
    assert found.values[0, 0] == pytest.approx(6, rel=1e-5)


def density(nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray, sigma: float) -> np.ndarray:
    """A normal distribution of width sigma at every node, at the points of a grid."""
    centres, mass = nodes.ravel(), weights.ravel() / weights.sum()
    bumps = np.exp(-0.5 * ((grid[:, None] - centres) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return bumps @ mass


def quadrature_errors(seed: int) -> tuple[float, float]:
    """Return the L1 error of the density of a network of 1,210 parameters, and the trace's in standard errors."""
    torch.manual_seed(seed)
    network = MLP(64, 10, [16], activation="tanh")
    stack = Stack([network], [Streams.from_seed(seed)], CPU)
    x = torch.randn(1, 300, 64, generator=torch.Generator().manual_seed(1)).double()
    y = torch.randint(0, 10, (1, 300), generator=torch.Generator().manual_seed(2))
    params = {key: value.detach().double() for key, value in stack.params.items()}
    hessian = Hessian(lambda w: cross_entropy(stack.forward(x, w), y), params)
    size = hessian.layout.size
    assert size == 1210
    eye = torch.eye(size, hessian.layout.width, dtype=torch.float64)
    dense = torch.cat([hessian.product(row[None]) for row in eye])[:, :size]
    exact = torch.linalg.eigvalsh((dense + dense.T) / 2).numpy()
    found = quadrature(hessian.product, hessian.layout, hessian.gradient, steps=50, starts=10, seed=seed)
    assert found.weights.sum(2).numpy() == pytest.approx(1)
    span = exact[-1] - exact[0]
    sigma = span / 50
    grid = np.linspace(exact[0] - 5 * sigma, exact[-1] + 5 * sigma, 4000)
    true = density(exact, np.ones(size), grid, sigma)
    guess = density(found.nodes[0].numpy(), found.weights[0].numpy(), grid, sigma)
    off = []
    traces = size * (found.nodes * found.weights).sum(2)
    by_nodes = traces.mean(1), traces.std(1) / traces.shape[1] ** 0.5
    for trace, error in (by_nodes, hutchinson(hessian.product, hessian.layout, hessian.gradient)):
        assert error[0] > 0
        off.append(abs(trace[0].item() - exact.sum()) / error[0].item())
    # The largest node is the largest eigenvalue, once: no ghosts.
    nodes = found.nodes[0, 0].numpy()
    assert nodes[-1] == pytest.approx(exact[-1], rel=1e-9) and nodes[-2] < exact[-2] + 1e-9
    return float(np.abs(true - guess).sum() * (grid[1] - grid[0])), max(off)


def test_stochastic_quadrature_finds_density_and_trace():
    """m = 50, ten starts, bumps of a fiftieth of the range."""
    difference, off = quadrature_errors(0)
    assert difference < 0.05 and off < 3


def test_products_are_those_of_another_library():
    """curvlinops, on a network without norms: with affine layer or batch norms it is wrong without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curvlinops = pytest.importorskip("curvlinops")
        torch.manual_seed(0)
        network = MLP(5, 3, [6], activation="tanh").double()
        network.activation = torch.tanh
        x, y = torch.randn(9, 5).double(), torch.randn(9, 3).double()
        other = curvlinops.HessianLinearOperator(
            network, nn.MSELoss(), list(network.parameters()), [(x, y)], check_deterministic=False
        )
        stack = Stack([copy.deepcopy(network).float()], [Streams.from_seed(0)], CPU)
        params = {name: param.detach()[None] for name, param in network.named_parameters()}
        hessian = Hessian(lambda w: (stack.forward(x[None], w) - y).square().mean((1, 2)), params)
        v = hessian.layout.random(1, x)[None]
        theirs = other @ v[0, : hessian.layout.size]
    torch.testing.assert_close(hessian.product(v)[0, : hessian.layout.size], theirs, rtol=1e-9, atol=1e-12)


def test_lanczos_vectors_stay_orthogonal_in_float32():
    """Eigenvalues from 1e-7 to 1: orthogonalised once a vector, products of the vectors reach 5e-3."""
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(200, 200, generator=generator))
    matrix = (q * torch.logspace(-7, 0, 200)) @ q.T
    lanczos = Lanczos(lambda rows: rows @ matrix.T, torch.randn(1, 200, generator=generator))
    for _ in range(60):
        lanczos.grow()
    gram = lanczos.basis[0] @ lanczos.basis[0].T
    assert (gram - torch.eye(60)).abs().max() < 1e-5
