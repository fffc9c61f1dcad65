"""The Lookahead optimizer itself; its configuration and source are in `lookahead`.

Running statistics are those of the fast weights that a network met while it was trained, and would not fit the slow
ones. They follow the weights' own rule: at a synchronisation the slow statistics move by alpha towards the fast ones,
as averages of weights are given averages of statistics. Training goes on with its own, so it does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dynalab.optim.base import SLOW
from dynalab.optim.updates import make_step

_CACHED, _COUNT = "cached.", "count"


class Lookahead(torch.optim.Optimizer):
    """Slow weights around an inner optimizer.

    Args:
        inner: The optimizer that moves the fast weights.
        k: Inner steps between two synchronisations.
        alpha: Size of the slow step.
        inner_state: `keep`, `reset` or `pullback`.

    Attributes:
        slow: Parameter, or buffer of a network -> slow weights or statistics, of the same shape.
        count: Inner steps made.
    """

    def __init__(self, inner: torch.optim.Optimizer, k: int, alpha: float, inner_state: str) -> None:
        # torch's own constructor would make parameter groups a second time; the inner ones are shared instead.
        self.inner, self.k, self.alpha, self.inner_state = inner, k, alpha, inner_state
        self.param_groups = inner.param_groups
        self.slow: dict[Tensor, Tensor] = {
            param: param.detach().clone() for group in inner.param_groups for param in group["params"]
        }
        self._cached: dict[Tensor, dict[str, Tensor]] = {param: {} for param in self.slow}
        self._buffers: list[Tensor] = []
        self.count = 0

    def follow(self, buffers: Iterable[Tensor]) -> None:
        """Keep slow values of a network's buffers, which begin as the buffers are now."""
        self._buffers = list(buffers)
        self.slow |= {buffer: buffer.detach().clone() for buffer in self._buffers}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one inner step, and every k-th time the slow one."""
        make_step(self.inner)
        self.count += 1
        if self.count % self.k:
            return
        for buffer in self._buffers:
            slow = self.slow[buffer]
            if buffer.is_floating_point():
                # What stays the same keeps its bits, an infinite entry of a mask among it.
                slow.copy_(torch.where(slow == buffer, slow, slow + self.alpha * (buffer - slow)))
            else:
                slow.copy_(buffer)
        for param in self._cached:
            slow = self.slow[param]
            slow.add_(param - slow, alpha=self.alpha)
            param.copy_(slow)
            if self.inner_state == "reset":
                self.inner.state[param].clear()
            elif self.inner_state == "pullback":
                self._pull_back(param)

    def _pull_back(self, param: Tensor) -> None:
        cached = self._cached[param]
        for name, moment in self.inner.state[param].items():
            if torch.is_tensor(moment) and moment.shape == param.shape:
                before = cached.setdefault(name, torch.zeros_like(moment))
                moment.copy_(before + self.alpha * (moment - before))
                before.copy_(moment)

    def pulled(self, param: Tensor, names: Sequence[str], steps: int) -> list[Tensor]:
        """Return the moments of these names as of the last slow step, to which those of so many steps are pulled back.

        None where they are not, or there was no slow step yet and is none among these steps.
        """
        cached = self._cached[param]
        if self.inner_state == "pullback" and (cached or self.count % self.k + steps >= self.k):
            for name in names:
                cached[name] = cached.get(name, torch.zeros_like(param)).contiguous()
        return [cached[name] for name in names if name in cached]

    def state_of(self, param: Tensor) -> dict[str, Tensor]:
        """Return every tensor that is held for a parameter or buffer, in the middle of a cycle as well."""
        if param not in self.slow:
            return {}
        cached = {f"{_CACHED}{name}": value for name, value in self._cached.get(param, {}).items()}
        own = {SLOW: self.slow[param], _COUNT: torch.tensor(self.count)}
        return {**self.inner.state.get(param, {}), **cached, **own}

    def load_state(self, param: Tensor, state: dict[str, Tensor]) -> None:
        """Take back what `state_of` returned."""
        rest = dict(state)
        self.count = int(rest.pop(_COUNT))
        self.slow[param].copy_(rest.pop(SLOW))
        cached = {
            name.removeprefix(_CACHED): rest.pop(name) for name in list(rest) if name.startswith(_CACHED)
        }
        if param in self._cached:
            self._cached[param] = cached
        if rest:
            self.inner.state[param] = rest
