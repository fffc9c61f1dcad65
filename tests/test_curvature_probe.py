"""The curvature probe in training: its columns, preconditioner, cadence and bits; SAM and RMSprop."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stored import bits, difference, only_ensemble

from dynalab import train
from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.curvature.hessian import Hessian, operators
from dynalab.curvature.preconditioner import preconditioner
from dynalab.errors import ConfigError
from dynalab.training.cadence import probe_cadences
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

SMALL = ["task=digits", "task.n_train=30", "task.n_test=10", "probes=[curvature]"]
SMALL += ["probe.curvature.every=2", "eval.every=2", "train.batch_size=10"]


pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(words: list[str], seeds: tuple[int, ...] = (0, 1)) -> Loop:
    own = [] if any(word.startswith("model=") for word in words) else ["model.hidden=[5]"]
    (request,) = read_command([*SMALL, *own, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, torch.device("cpu"))


def dense(loop: Loop, run: int) -> torch.Tensor:
    """The Hessian of one run, a column a product (which other tests compare with torch's own)."""
    objective = loop.measuring.items[0].probe._objective
    params = {name: param.detach() for name, param in loop.updates.evaluated().items()}
    hessian = Hessian(lambda w: objective.losses(w, slice(0, 2)), params)
    eye = torch.eye(hessian.layout.size, hessian.layout.width)
    rows = [hessian.product(row.expand(2, -1).clone())[run, : hessian.layout.size] for row in eye]
    return torch.stack(rows).double()


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adam", "optimizer.weight_decay=0.3"],
        ["optimizer=adam", "optimizer.amsgrad=true", "train.clip=0.5"],
        ["optimizer=adamw", "optimizer.weight_decay=0.3", "optimizer.decay=matrices"],
        ["optimizer=adam", "optimizer.weight_decay=0.3", "optimizer.decay=matrices", "schedule=warmup"],
        ["optimizer=rmsprop", "optimizer.weight_decay=0.3"],
        ["optimizer=rmsprop", "optimizer.centered=true", "optimizer.momentum=0.5"],
        ["optimizer=lookahead", "optimizer.inner=adam", "optimizer.k=3", "optimizer.weight_decay=0.1"],
        ["optimizer=lookahead", "optimizer.inner=adamw", "optimizer.k=2", "optimizer.inner_state=reset"],
    ],
)
def test_the_preconditioner_is_what_the_next_update_divides_by(words):
    """Two gradients that differ by a little give updates that differ by rate / P times as much, P held."""
    loop = loop_of(words)
    for _ in range(4):
        loop.update()
    upcoming = loop.updates.upcoming()
    p = preconditioner(loop.config.optimizer, loop.updates.moments(), upcoming)
    assert p is not None
    loop.update()
    # After the update the optimizer's own tensors say what it divided by.
    own = getattr(loop.updates.optimizer, "inner", loop.updates.optimizer)
    config = loop.config.optimizer
    reset = getattr(config, "inner_state", "keep") == "reset"
    for name, param in loop.stack.params.items():
        state = own.state[param]
        if "square_avg" in state:
            nu = state["square_avg"] - (state["grad_avg"].square() if "grad_avg" in state else 0.0)
            wanted = nu.sqrt() + 1e-8
        else:
            beta1, beta2 = own.param_groups[0]["betas"]
            count = float(state["step"])
            nu = state.get("max_exp_avg_sq", state["exp_avg_sq"])
            wanted = (nu / (1 - beta2**count)).sqrt() + 1e-8
            wanted = wanted * (1.0 if reset else 1 - beta1**count)
        torch.testing.assert_close(p[name], wanted, rtol=1e-5, atol=1e-9)


