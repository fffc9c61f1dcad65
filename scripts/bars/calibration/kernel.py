"""Alignment and pace of kernels, by `analyze kernel`."""

from __future__ import annotations

from functools import partial

import numpy as np
from nulls.kernel import SPACINGS

from bars.calibration.base import Errors, Null, Subject, misses


def kernels(n: int, seed: int) -> Errors:
    """Runs whose kernels know nothing of the labels and walk at random: none has an excess."""
    from nulls.kernel import unrelated, wandering

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.kernel import cone
    from dynalab.analysis.kernel.measure import aligned

    seeds = range(n * seed, n * seed + n)
    alike = Over.of([Against.of(*aligned(*unrelated(own))) for own in seeds])
    return {
        "kernel, alignment: interval of the excess": [misses(alike.interval, 0.0)],
        "kernel, cone: interval of the excess": [
            misses(Over.of([Against.of(*cone(wandering(own))) for own in seeds]).interval, 0.0)
        ],
    }


def paced(spacing: str, seed: int) -> Errors:
    """Kernels that settle or move, by rows every 200th of training, of which fewer are kept."""
    from nulls.kernel import LAST, SPACINGS, turning

    from dynalab.analysis.kernel import Config, Pace

    (kernel, noisy), dense = turning(seed), np.arange(0, LAST + 1, LAST // 200)
    steps = SPACINGS[spacing](np.random.default_rng(seed))
    truth, said = (Pace.of(at, of[at], Config()).verdict for at, of in ((dense, kernel), (steps, noisy)))
    return {
        f"kernel: {wrong} where it {right}": [said == wrong] if truth == right else []
        for right, wrong in (("settles", "moves"), ("moves", "settles"))
    }


SUBJECT = Subject(
    "kernel",
    [
        *(Null(f"kernels whose weights are kept at {said}", partial(paced, said)) for said in SPACINGS),
        *(Null(f"kernels of {n} runs", partial(kernels, n)) for n in (5, 20)),
    ],
    ("dynalab/analysis/kernel", "dynalab/analysis/directions", "tests/nulls/kernel.py"),
)
