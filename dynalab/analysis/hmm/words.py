"""A result in a few lines, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.core.stats import quantile

# States of a path that are written out.
LONGEST = 14
EMISSIONS = {"ar": "states of dynamics (autoregressive)", "level": "states of level (Gaussian)"}


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader wants to know first.

    Args:
        result: The plain values of an analysis.
    """
    if result.get("decoded_with"):
        return _decoded(result)
    tried = max(row["n_states"] for row in result["selection"])
    n_runs = len(result["states"])
    emission = EMISSIONS[result["emission"]]
    how = f" of 1 to {tried}"
    if len(result["selection"]) == 1:
        how = ", the only one tried" if tried == 1 else ", as given"
    chosen = f"K = {result['n_states']}{how}"
    lines = [f"{n_runs} runs, {len(result['metrics'])} metrics, {emission}: {chosen}"]
    for profile in result["state_profiles"]:
        entries = sorted(_entries(result, profile["state"]))
        if entries:
            where = f"entered at step {_middle(entries)} (median; {entries[0]} to {entries[-1]})"
            lines.append(f"  state {profile['state']}: {profile['runs']} of {n_runs} runs, {where}")
    for path in result["paths"][:5]:
        names = _way(path["states"])
        when = (
            "" if path["median_step"] is None else f", converged at step {path['median_step']:.0f} (median)"
        )
        lines.append(f"  path {names}: {path['runs']} of {n_runs} runs{when}")
    if len(result["paths"]) > 5:
        lines.append(f"  and {len(result['paths']) - 5} more paths")
    known = (result.get("claims") or {}).get("forks") or ()
    lines += [f"  fork: {_fork(one)}" for one in known if one["fork"]]
    apart = (result.get("dissimilarity") or {}).get("total_variation")
    if apart and apart["value"] is not None and result["n_states"] > 1:
        lines.append(f"  dissimilarity of the runs: {_apart(apart)} (0: alike, 1: no state in common)")
    lines += [f"  detour: {_detour(row, n_runs)}" for row in result.get("detours") or () if row["verdict"]]
    rule = result.get("convergence_rule")
    if rule:
        rows = result["convergence"]
        steps = sorted(row["step"] for row in rows if not row["censored"])
        sign = ">=" if rule["direction"] == "up" else "<="
        held = f", held for {rule['persistence']} rows" if rule["persistence"] > 1 else ""
        found = (
            f"; steps {steps[0]} to {steps[-1]}, median {_middle([row['step'] for row in rows])}"
            if steps
            else ""
        )
        lost = sum(not row["censored"] and row.get("held") is False for row in rows)
        found += f"; {lost} of them no longer at the end" if lost else ""
        what = f"{rule['metric']} {sign} {rule['threshold']:g}{held}"
        lines.append(f"  {what}: {len(steps)} of {n_runs} runs{found}")
    return [*lines, *_beside(result), *_settings(result)]


def _way(states: Sequence[int]) -> str:
    """A path, cut where it is long."""
    if len(states) <= LONGEST:
        return " > ".join(map(str, states))
    return f"{' > '.join(map(str, states[: LONGEST - 2]))} > ... ({len(states) - 1} changes)"


def _fork(fork: Mapping[str, Any]) -> str:
    """Where the runs that leave a state go first."""
    ways = ", ".join(
        f"to {way['to']} ({way['runs']} run{'s' if way['runs'] > 1 else ''})" for way in fork["directions"]
    )
    return f"state {fork['state']} is left {ways}"


def _detour(row: Mapping[str, Any], n_runs: int) -> str:
    """What a state costs the runs that pass through it."""
    low, high = ("open" if bound is None else f"{bound:+.0f}" for bound in row["interval"] or (None, None))
    cost = (
        "no estimate"
        if row["effect_steps"] is None
        else f"{row['effect_steps']:+.0f} steps [{low} to {high}]"
    )
    return f"state {row['state']}, {row['visits']} of {n_runs} runs, {cost}, adjusted p = {row['p_adjusted']:.2g}"


def _apart(found: Mapping[str, Any]) -> str:
    """Mean total variation between runs, with its interval."""
    bounds = found["interval"]
    return f"{found['value']:.3f}" + ("" if bounds is None else f" [{bounds[0]:.3f} to {bounds[1]:.3f}]")


