"""S networks of one architecture side by side, as `torch.func` stacks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dynalab.errors import ConfigError
from dynalab.models.base import Context
from dynalab.training.streams import Streams

# One network alone is trained beside a copy of itself: at width 1 batched products pick other kernels, and a seed's
# bits would depend on whether it was trained alone.
LEAST_WIDTH = 2
# The draws of a network's own noise (dropout) are keyed apart from those of the task (label noise, masks).
_NETWORK_NOISE = 0x6E6574


def build_networks(make: Callable[[], nn.Module], streams: Sequence[Streams]) -> list[nn.Module]:
    """Build one network a run, each under its own `init` stream; torch's global generator is left as it was.

    Args:
        make: Builds one network with torch's usual initialisers.
        streams: The runs' streams, length S.
    """
    networks = []
    for stream in streams:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream.integer("init"))
            networks.append(make())
    return networks


class Stack:
    """The stacked weights of S networks and their forward pass.

    Args:
        networks: S networks of one architecture.
        streams: The runs' streams, for dropout.
        device: Where the stack lives.

    Attributes:
        network: One of the networks, for its structure; its own weights are not used.
        differs_in_training: Whether an update's pass differs from evaluation (batch statistics, dropout).
        params: Name -> weights, shape (S, ...), leaves that require gradients.
        buffers: Name -> persistent buffer (running statistics), shape (S, ...); a training pass updates them.
    """

    def __init__(
        self, networks: Sequence[nn.Module], streams: Sequence[Streams], device: torch.device
    ) -> None:
        self.network = networks[0]
        self.width = len(networks)
        self.device = device
        self._streams = streams
        persistent = set(self.network.state_dict())
        self.params: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        for name, _ in self.network.named_parameters():
            rows = [network.get_parameter(name).detach() for network in networks]
            self.params[name] = torch.stack(rows).to(device).requires_grad_()
        constants = {}
        for name, buffer in self.network.named_buffers():
            if name in persistent:
                self.buffers[name] = torch.stack([n.get_buffer(name) for n in networks]).to(device)
            else:
                constants[name] = buffer.to(device)
        self.network.to("meta")
        self._constants = constants
        self._stacked = getattr(self.network, "stacked_forward", None)
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
        params = self.params if params is None else params
        context = Context(training, self.buffers if buffers is None else buffers, noise or {})
        if self._stacked is not None:
            return (
                self._stacked(params, inputs, context)
                if self._takes_context
                else self._stacked(params, inputs)
            )
        self.network.train(training)

        def one(weights: dict, buffers: dict, own_noise: dict, rows: Tensor) -> Tensor:
            state = (weights, buffers, self._constants)
            more = (Context(training, buffers, own_noise),) if self._takes_context else ()
            return functional_call(self.network, state, (rows, *more))

        if self.width == 1:
            return self._alone(one, params, context, inputs)
        return vmap(one)(dict(params), dict(context.buffers), dict(context.noise), inputs)

    @staticmethod
    def _alone(
        one: Callable[..., Tensor], params: Mapping[str, Tensor], context: Context, inputs: Tensor
    ) -> Tensor:
        """Forward pass of a lone run, which vmap would only slow down."""
        parts = (params, context.buffers, context.noise)
        first = ({name: tensor[0] for name, tensor in part.items()} for part in parts)
        return one(*first, inputs[0])[None]

    def noise_of(self, step: int, inputs: Tensor) -> dict[str, Tensor]:
        """Draw the noise of one update: name -> uniform numbers, shape (S, ...), each run's from its own stream."""
        if self._noise_shapes is None:
            return {}
        shapes = self._noise_shapes(tuple(inputs.shape[1:]))
        drawn: dict[str, list[Tensor]] = {name: [] for name in shapes}
        for stream in self._streams:
            generator = stream.torch("noise", _NETWORK_NOISE, step, device=self.device)
            for name, shape in shapes.items():
                drawn[name].append(torch.rand(shape, generator=generator, device=self.device))
        return {name: torch.stack(rows) for name, rows in drawn.items()}

    def state(self, params: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return weights and buffers by name, detached, shape (S, ...)."""
        weights = self.params if params is None else params
        return {name: tensor.detach() for name, tensor in (*weights.items(), *self.buffers.items())}

    def load(self, stored: Mapping[str, Tensor]) -> None:
        """Copy stored weights and buffers in; a stack that is wider is filled with copies of their last run."""
        with torch.no_grad():
            for name, tensor in (*self.params.items(), *self.buffers.items()):
                rows = stored[name]
                if rows.shape[1:] != tensor.shape[1:] or rows.dtype != tensor.dtype:
                    raise ValueError(
                        f"stored {name} is {tuple(rows.shape[1:])} {rows.dtype}, "
                        f"the model has {tuple(tensor.shape[1:])} {tensor.dtype}"
                    )
                tensor.copy_(widen(rows, self.width))


def widen(tensor: Tensor, width: int) -> Tensor:
    """Repeat the last run of a stacked tensor until there are `width` of them."""
    missing = width - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing > 0 else tensor


def _refuse_dropout(network: nn.Module, takes_context: bool) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and not takes_context:
            raise ConfigError(
                f"model: {name or type(network).__name__} is torch's Dropout, whose masks depend on the place in the "
                "stack; draw them from the context's noise (see dynalab/models/base.py)"
            )
