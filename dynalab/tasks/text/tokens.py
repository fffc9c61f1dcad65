"""A corpus as tokens: in memory or, a large one, tokenised once into files that are mapped into memory.

The files stand below `dynalab.config.places.cache_folder()`, a folder for every corpus (by content) and vocabulary, and
may be deleted at any time. A large corpus is walked as a stream: once for the vocabulary (its beginning) and once for
the tokens, of which no more than `BUFFERED` are held at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

from dynalab.config.places import cache_folder
from dynalab.core.atomic import making, replacing, sync_path, write_text
from dynalab.core.errors import ConfigError
from dynalab.tasks.text import corpus as text
from dynalab.tasks.text.encoding import SPLITS, Corpus, Tokens, dtype, encoded, learn_vocabulary
from dynalab.tasks.text.vocabulary import Vocabulary

# Corpora above this size are tokenised on disk; 4 MB take a few seconds.
IN_MEMORY = 4_000_000
BUFFERED = 1 << 20
# Part of the folder's name: to be raised when the same text would give other tokens.
VERSION = 1
_log = logging.getLogger(__name__)


def root() -> Path:
    """Return where tokenised corpora are kept."""
    return cache_folder() / "text"


def tokens(corpus: Corpus, size: int, test_fraction: float) -> Tokens:
    """Tokenise a corpus (None is CPython's documentation) with a vocabulary of a size, or find it tokenised.

    Raises:
        ConfigError: The corpus is missing, empty or no text.
        StoreError: The cache of a large corpus cannot be written.
    """
    return _tokens(corpus, text.digest(corpus), size, test_fraction)


@lru_cache(maxsize=2)
def _tokens(corpus: Corpus, digest: str, size: int, test_fraction: float) -> Tokens:
    """Tokenise a corpus; remembered by its text, since files change under a long session."""
    if text.size(corpus) > IN_MEMORY:
        return _on_disk(corpus, digest, size, test_fraction)
    vocabulary = learn_vocabulary(corpus, size, test_fraction)
    ids: dict[str, list[int]] = {split: [] for split in SPLITS}
    for split, passage in encoded(corpus, vocabulary, test_fraction):
        ids[split] += passage
    train, test = (np.array(ids[split], dtype=dtype(vocabulary)) for split in SPLITS)
    return Tokens(vocabulary, train, test, np.bincount(train, minlength=len(vocabulary)))


def _on_disk(corpus: Corpus, digest: str, size: int, test_fraction: float) -> Tokens:
    """Map a tokenised corpus into memory, tokenising it first where that was not done yet."""
    folder = root() / f"{digest}-{size}-{round(1 / test_fraction)}-v{VERSION}"
    if not folder.is_dir():
        _log.info("tokenising %s into %s", text.shown(corpus), folder)
        _write(corpus, size, test_fraction, folder)
    vocabulary = Vocabulary(
        [bytes.fromhex(piece) for piece in json.loads((folder / "pieces.json").read_text())]
    )
    mapped = {split: _mapped(folder / split, dtype(vocabulary)) for split in SPLITS}
    return Tokens(vocabulary, mapped["train"], mapped["test"], np.load(folder / "counts.npy"))


def _mapped(path: Path, kind: type[np.generic]) -> np.ndarray:
    # An empty file cannot be mapped.
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.empty(0, kind)


def _write(corpus: Corpus, size: int, test_fraction: float, folder: Path) -> None:
    """Write a corpus' tokens into a folder, which appears whole or not at all."""
    with making(folder) as own:
        vocabulary = learn_vocabulary(corpus, size, test_fraction)
        counts = np.zeros(len(vocabulary), dtype=np.int64)
        with contextlib.ExitStack() as stack:
            files = {split: stack.enter_context((own / split).open("wb")) for split in SPLITS}
            buffers: dict[str, list[int]] = {split: [] for split in SPLITS}

            def flush(split: str) -> None:
                ids = np.array(buffers[split], dtype=dtype(vocabulary))
                files[split].write(ids.tobytes())
                if split == "train":
                    counts[:] += np.bincount(ids, minlength=len(counts))
                buffers[split].clear()

            for split, ids in encoded(corpus, vocabulary, test_fraction):
                buffers[split] += ids
                if len(buffers[split]) >= BUFFERED:
                    flush(split)
            for split in SPLITS:
                flush(split)
        for split in SPLITS:
            sync_path(own / split)
        with replacing(own / "counts.npy") as temporary, temporary.open("wb") as file:
            np.save(file, counts)
        write_text(own / "pieces.json", json.dumps([piece.hex() for piece in vocabulary.pieces]))


def require_length(corpus: Corpus, found: Tokens, length: int) -> None:
    """Refuse a corpus without one training and one held-out sequence of a length."""
    for split, words in (("train", "training"), ("test", "held-out")):
        count = len(found.part(split))
        if count < length:
            raise ConfigError(
                f"task.corpus={text.shown(corpus)}: {count} tokens of {words} text, but task.length={length}; "
                "give more text, or a smaller task.length"
            )
