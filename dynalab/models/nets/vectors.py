"""What models that read rows of numbers share; no torch, since the command line checks configurations."""

from __future__ import annotations

from dynalab.core.batch import InputSpec
from dynalab.core.errors import ConfigError

KINDS = ("vector", "image")


def require_vectors(model: str, spec: InputSpec) -> None:
    """Refuse a task whose examples are not rows of numbers (or images, which are laid out as rows).

    Args:
        model: Name of the model.
        spec: What the task says of its examples; `spec.symbols` is how many numbers one example has.

    Raises:
        ConfigError: `spec.kind` is neither `vector` nor `image`.
    """
    if spec.kind not in KINDS:
        raise ConfigError(
            f"model={model}: reads rows of numbers, but this task's examples are of kind {spec.kind}; "
            f"legal: a task of vectors or images (task=parity), or a model that reads {spec.kind}"
        )


def require_one_output(model: str, spec: InputSpec) -> None:
    """Refuse a task that wants more than one output.

    Raises:
        ConfigError: `spec.classes` is not 1.
    """
    if spec.classes != 1:
        raise ConfigError(
            f"model={model}: has one output, but this task wants {spec.classes}; "
            "legal: a task with one output (task=parity), or model=mlp"
        )
