"""Making an edit: what is done to the state of training where a fork leaves its parent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dynalab.config import registry
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import require
from dynalab.core.streams import NAMES, edit_generator
from dynalab.edits.base import Context, State
from dynalab.models.describe import parts_of
from dynalab.optim.base import state_of
from dynalab.training.loop import Loop
from dynalab.training.segments import Segment


def edit(loop: Loop, seeds: Sequence[int | None], segment: Segment, folders: Sequence[Path] = ()) -> None:
    """Make the edit of a segment.

    Args:
        loop: Its loop, with the state at its first step.
        seeds: The runs' seeds, None in a crossed design, where the seeds of the streams stand for it.
        segment: The segment.
        folders: A user's plug-in folders.

    Raises:
        ConfigError: The edit cannot be made of this network.
    """
    config, stack, initial = segment.config, loop.stack, loop.initial
    assert initial is not None
    keys = [
        (seed,) if seed is not None else tuple(getattr(own, name) for name in NAMES)
        for seed, own in zip(seeds, segment.streams, strict=True)
    ]
    # What fills the least width is a copy of the last run, and goes on being one.
    keys += [keys[-1]] * (stack.width - len(keys))
    chosen = config.edit
    state = State(
        {name: param.detach() for name, param in stack.params.items()},
        stack.buffers,
        {name: state_of(loop.optimizer, param) for name, param in stack.params.items()},
        dict(loop.masks.of),
    )
    context = Context(
        chosen,
        config,
        segment.begin,
        tuple(stack.trained),
        initial,
        parts_of(stack.network),
        [edit_generator(chosen.seed, *key, segment.begin) for key in keys],
        edit_generator(chosen.seed),
    )
    with torch.no_grad():
        apply = registry.find("edit", chosen.name, folders).module.apply
        state = apply(state, context)
        require(isinstance(state, State), apply, state, "the State that it was given, or another one")
    if state.masks and config.train.sphere:
        raise ConfigError(
            f"edit={chosen.name}: train.sphere=true rescales all weights together, so none can be held"
        )
    loop.masks.of = dict(state.masks)
    loop.gradients.forget()
