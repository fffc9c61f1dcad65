"""The two presets behind one interface: features, a chosen model, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from msgspec import UNSET

from dynalab.analysis.base import Trajectories
from dynalab.analysis.hmm import baselines, paper, selection, workers
from dynalab.analysis.hmm import stability as refits
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.features import Features, extract, fit_scaler, missing_rows
from dynalab.analysis.hmm.findings import Agreement, Baseline, Candidate, Emission
from dynalab.analysis.hmm.model import Model
from dynalab.analysis.hmm.paper_em import PaperFit
from dynalab.analysis.hmm.selection import Selection
from dynalab.analysis.hmm.tasks import Fitted
from dynalab.core.errors import NothingMatched

# Standard errors of the difference between two emissions beyond which more states are not waited for.
BEYOND_DOUBT = 10.0
# States that are always tried under every form; with fewer, a noise of its own stands in for a state of its own.
FEW = 4


@dataclass(frozen=True)
class Chosen:
    """A chosen model before its states are ordered.

    Attributes:
        rows: The selection, one row per K.
        fold: Fold of every run, shape (S,); -1 for a run that is never held out.
        held_out: Held-out log-likelihood per frame of every run that is held out, in order, with the chosen K.
        others: Other restarts with the chosen K, where they are at hand.
        emissions: What each emission says of unseen runs, where the choice was left to that.
        other: Then, what the emission that was not chosen says of every run, shape (S,), by number of states.
        ridge: The pull toward the random walk that was chosen.
        common: That of the noise covariances toward their common one.
        folds: The fit of every fold with the chosen K; none where not every run is held out.
    """

    features: Features
    model: Model
    n_states: int
    rows: list[Candidate]
    fold: np.ndarray
    held_out: np.ndarray
    others: tuple[Model, ...]
    warnings: list[str]
    emissions: list[Emission] | None = None
    other: dict[int, np.ndarray] | None = None
    ridge: float | None = None
    common: float | None = None
    folds: tuple[Fitted, ...] = ()


def beyond_doubt(ahead: Mapping[int, np.ndarray], behind: Mapping[int, np.ndarray]) -> bool:
    """Whether more states would not let an emission catch up that is behind.

    It must be behind far beyond the error, and by more than the last doubling of its states gained it: what another
    doubling gains is as a rule less. Of each: K, in doublings -> held-out log-likelihood per frame of every run (S,).
    """
    best, against = (max(curve.values(), key=np.mean) for curve in (ahead, behind))
    if len(behind) < 2 or len(best) < 3:
        return False
    gap, error = selection.difference(best, against)
    before, last = list(behind.values())[-2:]
    return gap > max(BEYOND_DOUBT * error, float(last.mean() - before.mean()))


@dataclass(frozen=True)
class Tried:
    """What a first few numbers of states, or all, say of unseen runs: the keys with emission and chosen pulls."""

    config: Config
    selection: Selection

    def best(self) -> float:
        """Return the largest held-out log-likelihood per frame."""
        return max(float(x.mean()) for x in self.selection.curve.values())


def early(config: Config) -> list[int]:
    """Numbers of states that settle how to go on: powers of two up to 4 and to half the largest; all when few."""
    everything = selection.candidates(config)
    if everything[-1] <= FEW or len(everything) == 1:
        return everything
    return [k for k in everything if k & (k - 1) == 0 and (k <= FEW or 2 * k <= everything[-1])]


def begin(features: Features, configs: Sequence[Config]) -> list[Tried]:
    """Try every emission with a few states and every pull that is not given."""
    pulled = [
        [
            replace(config, ridge=pull, common=weight)
            for weight in _commons(config)
            for pull in _ridges(config)
        ]
        for config in configs
    ]
    everything = [one for several in pulled for one in several]
    found = iter(_select(features, [(one, early(one), ()) for one in everything]))
    return [max([Tried(one, next(found)) for one in several], key=Tried.best) for several in pulled]


def _ridges(config: Config) -> Sequence[float | None]:
    free = config.emission == "ar" and config.ridge is None
    return config.settings.ridges if free else (config.ridge,)


def _commons(config: Config) -> Sequence[float | None]:
    free = config.common is None and config.covariance != "tied"
    return config.settings.commons if free else (config.common,)


def go_on(features: Features, begun: Sequence[Tried]) -> list[Tried]:
    """Try all numbers of states of each."""
    left = [one for one in begun if early(one.config) != selection.candidates(one.config)]
    searches = [(one.config, selection.candidates(one.config), one.selection.fitted) for one in left]
    whole = dict(zip(map(id, left), _select(features, searches), strict=True))
    return [replace(one, selection=whole.get(id(one), one.selection)) for one in begun]


def _select(
    features: Features, searches: Sequence[tuple[Config, Sequence[int], Sequence[Fitted]]]
) -> list[Selection]:
    """Select with several keys side by side, each with what numbers of states are tried and what fits are known."""
    asked = [selection.selecting(features.values, features.steps, *search) for search in searches]
    return workers.abreast(asked, searches[0][0].workers if searches else 1)


def by_emission(features: Features, config: Config) -> tuple[str, dict[str, Tried], list[Emission]]:
    """Select under both emissions and take the one whose best model says more of unseen runs.

    Both are densities of the same frames. Autoregression needs M (M + 1) numbers a state where a level needs M: on
    data that jump between levels it can say the same only with many more frames, and settles on fewer states.

    Often a few states decide it. Where one emission is ahead by then beyond doubt, the other is only tried further to
    stand among the baselines.
    """
    names = ("ar", "level")
    begun = begin(features, [replace(config, emission=name) for name in names])
    found = dict(zip(names, begun, strict=True))
    behind, ahead = sorted(found, key=lambda name: found[name].best())
    decided = beyond_doubt(found[ahead].selection.curve, found[behind].selection.curve)
    further = [name for name in names if name == ahead or not decided or config.baselines]
    found |= zip(further, go_on(features, [found[name] for name in further]), strict=True)
    rows, best = [], {}
    for name, one in found.items():
        place = max(one.selection.curve.values(), key=np.mean)
        best[name], error = selection.difference(place, np.zeros_like(place))
        rows.append(
            Emission(
                emission=name,
                n_states=one.selection.n_states,
                heldout_ll_per_frame=best[name],
                se=error,
                common=one.config.common,
                ridge=one.config.ridge if name == "ar" else UNSET,
            )
        )
    return ahead if decided else max(best, key=lambda name: best[name]), found, rows


def robust(trajectories: Trajectories, config: Config) -> Chosen:
    """Preset `robust`: pooled normalisation, K by held-out likelihood of whole runs."""
    emissions = other = None
    auto = config.emission == "auto"
    if auto:
        moving = any(len(run.steps) > 1 for run in trajectories.runs)
        config = replace(config, emission="ar" if moving else "level")
    features = extract(trajectories, config)
    rows = sum(map(len, features.values)) - missing_rows(features.values)
    if config.n_states is not None and config.n_states > rows:
        raise NothingMatched(
            f"n_states={config.n_states}: the runs have {rows:,} rows, and no state can be without one"
        )
    if len(features.values) < 2:
        found = selection.select(features.values, features.steps, config)
    elif auto and config.emission == "ar":
        emission, both, emissions = by_emission(features, config)
        config, found = both[emission].config, both[emission].selection
        other = both["level" if emission == "ar" else "ar"].selection.curve
    else:
        (tried,) = go_on(features, begin(features, [config]))
        config, found = tried.config, tried.selection
    scaler = fit_scaler(features.values)
    model = Model(features.names, features.logged, scaler, config.emission, found.unit, found.fit.parameters)
    n_runs = len(features.values)
    fold = selection.assign_folds(n_runs, config.folds, config.seed) if n_runs > 1 else np.array([-1])
    return Chosen(
        features, model, found.n_states, found.rows, fold, found.held_out, (), found.warnings,
        emissions, other, config.ridge, config.common, found.folds,
    )  # fmt: skip


def published(trajectories: Trajectories, config: Config) -> Chosen:
    """Preset `paper`."""
    features = paper.extract(trajectories, config)
    found = paper.select(features.values, config)
    size = len(features.names)

    def model(fit: PaperFit) -> Model:
        return Model(
            features.names, (), fit_scaler(features.values), "level", np.ones(size), fit.parameters, True
        )

    n_runs = len(features.values)
    fold = np.full(n_runs, -1)
    if n_runs > 1:
        fold[found.validation] = 0
    others = tuple(model(fit) for fit in found.others)
    return Chosen(
        features, model(found.fit), found.n_states, found.rows, fold, found.held_out, others, found.warnings
    )


def compare(chosen: Chosen, config: Config) -> tuple[list[Baseline], pd.DataFrame] | None:
    """Baselines on the same features and folds; None where nothing can be held out."""
    if (chosen.fold < 0).all():
        return None
    values, model = chosen.features.values, chosen.model
    values = tuple(model.normalise(x) for x in values) if model.per_run else values
    return baselines.compare(values, chosen.features, chosen.fold, config, chosen.held_out, chosen.other)


def stability(
    chosen: Chosen, paths: Sequence[np.ndarray], config: Config
) -> tuple[list[Agreement], list[str]]:
    """Agreement of the states with those of other starts and, for `robust`, of resampled runs."""
    values, steps = chosen.features.values, chosen.features.steps
    if config.preset == "robust":
        return refits.measure(values, steps, paths, chosen.n_states, config)
    if not chosen.others:
        return [], []
    return [refits.agreement("restarts", paths, [other.decode(values) for other in chosen.others])], []
