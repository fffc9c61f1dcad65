"""The products with parameters in a network's forward pass, and what they say of its gradients.

A gradient by a matrix W is a sum of d a^T over places, where a is what W multiplies and d the gradient by what that
gives; one by scale and shift of a normalisation is a sum of d x and of d. They are seen from outside, while a network
does its pass: linear layers, convolutions, tables that rows are picked from, products with a parameter or its
transpose, sums with a vector, normalisations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dynalab.models.base import Context

# Numbers of a block of gradients: 64 MB in float32.
BLOCK = 1 << 24


def forward(network: nn.Module, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return a network's outputs in evaluation mode, with some weights and buffers in the place of its own."""
    # The plain pass of a network that has one for several runs takes inputs alone.
    takes_context = getattr(network, "takes_context", False) and not hasattr(network, "stacked_forward")
    context = (Context(training=False),) if takes_context else ()
    found: Tensor = functional_call(network.train(False), dict(state), (inputs, *context))
    return found


def add_products(kernel: Tensor, rows: Tensor) -> None:
    """Add the inner products of rows (n, K, p) to a kernel (n, K, n, K)."""
    flat = rows.flatten(0, 1)
    kernel.view(len(flat), len(flat)).addmm_(flat, flat.t())


@dataclass(frozen=True)
class Product:
    """One product with a weight, at P places of every example.

    Attributes:
        weight: The parameter, a matrix; empty: there is a bias alone.
        bias: The parameter that is added; empty: none.
        turned: Whether the weight stands as (in, out).
        made: What the product gives.
        places: Takes a gradient by that to (n, P, out).
        activations: Returns the factor of some examples, (m, P, in), None where there is no weight.
        shape: Of the weight as the parameter has it.
    """

    weight: str
    bias: str
    turned: bool
    made: Tensor
    places: Callable[[Tensor], Tensor]
    activations: Callable[[slice], Tensor] | None
    shape: torch.Size

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return [name for name in (self.weight, self.bias) if name]


@dataclass(frozen=True)
class Norm:
    """A normalisation with a scale and a shift.

    Attributes:
        weight: The scale; empty: it is none of ours.
        bias: The shift; likewise.
        made: What it gives.
        normalised: The same without scale and shift.
        axes: Those that are summed over, of one example's channels.
    """

    weight: str
    bias: str
    made: Tensor
    normalised: Tensor
    axes: tuple[int, ...]
    turned = False

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return [name for name in (self.weight, self.bias) if name]


