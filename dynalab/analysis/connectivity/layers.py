"""How alike what the layers of networks give is, between networks and, in one pair, between all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.connectivity.findings import Layer, Pair, over
from dynalab.analysis.connectivity.measure import Networks
from dynalab.analysis.connectivity.similarity import alike


def layers_of(networks: Networks, pairs: Sequence[Pair], most: int) -> tuple[tuple[Layer, ...], Any]:
    """Return the CKA of every layer over pairs, and a table of all layers of the first pair.

    Args:
        networks: The networks.
        pairs: Of `networks.pairs`, in their order.
        most: Examples; 0: nothing is compared.

    Returns:
        The layers in the order of the pass; none, and no table, where no product with a weight is seen.
    """
    import pandas as pd

    if not most:
        return (), None
    first, second = networks.layers(most)
    names = [*first[0]]
    if not names:
        return (), None
    found = []
    for name in names:
        both = {
            (pair.one, pair.other): [_known(x) for x in alike(first[one][name], second[other][name])]
            for pair, (one, other) in zip(pairs, networks.pairs, strict=True)
        }
        unbiased, published = (
            over(pairs, lambda pair, at=at, both=both: both[pair.one, pair.other][at], likeness=True)  # type: ignore[misc]
            for at in (0, 1)
        )
        found.append(Layer(name, unbiased, published))
    one, other = networks.pairs[0]
    rows = [
        (pairs[0].one, pairs[0].other, mine, theirs, *alike(first[one][mine], second[other][theirs]))
        for mine in names
        for theirs in names
    ]
    columns = ["one", "other", "layer", "other_layer", "cka", "cka_published"]
    return tuple(found), pd.DataFrame(rows, columns=columns)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
