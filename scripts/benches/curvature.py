"""What the curvature probe costs: products and seconds an eigenvalue, its share of training, stacked against single.

Along gradient descent on 500 digits at 0.4 (`experiment=cohen2021_eos_digits`, 17 thousand parameters), through the
edge, an eigenvalue every 20 steps. SciPy's `eigsh` starts anew each time, at tolerance 1e-2, where it needs the fewest
products; the reference is `eigsh` at tolerance 0. The power iteration is PyHessian's: until two values in succession
differ by a thousandth, 100 products at most. All three have the same product, with the graph of the gradient kept;
curvlinops has its own.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.base import Options, Row, Subject, dynalab

if TYPE_CHECKING:
    import torch

    from dynalab.curvature.hessian import Hessian
    from dynalab.training.loop import Loop

RUN = ("experiment=cohen2021_eos_digits", "probes=[curvature]", "probe.curvature.gradient=false")
SMALL = ("task=regression", "probes=[curvature]", "probe.curvature.every=20")
MODULAR = ("task=grokking", "task.modulus=23", "probes=[curvature]", "probe.curvature.every=20")


def loop_of(words: tuple[str, ...], seeds: int, exact: bool = True) -> Loop:
    """Make a training loop in this process; without `exact` a lone run has no companion."""
    import torch

    from dynalab.config.command import read_command
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    (request,) = read_command(_without_weights(list(words))).requests
    streams = [Streams.from_seed(seed) for seed in range(seeds)]
    return Loop(request.config, streams, request.steps, torch.device("cpu"), exact=exact)


def _without_weights(words: list[str]) -> list[str]:
    # The experiment says when the weight probe is due, so that probe stays, as rarely as possible.
    named = any(word.startswith("experiment=") for word in words)
    probes = "probes=[weights,curvature]" if named else "probes=[curvature]"
    rest = [word for word in words if not word.startswith("probes=")]
    return [*rest, probes, *(["probe.weights.every=100000"] if named else [])]


def hessian_of(loop: Loop) -> Hessian:
    """Differentiate the objective of a loop's curvature probe at its weights."""
    from dynalab.curvature.hessian import Hessian

    objective = next(item.probe for item in loop.measuring.items if item.name == "curvature")._objective  # type: ignore[attr-defined]
    return Hessian(lambda weights: objective.losses(weights, objective.parts[0]), loop.updates.evaluated())


def scipy_largest(hessian: Hessian, tolerance: float) -> tuple[float, int]:
    """Return the largest eigenvalue by a cold `eigsh`, and its number of products."""
    import torch
    from scipy.sparse.linalg import LinearOperator, eigsh

    size, width, count = hessian.layout.size, hessian.layout.width, 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        row = torch.zeros(1, width)
        row[0, :size] = torch.from_numpy(np.asarray(vector, dtype=np.float32).ravel())
        return hessian.product(row)[0, :size].numpy()

    start = np.random.default_rng(0).normal(size=size).astype(np.float32)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    value = eigsh(operator, 1, which="LA", tol=tolerance, v0=start, return_eigenvectors=False)[0]
    return float(value), count