def _beside(result: Mapping[str, Any]) -> list[str]:
    """How well the model explains unseen runs, what others would have, and whether its states are stable."""
    lines = []
    row = next(row for row in result["selection"] if row["n_states"] == result["n_states"])
    if row["heldout_ll_per_frame"] is not None:
        error = "" if row["se"] is None else f" (standard error {_nats(row['se'])})"
        lines.append(f"  held-out runs: {_nats(row['heldout_ll_per_frame'])} nats a frame{error}")
    if (result.get("settings") or {}).get("n_states") is None:
        lines += [f"  {line}" for line in why(result["selection"], result["n_states"])]
    for base in result.get("baselines") or ():
        cap = ", the cap" if base["at_cap"] else ""
        value = (
            f"{_nats(base['heldout_ll_per_frame'])} nats a frame" if base["comparable"] else "other density"
        )
        lines.append(f"    {base['name']}: {value}, K = {base['n_states']}{cap}")
    # Any two fits of a single state agree.
    for one in (result.get("stability") or ()) if result["n_states"] > 1 else ():
        lines.append(
            f"  the states of other fits, over {one['over']}: adjusted Rand {one['adjusted_rand']:.2f} "
            f"({one['low']:.2f} to {one['high']:.2f}, {one['fits']} fits; 1: the same, 0: as by chance)"
        )
    return lines


def _nats(value: float) -> str:
    """Two decimals; of what is out of all proportion, three digits."""
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.3g}"


def why(rows: Sequence[Mapping[str, Any]], chosen: int) -> list[str]:
    """Return how the rule came to choose K, in a line: what it passed over; nothing where unseen runs chose nothing.

    The rule: the smallest K within one standard error of the best mean over unseen runs, the error being that of the
    difference over runs.

    Args:
        rows: One a K that was tried, `selection` of a result.
        chosen: The chosen K.
    """
    held = [row for row in rows if row.get("behind_best") is not None]
    if len(held) < 2:
        return []
    best = next(row["n_states"] for row in held if not row["behind_best"])
    row = next(row for row in held if row["n_states"] == chosen)
    if best != chosen:
        return [
            f"K = {chosen}: on unseen runs {_behind(row)} nats a frame behind K = {best}, no more than one standard "
            "error of this difference; no smaller K is as near"
        ]
    smaller = [row for row in held if row["n_states"] < chosen]
    if not smaller:
        return [f"K = {chosen}: no larger K has a higher mean over unseen runs"]
    near = min(smaller, key=lambda row: row["behind_best"])
    return [
        f"K = {chosen}: the highest mean over unseen runs, and every smaller K is more than one standard error of the "
        f"difference behind, K = {near['n_states']} by {_behind(near)} nats a frame"
    ]


def _behind(row: Mapping[str, Any]) -> str:
    """What a K lacks to the best on unseen runs, with the standard error of the difference."""
    return f"{row['behind_best']:.2g} (error {row['behind_se']:.2g})"


def _settings(result: Mapping[str, Any]) -> list[str]:
    """Every setting that made the result, defaults included."""
    settings = result.get("settings") or {}
    items = []
    for key in ("ridge", "common"):
        if settings.get(key) is None and result.get(key) is not None:
            # A single run leaves nothing unseen that could choose.
            how = "chosen by unseen runs" if len(result["states"]) > 1 else "nothing could be held out"
            items.append(f"{key}={result[key]:g} ({how})")
    for key, value in settings.items():
        if key == "preset_values":
            items += [f"{name}={_number(number)}" for name, number in value.items()]
        elif key not in ("convergence",) and value is not None:
            items.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    return textwrap.wrap(
        " ".join(items), 110, initial_indent="  settings: ", subsequent_indent="    ", break_long_words=False
    )


def _number(value: float | str | Sequence[float | str]) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, int | float) else ",".join(_number(one) for one in value)


def _entries(result: Mapping[str, Any], state: int) -> list[int]:
    """Return the step at which each run that visits a state first does."""
    found = []
    for run in result["states"]:
        if state in run["states"]:
            found.append(run["steps"][run["states"].index(state)])
    return found


def _middle(steps: Sequence[float | None]) -> str:
    """Median of steps, in words."""
    found = quantile(steps, 0.5)
    return "not reached" if found is None else f"{found:.0f}"


def _decoded(result: Mapping[str, Any]) -> list[str]:
    """Runs under a stored model: where each is now, and how well the model foresees it."""
    runs = result["states"]
    lines = [f"{len(runs)} runs under the {result['n_states']} states of hmm-{result['decoded_with']}"]
    for run in runs[:20]:
        state = run["states"][-1]
        sure = f"p = {run['posterior'][-1][state]:.2f}"
        since = next(i for i in range(len(run["states"]), 0, -1) if i == 1 or run["states"][i - 2] != state)
        lines.append(
            f"  {run['run']}: state {state} ({sure}) since step {run['steps'][since - 1]}, at step {run['steps'][-1]}; "
            f"{_nats(run['ll_per_frame'])} nats a frame{'' if run['held_out'] else ' (took part in the fit)'}"
        )
    if len(runs) > 20:
        lines.append(f"  and {len(runs) - 20} more runs")
    if result["heldout_ll_per_frame"] is not None:
        own = result["model_heldout_ll_per_frame"]
        beside = "" if own is None else f"; the model's own held-out runs had {own:.2f}"
        lines.append(f"  held out: {result['heldout_ll_per_frame']:.2f} nats a frame{beside}")
    return lines
