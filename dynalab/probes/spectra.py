"""Statistics of the weights of several runs, in float64: sums over entries, Gram matrices, and their eigenvalues.

Where there is a C++ compiler, those of float32 on a CPU are found in code that is compiled for this machine, in a third
of torch's time; else in torch, which rounds otherwise. A run's own do not depend on its neighbours. See spectra.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from ctypes import Structure, c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dynalab.config import compiling

SOURCE = Path(__file__).with_name("spectra.cpp")


class _Part(Structure):
    _fields_ = [("at", c_void_p), ("count", c_int64)]


# As in spectra.cpp.
_FUNCTIONS = {
    "grams": [c_void_p, *[c_int64] * 3, *[c_void_p] * 3],
    "spectra": [*[c_void_p] * 3, c_int64, c_double, c_void_p],
    "moments": [c_void_p, c_int64, c_int64, c_void_p, c_void_p],
    "squares": [c_void_p, c_void_p, c_int64, c_int64, c_void_p],
}


@cache
def library() -> ctypes.CDLL | None:
    """Return the code for this machine, compiled where it is not kept yet; None where that cannot be."""
    return compiling.loaded(compiling.available(SOURCE), _FUNCTIONS)


def code() -> str:
    """Return what a run's numbers are by: the name of the compiled code, or `torch`."""
    made = library()
    return "torch" if made is None else Path(made._name).stem


def _known(tensors: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> ctypes.CDLL | None:
    """Return the code, if it knows such tensors."""
    # One of another type may have no memory of its own, as torch's fake tensors.
    types = (Tensor, torch.nn.Parameter)
    plain = all(type(it) in types and it.dtype is dtype and it.device.type == "cpu" for it in tensors)
    return library() if plain else None


def grams(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return of matrices W (S, K, m, n) the smaller of W W^T and W^T W, and sums of |W_ij| and of W_ii, (S, K) each.

    Of a product, (S, K, l, l), the lower triangle alone counts.
    """
    made = _known([weights])
    if made is None:
        # Its own numbers: the sizes of entries take their places.
        x = weights.to(torch.float64, copy=True)
        gram = x @ x.mT if x.shape[2] < x.shape[3] else x.mT @ x
        trace = x.diagonal(dim1=2, dim2=3).sum(2)
        return gram, x.abs_().sum((2, 3)), trace
    weights, least = weights.contiguous(), min(weights.shape[2:])
    gram = torch.empty(*weights.shape[:2], least, least, dtype=torch.float64)
    sizes, trace = torch.empty(2, *weights.shape[:2], dtype=torch.float64)
    places = (it.data_ptr() for it in (gram, sizes, trace))
    if made.grams(weights.data_ptr(), sizes.numel(), *weights.shape[2:], *places):
        raise MemoryError
    return gram, sizes, trace


def spectra(products: Sequence[Tensor], least: float) -> Tensor:
    """Return the largest, the mean and the variance (ddof 0) of singular values, (3, S, K), float64.

    Args:
        products: As `grams` returns them, finite, (S, K', l, l) each; the K' add up to K.
        least: Below this a singular value counts as 0.
    """
    made, kinds, runs = _known(products, torch.float64), len(products), len(products[0])
    if made is not None:
        products = [it.contiguous() for it in products]
        found = [it.new_empty(3, runs, it.shape[1]) for it in products]
        counts, sizes = (
            (c_int64 * kinds)(*own)
            for own in ([it.shape[0] * it.shape[1] for it in products], [it.shape[3] for it in products])
        )
        given, to = ((c_void_p * kinds)(*(it.data_ptr() for it in several)) for several in (products, found))
        refused = made.spectra(given, counts, sizes, kinds, least, to)
        if refused == 1:
            raise MemoryError
        if not refused:
            return torch.cat(found, dim=2)
    found = []
    for product in products:
        values = torch.linalg.eigvalsh(product).clamp_min(0.0).sqrt()
        values = torch.where(values < least, 0.0, values)
        mean = values.mean(2)
        variance = (values - mean[..., None]).square().mean(2)
        found.append(torch.stack([values[..., -1], mean, variance]))
    return torch.cat(found, dim=2)


def moments(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance (ddof 0) of all entries of some tensors (S, ...), (S,) each."""
    made = _known(tensors)
    if made is None:
        wide = torch.cat([it.flatten(1) for it in tensors], dim=1).to(torch.float64, copy=True)
        mean = wide.mean(1)
        return mean, wide.sub_(mean[:, None]).square_().mean(1)
    held, parts = _parts(tensors)
    mean, variance = torch.empty(2, len(held[0]), dtype=torch.float64)
    made.moments(parts, len(parts), len(mean), mean.data_ptr(), variance.data_ptr())
    return mean, variance


def squares(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the sums of squares of tensors (S, ...), or of what they differ in from others, name -> (S,)."""
    if not tensors:
        return {}
    before = None if others is None else [others[name] for name in tensors]
    made = _known([*tensors.values(), *(before or ())])
    if made is None:
        # In float64 before they are subtracted: neighbouring weights agree in most digits of a float32.
        wide = {name: it.to(torch.float64, copy=True) for name, it in tensors.items()}
        for own, other in zip(wide.values(), before or (), strict=False):
            own.sub_(other)
        return {name: it.square_().unsqueeze(-1).flatten(1).sum(1) for name, it in wide.items()}
    held, parts = _parts([*tensors.values(), *(before or ())])
    less = ctypes.byref(parts, len(tensors) * ctypes.sizeof(_Part)) if before is not None else None
    found = torch.empty(len(tensors), len(held[0]), dtype=torch.float64)
    made.squares(parts, less, *found.shape, found.data_ptr())
    return dict(zip(tensors, found, strict=True))


def _parts(tensors: Sequence[Tensor]) -> tuple[list[Tensor], ctypes.Array[_Part]]:
    """Return tensors in one piece each, to be held, and what the code is told of them."""
    held = [it.contiguous() for it in tensors]
    return held, (_Part * len(held))(*(_Part(it.data_ptr(), it[0].numel()) for it in held))
