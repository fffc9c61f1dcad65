"""The HMM analysis: the published pipeline against the plain hmmlearn loop, and a thousand runs within time and memory.

As a program it is one side of a comparison and answers one line of JSON:

    python -m benches.hmm plain|ours|large RUNS ROWS STATES RESTARTS
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from benches.base import Options, Row, Subject, environment, gather

# (training runs, rows, largest K, restarts), as published and reduced.
PAPER = (32, 1000, 8, 5)
QUICK_PAPER = (8, 200, 3, 2)
LARGE = (1000, 300, 8, 5)
QUICK_LARGE = (30, 60, 3, 2)
ITERATIONS = 32
MOST_SECONDS = 600.0
MOST_BYTES = 4 * 2**30
_GLANCE = 0.2


def _data(runs: int, rows: int) -> list[Any]:
    """Published z-scores of simulated curves, runs of shape (rows, 14)."""
    import numpy as np
    from hmm_simulate import simulate

    from dynalab.analysis.hmm import paper

    trajectories = simulate("ar", 5, runs, rows, seed=0).trajectories
    return [paper.normalise(np.asarray(run.values)) for run in trajectories.runs]


def plain(runs: int, rows: int, states: int, restarts: int) -> dict[str, Any]:
    """Fit as everybody does: hmmlearn in two loops."""
    import logging

    import numpy as np
    from hmmlearn.hmm import GaussianHMM

    from dynalab.analysis.hmm import paper
    from dynalab.analysis.hmm.config import Config

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    z = _data(runs, rows)
    stacked, lengths = np.concatenate(z), [len(x) for x in z]
    config = Config(preset="paper", restarts=restarts)
    found: list[Any] = []
    began = time.perf_counter()
    for k in range(1, states + 1):
        for seed in paper.restart_seeds(config, k):
            model = GaussianHMM(k, "full", random_state=seed, n_iter=ITERATIONS, tol=config.tol)
            try:
                model.fit(stacked, lengths)
                found.append([len(model.monitor_.history), model.monitor_.history[-1]])
            except ValueError:
                found.append(None)
    return {"seconds": time.perf_counter() - began, "fits": found}


def ours(runs: int, rows: int, states: int, restarts: int) -> dict[str, Any]:
    """The same fits by dynalab, over processes as the analysis does them."""
    import numpy as np

    from dynalab.analysis.hmm import paper, workers
    from dynalab.analysis.hmm.config import Config
    from dynalab.analysis.hmm.frames import stack

    z = _data(runs, rows)
    config = Config(preset="paper", restarts=restarts, n_iter=ITERATIONS)
    began = time.perf_counter()
    frames = stack(z, "level", np.ones(z[0].shape[1]))
    tasks = [(k, seed) for k in range(1, states + 1) for seed in paper.restart_seeds(config, k)]
    work = partial(paper.restart, frames=frames, config=config)
    fits = workers.spread(work, tasks, [paper.cost(frames, config, k) for k, _ in tasks], None)
    return {
        "seconds": time.perf_counter() - began,
        "fits": [[len(fit.history), fit.history[-1]] for fit in fits],
    }


def large(runs: int, rows: int, states: int, restarts: int) -> dict[str, Any]:
    """The whole robust analysis, everything on."""
    from hmm_simulate import simulate

    from dynalab.analysis.hmm import Config
    from dynalab.analysis.hmm.outcome import infer

    trajectories = simulate("ar", 4, runs, rows, seed=1).trajectories
    began = time.perf_counter()
    outcome = infer(trajectories, Config(max_states=states, restarts=restarts))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "n_states": outcome.n_states, "warnings": list(outcome.warnings)}


def side(name: str, size: tuple[int, int, int, int]) -> tuple[dict[str, Any], int]:
    """Run one side in a process of its own, with the machine's default of threads; its answer and peak memory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.hmm", name, *map(str, size)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    peak, stop = [0], threading.Event()

    def follow() -> None:
        while not stop.wait(_GLANCE):
            peak[0] = max(peak[0], _resident(process.pid))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    output, errors = process.communicate()
    stop.set()
    thread.join()
    if process.returncode:
        raise RuntimeError(f"benches.hmm {name}: {errors[-2000:]}")
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer, peak[0]


def _resident(pid: int) -> int:
    """Resident bytes of a process and all its descendants."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    entry.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                )
                sizes[int(entry.name)] = int(entry.joinpath("statm").read_text().split()[1]) * 4096
            except (OSError, ValueError, IndexError):
                continue
    family, total = {pid}, 0
    # Parents are numbered before their children, but numbers wrap around: look until nobody joins.
    while True:
        joined = {child for child, parent in parents.items() if parent in family} - family
        if not joined:
            break
        family |= joined
    for member in family:
        total += sizes.get(member, 0)
    return total


def measure(options: Options) -> list[Row]:
    """Make the rows."""
    size, big = (QUICK_PAPER, QUICK_LARGE) if options.quick else (PAPER, LARGE)
    ratios, seconds, worst, failed, different = [], [], 0.0, 0, 0
    for pair in range(options.pairs):
        options.say(f"published pipeline against hmmlearn, pair {pair + 1} of {options.pairs}")
        theirs, _ = side("plain", size)
        mine, _ = side("ours", size)
        ratios.append(theirs["seconds"] / mine["seconds"])
        seconds.append({"hmmlearn": theirs["seconds"], "dynalab": mine["seconds"]})
        failed = sum(fit is None for fit in theirs["fits"])
        both = [
            (a, b)
            for a, b in zip(theirs["fits"], mine["fits"], strict=True)
            if a is not None and b is not None
        ]
        different = sum(a[0] != b[0] for a, b in both)
        worst = max([worst, *(abs(a[1] - b[1]) / abs(a[1]) for a, b in both if a[0] == b[0])])
    note = (
        f"training likelihoods differ by {worst:.0e} at most (relative), iteration counts of {different} of "
        f"{len(theirs['fits'])} fits; hmmlearn failed on {failed}"
    )
    if worst > 1e-6 or different:
        raise RuntimeError(f"the fits are not the same: {note}")
    rows = [
        Row(
            f"preset=paper: {size[0]} runs x {size[1]:,} x 14, K to {size[2]}, {size[3]} restarts",
            "the plain hmmlearn loop",
            ratios,
            None if options.quick else 5.0,
            seconds=gather(seconds),
            note=note,
        )
    ]
    options.say(f"robust preset on {big[0]:,} runs")
    answer, peak = side("large", big)
    what = f"preset=robust: {big[0]:,} runs x {big[1]} x 14, everything on"
    bar = None if options.quick else 1.0
    took = [answer["seconds"] / MOST_SECONDS]
    rows.append(Row(what, "ten minutes", took, bar, at_least=False, seconds={"dynalab": [answer["seconds"]]}))
    rows.append(Row(f"{what}, memory", "4 GiB", [peak / MOST_BYTES], bar, at_least=False))
    return rows


SUBJECT = Subject("hmm", "the HMM analysis against hmmlearn, and with a thousand runs", measure)

if __name__ == "__main__":
    sides = {"plain": plain, "ours": ours, "large": large}
    numbers = [int(word) for word in sys.argv[2:]]
    print(json.dumps(sides[sys.argv[1]](*numbers)))
