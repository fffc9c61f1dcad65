"""What a page takes: `dynalab report` of made-up runs, 20, 4 x 20, 100 and 1,000, against its bounds.

The runs have the losses, accuracies, norms and the fourteen weight metrics, and a result of the hidden Markov model
beside them; they are written by the store's own writers, so nothing is trained and nothing fitted.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report_fakes import make_ensemble, make_hmm, training

from benches.base import Options, Row, Subject
from benches.many import command
from dynalab.analysis.hmm.features import WEIGHT_METRICS


@dataclass(frozen=True)
class Case:
    """So many ensembles of so many runs of so many rows, and what their page may take: seconds, MB, GB."""

    ensembles: int
    runs: int
    rows: int
    seconds: float | None = None
    megabytes: float | None = None
    gigabytes: float | None = None


CASES = (
    Case(1, 20, 300, 5, 5),
    Case(4, 20, 300),
    Case(1, 100, 300),
    Case(1, 1000, 1000, 60, 15, 2),
)
QUICK = (Case(2, 3, 30),)
EVERY = 10


def store(outputs: Path, case: Case) -> None:
    """Store the ensembles of a case, at rates of their own, with their models."""
    steps = np.arange(case.rows) * EVERY
    for place in range(case.ensembles):
        rng = np.random.default_rng(place)
        values = training(case.runs, steps, place)
        for level, name in enumerate(WEIGHT_METRICS, 1):
            walk = rng.normal(0, 0.02, (case.runs, case.rows)).cumsum(1)
            values[name] = level * np.exp(walk - steps / (level * steps[-1]))
        overrides = ["task=grokking", f"optimizer.lr={0.001 * (place + 1)}"]
        ensemble = make_ensemble(
            outputs, n_runs=case.runs, steps=steps, values=values, overrides=overrides, slug=f"lr_{place}"
        )
        make_hmm(outputs, ensemble, digest=f"{place:010x}", n_states=6)


def measure(options: Options) -> list[Row]:
    """Write the page of every case, once a pair."""
    rows = []
    for case in QUICK if options.quick else CASES:
        times = f"{case.ensembles} x " if case.ensembles > 1 else ""
        what = f"a page of {times}{case.runs:,} runs, {case.rows:,} rows"
        with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
            store(Path(folder), case)
            costs = []
            for pair in range(options.pairs):
                options.say(f"{what}, {pair + 1} of {options.pairs}")
                costs.append(command(["report", "@all", "--name", "page"], Path(folder)))
            size = Path(folder, "reports/page/index.html").stat().st_size / 1e6
        cpu = [cost.cpu for cost in costs]
        elapsed = [cost.seconds for cost in costs]
        peaks = [cost.peak / 1e9 for cost in costs]
        # Two processes draw where there are cores for them.
        rows.append(Row(f"{what}: seconds", "a second", elapsed, case.seconds, False, {"CPU": cpu}))
        rows.append(Row(f"{what}: size", "a megabyte", [size], case.megabytes, False))
        rows.append(Row(f"{what}: peak", "a gigabyte", peaks, case.gigabytes, False))
    return rows


SUBJECT = Subject("page", "reports of 20 to 1,000 runs: seconds, megabytes and memory", measure)
