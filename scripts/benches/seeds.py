"""The comparison that most subjects make: many seeds by dynalab, and by loops that train them one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benches import floor, loop
from benches.base import Options, Row, dynalab, gather, timed


@dataclass(frozen=True)
class Work:
    """What is trained.

    Attributes:
        what: Its name in the table.
        words: Its configuration, without seeds and length.
        seeds: How many.
        steps: Updates of each.
        bar: How many times faster than the default loop and than Hydra it must be.
        measured: Seeds that the loops train, in pairs that are not `full`; the others are their like.
        floor_bar: Largest ratio to the floor of matrix products; None leaves the floor out.
    """

    what: str
    words: tuple[str, ...]
    seeds: int
    steps: int
    bar: float
    measured: int = 3
    floor_bar: float | None = None


def compare(work: Work, options: Options) -> list[Row]:
    """Time the whole command and the loops in turn, pair by pair."""
    seeds, steps = (2, max(work.steps // 50, 4)) if options.quick else (work.seeds, work.steps)
    measured = seeds if options.full else min(work.measured, seeds)
    words = [*work.words, f"train.steps={steps}"]
    ratios: dict[str, list[float]] = {}
    seconds: list[dict[str, Any]] = []
    # What is prepared once a machine (a corpus' tokens) is prepared by now, for all of them.
    if not options.quick:
        loop.bare(words, 1, 1)
    for pair in range(options.pairs):
        options.say(f"{work.what}, pair {pair + 1} of {options.pairs}: dynalab")
        run = dynalab([*words, f"seed=0..{seeds - 1}"])
        own = timed(run)
        for name, time_loop in {
            "default": lambda: loop.bare(words, steps, measured),
            "one thread": lambda: loop.bare(words, steps, measured, 1),
            "hydra": lambda: loop.hydra(words, steps, measured),
        }.items():
            options.say(f"{work.what}, pair {pair + 1} of {options.pairs}: loop, {name}")
            own[name] = time_loop().of(seeds)
            ratios.setdefault(name, []).append(own[name] / run.seconds)
        if work.floor_bar is not None:
            options.say(f"{work.what}, pair {pair + 1} of {options.pairs}: the floor")
            least = floor.measure(words, 0.5 if options.quick else 3.0)
            own["floor"] = least.seconds(seeds, steps)
            ratios.setdefault("floor", []).append(run.seconds / own["floor"])
        seconds.append(own)
    bar = None if options.quick else work.bar
    scaled = "" if measured == seeds else f"loops: {measured} seeds timed whole, scaled to {seeds}"
    what = f"{seeds} seeds of {work.what}, {steps:,} steps, whole command"
    rows = [
        Row(what, "bare loop, default threads", ratios["default"], bar, note=scaled),
        Row(what, "bare loop, one thread", ratios["one thread"], note=scaled),
        Row(what, "Hydra --multirun, default threads", ratios["hydra"], bar, note=scaled),
    ]
    if work.floor_bar is not None:
        note = f"{least.products} products, {least.flops / 1e6:.1f} Mflop a step; "
        note += f"{least.flops_per_second / 1e9:.1f} Gflop/s on all cores; the ratio is slower by"
        bar = None if options.quick else work.floor_bar
        rows.append(Row(what, "floor of matrix products", ratios["floor"], bar, at_least=False, note=note))
    for row in rows:
        row.seconds = gather(seconds)
    return rows
