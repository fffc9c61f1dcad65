"""Text: corpora, the byte-pair vocabulary, the split, tokens in memory and on disk, masks."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from dynalab.errors import ConfigError
from dynalab.tasks.text import corpus, encoding, masking, tokens, vocabulary

TEXT = "the a cat dog saw heard small green tree under near slowly often bird river"
WORDS = TEXT.split()


def prose(sentences, seed=0):
    """Random sentences, a paragraph each five."""
    rng = random.Random(seed)
    text = ""
    for index in range(sentences):
        words = [rng.choice(WORDS) for _ in range(rng.randint(4, 12))]
        text += " ".join(words).capitalize() + (".\n\n" if index % 5 == 4 else ".\n")
    return text


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tokens._tokens.cache_clear()


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(prose(600))
    return str(path)


# The corpus


def test_passages_are_paragraphs_once(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("One  two\nthree.\n-----\n\n\nfour,\tfive\n\n+--+\n\nOne two three.\n\nsix")
    assert list(corpus.passages([str(path)])) == ["One two three.", "four, five", "six"]


def test_documents_end_passages_and_long_paragraphs_are_cut(tmp_path):
    (tmp_path / "a.txt").write_text("end of a")
    words, signs = [f"word{index}" for index in range(600)], "".join(map(chr, range(0x4E00, 0x4E00 + 4500)))
    (tmp_path / "b.txt").write_text(f"{' '.join(words)}\n{signs}")
    first, *rest = corpus.passages([str(tmp_path)])
    assert first == "end of a"
    assert "".join(rest).replace(" ", "") == "".join(words) + signs
    assert max(map(len, rest)) == corpus.LONGEST
    # At spaces where there are some.
    assert {word for passage in rest[:2] for word in passage.split()} <= set(words)


@pytest.mark.parametrize("lines", [1, 7, 400, 3000])
def test_cutting_loses_nothing(tmp_path, lines):
    rng = random.Random(lines)
    written = [" ".join(f"w{rng.randrange(10**6)}" for _ in range(rng.randint(1, 40))) for _ in range(lines)]
    (tmp_path / "a.txt").write_text("\n".join(written))
    found = list(corpus.passages([str(tmp_path)]))
    assert " ".join(found).split() == " ".join(written).split()
    assert max(map(len, found)) <= corpus.LONGEST


def test_folders_and_files(tmp_path):
    for name in ("b/2.md", "b/1.txt", "a.RST", "c.py", ".hidden/x.txt", "notes"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    folder = tmp_path / "corpus"
    assert [path.name for path in corpus.files([str(folder)])] == ["a.RST", "1.txt", "2.md"]
    found = corpus.files([str(folder / "notes"), str(folder / "b")])
    assert [path.name for path in found] == ["notes", "1.txt", "2.md"]


def test_a_corpus_is_its_text_not_its_path(tmp_path, book):
    moved = tmp_path / "elsewhere" / "other.name"
    moved.parent.mkdir()
    moved.write_bytes((tmp_path / "book.txt").read_bytes())
    before = corpus.digest([book])
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert corpus.digest([str(moved)]) == before
    moved.write_text(prose(600, seed=1))
    assert corpus.digest([str(moved)]) != before
    assert corpus.digest([book, str(moved)]) != corpus.digest([str(moved), book])
    assert corpus.digest(None) == corpus.digest(None) != before


def test_bad_corpora_are_named(tmp_path):
    empty, folder, latin = tmp_path / "empty.txt", tmp_path / "folder", tmp_path / "latin.txt"
    empty.write_text("")
    folder.mkdir()
    latin.write_bytes("caf\u00e9 ".encode("latin-1"))
    for path, message in (
        (tmp_path / "missing.txt", "no such file"),
        (empty, "no text"),
        (folder, r"ends in \.txt"),
        (latin, "not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=rf"task\.corpus=.*{path.name}.*{message}"):
            corpus.digest([str(path)])


def test_the_bundled_text_is_there():
    found = list(corpus.passages(None))
    assert sum(map(len, found)) > 200_000
    assert len(set(found)) == len(found)


# The vocabulary


@pytest.fixture(scope="module")
def learnt():
    return vocabulary.learn(prose(300).split("\n"), 400)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The cat.",
        "  two, __init__(x) = 10**6\n\n",
        "na\u00efve \u4f60\u597d \U0001f600",
        "\x00\u2028",
        "x" * 99,
    ],
)
def test_every_text_comes_back(learnt, text):
    ids = learnt.encode(text)
    assert learnt.decode(ids) == text
    assert all(0 <= token < learnt.mask for token in ids)
    assert len(learnt) == learnt.mask + 1 <= 400


def test_merges_against_the_plain_algorithm():
    """Sennrich et al.'s loop, counting all pairs anew for every merge."""
    text = prose(80)
    words = Counter(vocabulary.WORD.findall(text))
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    pieces = []
    while len(pieces) < 60:
        pairs = Counter()
        for word, own in parts.items():
            for pair in pairwise(own):
                pairs[pair] += words[word]
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        piece = pair[0] + pair[1]
        pieces += [piece] if piece not in pieces else []
        for word, own in parts.items():
            parts[word] = merge(own, piece)
    assert vocabulary.learn([text], 256 + 60 + 1).pieces[256:] == pieces