def test_its_columns_are_those_of_the_dense_operators():
    words = [
        "optimizer=adam",
        "optimizer.weight_decay=0.3",
        "probe.curvature.eigenvalues=3",
        "train.clip=0.2",
    ]
    loop = loop_of([*words, "probe.curvature.trace=100000", "probe.curvature.tolerance=1e-4"])
    for _ in range(4):
        loop.update()
    upcoming = loop.updates.upcoming()
    p = preconditioner(loop.config.optimizer, loop.updates.moments(), upcoming)
    row = loop.rows()["every-2"]
    probe = loop.measuring.items[0].probe
    layout = Hessian(lambda w: probe._objective.losses(w, slice(0, 2)), loop.updates.evaluated()).layout
    for run in range(2):
        h = dense(loop, run)
        values = torch.linalg.eigvalsh(h)
        found = [row[name][run].item() for name in ("sharpness", "sharpness_2", "sharpness_3")]
        assert found == pytest.approx(values[-3:].flip(0).tolist(), rel=1e-4)
        root = layout.rows(p)[run, : layout.size].double().rsqrt()
        decayed = h + 0.3 / upcoming.clip[run] * torch.eye(len(h))
        scaled = root[:, None] * decayed * root
        assert row["preconditioned_sharpness"][run].item() == pytest.approx(
            torch.linalg.eigvalsh(scaled)[-1].item(), rel=1e-4
        )
        g = Hessian(lambda w: probe._objective.losses(w, slice(0, 2)), loop.updates.evaluated()).gradient
        g = g[run, : layout.size].double()
        assert row["gradient_curvature"][run].item() == pytest.approx((g @ h @ g / (g @ g)).item(), rel=1e-3)
        along = root * g
        wanted = (along @ scaled @ along / (along @ along)).item()
        assert row["preconditioned_gradient_curvature"][run].item() == pytest.approx(wanted, rel=1e-3)
        assert row["hessian_trace"][run].item() == pytest.approx(h.trace().item(), rel=1e-4)
        assert upcoming.clip[run] < 1
        limit = 38 / 1e-3 / upcoming.clip[run].item()
        assert row["stability_threshold"][run].item() == pytest.approx(limit, rel=1e-6)
        ratio = row["preconditioned_sharpness"] / row["stability_threshold"]
        assert torch.equal(row["edge_ratio"], ratio)
    assert row["sharpness_residual"].max() <= 1e-4 * row["sharpness"].max()


