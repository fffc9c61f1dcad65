"""`edit=blank`: sets the smallest weights of every tensor to zero; the optimizer's moments of these become zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key

if TYPE_CHECKING:
    from dynalab.edits.base import Context, State


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="edit"):
    """The keys `edit.*`; blank.yaml lists them, too. What is not at its default here enters the id."""

    name: str = "blank"
    share: float = key(0.5, "share of the weights of a tensor that are set to zero", above=0, below=1)
    seed: int = key(0, "draws again what the edit draws (context.normal); nothing here")


def apply(state: State, context: Context) -> State:
    """Change the state of S runs in place, where a fork leaves its parent, each run by itself.

    `context.edit` is the configuration; `state.masks[name] = 0 or 1`, (S, ...), would hold weights from here on.
    """
    for name in context.trained:
        weights = state.weights[name]  # (S, ...)
        sizes = weights.abs().reshape(len(weights), -1)
        if not (count := int(context.edit.share * sizes.shape[1])):
            continue
        limits = sizes.kthvalue(count, dim=1).values.view(-1, *[1] * (weights.dim() - 1))
        small = weights.abs() <= limits
        for tensor in (*state.copies(name), *state.moments(name)):
            tensor.masked_fill_(small, 0.0)
    return state
