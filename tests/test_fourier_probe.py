"""The probe fourier: dense float64 projections, closed forms, Gromov's solution, trained networks by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynalab import analyze, train
from dynalab.config.command import read_command
from dynalab.core.batch import Batch
from dynalab.errors import ConfigError, NothingMatched
from dynalab.models.nets.pairs import Gromov
from dynalab.probes.base import ProbeState
from dynalab.probes.circle import Circle
from dynalab.probes.frequencies import Sums, component_norms, gini, participation
from dynalab.tasks import operations
from dynalab.tasks.classification import accuracy
from dynalab.tasks.operations import CYCLIC, cyclic
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def by_sum(logits: np.ndarray) -> Sums:
    """Outputs (n, n, n) on pairs (a, b) of residues, averaged over the pairs of a sum, slowly."""
    n = len(logits)
    means = np.array([np.mean([logits[a, (s - a) % n] for a in range(n)], axis=0) for s in range(n)])
    return Sums(means, float(np.square(logits - logits.mean(2, keepdims=True)).sum()))


def waves(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """cos(w_k (a + b)) and sin(w_k (a + b)) on all pairs, (n, n), of unit norm; of k = n / 2 the second is 0."""
    turn = 2 * np.pi * k / n * np.add.outer(np.arange(n), np.arange(n))
    pair = np.cos(turn), np.sin(turn)
    return tuple(w / np.linalg.norm(w) if 2 * k != n or w is pair[0] else 0 * w for w in pair)


@pytest.mark.parametrize("n", [3, 7, 10])
def test_power_and_parts_are_dense_projections(n):
    logits = np.random.default_rng(n).normal(size=(n, n, n)) + np.arange(n)
    found, centred = by_sum(logits), logits - logits.mean(2, keepdims=True)
    variance = np.square(centred - centred.mean((0, 1))).sum()
    places = np.arange(n)
    for k in range(1, n // 2 + 1):
        wave = np.cos(2 * np.pi * k / n * (places[:, None, None] + places[:, None] - places))
        wanted = (logits * wave).sum() ** 2 / np.square(wave).sum() / variance
        assert found.power()[k - 1] == pytest.approx(wanted, rel=1e-10)
        part = sum(np.einsum("ab,c->abc", w, np.einsum("ab,abc->c", w, logits)) for w in waves(n, k))
        np.testing.assert_allclose(found.part(np.arange(1, n // 2 + 1) == k), by_sum(part).means, atol=1e-12)
    whole = found.part(np.ones(n // 2, bool)) + found.means.mean(0)
    np.testing.assert_allclose(whole, found.means, atol=1e-12)


def test_shares_of_waves_are_those_of_their_squares():
    n, places = 11, np.arange(11)
    turn = 2 * np.pi / n * (places[:, None, None] + places[:, None] - places)
    noise = np.random.default_rng(0).normal(size=n)
    # What a guess among classes makes of its own, and what softmax does not see.
    logits = 3 * np.cos(2 * turn) + np.cos(5 * turn) + noise + 5 * np.add.outer(noise, noise)[..., None]
    np.testing.assert_allclose(by_sum(logits).power(), [0, 0.9, 0, 0, 0.1], atol=1e-12)
    assert not by_sum(np.zeros((n, n, n)) + noise).power().any(), "outputs without variance have no keys"


@pytest.mark.parametrize("n", [7, 10])
def test_component_norms_are_those_of_the_orthonormal_basis(n):
    table, places = np.random.default_rng(0).normal(size=(n, 4)), np.arange(n)
    basis = [np.ones(n), *(np.cos(2 * np.pi * k * places / n) for k in range(1, n // 2 + 1))]
    basis += [np.sin(2 * np.pi * k * places / n) for k in range(1, (n + 1) // 2)]
    unit = np.array([row / np.linalg.norm(row) for row in basis])
    np.testing.assert_allclose(unit @ unit.T, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(component_norms(table), np.linalg.norm(unit @ table, axis=1), rtol=1e-10)


def test_gini_is_half_the_relative_mean_difference():
    sizes = np.random.default_rng(0).exponential(size=30)
    wanted = np.abs(np.subtract.outer(sizes, sizes)).mean() / sizes.mean() / 2
    assert gini(sizes) == pytest.approx(wanted, rel=1e-12)
    assert gini(np.ones(9)) == pytest.approx(0, abs=1e-15)
    assert gini(np.eye(9)[3]) == pytest.approx(8 / 9)
    assert np.isnan(gini(np.zeros(9)))


def test_participation_counts_waves():
    n, places = 59, np.arange(59)
    one = np.cos(2 * np.pi * 4 * places / n + 0.3)
    two = one + np.sin(2 * np.pi * 9 * places / n)
    assert participation(one[:, None]) == pytest.approx(1)
    assert participation(np.stack([1e-200 * one, two, 0 * one], axis=1)) == pytest.approx(0.75)
    # Powers of white noise are exponential: 2 / (m + 1) of m frequencies.
    assert participation(np.random.default_rng(0).normal(size=(n, 4000))) == pytest.approx(2 / 31, rel=0.05)
    assert np.isnan(participation(np.zeros((n, 2))))


@pytest.mark.parametrize("modulus", [3, 7, 13])
@pytest.mark.parametrize("operation", CYCLIC)
def test_operations_are_additions_of_places(operation, modulus):
    places, table = cyclic(operation, modulus), operations.table(operation, modulus)
    wanted = {tuple(pair): int(result) for pair, result in zip(table.pairs, table.results, strict=True)}
    n = len(places.results)
    assert n == (modulus if operation in ("add", "subtract") else modulus - 1)
    assert len({*places.left.tolist()}) == len({*places.right.tolist()}) == n
    for i in range(n):
        for j in range(n):
            assert wanted[places.left[i], places.right[j]] == places.results[(i + j) % n]


def test_gromovs_solution_is_exact_and_one_wave_a_neuron():
    p, width, rng = 59, 200, np.random.default_rng(0)
    k, (one, two) = rng.integers(1, 30, size=width), rng.uniform(0, 2 * np.pi, size=(2, width))
    turn = 2 * np.pi / p * k[:, None] * np.arange(p)
    network = Gromov(p, p, width)
    first = np.concatenate([np.cos(turn + one[:, None]), np.cos(turn + two[:, None])], axis=1)
    with torch.no_grad():
        network.w1.copy_(torch.from_numpy(first))
        network.w2.copy_(torch.from_numpy(np.cos(turn + (one + two)[:, None]).T))
    circle = Circle.of(cyclic("add", p), CPU)
    targets = circle.pairs.sum(1) % p
    assert accuracy(network(circle.pairs)[None], targets[None]).item() == 1
    tables = network.tables(dict(network.named_parameters()))
    for table in (tables.symbols, tables.classes):
        assert participation(table.detach().double().numpy()) == pytest.approx(1, abs=1e-6)
    # The wave of a frequency has the size of the number of its neurons.
    (sums,) = circle.outputs(lambda inputs: network(inputs[0])[None].detach(), 1)
    counts = np.bincount(k, minlength=30)[1:]
    assert np.corrcoef(np.sqrt(sums.power()), counts)[0, 1] > 0.99
    assert 0.5 < sums.power().sum() < 1


BASE = ["task=grokking", "task.modulus=11", "probes=[fourier]", "eval.every=10"]
# Their thresholds have some of the frequencies of a network that has hardly learnt among the keys.
WAYS = {
    "embedding_mlp": ["model.width=12"],
    "gromov": ["model=gromov", "model.width=16", "task.loss=mse", "task.operation=subtract"],
    "nanda": ["model=nanda", "model.width=8", "model.heads=2", "model.mlp_width=16"],
    "onehot_mlp": ["model=onehot_mlp", "model.hidden=[12]", "task.operation=divide"],
    "power": ["model=power", "model.width=8", "model.heads=2", "task.operation=multiply"],
}


def loop_of(*words, seeds=(0, 1)):
    (request,) = read_command([*words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, CPU)


SHARES = {"embedding_mlp": 1e-4, "gromov": 2e-3, "nanda": 1e-4, "onehot_mlp": 1e-4, "power": 1e-5}


@pytest.mark.parametrize("way", WAYS)
def test_columns_are_their_definitions(way, monkeypatch):
    monkeypatch.setattr("dynalab.probes.circle.CHUNK", 25)  # Pieces of two sums, the last of one.
    loop = loop_of(*BASE, *WAYS[way], f"probe.fourier.share={SHARES[way]}")
    for _ in range(30):
        loop.update()
    row = {name: value for rows in loop.rows().values() for name, value in rows.items()}
    config, p = loop.config.task, 11
    table = operations.table(config.operation, p)
    results = {tuple(pair): int(c) for pair, c in zip(table.pairs.tolist(), table.results, strict=True)}
    places = cyclic(config.operation, p)
    n = len(places.results)
    for run in range(2):
        pairs = torch.tensor([(a, b) for a in places.left for b in places.right])
        params = {name: value[run].detach() for name, value in loop.stack.params.items()}

        def logits_of(inputs, params=params):
            with torch.no_grad():
                return torch.func.functional_call(loop.stack.network, params, (inputs,)).double().numpy()

        logits = logits_of(pairs)[:, places.results].reshape(n, n, n)
        power, keys = by_sum(logits).power(), by_sum(logits).power() > SHARES[way]
        assert keys.any() and not keys.all(), power
        np.testing.assert_allclose(row["fourier_power"][run], power, rtol=1e-3, atol=1e-6)
        assert row["fourier_key_frequencies"][run] == keys.sum()
        assert row["fourier_variance_explained"][run].item() == pytest.approx(power[keys].sum(), rel=1e-4)
        part = 0
        for wave in (wave for k in 1 + np.flatnonzero(keys) for wave in waves(n, k)):
            part = part + np.einsum("ab,c->abc", wave, np.einsum("ab,abc->c", wave, logits))
        kept = torch.from_numpy(logits.mean((0, 1)) + part).reshape(1, n * n, n)
        targets = torch.tensor([(i + j) % n for i in range(n) for j in range(n)])[None]
        wanted = loop.task.loss(kept, Batch(pairs[None], targets)).item()
        assert row["fourier_restricted_loss"][run].item() == pytest.approx(wanted, rel=1e-5)

        batch = loop.data.train
        left = torch.from_numpy(logits_of(batch.inputs[run])[:, :p].copy())
        for own, (a, b) in zip(left, batch.inputs[run].tolist(), strict=True):
            assert (a, b) in results
            if a in places.left and b in places.right:
                i, j = places.left.tolist().index(a), places.right.tolist().index(b)
                own[places.results] -= torch.from_numpy(part[i, j])
        wanted = loop.task.loss(left[None], Batch(batch.inputs[:1], batch.targets[run : run + 1])).item()
        assert row["fourier_excluded_loss"][run].item() == pytest.approx(wanted, rel=1e-5)
    neurons = way in ("embedding_mlp", "gromov", "onehot_mlp")
    assert ("fourier_participation_embedding" in row) == neurons
    assert all(row[name].isfinite().all() for name in row if name.startswith("fourier"))


def test_tables_of_nandas_network_are_the_papers():
    loop = loop_of(*BASE, *WAYS["nanda"])
    row = next(rows for rows in loop.rows().values() if "fourier_gini_embedding" in rows)
    own = {name: value[1].detach().double().numpy() for name, value in loop.stack.params.items()}
    assert row["fourier_gini_embedding"][1].item() == pytest.approx(gini(component_norms(own["w_e"][:11])))
    wanted = gini(component_norms((own["w_u"] @ own["w_out"])[:11]))
    assert row["fourier_gini_unembedding"][1].item() == pytest.approx(wanted)


def test_a_network_without_tables_and_one_that_diverged():
    loop = loop_of(*BASE, "model.width=12")
    probe = loop.measuring.items[0].probe
    probe._tables = None
    params = {name: value.detach().clone() for name, value in loop.stack.params.items()}
    params["output.weight"][1] = torch.inf
    row = probe.measure(ProbeState(step=10, params=params))
    assert "fourier_gini_embedding" not in row and len(row) == 5
    assert all(value[0].isfinite().all() and value[1].isnan().all() for value in row.values())


def test_rows_cost_a_twentieth_of_training():
    def every(*words):
        from dynalab.training.cadence import probe_cadences

        (request,) = read_command([*BASE, *words]).requests
        return probe_cadences(request.config)["fourier"]

    # 59^2 pairs and 1,392 examples beside three passes over 1,392: 23.3 updates, and 25 at least.
    assert every("task.modulus=59", "train.batch_size=full") == 30
    assert every("task.modulus=59", "train.batch_size=100") == 330
    assert every("task.modulus=59", "train.batch_size=100", "eval.size=10") == 240
    assert every("probe.fourier.every=7") == 7


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["task=digits"], "add, subtract, multiply, divide, not task=digits"),
        (["task=grokking", "task.operation=s5"], r"not task=grokking task\.operation=s5"),
        (["task=grokking", "task.operation=multiply", "task.modulus=15"], "prime"),
        (["task=grokking", "task.operation=divide", "task.modulus=3"], r"3 places.*has 2"),
        (["task=grokking", "probe.fourier.share=1.5"], r"probe\.fourier\.share"),
    ],
)
def test_what_it_cannot_measure_is_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        loop_of(*words, "probes=[fourier]")


def test_the_last_key_frequencies_are_those_of_all_rows(tmp_path):
    words = (
        "task=grokking task.modulus=23 task.train_fraction=0.6 model.width=32 optimizer.lr=0.02 eval.every=20"
    )
    rest = (
        "probes=[fourier] probe.fourier.every=20 snapshots.every=20 train.steps=260 seed=0..1 launcher=inline"
    )
    (ensemble,) = train(f"{words} {rest}".split(), outputs=tmp_path)
    own, last = analyze("progress", ensemble).value, analyze("progress", ensemble, frequencies="last").value
    for place, run in enumerate(ensemble.group().runs):
        power = run.blocks["fourier_power"]
        keys = [tuple(int(k) for k in 1 + np.flatnonzero(row > 0.05)) for row in power.values]
        assert last.runs[place].key_frequencies == own.runs[place].key_frequencies == keys[-1] != ()
        # Rows that have these keys have these losses; earlier ones have fewer keys.
        same = [step for step, row in zip(power.steps, keys, strict=True) if row == keys[-1]]
        assert 0 < len(same) < len(power.steps) and keys[0] == ()
        losses = last.losses[last.losses["run"] == run.id].set_index("step")
        for name in ("fourier_restricted_loss", "fourier_excluded_loss"):
            recorded = run.series[name].at(np.array(same))
            np.testing.assert_allclose(losses.loc[same, name], recorded, rtol=1e-3)
    words = "task=parity task.n=8 train.steps=20 eval.every=10 launcher=inline"
    (parity,) = train(words.split(), outputs=tmp_path)
    with pytest.raises(NothingMatched, match="frequencies=last needs task=grokking"):
        analyze("progress", parity, frequencies="last")
