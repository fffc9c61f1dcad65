"""A corpus as tokens, in memory or, a large one, mapped from disk."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.tasks.text import cache
from dynalab.tasks.text import corpus as text
from dynalab.tasks.text.encoding import SPLITS, Corpus, Tokens, dtype, encoded, learn_vocabulary

# Corpora above this size are tokenised on disk; 4 MB take a few seconds.
IN_MEMORY = 4_000_000


def tokens(corpus: Corpus, size: int, test_fraction: float) -> Tokens:
    """Tokenise a corpus, or find it tokenised.

    Args:
        corpus: Files and folders; None is CPython's documentation.
        size: Tokens of the vocabulary.
        test_fraction: Share of the text that is held out.

    Raises:
        ConfigError: The corpus is missing, empty or no text.
        StoreError: The cache of a large corpus cannot be written.
    """
    return _tokens(corpus, text.digest(corpus), size, test_fraction)


@lru_cache(maxsize=2)
def _tokens(corpus: Corpus, digest: str, size: int, test_fraction: float) -> Tokens:
    """Tokenise a corpus; remembered by its text, since files change under a long session."""
    if text.size(corpus) > IN_MEMORY:
        return cache.tokens(corpus, digest, size, test_fraction)
    vocabulary = learn_vocabulary(corpus, size, test_fraction)
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for split, ids in encoded(corpus, vocabulary, test_fraction):
        found[split] += ids
    train, test = (np.array(found[split], dtype=dtype(vocabulary)) for split in SPLITS)
    return Tokens(vocabulary, train, test, np.bincount(train, minlength=len(vocabulary)))


def require_length(corpus: Corpus, found: Tokens, length: int) -> None:
    """Refuse a corpus without one training and one held-out sequence.

    Raises:
        ConfigError: Names the corpus and what there is.
    """
    for split, words in (("train", "training"), ("test", "held-out")):
        count = len(found.part(split))
        if count < length:
            raise ConfigError(
                f"task.corpus={text.shown(corpus)}: {count} tokens of {words} text, but task.length={length}; "
                "give more text, or a smaller task.length"
            )
