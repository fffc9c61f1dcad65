"""Which tensors of a network count as its weights: the hints of `dynalab.models.base`, or their defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dynalab.core.errors import ConfigError
from dynalab.models.base import Matrix, Permutation

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class WeightSelection:
    """What weight statistics and norms are taken over.

    Attributes:
        matrices: The matrices that count as weights, in the network's order.
        biases: Names of the biases that go with them.
        last_layer: Name of the parameter that counts as the last layer; None where there is no candidate.
    """

    matrices: tuple[Matrix, ...]
    biases: tuple[str, ...]
    last_layer: str | None


def describe(network: nn.Module) -> WeightSelection:
    """Say which tensors of a network count as its weights.

    A hint that the network carries is taken; otherwise the matrices are the weights of its Linear and Conv
    layers, the biases those of the same layers, and the last layer the last of the matrices.

    Raises:
        ConfigError: A hint names a parameter that does not exist or cannot be cut as it says.
    """
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    parameters = dict(network.named_parameters())
    layers = [
        (f"{name}." if name else "", layer)
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Linear, _ConvNd)) and isinstance(layer.weight, nn.Parameter)
    ]
    default_matrices = [Matrix(f"{prefix}weight") for prefix, _ in layers]
    default_biases = [f"{prefix}bias" for prefix, layer in layers if layer.bias is not None]
    # A parameter that two layers share is listed once, under its first name, as named_parameters does.
    matrices = tuple(
        _hint(network, "weight_matrices", [m for m in default_matrices if m.parameter in parameters])
    )
    biases = tuple(_hint(network, "bias_vectors", [name for name in default_biases if name in parameters]))
    last_layer = _hint(network, "last_layer", matrices[-1].parameter if matrices else None)
    for matrix in matrices:
        _check(matrix, parameters)
    for name in (*biases, *([last_layer] if last_layer is not None else [])):
        if name not in parameters:
            raise ConfigError(f"model: a hint names the parameter {name}, which the network does not have")
    return WeightSelection(matrices, biases, last_layer)


def parts_of(network: nn.Module) -> dict[str, list[str]]:
    """Return the parts of a network that an edit may name -> their parameters.

    `norm`, `embedding`, `bias` and `head` (the module of the last layer) as far as there are any, every module with
    parameters by its name, and what a hint `parts` of the network says besides.
    """
    from torch import nn

    parameters = [name for name, _ in network.named_parameters()]
    modules = {name: type(module).__name__ for name, module in network.named_modules() if name}
    found = {module: [p for p in parameters if p.startswith(f"{module}.")] for module in modules}
    norms = [name for name, kind in modules.items() if "norm" in f"{name.rpartition('.')[2]}{kind}".lower()]
    tables = [name for name, module in network.named_modules() if name and isinstance(module, nn.Embedding)]
    for part, members in (("norm", norms), ("embedding", tables)):
        found[part] = [p for p in parameters if any(p in found[member] for member in members)]
    selection = describe(network)
    found["bias"] = [p for p in parameters if p in selection.biases or p.rpartition(".")[2] == "bias"]
    last = selection.last_layer or ""
    module = last.rpartition(".")[0]
    found["head"] = found[module] if module in modules else [p for p in parameters if p == last]
    found |= {part: list(names) for part, names in getattr(network, "parts", {}).items()}
    return {part: names for part, names in found.items() if names}


def permutations_of(network: nn.Module) -> list[Permutation]:
    """Return the sets of hidden units that may change places, as the network's hint says; none where it says nothing.

    Raises:
        ConfigError: The hint names a tensor that the network does not have, or units beyond its end.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    found: list[Permutation] = list(getattr(network, "permutations", []))
    for permutation in found:
        for name, axis, first in permutation.places:
            shape = tuple(tensors[name].shape) if name in tensors else ()
            if axis >= len(shape) or first + permutation.size > shape[axis]:
                raise ConfigError(
                    f"model: permutations has units {first} to {first + permutation.size - 1} along axis {axis} of "
                    f"{name}, {f'of shape {shape}' if shape else 'which the network does not have'}"
                )
    return found


def layers_of(network: nn.Module) -> dict[str, list[str]]:
    """Return the layers of a network -> their parameters: the modules that own some, by name.

    A parameter that the network itself owns is a layer of its own.
    """
    return grouped((name, name.rpartition(".")[0] or name) for name, _ in network.named_parameters())


def kinds_of(network: nn.Module) -> dict[str, list[str]]:
    """Return the kinds of a network's parameters -> their names; each parameter is of one kind.

    What the hint `parts` says (queries, keys, values) comes first, then `norm`, `embedding`, `bias` and `head` as in
    `parts_of`; all others are `weight`.
    """
    parts = parts_of(network)
    order = [*getattr(network, "parts", {}), "norm", "embedding", "bias", "head"]

    def kind(name: str) -> str:
        return next((part for part in order if name in parts.get(part, ())), "weight")

    return grouped((name, kind(name)) for name, _ in network.named_parameters())


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return group -> its members, from pairs of a member and its group."""
    groups: dict[str, list[str]] = {}
    for member, group in pairs:
        groups.setdefault(group, []).append(member)
    return groups


def matrices(params: Mapping[str, Tensor], selection: WeightSelection) -> Iterator[Tensor]:
    """Yield the selected matrices of S stacked runs, a convolution as (out, in * kernel), parts one by one.

    Args:
        params: Name -> (S, ...).
        selection: Which of them count.

    Yields:
        Views of shape (S, m, n), in the order of the selection.
    """
    for matrix in selection.matrices:
        whole = params[matrix.parameter].flatten(2)
        if matrix.parts == 1:
            yield whole
        else:
            yield from whole.unflatten(1, (matrix.parts, -1)).unbind(1)


def _hint(network: nn.Module, name: str, default: T) -> T:
    """Return a network's own attribute where it has one (an empty list is an answer, None is not)."""
    value = getattr(network, name, None)
    return default if value is None else value


def _check(matrix: Matrix, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse a hint that cannot be carried out."""
    if matrix.parameter not in parameters:
        raise ConfigError(f"model: weight_matrices names {matrix.parameter}, which the network does not have")
    shape = tuple(parameters[matrix.parameter].shape)
    if len(shape) < 2 or matrix.parts < 1 or shape[0] % matrix.parts:
        raise ConfigError(
            f"model: weight_matrices cuts {matrix.parameter} of shape {shape} into {matrix.parts} blocks of "
            "rows; it needs at least two axes and a first one that the number of blocks divides"
        )
