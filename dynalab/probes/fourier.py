"""`probes=[fourier]`: which frequencies a network that adds on a circle is made of, and how well it does by them alone.

The progress measures of Nanda et al. 2023 (arXiv 2301.05217) and Gromov's participation ratio (arXiv 2301.02679), for
`task=grokking` with `add` or `subtract`, and with `multiply` or `divide`, where 0 has no place on the circle. n is the
number of symbols that have one; their outputs are evaluated on all n^2 pairs, trained on or not. A further output, of a
token `=`, is left out, and so is what is no class.

Key frequencies are those along which the outputs have more than `share` of their variance: the row's own, so that a
row says what is there, and early rows have none. Those of a run's last row, taken for all rows as the paper does, are
what `dynalab analyze progress frequencies=last` looks at.

A row is a pass over all pairs and the training examples that are evaluated; the default cadence counts it. Where a
table is that of a layer of neurons, its columns are neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.config.keys import key
from dynalab.core.blocks import Block
from dynalab.core.columns import Column, Columns
from dynalab.core.errors import ConfigError
from dynalab.curvature.cost import every_of, examples_of
from dynalab.probes.base import Cadence, Setting, every_by_cost
from dynalab.tasks.operations import CYCLIC, Cyclic, cyclic

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import ProbeState
    from dynalab.models.base import Tables


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe; without `every` its cadence is chosen by counted cost."""

    name: str = "fourier"
    every: int | None = every_by_cost()
    share: float = key(
        0.05, "share of the outputs' variance above which a frequency is key", above=0, below=1
    )


COLUMNS: Columns = {
    "fourier_restricted_loss": Column(
        "the task's loss on all pairs of the outputs' mean over pairs and their parts at the key frequencies of a + b",
        "loss",
    ),
    "fourier_excluded_loss": Column(
        "the task's loss on the training examples that are evaluated of the outputs without these parts",
        "loss",
    ),
    "fourier_key_frequencies": Column("number of key frequencies", "1"),
    "fourier_variance_explained": Column(
        "share of the outputs' variance along cos(w_k (a + b - c)), over the key frequencies k", "1"
    ),
    "fourier_gini_embedding": Column(
        "Gini coefficient of the norms of the Fourier components of the embedding; absent, as the next three, where "
        "the network has no hint `tables`",
        "1",
    ),
    "fourier_gini_unembedding": Column(
        "the same of the map from the last hidden neurons to the outputs, W_U W_out in a transformer", "1"
    ),
    "fourier_participation_embedding": Column(
        "mean over neurons, and over both places, of sum_k q_k^2, q_k being the share of frequency k in the power of a "
        "neuron's weights: 1 for one wave; absent where the embedding's columns are no neurons",
        "1",
    ),
    "fourier_participation_unembedding": Column("the same of the weights that lead to the outputs", "1"),
    "fourier_power": Column(
        "block, n // 2 numbers a run: share of the outputs' variance along cos(w_k (a + b - c)), from k = 1 on",
        "1",
    ),
}


def places_of(task: Any) -> Cyclic:
    """Return a task's operation, given its configuration, as addition on a circle; refuse any other."""
    operation, modulus = getattr(task, "operation", None), getattr(task, "modulus", None)
    given = f"task={getattr(task, 'name', 'its own')}" + (f" task.operation={operation}" if operation else "")
    advice = "leave it out with probes=[weights,gradients]"
    if operation not in CYCLIC or not isinstance(modulus, int):
        legal = ", ".join(CYCLIC)
        raise ConfigError(
            f"probes: the probe fourier needs task=grokking with task.operation one of {legal}, not {given}; {advice}"
        )
    found = cyclic(operation, modulus)
    if len(found.results) < 3:
        raise ConfigError(
            f"probes: the probe fourier needs a circle of 3 places at least, and {given} task.modulus={modulus} has "
            f"{len(found.results)}; {advice}"
        )
    return found


def check_ensemble(ensemble: EnsembleConfig) -> None:
    """Refuse a task that is no addition on a circle."""
    places_of(ensemble.task)


def default_every(config: Config, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows at which they cost about a twentieth of training."""
    places = places_of(ensemble.task)
    _, batch = examples_of(None, ensemble)
    evaluated = ensemble.task.train_size()
    for most in (ensemble.eval.size, ensemble.most_evaluated):
        evaluated = min(evaluated, most or evaluated)
    return every_of(len(places.results) ** 2 + evaluated, batch, ensemble)


class Fourier:
    """The probe; implements `dynalab.probes.base.Probe`. It remembers nothing from row to row."""

    needs: frozenset[str] = frozenset()

    def __init__(self, config: Config, tables: Callable[[Mapping[str, Tensor]], Tables] | None) -> None:
        self._share, self._tables = config.share, tables
        self.blocks: dict[str, Block] = {}

    def begin(self, setting: Setting) -> None:
        """Take what is measured on; refuse a task that is no addition on a circle."""
        from dynalab.probes.circle import Circle

        self._setting, self._places = setting, places_of(getattr(setting.task, "config", None))
        self._circle = Circle.of(self._places, next(iter(setting.params.values())).device)
        self.blocks = {"fourier_power": Block("float32", (len(self._places.results) // 2,))}

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64, and the block (S, n // 2)."""
        import numpy as np
        import torch

        params = {name: tensor.detach() for name, tensor in state.params.items()}
        first = next(iter(params.values()))
        circle, loss = self._circle, self._setting.task.loss

        def forward(inputs: Tensor) -> Tensor:
            return self._setting.forward(inputs, params)

        # A run that diverged has NaN everywhere.
        with torch.no_grad(), np.errstate(all="ignore"):
            outputs = circle.outputs(forward, len(first))
            power = np.stack([one.power() for one in outputs])
            keys = power > self._share
            parts = [one.part(own) for one, own in zip(outputs, keys, strict=True)]
            lost = np.where(np.isnan(power).any(1), np.nan, 0.0)
            columns = {
                "fourier_restricted_loss": circle.restricted(loss, outputs, parts),
                "fourier_excluded_loss": circle.excluded(
                    loss, forward, parts, self._setting.data.eval_batches("train")
                ),
                "fourier_key_frequencies": keys.sum(1) + lost,
                "fourier_variance_explained": (power * keys).sum(1) + lost,
                **self._of_tables(params),
            }
        values = {**columns, "fourier_power": power.astype(np.float32)}
        return {name: torch.as_tensor(value, device=first.device) for name, value in values.items()}

    def _of_tables(self, params: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Return the columns of the weights, each (S,)."""
        import numpy as np
        import torch

        from dynalab.probes.frequencies import component_norms, gini, participation

        if self._tables is None:
            return {}
        rows = []
        for run in range(len(next(iter(params.values())))):
            tables = self._tables({name: tensor[run].to(torch.float64) for name, tensor in params.items()})
            # Both places' tables in the order of the first one's: to go round backwards changes no size.
            symbols = tables.symbols.cpu().numpy()[self._places.left]
            classes = tables.classes.cpu().numpy()[self._places.results]
            row = {
                "fourier_gini_embedding": gini(component_norms(symbols)),
                "fourier_gini_unembedding": gini(component_norms(classes)),
            }
            if tables.neurons:
                row["fourier_participation_embedding"] = participation(symbols)
            row["fourier_participation_unembedding"] = participation(classes)
            rows.append(row)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def build(config: Config, network: nn.Module) -> Fourier:
    """Build the probe for a network."""
    return Fourier(config, getattr(network, "tables", None))
