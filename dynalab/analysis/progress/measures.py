"""What sees progress while accuracy does not: columns of the probes `parity` and `fourier`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.core.errors import NothingMatched
from dynalab.core.runs import Lazy, Run, Series
from dynalab.core.words import count, listed
from dynalab.tasks.operations import CYCLIC, cyclic

RESTRICTED, EXCLUDED, POWER = "fourier_restricted_loss", "fourier_excluded_loss", "fourier_power"
LOSSES = RESTRICTED, EXCLUDED


@dataclass(frozen=True)
class Drawn:
    """A panel of the figure, below that of accuracy."""

    title: str
    curves: Mapping[str, str]  # column -> label
    logarithmic: bool = False


@dataclass(frozen=True)
class Measure:
    """A column that moves before accuracy does."""

    label: str
    key: str  # of the configuration: the level that it passes
    direction: str  # `up` or `down`: how it passes it
    accuracy: float  # the accuracy that it is held against, by default
    panels: tuple[Drawn, ...]  # the first has the measure
    caption: str  # of these panels

    @property
    def passes(self) -> str:
        """`above` or `below`."""
        return "above" if self.direction == "up" else "below"


_PARITY = Drawn(
    "relevant against other coordinates",
    {"parity_fourier": "Fourier coefficient", "parity_separation": "movement"},
    True,
)
_COORDINATES = (
    "Below: the network's Fourier coefficient on the relevant coordinates over that on as many others, and how far "
    "weights of relevant coordinates have moved from initialisation over the others, as far as they were recorded; "
    "each a ratio that is near 1 as long as nothing tells the coordinates apart."
)
_LOSSES = Drawn(
    "loss",
    {RESTRICTED: "key frequencies alone", EXCLUDED: "training, without them", "test_loss": "test"},
    True,
)
_GINI = Drawn(
    "Gini coefficient over frequencies",
    {"fourier_gini_embedding": "embedding", "fourier_gini_unembedding": "unembedding"},
)
_WAVES = Drawn(
    "participation ratio",
    {"fourier_participation_embedding": "first layer", "fourier_participation_unembedding": "last layer"},
)
# The first that was recorded decides.
MEASURES = {
    "parity_fourier": Measure("Fourier coefficient", "fourier", "up", 0.55, (_PARITY,), _COORDINATES),
    "parity_separation": Measure("movement", "separation", "up", 0.55, (_PARITY,), _COORDINATES),
    RESTRICTED: Measure(
        "restricted loss",
        "restricted",
        "down",
        0.9,
        (_LOSSES, _GINI),
        "Below: the loss on all pairs of the outputs' key frequencies alone (restricted), the loss on the training "
        "examples of the outputs without them (excluded), and the loss on held-out examples; how unequal the Fourier "
        "components of embedding and unembedding are.",
    ),
    "fourier_participation_embedding": Measure(
        "participation ratio",
        "participation",
        "up",
        0.9,
        (_WAVES, _GINI),
        "Below: one over the number of waves that a neuron's weights are made of, mean over neurons; how unequal the "
        "Fourier components of both layers are.",
    ),
}


def measures_of(run: Run) -> Iterator[str]:
    """Yield the measures that a run has rows of; the restricted loss has no level but for a cross-entropy."""
    other = (run.config.get("task") or {}).get("loss", "cross_entropy") != "cross_entropy"
    for name in MEASURES:
        if run.first(name) is not None and not (name == RESTRICTED and other):
            yield name


def share_of(run: Run) -> float:
    """Return the share of the outputs' variance above which a frequency was key when the run was trained."""
    probe: Mapping[str, Any] = (run.config.get("probe") or {}).get("fourier") or {}
    return float(probe.get("share") or 0.05)


def last_keys(run: Run) -> tuple[int, ...]:
    """Return the key frequencies of a run's last row; none where they were not recorded."""
    if POWER not in run.blocks or not len(power := run.blocks[POWER]):
        return ()
    return _keys(power.values[-1] > share_of(run))


def by_last_keys(run: Run) -> tuple[Run, tuple[int, ...]]:
    """Return a run whose restricted and excluded losses are those of its last key frequencies, and these.

    They are those of the last weights that were kept; rows are at the steps of the others.

    Raises:
        NothingMatched: It learns no addition on a circle with a cross-entropy.
    """
    import torch

    from dynalab.core.batch import Batch
    from dynalab.probes.circle import Circle
    from dynalab.tasks.classification import cross_entropy

    task = run.config.get("task") or {}
    if task.get("operation") not in CYCLIC or task.get("loss", "cross_entropy") != "cross_entropy":
        raise NothingMatched(
            f"{run.id}: frequencies=last needs task=grokking with task.loss=cross_entropy and task.operation one of "
            f"{', '.join(CYCLIC)}"
        )
    circle = Circle.of(cyclic(task["operation"], task["modulus"]), torch.device("cpu"))
    inputs, targets = (torch.from_numpy(array)[None] for array in run.examples("train"))
    pieces = zip(inputs.split(1024, 1), targets.split(1024, 1), strict=True)
    batches = [Batch(own, classes) for own, classes in pieces]
    steps, rows, keys = run.weights.steps, [], None

    def loss(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return cross_entropy(outputs, batch.targets)

    for step in reversed(steps):
        network = run.network(step)

        def forward(pairs: torch.Tensor, network: torch.nn.Module = network) -> torch.Tensor:
            return network(pairs[0])[None]

        with torch.no_grad():
            found = circle.outputs(forward, 1)
            keys = found[0].power() > share_of(run) if keys is None else keys
            parts = [found[0].part(keys)]
            restricted = circle.restricted(loss, found, parts)
            rows.append([restricted[0], circle.excluded(loss, forward, parts, batches)[0]])
    return with_losses(run, np.array(steps), np.array(rows[::-1])), _keys(np.asarray(keys))


def with_losses(run: Run, steps: np.ndarray, losses: np.ndarray) -> Run:
    """Return a run with other restricted and excluded losses, (T, 2), than those that it recorded."""
    own = {name: Series.of(steps, values) for name, values in zip(LOSSES, losses.T, strict=True)}
    names = dict.fromkeys([*run.series, *own])
    return replace(run, series=Lazy(names, lambda name: own[name] if name in own else run.series[name]))


def _keys(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in 1 + np.flatnonzero(chosen))


def in_words(keys: tuple[int, ...]) -> str:
    """Return key frequencies as they are read."""
    return listed([str(k) for k in keys]) if keys else count(0, "frequency", "frequencies")
