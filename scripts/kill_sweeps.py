"""Kills sweeps at random moments and prints what became of them; `scripts/kill` starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The oracles of the suite are the oracles here.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kills.trials import BACKENDS, SOURCES, series, table
from state import ROOT, hashed


def main() -> int:
    """Kill, repeat, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills that strike (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of what, when and whom (default: 0)")
    parser.add_argument("--launcher", choices=sorted(BACKENDS), default="local")
    options = parser.parse_args()
    work = ROOT / "outputs/kill" / hashed(SOURCES)
    trials = series(work, options.launcher, options.seed, options.kills, print)
    for row in table(trials):
        print("  ".join(f"{cell:>{20 if not place else 10}}" for place, cell in enumerate(row)))
    wrong = [line for trial in trials for line in trial.faults]
    print("\n".join(wrong) or "every sweep is whole and equal to the bit; nothing lost, doubled or left over")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
