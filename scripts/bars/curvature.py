"""Curvature: products, densities and thresholds against oracles, and the edge of stability in the papers' settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bars.base import ROOT, Bar, dynalab

SEEDS = 3
SOURCES = (
    *("dynalab/curvature", "dynalab/probes/curvature.py", "dynalab/core/state.py", "dynalab/optim"),
    *("dynalab/training/objective.py", "dynalab/training/updates.py", "dynalab/networks/stack.py"),
    *("dynalab/models/mlp.py", "dynalab/models/nets/mlp.py", "dynalab/tasks/digits.py"),
    *("dynalab/tasks/regression.py", "dynalab/tasks/images", "scripts/bars/curvature.py"),
    *("conf/experiment/cohen2021_eos.yaml", "conf/experiment/cohen2021_eos_digits.yaml"),
    "conf/experiment/cohen2022_aeos.yaml",
)
TESTS = ("dynalab/curvature", "dynalab/optim", "tests/test_curvature.py", "tests/test_thresholds.py")

# Of the steps, the last share that counts as the tail.
TAIL = 0.25
# A rise over the smallest ratio so far, before an arrival counts: some initialisations start above 0.7.
RISE = 1.25


def onset(steps: np.ndarray, ratio: np.ndarray) -> int | None:
    """Return the step at which a run arrives at the edge, None where it does not.

    That is the first ratio of at least 1 that has risen by a quarter over the smallest one before it, and from which
    the median of the next five is within 0.9 and 1.25.
    """
    least = np.minimum.accumulate(ratio)
    for place in range(1, len(ratio)):
        risen = ratio[place] >= RISE * least[place - 1]
        if ratio[place] >= 1 and risen and 0.9 <= np.median(ratio[place : place + 5]) <= 1.25:
            return int(steps[place])
    return None


def series(work: Path, folder: str, *words: str) -> list[dict[str, np.ndarray]]:
    """Train (or find trained) and return, for every seed, the columns of the curvature grid and the losses."""
    import dynalab as library

    document = dynalab("train", *words, f"seed=0..{SEEDS - 1}", outputs=work / folder)
    path = Path(document["ensembles"][0]["path"])
    ensemble = library.load(path.name.rpartition("-")[2], outputs=work / folder)
    names = ("edge_ratio", "sharpness", "stability_threshold")
    arrays = {name: ensemble.array(name) for name in names}
    losses, at = ensemble.array("train_loss"), ensemble.steps("train_loss")
    steps = ensemble.steps("edge_ratio")
    return [
        {"steps": steps, "loss": losses[run], "loss_steps": at, **{n: a[run] for n, a in arrays.items()}}
        for run in range(SEEDS)
    ]


def tail(run: dict[str, np.ndarray], name: str = "edge_ratio") -> float:
    """Return the median of a column over the last quarter of the steps."""
    values = run[name]
    return float(np.median(values[-max(1, round(TAIL * len(values))) :]))


def rising(run: dict[str, np.ndarray], arrived: int | None) -> tuple[float, float]:
    """Return which shares of the loss's differences are positive before and after the arrival."""
    up = np.diff(run["loss"]) > 0
    later = run["loss_steps"][1:] > (np.inf if arrived is None else arrived)
    return float(up[~later].mean()), float(up[later].mean()) if later.any() else 0.0


def arrives(
    work: Path,
    folder: str,
    words: tuple[str, ...],
    earliest: int,
    latest: int,
    low: float,
    high: float,
    rises: tuple[float, float] | None = None,
) -> tuple[str, bool]:
    """Every seed arrives within steps, and stays within ratios."""
    runs = series(work, folder, *words)
    arrived = [onset(run["steps"], run["edge_ratio"]) for run in runs]
    ratios = [tail(run) for run in runs]
    good = all(at is not None and earliest <= at <= latest for at in arrived)
    good = good and all(low <= ratio <= high for ratio in ratios)
    text = f"onset {', '.join(map(str, arrived))}; tail {', '.join(f'{r:.3f}' for r in ratios)}"
    if rises is not None:
        shares = [rising(run, at) for run, at in zip(runs, arrived, strict=True)]
        before, after = max(share[0] for share in shares), min(share[1] for share in shares)
        text += f"; loss rises in {before:.3f} of the steps before, {after:.2f} after"
        good = good and before <= rises[0] and after >= rises[1]
    return text, good


def stays_away(work: Path, folder: str, words: tuple[str, ...], most: float) -> tuple[str, bool]:
    """No seed arrives, and after the first ten steps no ratio is above a bound."""
    runs = series(work, folder, *words)
    arrived = [onset(run["steps"], run["edge_ratio"]) for run in runs]
    largest = [float(run["edge_ratio"][run["steps"] > 10].max()) for run in runs]
    text = f"onset {', '.join(map(str, arrived))}; largest ratio {', '.join(f'{r:.2f}' for r in largest)}"
    return text, all(at is None for at in arrived) and max(largest) < most


def sam(work: Path) -> tuple[str, bool]:
    """SAM hovers at its own threshold, far below that of gradient descent."""
    words = ("experiment=cohen2021_eos_digits", "optimizer=sam", "optimizer.lr=0.2", "optimizer.rho=0.05")
    runs = series(work, "sam", *words, "optimizer.momentum=0", "train.steps=1600")
    own = [tail(run) for run in runs]
    other = [tail(run, "sharpness") * 0.2 / 2 for run in runs]
    text = (
        f"{', '.join(f'{r:.3f}' for r in own)} of its own, {', '.join(f'{r:.2f}' for r in other)} of 2 / lr"
    )
    return text, all(0.95 <= r <= 1.1 for r in own) and max(other) < 0.5