def spectral_growth(matrix: np.ndarray, decayed: np.ndarray, momentum: float) -> float:
    """How much torch's SGD of rate 1 grows a step on the quadratic of a matrix, with decay .3 on some parameters."""
    from dynalab.optim.base import grouped

    n = len(matrix)
    # Stacked, so that a matrix has three axes and a bias two.
    weight = torch.randn(1, decayed.sum(), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.ones(1, n - decayed.sum(), dtype=torch.float64)
    params = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.SGD(grouped(params, "matrices"), lr=1.0, momentum=momentum, weight_decay=0.3)
    h, sizes = torch.from_numpy(matrix), []
    for step in range(400):
        x = torch.cat([weight.flatten(), bias.flatten()])
        loss = 0.5 * x @ h @ x
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 100:
            sizes.append(float(x.detach().norm()))
    return (sizes[-1] / sizes[0]) ** (1 / (len(sizes) - 1))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decay_on_matrices_alone_lowers_the_edge_by_what_it_adds_to_the_eigenvalue(momentum):
    """The first scale of a dense quadratic at which torch's own SGD grows is where H + D meets the bare threshold."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = basis @ np.diag([1.0, 0.6, 0.3, 0.1, 0.05, 0.02]) @ basis.T
    decayed = np.array([True, True, True, False, False, False])
    low, high = 0.5, 8.0
    for _ in range(24):
        middle = (low + high) / 2
        grows = spectral_growth(middle * matrix, decayed, momentum) > 1
        low, high = (low, middle) if grows else (middle, high)
    bare = 2 + 2 * momentum
    lowered = np.linalg.eigvalsh(low * matrix + 0.3 * np.diag(decayed))[-1]
    assert lowered == pytest.approx(bare, rel=2e-3)
    # Neither the full decay nor none is right here.
    assert bare - 0.3 + 0.02 < low < bare - 0.02


def test_the_threshold_knows_which_parameters_decay():
    words = ["optimizer=sgd", "optimizer.weight_decay=0.4", "optimizer.decay=matrices", "train.clip=0.2"]
    loop = loop_of([*words, "optimizer.lr=0.5", "optimizer.momentum=0", "probe.curvature.tolerance=1e-4"])
    for _ in range(4):
        loop.update()
    row = loop.rows()["every-2"]
    clip = loop.updates.upcoming().clip
    probe = loop.measuring.items[0].probe
    layout = Hessian(lambda w: probe._objective.losses(w, slice(0, 2)), loop.updates.evaluated()).layout
    on = {name: torch.ones_like(p) * (p.dim() > 2) for name, p in loop.updates.evaluated().items()}
    diagonal = layout.rows(on)[0, : layout.size].double()
    assert 0 < diagonal.sum() < layout.size
    for run in range(2):
        h = dense(loop, run)
        shifted = torch.linalg.eigvalsh(h + 0.4 / clip[run] * torch.diag(diagonal))[-1].item()
        assert row["decayed_sharpness"][run].item() == pytest.approx(shifted, rel=1e-4)
        limit = row["stability_threshold"][run].item()
        alone = torch.linalg.eigvalsh(h)[-1].item()
        assert limit == pytest.approx(4 / clip[run].item() - (shifted - alone), rel=1e-4)
        # At the edge of the one, at the edge of the other.
        assert (row["edge_ratio"][run].item() < 1) == (shifted < 4 / clip[run].item())
    # With decay on all of them the threshold is lower by the decay, as before.
    whole = loop_of(
        ["optimizer=sgd", "optimizer.weight_decay=0.4", "optimizer.lr=0.5", "optimizer.momentum=0"]
    )
    first = whole.rows()["every-2"]
    assert "decayed_sharpness" not in first
    torch.testing.assert_close(first["stability_threshold"], torch.full((2,), 3.6, dtype=torch.float64))


def test_looking_ahead_changes_nothing():
    """The update to come is computed with batch statistics, noise and second gradients, and leaves no trace."""
    words = ["model=si_mlp", "optimizer=sam", "train.clip=0.5", "model.width=8"]
    loop, plain = loop_of(words), loop_of(words)
    for _ in range(4):
        loop.rows()
        loop.update()
        plain.update()
    for name, tensor in loop.stack.state().items():
        assert torch.equal(tensor, plain.stack.state()[name]), name


def test_sams_threshold_takes_the_norm_of_the_gradient_to_come():
    loop = loop_of(["optimizer=sam", "optimizer.lr=0.2", "optimizer.momentum=0", "train.batch_size=full"])
    row = loop.rows()["every-2"]
    norm = loop.updates.upcoming().norm
    wanted = norm / 0.1 * ((1 + 0.4 / (0.2 * norm)).sqrt() - 1)
    torch.testing.assert_close(row["stability_threshold"], wanted, rtol=1e-6, atol=0)


def test_sam_is_its_two_lines_of_every_seed():
    loop = loop_of(["optimizer=sam", "optimizer.rho=0.3", "optimizer.momentum=0.9"], (0, 1, 2))
    copies = [[param.detach()[s].clone() for param in loop.params] for s in range(3)]
    buffers = [[torch.zeros_like(param) for param in own] for own in copies]
    network = copy.deepcopy(loop.stack.network).to_empty(device="cpu")
    names = list(loop.stack.params)

    def gradient(weights, batch, s):
        leaves = [w.detach().requires_grad_() for w in weights]
        outputs = torch.func.functional_call(network, dict(zip(names, leaves, strict=True)), batch.inputs[s])
        loss = torch.nn.functional.cross_entropy(outputs, batch.targets[s])
        return torch.autograd.grad(loss, leaves)

    for step in range(5):
        batch = loop.data.train_batch(step)
        loop.update()
        for s in range(3):
            first = gradient(copies[s], batch, s)
            norm = sum(g.square().sum() for g in first).sqrt()
            up = [w + 0.3 * g / norm for w, g in zip(copies[s], first, strict=True)]
            for w, m, g in zip(copies[s], buffers[s], gradient(up, batch, s), strict=True):
                m.mul_(0.9).add_(g)
                w.sub_(m, alpha=0.05)
    for s in range(3):
        for mine, plain in zip(loop.params, copies[s], strict=True):
            torch.testing.assert_close(mine[s], plain, rtol=1e-4, atol=1e-6)


WAYS = {
    "regression": ["task=regression", "model.hidden=[9]", "optimizer=sam"],
    "adam": ["task=digits", "task.n_train=40", "model.hidden=[7]", "optimizer=adam", "train.batch_size=9"],
    "attention": ["task=grokking", "task.modulus=7", "model=nanda", "model.width=8", "model.mlp_width=8"],
    "convolution": [
        "task=digits",
        "task.n_train=16",
        "model=si_convnet",
        "model.width=2",
        "optimizer=rmsprop",
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_bits_do_not_depend_on_width_nor_on_interruption(way, tmp_path):
    words = [*WAYS[way], "probes=[curvature]", "probe.curvature.every=3", "eval.every=3", "launcher=inline"]
    words += ["snapshots.at=never", "task.loss=mse"] if way == "attention" else ["snapshots.at=never"]

    def trained(folder: str, *more: str) -> dict:
        train([*words, *more], outputs=tmp_path / folder)
        return bits(only_ensemble(tmp_path / folder))

    together = trained("together", "seed=0..2", "train.steps=9", "compute.width=3")
    alone = trained("alone", "seed=1", "train.steps=9")
    trained("pieces", "seed=2", "train.steps=5")
    pieces = trained("pieces", "seed=2", "train.steps=9")
    assert difference(together["s0001"], alone["s0001"]) == []
    assert difference(together["s0002"], pieces["s0002"]) == []


@pytest.mark.parametrize("small", [0, 1 << 21])
def test_runs_that_are_differentiated_one_by_one_have_bits_of_their_own(small, tmp_path, monkeypatch):
    """Ten side by side and one over, or each alone where their graphs are large: nothing says how many there are."""
    monkeypatch.setattr("dynalab.curvature.hessian.SMALL", small)
    words = [
        "task=grokking",
        "task.modulus=7",
        "model.width=8",
        "probes=[curvature,spectrum]",
        "eval.every=3",
    ]
    words += [
        "probe.curvature.every=3",
        "probe.curvature.trace=2",
        "probe.spectrum.every=3",
        "probe.spectrum.m=9",
    ]
    words += ["launcher=inline", "snapshots.at=never", "train.steps=6"]
    (among,) = train([*words, "seed=0..10", "compute.width=11"], outputs=tmp_path / "among")
    together = bits(among.path)
    for seed in (4, 10):
        (alone,) = train([*words, f"seed={seed}"], outputs=tmp_path / f"alone{seed}")
        assert difference(together[f"s{seed:04d}"], bits(alone.path)[f"s{seed:04d}"]) == []


def test_a_joined_operator_is_each_runs_own():
    (request,) = read_command(["task=grokking", "task.modulus=7", "probes=[curvature]"]).requests
    loop = Loop(request.config, [Streams.from_seed(s) for s in range(3)], 10, torch.device("cpu"))
    objective = loop.measuring.items[0].probe._objective
    ((part, joined),) = operators(objective, loop.updates.evaluated())
    assert part == slice(0, 3)
    vectors = torch.randn(3, joined.layout.width, generator=torch.Generator().manual_seed(0))
    vectors[1] = 0.0
    product = joined.product(vectors)
    for run in range(3):
        own = {name: weight[run : run + 1] for name, weight in loop.updates.evaluated().items()}
        alone = Hessian(lambda w, run=run: objective.losses(w, slice(run, run + 1)), own)
        torch.testing.assert_close(product[run : run + 1], alone.product(vectors[run : run + 1]))
        torch.testing.assert_close(joined.gradient[run : run + 1], alone.gradient)
    assert not product[1].any() and product[0].any()


def test_the_default_cadence_is_counted():
    """Full batch, 500 examples, SGD: 3 + 3 + 6 * 11 passes a row, 3 an update: a twentieth at 480 steps."""

    def every(*words: str) -> int:
        (request,) = read_command(["task=digits", "task.n_train=500", "probes=[curvature]", *words]).requests
        return probe_cadences(request.config)["curvature"]

    assert every("train.batch_size=full") == 480
    assert every("train.batch_size=full", "eval.every=7") == 483
    assert every("train.batch_size=full", "train.steps=17") == 480
    assert every("train.batch_size=full", "optimizer=adam") == 920
    assert every("train.batch_size=50") > 4000
    assert every("train.batch_size=50", "probe.curvature.size=1") == 30
    assert every("train.batch_size=50", "probe.curvature.every=3") == 3


def test_a_run_that_diverges_leaves_its_sibling_alone():
    loop = loop_of(["optimizer=sgd"])
    clean = loop.rows()["every-2"]
    with torch.no_grad():
        for param in loop.params:
            param[0] = torch.nan
    broken = loop.rows()["every-2"]
    assert all(value[0].isnan() for name, value in broken.items() if "sharpness" in name)
    assert broken["sharpness"][1] == pytest.approx(clean["sharpness"][1].item(), rel=1e-3)
    assert np.isfinite(broken["edge_ratio"][1].item())


@pytest.mark.parametrize(
    "word", ["size=0", "eigenvalues=0", "eigenvalues=40", "tolerance=0", "tolerance=2", "trace=-1"]
)
def test_what_cannot_be_is_named(word):
    with pytest.raises(ConfigError, match=f"probe.curvature.{word.partition('=')[0]}"):
        read_command([*SMALL, f"probe.curvature.{word}"])


def test_new_optimizers_check_their_fields():
    for name, field in (("sam", "rho=-1"), ("rmsprop", "alpha=1"), ("rmsprop", "momentum=1")):
        with pytest.raises(ConfigError, match="optimizer"):
            read_command([*SMALL, f"optimizer={name}", f"optimizer.{field}"])
    (request,) = read_command(
        [*SMALL, "optimizer=lookahead", "optimizer.inner=rmsprop", "optimizer.inner_alpha=0.9"]
    ).requests
    assert request.config.optimizer.inner_config().alpha == 0.9 and request.config.optimizer.alpha == 0.5
    part = registry.find("optimizer", "lookahead")
    with pytest.raises(ConfigError, match=r"optimizer.inner_alpha"):
        part.config_class(inner="sgd", inner_alpha=0.5)


def test_a_search_starts_from_the_vector_of_the_last_row(monkeypatch):
    loop = loop_of(["optimizer=sgd", "optimizer.lr=0.001"])
    probe = loop.measuring.items[0].probe
    products: list[int] = []
    real = Hessian.product
    monkeypatch.setattr(Hessian, "product", lambda self, rows: (products.append(1), real(self, rows))[1])
    counts = []
    for _ in range(2):
        products.clear()
        loop.rows()
        counts.append(len(products))
        for _ in range(2):
            loop.update()
    assert set(probe.tensors()) == {"sharpness"} and counts[1] < counts[0], counts
