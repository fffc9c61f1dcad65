"""The figure of Cohen et al. 2021 (arXiv 2103.00065, figure 1 and section 3): sharpness, a curve a rate."""

from __future__ import annotations

from collections.abc import Mapping

from dynalab.analysis.base import Group, Series
from dynalab.core.errors import NothingMatched
from dynalab.show.blocks import Lines, Panel

METRIC, THRESHOLD = "sharpness", "stability_threshold"


def cohen2021(groups: Mapping[str, Group]) -> Lines:
    """Return the sharpness over steps at several rates, each with the line 2 / rate that it rises to.

    Raises:
        NothingMatched: No run recorded its sharpness and the threshold.
    """
    labels = {group.id: _rate(group) for group in groups.values()}
    curves: dict[str, dict[str, Series]] = {}
    limits: dict[str, Series] = {}
    for title, group in groups.items():
        own = {run.id: run.series[METRIC] for run in group.runs if {METRIC, THRESHOLD} <= {*run.series}}
        # A rate that several settings share does not tell them apart.
        label = labels[group.id]
        label = label if label and [*labels.values()].count(label) == 1 else title
        if own:
            curves[label] = own
            limits[label] = next(run.series[THRESHOLD] for run in group.runs if run.id in own)
    if not curves:
        raise NothingMatched(
            f"no {METRIC} and {THRESHOLD} recorded, which figure cohen2021 needs: "
            "dynalab train ... 'probes=[weights,gradients,curvature]'"
        )
    only = f", {next(iter(curves))}" if len(curves) == 1 else ""
    return Lines(
        name="cohen2021",
        caption="**Sharpness at several rates, each with its threshold.** Dashed: 2 / rate, above which gradient "
        "descent is unstable.",
        alt="Sharpness over steps for several rates, each with the threshold of its rate",
        panels=[Panel(title=f"sharpness{only}", curves=curves, dashed=limits)],
    )


def _rate(group: Group) -> str:
    """Return the rate of a group's runs in words; empty where it is not known."""
    rates = {(run.config.get("optimizer") or {}).get("lr") for run in group.runs}
    rate = next(iter(rates)) if len(rates) == 1 else None
    return f"rate {rate:g}" if isinstance(rate, int | float) else ""
