"""The figure of Thilak et al. 2022 (arXiv 2206.04817, figure 1): loss, last layer's norm, accuracies of a run."""

from __future__ import annotations

from collections.abc import Mapping

from dynalab.analysis.base import Group, Run, runs_of
from dynalab.core.errors import NothingMatched
from dynalab.show.blocks import Lines, Panel, run_label

NEEDED = ("train_loss", "last_layer_norm", "train_accuracy", "test_accuracy")


def thilak2022(groups: Mapping[str, Group]) -> Lines:
    """Return training loss, norm of the last layer, and accuracies of the first run, under each other.

    Raises:
        NothingMatched: No run recorded these.
    """
    run = next((run for run in runs_of([*groups.values()]) if {*NEEDED} <= {*run.series}), None)
    if run is None:
        raise NothingMatched(
            f"no run recorded {', '.join(NEEDED)}, which figure thilak2022 needs: "
            "dynalab train ... 'probes=[weights,gradients]'"
        )
    return Lines(
        name="thilak2022",
        caption=f"**Loss, norm of the last layer and accuracies of run {run_label(run.id)}.** A slingshot: the norm "
        "grows, the loss leaps, the norm stands still.",
        alt="Training loss, norm of the last layer, and accuracies of one run over the same steps",
        panels=[
            _panel(run, "training loss", True, train="train_loss"),
            _panel(run, "norm of the last layer", False, norm="last_layer_norm"),
            _panel(run, "accuracy", False, train="train_accuracy", test="test_accuracy"),
        ],
        diverged={} if run.diverged_step is None else {run.id: run.diverged_step},
    )


def _panel(run: Run, title: str, logarithmic: bool, **metrics: str) -> Panel:
    curves = {label: {run.id: run.series[metric]} for label, metric in metrics.items()}
    return Panel(title=title, curves=curves, logarithmic=logarithmic)