def merge(parts, piece):
    for index in range(len(parts) - 1):
        if parts[index] + parts[index + 1] == piece:
            return [*parts[:index], piece, *merge(parts[index + 2 :], piece)]
    return parts


def test_frequent_words_are_one_token_and_rare_pairs_are_not_merged(learnt):
    assert all(len(learnt.encode(f" {word}")) == 1 for word in WORDS)
    assert vocabulary.coverage(learnt, [prose(20, seed=5)])["whole_words"] > 0.8
    assert vocabulary.coverage(learnt, ["Zyzzyva"]) == {"bytes_per_token": 1.0, "whole_words": 0.0}
    assert len(vocabulary.learn(["abcdef"], 400)) == 257


# The split and the tokens


def test_held_out_text_is_unseen(book):
    for source in (None, (book,)):
        parts = {"train": [], "test": []}
        for split, passage in encoding.split_passages(source, 0.1):
            parts[split].append(passage)
        assert not set(parts["train"]) & set(parts["test"])
        share = sum(map(len, parts["test"])) / sum(len(p) for own in parts.values() for p in own)
        assert 0.07 < share < 0.13
        found = tokens.tokens(source, 400, 0.1)
        for split in ("train", "test"):
            assert found.vocabulary.decode(found.part(split)) == "".join(f"{p}\n" for p in parts[split])
        assert np.array_equal(found.counts, np.bincount(found.train, minlength=len(found.vocabulary)))
        # The vocabulary has seen the training text only.
        assert found.vocabulary.pieces == vocabulary.learn(parts["train"], 400).pieces


def test_a_large_corpus_is_tokenised_on_disk_to_the_same_tokens(book, monkeypatch):
    small = tokens.tokens((book,), 400, 0.1)
    tokens._tokens.cache_clear()
    monkeypatch.setattr(tokens, "IN_MEMORY", 1000)
    monkeypatch.setattr(tokens, "BUFFERED", 100)
    large = tokens.tokens((book,), 400, 0.1)
    for split in ("train", "test"):
        assert isinstance(large.part(split), np.memmap)
        assert large.part(split).dtype == small.part(split).dtype == np.uint16
        assert np.array_equal(large.part(split), small.part(split))
    assert np.array_equal(large.counts, small.counts)
    assert large.vocabulary.pieces == small.vocabulary.pieces
    (folder,) = tokens.root().iterdir()
    # The second time nothing is tokenised, and what was is found by its text.
    tokens._tokens.cache_clear()
    monkeypatch.setattr(tokens, "_write", None)
    assert np.array_equal(tokens.tokens((book,), 400, 0.1).train, small.train)
    assert corpus.digest([book]) in folder.name


def test_tokenising_that_fails_leaves_nothing(book, monkeypatch):
    monkeypatch.setattr(tokens, "IN_MEMORY", 1000)
    monkeypatch.setattr(tokens, "encoded", lambda *_: iter([("train", [1]), 7]))
    with pytest.raises(TypeError):
        tokens.tokens((book,), 400, 0.1)
    assert list(tokens.root().iterdir()) == []


# The masks


def test_masks_are_15_percent_and_80_10_10():
    rng = np.random.default_rng(0)
    sequences = rng.integers(500, size=(4000, 40))
    masks = masking.draw(np.random.default_rng(1), (4000,), 40, masking.masked_places(40, 0.15), mask=500)
    inputs, targets = masking.apply(sequences, masks)
    words, places = inputs[:, :40], inputs[:, 40:]
    assert places.shape == targets.shape == (4000, 6)
    assert (np.diff(places, axis=1) > 0).all()
    assert np.array_equal(np.take_along_axis(sequences, places, 1), targets)
    chosen = np.zeros_like(sequences, dtype=bool)
    np.put_along_axis(chosen, places, True, 1)
    assert chosen.mean() == 0.15
    assert np.array_equal(words[~chosen], sequences[~chosen])
    # Every place is chosen equally often: four standard deviations of a binomial.
    assert (np.abs(chosen.mean(0) - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 4000)).all()
    n = chosen.sum()
    became = {
        "mask": (words[chosen] == 500).mean(),
        "same": (words[chosen] == sequences[chosen]).mean(),
    }
    # A random token is the true one once in 500 times.
    for name, share in (("mask", 0.8), ("same", 0.1 + 0.1 / 500)):
        assert abs(became[name] - share) < 4 * np.sqrt(share * (1 - share) / n), name
    others = words[chosen][(words[chosen] != 500) & (words[chosen] != sequences[chosen])]
    assert others.min() >= 0
    assert others.max() < 500
    assert len(np.unique(others)) > 480


@pytest.mark.parametrize(("length", "count"), [(2, 1), (20, 3), (32, 5), (64, 10), (128, 19), (512, 77)])
def test_number_of_masks_is_berts(length, count):
    assert masking.masked_places(length, 0.15) == max(1, round(0.15 * length)) == count


def test_a_random_token_is_never_the_mask():
    """With one token beside it every random token is that one, so that 80% are masks and not 85%."""
    tokens = masking.draw(np.random.default_rng(1), (500,), 40, 6, mask=1).tokens
    assert (tokens == 1).mean() < 0.83 and set(np.unique(tokens)) == {-1, 0, 1}
