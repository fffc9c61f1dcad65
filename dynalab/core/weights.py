"""The weights that were kept of a run, and what they are weights of: a network, a task and its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from dynalab.core.errors import NothingMatched
from dynalab.core.words import clean, listed

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from dynalab.core.batch import InputSpec
    from dynalab.networks.stacked import Stacked

# Name of a part of a network -> the tensors that it is made of.
Parts = Mapping[str, Sequence[str]]
# The steps that a message names: so many, those nearest to the one that was asked for.
_NAMED = 12


@dataclass(frozen=True)
class Weights:
    """The weights that were kept of a run, each step read when it is asked for; none of them is held."""

    run: str = ""  # Its id.
    kept: Callable[[], Sequence[int]] = tuple  # Returns the steps of all that lies there.
    # Returns the weights of one of these steps.
    read: Callable[[int], Mapping[str, np.ndarray]] = dict[int, Any]().__getitem__
    # What keeps those of some steps, which stand for `{at}`.
    keep: str = "dynalab train ... 'snapshots.at={at}' keeps them"
    diverged_step: int | None = None  # From then on the run has none.
    # Returns some rows of some tensors of one of these steps without reading the others; None: all are read.
    cut: Callable[[int, Mapping[str, slice]], Mapping[str, np.ndarray]] | None = None
    # Returns the steps that were asked for (`snapshots`), without checkpoints that happen to lie there; None: all.
    asked: Callable[[], Sequence[int]] | None = None
    # Returns layers and kinds of parameters where no learner is there to say them; None: they are not known.
    parts: Callable[[], tuple[Parts, Parts] | None] = lambda: None
    last: int | None = None  # Nothing later than this step has happened yet; None for no such limit.

    def __repr__(self) -> str:
        # What was kept is looked for when it is asked for, not to be printed.
        return f"Weights({clean(self.run)})"

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that weights were kept at, ascending."""
        return self._until(self.kept())

    @property
    def grid(self) -> tuple[int, ...]:
        """Those of them that were asked for, which no chance decides; all, where none were."""
        return self._until(self.asked() if self.asked is not None else ()) or self.steps

    def _until(self, steps: Sequence[int]) -> tuple[int, ...]:
        last, end = self.last, self.diverged_step
        past = (step for step in sorted(steps) if last is None or step <= last)
        return tuple(step for step in past if end is None or step < end)

    def at(self, step: int) -> Mapping[str, np.ndarray]:
        """Return the weights that are evaluated, and their buffers, of one step: name -> the run's own array.

        Raises:
            NothingMatched: None were kept at that step; the line names those that were, and what keeps them.
            StoreError: They are damaged.
        """
        if step not in self.steps:
            raise self.missing(step)
        return self.read(step)

    def rows(self, step: int, rows: Mapping[str, slice]) -> Mapping[str, np.ndarray]:
        """Return some rows, along the first axis, of some of the tensors of `at`; of one without axes, all."""
        if step not in self.steps:
            raise self.missing(step)
        if self.cut is not None:
            return self.cut(step, rows)
        whole = self.read(step)
        return {name: whole[name][some] if whole[name].ndim else whole[name] for name, some in rows.items()}

    def until(self, step: int) -> Weights:
        """Return what was kept up to a step."""
        last = step if self.last is None else min(step, self.last)
        ended = None if self.diverged_step is None or self.diverged_step > last else self.diverged_step
        return replace(self, last=last, diverged_step=ended)

    def missing(self, step: int | None = None) -> NothingMatched:
        """Return the error that there are no weights of a step, or none at all."""
        asked = self.last if step is None else step
        steps = replace(self, last=None).steps if step is None else self.steps
        near = sorted(sorted(steps, key=lambda kept: abs(kept - (asked or 0)))[:_NAMED])
        some = f"there are those of step{'s' * (len(near) > 1)} {listed(list(map(str, near)), _NAMED)}"
        some += f", the nearest of {len(steps)}" if len(steps) > len(near) else ""
        how = self.keep.format(at="log" if asked is None else f"[{asked}]")
        if step is not None and self.last is not None and step > self.last:
            how = f"these are the weights up to step {self.last}"
        elif self.diverged_step is not None and (asked is None or asked >= self.diverged_step):
            how = f"the run diverged at step {self.diverged_step}"
        which = "" if asked is None else f" up to step {asked}" if step is None else f" of step {step}"
        return NothingMatched(f"{self.run}: no weights{which} were kept: {f'{some}; ' if near else ''}{how}")


class Learner(Protocol):
    """What a run's weights are weights of. Importing it is light; asking it for something loads torch."""

    @property
    def spec(self) -> InputSpec:
        """What the network was told of the task."""
        ...

    def network(self, weights: Mapping[str, np.ndarray]) -> nn.Module:
        """Return the run's network with some weights, in evaluation mode as `Ensemble.model` returns it."""
        ...

    def examples(self, split: str, most: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the run's own inputs (B, ...) and targets (B, ...); see `Run.examples`."""
        ...

    def stack(
        self,
        learners: Sequence[Learner],
        weights: Iterable[Mapping[str, np.ndarray]],
        device: str,
        threads: int | None,
    ) -> Stacked:
        """Return networks of several runs of one ensemble, one after another's weights taken; see `Group.stack`."""
        ...
