"""`edit=rescale`: multiplies weights by a factor; the optimizer's moments are kept."""

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

    name: str = "rescale"
    factor: float = key(2.0, "what weights are multiplied by", kind="a number other than 1")
    parts: Any = key(
        ["all"],
        f"parts that are multiplied: all (every trained weight), {PARTS}",
        kind="all or a list of parts",
    )
    seed: int = key(0, "without effect: nothing is drawn")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        self._require(self.factor != 1, "factor")
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
