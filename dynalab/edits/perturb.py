"""`edit=perturb`: moves weights a little, at random.

Sizes are in standard deviations of a tensor's own entries at the initialisation (of its run), so that one scale means
as much in every layer; a tensor that began constant (biases at 0, norms at 1) stays. `gaussian` moves every entry by
an independent normal number; `one` moves one entry, drawn from all, up or down; `direction` moves all runs along one
and the same direction, drawn from `edit.seed` alone, with a root mean square of `scale`. Slow weights move with the
fast ones; the optimizer's moments are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.edits.base import Context, State

KINDS = ("gaussian", "one", "direction")


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="edit"):
    """Configuration of the edit."""

    name: str = "perturb"
    kind: str = key(
        "gaussian",
        "what moves; gaussian: every entry, one: one entry, direction: all runs along one direction",
        one_of=KINDS,
    )
    scale: float = key(1e-3, "size, in standard deviations of the tensor at the initialisation", above=0)
    seed: int = key(0, "another one is another draw")


def apply(state: State, context: Context) -> State:
    """Move the weights.

    Raises:
        ConfigError: Every tensor began constant, so that there is nothing to measure a move by.
    """
    config: Config = context.edit
    spreads = {name: context.spread(name) for name in context.trained}
    names = [name for name, spread in spreads.items() if bool((spread > 0).any())]
    if not names:
        raise ConfigError("edit=perturb: every weight began constant, so that no scale is known")
    for name, move in _moves(config.kind, {name: state.weights[name] for name in names}, context).items():
        for weights in state.copies(name):
            weights += (config.scale * spreads[name] * move.to(weights.device)).to(weights.dtype)
    return state


def _moves(kind: str, weights: dict[str, Tensor], context: Context) -> dict[str, Tensor]:
    """Return parameter -> move in standard deviations, shape (S, ...) or (1, ...), float64."""
    import torch

    shapes = {name: tensor.shape[1:] for name, tensor in weights.items()}
    if kind == "gaussian":
        return {name: context.normal(shape) for name, shape in shapes.items()}
    sizes = [shape.numel() for shape in shapes.values()]
    if kind == "direction":
        whole = torch.from_numpy(context.shared.standard_normal((1, sum(sizes))))
        whole /= whole.square().mean().sqrt()
    else:
        whole = torch.zeros(len(context.generators), sum(sizes), dtype=torch.float64)
        for row, own in zip(whole, context.generators, strict=True):
            row[int(own.integers(sum(sizes)))] = own.choice((-1.0, 1.0))
    pieces = whole.split(sizes, 1)
    return {name: piece.view(-1, *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
