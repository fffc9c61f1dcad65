"""How the networks of runs are connected: barriers on paths between their weights, and how alike they are.

Between the weights of every two runs (or of two steps of a run, `to=`) the loss is measured along the straight line: a
barrier is how high it goes above the line between the losses of its ends (Frankle et al. 2020, arXiv 1912.05671). Since
the order of hidden units is arbitrary, two runs may differ by it alone; so the line is measured again after the units
of the one were matched to those of the other by their weights ("Git Re-Basin", Ainsworth et al. 2023, arXiv
2209.04836), where the model says which units may change places. `curve=true` trains a Bezier curve between each run and
the next.

Running statistics of norms are estimated anew at every point. A pair is measured on the examples of both of its runs,
half and half, and is connected where the barrier of the error is at most `cut`. The interval of a mean over pairs is
over runs, which pairs share.

How alike networks are is said of their predictions (of classes the probabilities, after the softmax) and of what each
layer gives before what follows it (the last one without the softmax), by linear centred kernel alignment (CKA;
Kornblith et al. 2019, arXiv 1905.00414), on the same examples.

`taxonomy=true` looks at all ensembles together and tells them apart as Yang et al. 2021 (arXiv 2107.11228) do: by mode
connectivity (the published measure has a sign and is of the training error in percent), the logarithm of the largest
eigenvalue of the Hessian, and the similarity of outputs (CKA). Their cut-offs were drawn by eye and are keys here. The
published CKA is biased towards 1 where outputs are many or examples few; the unbiased one stands beside it and decides.

`--confirm` asks whether training is stable to its own noise from a step on: every run goes on twice from `from_step`
with other orders of the examples, and the line between both ends is measured.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, key
from dynalab.analysis.compare.settings import told_apart
from dynalab.analysis.connectivity.confirm import compared, forks_of
from dynalab.analysis.connectivity.findings import Findings, Pair, Setting, over, phase_of
from dynalab.analysis.connectivity.layers import layers_of
from dynalab.analysis.connectivity.measure import Networks, Path, permutations
from dynalab.analysis.connectivity.similarity import biased_cka, cka
from dynalab.analysis.connectivity.summary import show
from dynalab.analysis.landscape.measure import last_step
from dynalab.analysis.learnt import unlearnt
from dynalab.core.errors import ConfigError, NothingMatched

if TYPE_CHECKING:
    from dynalab.core.waves import Fork

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "explore", "show"]

VERSION = 5
TITLE = "Connectivity"
FIGURES = ("connectivity", "connectivity-layers")
LEAD = "connectivity"


def NEEDS(config: Config | None = None) -> Needs:
    """Return what it reads: of each ensemble, or of all together."""
    across = config is not None and config.taxonomy
    return Needs(record="snapshots.at=log", weights=True, network=True, across=across)


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: int | None = key(
        None, "step of the weights, which were kept then; null: the last that all runs have", least=0
    )
    to: int | None = key(
        None, "compares every run with itself at this other step; null: runs with each other", least=0
    )
    points: int = key(11, "points of a path, its ends among them", least=3, most=1001)
    split: str = key("train", "examples that losses are of", one_of=("train", "test"))
    examples: int = key(1000, "how many of each run at most", least=4)
    align: bool | None = key(
        None, "whether hidden units are matched; null: where the model says which may be"
    )
    layer_examples: int = key(
        256, "how many examples layers are compared on; 0: they are not", least=0, most=10_000
    )
    curve: bool = key(False, "whether Bezier curves are trained between every run and the next")
    curve_steps: int = key(200, "updates of these, by Adam", least=1)
    curve_lr: float = key(0.01, "their rate", above=0)
    cut: float = key(0.02, "barrier of the error up to which a pair is connected", least=0, most=1)
    taxonomy: bool = key(False, "whether all ensembles are looked at together, and their phases told")
    cut_connectivity: float = key(-1.0, "mode connectivity, in percent, below which it is poor")
    cut_sharpness: float = key(2.5, "logarithm of the largest eigenvalue above which a setting is sharp")
    cut_cka: float = key(0.65, "CKA from which on outputs are alike")
    from_step: int | None = key(
        None, "step that forks of --confirm go on from; null: a tenth of training", least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to is not None and self.to == self.at:
            raise ConfigError(f"to={self.to}: expected another step than at={self.at}")
        if 0 < self.layer_examples < 4:
            raise ConfigError(
                f"layer_examples={self.layer_examples}: CKA takes 4 examples; 0 leaves layers out"
            )


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Measure all pairs of every ensemble.

    Raises:
        NothingMatched: There are no two runs, weights of a step were not kept, or the model does not say how units are
            matched.
        ConfigError: The two steps are one.
    """
    keys = told_apart(groups)[0] if len(groups) > 1 else [{}]
    parts = [_of_group(group, config, own) for group, own in zip(groups, keys, strict=True)]
    first = parts[0]
    warnings = tuple(dict.fromkeys(line for part in parts for line in part.warnings))
    return replace(
        first,
        pairs=tuple(pair for part in parts for pair in part.pairs),
        summary=tuple(setting for part in parts for setting in part.summary),
        warnings=warnings,
        curves=_joined([part.curves for part in parts]),
        layers=_joined([part.layers for part in parts if part.layers is not None]),
    )


