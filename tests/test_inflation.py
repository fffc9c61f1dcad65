"""Features that inflate: the imbalance of gradients by logit, and the stretches in which both norms grow under it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dynalab.analysis.base import Group
from dynalab.analysis.command import findings_of
from dynalab.analysis.slingshot import Config, inflation
from dynalab.config.command import read_command
from dynalab.config.registry import find
from dynalab.core.records import plain
from dynalab.probes.numerics import imbalance
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

STEPS = np.arange(0, 3000, 5)
QUIET = {
    "train_loss": np.maximum(2.0 * 10 ** (-STEPS / 60), 1e-8),
    "last_layer_norm": 20.0 + 0.0 * STEPS,
    "train_accuracy": np.where(STEPS < 100, 0.5, 1.0),
}
ADAM = {"optimizer": {"name": "adam", "eps": 1e-8}, "train": {"batch_size": "full", "loss_dtype": "float32"}}


def numerics(begin=1000, end=1600, rate=1 / 500, level=0.05):
    """Return the columns of an inflation between two steps, at a rate of growth of both norms a step."""
    inside = (begin <= STEPS) & (end > STEPS)
    height = rate * np.clip(STEPS - begin, 0, end - begin)
    return {
        "gradient_imbalance": np.where(inside, level, 1e-8),
        "class_mean_norm": 0.2 * np.exp(height),
        "feature_mean_norm": 90.0 * np.exp(2 * height),
        "class_feature_cosine": np.where(begin <= STEPS, -0.9, -0.2),
    }


def judged(columns, config=ADAM, settings=None):
    group = Group.of({"s0000": {**QUIET, **columns}}, STEPS)
    runs = [replace(run, config=config) for run in group.runs]
    (run,) = findings_of(
        [replace(group, runs=tuple(runs))], find("analysis", "slingshot"), settings or Config()
    ).runs
    return run


def test_an_inflation_without_a_spike_is_an_event_and_the_verdict():
    run = judged(numerics())
    (event,) = run.events
    assert run.verdict == event.kind == "inflation" and run.period_steps is None and run.slingshots == []
    assert abs(event.onset_step - 1000) <= 20 and abs(event.end_step - 1600) <= 50
    assert event.peak_step is None and event.amplitude_decades is None and event.confidence == 0.8
    assert "sum to 5% of their size" in event.reason and "no spike followed" in event.reason
    assert json.dumps(plain(run)).count('"peak_step": null') == 1
    # It is still going on where the run ends.
    (open_end,) = judged(numerics(end=3000)).events
    assert open_end.end_step is None


@pytest.mark.parametrize(
    "columns",
    [
        numerics(level=9e-4),
        numerics(end=1150),
        numerics(rate=0.0),
        numerics(rate=-1 / 500),
        {**numerics(), "class_mean_norm": 0.2 + 0 * STEPS},
        {**numerics(), "feature_mean_norm": 90.0 - STEPS / 100},
        {**numerics(), "gradient_imbalance": np.where(STEPS % 20 == 0, 1e-8, 0.05)},
        {**numerics(), "class_feature_cosine": -0.46 + 0 * STEPS},
    ],
    ids=["level", "short", "still", "shrinks", "W_G still", "mu_G shrinks", "now and then", "not opposed"],
)
def test_what_lacks_one_of_its_signs_is_none(columns):
    run = judged(columns)
    assert run.verdict == "no_events" and run.events == ()


def test_there_is_none_with_a_float64_loss_and_none_is_claimed_without_the_columns():
    double = {**ADAM, "train": {"loss_dtype": "float64"}}
    assert judged(numerics(), double).verdict == "no_events"
    old = judged({})
    assert old.verdict == "no_events" and {inflation.IMBALANCE, *inflation.NORMS} <= {*old.missing_channels}


def test_spikes_keep_their_names_verdict_and_period_beside_inflations():
    loss, norm = QUIET["train_loss"].copy(), QUIET["last_layer_norm"].copy()
    for onset in (1000, 1600, 2200):
        loss = np.maximum(loss, np.where(onset <= STEPS, 3.0 * np.exp(-np.maximum(STEPS - onset, 0) / 20), 0))
        norm = norm + 2.0 / (1 + np.exp(-np.clip((STEPS - onset + 40) / 15, -50, 50)))
    spikes = {"train_loss": loss, "last_layer_norm": norm}
    alone, both = judged(spikes), judged({**spikes, **numerics(1200, 1600)})
    assert alone.verdict == both.verdict == "slingshot"
    assert (both.period_steps, both.period_cv) == (alone.period_steps, alone.period_cv)
    assert tuple(both.spikes) == alone.events and len(both.events) == 4
    (event,) = (event for event in both.events if event.kind == "inflation")
    assert both.events.index(event) == 1 and "a spike at step 1,600 followed" in event.reason


def test_stretches_are_apart_where_their_windows_are():
    one, other = numerics(600, 1100), numerics(1700, 2300)
    columns = {name: np.maximum(one[name], other[name]) for name in one}
    columns |= {name: one[name] * other[name] for name in inflation.NORMS} | {
        inflation.COSINE: -1 + 0 * STEPS
    }
    events = judged(columns).events
    assert [round(event.onset_step, -2) for event in events] == [600, 1700]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_imbalance_is_what_rounding_leaves(dtype):
    words = ["task=digits", "task.n_train=200", "model=mlp", "model.hidden=[12]", "train.batch_size=full"]
    words += ["probes=[numerics]", f"train.loss_dtype={dtype}", "train.temperature=0.5"]
    (request,) = read_command(words).requests
    loop = Loop(request.config, [Streams.from_seed(seed) for seed in (0, 1)], 10, torch.device("cpu"))
    row, batch = loop.rows()["every-10"], loop.data.eval_batches("train")[0]
    assert row["gradient_imbalance"].max() < 1e-6
    params = {name: param.detach().double() for name, param in loop.stack.params.items()}
    for run in range(2):
        x = batch.inputs[run].double()
        feature = torch.relu(x @ params["layers.0.weight"][run].T + params["layers.0.bias"][run]).mean(0)
        classes = params["layers.1.weight"][run].mean(0)
        assert row["feature_mean_norm"][run].item() == pytest.approx(feature.norm().item(), rel=1e-5)
        assert row["class_mean_norm"][run].item() == pytest.approx(classes.norm().item(), rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    own = torch.nn.functional.one_hot(batch.targets, 10)
    for low, high, known in ((0, 5, 0.0), (18, 24, 1.0), (12, 24, None)):
        # Margins after the temperature; from 18 on nothing is left beside 1, and no own gradient of any example.
        margins = low + (high - low) * torch.rand(2, 200, 1, generator=generator)
        outputs = own * margins / 2 - 0.1 * torch.rand(2, 200, 10, generator=generator)
        gradients = (outputs.double() / 0.5).softmax(2) - own
        exact = gradients.mean(1)
        assert (exact.sum(1).abs() / exact.abs().sum(1)).max() < 1e-8, "in exact arithmetic it is 0"
        found = imbalance(loop.measuring.items[0].probe._by_logit(outputs.clone(), batch))
        if dtype == "float64" or known == 0.0:
            assert found.max() < 1e-5, (low, high)
        elif known == 1.0:
            torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-6)
        else:
            for run in range(2):
                leaf = outputs[run].clone().requires_grad_()
                torch.nn.functional.cross_entropy(leaf / 0.5, batch.targets[run]).backward()
                sums = leaf.grad.double().mean(0)
                expected = sums.sum().abs() / sums.abs().sum()
                assert 1e-3 < expected < 0.9
                torch.testing.assert_close(found[run], expected, rtol=1e-6, atol=0)


def test_an_imbalance_is_of_each_run_and_undefined_without_gradients():
    gradients = torch.tensor([[1.0, -1.0, 0.0], [1.0, -0.5, -0.25], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = imbalance(gradients)
    assert found[:2].tolist() == [0.0, pytest.approx(1 / 7)] and found[2].isnan()
