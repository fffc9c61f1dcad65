"""The modes of every run of a group, and what networks made of them come to; a few runs are in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.base import Group, Run
from dynalab.analysis.modes.decomposition import Decomposition, Gathered, decompose
from dynalab.analysis.modes.evaluation import evaluated
from dynalab.analysis.modes.findings import Count, RunFindings
from dynalab.analysis.modes.settings import MODES, PCA, Setting
from dynalab.analysis.stored import Shapes
from dynalab.core.progress import counted
from dynalab.core.words import count

FEWEST = 4  # snapshots: three that an affine function may miss, and one that is held out
# Bytes of the networks that are held at once.
MEMORY = 512 << 20

# Loss and metrics on one half of the held-out examples, each (A,).
Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A run, and its modes where it has some.

    Attributes:
        run: The run.
        findings: What is found whatever the number of modes.
        steps: Of its snapshots, shape (T,).
        places: Of the weights that were sampled, shape (K,).
        paths: Of these, shape (T, K).
        shapes: Of its network.
        principal: Shares of the variance along the principal components, shape (T,).
        decomposition: Its modes, without networks.
        values: What networks come to on both halves of the examples; None where none was run.
    """

    run: Run
    findings: RunFindings
    steps: np.ndarray
    places: np.ndarray
    paths: np.ndarray
    shapes: Shapes
    principal: np.ndarray
    decomposition: Decomposition
    values: tuple[Values, Values] | None = None

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return sum(rows * width for rows, width in self.shapes.sizes.values())

    def stored(self, setting: Setting) -> int:
        """Return the floats that a setting stores."""
        return setting.stored(self.weights, len(self.steps))

    def floats(self, tried: Sequence[Setting]) -> list[int]:
        """Return what settings store; modes, which come last, as many as came out."""
        own = [Setting(MODES, len(references)) for references in self.decomposition.references]
        return [self.stored(setting) for setting in (*tried[: -len(own)], *own)]

    def named(self, place: int) -> str:
        """Return the tensor that a weight is in, and where: `layer.weight[117]`, counted row by row."""
        for name, (rows, width) in self.shapes.sizes.items():
            if place < rows * width:
                return f"{name}[{place}]"
            place -= rows * width
        raise IndexError(place)

    def sizes(self, place: int) -> np.ndarray:
        """Return how many weights are in each mode, shape (M,), of the number at a place among those tried."""
        return np.sum([item.count for item in self.decomposition.members[place].values()], axis=0)

    def ordered(self, place: int) -> np.ndarray:
        """Return the modes in the order in which they are numbered, the largest first, shape (M,)."""
        return np.argsort(-self.sizes(place), kind="stable")

    def told(self, counts: Sequence[int], place: int) -> RunFindings:
        """Return what is found with the number of modes at a place among those that were tried."""
        own, held = self.decomposition, self.decomposition.heldout_r2
        members, sizes = own.members[place].values(), self.sizes(place)
        stored = self.stored(Setting(MODES, len(sizes)))
        fits = [k for k in range(len(self.steps)) if self.stored(Setting(PCA, k)) <= stored]
        return replace(
            self.findings,
            weights=self.weights,
            still=self.weights - int(sizes.sum()),
            modes=len(sizes),
            r2=float(own.r2[place]),
            heldout_r2=float(held[place]),
            pca_r2=float(self.principal[: fits[-1]].sum()),
            correlation=float(np.sum([item.correlation.sum() for item in members]) / sizes.sum()),
            stored=stored,
            compression=stored / (self.weights * len(self.steps)),
            counts=tuple(
                Count(number, float(r2), float(other))
                for number, r2, other in zip(counts, own.r2, held, strict=True)
            ),
        )


def few(run: Run, steps: Sequence[int] | np.ndarray) -> RunFindings | None:
    """Return what is found of a run with too few snapshots; None where there are enough."""
    if len(steps) >= FEWEST:
        return None
    why = f"weights were kept at {count(len(steps), 'step')}, and modes take {FEWEST}"
    return RunFindings(run.id, "insufficient_data", why, len(steps))


def of_group(
    group: Group,
    steps: Mapping[str, Sequence[int]],
    counts: Sequence[int],
    tried: Sequence[Setting],
    sampled: int,
    examples: int | None,
    run_networks: bool,
) -> Iterator[RunFindings | Measured]:
    """Yield every run's modes, or what is found of one that has none.

    Args:
        group: The runs.
        steps: Id of a run -> the steps of its snapshots that are read.
        counts: Numbers of modes that are tried.
        tried: What networks are made of, modes last.
        sampled: Weights that are clustered.
        examples: Held-out examples of each run; None: those that its rows are evaluated on.
        run_networks: Whether networks are run, where they are known.
    """
    shapes: Shapes | None = None
    waiting: list[Measured] = []
    for run in counted(group.runs, "runs", group.id):
        if found := few(run, steps[run.id]):
            yield found
            continue
        shapes = shapes or Shapes.of(run)
        judged = run_networks and run.learner is not None
        item = _measured(run, shapes, steps[run.id], counts, tried if judged else (), sampled)
        if isinstance(item, RunFindings) or item.decomposition.networks is None:
            yield item
            continue
        waiting.append(item)
        if (len(waiting) + 1) * item.decomposition.networks.nbytes > MEMORY:
            yield from _evaluated(group, waiting, examples)
            waiting = []
    if waiting:
        yield from _evaluated(group, waiting, examples)


def _measured(
    run: Run,
    shapes: Shapes,
    steps: Sequence[int],
    counts: Sequence[int],
    tried: Sequence[Setting],
    sampled: int,
) -> RunFindings | Measured:
    gathered = Gathered.of(run, shapes, steps, sampled)
    own = np.array(steps[: len(gathered.rows)])
    if short := few(run, own):
        why = f"weights are finite at {count(len(own), 'step')} of {len(steps)}: modes take {FEWEST}"
        return replace(short, reason=why)
    why = f"weights of {count(len(own), 'step')}, {own[0]:,} to {own[-1]:,}"
    why += f"; from step {steps[len(own)]:,} on they are not finite" if len(own) < len(steps) else ""
    findings = RunFindings(run.id, "measured", why, len(own), int(own[0]), int(own[-1]))
    if not gathered.gram.any():
        return replace(findings, verdict="still", reason=f"{why}, all the same")
    components, shares = gathered.components()
    found = decompose(gathered, counts, tried, components)
    return Measured(run, findings, own, gathered.places, gathered.rows, shapes, shares, found)


def _evaluated(group: Group, waiting: Sequence[Measured], examples: int | None) -> Iterator[Measured]:
    runs = replace(group, runs=tuple(item.run for item in waiting))
    networks = [own for item in waiting if (own := item.decomposition.networks) is not None]
    steps = [int(item.steps[-1]) for item in waiting]
    halves = list(evaluated(runs, steps, networks, waiting[0].shapes, examples))
    for place, item in enumerate(waiting):
        one, other = (
            {name: np.array([values[half][name][place] for values in halves]) for name in halves[0][half]}
            for half in (0, 1)
        )
        yield replace(item, decomposition=replace(item.decomposition, networks=None), values=(one, other))
