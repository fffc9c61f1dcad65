"""S networks of one architecture side by side, as `torch.func` stacks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dynalab.core.devices import to_device
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import blame, by_hand, place_of, require
from dynalab.core.streams import Streams
from dynalab.models.base import Context
from dynalab.models.nets.parts import LEAST_WIDTH as LEAST_WIDTH
from dynalab.optim.lines import padded

# Takes a gradient by outputs, (S, B, ...), to those by weights.
Vjp = Callable[[Tensor], Sequence[Tensor | None]]
# The draws of a network's own noise (dropout) are keyed apart from those of the task (label noise, masks).
_NETWORK_NOISE = 0x6E6574
# The draw that fixed examples get: no update comes this far.
NO_UPDATE = (1 << 31) - 1
# How torch names what it cannot do for several networks at once.
_UNSTACKED = re.compile(r"\bvmap\b|Batching rule not implemented")


class Stack:
    """The stacked weights of S networks and their forward pass.

    Args:
        networks: S networks of one architecture.
        streams: The runs' streams, for dropout.
        device: Where the stack lives.

    Attributes:
        network: One of the networks, for its structure; its own weights are not used.
        is_stacked: Whether the network's pass is written out for several runs.
        differs_in_training: Whether an update's pass differs from evaluation (batch statistics, dropout).
        params: Name -> weights, shape (S, ...): leaves, of which those require gradients that the network trains. A
            parameter that modules share stands under its first name, as `named_parameters` has it.
        trained: Those of them that require gradients.
        buffers: Name -> buffer, shape (S, ...), each run's own; a training pass updates them. Those that torch would
            not store (`persistent=False`) are among them: what a network may change or draw is state of its run.
        made: What of a plug-in the networks are from, or their inputs: an error in a pass is put down to it.
        evaluated_buffers: The same as evaluation reads them; others where an optimizer evaluates other weights than it
            moves.
    """

    def __init__(
        self, networks: Sequence[nn.Module], streams: Sequence[Streams], device: torch.device
    ) -> None:
        self.network = networks[0]
        self.width = len(networks)
        self.device = device
        self._streams = streams
        self.made: object = None
        self.params: dict[str, Tensor] = {}
        for name, own in self.network.named_parameters():
            rows = torch.stack([network.get_parameter(name).detach() for network in networks])
            laid = padded(rows) if device.type == "cpu" else rows.to(device)
            self.params[name] = laid.requires_grad_(own.requires_grad)
        self.buffers: dict[str, Tensor] = {}
        for name, _ in self.network.named_buffers():
            self.buffers[name] = torch.stack([n.get_buffer(name).detach() for n in networks]).to(device)
        self.evaluated_buffers: Mapping[str, Tensor] = self.buffers
        self.trained = {name: param for name, param in self.params.items() if param.requires_grad}
        # Checkpoints of before have none of these.
        self._unstored = set(self.buffers) - set(self.network.state_dict())
        _empty(self.network)
        self._stacked = getattr(self.network, "stacked_forward", None)
        self.is_stacked = self._stacked is not None
        self._vjp = by_hand(self.network, "stacked_vjp", "stacked_forward")
        self._takes_context = bool(getattr(self.network, "takes_context", False))
        self._noise_shapes = getattr(self.network, "noise_shapes", None)
        self.differs_in_training = self._takes_context or bool(self.buffers)
        _refuse_dropout(self.network, self._takes_context)

    def forward(
        self,
        inputs: Tensor,
        params: Mapping[str, Tensor] | None = None,
        *,
        training: bool = False,
        noise: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return outputs of shape (S, B, ...) for inputs of shape (S, B, ...).

        Args:
            inputs: The batch.
            params: Weights to use; the stack's own by default.
            training: Whether this is an update's pass, which updates the buffers.
            noise: Uniform numbers for the network's dropout, from `noise_of`.
            buffers: What is read, and updated in training, in place of the stack's own buffers.
        """
        try:
            return self._forward(inputs, params, training, noise, buffers)
        except Exception as error:
            blame(error, self.made)
            raise

    def _forward(
        self,
        inputs: Tensor,
        params: Mapping[str, Tensor] | None,
        training: bool,
        noise: Mapping[str, Tensor] | None,
        buffers: Mapping[str, Tensor] | None,
    ) -> Tensor:
        params = self.params if params is None else params
        if buffers is None:
            buffers = self.buffers if training else self.evaluated_buffers
        context = Context(training, buffers, noise or {})
        if self._stacked is not None:
            more = (context,) if self._takes_context else ()
            return self._checked(self._stacked(params, inputs, *more))
        self.network.train(training)

        def one(
            weights: dict, buffers: dict, own_noise: dict, rows: Tensor
        ) -> tuple[Tensor, dict[str, Tensor]]:
            state = {**weights, **buffers}
            more = (Context(training, buffers, own_noise),) if self._takes_context else ()
            outputs = self._checked(functional_call(self.network, state, (rows, *more)))
            # A module may put another tensor in a buffer's place, where others write into it.
            return outputs, {name: state[name] for name in buffers if state[name] is not buffers[name]}

        parts = (dict(params), dict(context.buffers), dict(context.noise))
        if self.width == 1:
            # vmap would only slow a lone run down.
            weights, own, draws = ({name: tensor[0] for name, tensor in part.items()} for part in parts)
            found, changed = one(weights, own, draws, inputs[0])
            outputs, replaced = found[None], {name: tensor[None] for name, tensor in changed.items()}
        else:
            try:
                outputs, replaced = vmap(one)(*parts, inputs)
            except RuntimeError as error:
                line = str(error).partition("\n")[0].partition(". ")[0].removeprefix("vmap: ")
                if not _UNSTACKED.search(str(error)):
                    raise
                raise ConfigError(
                    f"model: torch cannot run {type(self.network).__name__} for several seeds at once ({line}); "
                    "do without that, or give it a stacked_forward (see dynalab/models/base.py)"
                ) from error
        if training:
            with torch.no_grad():
                for name, tensor in replaced.items():
                    context.buffers[name].copy_(tensor)
        return outputs

    @property
    def source(self) -> object:
        """What the outputs are put down to: the network's pass, where it is a plug-in's, else `made`."""
        passed = self._stacked or self.network.forward
        return passed if place_of(passed) else self.made

    def _checked(self, outputs: Any) -> Tensor:
        require(isinstance(outputs, Tensor), self.source, outputs, "its outputs, one tensor")
        return outputs

    def vjp(
        self,
        inputs: Tensor,
        params: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, Vjp]:
        """Return the outputs (S, B, ...) of an update's pass, and what takes a gradient by them to the weights.

        That is called once; it returns gradients in the order of `trained`, None, as torch has it, of what the outputs
        do not depend on. Arguments as of `forward`.
        """
        if self._vjp is not None:
            made = self._vjp({name: param.detach() for name, param in params.items()}, inputs)
            if made is not None:
                by_hand, own = made
                return by_hand, lambda gradient: [*map(own(gradient).get, self.trained)]
        outputs = self.forward(inputs, params, training=True, noise=noise, buffers=buffers)

        def vjp(gradient: Tensor) -> Sequence[Tensor | None]:
            wanted = [params[name] for name in self.trained]
            if not outputs.requires_grad:
                return [None] * len(wanted)
            return torch.autograd.grad(_Along.apply(outputs, gradient), wanted, allow_unused=True)

        return outputs.detach(), vjp

    def noise_of(self, step: int, inputs: Tensor) -> dict[str, Tensor]:
        """Draw the noise of one update: name -> uniform numbers, shape (S, ...), each run's from its own stream.

        On the host, whatever the device: a seed has the same noise everywhere.
        """
        if self._noise_shapes is None:
            return {}
        shapes = self._noise_shapes(tuple(inputs.shape[1:]))
        drawn: dict[str, list[Tensor]] = {name: [] for name in shapes}
        for stream in self._streams:
            generator = stream.torch("noise", _NETWORK_NOISE, step)
            for name, shape in shapes.items():
                drawn[name].append(torch.rand(shape, generator=generator))
        return {name: to_device(torch.stack(rows), self.device) for name, rows in drawn.items()}

    def state(self, params: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return weights and buffers by name, detached, shape (S, ...).

        Args:
            params: Weights that are evaluated, whose buffers go with them; by default those that are trained.
        """
        weights, buffers = (self.params, self.buffers) if params is None else (params, self.evaluated_buffers)
        return {name: tensor.detach() for name, tensor in (*weights.items(), *buffers.items())}

    def load(self, stored: Mapping[str, Tensor]) -> None:
        """Copy stored weights and buffers in; a stack that is wider is filled with copies of their last run."""
        with torch.no_grad():
            for name, tensor in (*self.params.items(), *self.buffers.items()):
                if name in self._unstored and name not in stored:
                    continue
                rows = stored[name]
                if rows.shape[1:] != tensor.shape[1:] or rows.dtype != tensor.dtype:
                    raise ValueError(
                        f"stored {name} is {tuple(rows.shape[1:])} {rows.dtype}, "
                        f"the model has {tuple(tensor.shape[1:])} {tensor.dtype}"
                    )
                tensor.copy_(widen(rows, self.width))


class _Along(torch.autograd.Function):
    """A number whose derivative by outputs is a given gradient.

    The argument `grad_outputs` of `torch.autograd.grad` would do, but torch checks it with the help of sympy, whose
    import takes a second.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return gradient.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient, None


def widen(tensor: Tensor, width: int) -> Tensor:
    """Repeat the last run of a stacked tensor until there are `width` of them."""
    missing = width - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing > 0 else tensor


def _empty(network: nn.Module) -> None:
    """Leave a network without values, on the meta device; what its modules share stays shared.

    `Module.to` would give every module that shares a parameter one of its own.
    """
    seen: dict[Tensor, Tensor] = {}
    for module in network.modules():
        parts: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in parts:
            for name, tensor in held.items():
                if tensor is not None and tensor not in seen:
                    blank = tensor.detach().to("meta")
                    learnt = isinstance(tensor, nn.Parameter)
                    seen[tensor] = nn.Parameter(blank, tensor.requires_grad) if learnt else blank
                if tensor is not None:
                    held[name] = seen[tensor]


def refuse_own_attributes(networks: Sequence[nn.Module]) -> None:
    """Refuse values that differ from run to run and are no state: all runs would have the first one's.

    Raises:
        ConfigError: An attribute differs.
    """
    for modules in zip(*(network.named_modules() for network in networks), strict=True):
        path, first = modules[0]
        # The last is torch's list of what an LSTM has among its parameters; it keeps it up to date.
        for name in vars(first).keys() - {"_parameters", "_buffers", "_modules", "_flat_weights"}:
            if all(_same(vars(first)[name], vars(other).get(name)) for _, other in modules[1:]):
                continue
            where = f"{path}.{name}" if path else name
            raise ConfigError(
                f"model: the attribute {where} of {type(networks[0]).__name__} differs from seed to seed; make it a "
                "parameter or a buffer (register_buffer), so that every run has its own"
            )


_NUMBERS = (Tensor, np.ndarray, np.generic, bool, int, float, complex)


def _same(one: object, other: object) -> bool:
    """Return whether two attributes hold the same numbers; what holds none counts as the same."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _same([*one.values()], [*other.values()])  # torch's own keys (of hooks) are counted up
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if not isinstance(one, _NUMBERS) and not isinstance(other, _NUMBERS):
        return True
    if type(one) is not type(other) or getattr(one, "shape", ()) != getattr(other, "shape", ()):
        return False
    both: Any = (one == other) | ((one != one) & (other != other))  # NaN is NaN
    return bool(both.all()) if hasattr(both, "all") else bool(both)


def _refuse_dropout(network: nn.Module, takes_context: bool) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and not takes_context:
            raise ConfigError(
                f"model: {name or type(network).__name__} is torch's Dropout, whose masks depend on the place in the "
                "stack; draw them from the context's noise (see dynalab/models/base.py)"
            )
