"""The detectors: on simulated series that are fixed by number, and on real runs of published settings and controls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bars.base import Bar, cases, dynalab

CASES = range(100)
SLINGSHOT = (
    "dynalab/analysis/slingshot",
    "dynalab/core/runs.py",
    "dynalab/core/stats.py",
    "scripts/bars/detectors.py",
)
EDGE = (*SLINGSHOT, "dynalab/analysis/eos", "dynalab/curvature/thresholds.py")
TRAINED = (
    *(
        "dynalab/training",
        "dynalab/networks",
        "dynalab/optim",
        "dynalab/models",
        "dynalab/tasks",
        "dynalab/probes",
        "conf",
    ),
    *("dynalab/analysis/slingshot", "dynalab/analysis/periods.py", "scripts/bars/detectors.py"),
)
SPHERES = (
    *(
        "dynalab/training",
        "dynalab/networks",
        "dynalab/optim/sgd.py",
        "dynalab/models/si_mlp.py",
        "dynalab/models/nets/scale_invariant.py",
    ),
    *("dynalab/tasks/digits.py", "dynalab/tasks/images", "dynalab/probes/scale_invariant.py"),
    *("conf/experiment/kodryan2022_sphere.yaml", "dynalab/analysis/periods.py", "scripts/bars/detectors.py"),
)
CONTROLS = (
    *("thilak2022_slingshot_epsilon", "thilak2022_slingshot_float64", "thilak2022_slingshot_sgd"),
    *("thilak2022_slingshot_modular_epsilon", "thilak2022_slingshot_modular_float64"),
    *("thilak2022_slingshot_modular_sgd", "thilak2022_slingshot_modular_decay"),
)


def slingshot_case(number: int) -> dict[str, Any]:
    """Score the detector on one series of slingshots and one decoy."""
    from nulls.slingshot import decoy
    from simulated_slingshots import score, slingshots

    from dynalab.analysis.slingshot import Config, analyse

    found = {}
    for make in (slingshots, decoy):
        case = make(number)
        (run,) = analyse([case.group], Config()).runs
        found[make.__name__] = vars(score(case, run.slingshots, run.verdict))
    return found


def simulated_slingshots(work: Path) -> tuple[str, bool]:
    """F1 over all events of the 100 series and 100 decoys, and how many decoys are called slingshots."""
    from simulated_slingshots import Score, f1

    found = cases(work / "slingshots.jsonl", CASES, slingshot_case)
    series = [Score(**item["slingshots"]) for item in found]
    decoys = [Score(**item["decoy"]) for item in found]
    both, called = f1([*series, *decoys]), sum(item.verdict for item in decoys)
    figure = f"F1 {both:.3f} ({f1(series):.3f} without the decoys); {called} of {len(decoys)} decoys called slingshots"
    return figure, both >= 0.95 and called <= 0.02 * len(decoys)


def edge_case(number: int) -> dict[str, Any]:
    """Judge one arrival at the edge and one decoy."""
    from nulls.eos import decoy
    from simulated_edges import edge

    from dynalab.analysis.eos import Config, analyse

    case, other = edge(number), decoy(number)
    (run,), (wrong,) = (analyse([item.group], Config()).runs for item in (case, other))
    assert case.onset is not None
    off = None if run.onset_step is None else abs(run.onset_step - case.onset) / case.steps
    return {"off": off, "verdict": run.verdict, "kind": other.kind, "decoy": wrong.verdict}


def simulated_edges(work: Path) -> tuple[str, bool]:
    """How many arrivals are within 5% of the steps, and how many decoys are called at the edge."""
    found = cases(work / "edges.jsonl", CASES, edge_case)
    near = sum(item["off"] is not None and item["off"] <= 0.05 for item in found)
    called = sum(item["decoy"] == "at_edge" for item in found)
    said = sum(item["verdict"] == "at_edge" for item in found)
    figure = f"{near} of {len(found)} within 5%, {said} called at the edge; {called} of {len(found)} decoys"
    return figure, near >= 0.9 * len(found) and called <= 0.02 * len(found)


def analysed(kind: str, work: Path, *words: str) -> list[dict[str, Any]]:
    """Train a setting (or find it trained) and return an analysis of its runs."""
    document = dynalab("train", *words, "device=cpu", outputs=work / "runs")
    (ensemble,) = document["ensembles"]
    (analysis,) = dynalab("analyze", kind, ensemble["id"], outputs=work / "runs")["analyses"]
    return analysis["runs"]


def onsets_of(run: dict[str, Any], kind: str) -> list[int]:
    """Return the onsets of a run's events of a kind."""
    return [event["onset_step"] for event in run["events"] if event["kind"] == kind]


