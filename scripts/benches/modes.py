"""What `analyze modes` takes of a million weights at two hundred steps: processor time, against a minute, and memory.

Networks are run as well, on 297 held-out examples.
"""

from __future__ import annotations

from benches.base import Options, Row, Subject
from benches.directions import GIGABYTE, analysed

MINUTE = 60.0


def measure(options: Options) -> list[Row]:
    """Take the modes of a wide network."""
    width, rows = (100, 20) if options.quick else (965, 200)
    weights, seconds, peak = analysed(options, width, rows, "modes", "examples=297")
    what = f"modes of {weights:,} weights at {rows} steps"
    bar = None if options.quick else 1.0
    return [
        Row(
            f"{what}, processor time",
            "a minute",
            [seconds / MINUTE],
            bar,
            at_least=False,
            note=f"{seconds:.1f} s of processor time with one thread",
        ),
        Row(
            f"{what}, memory",
            "2 GB",
            [peak / GIGABYTE / 2],
            bar,
            at_least=False,
            note=f"{peak / 2**20:,.0f} MiB",
        ),
    ]


SUBJECT = Subject("modes", "time and memory of analyze modes on a million weights at 200 steps", measure)