def explore(
    groups: Sequence[Group], config: Config
) -> Generator[Sequence[Fork], Mapping[str, Sequence[Group]], Findings]:
    """Have every run go on twice with other orders of the examples, and measure between both ends.

    Raises:
        NothingMatched: Every update takes all examples, so that their order has no effect.
        ConfigError: The runs have no such step.
    """
    (group,) = groups
    forks, step = forks_of(group, config.from_step)
    findings = analyse(groups, config)
    made = yield forks
    confirmation = compared(made, step, config.points, config.split, config.examples, config.cut)
    return replace(findings, confirmation=confirmation)


def _of_group(group: Group, config: Config, keys: Mapping[str, Any]) -> Findings:
    if config.to is None and len(group.runs) < 2:
        raise NothingMatched(
            f"{group.id}: pairs of runs take two of them, and there is one; to=STEP compares it with itself at another "
            "step"
        )
    step = last_step(group) if config.at is None else config.at
    if step == config.to:
        raise ConfigError(f"to={config.to}: expected another step than {step:,}, which at= is")
    group = replace(group, runs=tuple(sorted(group.runs, key=lambda run: run.id)))
    networks = Networks.of(group, step, config.to, config.split, config.examples)
    warnings: list[str] = []
    matching = _matching(networks, step, config, warnings)
    shares = np.linspace(0, 1, config.points).tolist()
    paths = {"line": networks.lines(shares, False)}
    if matching == "weights":
        paths["aligned"] = networks.lines(shares, True)
    if config.curve:
        from dynalab.analysis.connectivity.curve import curves

        paths["curve"] = curves(networks, shares, matching == "weights", config.curve_steps, config.curve_lr)
    outputs = networks.outputs() if config.to is None else None
    ids = [run.id for run in group.runs]
    pairs = tuple(_pair(ids, places, paths, outputs, config.cut) for places in networks.pairs)
    layers, layer_map = layers_of(networks, pairs, config.layer_examples)
    if all(pair.verdict == "undecided" for pair in pairs):
        warnings.append(f"{group.id}: without an accuracy it cannot be told which pairs are connected")
    if flat := unlearnt(group.runs, max(step, config.to or 0)):
        warnings.append(f"{group.id}: {flat}; networks that have learnt nothing have no barrier between them")
    return Findings(
        pairs=pairs,
        summary=(replace(_setting(networks, pairs, config, keys), layers=layers),),
        step=step,
        other_step=config.to,
        examples=sum(batch.size for batch in networks.examples.batches),
        split=config.split,
        cut=config.cut,
        matching=matching,
        warnings=tuple(warnings),
        curves=_table(ids, paths),
        layers=layer_map,
    )


def _matching(networks: Networks, step: int, config: Config, warnings: list[str]) -> str:
    """Have networks matched where that is asked for, or can be; return how."""
    if config.align is False or (config.align is None and config.to is not None):
        return "none"
    try:
        networks.permutations = permutations(networks.group, step)
    except NothingMatched as error:
        if config.align:
            raise
        warnings.append(str(error))
        return "undescribed"
    return "weights"


