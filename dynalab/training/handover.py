"""Where one segment of a fork hands over to the next: what of a loop's state another takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dynalab.config.typed import plain
from dynalab.networks.build import require_shapes
from dynalab.store.names import AVERAGE, MODES
from dynalab.training.averaging import STATE
from dynalab.training.editing import edit
from dynalab.training.loop import Loop
from dynalab.training.segments import Segment
from dynalab.training.sphere import refuse_held

# Runs, and examples of a batch, of a rehearsal.
_FEW = 2


def carry(before: Loop, after: Loop, weights: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Give a loop the state of another: all but what an optimizer, an average or a probe of other keys cannot take.

    Args:
        before: The loop whose state it is.
        after: The loop that takes it.
        weights: As `Loop.tensors` returns them.
        other: Likewise.

    Raises:
        ConfigError: The networks differ in their parameters, or weights that are held would be rescaled.
    """
    own = {name: tuple(tensor.shape[1:]) for name, tensor in after.stack.state().items()}
    theirs = {name: tuple(tensor.shape[1:]) for name, tensor in weights.items()}
    require_shapes(theirs, own)
    fresh = _kind(before) != _kind(after)
    probes = before.config.probe
    gone = [name for name, config in after.config.probe.items() if probes.get(name) != config]
    again = before.config.average != after.config.average
    other_modes = _modes(before) != _modes(after)
    left = (
        ("optimizer/",) * fresh
        + (AVERAGE, STATE) * again
        + (MODES,) * other_modes
        + tuple(f"probe/{name}/" for name in gone)
    )
    kept = {key: value for key, value in other.items() if not key.startswith(left)} if left else other
    after.load(before.step, weights, kept)
    refuse_held(after.config.train, after.updates.masks.of)
    if fresh:
        after.updates.begin_optimizer()
    if again and after.averaging is not None:
        after.averaging.begin(after.step)


def rehearse_way(
    way: Sequence[Segment], device: torch.device, folders: Sequence[Path], *, exact: bool = True
) -> Loop:
    """Go the way of a fork with few runs and examples, without a step, to see in time whether it can be gone.

    Returns:
        The loop of its last segment.

    Raises:
        ConfigError: It cannot: the weights do not fit, or an edit cannot be made.
    """
    few = [replace(segment, streams=segment.streams[:_FEW]) for segment in way]
    before: Loop | None = None
    for segment in few:
        n_runs = len(segment.streams)
        loop = Loop(
            segment.config, segment.streams, segment.total, device, folders, exact=exact, examples=_FEW
        )
        if before is not None:
            carry(before, loop, *before.tensors(n_runs))
            if segment.config.edit is not None:
                edit(loop, list(range(n_runs)), segment, folders)
        before = loop
    return loop


def _kind(loop: Loop) -> tuple[str, ...]:
    """Name what decides which tensors an optimizer holds."""
    config = loop.config.optimizer
    return config.name, str(getattr(config, "inner", "")), str(getattr(config, "inner_state", ""))


def _modes(loop: Loop) -> dict[str, object]:
    """Return the keys of modes."""
    return {name: value for name, value in plain(loop.config.train).items() if name.startswith("modes")}


def differ(before: Loop, after: Loop) -> bool:
    """Return whether two configurations train or measure otherwise, by their identity, edits left out."""
    one = before.config
    same = {name: getattr(one, name) for name in ("parent", "origin", "edit", "snapshots")}
    return replace(after.config, **same).id != one.id
