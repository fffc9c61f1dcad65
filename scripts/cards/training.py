"""A few runs of every kind, trained on a card and on the CPU, and what is between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cards.base import Bench, Check, Outcome, loop_of
from cards.cases import CASES, words_of

# Trainings from shaken weights, at most; not every one meets a unit at the edge of being rectified.
ROUNDINGS = 4
Rows = dict[int, dict[str, Any]]


def _trained(loop: Any, steps: int) -> Rows:
    """Train, and return every row on the host: step -> metric -> (S,)."""
    rows: Rows = {}
    for step in range(steps + 1):
        if step:
            loop.update()
        rows[step] = {name: value for row in loop.rows().values() for name, value in row.items()}
        loop.forced_rows()
    return {step: {name: x.cpu().double().numpy() for name, x in row.items()} for step, row in rows.items()}


@dataclass(frozen=True)
class _Gaps:
    """How far two trainings of the same runs are apart, relatively.

    Attributes:
        first: Losses after a step.
        last: Losses at the end.
        sharp: Sharpness at the start.
        preconditioned: That which the optimizer meets, at the start. Adam's first P is |g| + eps, so that of a weight
            whose gradient is nothing but rounding is rounding, too.
    """

    first: float = 0.0
    last: float = 0.0
    sharp: float = 0.0
    preconditioned: float = 0.0

    @staticmethod
    def of(one: Rows, other: Rows) -> _Gaps:
        """Compare what two trainings have in common."""
        keys = [[key] if key in one[0] else [] for key in ("sharpness", "preconditioned_sharpness")]
        steps = max(one.keys() & other.keys())
        losses = [
            _gap(one[step], other[step], ["batch_loss"]) if step else 0.0 for step in (min(2, steps), steps)
        ]
        return _Gaps(*losses, *(_gap(one[0], other[0], key) for key in keys))

    def within(self, rounding: _Gaps) -> bool:
        """Return whether losses are within the bounds or ten times what rounding does, sharpness within 2% or three."""
        parts = (dataclasses.astuple(x) for x in (self, rounding))
        bounds, times = (1e-5, 1e-3, 0.02, 0.02), (10, 10, 3, 3)
        return all(
            x <= max(bound, much * own) for x, own, bound, much in zip(*parts, bounds, times, strict=True)
        )

    def most(self, other: _Gaps) -> _Gaps:
        """Return the larger of each."""
        return _Gaps(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))


def shake(loop: Any, seed: int) -> None:
    """Change every weight of a network by about a rounding error."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in loop.stack.trained.values():
            param.mul_(1 + 1e-7 * torch.randn(param.shape, generator=generator).to(param.device))


def trained(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that trains a case on both devices, goes back to a checkpoint, and compares."""

    def check(bench: Bench) -> Outcome:
        import numpy as np
        import torch

        steps, words = (4 if bench.dry else 20), words_of(name, bench)
        device = torch.device(bench.device)
        loop = loop_of(words, 3, bench.device)
        rows = _trained(loop, steps)
        loop.settle()
        elsewhere = [
            key
            for part in loop.tensors(3)
            for key, x in part.items()
            if x.device.type != device.type and x.dim()
        ]
        weights, other = ({k: x.cpu().clone() for k, x in part.items()} for part in loop.tensors(3))
        loop.update()
        after = loop.rows()
        again = loop_of(words, 3, bench.device)
        again.load(steps, weights, other)
        again.update()
        resumed = _gap(
            _host(again.rows()[again.measuring.eval_grid.name]),
            _host(after[loop.measuring.eval_grid.name]),
            ["train_loss", "test_loss"],
        )
        host = loop_of(words, 3, "cpu")
        same = _same_weights(loop, host)
        ours = _trained(host, steps)
        gaps = _Gaps.of(rows, ours)
        alone = _Gaps()
        # What a few roundings do to the same on the CPU itself, where the devices are further apart than the bounds.
        far_losses = max(gaps.first / 1e-5, gaps.last / 1e-3) > 1
        for seed in range(ROUNDINGS):
            if gaps.within(alone):
                break
            shaken = loop_of(words, 3, "cpu")
            shake(shaken, seed)
            alone = alone.most(_Gaps.of(_trained(shaken, steps if far_losses else 0), ours))
        lines = []
        for what, gap, own in zip(
            ("step 1", f"step {steps}", "sharpness", "preconditioned"),
            dataclasses.astuple(gaps),
            dataclasses.astuple(alone),
            strict=True,
        ):
            if "step" in what or what in " ".join(rows[0]):
                lines.append(f"{what} {gap:.1e}" + (f" (rounding alone {own:.1e})" if own else ""))
        lines.append(f"weights {same:.1e}, resumed {resumed:.1e}")
        ok = gaps.within(alone) and same <= 1e-10 and resumed <= 1e-3 and not elsewhere
        lone = [
            key
            for step in rows
            for key, value in rows[step].items()
            if (np.isfinite(value) != np.isfinite(ours[step][key])).any()
        ]
        if lone:
            lines.append(f"finite on one device alone: {sorted(set(lone))}")
            ok = False
        if elsewhere:
            lines.append(f"not on the card: {elsewhere[:4]}")
        # A share of the spectrum is compared with the largest share; what a search left over says nothing.
        shares = [key for key in rows[0] if key.startswith("eigenvalue_share")]
        kinds = {key: [key] for key in rows[0] if not key.endswith("residual") and key not in shares}
        kinds |= {"eigenvalue shares": shares} if shares else {}
        far = {kind: _gap(rows[0], ours[0], keys) for kind, keys in kinds.items()}
        worst = max(far, key=lambda key: far[key])
        lines.append(f"row 0 differs most in {worst}, {far[worst]:.1e}")
        must = (
            "losses 1e-5 after a step, 1e-3 after 20, or 10 times what weights shaken by 1e-7 do; "
            "weight metrics 1e-10; sharpness 2%, or 3 times what they do"
        )
        return Outcome(must, "; ".join(lines), bool(ok), {"columns": far})

    return check


def _host(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x.cpu().double().numpy() for name, x in row.items()}


def _gap(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> float:
    """Return the largest difference of some metrics of one kind, relative to the largest of their values."""
    import numpy as np

    a, b = (np.array([part[name] for name in names]) for part in (one, other))
    both = np.isfinite(a) & np.isfinite(b)
    size = float(np.abs(b[both]).max(initial=1e-30))
    return float(np.abs(a[both] - b[both]).max(initial=0.0)) / size


def _same_weights(loop: Any, host: Any) -> float:
    """Return how far the metrics of the same weights differ between the devices."""
    from dynalab.core.state import ProbeState

    probes = [item.probe for item in loop.measuring.items if item.name == "weights"]
    if not probes:
        return 0.0
    there = loop.updates.evaluated()
    here = {name: x.cpu() for name, x in there.items()}
    one, other = (_host(probes[0].measure(ProbeState(step=0, params=params))) for params in (there, here))
    # Sums of both signs are as exact as what they are sums of.
    import numpy as np

    size = float(np.nanmax(np.abs(other["l2"]))) if "l2" in other else 1.0
    gaps = [
        float(np.nanmax(np.abs(one[key] - other[key]) / (np.abs(other[key]) + 1e-2 * size))) for key in other
    ]
    return max(gaps, default=0.0)


CHECKS = [Check(f"train: {name}", trained(name), 75) for name in CASES]
