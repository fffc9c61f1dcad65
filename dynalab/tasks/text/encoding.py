"""How a corpus becomes tokens: split into training and held-out text, the vocabulary learnt, passages encoded.

The split is the same for all seeds: the text is laid out in blocks of a hundredth of the corpus, at most 4,000
characters, and every so-many-th block (every tenth for `test_fraction: 0.1`, beginning with the tenth) is held out
whole. Both parts then come from all over the corpus, and since repeated passages were dropped, held-out text is
unseen. Vocabulary and unigram distribution know the training text only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dynalab.tasks.text import corpus as text
from dynalab.tasks.text.vocabulary import Vocabulary, coverage, learn

Corpus = tuple[str, ...] | None
SPLITS = ("train", "test")
BLOCK = 4000
# Characters of training text that a vocabulary is learnt from, and of held-out text that it is tried on.
_LEARNT_FROM, _TRIED_ON = 4_000_000, 100_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """A tokenised corpus, the same for every seed.

    Attributes:
        vocabulary: Its tokens.
        train: Training text, shape (N,), uint16 where the vocabulary allows, else int32; maybe mapped from disk.
        test: Held-out text, likewise.
        counts: How often each token occurs in the training text, shape (vocabulary,).
    """

    vocabulary: Vocabulary
    train: np.ndarray
    test: np.ndarray
    counts: np.ndarray

    def part(self, split: str) -> np.ndarray:
        """Return the tokens of `train` or `test`."""
        return {"train": self.train, "test": self.test}[split]


def split_passages(corpus: Corpus, test_fraction: float) -> Iterator[tuple[str, str]]:
    """Yield (split, passage) in the order of the corpus."""
    block = min(BLOCK, max(1, text.size(corpus) // 100))
    period = round(1 / test_fraction)
    place = 0
    for passage in text.passages(corpus):
        yield SPLITS[place // block % period == period - 1], passage
        place += len(passage) + 1


def learn_vocabulary(corpus: Corpus, size: int, test_fraction: float) -> Vocabulary:
    """Learn the vocabulary from the beginning of the training text; log how well it fits held-out text."""

    def beginning(split: str, limit: int) -> Iterator[str]:
        for own, passage in split_passages(corpus, test_fraction):
            if own == split:
                yield passage
                limit -= len(passage)
                if limit <= 0:
                    return

    vocabulary = learn(beginning("train", _LEARNT_FROM), size)
    fit = coverage(vocabulary, beginning("test", _TRIED_ON))
    _log.info(
        "vocabulary of %d tokens; on held-out text %.2f bytes a token, %.0f%% of the words are one token",
        len(vocabulary),
        fit["bytes_per_token"],
        100 * fit["whole_words"],
    )
    return vocabulary


def encoded(corpus: Corpus, vocabulary: Vocabulary, test_fraction: float) -> Iterator[tuple[str, list[int]]]:
    """Yield (split, tokens) a passage; a line break ends each."""
    for split, passage in split_passages(corpus, test_fraction):
        yield split, vocabulary.encode(f"{passage}\n")


def dtype(vocabulary: Vocabulary) -> type[np.generic]:
    """Return the smallest type that holds the tokens."""
    return np.uint16 if len(vocabulary) <= 1 << 16 else np.int32
