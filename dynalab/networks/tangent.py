"""The empirical tangent kernel of one network: inner products of the gradients of its outputs at different examples.

K[i, j] is the sum over outputs k of <df_k(x_i)/dw, df_k(x_j)/dw> over all trained weights, or, in full, a block for
every two outputs (Jacot et al. 2018, arXiv 1806.07572). The matrix of all gradients, J, is never formed. Where a weight
is a matrix that is multiplied by activations a, its gradients are sums of d a^T over places, d the gradients by what
the product gives: their inner products are those of the activations times those of the d, or, at many places, are taken
of the sums, some rows at a time. Linear layers, convolutions, tables that rows are picked from, and products with a
parameter or its transpose are such, seen from outside, while the network does its forward pass. Everything else
(codes of positions, a table that is also the output's weight) has the gradient of every
example taken, some parameters at a time.

That the contraction is right for a network is not believed: `contracted` holds each weight's gradients against
autograd's on three examples, and what does not agree is done the other way.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from dynalab.networks.products import BLOCK, Watched, add_products, forward

# What float64 makes of two ways to the same gradient differs by less.
AGREES = 1e-9
# Examples that the contraction is tried on: few, and seldom as many as a network has of anything else.
TRIED = 3


def tangent_kernel(
    network: nn.Module,
    inputs: Tensor,
    outputs: Sequence[int] | None = None,
    *,
    params: Mapping[str, Tensor] | None = None,
    contract: frozenset[str] | None = None,
    full: bool = False,
) -> Tensor:
    """Return the tangent kernel of some outputs of a network in evaluation mode.

    Args:
        network: The network, with its weights and buffers.
        inputs: Of n examples, shape (n, ...).
        outputs: Places among the numbers that an example has as outputs, flat; None: all of them, C.
        params: Name -> weights in the place of the network's own.
        contract: What `contracted` returned of this network, or of another of its architecture; None: it is asked.
        full: Whether every two outputs have a block.

    Returns:
        Shape (n, n), summed over outputs; with `full` (n, C, n, C).
    """
    wanted = _outputs(network, inputs, outputs)
    if contract is None:
        contract = contracted(network, inputs, wanted)
    own = {**dict(network.named_parameters()), **(params or {})}
    trained = [name for name, param in network.named_parameters() if param.requires_grad]
    n = len(inputs)
    blocks = [wanted] if full else [[k] for k in wanted]
    uses = Watched(network, own, inputs, contract)
    rest = {name: own[name].numel() for name in trained if name not in uses.covered}
    kernel = uses.outputs.new_zeros((n, len(blocks[0]), n, len(blocks[0])))
    for block in blocks:
        for layer in uses.layers(block):
            layer.add_to(kernel)
        for some in _in_blocks(rest, BLOCK // (n * len(block))):
            rows = torch.cat(
                [x.flatten(2) for x in _gradients(network, own, inputs, block, some).values()], 2
            )
            add_products(kernel, rows)
    return kernel if full else kernel[:, 0, :, 0]


def contracted(network: nn.Module, inputs: Tensor, outputs: Sequence[int] | None = None) -> frozenset[str]:
    """Return the trained parameters whose gradients are sums of products that are seen from outside.

    Each is held against autograd's gradients, in float64, of the first examples and one output.
    """
    few = inputs[:TRIED].to(torch.float64) if inputs.is_floating_point() else inputs[:TRIED]
    held = {name: x.detach().to(torch.float64) for name, x in network.named_parameters()}
    floating = {name: x.to(torch.float64) for name, x in network.named_buffers() if x.is_floating_point()}
    trained = [name for name, param in network.named_parameters() if param.requires_grad]
    output = _outputs(network, few, outputs, {**held, **floating})[:1]
    uses = Watched(network, {**held, **floating}, few, frozenset(trained))
    found: dict[str, Tensor] = {}
    for layer in uses.layers(output):
        found |= layer.gradients()
    expected = _gradients(network, {**held, **floating}, few, output, [*found])
    agrees = {
        name: float((found[name] - expected[name]).abs().max()) <= AGREES * float(expected[name].abs().max())
        for name in found
    }
    # A weight and its bias are one layer, or neither is.
    pairs = [layer.names for layer in uses.layers(output)]
    return frozenset(name for pair in pairs if all(agrees[own] for own in pair) for name in pair)


def layer_outputs(
    network: nn.Module, state: Mapping[str, Tensor], inputs: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield what every layer of a network gives in evaluation mode, before what follows it, in the order of the pass.

    Layers are products with a weight, as the kernel's contraction sees them; a weight that is used twice comes twice.

    Args:
        network: The network.
        state: Name -> weights and buffers in the place of its own.
        inputs: Of n examples, shape (n, ...).

    Yields:
        The layer's name, and what it gives at all places, (n, P * out).
    """
    trained = frozenset(name for name, param in network.named_parameters() if param.requires_grad)
    own = dict(network.named_parameters())
    for weight, given in Watched(network, {**own, **state}, inputs, trained).results():
        yield weight.rpartition(".")[0] or weight, given.flatten(1)


def _outputs(
    network: nn.Module,
    inputs: Tensor,
    outputs: Sequence[int] | None,
    state: Mapping[str, Tensor] | None = None,
) -> list[int]:
    if outputs is not None:
        return [*outputs]
    with torch.no_grad():
        found = forward(network, state or {}, inputs[:1])
    return [*range(found[0].numel())]


def _gradients(
    network: nn.Module,
    state: Mapping[str, Tensor],
    inputs: Tensor,
    outputs: Sequence[int],
    names: Sequence[str],
) -> dict[str, Tensor]:
    """Return every example's gradients of some outputs, name -> (n, K, ...), as autograd has them."""
    fixed = {name: x.detach() for name, x in state.items() if name not in names}

    def output(moved: dict[str, Tensor], example: Tensor, k: int) -> Tensor:
        return forward(network, {**fixed, **moved}, example[None]).flatten()[k]

    moved = {name: state[name].detach() for name in names}
    if not names:
        return {}
    each: list[dict[str, Tensor]] = []
    for k in outputs:
        of = grad(functools.partial(output, k=k))
        try:
            each.append(vmap(of, in_dims=(None, 0))(moved, inputs))
        except RuntimeError:
            # What torch cannot do for several examples at once.
            rows = [of(moved, example) for example in inputs]
            each.append({name: torch.stack([row[name] for row in rows]) for name in names})
    return {name: torch.stack([own[name].detach() for own in each], 1) for name in names}


def _in_blocks(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield names in groups of at most so many numbers, or of one name."""
    block: list[str] = []
    total = 0
    for name, size in sizes.items():
        if block and total + size > most:
            yield block
            block, total = [], 0
        block.append(name)
        total += size
    if block:
        yield block
