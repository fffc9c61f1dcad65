"""Statistics of the weights of several runs, in float64: sums over entries, Gram matrices, and their eigenvalues.

Where there is a C++ compiler, those of float32 on a CPU are found in code that is compiled for this machine, in a third
of torch's time; else in torch, which rounds otherwise. A run's own do not depend on its neighbours. See spectra.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import Structure, c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dynalab.config import compiling

SOURCE = Path(__file__).with_name("spectra.cpp")
# Of each thread its own: others may train beside it in one process.
_plain: ContextVar[bool] = ContextVar("plain", default=False)


class _Part(Structure):
    _fields_ = [("at", c_void_p), ("count", c_int64)]


# As in spectra.cpp.
_FUNCTIONS = {
    "statistics": [c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_double, c_void_p],
    "spectra": [*[c_void_p] * 3, c_int64, c_double, c_void_p],
    "squares": [c_void_p, c_void_p, c_int64, c_int64, c_void_p],
    "norms": [c_void_p, c_void_p, c_int64, c_void_p, *[c_int64] * 3, c_void_p],
    "movement": [c_void_p, c_void_p, *[c_int64] * 4, c_void_p],
    "coefficients": [*[c_void_p] * 3, *[c_int64] * 3, c_void_p, c_int64, c_int64, c_void_p],
}


@cache
def library() -> ctypes.CDLL | None:
    """Return the code for this machine, compiled where it is not kept yet; None where that cannot be."""
    return compiling.loaded(compiling.available(SOURCE), _FUNCTIONS)


def code() -> str:
    """Return what a run's numbers are by: the name of the compiled code, or `torch`."""
    made = library()
    return "torch" if made is None else Path(made._name).stem


@contextmanager
def plainly(by_torch: bool = True) -> Iterator[None]:
    """Have torch find everything while the block lasts; nothing changes where it is not to."""
    before = _plain.set(by_torch)
    try:
        yield
    finally:
        _plain.reset(before)


def _known(tensors: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> ctypes.CDLL | None:
    """Return the code, if it knows such tensors."""
    # One of another type may have no memory of its own, as torch's fake tensors.
    types = (Tensor, torch.nn.Parameter)
    plain = all(type(it) in types and it.dtype is dtype and it.device.type == "cpu" for it in tensors)
    return library() if plain and not _plain.get() else None


def statistics(weights: Sequence[Tensor], biases: Sequence[Tensor], least: float) -> Tensor | None:
    """Return the statistics of `dynalab.probes.weights`, in its order, (14, S), in float64, in compiled code.

    None where it does not know the tensors, or finds no eigenvalues.

    Args:
        weights: Matrices (S, m, n), one at least.
        biases: (S, ...) each; where there are none, what is of them is NaN.
        least: Below this a singular value counts as 0.
    """
    made = _known([*weights, *biases])
    if made is None:
        return None
    (held, parts), others = _parts(weights), _parts(biases)
    rows = (c_int64 * len(held))(*(it.shape[1] for it in held))
    found = torch.empty(14, len(held[0]), dtype=torch.float64)
    about = (parts, rows, len(parts), others[1], len(biases), found.shape[1])
    refused = made.statistics(*about, least, found.data_ptr())
    _require(refused)
    return None if refused else found


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
        _require(refused)
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


def norms(
    weights: Mapping[str, Tensor],
    before: Mapping[str, Tensor] | None,
    gradients: Mapping[str, Tensor] | None,
    last: str | None,
) -> Tensor | None:
    """Return the norms of `dynalab.probes.gradients`, in its order, (5, S), in compiled code.

    None where it does not know the tensors.

    Args:
        weights: Name -> (S, ...).
        before: The weights that they are to be compared with.
        gradients: Of some of them.
        last: The last layer's.
    """
    names = list(weights)
    then = None if before is None else [before[name] for name in names]
    slopes = None if gradients is None else [gradients[name] for name in names if name in gradients]
    made = _known([*weights.values(), *(then or ()), *(slopes or ())])
    if made is None:
        return None
    (now, parts), old, steep = (
        (None, None) if it is None else _parts(it) for it in ([*weights.values()], then, slopes)
    )
    assert now is not None
    found = torch.empty(5, len(now[0]), dtype=torch.float64)
    place = names.index(last) if last is not None and last in weights else -1
    made.norms(parts, old[1], len(names), steep[1], len(slopes or ()), place, len(now[0]), found.data_ptr())
    return found.sqrt_()


def movement(now: Tensor, then: Tensor, k: int) -> Tensor | None:
    """Return of matrices (S, m, n) the columns of `dynalab.probes.parity` but the last, (4, S), in compiled code.

    None where it does not know the tensors.
    """
    made = _known([now, then])
    if made is None:
        return None
    now, then = now.contiguous(), then.contiguous()
    found = torch.empty(4, len(now), dtype=torch.float64)
    _require(made.movement(now.data_ptr(), then.data_ptr(), *now.shape, k, found.data_ptr()))
    return found


def coefficients(weight: Tensor, bias: Tensor | None, outer: Tensor, sets: Tensor) -> Tensor | None:
    """Return what `dynalab.probes.parity_fourier.relu` does, in compiled code; None where it does not know the tensors.

    Args:
        weight: (S, m, n).
        bias: (S, m).
        outer: (S, 1, m).
        sets: (count, k), int64.
    """
    made = _known([weight, outer, *([] if bias is None else [bias])])
    if made is None:
        return None
    held = [it if it is None else it.contiguous() for it in (weight, bias, outer)]
    found = torch.empty(len(weight), len(sets), dtype=torch.float64)
    about = (*(None if it is None else it.data_ptr() for it in held), *weight.shape)
    _require(made.coefficients(*about, sets.contiguous().data_ptr(), *sets.shape, found.data_ptr()))
    return found


def _require(refused: int) -> None:
    if refused == 1:
        raise MemoryError


def _parts(tensors: Sequence[Tensor]) -> tuple[list[Tensor], ctypes.Array[_Part]]:
    """Return tensors in one piece each, to be held, and what the code is told of them."""
    held = [it.contiguous() for it in tensors]
    return held, (_Part * len(held))(*(_Part(it.data_ptr(), it.numel() // it.shape[0]) for it in held))