def slingshots_of(run: dict[str, Any]) -> list[int]:
    """Return the onsets of a run's slingshots."""
    return onsets_of(run, "slingshot")


def digits(work: Path) -> tuple[str, bool]:
    """Slingshots on 200 digits, and before each of them features that inflate."""
    runs = analysed("slingshot", work, "experiment=thilak2022_slingshot", "seed=0..2")
    found, inflated = [slingshots_of(run) for run in runs], [onsets_of(run, "inflation") for run in runs]
    good = all(len(onsets) >= 2 and 400 <= onsets[0] <= 900 for onsets in found)
    good &= all(one and other and one[0] < other[0] for one, other in zip(inflated, found, strict=True))
    figure = "; ".join(", ".join(map(str, onsets)) for onsets in found)
    return f"{figure}; inflation {'; '.join(', '.join(map(str, onsets)) for onsets in inflated)}", good


def modular(work: Path) -> tuple[str, bool]:
    """Slingshots in modular addition."""
    runs = analysed("slingshot", work, "experiment=thilak2022_slingshot_modular", "seed=0..2")
    found = [slingshots_of(run) for run in runs]
    spread = [run["period_cv"] for run in runs]
    good = all(2 <= len(onsets) <= 4 for onsets in found) and all(x is None or x < 0.1 for x in spread)
    said = "; ".join(
        f"{', '.join(map(str, onsets))} (variation {'-' if x is None else format(x, '.2f')})"
        for onsets, x in zip(found, spread, strict=True)
    )
    return said, good


def controls(work: Path) -> tuple[str, bool]:
    """No slingshot in any control, and no features that inflate where nothing is rounded away or steps are bounded."""
    found: Counter[str] = Counter()
    for name in CONTROLS:
        for run in analysed("slingshot", work, f"experiment={name}", "seed=0..2"):
            found["runs"] += 1
            found["slingshots"] += len(slingshots_of(run))
            found["verdicts"] += run["verdict"] == "slingshot"
            found["inflations"] += len(onsets_of(run, "inflation"))
            found["spikes"] += sum(event["kind"] != "inflation" for event in run["events"])
    figure = f"{found['slingshots']} slingshots, {found['spikes']} spikes of any kind, {found['inflations']} inflations"
    return f"{figure} in {found['runs']} runs", not (
        found["slingshots"] or found["verdicts"] or found["inflations"]
    )


EDGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("chebyshev", ("experiment=cohen2021_eos",), "at_edge"),
    ("adam", ("experiment=cohen2022_aeos",), "at_edge"),
    ("small rate", ("experiment=cohen2021_eos", "optimizer.lr=0.1", "train.steps=3000"), "below"),
    ("small batches", ("experiment=cohen2022_aeos", "train.batch_size=64"), "below"),
    (
        "cross-entropy",
        ("experiment=cohen2021_eos_digits", "task.loss=cross_entropy", "optimizer.lr=1", "train.steps=2000"),
        "below",
    ),
)


