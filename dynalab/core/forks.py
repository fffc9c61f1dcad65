"""What a fork goes on from, as its identity has it: `ID@STEP`, and `-aN` behind where the attempt is not the first."""

from __future__ import annotations

import re

_FORM = re.compile(r"(\w+)@([0-9]{1,15})(?:-a([0-9]{1,6}))?")


def names_parent(text: object) -> bool:
    """Return whether a value names an ensemble and a step."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def parent_and_step(text: str) -> tuple[str, int]:
    """Return the ensemble and the step that a text names, of which `names_parent` holds."""
    match = _FORM.fullmatch(text)
    assert match is not None, text
    return match[1], int(match[2])


def attempt_of(text: str) -> int:
    """Return which attempt of the ensemble's runs a text names."""
    match = _FORM.fullmatch(text)
    assert match is not None, text
    return int(match[3] or 1)
