"""Sparse parity (30, 3), batch 32, width 100, 20 seeds: against the loops."""

from __future__ import annotations

from benches.base import Subject
from benches.seeds import Work, compare

WORDS = ("task=parity", "task.n=30", "task.k=3", "train.batch_size=32", "model.hidden=[100]")
WORK = Work("parity (30,3), batch 32, width 100", WORDS, seeds=20, steps=20000, bar=6.0)
SUBJECT = Subject("parity", "20 seeds of parity against the loops", lambda o: compare(WORK, o))
