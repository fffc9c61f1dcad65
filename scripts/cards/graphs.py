"""Updates whose gradients are replayed as CUDA graphs, beside those that are made kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cards.base import Bench, Check, Outcome, loop_of
from cards.cases import SPEED, words_of
from cards.speed import rate
from cards.training import shake

# Gradients are replayed from the fourth update on.
UPDATES, WIDTH, BOUND = 8, 20, 1e-4


def replayed(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that compares losses and times of both."""

    def check(bench: Bench) -> Outcome:
        width = 2 if bench.dry else WIDTH
        built = partial(
            loop_of, [*SPEED[name], "probes=[]", "eval.every=1", "eval.size=8"], width, bench.device
        )
        losses, times = [], []
        for graph in (False, True):
            loop = built(graph=graph)
            losses.append([_after(loop) for _ in range(UPDATES)])
            times.append(rate(loop, 0.1 if bench.dry else 1.0, 2000, bench.device)[0])
        eager, own = losses
        gap = _gap(own, eager)
        # What a rounding of every weight does to the same, where that is more than the bound.
        alone = 0.0
        if gap > BOUND:
            loop = built(graph=False)
            shake(loop, 0)
            alone = _gap([_after(loop) for _ in range(UPDATES)], eager)
        eagerly, by_graph = (1 / seconds for seconds in times)
        text = f"losses {gap:.1e}" + (f" (rounding alone {alone:.1e})" if alone else "")
        text += f"; S {width}: {eagerly:.0f} steps/s kernel by kernel, {by_graph:.0f} replayed"
        must = f"losses of {UPDATES} updates within {BOUND:.0e}, or 10 times what weights shaken by 1e-7 do"
        return Outcome(must, text, gap <= max(BOUND, 10 * alone), {"seconds": times})

    return check


def _gap(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Return the largest relative difference of losses."""
    return max(float(((a - b) / b).abs().max()) for a, b in zip(one, other, strict=True))


def _after(loop: Any) -> Any:
    """Make an update and return its losses, (S,), on the host."""
    loop.update()
    return loop.rows()["every-1"]["batch_loss"].cpu()


def uncapturable(bench: Bench) -> Outcome:
    """Have an update ask the card for a number: it is made kernel by kernel, with the losses of one that does not."""
    words = [*SPEED["parity"], "probes=[]", "eval.every=1", "eval.size=8"]
    eager, asking = (loop_of(words, 3, bench.device, graph=graph) for graph in (False, True))
    graphed = asking.updates.gradients._graph
    if graphed is not None:
        own = graphed._function

        def asks(tensors: Any) -> Any:
            made = own(tensors)
            made[0].sum().item()
            return made

        graphed._function = asks
    losses = [[_after(loop) for _ in range(UPDATES)] for loop in (eager, asking)]
    gap, why = _gap(losses[1], losses[0]), asking.updates.gradients.uncaptured
    text = f"losses {gap:.1e}; {why or 'captured'}"
    return Outcome("made kernel by kernel, losses within 1e-4", text, gap <= BOUND and bool(why or bench.dry))


def one_after_another(bench: Bench) -> Outcome:
    """Train loops with graphs one after another in one process, rows and all, and let each go.

    On an H200 (torch 2.11) copies to the host failed with "invalid argument" in two of six processes that had made some
    ten such trainings each.
    """
    import gc

    import torch

    names = [
        "digits resnet18 groups",
        "mlm dropout",
        "grokking power",
        "digits float64",
        "grokking clamped",
        "parity",
    ]
    made = 0
    for name in names[5:] if bench.dry else 5 * names:
        try:
            loop = loop_of(words_of(name, bench), 3, bench.device, graph=True)
            for _ in range(UPDATES):
                loop.update()
                loop.rows()
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            return Outcome("no error", f"{line}, after {made} trainings, in {name}", False)
        made += 1
        del loop
        gc.collect()
        if not bench.dry:
            torch.cuda.empty_cache()
    return Outcome("no error", f"{made} trainings")


CHECKS = [Check("graph: one training after another", one_after_another)]
CHECKS += [Check("graph: an update that asks the card", uncapturable)]
CHECKS += [Check(f"graph: {name}", replayed(name)) for name in SPEED]
