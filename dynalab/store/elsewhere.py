"""Files of weights that other trainers wrote: safetensors, and what `torch.save` wrote.

What a file is, is told by its first bytes. No code of it is run: of a pickle tensors and plain values are taken and
nothing else. Tensors are mapped into memory, so that what is not looked at is not read; those of torch's form of before
1.6 are read whole.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.core.errors import StoreError
from dynalab.core.words import listed
from dynalab.store.read import opened

if TYPE_CHECKING:
    from torch import Tensor

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# The length of the header of a safetensors file stands before it.
_LENGTH = 8
# Where trainers keep the weights, beside the state of an optimizer and the like.
_INSIDE = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params")
# What wrappers put before every name.
_WRAPPED = ("module.", "_orig_mod.")
_DEPTH = 4


def read(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, by name, which may lie in several files.

    Raises:
        StoreError: A file is missing, damaged or no checkpoint, or holds more than tensors and plain values.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        own = _tensors(path)
        if twice := sorted(found.keys() & own.keys()):
            raise StoreError(
                f"{path} is damaged: {twice[0]} stands in another file of its checkpoint as well"
            )
        found |= own
    for prefix in _WRAPPED:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def is_mapped(path: Path) -> bool:
    """Return whether the tensors of a file are mapped, so that holding them costs no memory."""
    with opened(path) as file:
        return file.read(len(_PICKLE)) != _PICKLE


def _tensors(path: Path) -> dict[str, Tensor]:
    with opened(path) as file:
        begin = file.read(_LENGTH + 1)
    if not begin:
        raise StoreError(f"{path} is empty")
    if begin.startswith((_ZIP, _PICKLE)):
        tree = _load(path, mapped=begin.startswith(_ZIP))
        tensors = _state(path, tree) if isinstance(tree, Mapping) else {}
        if not tensors:
            keys = listed([str(key) for key in tree]) if isinstance(tree, Mapping) else type(tree).__name__
            raise StoreError(f"{path} holds no dictionary of tensors; it holds {keys}")
    elif begin[_LENGTH:] == b"{":
        tensors = _safetensors(path)
    else:
        raise StoreError(f"{path} is no checkpoint: neither safetensors nor what torch.save writes")
    for name, tensor in tensors.items():
        _check(path, name, tensor)
    return tensors


def _load(path: Path, *, mapped: bool) -> Any:
    import torch

    try:
        # torch.save stores its members as they are; what is compressed may unpack to any size.
        if mapped and any(item.compress_type for item in zipfile.ZipFile(path).infolist()):
            raise zipfile.BadZipFile("its members are compressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    # What a damaged pickle raises may be anything.
    except Exception as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise StoreError(
                f"{path} holds {code[1]}, which only running code restores, and none was run; save the weights alone: "
                "torch.save(model.state_dict(), path)"
            ) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise StoreError(f"{path} is damaged, or no checkpoint: {first}") from error


def _state(path: Path, tree: Mapping[Any, Any], depth: int = _DEPTH) -> dict[str, Tensor]:
    """Return the tensors of a dictionary, or of the one in it that holds a model's weights."""
    import torch

    inner = next((tree[key] for key in _INSIDE if isinstance(tree.get(key), Mapping)), None)
    if inner is not None and depth:
        return _state(path, inner, depth - 1)
    return {
        name: value.detach()
        for name, value in tree.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no dictionary)
    except (
        SafetensorError,
        OSError,
        LookupError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise StoreError(f"{path} is damaged, or no checkpoint: {error}") from error


def _check(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a name that cannot be shown, and a tensor that claims more numbers than lie there."""
    import torch

    if not name.isprintable():
        raise StoreError(f"{path} is damaged: a tensor is called {name[:60]!r}")
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if plain and tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise StoreError(f"{path} is damaged: {name} has fewer numbers than its shape {tuple(tensor.shape)}")
