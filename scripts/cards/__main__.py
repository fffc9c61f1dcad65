"""Checks of training on a CUDA card; `scripts/cuda` starts it. Results stay in outputs/cuda, the table in docs/cuda.md.

Checks run in a few processes that are handed one after another, most telling first. What has passed is not made again:
a check that was mended is.
"""

from __future__ import annotations

import argparse
import sys
import time

from cards import CHECKS
from cards.base import OUT, ROOT, loop_of
from cards.cases import SPEED
from cards.lanes import LANES, run, serve
from cards.results import Results, write_table
from cards.speed import rate
from dynalab.core.machine import choose_kernels

TABLE = ROOT / "docs" / "cuda.md"


def main() -> int:
    """Make the checks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=330.0, help="budget for all checks")
    parser.add_argument(
        "--only", action="append", default=[], help="checks whose name begins so; may be repeated"
    )
    parser.add_argument("--dry", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--again", action="store_true", help="also what has passed")
    parser.add_argument(
        "--lanes", type=int, default=LANES, help="processes that make checks that are not timed"
    )
    parser.add_argument("--list", action="store_true", help="name the checks")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rate", nargs=3, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.serve:
        return serve(CHECKS, told.dry, told.serve)
    if told.rate:
        choose_kernels()
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        name, width, seconds = told.rate
        print(rate(loop_of([*SPEED[name], "probes=[]"], int(width), "cpu"), float(seconds), 10_000, "cpu")[0])
        return 0
    every = CHECKS
    chosen = [c for c in every if not told.only or any(c.name.startswith(word) for word in told.only)]
    if told.list:
        print("\n".join(check.name for check in chosen))
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    results = Results(OUT / ("dry.jsonl" if told.dry else "results.jsonl"))
    if not told.again:
        chosen = [check for check in chosen if not results.of.get(check.name, {}).get("ok")]
    began = time.monotonic()
    left = run(chosen, results, told.seconds, told.dry, told.lanes)
    write_table(every, results, OUT / "dry.md" if told.dry else TABLE)
    failed = [check.name for check in every if results.of.get(check.name, {"ok": True})["ok"] is False]
    print(
        f"{time.monotonic() - began:.0f} s; {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}"
    )
    if left:
        print(f"no time was left for {', '.join(left)}")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
