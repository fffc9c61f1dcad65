"""`probes=[weights]`: the fourteen weight statistics of Hu et al. 2023 (arXiv 2308.09543, table 3).

W_1..W_K are the matrices that the network counts as its weights (`dynalab.models.describe`), w all their entries, b all
entries of its biases, and s_k the singular values of W_k, those below 1e-5 taken as 0.

The paper prints `l2` as a mean of sqrt(w_i^2), a typo: that is `l1`; its code, and this, take the Frobenius
norm. Its code divides variances by n - 1. A network without biases has no `*_b`. A ratio to a matrix that is
all zero is NaN.

Accuracy: everything is computed in float64, singular values as square roots of the eigenvalues of W W^T (or
W^T W, the smaller). Measured against a float64 singular value decomposition, 59 x 128 to 512 x 512: relative
errors of at most 4e-15 in lambda_max and 2e-12 in mean_sv and var_sv, also with singular values that decay
from 10 to 1e-7. What the squaring costs: a singular value that is 0 comes out as up to 2e-8 lambda_max. So
from a lambda_max of about 400 on it may no longer count as 0 (by the rule above); the means then differ by
at most 3e-7 of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.columns import Column, Columns
from dynalab.models.describe import WeightSelection, describe, matrices
from dynalab.probes.base import Cadence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from dynalab.core.state import ProbeState

# Below this a singular value counts as 0 (Hu et al.'s code).
SMALLEST = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "weights"


@dataclass(frozen=True)
class WeightStatistics:
    """The probe; implements `dynalab.probes.base.Probe`."""

    selection: WeightSelection
    needs: frozenset[str] = frozenset()

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the statistics, each (S,) in float64; all NaN for a run with an entry that is not finite."""
        from dynalab.probes.spectra import statistics

        biases = [state.params[name] for name in self.selection.biases]
        weights = list(matrices(state.params, self.selection))
        found = statistics(weights, biases, SMALLEST) if weights else None
        if found is None:
            return self.finish(self.prepare(state))
        own = dict(zip(COLUMNS, found, strict=True))
        return own if biases else {name: value for name, value in own.items() if not name.endswith("_b")}

    def prepare(self, state: ProbeState) -> dict[str, Tensor]:
        """Return what the statistics are made of, name -> (S, ...) in float64: sums over entries, Gram matrices."""
        found: dict[str, Tensor] = {}
        if self.selection.matrices:
            weights = list(matrices(state.params, self.selection))
            found |= {f"{name}_w": value for name, value in _of_entries(weights).items()}
            found |= _grams(weights)
        if self.selection.biases:
            biases = _of_entries([state.params[name] for name in self.selection.biases])
            found |= {f"{name}_b": value for name, value in biases.items()}
        return found

    def finish(self, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the statistics of what was prepared; see `dynalab.probes.base.Probe`."""
        import torch

        if not prepared:
            return {}
        means = [value for key, value in prepared.items() if key.startswith("mean_")]
        bad = torch.stack([value.isnan() for value in means]).any(0)
        result = {**prepared, **_of_matrices(prepared, bad)}
        ordered = (name for name in COLUMNS if name in result)
        return {name: result[name].masked_fill(bad, torch.nan) for name in ordered}


COLUMNS: Columns = {
    "l1": Column("mean over k of the sum of the sizes of the entries of W_k", "weight"),
    "l2": Column("mean over k of the Frobenius norm of W_k", "weight"),
    "l1_over_l2": Column("mean over k of the ratio of the two; NaN where a matrix is all zero", "1"),
    "mean_w": Column("mean of w", "weight"),
    "median_w": Column("median of w, the lower of two middle values", "weight"),
    "var_w": Column("variance of w, ddof 0", "weight^2"),
    "mean_b": Column("mean of b; absent without biases, as the next two", "weight"),
    "median_b": Column("median of b, the lower of two middle values", "weight"),
    "var_b": Column("variance of b, ddof 0", "weight^2"),
    "trace": Column("mean over k of the sum of W_k[i, i], i < min(rows, columns)", "weight"),
    "lambda_max": Column("mean over k of the largest of s_k", "weight"),
    "trace_over_lambda_max": Column(
        "mean over k of the trace of W_k divided by the largest of s_k; NaN where a matrix is all zero", "1"
    ),
    "mean_sv": Column("mean over k of the mean of s_k", "weight"),
    "var_sv": Column("mean over k of the variance of s_k, ddof 0", "weight^2"),
}


def build(config: Config, network: nn.Module) -> WeightStatistics:
    """Build the probe for a network."""
    return WeightStatistics(describe(network))


def of_matrix(matrix: Tensor) -> dict[str, Tensor]:
    """Return the eight statistics that are means over matrices of one finite matrix a run, (S, m, n); each (S,)."""
    import torch

    return _of_matrices(_grams([matrix]), torch.zeros(len(matrix), dtype=torch.bool))


def _of_entries(parts: list[Tensor]) -> dict[str, Tensor]:
    """Return mean (NaN where not finite), lower median and variance (S,) of all entries of parts (S, ...), float64."""
    import torch

    rows = torch.cat([part.flatten(1) for part in parts], dim=1)
    wide = rows.to(torch.float64, copy=True)
    mean = wide.mean(1)
    variance = wide.sub_(mean[:, None]).square_().mean(1)
    # An entry itself: as exact in the type of the weights, where NumPy has it, and found sooner.
    median = _lower_median(rows if rows.element_size() >= 4 else rows.to(torch.float64))
    return {
        "mean": torch.where(mean.isfinite(), mean, torch.nan),
        "median": median.to(torch.float64),
        "var": variance,
    }


def _lower_median(rows: Tensor) -> Tensor:
    """Return the lower of the two middle values of each row of (S, N), whose order it may change."""
    import torch

    if rows.device.type != "cpu":
        return rows.median(1).values
    # Adding 0 makes one of the two zeros, which compare equal.
    return torch.from_numpy(np.asarray(middle(rows.numpy())) + 0.0)


def middle(numbers: np.ndarray) -> np.ndarray:
    """Return the lower of the two middle values along the last axis, whose order changes.

    In a tenth to two thirds of torch's time.
    """
    place = (numbers.shape[-1] - 1) // 2
    numbers.partition(place, axis=-1)
    found: np.ndarray = numbers[..., place].copy()
    return found


def _grams(weights: list[Tensor]) -> dict[str, Tensor]:
    """Return of matrices W (S, m, n), those of a shape together, in float64 what eigenvalues and means are made of.

    That is the smaller of W W^T and W^T W, (S, K, l, l), and sums of |W_ij| and of W_ii, (S, K) each.
    """
    import torch

    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for weight in weights:
        by_shape.setdefault(tuple(weight.shape[1:]), []).append(weight)
    found = {}
    for place, same in enumerate(by_shape.values()):
        # Its own numbers: the sizes of entries take their places.
        x = torch.stack(same, dim=1).to(torch.float64)
        found[f"gram/{place}"] = x @ x.mT if x.shape[2] < x.shape[3] else x.mT @ x
        found[f"trace/{place}"] = x.diagonal(dim1=2, dim2=3).sum(2)
        found[f"l1/{place}"] = x.abs_().sum((2, 3))
    return found


def _of_matrices(prepared: Mapping[str, Tensor], bad: Tensor) -> dict[str, Tensor]:
    """Return the eight statistics that are means over matrices, each (S,); of runs that are `bad`, (S,), any number."""
    import torch

    from dynalab.probes.spectra import spectra

    kinds = range(sum(key.startswith("gram/") for key in prepared))
    if not kinds:
        return {}
    grams = [prepared[f"gram/{kind}"] for kind in kinds]
    # What is not finite has no eigenvalues, and is refused for all runs at once. A card is not waited for.
    if bad.device.type != "cpu" or bad.any():
        grams = [gram.masked_fill(bad[:, None, None, None], 0.0) for gram in grams]
    l1, trace = (torch.cat([prepared[f"{name}/{kind}"] for kind in kinds], dim=1) for name in ("l1", "trace"))
    l2 = torch.cat([gram.diagonal(dim1=2, dim2=3).sum(2) for gram in grams], dim=1).sqrt()
    largest, mean, variance = spectra(grams, SMALLEST)
    each = {
        "l1": l1,
        "l2": l2,
        "l1_over_l2": l1 / l2,
        "trace": trace,
        "lambda_max": largest,
        "trace_over_lambda_max": torch.where(largest > 0, trace / largest, torch.nan),
        "mean_sv": mean,
        "var_sv": variance,
    }
    return {name: own.mean(1) for name, own in each.items()}
