"""What an optimizer module holds: `Config` (a dataclass) and `build(config, params) -> torch.optim.Optimizer`.

`params` are stacked parameters, shape (S, ...), of S runs that must not touch: the update has to be elementwise.
torch's `foreach` and plain forms are; its `fused` SGD is not bit-exact on CPU (measured: the vector tail of a
stacked tensor rounds differently, so a seed's bits would depend on its place in the stack).
"""

from __future__ import annotations

from dynalab.config.schema import require


def check_rate(lr: float | None) -> None:
    """Check a learning rate."""
    require(lr is None or lr >= 0, "optimizer.lr", lr, "a number of at least 0")


def check_decay(weight_decay: float) -> None:
    """Check a weight decay."""
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "a number of at least 0")


def check_betas(betas: tuple[float, float]) -> None:
    """Check the two decay rates of Adam's moments."""
    inside = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(inside, "optimizer.betas", list(betas), "two numbers in [0, 1)")
