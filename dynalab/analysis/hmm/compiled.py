"""Iterations of EM in code that is compiled for this machine, where it has a C++ compiler: see em.cpp.

It knows chains of full noise covariances whose transitions are all possible, and mixtures of these. Whatever else is
asked for, and single iterations that it hands back, are done in NumPy (`iterations`), which is the same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import c_double, c_int64, c_void_p
from pathlib import Path

import numpy as np

from dynalab.analysis.hmm.emissions import LOG_2PI, Emission, Prior, first_log_density, shares
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.inference import Expectation
from dynalab.analysis.hmm.iterations import DEAD, Iterations, Parameters, m_step
from dynalab.config import compiling

SOURCE = Path(__file__).with_name("em.cpp")
MOST_STATES = 16

# Of each thread its own: analyses may run beside each other in one process.
_library: ContextVar[ctypes.CDLL | None] = ContextVar("library", default=None)


class _Work(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ["frames", "runs", "states", "size", "inputs", "wide"]),
        *((name, c_int64) for name in ["padded", "independent", "skips"]),
        *((name, c_void_p) for name in ["blocks", "rows", "first", "begins", "skipped", "ridge", "scatter"]),
        *((name, c_double) for name in ["weight", "floor", "counts", "sticky", "common", "constant"]),
        *((name, c_void_p) for name in ["start", "transitions", "weights", "covariances"]),
        *((name, c_void_p) for name in ["maps", "log_det", "middle"]),
        *((name, c_void_p) for name in ["density", "filtered", "posterior", "scale", "shift"]),
        *((name, c_void_p) for name in ["held", "starts", "pairs"]),
        *((name, c_double) for name in ("penalty", "likelihood")),
    ]


_FUNCTIONS = {
    name: [ctypes.POINTER(_Work)] for name in ("prepare", "begin", "forward", "backward", "maximise")
}


def library() -> Path | None:
    """Return the library for this machine, compiled where it is not kept yet; None where that cannot be."""
    return compiling.available(SOURCE)


def use(made: Path | None) -> None:
    """Make iterations in a library from now on; None: in NumPy."""
    _library.set(compiling.loaded(made, _FUNCTIONS))


def used() -> Path | None:
    """Return the library in use."""
    code = _library.get()
    return Path(code._name) if code is not None else None


@contextmanager
def using(made: Path | None) -> Iterator[None]:
    """Make iterations in a library while the block lasts; None: in NumPy."""
    before = used()
    use(made)
    try:
        yield
    finally:
        use(before)


def _knows(prior: Prior, n_states: int) -> bool:
    known = prior.covariance == "full" and prior.counts > 0 and not prior.ordered
    return known and n_states <= MOST_STATES


def iterations(frames: Frames, prior: Prior, parameters: Parameters) -> Iterations:
    """Return what makes iterations from given parameters, one such object of the same frames at a time."""
    code = _library.get()
    if code is None or not _knows(prior, parameters.n_states):
        return Iterations(frames, prior, parameters)
    return Compiled(code, frames, prior, parameters)


def begin(
    frames: Frames,
    prior: Prior,
    emission: Emission,
    posterior: np.ndarray,
    first: np.ndarray,
    pairs: np.ndarray,
) -> Parameters:
    """Maximise as `iterations.m_step` does without covariances of before."""
    code, n_states = _library.get(), posterior.shape[1]
    if code is not None and _knows(prior, n_states):
        arrays, work = _room(frames, prior, emission)
        arrays["posterior"][:, :n_states] = posterior
        weighted = frames.predicted(posterior)
        arrays["held"][:] = np.ones(len(weighted)) @ weighted
        arrays["starts"][:] = posterior[frames.firsts].sum(axis=0) if prior.independent else first
        arrays["pairs"][:] = pairs
        if code.begin(work) == 0:
            return _parameters(arrays, emission)
    return m_step(frames, prior, emission, posterior, first, pairs, before=False)


def _room(frames: Frames, prior: Prior, emission: Emission) -> tuple[dict[str, np.ndarray], _Work]:
    """Return the arrays that compiled code works in, and where they are."""
    n_frames = len(frames.levels)
    n_states, size, inputs = emission.weights.shape
    if n_states not in frames.room:
        padded = next(width for width in (4, 8, MOST_STATES) if n_states <= width)
        arrays = {
            "blocks": frames.blocks,
            "rows": frames.rows,
            "begins": np.append(frames.firsts, n_frames),
            "skipped": frames.skipped,
            "start": np.empty(n_states),
            "transitions": np.empty((n_states, n_states)),
            "weights": np.empty((n_states, size, inputs)),
            "covariances": np.empty((n_states, size, size)),
            "maps": np.empty((n_states, size, inputs + size)),
            "log_det": np.empty(n_states),
            "middle": np.empty((size, size)),
            # Zeros stay in the columns of no state.
            **{name: np.zeros((n_frames, padded)) for name in ("density", "filtered", "posterior")},
            "scale": np.empty(n_frames),
            "shift": np.empty(n_frames),
            "held": np.empty(n_states),
            "starts": np.empty(n_states),
            "pairs": np.empty((n_states, n_states)),
        }
        work = _Work(
            frames=n_frames, runs=len(frames.lengths), states=n_states, size=size, inputs=inputs, padded=padded,
            skips=len(frames.skipped),
            wide=frames.rows.shape[1], constant=2 * float(np.log(frames.unit).sum()) + size * LOG_2PI,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )  # fmt: skip
        frames.room[n_states] = arrays, work
    arrays, work = frames.room[n_states]
    arrays["ridge"] = np.ascontiguousarray(np.diagonal(prior.ridge))
    arrays["scatter"] = np.ascontiguousarray(prior.scatter)
    if emission.first_mean is not None:
        arrays["first"] = first_log_density(frames, emission)
    for name in {"ridge", "scatter", "first"} & {*arrays}:
        setattr(work, name, arrays[name].ctypes.data)
    work.independent, work.weight, work.floor = prior.independent, prior.weight, prior.floor
    work.counts, work.sticky = prior.counts, prior.sticky
    work.common = prior.common if shares(prior, n_states) else 0.0
    return arrays, work


def _parameters(arrays: Mapping[str, np.ndarray], first: Emission) -> Parameters:
    """The parameters in these arrays, with the Gaussian of the first frames of an emission."""
    start, transitions, weights, covariances = (
        arrays[name].copy() for name in ("start", "transitions", "weights", "covariances")
    )
    emission = Emission(weights, covariances, first.first_mean, first.first_covariance)
    return Parameters(start, transitions, emission)


class Compiled(Iterations):
    """`Iterations` in compiled code; what that hands back is done in NumPy."""

    def __init__(self, code: ctypes.CDLL, frames: Frames, prior: Prior, parameters: Parameters) -> None:
        """Begin at given parameters."""
        super().__init__(frames, prior, parameters)
        self._code = code
        self._arrays, self._work = _room(frames, prior, parameters.emission)
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
        return _parameters(self._arrays, self._parameters.emission)

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
