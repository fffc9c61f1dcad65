"""The probe `spectrum`: shares of eigenvalues against exact spectra, rows that no neighbour changes, the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stored import assert_same, bits

from dynalab import figures, load, train
from dynalab.config.command import read_command
from dynalab.curvature import bins
from dynalab.curvature.hessian import Hessian
from dynalab.errors import ConfigError
from dynalab.probes.spectrum import Config, default_every

SHORT = ["task=regression", "model.hidden=[20]", "train.steps=60", "launcher=inline", "snapshots.at=never"]
SHORT += ["probes=[gradients,spectrum]", "probe.spectrum.every=20", "probe.spectrum.m=30", "eval.every=20"]


def test_bins_are_a_logarithmic_grid_on_either_side_of_0():
    grid = bins.edges(0.01, 100, 2)
    np.testing.assert_allclose(grid[len(grid) // 2 :], [0.01 * 10 ** (k / 2) for k in range(9)])
    np.testing.assert_allclose(grid, -grid[::-1])
    np.testing.assert_allclose(bins.place(grid, grid), np.arange(len(grid)), atol=1e-9)
    assert bins.place(0.0, grid) == (len(grid) - 1) / 2
    # Half of the way to an edge around 0, half of a bin in logarithms; beyond the edges, on them.
    np.testing.assert_allclose(bins.place([0.005, 10**0.25, 1e9, -1e9], grid) - 8.5, [0.25, 5.0, 8.5, -8.5])
    assert len(bins.edges(1e-4, 1e4, 4)) == 2 * (32 + 1)


def test_shares_of_points_and_of_what_is_spread():
    grid = bins.edges(0.1, 10, 1)
    nodes = np.array([-50.0, -0.5, 0.0, 0.05, 1.0, 3.0])
    points = bins.shares(nodes, np.array([1, 1, 1, 1, 2, 4.0]), np.zeros(6), grid)
    np.testing.assert_allclose(points, np.array([1, 1, 2, 0, 6]) / 10)
    # 1.0 lies on an edge: half of it on either side.
    spread = bins.shares(np.array([1.0]), np.ones(1), np.array([0.1]), grid)
    np.testing.assert_allclose(spread, [0, 0, 0, 0.5, 0.5], atol=1e-9)
    assert np.isnan(bins.shares(np.array([np.nan]), np.ones(1), np.ones(1), grid)).all()
    widths = bins.widths(np.array([[0.0, 1.0, 1.4]]), np.array([[5.0, 0.01, 5.0]]))
    np.testing.assert_allclose(widths, [[0.25, 0.01, 0.1]])


def test_recorded_shares_are_those_of_the_exact_spectrum(tmp_path, one_thread):
    (ensemble,) = train([*SHORT, "seed=0..1", "probe.spectrum.m=61"], outputs=tmp_path)
    names = bins.columns_of(ensemble.metrics)
    grid = Config().edges()
    assert len(names) == len(grid) - 1 and ensemble.steps(names[0]).tolist() == [0, 20, 40, 60]
    found = np.stack([ensemble.array(name) for name in names], axis=2)
    np.testing.assert_allclose(found.sum(2), 1.0, atol=1e-12)
    (request,) = read_command(SHORT).requests
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams

    loop = Loop(request.config, [Streams.from_seed(seed) for seed in (0, 1)], 60, torch.device("cpu"))
    objective = loop.measuring.items[1].probe._objective
    params = {name: p.double() for name, p in loop.updates.evaluated().items()}
    batch, stack = objective.batch, objective.stack

    def losses(weights):
        outputs = stack.forward(batch.inputs.double(), weights, training=True, noise={}, buffers={})
        return objective.loss(outputs, type(batch)(batch.inputs.double(), batch.targets.double()))

    hessian = Hessian(losses, params)
    size = hessian.layout.size
    basis = torch.eye(hessian.layout.width, dtype=torch.float64)[:size]
    dense = torch.stack([hessian.product(row.expand(2, -1))[:, :size] for row in basis], 1)
    values = torch.linalg.eigvalsh(dense).numpy()
    for run in range(2):
        exact = bins.shares(values[run], np.ones(size), np.zeros(size), grid)
        off = np.abs(np.cumsum(found[run, 0]) - np.cumsum(exact)).max()
        # One start: the weight of an eigenvalue is 1 / P only on average.
        assert off < 0.25, off
        assert ensemble.array("eigenvalue_max")[run, 0] == pytest.approx(values[run, -1], rel=1e-4)
        assert ensemble.array("eigenvalue_min")[run, 0] == pytest.approx(values[run, 0], rel=1e-2, abs=1e-5)


def test_rows_do_not_depend_on_neighbours_or_interruptions(tmp_path, one_thread):
    words = [*SHORT, "probes=[gradients,curvature,spectrum]", "probe.curvature.every=20"]
    (alone,) = train([*words, "seed=1"], outputs=tmp_path / "a")
    (among,) = train([*words, "seed=0..4", "train.steps=30"], outputs=tmp_path / "b")
    (among,) = train([*words, "seed=0..4"], outputs=tmp_path / "b")
    assert_same(bits(alone.path), bits(among.path), ["s0001"])


def test_the_cadence_counts_the_products():
    (request,) = read_command([*SHORT, "probe.spectrum.every=null", "eval.every=10"]).requests
    # A gradient and 80 products of six passes each, against updates of three passes, a twentieth.
    assert default_every(Config(), request.config) == 20 * (3 + 6 * 80) / 3
    assert default_every(Config(m=40, starts=4), request.config) == 20 * (3 + 6 * 160) / 3
    for wrong in ({"m": 1}, {"low": 0.0}, {"high": 1e-9}, {"per_decade": 1000}):
        with pytest.raises(ConfigError, match=r"probe\.spectrum"):
            Config(**wrong)


@pytest.mark.usefixtures("undrawn")
def test_the_page_has_a_map_and_export_the_columns(here, tmp_path):
    train([*SHORT, "seed=0..1"], outputs=tmp_path / "outputs")
    assert here("analyze", "spectrum").code == 0
    page = here("report")
    assert page.code == 0, page.err
    text = Path(page.out.strip()).read_text()
    assert "Spectral density of the Hessian over time" in text and "eigenvalue_share_000" not in text
    done = here("runs", "export", "@last", "--to", str(tmp_path / "out.csv"))
    assert "eigenvalue_share_000" in (tmp_path / "out.csv").read_text().partition("\n")[0], done.err
    assert "eigenvalue_share_000" in load("@last", outputs=tmp_path / "outputs").frame().columns


def test_the_map_draws_bins_where_they_are():
    grid = bins.edges(0.01, 100, 4)
    shares = np.zeros((5, len(grid) - 1))
    shares[:, 20] = 0.9
    shares[:, 27] = 0.1
    steps = np.arange(0, 100, 20)
    top = (steps, np.full(5, 3.0))
    figure = figures.spectral_density(["a"], [steps], [shares], grid, largest=[top], threshold=[top])
    ax = figure.axes[0]
    low, high = ax.get_ylim()
    assert low < 20 < 28 < high and high - low < 14
    ticks = dict(zip([text.get_text() for text in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    assert ticks["1"] == pytest.approx(bins.place(1.0, grid))
    assert ax.lines[0].get_ydata()[0] == pytest.approx(bins.place(3.0, grid))
    mesh = ax.collections[0].get_array()
    assert np.ma.count(mesh) == 10
