"""The probes numerics and scale_invariant against plain float64 on a network written out by hand."""

import numpy as np
import pytest
import torch

from dynalab import train
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.probes.numerics import margins_of
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

CPU = torch.device("cpu")
DIGITS = ["task=digits", "task.n_train=30", "model=mlp", "model.hidden=[12]", "train.batch_size=full"]


def loop_of(*words, seeds=(0, 1, 2)):
    (request,) = read_command([*words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, CPU)


def test_columns_are_those_of_float64_by_hand():
    loop = loop_of(*DIGITS, "probes=[numerics]", "optimizer=adam", "optimizer.lr=0.05", "train.steps=200")
    for _ in range(150):
        loop.update()
    row = loop.rows()["every-10"]
    batch = loop.data.eval_batches("train")[0]
    params = {name: p.detach().double() for name, p in loop.stack.params.items()}
    for run in range(3):
        x, y = batch.inputs[run].double(), batch.targets[run]
        feature = torch.relu(x @ params["layers.0.weight"][run].T + params["layers.0.bias"][run])
        logits = feature @ params["layers.1.weight"][run].T + params["layers.1.bias"][run]
        margin = [
            (z[k] - max(z[j] for j in range(10) if j != k)).item() for z, k in zip(logits, y, strict=True)
        ]
        assert row["min_margin"][run].item() == pytest.approx(min(margin), rel=1e-4)
        assert row["median_margin"][run].item() == pytest.approx(sorted(margin)[14], rel=1e-4)
        low = torch.nn.functional.cross_entropy(logits.float(), y, reduction="none")
        assert row["zero_loss_fraction"][run].item() == pytest.approx(
            (low == 0).double().mean().item(), abs=0.04
        )
        mean, rows = feature.mean(0), params["layers.1.weight"][run].mean(0)
        cosine = (mean @ rows / (mean.norm() * rows.norm())).item()
        assert row["class_feature_cosine"][run].item() == pytest.approx(cosine, abs=1e-5)
    assert row["zero_loss_fraction"].max() > 0, "the case must have losses that are rounded to 0"


def test_a_float64_loss_is_not_rounded_to_zero():
    words = [*DIGITS, "probes=[numerics]", "optimizer=adam", "optimizer.lr=0.05", "train.steps=200"]
    single, double = (loop_of(*words, f"train.loss_dtype={kind}") for kind in ("float32", "float64"))
    with torch.no_grad():
        for loop in (single, double):
            # Margins of some tens: e^-margin is lost beside 1 from 16 on in float32, from 37 on in float64.
            loop.params[2].mul_(5e2)
    fractions = [loop.rows()["every-10"]["zero_loss_fraction"] for loop in (single, double)]
    assert (fractions[0] >= fractions[1]).all() and fractions[0].sum() > fractions[1].sum()


def test_margins_are_to_the_best_other_class():
    outputs = torch.tensor([[[1.0, 5.0, 2.0], [4.0, 4.0, 0.0]]])
    assert margins_of(outputs, torch.tensor([[1, 2]])).tolist() == [[3.0, -4.0]]


def test_a_part_of_the_examples_and_chunks():
    words = [*DIGITS, "probes=[numerics]", "train.steps=1"]
    whole, part = loop_of(*words), loop_of(*words, "probe.numerics.size=30")
    few = loop_of(*words, "probe.numerics.size=7")
    a, b, c = (loop.rows()["every-10"]["median_margin"] for loop in (whole, part, few))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["task=regression"], "cross_entropy"),
        (["task=digits", "task.loss=mse"], "cross_entropy"),
        (["task=digits", "model=si_mlp"], "linear layer of their own"),
    ],
)
def test_what_it_cannot_measure_is_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        loop_of(*words, "probes=[numerics]")


def test_bits_do_not_depend_on_the_other_seeds():
    words = [*DIGITS, "probes=[numerics]", "train.steps=3"]
    alone, among = loop_of(*words, seeds=(1,)), loop_of(*words, seeds=(0, 1, 2))
    for loop in (alone, among):
        for _ in range(3):
            loop.update()
        loop.updates.step = 10
    one, three = alone.rows()["every-10"], among.rows()["every-10"]
    for name, column in three.items():
        assert torch.equal(one[name][:1].nan_to_num(), column[1:2].nan_to_num()), name


def test_scale_invariant_norm_and_effective_gradient(tmp_path):
    words = ["task=digits", "model=si_mlp", "task.n_train=50", "model.width=8", "train.batch_size=full"]
    loop = loop_of(
        *words, "probes=[scale_invariant]", "optimizer.lr=0.1", "optimizer.momentum=0", "eval.every=1"
    )
    before = [p.detach().clone() for p in loop.params]
    first = loop.rows()["every-1"]
    rho = np.sqrt(sum(float(p[0].double().square().sum()) for p in before))
    assert first["scale_invariant_norm"][0].item() == pytest.approx(rho, rel=1e-12)
    assert first["effective_gradient_norm"].isnan().all()
    loop.update()
    moved = np.sqrt(
        sum(
            float((p[0] - q[0]).detach().double().square().sum())
            for p, q in zip(loop.params, before, strict=True)
        )
    )
    found = loop.rows()["every-1"]["effective_gradient_norm"][0].item()
    # Plain descent moves by the rate times the gradient.
    assert found == pytest.approx(rho * moved / 0.1, rel=1e-3)


def test_scale_invariant_needs_such_a_network(tmp_path):
    with pytest.raises(ConfigError, match="si_mlp"):
        loop_of("task=digits", "probes=[scale_invariant]")
    (ensemble,) = train(
        ["task=digits", "model=si_mlp", "probes=[scale_invariant]", "train.steps=10", "launcher=inline"],
        outputs=tmp_path,
    )
    assert "scale_invariant_norm" in ensemble.metrics
