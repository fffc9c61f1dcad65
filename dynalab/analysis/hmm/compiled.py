"""Iterations of EM in code that is compiled for this machine, where it has a C++ compiler: see em.cpp.

It knows chains of full noise covariances whose transitions are all possible, and mixtures of these. Whatever else is
asked for, and single iterations that it hands back, are done in NumPy (`iterations`), which is the same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_double, c_int64, c_void_p
from pathlib import Path

import numpy as np

from dynalab.analysis.hmm.emissions import LOG_2PI, Emission, Prior, first_log_density, shares
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.inference import Expectation
from dynalab.analysis.hmm.iterations import DEAD, Iterations, Parameters
from dynalab.config import compiling
from dynalab.core.errors import DynalabError

SOURCE = Path(__file__).with_name("em.cpp")
MOST_STATES = 16

_library: ctypes.CDLL | None = None


class _Work(ctypes.Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in ["frames", "runs", "states", "size", "inputs", "wide", "padded", "independent"]
        ),
        *((name, c_void_p) for name in ["blocks", "rows", "first", "begins", "ridge", "scatter"]),
        *((name, c_double) for name in ["weight", "floor", "counts", "sticky", "common", "constant"]),
        *((name, c_void_p) for name in ["start", "transitions", "weights", "covariances"]),
        *((name, c_void_p) for name in ["maps", "log_det", "middle"]),
        *((name, c_void_p) for name in ["density", "filtered", "posterior", "scale", "shift"]),
        *((name, c_void_p) for name in ["held", "starts", "pairs"]),
        *((name, c_double) for name in ("penalty", "likelihood")),
    ]


def library() -> Path | None:
    """Return the library for this machine, compiled where it is not kept yet; None where that cannot be."""
    try:
        return compiling.library(SOURCE)
    except (DynalabError, OSError):
        return None


def use(made: Path | None) -> None:
    """Make iterations in a library from now on; None: in NumPy."""
    global _library
    _library = None
    if made is None:
        return
    try:
        found = ctypes.CDLL(str(made))
        for name in ("prepare", "forward", "backward", "maximise"):
            getattr(found, name).argtypes = [ctypes.POINTER(_Work)]
    except (OSError, AttributeError):
        # Not what was compiled.
        return
    _library = found


def used() -> Path | None:
    """Return the library in use."""
    return Path(_library._name) if _library is not None else None


@contextmanager
def using(made: Path | None) -> Iterator[None]:
    """Make iterations in a library while the block lasts; None: in NumPy."""
    before = used()
    use(made)
    try:
        yield
    finally:
        use(before)


def iterations(frames: Frames, prior: Prior, parameters: Parameters) -> Iterations:
    """Return what makes iterations from given parameters."""
    known = prior.covariance == "full" and prior.counts > 0 and not prior.ordered
    if _library is None or not known or parameters.n_states > MOST_STATES:
        return Iterations(frames, prior, parameters)
    return Compiled(_library, frames, prior, parameters)


class Compiled(Iterations):
    """`Iterations` in compiled code; what that hands back is done in NumPy."""

    def __init__(self, code: ctypes.CDLL, frames: Frames, prior: Prior, parameters: Parameters) -> None:
        """Begin at given parameters."""
        super().__init__(frames, prior, parameters)
        emission = parameters.emission
        n_frames, n_states = len(frames.levels), parameters.n_states
        size, inputs = emission.weights.shape[1:]
        padded = next(width for width in (4, 8, MOST_STATES) if n_states <= width)
        self._code = code
        self._arrays = arrays = {
            "blocks": frames.blocks,
            "rows": frames.rows,
            "begins": np.append(frames.firsts, n_frames),
            "ridge": np.ascontiguousarray(np.diagonal(prior.ridge)),
            "scatter": np.ascontiguousarray(prior.scatter),
            "start": np.empty(n_states),
            "transitions": np.empty((n_states, n_states)),
            "weights": np.empty(emission.weights.shape),
            "covariances": np.empty(emission.covariances.shape),
            "maps": np.empty((n_states, size, inputs + size)),
            "log_det": np.empty(n_states),
            "middle": np.empty((size, size)),
            # Zeros stay in the columns of no state.
            **{name: np.zeros((n_frames, padded)) for name in ("density", "filtered", "posterior")},
            "scale": np.empty(n_frames),
            "shift": np.empty(n_frames),
            "held": np.empty(n_states),
            "starts": np.empty(n_states),
            "pairs": np.zeros((n_states, n_states)),
        }
        if emission.first_mean is not None:
            arrays["first"] = first_log_density(frames, emission)
        self._work = _Work(
            frames=n_frames, runs=len(frames.lengths), states=n_states, size=size, inputs=inputs,
            wide=frames.rows.shape[1], padded=padded, independent=prior.independent, weight=prior.weight,
            floor=prior.floor, counts=prior.counts, sticky=prior.sticky,
            common=prior.common if shares(prior, n_states) else 0.0,
            constant=2 * float(np.log(frames.unit).sum()) + size * LOG_2PI,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )  # fmt: skip
        self._begin(parameters)

    def _begin(self, parameters: Parameters) -> None:
        """Go on from parameters that were made elsewhere."""
        emission, arrays = parameters.emission, self._arrays
        arrays["start"][:] = parameters.start
        arrays["transitions"][:] = parameters.transitions
        arrays["weights"][:] = emission.weights
        arrays["covariances"][:] = emission.covariances
        self._here = self._code.prepare(self._work) == 0

    @property
    def parameters(self) -> Parameters:
        """The parameters of this iteration."""
        start, transitions, weights, covariances = (
            self._arrays[name].copy() for name in ("start", "transitions", "weights", "covariances")
        )
        first = self._parameters.emission
        emission = Emission(weights, covariances, first.first_mean, first.first_covariance)
        return Parameters(start, transitions, emission)

    def likelihood(self, last: bool) -> float:
        """Log-likelihood of all frames, nats; of the `last` iteration nothing else is asked."""
        self._found = None
        if self._here and self._code.forward(self._work) == 0:
            return float(self._work.likelihood)
        self._here = False
        return super().likelihood(last)

    def penalty(self) -> float:
        """Log-penalty of the parameters, nats."""
        return float(self._work.penalty) if self._here else super().penalty()

    def expected(self) -> Expectation:
        """What the parameters say of every frame."""
        if self._found is None:
            arrays, n_states = self._arrays, self._work.states
            predictive = arrays["shift"] - np.log(arrays["scale"])
            likelihoods = np.add.reduceat(predictive, self.frames.firsts)
            posterior, filtered = arrays["posterior"][:, :n_states], arrays["filtered"][:, :n_states]
            self._found = Expectation(
                likelihoods, posterior, filtered, predictive, arrays["starts"], arrays["pairs"]
            )
        return self._found

    def dead(self) -> list[int]:
        """States with less than a frame."""
        if not self._here:
            return super().dead()
        self._code.backward(self._work)
        return np.flatnonzero(self._arrays["held"] < DEAD).tolist()

    def advance(self) -> None:
        """Go on to the parameters that follow."""
        # Frames that were given to dead states are known here alone.
        if self._found is None and self._code.maximise(self._work) == 0:
            return
        super().advance()
        self._begin(self._parameters)
