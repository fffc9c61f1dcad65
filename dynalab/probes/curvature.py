"""`probes=[curvature]`: the sharpness, and how near it is to where the optimizer becomes unstable.

H is the Hessian of the training loss. For an adaptive optimizer what counts is P^-1/2 H P^-1/2, P being what it divides
its direction by (Cohen et al. 2022, arXiv 2207.14484).

The loss is the training loss, without an L2 term, on the first `size` training examples in training mode: batch
normalisation by the statistics of these examples (running ones stay as they were), dropout with noise that never
changes. A network with batch normalisation that is trained on mini-batches therefore has another objective here than
in training. Thresholds account for weight decay: inside the gradient of SGD it lowers the threshold, by as much as the
decay D of each parameter raises the eigenvalue (the decay itself where all have it; for SAM that of H stands for that
of its own operator), inside that of Adam and RMSprop it is in P and added to H there, decoupled it is in the recurrence
(as if all parameters had it: a change of half the rate times the decay). Clipping scales the gradient, and so divides
the threshold. For Lookahead the weights are the slow ones, P and threshold those of the inner optimizer in its cycle.
For SAM the threshold depends on the norm of the gradient of the update (Long and Bartlett 2023). None is known, and it
is NaN, with `optimizer.orthogonal` and `train.norm_clamp`. With `train.temperature` all is of the loss that is trained.

Where the loss of a run spikes between two rows, the run has one more in the series `forced`, at the end of the block of
64 steps in which it did; at most one in the distance of two regular rows.

A row costs about ten Hessian-vector products an eigenvalue. The start of each search is the last vector, the
gradient and some randomness; checkpoints keep the vector, so a resumed run has the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.config.keys import key
from dynalab.core.columns import Column, Columns
from dynalab.curvature.cost import ENTRIES, cadence_of, default_size, examples_of
from dynalab.curvature.rows import FEWEST, SKIPPED, close_enough
from dynalab.probes.base import Cadence, Setting, every_by_cost, first_examples

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import Objective, ProbeState
    from dynalab.curvature.hessian import Operator
    from dynalab.curvature.lanczos import Eigenpairs
    from dynalab.training.cadence import Cadence as Grid

# Products that an eigenvalue takes with a warm start.
PRODUCTS = 10
# Residual at which the first search ends, which has nothing to start from. Every other one starts from the last vector,
# the gradient (which at the edge lies along the unstable directions, so that a vector that takes over is seen) and some
# randomness. Measured along a run through the edge (500 digits, 17,210 parameters), products an eigenvalue, median and
# worst relative error: 11, 4e-4, 3e-3; without the gradient 10, 4e-4, 1e-2; at a tolerance of 1e-3 17, 3e-6, 6e-5.
COLD = 1e-3
NOISE = 0.3


COLUMNS: Columns = {
    "sharpness": Column("largest eigenvalue (algebraic) of H", "loss/weight^2"),
    "sharpness_#": Column(
        "the second largest eigenvalue, the third, ...: `eigenvalues` of them", "loss/weight^2"
    ),
    "sharpness_residual": Column("norm of H u - sharpness u, u its eigenvector of norm 1", "loss/weight^2"),
    "preconditioned_sharpness": Column(
        "largest eigenvalue of P^-1/2 H P^-1/2; adaptive optimizers only, as all that is preconditioned",
        "1/weight",
    ),
    "preconditioned_residual": Column("its residual, as `sharpness_residual`", "1/weight"),
    "stability_threshold": Column(
        "above this value the update t -> t+1 is unstable on a quadratic: of `preconditioned_sharpness` for an "
        "adaptive optimizer, of `sharpness` for any other (2/lr for gradient descent); NaN where none is known",
        "loss/weight^2; adaptive: 1/weight",
    ),
    "edge_ratio": Column("the sharpness, preconditioned or not, over its threshold; 1 is the edge", "1"),
    "decayed_sharpness": Column(
        "largest eigenvalue of H + D, D the decay of each parameter; with SGD's decay on matrices alone",
        "loss/weight^2",
    ),
    "curvature_probe_size": Column("training examples that the loss is taken on", "example"),
    "curvature_probe_training": Column("1 where the network is in training mode, 0 in evaluation mode", "1"),
    "gradient_curvature": Column(
        "g^T H g / |g|^2, g the gradient of the same loss; with `gradient=true`", "loss/weight^2"
    ),
    "preconditioned_gradient_curvature": Column(
        "that of P^-1/2 H P^-1/2 along P^-1/2 g, the direction of the update without momentum", "1/weight"
    ),
    "hessian_trace": Column(
        "trace of H from `trace` random vectors; exact where there are no more parameters than these",
        "loss/weight^2",
    ),
    "hessian_trace_se": Column("its standard error; 0 where it is exact", "loss/weight^2"),
}
# What the values are of: the same in every row.
ABOUT = ("curvature_probe_size", "curvature_probe_training")


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe; without `every` its cadence is chosen by counted cost."""

    name: str = "curvature"
    every: int | None = every_by_cost()
    size: int | None = first_examples()
    eigenvalues: int = key(1, "how many of the largest; the second is sharpness_2", least=1, most=20)
    tolerance: float = key(
        1e-2, "residual at which a search ends, relative to the eigenvalue", above=0, below=1
    )
    gradient: bool = key(True, "measure the curvature along the gradient")
    trace: int = key(0, "random vectors for the trace; 0: no trace", least=0)
    on_spike: bool = key(
        True, "a run whose loss spikes between two rows has a row then, in a series of its own"
    )


