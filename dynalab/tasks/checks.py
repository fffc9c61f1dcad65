"""Whether what a task gave can be used: a plug-in's that cannot is refused in a line that names its file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dynalab.core.batch import Batch, InputSpec
from dynalab.core.columns import OF_UPDATES, declared
from dynalab.core.plugins import PluginError, place_of, refuse, require
from dynalab.core.words import listed


def check_task(build: Callable[..., object], task: Any) -> None:
    """Check that `build` gave a task.

    Raises:
        PluginError: A plug-in's did not.
    """
    for name in ("data", "loss", "metrics"):
        method = getattr(task, name, None)
        require(callable(method), build, task, f"a task, which has a method {name}")
    spec = getattr(task, "spec", None)
    require(isinstance(spec, InputSpec), build, task, "a task, whose `spec` is an InputSpec")


def check_data(task: Any, data: Any, width: int, as_said: bool = False) -> None:
    """Look at the first batches of a plug-in's data for `width` runs.

    `as_said` asks for what `spec` says, too.

    Raises:
        PluginError: They are no batches of so many runs.
    """
    if not place_of(task):
        return
    for name in ("train_batch", "eval_batches"):
        require(callable(getattr(data, name, None)), task.data, data, f"an object with a method {name}")
    batch = data.train_batch(0)
    _check_batch(data.train_batch, batch, width)
    if as_said:
        _check_inputs(data.train_batch, batch.inputs, task.spec)
    for split in ("train", "test"):
        batches = data.eval_batches(split)
        require(
            hasattr(batches, "__getitem__"), data.eval_batches, batches, "a list of Batch(inputs, targets)"
        )
        for batch in batches[:1]:
            _check_batch(data.eval_batches, batch, width)


def _check_batch(made: Callable[..., object], batch: Any, width: int) -> None:
    require(isinstance(batch, Batch), made, batch, "a Batch(inputs, targets)")
    for name in ("inputs", "targets"):
        tensor = getattr(batch, name)
        shape = tuple(getattr(tensor, "shape", ()))
        expected = f"{name} of shape ({width}, B, ...): {width} runs side by side, B examples each"
        require(isinstance(tensor, Tensor) and len(shape) > 1 and shape[0] == width, made, tensor, expected)


def _check_inputs(made: Callable[..., object], inputs: Tensor, spec: InputSpec) -> None:
    """Check that inputs are those that dynalab's own models are built for."""
    dtype = str(inputs.dtype).removeprefix("torch.")
    if spec.kind in ("vector", "image"):
        shape = f"inputs of shape ({len(inputs)}, B, {spec.symbols}), as spec.symbols is {spec.symbols}"
        one = inputs.shape[2:]
        fits = one == (spec.symbols,) or (spec.kind == "image" and one.numel() == spec.symbols)
        require(fits, made, inputs, shape)
        require(dtype == "float32", made, inputs, f"inputs of type float32, as weights are, not {dtype}")
    elif spec.kind == "pairs":
        which = f"integers from 0 to {spec.symbols - 1}, as spec.symbols is {spec.symbols}"
        whole = not (inputs.is_floating_point() or inputs.is_complex())
        right = whole and bool(((inputs >= 0) & (inputs < spec.symbols)).all())
        require(right, made, inputs, f"inputs of {which}")


def check_values(made: Callable[..., object], values: Any, width: int) -> None:
    """Check that a method gave one number for each of `width` runs: in a tensor, or in a dictionary of some.

    Raises:
        PluginError: A plug-in's did not.
    """
    for name, value in values.items() if isinstance(values, Mapping) else ((None, values),):
        if not isinstance(value, Tensor) or value.shape != (width,) or value.dtype.is_complex:
            whose = "" if name is None else f", for {name!r}"
            kind = "real (not complex) " if isinstance(value, Tensor) and value.is_complex() else ""
            refuse(made, value, f"a tensor of shape ({width},), one {kind}value a run{whose}")


def check_metrics(made: Callable[..., object], metrics: Any, width: int) -> None:
    """Check that a task's metrics are one number for each of `width` runs, under names of their own.

    Raises:
        PluginError: A plug-in's are not.
    """
    require(isinstance(metrics, Mapping), made, metrics, "a dictionary of metrics")
    check_values(made, metrics, width)
    # With the split before them: the loss of the evaluation, and what is recorded of the updates.
    taken = ["loss", *(name.removeprefix("train_") for name in OF_UPDATES if name.startswith("train_"))]
    check_names(made, metrics, taken)


@contextmanager
def unwritten(made: Callable[..., object], given: Mapping[str, Tensor], bits: bool = False) -> Iterator[None]:
    """Refuse a plug-in's function that writes, while the block lasts, into tensors that it was given.

    Args:
        made: The function; of one of dynalab's own nothing is looked at.
        given: What it reads, by what that is called.
        bits: Whether writing is told that torch does not count, too, as through numpy or `.data`.

    Raises:
        PluginError: It does.
    """
    place = place_of(made)
    if place is None:
        yield
        return
    before = {name: _mark(tensor, bits) for name, tensor in given.items()}
    yield
    written = next((name for name, mark in before.items() if _mark(given[name], bits) != mark), None)
    if written is not None:
        raise PluginError(
            f"{place}writes into {written}, which training and others read; write into a copy (clone)"
        )


def _mark(tensor: Tensor, bits: bool) -> tuple[int, int]:
    return tensor._version, _sum_of_bits(tensor) if bits else 0


def _sum_of_bits(tensor: Tensor) -> int:
    import torch

    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    same = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size(), torch.uint8)
    return int(tensor.detach().view(same).sum())


def check_names(made: Callable[..., object], values: Mapping[str, Any], taken: Collection[str]) -> None:
    """Check that a plug-in's values have names that a column can have, and that no other column has.

    Raises:
        PluginError: They have not.
    """
    if not place_of(made):
        return
    odd = [name for name in values if not (isinstance(name, str) and name.isidentifier())]
    require(not odd, made, values, "names of letters, digits and _, as columns have")
    same = sorted(name for name in values if declared(name, taken))
    require(not same, made, values, f"other names than {listed(same)}, which the row has already")
