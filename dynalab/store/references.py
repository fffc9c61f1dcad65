"""Checkpoints of imported runs, which stay where they stand: what the import noted of them, and their weights.

An outputs folder may be somebody else's, so a file that it names is only asked for its size and the time of its last
change, and opened where both are what the import noted. That list itself is no link, which could be any file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.core.atomic import write_json
from dynalab.core.errors import StoreError
from dynalab.core.weights import Parts
from dynalab.store import elsewhere
from dynalab.store.paths import EnsemblePaths
from dynalab.store.read import check, mapping, read_json, text, whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SCHEMA_VERSION = 1
# Checkpoints whose tensors stay mapped: what goes through the weights of a run in blocks asks for each many times.
_MAPPED = 512
_PARTS = mapping([text])


def _file(value: Any) -> bool:
    # A path that cannot be shown could forge a line of what is said of it.
    return (
        isinstance(value, list)
        and len(value) == 3
        and text(value[0])
        and value[0].isprintable()
        and all(map(whole, value[1:]))
    )


def _files(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_file, value))


def _shapes(value: Any) -> bool:
    return bool(value) and mapping([whole])(value)


_FORM = {
    "schema_version": whole,
    "shapes": _shapes,
    "layers": (_PARTS,),
    "kinds": (_PARTS,),
    "runs": mapping({"steps": [whole], "files": [_files]}),
}


@dataclass(frozen=True)
class File:
    """A file as it was when it was imported."""

    path: str  # In full.
    size: int  # Bytes.
    changed: int  # When it was changed last, nanoseconds since 1970.

    @classmethod
    def of(cls, path: Path) -> File:
        """Return a file as it is now, or raise a `StoreError`."""
        if not str(path).isprintable():
            raise StoreError(f"cannot read {str(path)!r}: its name has characters that cannot be shown")
        try:
            about = os.stat(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        return cls(os.path.abspath(path), about.st_size, about.st_mtime_ns)


@dataclass(frozen=True)
class References:
    """The checkpoints of an imported ensemble.

    Attributes:
        shapes: Tensor that counts -> its shape.
        runs: Label -> step -> the files of its checkpoint.
        layers: Layer -> its tensors, where a network said so.
        kinds: Kind of parameter -> its tensors, likewise.
    """

    shapes: Mapping[str, Sequence[int]]
    runs: Mapping[str, Mapping[int, Sequence[File]]]
    layers: Parts | None = None
    kinds: Parts | None = None

    def write(self, paths: EnsemblePaths) -> None:
        """Write them beside the configuration."""
        runs = {
            label: {
                "steps": list(files),
                "files": [[[file.path, file.size, file.changed] for file in some] for some in files.values()],
            }
            for label, files in self.runs.items()
        }
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        about = {"shapes": shapes, "layers": self.layers, "kinds": self.kinds, "runs": runs}
        write_json(paths.checkpoints, {"schema_version": SCHEMA_VERSION, **about})

    @classmethod
    def read(cls, paths: EnsemblePaths) -> References:
        """Return those of an ensemble.

        Raises:
            StoreError: They are damaged, a newer dynalab's, or a link to what may be anything.
        """
        if paths.checkpoints.is_symlink():
            raise StoreError(f"{paths.checkpoints} is damaged: it is a link")
        document = read_json(paths.checkpoints)
        try:
            check(document, _FORM)
            if document["schema_version"] > SCHEMA_VERSION:
                raise StoreError(f"{paths.checkpoints} was written by a newer dynalab")
            runs = {
                label: {
                    step: [File(*file) for file in some]
                    for step, some in zip(run["steps"], run["files"], strict=True)
                }
                for label, run in document["runs"].items()
            }
            shapes, parts = document["shapes"], (document["layers"], document["kinds"])
            for members in (members for part in parts if part is not None for members in part.values()):
                if strange := [name for name in members if name not in shapes]:
                    raise ValueError(f"{strange[0]} is no tensor that counts")
            return cls(shapes, runs, *parts)
        except (ValueError, LookupError) as error:
            raise StoreError(f"{paths.checkpoints} is damaged: {error}") from error

    @property
    def parts(self) -> tuple[Parts, Parts] | None:
        """Layers and kinds of parameters, where a network said so."""
        return None if self.layers is None or self.kinds is None else (self.layers, self.kinds)

    def arrays(self, label: str, step: int, rows: Mapping[str, slice] | None = None) -> dict[str, np.ndarray]:
        """Return a run's weights of one step, or rows along the first axis of some of them.

        Raises:
            StoreError: The checkpoint is gone, has changed since the import, or cannot be read.
        """
        files = self.runs[label][step]
        for file in files:
            _require_same(file)
        tensors = self._tensors(tuple(Path(file.path) for file in files))
        found = {}
        for name in self.shapes if rows is None else rows:
            tensor = tensors.get(name)
            if tensor is None or list(tensor.shape) != [*self.shapes[name]] or not tensor.is_floating_point():
                raise StoreError(f"{files[0].path} does not hold {name} as it was imported; {_AGAIN}")
            some = tensor[rows[name]] if rows is not None and tensor.dim() else tensor
            found[name] = (some if some.element_size() >= 4 else some.float()).numpy()
        return found

    def _tensors(self, files: tuple[Path, ...]) -> dict[str, Tensor]:
        # What is not mapped would stay in memory.
        return self._mapped(files) if all(map(elsewhere.is_mapped, files)) else elsewhere.read(files)

    @cached_property
    def _mapped(self) -> Any:
        return lru_cache(_MAPPED)(elsewhere.read)


_AGAIN = "import its checkpoints again: dynalab import --checkpoints"


def _require_same(file: File) -> None:
    try:
        about = os.stat(file.path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(
            f"{file.path} is gone since it was imported ({why}); put it back, or {_AGAIN}"
        ) from error
    if (about.st_size, about.st_mtime_ns) != (file.size, file.changed):
        raise StoreError(f"{file.path} has changed since it was imported; {_AGAIN}")
