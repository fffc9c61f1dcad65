"""Making an edit: what is done to the state of training where a fork leaves its parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynalab.config import registry
from dynalab.core.plugins import require
from dynalab.core.streams import NAMES, edit_generator
from dynalab.edits.base import Context, State
from dynalab.models.describe import parts_of
from dynalab.training.loop import Loop
from dynalab.training.segments import Segment
from dynalab.training.sphere import refuse_held


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
        loop.updates.moments(),
        dict(loop.updates.masks.of),
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
    apply, before = registry.find("edit", chosen.name, folders).module.apply, _tensors(state)
    with torch.no_grad():
        state = apply(state, context)
    require(isinstance(state, State), apply, state, "a State, as a rule the one that it was given")
    _check(apply, before, state)
    refuse_held(config.train, state.masks)
    loop.updates.masks.of = dict(state.masks)
    loop.updates.gradients.forget()
    if loop.averaging is not None:
        loop.averaging.edited(loop.step)


def _tensors(state: State) -> dict[str, Tensor]:
    """Return all tensors of a state that are not its edit's own."""
    moments = {
        f"optimizer[{name!r}][{key!r}]": x for name, own in state.optimizer.items() for key, x in own.items()
    }
    weights = {f"weights[{name!r}]": tensor for name, tensor in state.weights.items()}
    return {**weights, **{f"buffers[{name!r}]": tensor for name, tensor in state.buffers.items()}, **moments}


def _check(apply: Callable[..., Any], before: Mapping[str, Tensor], state: State) -> None:
    """Check that an edit changed tensors where they stand, and that its masks are of weights.

    Raises:
        PluginError: A plug-in's did not.
    """
    for name, tensor in _tensors(state).items():
        kept = before.get(name) is tensor
        require(kept, apply, tensor, f"{name} itself, changed in place, as `weights.mul_(2)` does")
    for name, mask in state.masks.items():
        shape = getattr(state.weights.get(name), "shape", ())
        sizes = getattr(mask, "shape", ())
        fits = len(sizes) == len(shape) and all(
            one in (1, size) for one, size in zip(sizes, shape, strict=True)
        )
        require(
            shape and fits,
            apply,
            mask,
            f"masks[{name!r}] to broadcast to a parameter",
        )