def default_every(config: Config, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows at which they cost about a twentieth of training."""
    from dynalab.curvature.thresholds import is_adaptive, partly_decayed

    operators = 2 if is_adaptive(ensemble.optimizer) or partly_decayed(ensemble.optimizer) else 1
    products = operators * (config.eigenvalues * PRODUCTS + config.gradient) + config.trace
    return cadence_of(config.size, products, 1, ensemble)


def too_few(grid: Grid, ensemble: EnsembleConfig, last: int) -> str:
    """Return what gives rows enough, where those of a grid up to step `last` are too few; else nothing."""
    from dynalab.curvature.thresholds import is_adaptive

    skip = SKIPPED if is_adaptive(ensemble.optimizer) else 0
    if grid.count(skip, last) >= FEWEST:
        return ""
    every = close_enough(last, skip, ensemble.eval.every)
    how = "more steps" if every is None else f"probe.curvature.every={every}"
    after = f" from step {skip} on" if skip else ""
    return f"analyze eos needs {FEWEST}{after}: {how}"


def in_words(config: Config, ensemble: EnsembleConfig) -> dict[str, object]:
    """Return what the nulls of the probe's section mean."""
    return {"size": examples_of(config.size, ensemble)[0]}


class Curvature:
    """The probe; implements `dynalab.probes.base.Probe`."""

    needs = frozenset({"optimizer_state", "upcoming"})

    def __init__(self, config: Config) -> None:
        self._config = config
        self._warm: dict[str, Tensor] = {}
        self.on_spike = config.on_spike

    def begin(self, setting: Setting) -> None:
        """Take what the loss is made of."""
        self._objective: Objective = setting.objective(default_size(self._config.size, setting.full_batch))
        self._optimizer, self._train = setting.optimizer, setting.train

    def tensors(self) -> dict[str, Tensor]:
        """Return the vectors to start from, name -> (S, width), for a checkpoint."""
        return dict(self._warm)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        self._warm = dict(tensors)

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""
        import torch

        from dynalab.curvature.hessian import operators
        from dynalab.curvature.preconditioner import preconditioner

        assert state.upcoming is not None and state.optimizer_state is not None
        diagonal = preconditioner(self._optimizer, state.optimizer_state, state.upcoming)
        found = [
            self._of_part(state, diagonal, part, hessian)
            for part, hessian in operators(self._objective, state.params)
        ]
        columns = {name: torch.cat([row[name] for row, _ in found]) for name in found[0][0]}
        self._warm = {name: torch.cat([warm[name] for _, warm in found]) for name in found[0][1]}
        return self._completed(state, columns, diagonal is not None)

    def measure_run(self, state: ProbeState, run: int) -> dict[str, Tensor]:
        """Return the columns of one run, each (S,) in float64, NaN for the others; what is remembered stays."""
        import torch

        from dynalab.curvature.hessian import alone
        from dynalab.curvature.preconditioner import preconditioner

        assert state.upcoming is not None and state.optimizer_state is not None
        diagonal = preconditioner(self._optimizer, state.optimizer_state, state.upcoming)
        part, hessian = alone(self._objective, state.params, run)
        own, _ = self._of_part(state, diagonal, part, hessian)
        columns = {}
        for name, value in own.items():
            columns[name] = value.new_full((len(state.upcoming.clip),), torch.nan)
            columns[name][run] = value[0]
        columns = self._completed(state, columns, diagonal is not None)
        others = torch.arange(len(state.upcoming.clip), device=state.upcoming.clip.device) != run
        return {name: value.masked_fill(others, torch.nan) for name, value in columns.items()}

    def _completed(self, state: ProbeState, columns: dict[str, Tensor], adaptive: bool) -> dict[str, Tensor]:
        """Add the threshold, the ratio, and what the values are of, to the columns of all runs."""
        import torch

        raised = None
        if "decayed_sharpness" in columns:
            raised = columns["decayed_sharpness"] - columns["sharpness"]
        columns["stability_threshold"] = self._threshold(state, raised)
        # With every value, so that rows say what they are of wherever they are taken.
        for name, value in zip(ABOUT, (self._objective.size, self._objective.training), strict=True):
            columns[name] = torch.full_like(columns["sharpness"], float(value))
        edge = "preconditioned_sharpness" if adaptive else "sharpness"
        columns["edge_ratio"] = columns[edge] / columns["stability_threshold"]
        return columns

    def _of_part(
        self, state: ProbeState, diagonal: Mapping[str, Tensor] | None, part: slice, hessian: Operator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Measure the runs of one part; return columns (R,) and the vectors to start from next, (R, width)."""
        columns, warm = self._columns(state, diagonal, part, hessian)
        count = part.stop - part.start
        return (
            {name: value[:count] for name, value in columns.items()},
            {name: value[:count] for name, value in warm.items()},
        )

    def _columns(
        self, state: ProbeState, diagonal: Mapping[str, Tensor] | None, part: slice, hessian: Operator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Measure the runs of one part, and the copy of a lone one."""
        import torch

        from dynalab.curvature.preconditioner import coupled_decay
        from dynalab.curvature.spectrum import hutchinson
        from dynalab.curvature.thresholds import partly_decayed

        upcoming = state.upcoming
        assert upcoming is not None
        gradient, layout = hessian.gradient, hessian.layout
        params = {name: state.params[name][part] for name in layout.shapes}
        warm: dict[str, Tensor] = {}
        pairs = self._search("sharpness", hessian, hessian.product, gradient, state.step, part, warm)
        columns = {"sharpness": pairs.values[:, 0]}
        columns |= {f"sharpness_{i + 1}": pairs.values[:, i] for i in range(1, pairs.values.shape[1])}
        columns["sharpness_residual"] = pairs.residuals[:, 0]
        if self._config.gradient:
            columns["gradient_curvature"] = _along(gradient, hessian.product(gradient), gradient)
        if self._config.trace:
            trace = hutchinson(
                hessian.product, layout, gradient, starts=self._config.trace, seed=state.step + 1
            )
            columns["hessian_trace"], columns["hessian_trace_se"] = trace
        extra = coupled_decay(self._optimizer, params, upcoming.gradients, upcoming.clip[part], layout)
        if diagonal is None:
            if extra is not None and partly_decayed(self._optimizer):

                def shifted(vectors: Tensor) -> Tensor:
                    return hessian.product(vectors) + extra * vectors

                pairs = self._search("decayed", hessian, shifted, gradient, state.step, part, warm)
                columns["decayed_sharpness"] = pairs.values[:, 0]
            return columns, warm
        p = layout.rows(
            {
                n: diagonal[n][part] if n in diagonal else torch.zeros_like(param)
                for n, param in params.items()
            }
        )
        root = p.clamp(min=0.0).sqrt()
        scale = root.reciprocal().masked_fill(root == 0, 0.0)

        def curved(vectors: Tensor) -> Tensor:
            product = hessian.product(vectors)
            return product if extra is None else product + extra * vectors

        def product(vectors: Tensor) -> Tensor:
            return scale * curved(scale * vectors)

        pairs = self._search("preconditioned", hessian, product, scale * gradient, state.step, part, warm)
        columns["preconditioned_sharpness"] = pairs.values[:, 0]
        columns["preconditioned_residual"] = pairs.residuals[:, 0]
        if self._config.gradient:
            direction = scale.square() * gradient
            columns["preconditioned_gradient_curvature"] = _along(direction, curved(direction), p * direction)
        return columns, warm

    def _search(
        self,
        name: str,
        hessian: Operator,
        product: Any,
        gradient: Tensor,
        step: int,
        part: slice,
        warm: dict[str, Tensor],
    ) -> Eigenpairs:
        """Find the largest eigenvalues of an operator; leave the start of the next search in `warm`."""
        from dynalab.curvature.lanczos import largest, unit

        known = self._warm.get(name)
        base = unit(gradient)
        if known is not None:
            base = base + unit(known[part])
        # The same direction for every run, a function of the step alone.
        noise = hessian.layout.random(step, gradient)
        pairs = largest(
            product,
            base + NOISE * noise / noise.norm(),
            self._config.eigenvalues,
            tolerance=self._config.tolerance if known is not None else min(COLD, self._config.tolerance),
            most=max(12, min(40, ENTRIES // hessian.layout.width)),
            size=hessian.layout.size,
        )
        warm[name] = pairs.vectors.sum(1)
        return pairs

    def _threshold(self, state: ProbeState, raised: Tensor | None = None) -> Tensor:
        """Return the threshold (S,) that the update meets; `raised` (S,) is what partial decay adds to sharpness."""
        from dataclasses import replace

        import torch

        from dynalab.curvature.thresholds import (
            ascended_threshold,
            displaced,
            inner_of,
            recurrence,
            threshold,
        )

        upcoming = state.upcoming
        assert upcoming is not None
        found = recurrence(self._optimizer, upcoming.factor)
        clip = upcoming.clip
        if found is None or displaced(self._optimizer, self._train):
            return torch.full_like(clip, torch.nan)
        # A sum over few numbers a run: on the host, where the recurrences are.
        if raised is None:
            limit = threshold(found) / clip.cpu()
        else:
            limit = threshold(replace(found, coupled=0.0)) / clip.cpu() - raised.cpu()
        rho = float(getattr(inner_of(self._optimizer), "rho", 0.0))
        if rho:
            limit = torch.from_numpy(ascended_threshold(limit.numpy(), rho, upcoming.norm.cpu().numpy()))
        return limit.to(clip.device)


def build(config: Config, network: nn.Module) -> Curvature:
    """Build the probe for a network."""
    return Curvature(config)


def _along(direction: Tensor, product: Tensor, metric: Tensor) -> Tensor:
    """Return <d, A d> / <d, M d> of every run, (S,) in float64, from d, A d and M d of shape (S, width)."""
    import torch

    d = direction.to(torch.float64)
    return (d * product.to(torch.float64)).sum(1) / (d * metric.to(torch.float64)).sum(1)
