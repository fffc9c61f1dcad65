"""`edit=rescale`: multiplies weights by a factor; the optimizer's moments are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynalab.config.schema import require
from dynalab.core.errors import ConfigError
from dynalab.edits.base import names_of

if TYPE_CHECKING:
    from dynalab.edits.base import Context, State


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the edit.

    Attributes:
        factor: What weights are multiplied by.
        parts: Parts that are, as for `edit=freeze`; `all` is every trained weight.
        seed: Has no effect; nothing is drawn.
    """

    name: str = "rescale"
    factor: float = 2.0
    parts: Any = field(default_factory=lambda: ["all"])
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.factor != 1, "edit.factor", self.factor, "a number other than 1")
        object.__setattr__(self, "parts", list(names_of(self.parts, "edit.parts")))


def apply(state: State, context: Context) -> State:
    """Multiply the weights.

    Raises:
        ConfigError: The network has no such part, or none of its weights is trained.
    """
    parts = context.edit.parts
    chosen = set(context.trained) if parts == ["all"] else context.parameters(parts, "edit.parts")
    if not chosen:
        raise ConfigError(f"edit.parts={','.join(parts)}: no trained weight is among these parts")
    for name in chosen:
        for weights in state.copies(name):
            weights *= context.edit.factor
    return state
