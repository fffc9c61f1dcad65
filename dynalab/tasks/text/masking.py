"""Masks of masked language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

Of every sequence 15% of the places are chosen to be predicted, a fixed number, so that shapes are fixed and the output
head runs over these places alone. A chosen token is replaced by [MASK] with probability 0.8, by a random token
with 0.1 (any but [MASK], the true one included, as in the published code), and kept with 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class Masks:
    """What is done to sequences, whatever stands in them.

    Attributes:
        places: Places to predict, in order, shape (..., M).
        tokens: What to put there: a token, or -1 to keep what stands there, shape (..., M).
    """

    places: np.ndarray
    tokens: np.ndarray


def masked_places(length: int, fraction: float) -> int:
    """Return how many places of a sequence are predicted, M."""
    return max(1, round(fraction * length))


def draw(generator: np.random.Generator, shape: tuple[int, ...], length: int, count: int, mask: int) -> Masks:
    """Draw masks of `count` places M in sequences of a length, an array of some shape of them.

    The token `mask` is [MASK]; the others are those below it.
    """
    # The M smallest of uniform numbers stand at M uniform places.
    keys = generator.random((*shape, length), dtype=np.float32)
    places = np.sort(np.argpartition(keys, count - 1, axis=-1)[..., :count], axis=-1)
    choice = generator.random((*shape, count))
    others = generator.integers(mask, size=(*shape, count))
    tokens = np.where(choice < MASKED, mask, np.where(choice < MASKED + RANDOM, others, -1))
    return Masks(places, tokens)


def apply(sequences: np.ndarray, masks: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Mask sequences of tokens (..., L).

    Returns inputs (..., L + M), the masked sequence and then the places to predict, and targets (..., M), the tokens
    that stood there. Both int64.
    """
    sequences = sequences.astype(np.int64)
    targets = np.take_along_axis(sequences, masks.places, axis=-1)
    np.put_along_axis(sequences, masks.places, np.where(masks.tokens < 0, targets, masks.tokens), axis=-1)
    return np.concatenate([sequences, masks.places], axis=-1), targets
