"""Default grokking, 20 seeds: against the loops and against the floor."""

from __future__ import annotations

from benches.base import Subject
from benches.seeds import Work, compare

WORK = Work("default grokking", ("task=grokking",), seeds=20, steps=4000, bar=2.0, floor_bar=4.0)
SUBJECT = Subject(
    "grokking", "20 seeds of default grokking against the loops and the floor", lambda o: compare(WORK, o)
)
