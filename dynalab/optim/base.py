"""What an optimizer module holds: `Config` (a dataclass) and `build(config, params) -> torch.optim.Optimizer`.

`params` are stacked parameters, shape (S, ...), of S runs that must not touch: the update has to be elementwise.
torch's `foreach` and plain forms are; its `fused` kernels are on tensors that are laid out for them alone (`lines`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

from dynalab.config import registry
from dynalab.config.keys import Section, about_of, declaration, key
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DECAYS = ("all", "matrices")
# Under which an optimizer that evaluates other weights than it moves gives them in `state_of`.
SLOW = "slow"


def rate(default: float) -> Any:
    """Declare the key `lr`."""
    return key(default, "learning rate, which the schedule multiplies", least=0)


def betas() -> Any:
    """Declare the key `betas` of Adam and its kin."""
    return key(
        (0.9, 0.999),
        "decay rates of the moments: of the gradient and of its square",
        kind="two numbers",
        least=0,
        below=1,
    )


def weight_decay(default: float, about: str) -> Any:
    """Declare the key `weight_decay`."""
    return key(default, about, least=0)


def decayed() -> Any:
    """Declare the key `decay`."""
    return key("all", "weights that decay; matrices: not biases and norms", one_of=DECAYS)


def orthogonal() -> Any:
    """Declare the key `orthogonal`, which training acts on; a plug-in's optimizer that declares it has it, too."""
    about = "take from each tensor's gradient its part along the weights, and scale the rest to the gradient's norm"
    return key(False, about)


@dataclass(frozen=True, kw_only=True)
class Wrapper(Section, of="optimizer"):
    """Fields of an optimizer around another, the inner one's beside them: `optimizer.lr` means the same everywhere.

    Which fields stand beside depends on the inner optimizer, so a class with all of them is made by `around`;
    `Config(inner="adam", lr=0.1)` is an instance of it. An inner field whose name the wrapper has itself stands there
    as `inner_<name>`.

    Attributes:
        follows_task: The task's own optimizer is the inner one unless the user or the task names another.
        may_be_inner: It may be inside another wrapper (and then takes no wrapper itself).
        hashes_tuned: What the task's YAML says of the inner optimizer enters the identity also where it is neutral.
        part: Where the inner optimizer was found.
        inner_class: The inner optimizer's configuration class.
        beside: Field here -> field of the inner optimizer.
    """

    name: str = ""
    inner: str = key("sgd", "the optimizer inside, whose keys stand beside these", kind="an optimizer")
    follows_task: ClassVar[bool] = True
    may_be_inner: ClassVar[bool] = False
    hashes_tuned: ClassVar[bool] = False
    part: ClassVar[registry.Part | None] = None
    inner_class: ClassVar[Any] = None
    beside: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, **said: Any) -> Self:
        """Make an instance of the class that has the inner optimizer's fields.

        Raises:
            ConfigError: There is no such optimizer, or it has no field that was said.
        """
        if cls.part is None:
            cls = cls.around(registry.find("optimizer", said.get("inner", cls.inner)))
        fields = {field.name for field in dataclasses.fields(cls)}
        for name, value in said.items():
            if name not in fields:
                raise ConfigError(
                    f"optimizer.{name}={value}: the inner optimizer {said.get('inner', cls.inner)} has no such key"
                )
        return object.__new__(cls)

    @classmethod
    def around(cls, part: registry.Part) -> type[Self]:
        """Return the class of this wrapper around an optimizer.

        Raises:
            ConfigError: The optimizer cannot be inside this one.
        """
        return _class_around(cls, part)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """Check ranges, the inner optimizer's as well."""
        super().__post_init__()
        self.inner_config()

    def inner_config(self) -> Any:
        """Return the inner optimizer's typed configuration.

        Raises:
            ConfigError: A value is out of its range.
        """
        try:
            return self.inner_class(**{own: getattr(self, name) for name, own in self.beside.items()})
        except ConfigError as error:
            line = str(error)
            for name, own in self.beside.items():
                line = line.replace(f"optimizer.{own}=", f"optimizer.{name}=")
            raise ConfigError(line) from error

    def build_inner(self, params: list[Tensor]) -> torch.optim.Optimizer:
        """Build the inner optimizer over stacked parameters."""
        assert self.part is not None
        built: torch.optim.Optimizer = self.part.build(self.inner_config(), params)
        return built


@lru_cache(maxsize=64)
def _class_around(outer: type[Any], part: registry.Part) -> type[Any]:
    inner = part.config_class
    if issubclass(inner, Wrapper):
        if outer.may_be_inner or not inner.may_be_inner:
            raise ConfigError(f"optimizer.inner={part.name}: expected another optimizer")
        inner = inner.around(registry.find("optimizer", inner.inner))
    own = {field.name for field in dataclasses.fields(outer)}
    hints = get_type_hints(inner)
    beside, fields = {}, []
    for field in dataclasses.fields(inner):
        if field.name in ("name", "inner"):
            continue
        name = f"inner_{field.name}" if field.name in own else field.name
        beside[name] = field.name
        declared = declaration(inner, field.name) or {"about": about_of(inner, field.name)}
        default = dataclasses.field(
            default=field.default, default_factory=field.default_factory, metadata=declared
        )
        fields.append((name, hints[field.name], default))
    members = {"part": part, "inner_class": inner, "beside": beside, "__module__": outer.__module__}
    return dataclasses.make_dataclass(
        outer.__name__, fields, bases=(outer,), namespace=members, frozen=True, kw_only=True
    )


def grouped(params: list[Tensor], decay: str) -> list[Any]:
    """Return parameters (S, ...) in the groups that torch's optimizers take: one, or the rest without decay apart."""
    if decay == "all":
        return params
    matrices = [param for param in params if param.dim() > 2]
    rest = [param for param in params if param.dim() <= 2]
    groups: list[Any] = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_of_torch(kind: Any, config: Any, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build one of torch's optimizers from those fields of a configuration that it has too."""
    known = inspect.signature(kind).parameters
    names = [field.name for field in dataclasses.fields(config) if field.name in known]
    options = {name: getattr(config, name) for name in names}
    built: torch.optim.Optimizer = kind(grouped(params, config.decay), **options, foreach=True)
    return built


def evaluated(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights (or buffers) that are evaluated and probed: an optimizer's slow ones where it has them."""
    slow = getattr(optimizer, "slow", None)
    return tensors if slow is None else {name: slow.get(tensor, tensor) for name, tensor in tensors.items()}


def state_of(optimizer: torch.optim.Optimizer, param: Tensor) -> dict[str, Tensor]:
    """Return the tensors that an optimizer holds for a parameter."""
    own = getattr(optimizer, "state_of", None)
    state = own(param) if own else optimizer.state.get(param, {})
    return {key: value for key, value in state.items() if hasattr(value, "dim")}


def load_state(optimizer: torch.optim.Optimizer, param: Tensor, state: dict[str, Tensor]) -> None:
    """Give an optimizer back the tensors that it held for a parameter."""
    own = getattr(optimizer, "load_state", None)
    if own:
        own(param, state)
    else:
        optimizer.state[param] = state