def power(hessian: Hessian, seed: int) -> tuple[float, int]:
    """Return the eigenvalue of largest size by power iteration, and its number of products."""
    import torch

    vector = hessian.layout.random(seed, hessian.gradient)[None]
    vector = vector / vector.norm()
    before: float | None = None
    count = 0
    while count < 100:
        count += 1
        product = hessian.product(vector)
        value = float((product * vector).sum())
        vector = product / (product.norm() + 1e-6)
        if before is not None and abs(value - before) / (abs(before) + 1e-6) < 1e-3:
            break
        before = value
    assert torch.isfinite(vector).all()
    return value, count


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns, and its seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def along_a_run(options: Options) -> list[Row]:
    """Measure every 20 steps through the edge, with each method."""
    from dynalab.curvature.lanczos import largest
    from dynalab.probes.curvature import COLD, Config

    loop = loop_of(RUN, 1, exact=False)
    points = 3 if options.quick else 48
    external = importlib.util.find_spec("curvlinops") is not None
    vector: torch.Tensor | None = None
    kept: dict[str, list[float]] = {name: [] for name in ("own", "eigsh", "power", "curvlinops")}
    counts: dict[str, list[int]] = {name: [] for name in ("own", "eigsh", "power")}
    errors: dict[str, list[float]] = {name: [] for name in ("own", "eigsh", "power")}
    for point in range(points):
        options.say(f"curvature along a run, {point + 1} of {points}")

        def own(vector: torch.Tensor | None = vector) -> Any:
            hessian = hessian_of(loop)
            base = hessian.gradient / hessian.gradient.norm()
            base = base if vector is None else base + vector
            noise = hessian.layout.random(loop.step, base)
            start = base + 0.3 * noise / noise.norm()
            tolerance = COLD if vector is None else Config().tolerance
            return largest(hessian.product, start, tolerance=tolerance, size=hessian.layout.size)

        pairs, seconds = timed(own)
        kept["own"].append(seconds)
        vector = pairs.vectors[:, 0]
        exact, _ = scipy_largest(hessian_of(loop), 0)
        found = {"own": (pairs.values.item(), int(pairs.products[0]))}
        found["eigsh"], seconds = timed(lambda: scipy_largest(hessian_of(loop), 1e-2))
        kept["eigsh"].append(seconds)
        found["power"], seconds = timed(lambda point=point: power(hessian_of(loop), point))
        kept["power"].append(seconds)
        for name, (value, count) in found.items():
            counts[name].append(count)
            errors[name].append(abs(value / exact - 1))
        if external and point % 8 == 0:
            kept["curvlinops"].append(curvlinops_seconds(loop))
        for _ in range(20):
            loop.update()
    middle, worst = statistics.median(errors["own"]), max(errors["own"])
    where = f"{points} sharpnesses of a run through the edge, 17,210 parameters"
    mean = {name: statistics.mean(values) for name, values in counts.items()}
    bar = None if options.quick else 1.0
    rows = [
        Row(
            f"products an eigenvalue, {where}",
            "SciPy's eigsh, cold",
            [mean["own"] / mean["eigsh"]],
            None if options.quick else 0.5,
            at_least=False,
            note=f"{mean['own']:.1f} against {mean['eigsh']:.1f}",
        ),
        Row(
            f"relative error, median, {where}",
            "eigsh to the last digit",
            [middle],
            None if options.quick else 1e-3,
            at_least=False,
        ),
        Row(
            f"relative error, worst, {where}",
            "eigsh to the last digit",
            [worst],
            None if options.quick else 1e-2,
            at_least=False,
            note=f"power iteration: median {statistics.median(errors['power']):.0e}, worst {max(errors['power']):.0e}",
        ),
        Row(
            f"seconds an eigenvalue, {where}",
            "power iteration as PyHessian has it",
            [sum(kept["own"]) / sum(kept["power"])],
            bar,
            at_least=False,
            note=f"{mean['power']:.1f} products",
        ),
    ]
    if external:
        ratio = statistics.median(kept["own"]) / statistics.median(kept["curvlinops"])
        rows.append(
            Row(f"seconds an eigenvalue, {where}", "curvlinops 3.0.1 and eigsh", [ratio], bar, at_least=False)
        )
    return rows


