"""Steps and values of settings, effects of keys and odd runs, by `analyze compare`."""

from __future__ import annotations

from functools import partial

from nulls.compare import CENSORED, LAWS, VALUES
from nulls.compare import KINDS as STEPS

from bars.calibration.base import MOST, NULLS, Errors, Null, Subject, any_called, misses, printed


def steps_of(kind: str, n: int, m: int, seed: int) -> Errors:
    """When the runs of two settings of one law reach a landmark."""
    from nulls.compare import MEDIAN, steps

    from dynalab.analysis.compare.medians import median_interval
    from dynalab.analysis.compare.pairs import between_times

    one, other = steps(kind, n, m, seed)
    gap = between_times(one, other)
    middle = 1200.0 if kind.startswith("ties") else MEDIAN
    single = median_interval(*one.until(float(one.last.max())))
    return {
        "settings, steps: p": [gap.p < 0.05],
        "settings, steps: log-rank p": [(gap.log_rank_p or 0.0) < 0.05],
        "settings, steps: interval of the difference": [misses(gap.interval, 0.0)],
        "settings, steps: interval of the ratio": [misses(gap.ratio_interval, 1.0)],
        "a setting's median: interval": [misses(single, middle)],
    }


def values_of(kind: str, n: int, m: int, seed: int) -> Errors:
    """Last values of two settings of one mean."""
    from nulls.compare import values

    from dynalab.analysis.compare.pairs import between_values
    from dynalab.core.means import mean_interval

    one, other = values(kind, n, m, seed)
    gap = between_values(one, other, sign=1)
    # With lost runs it is of ranks, and where both ends are open it says so and does not err, as of steps.
    between = [misses(gap.interval, 0.0)] if one.lost or other.lost else printed(gap.interval, 0.0)
    ratio = {"settings, means: interval of the ratio": printed(gap.ratio_interval, 1.0)}
    return {
        "settings, means: p": [gap.p < 0.05],
        "settings, means: interval of the difference": between,
        "a setting's mean: interval": printed(mean_interval(one.values), 5.0),
        # Zou and Donner's is of means that are far from 0.
        **(ratio if "end" in kind else {}),
    }


def odd(law: str, kind: str, n: int, seed: int) -> Errors:
    """The runs of a setting, of one law: whether any is called odd, with the other runs (Holm)."""
    from nulls.compare import alike

    from dynalab.analysis.compare.odd import odd_runs

    return {"compare, odd runs: adjusted p, any run": [any_called(odd_runs(*alike(law, kind, n, seed)))]}


def effects_of(kind: str, shape: tuple[int, int], n: int, seed: int) -> Errors:
    """Two keys that do nothing, neither alone nor together."""
    from nulls.compare import grid

    from dynalab.analysis.compare.effects import effects

    found = effects("it", *grid(kind, shape, n, seed))
    still = 1.0 if kind.startswith("steps") else 0.0
    return {
        "effects of two keys: p of a key": [effect.p < 0.05 for effect in found if len(effect.keys) == 1],
        "effects of two keys: p of the interaction": [
            effect.p < 0.05 for effect in found if len(effect.keys) == 2
        ],
        "effects of two keys: adjusted p, any": [any(effect.p_adjusted < 0.05 for effect in found)],
        "effects of two keys: interval": [
            misses(effect.interval, still) for effect in found if effect.estimate is not None
        ],
    }


def compared(last: int, seed: int) -> Errors:
    """`analyze compare` of four settings of one law: whether any pair is called different, by any name."""
    from nulls.compare import groups

    from dynalab.analysis import compare

    found = compare.analyse(groups(seed, last=last), compare.Config())
    called: dict[str, list[bool]] = {}
    for pair in found.pairs:
        called.setdefault(pair.of, []).append(pair.verdict == "differ")
    errors = {f"compare, {name}: any pair differs": [any(pairs)] for name, pairs in called.items()}
    by_setting = [
        any_called([row for row in found.odd if row.ensemble == setting.ensemble])
        for setting in found.settings
    ]
    return errors | {"compare, odd runs: adjusted p, any run": by_setting}


def _statistics() -> list[Null]:
    found = []
    for n, m in ((3, 3), (5, 5), (8, 8), (20, 20), (5, 20)):
        for kind in STEPS:
            if n > 3 and not (kind.startswith("seeds") and (n != m or n < 6)):
                found.append(Null(f"{n} and {m} runs, steps: {kind}", partial(steps_of, kind, n, m)))
        for kind in VALUES:
            if not (kind.startswith("seeds") and (n != m or n < 6)):
                # Of so few skewed values no interval of a mean holds its level: 92% are asked of it.
                few = 0.08 if min(n, m) <= 5 else MOST
                said = f"{n} and {m} runs, values: {kind}"
                found.append(Null(said, partial(values_of, kind, n, m), most=few))
    for n in (5, 8, 20, 40):
        for law in LAWS:
            for kind in CENSORED if law in ("lognormal", "t(4)") else ("all reach",):
                found.append(Null(f"odd runs, {n} runs, {law}: {kind}", partial(odd, law, kind, n)))
    kinds = ("values", "values, shared seeds", "values, another number each", "steps, shared seeds")
    for n in (5, 8, 20):
        for shape in ((2, 2), (3, 2)):
            for kind in kinds:
                said = f"{shape[0]} x {shape[1]} settings of {n} runs, {kind}"
                found.append(Null(said, partial(effects_of, kind, shape, n)))
    return found


SUBJECT = Subject(
    "compare",
    _statistics(),
    ("dynalab/analysis/compare", "tests/nulls/compare.py"),
    [
        Null("analyze compare: four settings of 8 runs, all reach", partial(compared, 4000), NULLS),
        Null("analyze compare: four settings of 8 runs, a tenth never", partial(compared, 1500), NULLS),
    ],
)
