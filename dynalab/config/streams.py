"""Which random streams have no effect in a configuration: a seed given to such a stream would promise something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.config.schema import STREAMS

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig


def without_effect(config: EnsembleConfig) -> dict[str, str]:
    """Return stream -> why nothing comes of it, for every stream that is known to have no effect.

    A task says so itself (`dynalab.tasks.base.TaskConfig.idle_streams`). One that does not say is taken to use every
    stream, but for `order` where each update takes the whole training set. `noise` also feeds the network's dropout;
    of a network from a plug-in it is not known whether it has some.
    """
    size_of, says = (getattr(config.task, name, None) for name in ("train_size", "idle_streams"))
    size, batch = size_of() if size_of else None, config.train.batch_size
    full = batch == "full" or (size is not None and batch >= size)
    given = "train.batch_size=full" if batch == "full" else f"train.batch_size={batch} of {size} examples"
    found: dict[str, str] = says(full) if says else {"order": ""} if full else {}
    if "order" in found:
        found["order"] = f"with {given} there is no order"
    own_network = "model" in config.sources or config.model.name == "task"
    if own_network or getattr(config.model, "dropout", 0.0):
        found.pop("noise", None)
    return {name: found[name] for name in STREAMS if name in found}


def idle_streams(config: EnsembleConfig) -> list[str]:
    """Return a line for each stream that was given a seed of its own and has no effect."""
    return [
        f"seed_streams.{name} has no effect: {why}"
        for name, why in without_effect(config).items()
        if getattr(config.seed_streams, name) is not None
    ]
