"""Members of an archive that may be a stranger's: what each is said to be is looked at before more of it is read.

`tarfile` reads a header of any length that the archive claims, whole, and keeps what it has read of every member. Here
a header that is longer than those of dynalab's, a sparse file, which says more than it holds, and a header for all
members are refused where they stand.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dynalab.core.errors import ConfigError, StoreError
from dynalab.store.names import ANALYSIS, ENSEMBLE, NAME, TASK

TOP = "outputs"
# Names of what is of the moment: who holds what, how far it is.
PASSING = ("lock", "progress.json", "split.json")
MOST_MEMBERS = 1_000_000
# Folders of a member's name; of dynalab's own there are six.
_MOST_PARTS = 32
# Of a member's headers, and of those of all on average: dynalab's own take one and a half kilobytes.
_MOST_HEADER = 16_384
_MEAN_HEADER = 4_096
# Python before 3.11.10 and 3.12.6 looks through a row of digits in a header in the square of its length.
_DIGITS = re.compile(rb"\d{64}")

Member = tuple[tarfile.TarInfo, tuple[str, ...]]


class _Bytes:
    """The unpacked bytes of an archive, as tarfile asks for them."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        self._file, self._path = file, path
        self._all = 0
        self._one: int | None = None
        self.seek, self.tell = file.seek, file.tell

    @contextlib.contextmanager
    def header(self, n_members: int) -> Iterator[None]:
        """Hold what is read meanwhile to be the headers of the next of so many members."""
        self._one, most = 0, _MOST_HEADER + _MEAN_HEADER * n_members
        try:
            yield
        finally:
            self._all, self._one = self._all + (self._one or 0), None
        if self._all > most:
            raise self._refusal()

    def read(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        if self._one is None:
            return self._file.read(size)
        self._one += size
        if size < 0 or self._one > _MOST_HEADER:
            raise self._refusal()
        found = self._file.read(size)
        if _DIGITS.search(found):
            raise self._refusal()
        return found

    def _refusal(self) -> StoreError:
        return StoreError(f"{self._path} has a header that dynalab does not write; nothing of it is opened")


class Archive:
    """An archive that is open."""

    def __init__(self, path: Path, file: gzip.GzipFile) -> None:
        self._path, self._bytes = path, _Bytes(file, path)
        with self._bytes.header(1):
            self._tar = tarfile.TarFile(path.name, fileobj=self._bytes)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Member]:
        """Yield each member, and the parts of its name below the outputs folder.

        Raises:
            StoreError: There are too many, or one is what dynalab never puts there.
        """
        n_members = 0
        while True:
            with self._bytes.header(n_members + 1):
                member = self._tar.next()
            if member is None:
                return
            # It would keep them all.
            self._tar.members.clear()  # type: ignore[attr-defined]
            n_members += 1
            if n_members > MOST_MEMBERS:
                raise StoreError(f"{self._path} holds more than {MOST_MEMBERS:,} files; it is not opened")
            if self._tar.pax_headers:
                raise StoreError(f"{self._path} has a header for all its files; nothing of it is opened")
            yield member, _parts(self._path, member)

    def extract(self, member: tarfile.TarInfo, place: Path) -> None:
        """Write a member's file below a folder."""
        self._tar.extract(member, place, filter="data")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Hold an archive open; whatever is wrong with it is a `StoreError`, and that there is none a `ConfigError`."""
    if not hasattr(tarfile, "data_filter"):
        raise ConfigError("this Python is too old to open archives safely; 3.11.4 is the first that can")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        with gzip.open(path) as file:
            yield Archive(path, file)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise StoreError(f"{path} is damaged, or no archive of dynalab's: {error}") from error
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise StoreError(f"{path} is damaged, or no archive: {error}") from error
        raise StoreError(f"cannot open {path}: {error.strerror or error}") from error


def _parts(path: Path, member: tarfile.TarInfo) -> tuple[str, ...]:
    """Return the parts of a member's name below the outputs folder; refuse what dynalab never puts there."""
    name = PurePosixPath(member.name)
    shown = repr(member.name[:80])
    if member.size < 0 or len(name.parts) > _MOST_PARTS:
        what = "of a negative size" if member.size < 0 else f"more than {_MOST_PARTS} folders deep"
        raise StoreError(f"{path} holds {shown}, which is {what}; nothing of it is opened")
    if not (member.isreg() or member.isdir()) or member.issparse():
        what = "sparse" if member.issparse() else "neither a file nor a folder"
        raise StoreError(f"{path} holds {shown}, which is {what}; nothing of it is opened")
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise StoreError(f"{path} holds {shown}, which leads outside; nothing of it is opened")
    top, *parts = name.parts or ("",)
    forms = {"analysis": ANALYSIS, "reports": NAME}
    known = (
        top == TOP
        and all(part.isprintable() and not part.startswith(".") and part not in PASSING for part in parts)
        and (parts in ([], ["last.json"]) or (TASK.fullmatch(parts[0]) is not None))
        and (len(parts) < 2 or forms.get(parts[0], ENSEMBLE).fullmatch(parts[1]) is not None)
    )
    if not known:
        raise StoreError(
            f"{path} holds {shown}, which is no part of an outputs folder; nothing of it is opened"
        )
    return tuple(parts)
