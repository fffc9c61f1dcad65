"""Did you mean: the nearest legal words to one that was mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, legal: Iterable[str]) -> str:
    """Return ` (did you mean X?)` of what was typed and what is legal, or an empty string where nothing is near."""
    near = nearest(given, legal)
    return f" (did you mean {near}?)" if near else ""


def nearest(given: str, legal: Iterable[str]) -> str | None:
    """Return the legal word that was probably meant by another, None where none is near."""
    candidates = sorted(set(legal))
    near = difflib.get_close_matches(given, candidates, n=1, cutoff=0.6)
    head, dot, field = given.rpartition(".")
    if near and dot and near[0].startswith(head + dot):
        # In the right section only the field's own letters tell.
        fields = [key.removeprefix(head + dot) for key in candidates if key.startswith(head + dot)]
        near = [head + dot + match for match in difflib.get_close_matches(field, fields, n=1, cutoff=0.5)]
    if not near and "." not in given:
        # A bare field name (`lr`) is meant as the dotted key that ends in it.
        near = [key for key in candidates if key.rpartition(".")[2] == given][:1]
    if not near:
        tail = given.rpartition(".")[2]
        tails = {key.rpartition(".")[2]: key for key in candidates}
        near = [tails[match] for match in difflib.get_close_matches(tail, list(tails), n=1, cutoff=0.75)]
    if not near and len(given) >= 3:
        near = [key for key in candidates if key.startswith(given)][:1]
    return near[0] if near else None


def listing(legal: Iterable[str], limit: int = 20) -> str:
    """Return the legal words in one line, cut at `limit`."""
    words = sorted(set(legal))
    rest = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {rest} more" if rest > 0 else "")