@dataclass(frozen=True)
class Scales:
    """A normalisation with the gradients (K, n, ...) by what it gives."""

    norm: Norm
    back: Tensor

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return self.norm.names

    def add_to(self, kernel: Tensor) -> None:
        """Add the inner products of its gradients to a kernel (n, K, n, K)."""
        for rows in self.gradients().values():
            add_products(kernel, rows.flatten(2))

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by scale and shift, name -> (n, K, ...)."""
        factors = {self.norm.weight: self.back * self.norm.normalised, self.norm.bias: self.back}
        axes = tuple(axis + 1 for axis in self.norm.axes)
        return {
            name: (x.sum(axes) if axes else x).transpose(0, 1).contiguous()
            for name, x in factors.items()
            if name
        }


@dataclass(frozen=True)
class Layer:
    """All uses of a weight and a bias, with the gradients (n, K, P, out) by what each gives."""

    uses: Sequence[Product]
    gradients_by: Sequence[Tensor]

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return self.uses[0].names

    def _factors(self, some: slice) -> Tensor:
        """Return the activations of some examples at all places, with a 1 for a bias, (m, P, in)."""
        found = []
        for use, own in zip(self.uses, self.gradients_by, strict=True):
            ones = own.new_ones((len(range(*some.indices(len(own)))), own.shape[2], 1))
            parts = [] if use.activations is None else [use.activations(some)]
            found.append(torch.cat([*parts, *([ones] if use.bias else [])], 2))
        return torch.cat(found, 1)

    def add_to(self, kernel: Tensor) -> None:
        """Add the inner products of the layer's gradients to a kernel (n, K, n, K)."""
        back = self.gradients_by[0] if len(self.uses) == 1 else torch.cat([*self.gradients_by], 2)
        n, outputs, places, width = back.shape
        whole = self._factors(slice(0, 1))
        size = whole.shape[2]
        if places == 1:
            factors = self._factors(slice(None))[:, 0]
            flat = back.reshape(n * outputs, width)
            products = (flat @ flat.t()).view(n, outputs, n, outputs)
            kernel.addcmul_(products, (factors @ factors.t())[:, None, :, None])
        elif outputs == 1 and n * n * places * places * (size + width) < n * width * size * (places + n):
            factors = self._factors(slice(None)).flatten(0, 1)
            flat = back[:, 0].reshape(n * places, width)
            step = max(BLOCK // (n * places * places), 1)
            for first in range(0, n, step):
                some = slice(first * places, (first + step) * places)
                both = (factors[some] @ factors.t()) * (flat[some] @ flat.t())
                kernel[first : first + step, 0, :, 0] += both.view(-1, places, n, places).sum((1, 3))
        else:
            step = max(BLOCK // (n * outputs * size), 1)
            few = max(BLOCK // (places * size), 1)
            for first in range(0, width, step):
                pieces = []
                for begin in range(0, n, few):
                    examples = slice(begin, begin + few)
                    own = back[examples, :, :, first : first + step].transpose(2, 3).flatten(1, 2)
                    pieces.append(torch.bmm(own, self._factors(examples)))
                add_products(kernel, torch.cat(pieces).reshape(n, outputs, -1))

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by the weight and the bias, name -> (n, K, ...)."""
        back = torch.cat([*self.gradients_by], 2)
        factors = self._factors(slice(None))
        whole = torch.einsum("nkpd,npa->nkda", back, factors)
        use, found = self.uses[0], {}
        if use.bias:
            found[use.bias], whole = whole[..., -1], whole[..., :-1]
        if use.weight:
            whole = whole.transpose(2, 3) if use.turned else whole
            found[use.weight] = whole.reshape(*whole.shape[:2], *use.shape)
        return found


@dataclass(frozen=True)
class _View:
    """A parameter as a product meets it: as it is, or turned, and with an axis of one run before the others."""

    name: str
    turned: bool = False
    led: bool = False
    column: bool = False  # a vector with an axis of one place behind


_KEPT = (Tensor.contiguous, torch.Tensor.clone)
_TURNED = (Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__)  # type: ignore[attr-defined]
_TRANSPOSED = (Tensor.transpose, torch.transpose, torch.swapaxes, Tensor.swapaxes)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm)
_SUMS = (torch.add, Tensor.add, Tensor.__add__)
_BATCHED = (torch.bmm, Tensor.bmm)
_NORMS: Mapping[Any, Sequence[str]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}
_SIDE = (torch.Tensor.__len__, torch.Tensor.dim, torch.Tensor.size, torch.Tensor.numel)


class Watched(TorchFunctionMode):
    """Watches a forward pass for products with parameters."""

    def __init__(
        self, network: nn.Module, state: Mapping[str, Tensor], inputs: Tensor, contract: frozenset[str]
    ) -> None:
        """Do the pass; of the parameters in `contract` products are kept."""
        super().__init__()
        self._n = len(inputs)
        names = {name for name, _ in network.named_parameters()}
        leaves = {name: x.detach().requires_grad_(name in names) for name, x in state.items()}
        self._params = {name: leaves[name] for name in names}
        self._views = {id(leaves[name]): _View(name) for name in contract}
        # So that no other tensor takes the place of one that is known by where it lies.
        self._alive: list[Tensor] = []
        self._uses: list[Product | Norm] = []
        self._other: set[str] = set()
        with torch.enable_grad(), self:
            made = forward(network, leaves, inputs)
        self.outputs = made.reshape(self._n, -1)
        self._uses = [use for use in self._uses if use.made.requires_grad]
        self._grouped = self._groups()

    def _groups(self) -> list[list[Product | Norm]]:
        """Return the uses that belong together, of parameters that are used in no other way."""
        groups: dict[tuple[str, str], list[Product | Norm]] = {}
        for use in self._uses:
            groups.setdefault((use.weight, use.bias), []).append(use)
        members = [name for pair in groups for name in pair if name]
        bad = self._other | {name for name in members if members.count(name) > 1}
        for own in groups.values():
            alike = len({(type(use), use.turned) for use in own}) == 1
            if not alike or (isinstance(own[0], Norm) and len(own) > 1):
                bad |= {*own[0].names}
        return [own for pair, own in groups.items() if not {*pair} & (bad - {""})]

    @property
    def covered(self) -> frozenset[str]:
        """The parameters that all uses of are known."""
        return frozenset(name for own in self._grouped for name in own[0].names)

    def results(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what every product with a weight gives, in the order of the pass: its weight, and (n, P, out)."""
        for use in self._uses:
            if isinstance(use, Product) and use.weight:
                yield use.weight, use.places(use.made.detach())

    def layers(self, outputs: Sequence[int]) -> Iterator[Layer | Scales]:
        """Yield the layers with the gradients of some outputs."""
        made = [use.made for own in self._grouped for use in own]
        if not made:
            return
        each = []
        for k in outputs:
            total = self.outputs[:, k].sum()
            each.append(torch.autograd.grad(total, made, retain_graph=True, materialize_grads=True))
        rows = iter(zip(*each, strict=True))
        for own in self._grouped:
            if isinstance(own[0], Norm):
                yield Scales(own[0], torch.stack(next(rows)).detach())
                continue
            uses = [use for use in own if isinstance(use, Product)]
            back = [torch.stack([use.places(x.detach()) for x in next(rows)], 1) for use in uses]
            yield Layer(uses, back)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        views = [self._views.get(id(x)) for x in args]
        named = {self._views[id(x)].name for x in (*args, *kwargs.values()) if id(x) in self._views}
        nested = [x for x in args if isinstance(x, list | tuple)]
        named |= {self._views[id(x)].name for some in nested for x in some if id(x) in self._views}
        if not named:
            return func(*args, **kwargs)
        made = func(*args, **kwargs)
        if func in _SIDE or not isinstance(made, Tensor):
            return made
        if (view := self._viewed(func, args, kwargs, views)) is not None:
            self._views[id(made)] = view
            self._alive.append(made)
            return made
        use = self._used(func, args, kwargs, views, made)
        if use is None:
            self._other |= named
            return made
        self._other |= named - {use.weight, use.bias}
        self._uses.append(use)
        # What follows may write into what it is given.
        return made.clone()

    def _viewed(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], views: Sequence[_View | None]
    ) -> _View | None:
        """Return what a function makes of a parameter where that is the same numbers in another order."""
        view = views[0] if views else None
        if view is None or kwargs:
            return None
        tensor: Tensor = args[0]
        if func in _KEPT:
            return view
        matrix = tensor.dim() - view.led == 2 and not view.column
        if func in _TURNED and matrix and not view.led:
            return _View(view.name, not view.turned)
        last = {tensor.dim() - 2, tensor.dim() - 1}
        if func in _TRANSPOSED and matrix and {axis % tensor.dim() for axis in args[1:]} == last:
            return _View(view.name, not view.turned, view.led)
        if func is Tensor.__getitem__ and not view.column:
            if args[1] is None and not view.led:
                return _View(view.name, view.turned, True)
            if isinstance(args[1], tuple) and args[1] == (..., None) and tensor.dim() - view.led == 1:
                return _View(view.name, view.turned, view.led, True)
        return None

    def _used(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        views: Sequence[_View | None],
        made: Tensor,
    ) -> Product | Norm | None:
        """Return a product with a parameter; None where it is none, or its examples are not on the first axis."""
        if func is F.linear:
            x, weight, bias = self._arguments(args, kwargs, ("input", "weight", "bias"))
            return self._linear(x, weight, bias, made, turned=False)
        if func is F.conv2d:
            return self._convolution(args, kwargs, made)
        if func in _NORMS:
            return self._norm(func, args, kwargs, made)
        if func is F.embedding and not kwargs.get("scale_grad_by_freq"):
            indices, table = self._arguments(args, kwargs, ("input", "weight"))
            return self._picked(table, indices, made)
        if kwargs:
            return None
        if func in (Tensor.index_select, torch.index_select) and args[1] == 0:
            return self._picked(args[0], args[2], made)
        if func in _PRODUCTS and views[0] is None:
            return self._linear(args[0], args[1], None, made, turned=True)
        if func in _SUMS and None in views and made.shape[-1:] == args[1 - views.index(None)].shape:
            return self._linear(
                args[views.index(None)], None, args[1 - views.index(None)], made, turned=False
            )
        if func in _BATCHED and views[1] is None:
            return self._led(args[0], args[1], None, made)
        if func in (torch.baddbmm, Tensor.baddbmm) and views[2] is None:
            return self._led(args[1], args[2], args[0], made)
        return None

    @staticmethod
    def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
        return [*args[: len(names)], *(kwargs.get(name) for name in names[len(args) :])]

    def _name(self, tensor: Any, dims: int, led: bool = False) -> tuple[str, bool]:
        """Return the parameter that a factor is, and whether it is turned; an empty name: it is none of ours."""
        view = self._views.get(id(tensor))
        fits = view is not None and tensor.dim() == dims and view.led == led
        assert view is not None or not fits
        return (view.name, view.turned) if view is not None and fits else ("", False)

    def _use(
        self,
        weight: tuple[str, bool],
        bias: str,
        made: Tensor,
        places: Callable[[Tensor], Tensor],
        activations: Callable[[slice], Tensor],
    ) -> Product | None:
        name, turned = weight
        if not name and not bias:
            return None
        shape = self._params[name].shape if name else torch.Size()
        return Product(name, bias, turned, made, places, activations if name else None, shape)

    def _linear(self, x: Any, weight: Any, bias: Any, made: Tensor, *, turned: bool) -> Product | None:
        """Return x W^T + b, or (turned) x W, at all places of the axes between the first and the last."""
        n = self._n
        if made.dim() < 2 or len(made) != n or not isinstance(x, Tensor) or x.shape[:-1] != made.shape[:-1]:
            return None
        name, is_turned = self._name(weight, 2)
        factor = x.detach().reshape(n, -1, x.shape[-1])
        return self._use(
            (name, is_turned != turned),
            self._name(bias, 1)[0],
            made,
            lambda found: found.reshape(n, -1, found.shape[-1]),
            lambda some: factor[some],
        )

    def _norm(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], made: Tensor) -> Norm | None:
        """Return a normalisation whose scale and shift are ours, of maps or rows with the examples first."""
        names = _NORMS[func]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        scale, shift = (self._name(given.get(name), 1)[0] for name in ("weight", "bias"))
        if len(made) != self._n or given.get("training") or not (scale or shift):
            return None
        with torch.no_grad():
            normalised = func(**{**given, "weight": None, "bias": None})
        last = made.dim() - 1
        kept = last if func is F.layer_norm else 1
        return Norm(
            scale, shift, made, normalised, tuple(axis for axis in range(1, last + 1) if axis != kept)
        )

    def _led(self, weight: Any, x: Tensor, bias: Any, made: Tensor) -> Product | None:
        """Return W x + b with the examples last and an axis of one run before: (1, out, n)."""
        if len(made) != 1 or made.shape[2] != self._n:
            return None
        view = self._views.get(id(bias))
        column = view is not None and view.column and view.led
        factor = x.detach()[0].t()[:, None]
        return self._use(
            self._name(weight, 3, True),
            view.name if view is not None and column else "",
            made,
            lambda found: found[0].t()[:, None],
            lambda some: factor[some],
        )

    def _picked(self, table: Any, indices: Tensor, made: Tensor) -> Product | None:
        """Return rows of a table, as the product with one-hot rows that they are."""
        n = self._n
        if indices.numel() % n or made.numel() % n:
            return None
        name, turned = self._name(table, 2)
        rows, symbols = indices.reshape(n, -1), len(table)
        return self._use(
            # A row that is picked is one of the inputs of the product.
            (name, not turned),
            "",
            made,
            lambda found: found.reshape(n, -1, found.shape[-1]),
            lambda some: F.one_hot(rows[some], symbols).to(made.dtype),
        )

    def _convolution(self, args: Sequence[Any], kwargs: Mapping[str, Any], made: Tensor) -> Product | None:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        x, weight, padding = given["input"], given["weight"], given.get("padding", 0)
        if x.dim() != 4 or len(x) != self._n or given.get("groups", 1) != 1 or isinstance(padding, str):
            return None
        about = {"stride": given.get("stride", 1), "padding": padding, "dilation": given.get("dilation", 1)}
        maps, size = x.detach(), weight.shape[2:]
        return self._use(
            self._name(weight, 4),
            self._name(given.get("bias"), 1)[0],
            made,
            lambda found: found.flatten(2).transpose(1, 2),
            lambda some: F.unfold(maps[some], size, **about).transpose(1, 2),
        )
