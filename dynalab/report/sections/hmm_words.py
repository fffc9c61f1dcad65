"""What a state is, in words: how its metrics move, or where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A metric is named where it moves at least this much of what the fastest metric of any state does.
FAST = 0.1
# A level is named from here on, in standard deviations.
FAR = 0.5
MOST = 2


def state_words(data: Mapping[str, Any]) -> list[str]:
    """Return a few words for every state, K texts.

    States of dynamics are told by what moves fastest in them, states of level by what lies farthest from its mean.

    Args:
        data: The plain values of an analysis `hmm`.
    """
    profiles = {item["state"]: item for item in data.get("state_profiles") or ()}
    level = data.get("emission") == "level"
    key = "level" if level else "drift"
    known = [abs(v) for item in profiles.values() for v in (item.get(key) or {}).values()]
    least = FAR if level else FAST * max(known, default=0.0)
    up, down = ("high", "low") if level else ("rises", "falls")
    found = []
    for k in range(data["n_states"]):
        values = (profiles.get(k) or {}).get(key)
        if not values:
            found.append("")
            continue
        first = sorted(values.items(), key=lambda item: -abs(item[1]))[:MOST]
        said = [f"{name} {up if value > 0 else down}" for name, value in first if abs(value) >= least]
        name, value = first[0]
        slow = "nothing moves" if value == 0 else f"{name} {up if value > 0 else down} slowly"
        found.append(", ".join(said) or ("all near their mean" if level else slow))
    return found
