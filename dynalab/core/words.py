"""Numbers and counts in words, and the medians that the page shows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from dynalab.core import stats

# Controls but for line feed and tab, marks of direction, letters without width, halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

# What stands under curves of several runs.
LINES = "Line: median over runs; band: quartiles; thin lines: single runs."


def number(value: float | int | None) -> str:
    """Return a number as a reader wants it: 1,260 or 0.0123 or 2.1e-06; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\u2013"
    if math.isinf(value):
        return "never" if value > 0 else "-inf"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.4g}"


def rounded(value: float | None) -> float | None:
    """Return a number with three digits that count."""
    return None if value is None else float(f"{value:.3g}")


def count(n: int, word: str, plural: str = "") -> str:
    """Return `1 run`, `20 runs`."""
    return f"{n:,} {word if n == 1 else plural or word + 's'}"


def which_runs(ids: Sequence[str], total: int) -> str:
    """Return which of some runs: a single one by its id, several by their number, `5 of 5 runs`."""
    return ids[0] if len(ids) == 1 else f"{len(ids):,} of {count(total, 'run')}"


def signed(value: float) -> str:
    """Return a difference in whole steps, with its sign unless it is 0."""
    return f"{value:+,.0f}" if round(value) else "0"


def steps_words(steps: Sequence[int]) -> str:
    """Return some steps, `step 10`, `steps 0, 10 and 20`, `steps 0, 10, 20 and 5 more`."""
    return f"step{'s' * (len(steps) != 1)} {listed([f'{step:,}' for step in steps], 4)}"


def listed(words: Sequence[str], most: int = 8, last: str = "and") -> str:
    """Return words in one line, `a, b and c`, cut at `most`; `last` stands before the last."""
    if len(words) > most:
        return f"{', '.join(words[:most])} {last} {len(words) - most:,} more"
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "none"


def spoken(word: str | None) -> str | None:
    """Return a word of the JSON as it is read, `single event`."""
    return word and word.replace("_", " ")


def metric_words(name: str) -> str:
    """Return a recorded column as it is read: `test accuracy`, `trace / lambda max`."""
    return name.replace("_over_", " / ").replace("_", " ")


def share(part: float, whole: float) -> str:
    """Return a share in per cent."""
    if not whole:
        return "\u2013"
    cent = 100 * part / whole
    return f"{cent:.0f}%" if cent >= 10 or cent == 0 else f"{cent:.1f}%" if cent >= 0.1 else "<0.1%"


def quartiles(steps: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Return what `stats.quartiles` does with infinity for one that is not known; None where there are no steps."""
    some = list(steps)
    low, middle, high = (math.inf if step is None else step for step in stats.quartiles(some))
    return (low, middle, high) if some else None


def step_phrase(steps: Sequence[float | None]) -> str:
    """Return `at median step 1,260 [quartiles 1,240 to 1,293], 20 of 20 runs`, as far as enough runs got there."""
    reached = [step for step in steps if step is not None]
    if not reached:
        return f"in none of {count(len(steps), 'run')}"
    low, middle, high = quartiles(steps) or (math.inf,) * 3
    if len(steps) == 1:
        return f"at step **{number(middle)}**"
    n = f"{len(reached):,} of {count(len(steps), 'run')}"
    if math.isinf(middle):
        return f"in **{n}**, the first at step {number(min(reached))}"
    return f"at median step **{number(middle)}** [quartiles {number(low)} to {number(high)}], {n}"


def p_value(p: float | None) -> str:
    """Return a p-value: two digits, and no more than permutations can tell."""
    if p is None:
        return "\u2013"
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def p_equals(p: float | None) -> str:
    """Return `= 0.02`, or `< 0.001`."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def plain(text: str) -> str:
    """Return text without the marks of bold words."""
    return text.replace("**", "")


def clean(text: object) -> str:
    """Return a text as a terminal may be given it: what moves its cursor, or turns or hides letters, is spelled out.

    Names and messages may come from files that somebody else wrote.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def states(statuses: Iterable[str]) -> str:
    """Return how many runs there are and what became of them: `20 runs: 18 done, 2 diverged`."""
    counts = Counter(statuses)
    names = ", ".join(f"{n:,} {status}" for status, n in counts.most_common())
    return count(counts.total(), "run") + (f": {names}" if names else "")


def run_words(run: str) -> str:
    """Return a run by its id at the head of a sentence: `Seed 7`, or `Run init3-order1`."""
    label = run.rpartition("/")[2]
    return f"Seed {int(label[1:])}" if re.fullmatch(r"s\d+", label) else f"Run {label}"


def safe(text: str) -> str:
    """Return text as a part of a file name or an id."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "x"
