"""A fitted model that stands alone: features, normalisation and HMM, as plain values that decode new runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.hmm import inference, paper
from dynalab.analysis.hmm.emissions import Emission, log_density
from dynalab.analysis.hmm.features import Scaler
from dynalab.analysis.hmm.frames import Frames, stack
from dynalab.analysis.hmm.iterations import Parameters


@dataclass(frozen=True)
class Model:
    """A fitted HMM with all that is needed to apply it.

    Attributes:
        names: The M features.
        logged: Those of which the logarithm is taken first.
        unit: Spread of the regression targets, shape (M,); the unit of `parameters`.
        per_run: Whether a run is normalised by itself, over the whole of it (preset=paper); `scaler` then only says
            where all runs together lie.
    """

    names: tuple[str, ...]
    logged: tuple[str, ...]
    scaler: Scaler
    emission: str
    unit: np.ndarray
    parameters: Parameters
    per_run: bool = False

    def normalise(self, x: np.ndarray) -> np.ndarray:
        """Normalised features of one run, shape (T, M)."""
        return paper.normalise(x) if self.per_run else self.scaler(x)

    def frames(self, values: Sequence[np.ndarray]) -> Frames:
        """Stack runs whose features are chosen and logged but not normalised, shapes (T, M)."""
        return stack([self.normalise(x) for x in values], self.emission, self.unit)

    def log_density(self, frames: Frames) -> np.ndarray:
        """Log-density of every frame under every state, shape (N, K), nats."""
        return log_density(frames, self.parameters.emission)

    def decode(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Most probable state path of every run (Viterbi, 1967), integers of shape (T,) each."""
        frames = self.frames(values)
        p = self.parameters
        return inference.viterbi(p.start, p.transitions, self.log_density(frames), frames.lengths)

    def reorder(self, order: Sequence[int]) -> Model:
        """The same model with state `order[i]` called i."""
        index = np.asarray(order, dtype=np.int64)
        old = self.parameters
        weights, covariances = old.emission.weights[index], old.emission.covariances[index]
        emission = replace(old.emission, weights=weights, covariances=covariances)
        transitions = np.ascontiguousarray(old.transitions[np.ix_(index, index)])
        return replace(self, parameters=Parameters(old.start[index], transitions, emission))


def to_plain(model: Model) -> dict[str, Any]:
    """The model as JSON-able values, in normalised features.

    A feature is z = (x - mean) / sd, x logged first where `log` says so; with `normalisation` "per run", mean and sd
    are the run's own.

    `level`: `means` (K, M), `covariances` (K, M, M). `ar`: x_t ~ N(A x_{t-1} + b, covariance) with `A` (K, M,
    M) and `b` (K, M), and the Gaussian of a run's first frame under `first`.
    """
    e = model.parameters.emission
    scale = np.outer(model.unit, model.unit)
    weights = e.weights * model.unit[:, None]
    plain: dict[str, Any] = {
        "emission": model.emission,
        "normalisation": "per run" if model.per_run else "pooled",
        "features": [
            {"name": name, "log": name in model.logged, "mean": float(mean), "sd": float(sd)}
            for name, mean, sd in zip(model.names, model.scaler.mean, model.scaler.sd, strict=True)
        ],
        "start": model.parameters.start.tolist(),
        "transitions": model.parameters.transitions.tolist(),
        "covariances": (e.covariances * scale).tolist(),
        "target_unit": model.unit.tolist(),
    }
    if model.emission == "level":
        plain["means"] = weights[:, :, 0].tolist()
    else:
        plain["A"] = (weights[:, :, :-1] + np.eye(len(model.names))).tolist()
        plain["b"] = weights[:, :, -1].tolist()
        assert e.first_mean is not None and e.first_covariance is not None
        plain["first"] = {"mean": e.first_mean.tolist(), "covariance": e.first_covariance.tolist()}
    return plain


def from_plain(plain: Mapping[str, Any]) -> Model:
    """The inverse of `to_plain`."""
    features = plain["features"]
    unit = np.array(plain["target_unit"])
    first_mean = first_covariance = None
    if plain["emission"] == "level":
        weights = np.array(plain["means"])[:, :, None]
    else:
        drift = np.array(plain["A"]) - np.eye(len(features))
        weights = np.concatenate([drift, np.array(plain["b"])[:, :, None]], axis=2)
        first_mean = np.array(plain["first"]["mean"])
        first_covariance = np.array(plain["first"]["covariance"])
    covariances = np.array(plain["covariances"]) / np.outer(unit, unit)
    emission = Emission(weights / unit[:, None], covariances, first_mean, first_covariance)
    return Model(
        tuple(f["name"] for f in features),
        tuple(f["name"] for f in features if f["log"]),
        Scaler(np.array([f["mean"] for f in features]), np.array([f["sd"] for f in features])),
        plain["emission"],
        unit,
        Parameters(np.array(plain["start"]), np.array(plain["transitions"]), emission),
        plain.get("normalisation") == "per run",
    )
