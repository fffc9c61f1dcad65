"""The keys of `dynalab analyze hmm`, and the numbers that stand behind a preset.

Imports nothing heavy: the command line reads every analysis' `Config` when it starts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from dynalab.analysis.convergence import ConvergenceKeys
from dynalab.errors import ConfigError

EMISSIONS = ("ar", "level")
COVARIANCES = ("full", "diag")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a preset decides beside the keys of `Config`.

    Pseudo-frames are the unit of the priors: a prior of weight w counts as much as w frames of data.

    Attributes:
        ridge: Weight, in pseudo-frames of unit variance, of the pull of A toward the identity (autoregression
            only).
        intercept_ridge: The same for offsets and means, toward 0: only there so that an empty state has a
            value.
        shrinkage: Weight in pseudo-frames of the pull of the noise covariance toward a diagonal, added to the
            number of features.
        shrinkage_scale: That diagonal as a share of the residual variance of the one-state model. Well below
            1, because late phases of training are far quieter than the pooled residual.
        floor: Least eigenvalue of a noise covariance, relative to the pooled variance of what is predicted.
        transition_prior: Pseudo-counts added to every entry of start and transition probabilities.
        tries: Random segmentations of which a restart takes the best, after two EM iterations each.
        screen_iterations: EM iterations after which the restarts are compared.
        finalists: Number of restarts that go on after the comparison.
        reseedings: How often a fit may give a dead state new frames.
    """

    ridge: float = 10.0
    intercept_ridge: float = 1e-3
    shrinkage: float = 2.0
    shrinkage_scale: float = 0.005
    floor: float = 1e-6
    transition_prior: float = 0.1
    tries: int = 5
    screen_iterations: int = 10
    finalists: int = 2
    reseedings: int = 3


# A published pipeline that differs in more than these numbers gets its own branch in `analyse`.
PRESETS: dict[str, Settings] = {"robust": Settings()}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys of the hidden Markov analysis.

    Attributes:
        metrics: Columns that are the features; None takes the fourteen weight metrics as far as they are
            present.
        preset: `robust`.
        emission: `ar` (switching autoregression: states of dynamics) or `level` (Gaussian: states of level).
        covariance: Noise covariance, `full` (shrunk) or `diag`.
        n_states: Number of states; None lets held-out likelihood choose.
        max_states: Largest number of states that is tried.
        folds: Folds over runs for the held-out likelihood.
        restarts: Starts of EM per fit.
        n_iter: Most EM iterations per start.
        tol: EM has converged when an iteration gains less than this, in nats per frame.
        seed: Seed of starts and folds.
        workers: Processes; None takes one per core. The result does not depend on it.
        steps: Look only at rows up to this step.
        decode_with: Id of a stored analysis whose model decodes the runs; nothing is fitted then.
        convergence: What counts as converged.
    """

    metrics: list[str] | None = None
    preset: str = "robust"
    emission: str = "ar"
    covariance: str = "full"
    n_states: int | None = None
    max_states: int = 8
    folds: int = 5
    restarts: int = 5
    n_iter: int = 200
    tol: float = 1e-4
    seed: int = 0
    workers: int | None = None
    steps: int | None = None
    decode_with: str | None = None
    convergence: ConvergenceKeys = field(default_factory=ConvergenceKeys)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming the key, what was given and what is legal."""
        _one_of("preset", self.preset, tuple(PRESETS))
        _one_of("emission", self.emission, EMISSIONS)
        _one_of("covariance", self.covariance, COVARIANCES)
        _at_least("n_states", self.n_states, 1)
        _at_least("max_states", self.max_states, 1)
        _at_least("folds", self.folds, 2)
        _at_least("restarts", self.restarts, 1)
        _at_least("n_iter", self.n_iter, 1)
        _at_least("seed", self.seed, 0)
        _at_least("workers", self.workers, 1)
        _at_least("steps", self.steps, 0)
        if not 0 < self.tol < float("inf"):
            raise ConfigError(f"tol={self.tol}: must be a number above 0")
        if self.metrics is not None and not self.metrics:
            raise ConfigError("metrics=[]: must name at least one column")

    @property
    def settings(self) -> Settings:
        """The numbers of the chosen preset."""
        return PRESETS[self.preset]


def describe(config: Config) -> dict[str, Any]:
    """The configuration and its preset's numbers as plain values, for the result.

    `workers` is left out: the same result must have the same words however many processes made it.
    """
    plain = asdict(config)
    plain.pop("workers")
    return {**plain, "preset_values": asdict(config.settings)}


def _one_of(key: str, given: str, legal: tuple[str, ...]) -> None:
    if given not in legal:
        close = get_close_matches(str(given), legal, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{key}={given}: must be one of {', '.join(legal)}{hint}")


def _at_least(key: str, given: int | None, least: int) -> None:
    if given is not None and given < least:
        raise ConfigError(f"{key}={given}: must be {least} or more")
