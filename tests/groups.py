"""A group of runs for every analysis, with something to find, and the steps that it is cut at by tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nulls.compare import groups as settings

from dynalab.analysis.base import Convergence, Group
from dynalab.core.batch import InputSpec
from dynalab.core.blocks import BlockRows
from dynalab.core.weights import Learner, Weights
from dynalab.curvature import bins


@dataclass(frozen=True)
class Example:
    """A group with something to find.

    Attributes:
        group: The group.
        others: Those that are analysed with it, by an analysis across groups.
        cuts: Steps, before and after what is found, that it is cut at.
        keys: Keys of the analysis that make it fast.
    """

    group: Group
    cuts: tuple[int, ...]
    keys: dict[str, Any] = field(default_factory=dict)
    others: tuple[Group, ...] = ()

    @property
    def groups(self) -> list[Group]:
        """The group and those beside it."""
        return [self.group, *self.others]


def periods() -> Example:
    """One run under weight decay with periods, one on the sphere that diverges: the regime of the whole run."""
    steps = np.arange(0, 8000, 10)
    phase = (steps - 500) % 2000
    norm = np.exp(-1e-3 * phase + 2 * np.clip((phase - 1940) / 60, 0, 1))
    decaying = {
        "scale_invariant_norm": norm,
        "train_loss": 1e-4 * (1 + 1e4 * np.exp(-(((phase - 1970) / 30) ** 2))),
    }
    sphere = {
        "scale_invariant_norm": 2 + 0.0 * steps,
        "effective_gradient_norm": 8 + 0.0 * steps,
        "batch_loss": np.linspace(0.6, 0.1, len(steps)),
    }
    config = {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}, "task": {"name": "digits"}}
    group = Group.of({"s0000": decaying, "s0001": sphere}, steps, config=config)
    free = {"optimizer": {"name": "sgd", "lr": 0.001}, "task": {"name": "digits"}}
    runs = (
        group.runs[0],
        replace(group.runs[1], config=free, status="diverged", diverged_step=8000),
    )
    return Example(replace(group, runs=runs), (3000, 7000))


def compare() -> Example:
    """Three settings, each later than the one before; in the last some runs never generalise."""
    group, *others = settings(0, n=6, last=3000, delays=(1.0, 1.5, 2.5))
    return Example(group, (1000, 2000), others=tuple(others))


def variance() -> Example:
    """A crossed design in which one stream decides most."""
    rng, steps, runs = np.random.default_rng(0), np.arange(0, 1001, 10), {}
    for i, j in itertools.product(range(4), range(4)):
        at = 500 + 60 * i + 40 * rng.normal()
        runs[f"init{i}-order{j}"] = {"test_accuracy": np.where(steps >= at, 0.95, 0.1)}
    group = replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))
    return Example(group, (700,), {"draws": 400})


def hmm() -> Example:
    """Runs that pass through three states of level, some by a detour, and converge when they enter the last."""
    rng, steps, runs = np.random.default_rng(1), np.arange(0, 600, 10), {}
    middle = {0: (0, 0, 0), 1: (4, -3, 2), 2: (1, 5, -4), 3: (-5, 1, 3)}
    for place in range(8):
        around, first = place % 2, 150 + 12 * place
        changes = [first, first + 120 * around, first + 120 * around + 100]
        state = np.where(
            steps < first, 0, np.where(steps < changes[1], 1, np.where(steps < changes[2], 2, 3))
        )
        values = np.array([middle[k] for k in state]) + 0.3 * rng.normal(size=(len(steps), 3))
        columns = dict(zip(("mean_w", "trace", "l1_over_l2"), values.T, strict=True))
        runs[f"s{place:04d}"] = {**columns, "test_accuracy": np.where(state == 3, 0.95, 0.1)}
    group = replace(Group.of(runs, steps), convergence=Convergence("test_accuracy", 0.9))
    keys = {
        "metrics": ["mean_w", "trace", "l1_over_l2"],
        "emission": "level",
        "n_states": 4,
        "restarts": 2,
        "folds": 2,
    }
    quick = {"workers": 1, "stability": False, "baselines": False, "n_iter": 20}
    return Example(group, (300, 550), {**keys, **quick})


def progress() -> Example:
    """A coefficient that leads in two runs, one that follows, one of neither, one that diverges."""
    steps, runs = np.arange(0, 201, 10), {}
    for label, crossed, left in (
        ("s0000", 60, 100),
        ("s0001", 80, 120),
        ("s0002", 160, 140),
        ("s0003", 999, 999),
        ("s0004", 60, 999),
    ):
        runs[label] = {
            "test_accuracy": np.where(steps >= left, 1.0, 0.5),
            "parity_fourier": np.where(steps >= crossed, 50.0, 1.0),
            "parity_separation": np.where(steps == 0, np.nan, 1.5),
        }
    group = Group.of(runs, steps)
    diverged = replace(group.runs[-1].until(150), status="diverged", diverged_step=160)
    return Example(replace(group, runs=(*group.runs[:-1], diverged)), (70, 155, 180))


def spectrum() -> Example:
    """Bins of a spectrum whose largest eigenvalue grows as its negative ones vanish; a run without bins."""
    steps, grid = np.arange(0, 101, 10), bins.edges(0.1, 100, 1)
    config = {"probe": {"spectrum": {"low": 0.1, "high": 100, "per_decade": 1}}}
    runs = {}
    for row in range(3):
        shares = np.zeros((len(steps), len(grid) - 1))
        shares[:, 1] = 0.3 - 0.003 * steps
        shares[:, 3] = 0.6
        shares[:, 5] = 1 - shares.sum(1)
        runs[f"s000{row}"] = {name: shares[:, place] for place, name in enumerate(bins.names(7))}
        runs[f"s000{row}"] |= {"eigenvalue_max": 2.0 + row + steps / 20, "eigenvalue_min": -3 + 0.03 * steps}
        runs[f"s000{row}"]["stability_threshold"] = 20.0 + 0 * steps
    runs["s0002"] = {name: np.full(len(steps), np.nan) for name in runs["s0002"]}
    return Example(Group.of(runs, steps, config=config), (5, 55))


def examples() -> Example:
    """Six runs on forty examples that all of them hold out; some are better, and one example is forgotten by all."""
    rng, steps, runs = np.random.default_rng(0), np.arange(0, 101, 10), {}
    ease = rng.normal(size=40)
    for row in range(6):
        # The same luck in every row, so that what is learnt stays so.
        luck = rng.normal(size=40)
        right = ease + 0.5 * luck + 0.4 * row - 1 + steps[:, None] / 40 > 0
        right[:, 7] = steps % 20 == 0
        runs[f"s000{row}"] = right
    return Example(of_examples(runs, steps), (30, 80))


def directions() -> Example:
    """One run whose weights go straight on, one of which they walk at random, one of which they stay, one diverges."""
    rng, steps = np.random.default_rng(0), np.arange(0, 101, 10)
    start, aim = rng.normal(size=(2, 205)).astype(np.float32)
    paths = {
        "s0000": start + steps[:, None] / 100 * aim,
        "s0001": start + np.cumsum(rng.normal(size=(len(steps), 205)) * (steps > 0)[:, None], axis=0),
        "s0002": start + 0 * steps[:, None],
        "s0003": start + steps[:, None] / 50 * aim + np.sin(steps)[:, None],
    }
    group = of_weights(paths, steps, 100)
    diverged = replace(group.runs[-1].until(60), status="diverged", diverged_step=65)
    return Example(replace(group, runs=(*group.runs[:-1], diverged)), (50, 80), {"rows": 9})


def modes() -> Example:
    """Two runs of three modes each and of different lengths, one that stands still, one of three snapshots."""
    rng, steps = np.random.default_rng(0), np.arange(0, 201, 10)
    paths = {}
    for row in range(4):
        walks = np.cumsum(rng.normal(size=(len(steps), 3)), axis=0)
        own = walks[:, rng.integers(3, size=205)] * rng.normal(size=205) + rng.normal(size=205)
        paths[f"s000{row}"] = own + 0.1 * rng.normal(size=own.shape)
    paths["s0002"] = paths["s0002"][0] + 0 * paths["s0002"]
    group = of_weights(paths, steps)
    runs = [*group.runs]
    runs[1], runs[3] = (replace(runs[row].until(last), status="done") for row, last in ((1, 150), (3, 20)))
    return Example(replace(group, runs=tuple(runs)), (60, 100))


class Drawn(Learner):
    """A run of an MLP 4-6-3 on its own examples: weights of it are its tensors one after another, 51 numbers."""

    spec = InputSpec(kind="vector", symbols=4, classes=3)

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs, self.targets = self.rng.normal(size=(9, 4)).astype(np.float32), np.arange(9) % 3

    def examples(self, split: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs, self.targets

    def network(self, weights: Mapping[str, np.ndarray]) -> Any:
        import torch

        from dynalab.models.nets.mlp import MLP

        network = MLP(4, 3, [6])
        flat = np.concatenate([weights["head.bias"], weights["layer.weight"].ravel()])
        torch.nn.utils.vector_to_parameters(torch.from_numpy(flat), network.parameters())
        return network


def partition() -> Example:
    """Two runs of a small network whose regions grow in number, one of which diverges, and one that is dead."""
    rng, steps = np.random.default_rng(0), np.arange(0, 41, 10)
    start, way = rng.normal(size=(2, 51))
    paths = {
        "s0000": start + steps[:, None] / 20 * way,
        "s0001": way - steps[:, None] / 20 * start,
        "s0002": 0 * steps[:, None] * start,
    }
    group = of_weights(paths, steps, 1)
    runs = [replace(run, learner=Drawn(seed)) for seed, run in enumerate(group.runs)]
    runs[1] = replace(runs[1].until(20), status="diverged", diverged_step=25)
    return Example(replace(group, runs=tuple(runs)), (15, 30), {"pictures": 3})


def of_networks(steps: np.ndarray, seeds: int, *words: str, split: int | None = None) -> Group:
    """Return runs of a task's network whose weights go from its initialisation to another one, with a bend.

    `split` is the seed of all runs' examples; None: each has its own.
    """
    from dynalab.config.command import read_command
    from dynalab.core.streams import Streams
    from dynalab.networks.build import build_networks
    from dynalab.networks.learner import Recipe, SeededLearner

    (request,) = read_command(list(words)).requests
    recipe = Recipe(lambda: (request.config, ()))
    streams = [Streams.from_seed(seed) for seed in range(3 * seeds)]
    streams = streams if split is None else [replace(own, split=split) for own in streams]
    states = [
        {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        for network in build_networks(recipe.make, streams)
    ]
    labels = [f"s{seed:04d}" for seed in range(seeds)]
    losses = {label: {"train_loss": 2.5 - steps / steps.max()} for label in labels}
    group = Group.of(losses, steps, config={"model": {"name": "mlp"}})
    runs = []
    for seed, run in enumerate(group.runs):
        kept = {
            int(step): {
                name: x + np.float32(t) * (states[seed + seeds][name] - x)
                + np.float32(t * (1 - t)) * states[seed + 2 * seeds][name]
                for name, x in states[seed].items()
            }
            for step, t in zip(steps, steps / steps.max(), strict=True)
        }  # fmt: skip
        weights = Weights(run.id, lambda kept=kept: tuple(kept), kept.__getitem__)
        runs.append(
            replace(run, seed=seed, weights=weights, learner=SeededLearner(recipe, streams[seed], 1, 4))
        )
    return replace(group, runs=tuple(runs))


NETWORKS = ("task=digits", "task.n_train=40", "task.n_test=20", "train.batch_size=20", "model.hidden=[5]")


def landscape() -> Example:
    """Three runs of a small network, on the plane of their paths."""
    group = of_networks(np.arange(0, 41, 10), 3, *NETWORKS)
    return Example(group, (25, 30), {"points": 5, "plane": "path"})


def kernel() -> Example:
    """The networks of `partition`, whose tangent kernels move; that of the dead one is 0 but for its biases."""
    return replace(partition(), keys={"rows": 4})


def connectivity() -> Example:
    """Four runs of a small network, at both ends of their ways."""
    return Example(of_networks(np.arange(0, 41, 10), 4, *NETWORKS), (15, 30), {"points": 5})


def regions() -> Example:
    """Rows of the probe of three runs that fall, rise and fall, one that is noise, one that rises and diverges."""
    rng, steps = np.random.default_rng(0), np.arange(0, 401, 10)
    curve = np.interp(steps, [0, 60, 200, 320, 400], [4.0, 2.0, 6.0, 3.0, 2.9])
    config = {"levels": {"train_accuracy": 0.9, "test_accuracy": 0.8}, "probe": {"regions": {"points": 50}}}
    runs = {}
    for row in range(5):
        around = curve if row < 3 else 4 + 0 * curve if row == 3 else 1 + steps / 100
        columns = {"train_accuracy": steps / (150 + 10 * row), "test_accuracy": steps / 400}
        for name, factor in (("train", 1.0), ("test", 0.8), ("random", 0.5)):
            own = factor * around * (1 + 0.01 * rng.normal(size=len(steps)))
            columns |= {f"local_complexity_{name}_0": 0.75 * own, f"local_complexity_{name}_1": 0.25 * own}
            columns |= {f"local_complexity_{name}": own, f"region_density_{name}": own / 0.03}
            columns[f"region_density_{name}_1"] = own / 0.031
        runs[f"s000{row}"] = columns
    group = Group.of(runs, steps, config=config)
    diverged = replace(group.runs[-1].until(300), status="diverged", diverged_step=305)
    return Example(replace(group, runs=(*group.runs[:-1], diverged)), (100, 260, 350))


def of_weights(paths: Mapping[str, np.ndarray], steps: np.ndarray, bias: int = 5) -> Group:
    """Return runs whose weights were kept, label -> (T, p): a matrix, and a bias of so many of them."""
    group = Group.of({label: {"test_accuracy": steps / steps.max()} for label in paths}, steps)
    runs = []
    for run, path in zip(group.runs, paths.values(), strict=True):
        kept = {
            int(step): {
                "layer.weight": row[bias:].reshape(5, -1),
                "head.bias": row[:bias],
                "seen": np.int64(step),
            }
            for step, row in zip(steps, np.asarray(path, np.float32), strict=True)
        }
        runs.append(replace(run, weights=Weights(run.id, lambda kept=kept: tuple(kept), kept.__getitem__)))
    return replace(group, runs=tuple(runs))


def slingshot() -> Example:
    """One run with slingshots, one whose loss rises as its rate jumps and that diverges in the end."""
    steps = np.arange(0, 3000, 5)
    loss, norm = np.maximum(2.0 * 10 ** (-steps / 60), 1e-8), 20.0 + 0.0 * steps
    for onset in range(1000, 3000, 600):
        spike = 3.0 * np.exp(-np.maximum(steps - onset, 0) / 20)
        loss = np.maximum(loss, np.where(steps >= onset, spike, 0))
        norm = norm + 2.0 / (1 + np.exp(-np.clip((steps - onset + 40) / 15, -50, 50)))
    height = 4 * np.clip((steps - 1490) / 5, 0, 1) * (steps < 1520)
    plain = {
        "train_loss": 10 ** np.where(steps < 100, 0, height - 6),
        "last_layer_norm": 1 + steps / 3000,
        "train_accuracy": np.where(steps < 100, 0.5, 1.0),
    }
    spiked = {"train_loss": loss, "last_layer_norm": norm, "class_mean_norm": 1 + steps / 300}
    spiked["feature_mean_norm"], spiked["class_feature_cosine"] = np.exp(steps / 2000), -1 + steps / 1e5
    spiked["gradient_imbalance"] = np.where((steps >= 1200) & (steps < 1600), 0.1, 1e-8)
    group = Group.of({"s0000": spiked, "s0001": plain}, steps)
    config = {
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "step", "milestones": [1480]},
        "train": {"batch_size": "full"},
    }
    adam = {"optimizer": {"name": "adam", "eps": 1e-8}}
    runs = (
        replace(group.runs[0], config=adam),
        replace(group.runs[1], config=config, status="diverged", diverged_step=3000),
    )
    return Example(replace(group, runs=runs), (1500, 2000))


def eos() -> Example:
    """One run at the edge and away again, whose eigenvalues and loss are worse later, and one that stays below."""
    steps = np.arange(0, 4000, 10)
    ratio = np.where(
        steps < 2000, np.minimum(0.1 * np.exp(steps / 868.6), 1.0), np.where(steps < 3200, 1.01, 0.2)
    )
    columns = {
        "sharpness": 10 * ratio,
        "stability_threshold": 10 + 0 * ratio,
        "sharpness_residual": np.where(steps > 2500, 1.0, 1e-4),
        "train_loss": np.exp(-steps / 900) * (1 + 0.2 * (steps > 2600) * (-1.0) ** (steps / 10)),
        "curvature_probe_size": 64 + 0 * ratio,
        "curvature_probe_training": 1 + 0 * ratio,
    }
    below = {**columns, "sharpness": 4 * ratio, "sharpness_residual": 1e-4 + 0 * ratio}
    config = {"optimizer": {"name": "sgd", "lr": 0.2}}
    return Example(Group.of({"s0000": columns, "s0001": below}, steps, config=config), (1500, 2400))


def of_examples(runs: Mapping[str, np.ndarray], steps: np.ndarray, sets: Sequence[int] = ()) -> Group:
    """Return runs that recorded which of n examples are right, (T, n); `sets` are hashes of these, one by default."""
    group = Group.of({label: {"test_accuracy": right.mean(1)} for label, right in runs.items()}, steps)
    made = []
    for run, right, own in zip(group.runs, runs.values(), sets or [1] * len(runs), strict=True):
        about = np.tile([own, right.shape[1]], (len(steps), 1))
        values = {"examples": np.packbits(right, axis=1), "examples_set": about}
        made.append(replace(run, blocks={name: BlockRows(steps, block) for name, block in values.items()}))
    return replace(group, runs=tuple(made))


EXAMPLES: dict[str, Callable[[], Example]] = {
    "compare": compare,
    "connectivity": connectivity,
    "directions": directions,
    "eos": eos,
    "examples": examples,
    "hmm": hmm,
    "modes": modes,
    "landscape": landscape,
    "kernel": kernel,
    "partition": partition,
    "periods": periods,
    "progress": progress,
    "regions": regions,
    "slingshot": slingshot,
    "spectrum": spectrum,
    "variance": variance,
}
