"""What the parts of one configuration ask of each other, as far as no network is needed to tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.config.schema import require
from dynalab.core.errors import ConfigError


def check_combined(config: EnsembleConfig, steps: int, folders: Sequence[Path] = ()) -> None:
    """Refuse parts that do not go together.

    A probe's module may have `check_ensemble(config)`, which raises where the configuration alone says that there would
    be nothing to measure.

    Args:
        config: The configuration.
        steps: Its length.
        folders: A user's configuration folders.

    Raises:
        ConfigError: They do not.
    """
    _check_batches(config, steps)
    if config.average is not None:
        begin = config.average.from_
        require(begin <= steps, "average.from", begin, f"a step of the training, which has {steps:,}")
    if config.train.sphere:
        require_scale_invariant(config.model, "train.sphere=true:")
    if config.train.modes is not None and config.optimizer.name == "lookahead":
        raise ConfigError(
            f"train.modes={config.train.modes}: replaces the weights that are trained, and optimizer=lookahead "
            "evaluates others; legal: every optimizer but lookahead"
        )
    for name in config.probes:
        if (
            check := getattr(registry.find("probe", name, folders).module, "check_ensemble", None)
        ) is not None:
            check(config)


def require_scale_invariant(model: Any, what: str) -> None:
    """Refuse one of dynalab's own models that has no scale-invariant weights; a plug-in's network is asked itself.

    Args:
        model: Its configuration.
        what: What needs them, for the error.
    """
    if is_own(model) and not getattr(model, "scale_invariant", False):
        raise ConfigError(
            f"{what} needs a network that names its scale-invariant weights, and that of model={model.name} names "
            "none; legal: model=si_mlp or si_convnet"
        )


def is_own(section: Any) -> bool:
    """Return whether the configuration of a part is one of dynalab's own, whose class says what holds of the part."""
    return type(section).__module__.startswith("dynalab.")


def of_task(config: EnsembleConfig, name: str) -> Any:
    """Return what a method of the task's configuration says; None of a task without it."""
    method = getattr(config.task, name, None)
    return method() if method else None


def _check_batches(config: EnsembleConfig, steps: int) -> None:
    """Refuse batches that are too small for the model's batch statistics, if training comes to them."""
    least_of = getattr(config.model, "least_batch", None)
    if least_of is None:
        return
    size, given = of_task(config, "train_size"), config.train.batch_size
    usual = size if given == "full" or (size is not None and int(given) >= size) else int(given)
    if usual is None:
        return
    batches = -(-(size or usual) // usual)
    last = (size or usual) - (batches - 1) * usual if steps * config.train.accumulate >= batches else usual
    if steps and min(usual, last) < least_of(of_task(config, "image_shape")):
        where = "batches" if last == usual else f"{size} training examples leave a last batch"
        raise ConfigError(
            f"train.batch_size={given}: {where} of 1 example, which has no batch statistics for "
            f"model={config.model.name}; choose a size that leaves none, or another norm"
        )
