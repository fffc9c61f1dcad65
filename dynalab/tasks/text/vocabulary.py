"""A byte-pair vocabulary (Sennrich et al. 2016, arXiv 1508.07909) over bytes, learnt from the training text.

The first 256 tokens are the bytes, so every text can be written and none is ever unknown; what a vocabulary does not
know well costs more tokens, which `coverage` reports. The last token is [MASK]. Merges stay inside the words that
`WORD` finds (a space belongs to the word after it). Ties go to the pair that is first in the order of bytes, so a
text has one vocabulary.

Own code rather than the `tokenizers` library: the bundled text takes half a second, a large corpus is
tokenised once, and these lines save a dependency.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

BYTES = 256
# A pair is merged if it occurs at least this often.
LEAST = 2
# Letters (with the space before them), one digit, underscores, other signs; at most 32 at once, so that no text can
# make a word whose merges take long.
WORD = re.compile(r" ?[^\W\d_]{1,32}| ?\d| ?_{1,32}| ?[^\w\s]{1,32}|\s")
# Words whose tokens are remembered while a text is encoded; a large corpus has no end of words.
_MOST_REMEMBERED = 1 << 19


@dataclass
class Vocabulary:
    """Tokens of a text; `pieces` are the 256 bytes, then the merges in the order they were learnt."""

    pieces: list[bytes]
    _ids: dict[bytes, int] = field(init=False, repr=False)
    _known: dict[str, list[int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the pieces."""
        self._ids = {piece: token for token, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        """Return the number of tokens, [MASK] among them."""
        return len(self.pieces) + 1

    @property
    def mask(self) -> int:
        """The token [MASK], the last; no text has it."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; `decode` gives it back."""
        known, tokens = self._known, []
        for word in WORD.findall(text):
            found = known.get(word)
            if found is None:
                if len(known) >= _MOST_REMEMBERED:
                    known.clear()
                found = known[word] = self._merge(word.encode())
            tokens += found
        return tokens

    def _merge(self, word: bytes) -> list[int]:
        """Join the bytes of a word, always the neighbours whose merge was learnt first."""
        parts = [word[i : i + 1] for i in range(len(word))]
        while len(parts) > 1:
            ranks = [self._ids.get(a + b, self.mask) for a, b in pairwise(parts)]
            best = min(ranks)
            if best == self.mask:
                break
            parts = _joined(parts, self.pieces[best])
        return [self._ids[part] for part in parts]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; [MASK] is shown as such, bytes that are no UTF-8 as U+FFFD."""
        pieces = (self.pieces[token] if token < self.mask else b"[MASK]" for token in tokens)
        return b"".join(pieces).decode(errors="replace")


def learn(passages: Iterable[str], size: int) -> Vocabulary:
    """Learn a vocabulary of `size` tokens, the 256 bytes and [MASK] among them, from passages: all are counted.

    It has fewer tokens where no pair occurs twice any more.
    """
    counts: Counter[str] = Counter()
    for passage in passages:
        counts.update(WORD.findall(passage))
    # By the order of bytes, not of occurrence: a text has one vocabulary.
    ordered = sorted((word.encode(), count) for word, count in counts.items())
    words = [[word[i : i + 1] for i in range(len(word))] for word, _ in ordered]
    often = [count for _, count in ordered]
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += often[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    pieces = [bytes([value]) for value in range(BYTES)]
    merged = set(pieces)
    while heap and len(pieces) + 1 < size:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair]:
            continue  # an old entry: the pair's count has changed since
        if -count < LEAST:
            break
        piece = pair[0] + pair[1]
        if piece not in merged:
            merged.add(piece)
            pieces.append(piece)
        changed = set()
        for index in where.pop(pair):
            for old in pairwise(words[index]):
                pairs[old] -= often[index]
                changed.add(old)
            words[index] = _joined(words[index], piece)
            for new in pairwise(words[index]):
                pairs[new] += often[index]
                where[new].add(index)
                changed.add(new)
        for other in changed:
            if pairs[other] > 0:
                heapq.heappush(heap, (-pairs[other], other))
            else:
                del pairs[other]
    return Vocabulary(pieces)


def coverage(vocabulary: Vocabulary, passages: Iterable[str]) -> dict[str, float]:
    """Return how well a vocabulary fits a text: `bytes_per_token`, and the share `whole_words` that are one token."""
    size = tokens = words = whole = 0
    for passage in passages:
        size += len(passage.encode())
        for word in WORD.findall(passage):
            count = len(vocabulary.encode(word))
            tokens += count
            if word.strip().isalpha():
                words += 1
                whole += count == 1
    return {"bytes_per_token": size / max(tokens, 1), "whole_words": whole / max(words, 1)}


def _joined(parts: list[bytes], piece: bytes) -> list[bytes]:
    """Join neighbours that make up `piece`, from the left."""
    joined: list[bytes] = []
    index = 0
    while index < len(parts):
        two = index + 1 < len(parts) and parts[index] + parts[index + 1] == piece
        joined.append(piece if two else parts[index])
        index += 1 + two
    return joined
