"""Barriers between runs before and after matching, curves, likeness of outputs, phases, stability to noise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from groups import NETWORKS, of_networks

from dynalab.analysis import connectivity
from dynalab.analysis.command import findings_of
from dynalab.analysis.connectivity import similarity, summary
from dynalab.analysis.connectivity.curve import curves
from dynalab.analysis.connectivity.findings import Barrier, Over, Pair, over, phase_of
from dynalab.analysis.connectivity.measure import Networks
from dynalab.analysis.connectivity.similarity import biased_cka, cka
from dynalab.config.registry import find
from dynalab.core.weights import Weights
from dynalab.errors import ConfigError, NothingMatched
from dynalab.models.describe import permutations_of
from dynalab.networks.matching import reordered
from dynalab.show.blocks import Lines, Say, Similarities
from dynalab.show.plots import draw

STEPS = np.arange(0, 41, 20)

pytestmark = pytest.mark.usefixtures("one_thread")


def found(groups, **keys):
    part = find("analysis", "connectivity")
    groups = groups if isinstance(groups, list) else [groups]
    return findings_of(groups, part, connectivity.Config(**{"points": 5, **keys}))


@pytest.fixture(scope="module")
def group():
    return of_networks(STEPS, 4, *NETWORKS)


@pytest.fixture(scope="module")
def copies():
    """Four runs with the weights of one, their hidden units in other orders; every unit has a norm."""
    group = of_networks(STEPS, 4, *NETWORKS, "model.norm=batch", split=0)
    own, rng, runs = group.runs[0].weights.at(40), np.random.default_rng(0), []
    for run in group.runs:
        weights = own
        for permutation in permutations_of(run.network(40)):
            weights = reordered(weights, permutation, rng.permutation(permutation.size))
        runs.append(replace(run, weights=Weights(run.id, lambda: (40,), lambda step, w=weights: w)))
    return replace(group, runs=tuple(runs))


def test_copies_with_other_orders_of_units_are_brought_back_to_no_barrier(copies):
    findings = found(copies)
    assert findings.matching == "weights" and len(findings.pairs) == 6
    lines = [pair.line.loss for pair in findings.pairs]
    assert max(lines) > 0.04
    for pair in findings.pairs:
        assert pair.aligned.loss == pytest.approx(0, abs=1e-5) and pair.aligned.distance == 0
        assert pair.verdict == "connected" and pair.cka == pytest.approx(1)
    apart = found(copies, align=False)
    assert apart.matching == "none" and [pair.line.loss for pair in apart.pairs] == lines
    assert all(pair.aligned is None for pair in apart.pairs)


def test_a_pair_is_measured_on_the_examples_of_both(group):
    findings = found(group, points=3, align=False)
    stack = group.stack(40)
    own, x = stack.examples("train"), stack.params
    middle = {name: (w[0] + w[2]) / 2 for name, w in x.items()}
    told = []
    for place in (0, 2):
        for state in ({n: w[0] for n, w in x.items()}, middle, {n: w[2] for n, w in x.items()}):
            everywhere = {name: w.expand(4, *w.shape).contiguous() for name, w in state.items()}
            told.append(float(stack.losses(everywhere, own)[place]))
    values = (np.array(told[:3]) + np.array(told[3:])) / 2
    table = findings.curves
    rows = table[(table["one"] == group.runs[0].id) & (table["other"] == group.runs[2].id)]
    np.testing.assert_allclose(rows["loss"], values, rtol=1e-5)
    pair = next(p for p in findings.pairs if (p.one[-1], p.other[-1]) == ("0", "2"))
    assert pair.line.loss == pytest.approx(max(values[1] - values[[0, 2]].mean(), 0), rel=1e-4)
    # With examples in common each pair is measured once, and comes to the same.
    shared = of_networks(STEPS, 4, *NETWORKS, split=0)
    networks = Networks.of(shared, 40, None, "train", 1000)
    assert networks.shared and len(list(networks._passes())) == 2
    assert {pair for one in networks._passes() for pair in one} == set(networks.pairs)


def test_a_trained_curve_goes_round_what_the_line_goes_over(copies):
    networks = Networks.of(copies, 40, None, "train", 1000)
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    straight = networks.lines(shares, False)
    bent = curves(networks, shares, False, 60, 0.02)
    worst = max(bent, key=lambda pair: straight[pair].barrier().loss)
    assert bent[worst].barrier().loss < 0.3 * straight[worst].barrier().loss
    np.testing.assert_allclose(bent[worst].loss[[0, -1]], straight[worst].loss[[0, -1]], rtol=0.2)


def test_steps_of_a_run_are_compared_with_each_other(group):
    findings = found(group, to=0)
    assert [(pair.one, pair.other) for pair in findings.pairs] == [(run.id, run.id) for run in group.runs]
    assert (findings.step, findings.other_step, findings.matching) == (40, 0, "none")
    assert findings.pairs[0].cka is None


def test_likeness_of_unrelated_outputs_is_0_without_bias():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40, 20))
    draws = [cka(*rng.normal(size=(2, 40, 20))) for _ in range(60)]
    assert abs(np.mean(draws)) < 0.02 and biased_cka(one, other) > 0.3
    turned = one @ np.linalg.qr(rng.normal(size=(20, 20)))[0] * 3 + 1
    assert cka(one, turned) == pytest.approx(1) and biased_cka(one, turned) == pytest.approx(1)
    # The estimate is the mean over quadruples of different examples.
    x, y = rng.normal(size=(2, 6, 2))
    k, m = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i in range(6) for j in range(6) for q in range(6) for r in range(6) if len({i, j, q, r}) == 4
    ]  # fmt: skip
    hollow = [gram - np.diag(np.diag(gram)) for gram in (k, m)]
    assert similarity._hsic(*hollow) / (6 * 3) == pytest.approx(np.mean(terms))
    # Neither depends on where the outputs' mean is, and large means do not drown the rest.
    assert cka(x + 1e6, y) == pytest.approx(cka(x, y), rel=1e-6)
    centred = x - x.mean(0), y - y.mean(0)
    published = np.linalg.norm(centred[0].T @ centred[1]) ** 2
    published /= np.linalg.norm(centred[0].T @ centred[0]) * np.linalg.norm(centred[1].T @ centred[1])
    assert biased_cka(x, y) == pytest.approx(published)
    assert np.isnan(cka(np.ones((5, 2)), one[:5])) and np.isnan(cka(one[:3], other[:3]))


def test_layers_are_compared_before_what_follows_them(group):
    findings = found(group, layer_examples=30)
    (setting,) = findings.summary
    networks = [run.network(40) for run in group.runs]
    inputs = group.stack(40).examples("train").batches[0].inputs[0, :30]
    given = []
    for network in networks:
        own: list[np.ndarray] = []
        linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
        hooks = [
            module.register_forward_hook(lambda *at, own=own: own.append(at[2].detach().double().numpy()))
            for module in linear
        ]
        with torch.no_grad():
            network.eval()(inputs)
        for hook in hooks:
            hook.remove()
        given.append(own)
    assert len(setting.layers) == len(given[0]) > 1
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for place, layer in enumerate(setting.layers):
        for over_pairs, measure in ((layer.cka, cka), (layer.cka_published, biased_cka)):
            values = [measure(given[i][place], given[j][place]) for i, j in pairs]
            assert over_pairs.pairs == 6 and over_pairs.value == pytest.approx(np.mean(values), abs=1e-5)
            assert over_pairs.interval == (None, None)  # four runs say next to nothing of others
    # All layers of the first pair, those of the first run down.
    n = len(given[0])
    expected = [[cka(mine, theirs) for theirs in given[1]] for mine in given[0]]
    np.testing.assert_allclose(findings.layers["cka"].to_numpy().reshape(n, n), expected, atol=1e-5)
    (map_,) = next(block for block in summary.show(findings, [group]) if isinstance(block, Similarities)).maps
    np.testing.assert_allclose(map_.values, expected, atol=1e-5)
    assert found(group, layer_examples=0).summary[0].layers == ()
    with pytest.raises(ConfigError, match="layer_examples=3"):
        found(group, layer_examples=3)


def test_the_layers_of_copies_with_other_orders_of_units_are_alike(copies):
    for layer in found(copies, points=3).summary[0].layers:
        assert layer.cka.value == pytest.approx(1, abs=1e-5)


def test_layers_of_two_steps_are_compared(group):
    (setting,) = found(group, to=0).summary
    assert all(layer.cka.pairs == 4 and layer.cka.value < 1 for layer in setting.layers)


def test_intervals_of_pairs_are_over_runs():
    names, rng = [f"r{i}" for i in range(12)], np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        effect = rng.normal(size=12)
        pairs = [
            Pair(names[i], names[j], "apart", Barrier(float(effect[i] + effect[j]), None, None, 1.0))
            for i in range(12)
            for j in range(i)
        ]
        low, high = over(pairs, lambda pair: pair.line.loss).interval
        hits += low <= 0 <= high
    # As if 66 pairs were independent it would be a third of that.
    assert 0.9 <= hits / 200 <= 0.99
    assert over(pairs[:1], lambda pair: pair.line.loss).interval == (None, None)


def test_phases_go_by_three_measures():
    cuts = (-1.0, 2.5, 0.65)
    told = {
        phase_of(*measures, cuts)
        for measures in [(-5, 3, 0.9), (-5, 1, 0.9), (0, 3, 0.9), (0, 1, 0.5), (0, 1, 0.9)]
    }
    assert told == {"I", "II", "III", "IV-A", "IV-B"}
    assert phase_of(-1.0, 2.5, 0.65, cuts) == "IV-B" and phase_of(0, None, 0.9, cuts) is None
    assert phase_of(0, 1, None, cuts) is None and phase_of(0, 3, None, cuts) == "III"


def test_settings_of_a_sweep_are_told_apart(group, copies):
    groups = [
        replace(own, id=name, runs=tuple(replace(run, config={"model": {"norm": name}}) for run in own.runs))
        for name, own in (("none", group), ("batch", copies))
    ]
    findings = found(groups, taxonomy=True, cut_connectivity=-1e3, cut_sharpness=1e3, cut_cka=0.99)
    assert [setting.phase for setting in findings.summary] == ["IV-A", "IV-B"]
    assert [setting.keys for setting in findings.summary] == [{"model.norm": "none"}, {"model.norm": "batch"}]
    assert all(np.isfinite(setting.ln_lambda_max) for setting in findings.summary)
    words = next(block.text for block in connectivity.show(findings, []) if isinstance(block, Say))
    assert "of 2 settings, **1 in phase IV-A**" in words


def test_what_is_drawn_and_said(copies):
    findings = found(copies, curve=True, curve_steps=3)
    blocks = list(connectivity.show(findings, [copies]))
    lines = next(block for block in blocks if isinstance(block, Lines))
    assert list(lines.panels[0].curves) == ["the line", "the line, units matched", "a trained curve"]
    assert draw(lines).axes[-1].get_xlabel() == "share of the way"
    words = next(block.text for block in blocks if isinstance(block, Say))
    assert (
        "once hidden units are matched" in words and "**6 of 6 pairs** are connected, with a barrier" in words
    )
    assert summary._value(Over(6, 0.2, (-0.1, 1.2)), 100.0) == "20% [0, 100]"
    assert summary._value(Over(6, 0.0, (0.0, 0.0))) == "0"


def test_what_cannot_be_measured_is_said_in_a_line(group):
    with pytest.raises(NothingMatched, match=r"pairs of runs take two of them, and there is one; to=STEP"):
        found(replace(group, runs=group.runs[:1]))
    with pytest.raises(NothingMatched, match="no weights of step 7 were kept"):
        found(group, at=7)
    with pytest.raises(ConfigError, match="to=40: expected another step than 40"):
        found(group, to=40)
    power = of_networks(
        STEPS, 2, "task=grokking", "task.modulus=5", "model=nanda", "model.heads=2", "model.mlp_width=4"
    )
    with pytest.raises(NothingMatched, match="does not say which of its hidden units may change places"):
        found(power, align=True)
    findings = found(power)
    assert findings.matching == "undescribed" and "align=false" in findings.warnings[0]
    assert found(power, align=False).warnings == ()


def test_confirming_trains_forks_with_other_orders(here, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(tmp_path / "outputs"))
    short = [
        "task=digits",
        "task.n_train=60",
        "task.n_test=20",
        "model.hidden=[5]",
        "train.steps=20",
        "eval.every=10",
    ]
    assert here("train", *short, "train.batch_size=10", "seed=0..1").code == 0
    answer = here(
        "analyze", "connectivity", "--confirm", "from_step=7", "points=3", "launcher=inline", "--json"
    )
    assert answer.code == 0, answer.err
    (analysis,) = json.loads(answer.out)["analyses"]
    told = analysis["confirmation"]
    assert told["at_step"] == 7 and len(told["forks"]) == 2 and len(told["runs"]) == 2
    assert all(pair["one"] != pair["other"] and pair["line"]["distance"] > 0 for pair in told["runs"])
    assert here("train", *short, "train.batch_size=full", "seed=0..1").code == 0
    answer = here("analyze", "connectivity", "--confirm", "points=3", "launcher=inline")
    assert answer.code == 4 and "order of the examples has no effect" in answer.err
