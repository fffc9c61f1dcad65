"""Keys that several models share, and checks; no torch, since the command line checks configurations.

All checks raise `ConfigError` and name the key or the model, what was given and what is legal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynalab.config.keys import key
from dynalab.core.batch import InputSpec
from dynalab.core.errors import ConfigError


def require_kind(model: str, spec: InputSpec, kinds: Sequence[str], examples: str, tasks: str) -> None:
    """Refuse a task whose examples are of another kind than the model reads."""
    if spec.kind not in kinds:
        raise ConfigError(
            f"model={model}: reads {examples}, but this task's examples are of kind {spec.kind}; "
            f"legal: a task of {tasks}, or a model that reads {spec.kind}"
        )


def require_pairs(model: str, spec: InputSpec) -> None:
    """Refuse a task whose examples are not pairs of symbols."""
    require_kind(model, spec, ["pairs"], "pairs of symbols", "pairs (task=grokking)")


def require_vectors(model: str, spec: InputSpec) -> None:
    """Refuse a task whose examples are not rows of numbers (or images, which are laid out as rows)."""
    require_kind(model, spec, ["vector", "image"], "rows of numbers", "vectors or images (task=parity)")


def require_image(model: str, spec: InputSpec, least: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width) of a task's images; refuse a task without, or smaller than `least` pixels."""
    kinds = ["image"] if len(spec.shape) == 3 else []
    require_kind(model, spec, kinds, "images", "images (task=digits, mnist, cifar)")
    channels, height, width = spec.shape
    if min(height, width) < least:
        raise ConfigError(
            f"model={model}: reads images of at least {least} x {least} pixels, not {height} x {width}"
        )
    return channels, height, width


def require_one_output(model: str, spec: InputSpec) -> None:
    """Refuse a task that wants more than one output."""
    if spec.classes != 1:
        raise ConfigError(
            f"model={model}: has one output, but this task wants {spec.classes}; "
            "legal: a task with one output (task=parity), or model=mlp"
        )


def residual_width(default: int) -> Any:
    """Declare the key `width` of a transformer."""
    return key(default, "length of the residual stream", least=1)


def heads(default: int) -> Any:
    """Declare the key `heads` of a transformer."""
    return key(default, "number of attention heads; divides the width", least=1)


def require_heads(width: int, heads: int) -> None:
    """Refuse a width that does not divide evenly among the attention heads."""
    if width % heads:
        raise ConfigError(f"model.width={width}: must be a multiple of model.heads={heads}")


def require_hidden(widths: Sequence[int], example: int) -> None:
    """Refuse a list of hidden layers that is empty."""
    if not widths:
        raise ConfigError(
            f"model.hidden=[]: needs the width of one hidden layer at least, for example [{example}]"
        )
