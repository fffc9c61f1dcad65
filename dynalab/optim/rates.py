"""What a run's learning rate was, and what weight decay did to its norm, as its configuration says.

Training and analyses ask it here: schedules, `train.halve_at`, momentum and the kind of decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.config import registry
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import place_of, refuse, require
from dynalab.core.words import count, listed

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig


def factor_of(build: Callable[..., Any], config: Any, total: int) -> Callable[[int], float]:
    """Return a schedule's factor of a step, checked where it is a plug-in's.

    Raises:
        PluginError: A plug-in's `build` gives no function; or, at a step, that no number.
    """
    factor = build(config, total)
    require(callable(factor), build, factor, "a function of the step")
    if not place_of(factor):
        return factor

    def checked(step: int) -> float:
        value = factor(step)
        try:
            float(value)
        except (TypeError, ValueError):
            refuse(factor, value, f"the factor of the rate at step {step}, a number")
        return value

    return checked


def halved(factor: Callable[[int], float], at: int | None) -> Callable[[int], float]:
    """Return a schedule that is half of another from a step on.

    Args:
        factor: The other one.
        at: The first update at half the rate; None leaves it as it is.
    """
    return factor if at is None else lambda step: factor(step) * (0.5 if step >= at else 1.0)


def rate_changes(config: Mapping[str, Any], last: float) -> tuple[float, ...]:
    """Return the steps up to `last` at which the rate jumps; smooth schedules have none.

    Args:
        config: A resolved configuration, or an empty one.
        last: The last step of interest.
    """
    schedule = config.get("schedule") or {}
    steps = list(schedule.get("milestones") or ()) if schedule.get("name") == "step" else []
    at = (config.get("train") or {}).get("halve_at")
    steps += [] if at is None else [at]
    return tuple(float(step) for step in sorted(steps) if step <= last)


def beyond(config: EnsembleConfig, end: int, folders: Sequence[Any] = ()) -> Iterator[str]:
    """Yield a line for each change of the rate that a training of `end` steps does not come to.

    It may be meant, for training can be prolonged; as a rule the steps of a longer one were left standing.

    Args:
        config: What is trained.
        end: Its length.
        folders: A user's plug-in folders.
    """
    schedule, ends = config.schedule, f"training ends after {count(end, 'step')}"
    module = registry.find("schedule", schedule.name, folders).module
    # In one of a user's the names may stand for anything.
    own = place_of(module.build) is None
    rising = module.warmup(schedule) if own and hasattr(module, "warmup") else 0
    if rising > end:
        share = f"at {end / rising:.2g} of optimizer.lr"
        yield f"schedule={schedule.name}: the rate rises over the first {rising:,} steps; {ends}, {share}"
    marks = module.milestones(schedule) if own and hasattr(module, "milestones") else []
    if late := [f"{step:,}" for step in marks if step >= end]:
        yield f"schedule={schedule.name}: the rate is to be lowered at step {listed(late)}; {ends}"
    at = config.train.halve_at
    if at is not None and at >= end:
        yield f"train.halve_at={at}: {ends}, before the rate is halved"


def rate_factors(config: Mapping[str, Any], steps: np.ndarray) -> np.ndarray:
    """Return what schedule and `train.halve_at` multiply the rate by at some steps, shape (T,).

    Raises:
        ConfigError: The schedule is not there (a plug-in's).
    """

    schedule, train = config.get("schedule") or {"name": "constant"}, config.get("train") or {}
    from dynalab.config.typed import typed

    part = registry.find("schedule", str(schedule.get("name", "constant")), registry.search_path())
    chosen, total = typed(part.config_class, schedule, "schedule"), int(train.get("steps") or 0)
    factor = halved(factor_of(part.module.build, chosen, total), train.get("halve_at"))
    return np.array([float(factor(int(step))) for step in steps])


def learning_rates(config: Mapping[str, Any], steps: np.ndarray) -> np.ndarray | None:
    """Return the rate of the updates from some steps on, shape (T,); None where it is not known."""
    rate = (config.get("optimizer") or {}).get("lr")
    try:
        return None if rate is None else float(rate) * rate_factors(config, steps)
    except ConfigError:
        return None


def drag(optimizer: Mapping[str, Any]) -> float:
    """Return 1 - mu of heavy ball: the share of what was gathered that an update forgets; 1 without momentum."""
    coupled = optimizer.get("name") in ("sgd", "sam")
    return 1.0 - float(optimizer.get("momentum") or 0.0) if coupled else 1.0


def decay_a_step(config: Mapping[str, Any], steps: np.ndarray) -> np.ndarray | None:
    """Return the share by which weight decay alone shrinks weights, a step, at some steps, shape (T,).

    With momentum an update goes on for 1 / (1 - mu) steps, and dampening takes its share from decay as from gradients.
    None where there is no decay, or it is not the rate alone that says how it shrinks weights: adaptive optimizers
    divide an L2 penalty by their second moment, wrapped ones pull back.
    """
    optimizer = config.get("optimizer") or {}
    rates, decay = learning_rates(config, steps), float(optimizer.get("weight_decay") or 0.0)
    if rates is None or not decay or optimizer.get("name") not in ("sgd", "sam", "adamw"):
        return None
    kept = 1.0 - float(optimizer.get("dampening") or 0.0) if drag(optimizer) < 1 else 1.0
    return rates * decay * kept / drag(optimizer)