def curvlinops_seconds(loop: Loop) -> float:
    """Return the seconds of one eigenvalue by curvlinops and `eigsh` (torch's mean squared error: as costly)."""
    import torch
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    from dynalab.models.nets.mlp import MLP

    network = MLP(64, 10, [100, 100], activation="tanh")
    network.activation = torch.tanh
    network.load_state_dict({name: weight[0] for name, weight in loop.updates.evaluated().items()})
    batch = loop.data.train_batch(0)
    targets = torch.nn.functional.one_hot(batch.targets[0], 10).float()
    data = [(batch.inputs[0].clone(), targets)]

    def measure() -> float:
        loss = torch.nn.MSELoss()
        parameters = list(network.parameters())
        operator = HessianLinearOperator(network, loss, parameters, data, check_deterministic=False)
        found = eigsh(operator.to_scipy(), 1, which="LA", tol=1e-2, return_eigenvectors=False)
        return float(found[0])

    return timed(measure)[1]


def share_of_training(options: Options) -> list[Row]:
    """Train with the probe at its default cadence and without, two sizes of network."""
    cases = {
        "500 digits in full batches, SGD": (
            "task=digits",
            "task.n_train=500",
            "train.batch_size=full",
            "train.steps=2000",
        ),
        "1,500 digits in batches of 64, Adam": (
            "task=digits",
            "optimizer=adam",
            "probe.curvature.size=500",
            "train.steps=6000",
        ),
        "modular addition, AdamW": ("task=grokking", "train.steps=2000"),
    }
    rows = []
    for name, words in cases.items():
        values = []
        for pair in range(options.pairs):
            options.say(f"the probe's share of training, {name}, pair {pair + 1} of {options.pairs}")
            shared = [
                "eval.every=20",
                "seed=0..3",
                "compute.workers=1",
                "compute.width=4",
                "snapshots.at=never",
            ]
            given = [word for word in words if not word.startswith("probe.")]
            short = ["train.steps=40"] if options.quick else []
            on = dynalab([*words, *shared, *short, "probes=[curvature]"])
            off = dynalab([*given, *shared, *short, "probes=[]"])
            values.append(on.train_seconds / off.train_seconds)
        bar = None if options.quick else 1.1
        rows.append(Row(f"{name}, sharpness at the default cadence", "without", values, bar, at_least=False))
    return rows


def stacked_against_single(options: Options) -> list[Row]:
    """Measure one row of ten seeds together, and ten times one of a lone seed."""
    rows = []
    for name, words in {
        "1-100-1 on 20 points": SMALL,
        "modular addition": MODULAR,
        "500 digits": RUN,
    }.items():
        options.say(f"ten seeds stacked against ten single ones, {name}")
        together, singles = loop_of(words, 10), [loop_of(words, 1) for _ in range(10)]
        values = []
        for _ in range(1 if options.quick else options.pairs):
            for loop in (together, *singles):
                for _ in range(20 if not options.quick else 1):
                    loop.update()
            probes = [
                next(item.probe for item in loop.measuring.items if item.name == "curvature")
                for loop in (together, *singles)
            ]
            states = [_state(loop) for loop in (together, *singles)]
            # The first row of all is cold.
            for probe, state in zip(probes, states, strict=True):
                probe.measure(state)
            _, stacked = timed(lambda probes=probes, states=states: probes[0].measure(states[0]))
            alone = sum(
                timed(lambda probe=probe, state=state: probe.measure(state))[1]
                for probe, state in zip(probes[1:], states[1:], strict=True)
            )
            values.append(stacked / alone)
        bar = None if options.quick else 1.0
        rows.append(
            Row(f"a row of sharpness of ten seeds, {name}", "ten single seeds", values, bar, at_least=False)
        )
    return rows


def _state(loop: Loop) -> Any:
    from dynalab.probes.base import ProbeState

    return ProbeState(
        step=loop.step,
        params=loop.updates.evaluated(),
        optimizer_state=loop.updates.moments(),
        upcoming=loop.updates.upcoming(),
    )


def measure(options: Options) -> list[Row]:
    """Make every row."""
    return [*along_a_run(options), *share_of_training(options), *stacked_against_single(options)]


SUBJECT = Subject("curvature", "products, seconds and share of training of the curvature probe", measure)
