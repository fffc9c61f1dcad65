"""Where the host waits for a card."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cards.base import OUTSIDE, Bench, Check, Outcome, loop_of, place
from cards.cases import SPEED


def synchronisations(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that counts where the host waits for the card, in updates and in rows."""

    def check(bench: Bench) -> Outcome:
        import torch

        updates = 5 if bench.dry else 30 if "resnet" in name else 200
        loop = loop_of([*SPEED[name], "probes=[weights,gradients]"], 3, bench.device)
        # The fourth is captured, if it can be.
        for _ in range(5):
            loop.update()
        # The first rows of a training are waited for.
        _to_grid(loop)
        loop.measuring.rows()
        with _counted() as in_updates:
            for _ in range(updates):
                loop.update()
        rows = 0
        with _counted() as in_rows:
            for _ in range(5):
                _to_grid(loop)
                rows += bool(loop.measuring.rows())
        if not bench.dry:
            torch.cuda.synchronize()
        told = [
            f"{sum(found.values())} in {count} {what}" + (f" ({_places(found)})" if found else "")
            for what, count, found in (("updates", updates, in_updates), ("rows", rows, in_rows))
        ]
        more = {"updates": dict(in_updates), "rows": dict(in_rows)}
        own = [place for place in (*in_updates, *in_rows) if place != OUTSIDE]
        return Outcome("none of dynalab's", "; ".join(told), not own, more)

    return check


def _to_grid(loop: Any) -> None:
    """Have a training stand at the next step at which rows are due."""
    every = loop.measuring.eval_grid.every
    loop.updates.step = -(-loop.step // every) * every


@contextlib.contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Count synchronisations by their place in dynalab."""
    from dynalab.training.graphs import waits

    found: Counter[str] = Counter()
    # Without this function and the one that shows warnings.
    with waits(lambda line: found.update([place(traceback.extract_stack()[:-2])])):
        yield found


def _places(found: Mapping[str, int]) -> str:
    return ", ".join(
        f"{place} {count}" for place, count in sorted(found.items(), key=lambda item: -item[1])[:8]
    )


CHECKS = [Check(f"waits: {name}", synchronisations(name)) for name in SPEED]
