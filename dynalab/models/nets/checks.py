"""Checks that several models share; no torch, since the command line checks configurations."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from dynalab.core.batch import InputSpec
from dynalab.core.errors import ConfigError


def require_pairs(model: str, spec: InputSpec) -> None:
    """Refuse a task whose examples are not pairs of symbols.

    Args:
        model: Name of the model.
        spec: What the task says of its examples.

    Raises:
        ConfigError: `spec.kind` is not `pairs`.
    """
    if spec.kind != "pairs":
        raise ConfigError(
            f"model={model}: reads pairs of symbols, but this task's examples are of kind {spec.kind}; "
            f"legal: a task of pairs (task=grokking), or a model that reads {spec.kind}"
        )


def require_positive(key: str, value: int) -> None:
    """Refuse a size that is not a positive integer.

    Raises:
        ConfigError: Names the key and the value.
    """
    if value < 1:
        raise ConfigError(f"{key}={value}: must be an integer of at least 1")


def require_one_of(key: str, value: str, legal: Sequence[str]) -> None:
    """Refuse a word that is not among the legal ones.

    Raises:
        ConfigError: Names the key, the value, the nearest legal word and all of them.
    """
    if value not in legal:
        near = difflib.get_close_matches(str(value), legal, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{key}={value} is not known{hint}; legal: {', '.join(legal)}")


def require_heads(width: int, heads: int) -> None:
    """Refuse a width that does not divide evenly among the attention heads.

    Raises:
        ConfigError: Names both keys and values.
    """
    require_positive("model.width", width)
    require_positive("model.heads", heads)
    if width % heads:
        raise ConfigError(f"model.width={width}: must be a multiple of model.heads={heads}")
