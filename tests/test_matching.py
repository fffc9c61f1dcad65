"""Hidden units that change places: what a model says of them, and how networks are matched by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from groups import of_networks

from dynalab.models.describe import permutations_of
from dynalab.networks.matching import matched, reordered

DIGITS = ("task=digits", "task.n_train=12", "task.n_test=4", "train.batch_size=6")
GROKKING = ("task=grokking", "task.modulus=7")
NETWORKS = {
    "mlp": (*DIGITS, "model.hidden=[6,5]"),
    "normed": (*DIGITS, "model.hidden=[6,5]", "model.norm=batch"),
    "si_mlp": (*DIGITS, "model=si_mlp", "model.width=6"),
    "si_convnet": (*DIGITS, "model=si_convnet", "model.width=2"),
    "resnet18": (*DIGITS, "model=resnet18", "model.width=4"),
    "resnet20": (*DIGITS, "model=resnet20", "model.width=4"),
    "layer": (*DIGITS, "model=resnet20", "model.width=4", "model.norm=layer"),
    "plain": (*DIGITS, "model=resnet20", "model.width=4", "model.residual=false"),
    "embedding_mlp": (*GROKKING, "model.width=6"),
    "gromov": (*GROKKING, "model=gromov", "model.width=6", "task.loss=mse"),
    "onehot_mlp": (*GROKKING, "model=onehot_mlp", "model.hidden=[6,5]"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shuffled_copy_does_the_same_and_is_brought_back(name):
    group = of_networks(np.array([0, 10]), 1, *NETWORKS[name])
    run, rng = group.runs[0], np.random.default_rng(0)
    # Statistics that differ from unit to unit.
    own = {
        key: np.abs(x) + rng.random(x.shape).astype(x.dtype) + 0.1 if "running" in key else x
        for key, x in run.weights.at(10).items()
    }
    permutations = permutations_of(run.network(10))
    assert permutations
    shuffled = own
    for permutation in permutations:
        shuffled = reordered(shuffled, permutation, rng.permutation(permutation.size))
    hidden = {key for key, x in own.items() if not np.array_equal(x, shuffled[key])}
    inputs = torch.from_numpy(run.examples("train", 8)[0])
    one, other = (run.learner.network(weights).eval()(inputs) for weights in (own, shuffled))
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    assert hidden
    weighed = [key for key in own if "running" not in key]
    back = matched(own, shuffled, permutations, weighed)
    assert all(np.array_equal(back[key], own[key]) for key in own)


def test_a_model_that_says_nothing_has_none_and_a_wrong_hint_is_named():
    from dynalab.errors import ConfigError
    from dynalab.models.base import Permutation

    assert permutations_of(torch.nn.Linear(2, 3)) == []
    network = torch.nn.Linear(2, 3)
    network.permutations = [Permutation(3, (("weight", 1, 0),))]
    with pytest.raises(ConfigError, match=r"units 0 to 2 along axis 1 of weight, of shape \(3, 2\)"):
        permutations_of(network)
    network.permutations = [Permutation(3, (("scale", 0, 0),))]
    with pytest.raises(ConfigError, match="scale, which the network does not have"):
        permutations_of(network)
    groups = of_networks(np.array([0, 10]), 1, *NETWORKS["resnet20"], "model.norm=group", "model.groups=2")
    assert permutations_of(groups.runs[0].network(10)) == []
