"""`edit=freeze`: holds all weights but those of the parts that are kept.

Weights that are held move by exactly 0 from then on, whatever momentum and weight decay would do; their gradients count
as 0, in norms and in clipping too. Their moments are set to zero, and their fast weights to the slow ones where an
optimizer has both, so that what is evaluated stays. Running statistics of a normalisation are no weights and go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.config.keys import Section, key
from dynalab.core.errors import ConfigError
from dynalab.edits.base import PARTS, names_of

if TYPE_CHECKING:
    from dynalab.edits.base import Context, State


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="edit"):
    """Configuration of the edit."""

    name: str = "freeze"
    keep: Any = key([], f"parts that go on being trained: {PARTS}", kind="a list of parts")
    seed: int = key(0, "without effect: nothing is drawn")

    def __post_init__(self) -> None:
        """Check that the parts are words; one word is a list of one."""
        super().__post_init__()
        object.__setattr__(self, "keep", list(names_of(self.keep, "edit.keep")))


def apply(state: State, context: Context) -> State:
    """Hold the weights.

    Raises:
        ConfigError: No part is kept, all are, or the network has no such part.
    """
    import torch

    keep = context.edit.keep
    if not keep:
        raise ConfigError(
            f"edit.keep=[]: name the parts that go on being trained; there are {', '.join(sorted(context.parts))}"
        )
    kept = context.parameters(keep, "edit.keep")
    if kept == set(context.trained) or not kept:
        which = "every" if kept else "no"
        raise ConfigError(f"edit.keep={','.join(keep)}: {which} trained weight is among these parts")
    for name in context.trained:
        if name in kept:
            continue
        fast, *slow = state.copies(name)
        for tensor in slow:
            fast.copy_(tensor)
        for moment in state.moments(name):
            moment.zero_()
        state.masks[name] = torch.zeros(
            len(fast), *[1] * (fast.dim() - 1), dtype=fast.dtype, device=fast.device
        )
    return state