def saturates(work: Path) -> tuple[str, bool]:
    """Cross-entropy: the sharpness rises, then decays as the outputs saturate; that is not the edge."""
    words = ("experiment=cohen2021_eos_digits", "task.loss=cross_entropy", "optimizer.lr=1")
    runs = series(work, "cross-entropy", *words, "probe.curvature.every=5", "train.steps=1000")
    ratios = np.array([run["edge_ratio"] for run in runs])
    largest, last = ratios.max(1), ratios[:, -1]
    arrived = [onset(run["steps"], run["edge_ratio"]) for run in runs]
    text = f"{', '.join(f'{a:.2f} to {b:.2f} to {c:.3f}' for a, b, c in zip(ratios[:, 0], largest, last, strict=True))}"
    rises = (largest > 1.05 * ratios[:, 0]).all() and (largest < 1).all()
    return text, bool(rises and (last < 0.05).all() and all(at is None for at in arrived))


def _tests() -> None:
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))


def thresholds(work: Path) -> tuple[str, bool]:
    """Every optimizer shrinks a thousandth below its threshold and grows a thousandth above it."""
    _tests()
    from test_thresholds import FORMS, OPTIMIZERS, growth

    from dynalab.curvature.thresholds import threshold

    good = sum(below < 1 < above for below, above in map(growth, OPTIMIZERS))
    worst = max(abs(threshold(found) / form - 1) for found, form in FORMS)
    text = f"{good} of {len(OPTIMIZERS)} of torch's; closed forms to {worst:.0e}"
    return text, good == len(OPTIMIZERS) and worst < 1e-6


def products(work: Path) -> tuple[str, bool]:
    """Hessian-vector products against finite differences, for every kind of layer."""
    _tests()
    from test_curvature import NETWORKS, Case, finite_difference_error

    errors = {name: finite_difference_error(Case(name)) for name in NETWORKS}
    worst = max(errors, key=errors.__getitem__)
    return f"{len(errors)} networks, at most {errors[worst]:.0e} ({worst})", errors[worst] < 1e-6


def densities(work: Path) -> tuple[str, bool]:
    """Stochastic quadrature against the exact spectrum of 1,210 parameters, three seeds."""
    _tests()
    from test_curvature import quadrature_errors

    found = [quadrature_errors(seed) for seed in range(SEEDS)]
    text = (
        f"L1 {max(item[0] for item in found):.3f}; trace off by {max(item[1] for item in found):.1f} errors"
    )
    return text, all(item[0] < 0.05 and item[1] < 3 for item in found)


def _bar(name: str, what: str, must: str, measure: Callable[[Path], tuple[str, bool]], twin: str) -> Bar:
    return Bar(
        name, what, must, twin, measure, TESTS if "test_thresholds" in twin or "::" in twin else SOURCES
    )


_TWIN = "tests/test_edge.py"
BARS = [
    _bar(
        "curvature-thresholds",
        "Thresholds of stability, torch.optim on quadratics",
        "every optimizer within 1e-3",
        thresholds,
        "tests/test_thresholds.py",
    ),
    _bar(
        "curvature-products",
        "Hessian-vector products against finite differences, float64",
        "relative error below 1e-6",
        products,
        "tests/test_curvature.py::products",
    ),
    _bar(
        "curvature-density",
        "Spectral density and trace by Lanczos quadrature, m = 50, against the exact spectrum",
        "L1 below 0.05, trace within 3 standard errors",
        densities,
        "tests/test_curvature.py::quadrature",
    ),
    _bar(
        "edge-chebyshev",
        "Gradient descent at 0.4 on a Chebyshev polynomial, three seeds",
        "onset at 200 to 1,200, ratio 0.97 to 1.08, loss monotone before and not after",
        partial(
            arrives,
            folder="chebyshev",
            words=("experiment=cohen2021_eos",),
            earliest=200,
            latest=1200,
            low=0.97,
            high=1.08,
            rises=(0.02, 0.3),
        ),
        _TWIN,
    ),
    _bar(
        "edge-chebyshev-control",
        "The same at 0.1, 3,000 steps",
        "no onset",
        partial(
            stays_away,
            folder="chebyshev-slow",
            words=("experiment=cohen2021_eos", "optimizer.lr=0.1", "train.steps=3000"),
            most=1.0,
        ),
        _TWIN,
    ),
    _bar(
        "edge-adam",
        "Full-batch Adam on 500 digits, three seeds",
        "onset at 250 to 800, preconditioned ratio 0.95 to 1.06",
        partial(
            arrives,
            folder="adam",
            words=("experiment=cohen2022_aeos",),
            earliest=250,
            latest=800,
            low=0.95,
            high=1.06,
        ),
        _TWIN,
    ),
    _bar(
        "edge-adam-control",
        "The same in batches of 64",
        "ratio below 0.4",
        partial(
            stays_away,
            folder="adam-batches",
            words=("experiment=cohen2022_aeos", "train.batch_size=64"),
            most=0.4,
        ),
        _TWIN,
    ),
    _bar(
        "edge-sam",
        "SAM at rho 0.05 on 500 digits, three seeds",
        "0.95 to 1.1 of its own threshold, below half of 2 / lr",
        sam,
        _TWIN,
    ),
    _bar(
        "edge-cross-entropy",
        "Cross-entropy on 500 digits at rate 1, three seeds",
        "sharpens, then decays below 0.05; no onset",
        saturates,
        _TWIN,
    ),
]
