"""Barriers between the networks of a group, in stacked passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.connectivity.findings import Barrier
from dynalab.core.errors import NothingMatched
from dynalab.core.progress import counted

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.networks.stacked import Examples, Stacked

    State = Mapping[str, Tensor]


# Layer -> the Gram matrix of what it gives for some examples, (n, n).
Layers = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Path:
    """What is measured on a path between two networks at shares of the way, 0 to 1; each (n,)."""

    shares: np.ndarray
    loss: np.ndarray
    error: np.ndarray | None
    distance: float

    def barrier(self) -> Barrier:
        """Return how high it goes."""
        from dynalab.networks.paths import barriers

        loss = _known(barriers(self.loss[None], self.shares.tolist())[0])
        if self.error is None:
            return Barrier(loss, None, None, self.distance)
        middle = (self.error[0] + self.error[-1]) / 2
        away = middle - self.error
        height = _known(barriers(self.error[None], self.shares.tolist())[0])
        return Barrier(loss, height, 100 * float(away[np.abs(away).argmax()]), self.distance)


@dataclass
class Networks:
    """The networks of a group at one step, or those of every run at two.

    Attributes:
        group: The group.
        step: The step.
        stack: Its networks at the step.
        state: Their states.
        examples: What is measured on.
        training: What running statistics are estimated on.
        other: States at the other step; None: runs are compared with each other.
        shared: Whether all runs have the same examples.
        permutations: Sets of hidden units, of the model; None: they are not matched.
    """

    group: Group
    step: int
    stack: Stacked
    state: State
    examples: Examples
    training: Examples
    other: State | None
    shared: bool
    permutations: Sequence | None = None
    _matched: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of(cls, group: Group, step: int, other: int | None, split: str, most: int) -> Networks:
        """Return them; raises as `Group.stack`."""
        from dynalab.networks.paths import held, state_of

        stack = group.stack(step)
        examples = held(stack.examples(split, most))
        training = examples if split == "train" else held(stack.examples("train", most))
        ends = None if other is None else state_of(group.stack(other))
        same = (
            bool((b.inputs == b.inputs[:1]).all() and (b.targets == b.targets[:1]).all())
            for b in examples.batches
        )
        return cls(group, step, stack, state_of(stack), examples, training, ends, all(same))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The places of both networks of every pair; the same twice where steps are compared."""
        n = self.stack.width
        if self.other is not None:
            return [(i, i) for i in range(n)]
        return [(i, j) for i in range(n) for j in range(i + 1, n)]

    def lines(self, shares: Sequence[float], aligned: bool) -> dict[tuple[int, int], Path]:
        """Return what is measured on the straight lines of all pairs; `aligned`: after matching the second network."""
        from dynalab.networks.paths import along, line

        found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray | None]]] = {}
        distances: dict[tuple[int, int], float] = {}
        passes = list(self._passes())
        kind = "aligned lines" if aligned else "lines"
        for number, pairs in enumerate(passes, 1):
            start, end = self.ends(pairs, aligned)
            what = f"{kind}, pass {number} of {len(passes)}"
            values = along(self.stack, line(start, end), shares, self.examples, self.training, what)
            apart = distance(self.stack, start, end)
            for slot, pair in enumerate(pairs):
                error = 1 - values["accuracy"][slot] if "accuracy" in values else None
                found.setdefault(pair, []).append((values["loss"][slot], error))
                distances[pair] = float(apart[slot])
        return {pair: self.path(shares, found[pair], distances[pair]) for pair in self.pairs}

    def path(
        self,
        shares: Sequence[float],
        values: Sequence[tuple[np.ndarray, np.ndarray | None]],
        apart: float,
    ) -> Path:
        """Return a path from what is measured on the examples of both of its runs, or of one."""
        errors = [error for _, error in values if error is not None]
        loss = np.mean([loss for loss, _ in values], axis=0)
        return Path(np.array(shares), loss, np.mean(errors, axis=0) if errors else None, apart)

    def _passes(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the pairs that are measured side by side, one for each run, on that run's examples.

        A pair comes twice, once on the examples of each of its runs; once, where all have the same.
        """
        n = self.stack.width
        if self.other is not None:
            yield [(i, i) for i in range(n)]
            return
        for by in range(1, n // 2 + 1 if self.shared else n):
            yield [(min(i, (i + by) % n), max(i, (i + by) % n)) for i in range(n)]

    def ends(self, pairs: Sequence[tuple[int, int]], aligned: bool) -> tuple[State, State]:
        """Return the states of both networks of some pairs, (S, ...), the second ones matched where asked for."""
        import torch

        others = self.state if self.other is None else self.other
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        start, end = self._rows(self.state, first), self._rows(others, second)
        if aligned:
            rows = [self._match(pair) for pair in counted(pairs, "pairs", "matching")]
            end = {
                name: torch.from_numpy(np.stack([row[name] for row in rows])).to(x) for name, x in end.items()
            }
        return start, end

    def _rows(self, state: State, places: Sequence[int]) -> dict[str, Tensor]:
        return {name: x[list(places)] for name, x in state.items()}

    def _match(self, pair: tuple[int, int]) -> dict[str, np.ndarray]:
        from dynalab.networks.matching import matched
        from dynalab.networks.statistics import statistics_of

        assert self.permutations is not None
        if pair not in self._matched:
            others = self.state if self.other is None else self.other
            one, other = (
                {name: x[place].cpu().numpy() for name, x in state.items()}
                for state, place in zip((self.state, others), pair, strict=True)
            )
            weighed = [name for name in one if name not in statistics_of(one)]
            self._matched[pair] = matched(one, other, self.permutations, weighed)
        return self._matched[pair]

    def layers(self, most: int) -> tuple[list[Layers], list[Layers]]:
        """Return the layers of all networks for some examples of the first run, and those of the other ends."""
        own = self._layers(self.state, most)
        return own, own if self.other is None else self._layers(self.other, most)

    def _layers(self, state: State, most: int) -> list[Layers]:
        import torch

        from dynalab.analysis.connectivity.similarity import gram
        from dynalab.networks.paths import at
        from dynalab.networks.tangent import layer_outputs

        inputs = torch.cat([batch.inputs[0] for batch in self.examples.batches])[:most].cpu()
        with torch.no_grad():
            params, buffers = at(self.stack, state, self.training)
        both = {**params, **buffers}
        found: list[Layers] = []
        network = self.group.runs[0].network(self.step).cpu()
        for place in counted(range(self.stack.width), "runs", "layers"):
            own = {name: x[place].detach().cpu() for name, x in both.items()}
            layers: dict[str, np.ndarray] = {}
            for name, given in layer_outputs(network, own, inputs):
                uses = sum(known.partition(" ")[0] == name for known in layers)
                layers[f"{name} ({uses + 1})" if uses else name] = gram(given.double().numpy())
            found.append(layers)
        return found

    def outputs(self) -> np.ndarray:
        """Return what all networks give for the examples of the first run, as shares of classes, (S, n, C)."""
        from dataclasses import replace

        from dynalab.networks.paths import at

        batches = [
            batch.by_runs(lambda x: x[:1].expand(x.shape).contiguous()) for batch in self.examples.batches
        ]
        import torch

        with torch.no_grad():
            params, buffers = at(self.stack, self.state, self.training)
            logits = self.stack.logits(params, replace(self.examples, batches=batches), buffers)
        own = logits.flatten(2) if logits.ndim > 2 else logits[..., None]
        return (own.softmax(-1) if own.shape[-1] > 1 else own).double().cpu().numpy()


def distance(stack: Stacked, start: State, end: State) -> np.ndarray:
    """Return how far two weights are apart, in means of their norms, run by run, shape (S,)."""
    import torch

    def squares(state: State) -> Tensor:
        parts = [state[name].double().unsqueeze(-1).flatten(1).square().sum(1) for name in stack.trained]
        return torch.stack(parts).sum(0)

    apart = squares({name: start[name] - end[name] for name in stack.trained}).sqrt()
    size = (squares(start).sqrt() + squares(end).sqrt()) / 2
    return torch.where(size > 0, apart / size, 0.0).cpu().numpy()


def permutations(group: Group, step: int) -> Sequence:
    """Return the sets of hidden units of a group's model.

    Raises:
        NothingMatched: The model does not say them.
    """
    from dynalab.models.describe import permutations_of

    run = group.runs[0]
    found = permutations_of(run.network(step))
    if not found:
        name = (run.config.get("model") or {}).get("name", "this network")
        raise NothingMatched(
            f"{group.id}: model={name} does not say which of its hidden units may change places "
            f"(`permutations`, see docs/extending.md), so that runs are not matched: align=false"
        )
    return found


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