def edge_verdicts(work: Path) -> tuple[str, bool]:
    """Verdicts at the edge and on its controls."""
    said, good = [], True
    for name, words, wanted in EDGES:
        found = Counter(run["verdict"] for run in analysed("eos", work, *words, "seed=0..2"))
        good &= found["at_edge"] == (3 if wanted == "at_edge" else 0)
        said.append(f"{name} {', '.join(f'{n} {verdict}' for verdict, n in found.items())}")
    return "; ".join(said), good


def periods(work: Path) -> tuple[str, bool]:
    """Periods of batch normalisation with weight decay."""
    runs = analysed("periods", work, "experiment=lobacheva2021_periods", "seed=0..2")
    (control,) = analysed(
        "periods", work, "experiment=lobacheva2021_periods_without_decay", "seed=0", "train.steps=6000"
    )
    events = [len(run["events"]) for run in runs]
    slopes = [run["slope_ratio"] for run in runs]
    good = all(n >= 2 for n in events) and all(x is not None and 0.95 <= x <= 1.05 for x in slopes)
    said = ", ".join("-" if x is None else f"{x:.3f}" for x in slopes)
    figure = f"{', '.join(map(str, events))} events, slope {said}; without decay {len(control['events'])}"
    return figure, good and not control["events"]


# Effective rates of 3e-4, 2e-2 and 1: the squared radius of the sphere is about 32.
SPHERE = {"0.0096": "convergence", "0.64": "chaotic_equilibrium", "32": "divergence"}


def regimes(work: Path) -> tuple[str, bool]:
    """The regime on the sphere at three effective rates."""
    said, good = [], True
    for rate, wanted in SPHERE.items():
        runs = analysed("periods", work, "experiment=kodryan2022_sphere", f"optimizer.lr={rate}", "seed=0..2")
        found = Counter(str(run["regime"]) for run in runs)
        good &= found == {wanted: 3}
        said.append(f"rate {rate}: {', '.join(f'{n} {regime}' for regime, n in found.items())}")
    return "; ".join(said), good


BARS = [
    Bar(
        "slingshots",
        "slingshots on 100 simulated series and 100 decoys, noise .05 to .2 decades",
        "F1 at least .95, at most 2 decoys called",
        "test_slingshot.py",
        simulated_slingshots,
        SLINGSHOT,
    ),
    Bar(
        "edges",
        "arrival at the edge of stability on 100 simulated series and 100 decoys",
        "90 within 5% of the steps, at most 2 decoys called",
        "test_eos.py",
        simulated_edges,
        EDGE,
    ),
    Bar(
        "edge-verdicts",
        "analyze eos on two settings of the papers and three controls, 3 seeds each",
        "at_edge in all runs of the settings, in none of the controls",
        "test_detectors_cli.py",
        edge_verdicts,
        (*TRAINED, "dynalab/analysis/eos", "dynalab/curvature"),
    ),
    Bar(
        "slingshots-digits",
        "slingshots on 200 digits, 3 seeds: onset steps",
        "2 or more a run, the first from 400 to 900",
        "test_detectors_cli.py",
        digits,
        TRAINED,
    ),
    Bar(
        "slingshots-modular",
        "slingshots in modular addition, 3 seeds: onset steps",
        "2 to 4 a run, variation of their distance below .1",
        "test_detectors_cli.py",
        modular,
        TRAINED,
    ),
    Bar(
        "slingshots-controls",
        "seven controls (epsilon, float64 loss, SGD, weight decay), 3 seeds each",
        "no slingshot",
        "test_slingshot.py",
        controls,
        TRAINED,
    ),
    Bar(
        "periods",
        "batch normalisation with weight decay, 3 seeds",
        "2 events or more, slope .95 to 1.05 of rate times decay; none without decay",
        "test_periods.py",
        periods,
        TRAINED,
    ),
    Bar(
        "sphere-regimes",
        "regimes on the sphere at three effective rates, 20% wrong labels, 3 seeds each",
        "convergence, chaotic equilibrium and divergence in all runs",
        "test_periods.py",
        regimes,
        SPHERES,
    ),
]
