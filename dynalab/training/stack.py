"""S networks of one architecture side by side, as `torch.func` stacks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dynalab.training.streams import Streams

# One network alone is trained beside a copy of itself: at width 1 batched products pick other kernels, and a seed's
# bits would depend on whether it was trained alone.
LEAST_WIDTH = 2


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
        device: Where the stack lives.

    Attributes:
        network: One of the networks, for its structure; its own weights are not used.
        params: Name -> weights, shape (S, ...), leaves that require gradients.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self.network = networks[0]
        self.width = len(networks)
        buffers = dict(self.network.named_buffers())
        self._buffers = {name: buffer.to(device) for name, buffer in buffers.items()}
        self.params: dict[str, Tensor] = {}
        for name, _ in self.network.named_parameters():
            rows = [network.get_parameter(name).detach() for network in networks]
            self.params[name] = torch.stack(rows).to(device).requires_grad_()
        self.network.to("meta")
        self._stacked = getattr(self.network, "stacked_forward", None)

    def forward(self, inputs: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return outputs of shape (S, B, ...) for inputs of shape (S, B, ...)."""
        params = self.params if params is None else params
        if self._stacked is not None:
            return self._stacked(params, inputs)

        def one(weights: dict[str, Tensor], rows: Tensor) -> Tensor:
            return functional_call(self.network, (weights, self._buffers), (rows,))

        return vmap(one)(dict(params), inputs)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy stored weights in; a stack that is wider than they are is filled with copies of their last run."""
        with torch.no_grad():
            for name, param in self.params.items():
                stored = weights[name]
                if stored.shape[1:] != param.shape[1:] or stored.dtype != param.dtype:
                    raise ValueError(
                        f"stored weight {name} is {tuple(stored.shape[1:])} {stored.dtype}, "
                        f"the model has {tuple(param.shape[1:])} {param.dtype}"
                    )
                param.copy_(widen(stored, self.width))


def widen(tensor: Tensor, width: int) -> Tensor:
    """Repeat the last run of a stacked tensor until there are `width` of them."""
    missing = width - tensor.shape[0]
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing > 0 else tensor