def _pair(
    ids: Sequence[str],
    places: tuple[int, int],
    paths: Mapping[str, Mapping[tuple[int, int], Path]],
    outputs: np.ndarray | None,
    cut: float,
) -> Pair:
    found = {kind: own[places].barrier() for kind, own in paths.items() if places in own}
    best = found.get("aligned", found["line"])
    verdict = "undecided" if best.error is None else "connected" if best.error <= cut else "apart"
    one, other = places
    alike: list[float | None] = [None, None]
    if outputs is not None:
        values = (measure(outputs[one], outputs[other]) for measure in (cka, biased_cka))
        alike = [float(value) if np.isfinite(value) else None for value in values]
    return Pair(
        ids[one], ids[other], verdict, found["line"], found.get("aligned"), found.get("curve"), *alike
    )


def _setting(networks: Networks, pairs: Sequence[Pair], config: Config, keys: Mapping[str, Any]) -> Setting:
    from dynalab.networks.paths import measured

    own = measured(networks.stack, networks.state, networks.examples, networks.training)
    means = {name: float(values.mean()) for name, values in own.items()}
    sharp = _sharpness(networks) if config.taxonomy else None
    kind = "curve" if config.curve else "line"
    connectivity = over(pairs, lambda pair: _of(pair, kind, "mode_connectivity"), likeness=True)
    alike = over(pairs, lambda pair: pair.cka, likeness=True)
    cuts = (config.cut_connectivity, config.cut_sharpness, config.cut_cka)
    phase = phase_of(connectivity.value, sharp, alike.value, cuts) if config.taxonomy else None
    return Setting(
        ensemble=networks.group.id,
        keys=dict(keys),
        runs=len(networks.group.runs),
        pairs=len(pairs),
        line=over(pairs, lambda pair: _of(pair, "line", "loss")),
        aligned=over(pairs, lambda pair: _of(pair, "aligned", "loss")),
        curve=over(pairs, lambda pair: _of(pair, "curve", "loss")),
        line_error=over(pairs, lambda pair: _of(pair, "line", "error")),
        aligned_error=over(pairs, lambda pair: _of(pair, "aligned", "error")),
        curve_error=over(pairs, lambda pair: _of(pair, "curve", "error")),
        mode_connectivity=connectivity,
        distance=over(pairs, lambda pair: pair.line.distance),
        aligned_distance=over(pairs, lambda pair: _of(pair, "aligned", "distance")),
        cka=alike,
        cka_published=over(pairs, lambda pair: pair.cka_published, likeness=True),
        connected=sum(pair.verdict == "connected" for pair in pairs),
        loss=means["loss"] if np.isfinite(means["loss"]) else None,
        error=1 - means["accuracy"] if "accuracy" in means else None,
        ln_lambda_max=sharp,
        phase=phase,
    )


def _of(pair: Pair, kind: str, what: str) -> float | None:
    barrier = getattr(pair, kind)
    return None if barrier is None else getattr(barrier, what)


def _sharpness(networks: Networks) -> float | None:
    """Return the mean logarithm of the largest eigenvalue of the runs' Hessians; None where one is not above 0."""
    from dynalab.analysis.landscape.axes import extremes
    from dynalab.networks.paths import at

    stack = networks.stack
    _, buffers = at(stack, networks.state, networks.training)
    params = {name: stack.params[name] for name in stack.trained}
    # As in training, so with the statistics of the examples.
    top, _, _ = extremes(lambda own: stack.losses(own, networks.training, buffers, training=True), params, 0)
    return float(np.log(top).mean()) if (top > 0).all() else None


def _table(ids: Sequence[str], paths: Mapping[str, Mapping[tuple[int, int], Path]]) -> Any:
    import pandas as pd

    return _joined(
        [
            pd.DataFrame(
                {"one": ids[one], "other": ids[other], "path": kind, "share": path.shares, "loss": path.loss,
                 "error": np.nan if path.error is None else path.error}
            )
            for kind, own in paths.items()
            for (one, other), path in own.items()
        ]
    )  # fmt: skip


def _joined(tables: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.concat(tables, ignore_index=True) if tables else None
