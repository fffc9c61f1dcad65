"""A network of the user's own that checkpoints are weights of, named on the command line and built there and then.

Nothing stored names code that is run: an ensemble keeps what the network said of its parameters, as plain text.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.loading import import_path
from dynalab.config.places import real_path, user_path
from dynalab.core import plugins
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

EXPECTED = "a torch.nn.Module, or a pair of it and a function of it that returns metrics, name -> number"


@dataclass(frozen=True)
class Model:
    """A network, and what else is to be measured of it.

    Attributes:
        name: As it was named.
        network: Takes the weights of one checkpoint after another.
        metrics: Takes the network with weights, returns metric -> number.
    """

    name: str
    network: nn.Module
    metrics: Callable[[nn.Module], Mapping[str, float]] | None = None

    def load(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Take the weights of a checkpoint; returns the parameters by names that it has.

        Raises:
            ConfigError: A parameter is missing, or has another shape.
        """
        import torch

        state = self.network.state_dict(keep_vars=True)
        for name, own in state.items():
            if name in tensors and tensors[name].shape != own.shape:
                shapes = f"shape {tuple(tensors[name].shape)}; the network of --model has {tuple(own.shape)}"
                raise ConfigError(f"{name} has {shapes}")
        there = {id(own) for name, own in state.items() if name in tensors}
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in there:
                raise ConfigError(f"{name} is missing, which the network of --model has")
        with torch.no_grad():
            self.network.load_state_dict(
                {name: tensors[name] for name in state if name in tensors}, strict=False
            )
        return [name for name, _ in self.network.named_parameters() if name in tensors]

    def measure(self) -> dict[str, float]:
        """Return what else is measured of the network as it is.

        Raises:
            ConfigError: It fails, or returns something else.
        """
        if self.metrics is None:
            return {}
        found = _called(self.name, self.metrics, self.network.eval())
        try:
            values = {str(name): _number(value) for name, value in found.items()}
        except Exception as error:
            what = f"returned {plugins.described(found)}, expected metrics, name -> number"
            raise ConfigError(f"--model {self.name}: its function of the network {what}") from error
        return {name: value if math.isfinite(value) else math.nan for name, value in values.items()}


def build(named: str | Callable[[], Any]) -> Model:
    """Build the network that `module:function` or `file.py:function` names, or a function makes.

    Raises:
        ConfigError: There is no such module or function, it fails, or it makes something else.
    """
    from torch import nn

    function = _imported(named) if isinstance(named, str) else named
    name = named if isinstance(named, str) else f"{named.__module__}:{getattr(named, '__qualname__', named)}"
    made = _called(name, function)
    network, metrics = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module) or not (metrics is None or callable(metrics)):
        raise ConfigError(f"--model {name}: returned {plugins.described(made)}, expected {EXPECTED}")
    return Model(name, network.eval(), metrics)


def _imported(named: str) -> Callable[..., Any]:
    module, _, function = named.rpartition(":")
    if not module or not function:
        raise ConfigError(
            f"--model {named}: expected MODULE:FUNCTION, for example mine:network or mine.py:network"
        )
    file = real_path(user_path(module)) if module.endswith(".py") else None
    if file is not None and not file.is_file():
        raise ConfigError(f"--model {named}: {file}: no such file")
    folder = Path.cwd() if file is None else file.parent
    plugins.know(folder)
    sys.path.insert(0, str(folder))
    try:
        # A file is read as it is now, also where another of its name was before.
        whole = importlib.import_module(module) if file is None else import_path(file, "model", file.stem)
        found = getattr(whole, function, None)
    except plugins.PluginError as error:
        raise ConfigError(f"--model {named}: {error}") from error
    except (Exception, SystemExit) as error:
        place = plugins.innermost(error) or ""
        raise ConfigError(f"--model {named}: {place}cannot be imported: {plugins.said(error)}") from error
    finally:
        sys.path.remove(str(folder))
    if not callable(found):
        raise ConfigError(f"--model {named}: {module} has no function {function}")
    return found


def _called(name: str, function: Callable[..., Any], *given: Any) -> Any:
    try:
        return function(*given)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--model {name}: {plugins.innermost(error) or ''}{plugins.said(error)}") from error


def _number(value: Any) -> float:
    # Of a tensor, which may still have a gradient, the number.
    return float(value.item() if hasattr(value, "item") else value)
