"""Where text comes from: the documentation that every CPython carries, or files and folders that the user names.

A corpus is read as a stream, one line at a time, so its size is no matter. What it yields is passages: paragraphs
(text between blank lines) with runs of white space made one space, as BERT's tokenizer does. Lines without a letter
or a digit (rules of tables, underlines) are left out. A passage that has occurred before is left out as well: a
fifth of CPython's topics stands in two or three of them, and text that is trained on must not be held out.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from dynalab.core.errors import ConfigError

# A folder stands for its files with these endings; a file that is named itself may have any.
SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
# Longer paragraphs are cut, at white space where there is some, so that no one passage is the corpus.
LONGEST = 2000
_PIECE = 1 << 20


def topics() -> dict[str, str]:
    """Return CPython's own documentation, topic -> text, by alphabet; a Python without it is refused."""
    try:
        from pydoc_data.topics import topics as found
    except ImportError as error:
        raise ConfigError(
            "task.corpus=null: this Python has no pydoc_data, the text that is the default; "
            "name text files or folders: task.corpus=[book.txt,notes/]"
        ) from error
    return dict(sorted(found.items()))


def files(corpus: Sequence[str]) -> list[Path]:
    """Return the text files that a list of files and folders stands for, a folder's sorted by their path."""
    found: list[Path] = []
    for name in corpus:
        path = Path(name)
        if path.is_dir():
            inside = [
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not inside:
                raise ConfigError(f"task.corpus={name}: no file in this folder ends in {', '.join(SUFFIXES)}")
            found += sorted(inside, key=lambda file: file.relative_to(path).as_posix())
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"task.corpus={name}: no such file or folder")
    return found


def size(corpus: Sequence[str] | None) -> int:
    """Return the size of a corpus in bytes (of the bundled text: in characters)."""
    if corpus is None:
        return sum(map(len, topics().values()))
    return sum(path.stat().st_size for path in files(corpus))


def digest(corpus: Sequence[str] | None) -> str:
    """Return the first 16 hex digits of a hash of the text, whatever its files are called.

    Raises:
        ConfigError: A file is missing, cannot be read or is not UTF-8; or there is no text at all.
    """
    whole = hashlib.sha256()
    if corpus is None:
        for name, text in topics().items():
            whole.update(f"{name}\0{text}\0".encode())
        return whole.hexdigest()[:16]
    stated = [(path, path.stat()) for path in files(corpus)]
    if not any(found.st_size for _, found in stated):
        raise ConfigError(f"task.corpus={shown(corpus)}: there is no text in it")
    for path, found in stated:
        whole.update(bytes.fromhex(_file_digest(path, found.st_size, (found.st_mtime_ns, found.st_ctime_ns))))
    return whole.hexdigest()[:16]


@lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed: tuple[int, int]) -> str:
    """Hash a file and check that it is UTF-8; size and times of change make the cache forget changed files."""
    found = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                found.update(piece)
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ConfigError(f"task.corpus={path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ConfigError(f"task.corpus={path}: cannot be read ({error.strerror or error})") from error
    return found.hexdigest()


def passages(corpus: Sequence[str] | None) -> Iterator[str]:
    """Yield the passages of a corpus in order, each text once.

    What occurred is remembered in a table of bits, 32 or more for 200 bytes of corpus, addressed by a hash: repeats are
    always recognised, and of new passages less than one in 32 is taken for a repeat (in small corpora hardly any: the
    table has 2 MB at least).
    """
    bits = max(24, (32 * size(corpus) // 200).bit_length())
    seen = bytearray(1 << (bits - 3))
    for passage in _passages(_lines(corpus)):
        code = hashlib.blake2b(passage.encode(), digest_size=8).digest()
        place, bit = divmod(int.from_bytes(code, "little") & ((1 << bits) - 1), 8)
        if not seen[place] >> bit & 1:
            seen[place] |= 1 << bit
            yield passage


def _lines(corpus: Sequence[str] | None) -> Iterator[str]:
    """Yield lines; a blank one after every document. A line without end comes in pieces."""
    if corpus is None:
        for text in topics().values():
            yield from text.splitlines()
            yield ""
        return
    for path in files(corpus):
        with path.open(encoding="utf-8") as stream:
            while line := stream.readline(_PIECE):
                yield line
        yield ""


def _passages(lines: Iterable[str]) -> Iterator[str]:
    kept: list[str] = []
    length = 0
    for line in lines:
        text = " ".join(line.split())
        if any(map(str.isalnum, text)):
            kept.append(text)
            length += len(text) + 1
        if kept and (not text or length >= LONGEST):
            *whole, rest = _cut(" ".join(kept))
            yield from whole
            # The end of a paragraph that goes on waits for the next line.
            kept, length = ([rest], len(rest) + 1) if text and len(rest) < LONGEST else ([], 0)
            if not kept:
                yield rest
    if kept:
        yield from _cut(" ".join(kept))


def _cut(text: str) -> list[str]:
    """Cut a text into pieces of at most `LONGEST` characters, at spaces where there are some."""
    pieces = []
    while len(text) > LONGEST:
        end = text.rfind(" ", 1, LONGEST + 1)
        end = end if end > 0 else LONGEST
        pieces.append(text[:end])
        text = text[end:].lstrip(" ")
    return [*pieces, text]


def shown(corpus: Sequence[str] | None) -> str:
    """Return a corpus as a user would write it."""
    if corpus is None:
        return "null"
    return corpus[0] if len(corpus) == 1 else f"[{','.join(corpus)}]"
