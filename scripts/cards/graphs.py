"""Updates whose gradients are replayed as CUDA graphs, beside those that are made kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cards.base import Bench, Check, Outcome, loop_of
from cards.cases import SPEED
from cards.speed import rate

# Gradients are replayed from the fourth update on.
UPDATES, WIDTH = 8, 20


def replayed(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that compares losses and times of both."""

    def check(bench: Bench) -> Outcome:
        width = 2 if bench.dry else WIDTH
        losses, times = [], []
        for graph in (False, True):
            loop = loop_of(
                [*SPEED[name], "probes=[]", "eval.every=1", "eval.size=8"], width, bench.device, graph=graph
            )
            losses.append([_after(loop) for _ in range(UPDATES)])
            times.append(rate(loop, 0.1 if bench.dry else 1.0, 2000, bench.device)[0])
        eager, own = losses
        gap = max(float(((a - b) / a).abs().max()) for a, b in zip(eager, own, strict=True))
        eagerly, by_graph = (1 / seconds for seconds in times)
        text = f"losses {gap:.1e}; S {width}: {eagerly:.0f} steps/s kernel by kernel, {by_graph:.0f} replayed"
        return Outcome(f"losses of {UPDATES} updates within 1e-4", text, gap <= 1e-4, {"seconds": times})

    return check


def _after(loop: Any) -> Any:
    """Make an update and return its losses, (S,), on the host."""
    loop.update()
    return loop.rows()["every-1"]["batch_loss"].cpu()


CHECKS = [Check(f"graph: {name}", replayed(name)) for name in SPEED]
