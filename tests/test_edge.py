"""The edge of stability in its smallest setting: three seeds arrive, and at a quarter of the rate none does."""

from __future__ import annotations

import numpy as np

from dynalab import train

WORDS = ["experiment=cohen2021_eos", "probe.weights.every=600", "launcher=inline", "snapshots.at=never"]
WORDS += ["seed=0..2", "eval.every=20", "train.steps=1200"]


def test_gradient_descent_arrives_at_two_over_the_rate_and_stays(tmp_path):
    (ensemble,) = train(WORDS, outputs=tmp_path)
    ratio, steps = ensemble.array("edge_ratio"), ensemble.steps("edge_ratio")
    assert np.allclose(ensemble.array("stability_threshold"), 5.0)
    assert np.array_equal(ratio, ensemble.array("sharpness") / ensemble.array("stability_threshold"))
    for run in ratio:
        first = steps[np.argmax(run >= 1)]
        assert run[0] < 0.75 and 200 <= first <= 1200
        assert 0.95 <= np.median(run[-10:]) <= 1.1
    assert (ensemble.array("sharpness_residual") <= 1e-2 * ensemble.array("sharpness") * (1 + 1e-9)).all()
    assert "preconditioned_sharpness" not in ensemble.metrics


def test_a_quarter_of_the_rate_does_not(tmp_path):
    words = [*WORDS, "optimizer.lr=0.1"]
    (ensemble,) = train(words, outputs=tmp_path)
    ratio = ensemble.array("edge_ratio")
    assert ratio.max() < 0.9 and (ratio[:, -1] > 1.05 * ratio[:, 0]).all()
    loss = ensemble.array("train_loss")
    assert (np.diff(loss, axis=1) < 0).all()
