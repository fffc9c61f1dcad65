"""Where a sheet lies that was named and is in none of the folders that are searched: what was probably meant."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from dynalab.config import registry
from dynalab.reproduce.reading import FOLDER, sheet_names
from dynalab.store.names import NAME

_ENDINGS = (".yaml", ".yml")


def elsewhere(name: str, folders: Sequence[Path]) -> str:
    """Return what to type for a sheet that is no name of one; an empty string where nothing is near.

    Args:
        name: What was typed: a name, or the path of a file.
        folders: The folders that are searched.
    """
    if os.sep in name or name.endswith(_ENDINGS):
        return _by_path(Path(name), folders)
    lying = dict(_sheets_here())
    legal = sheet_names(folders)
    # One that is searched for and nearly right comes first.
    near = difflib.get_close_matches(name, [*legal, *lying], n=1)
    if near and near[0] not in legal:
        meant = "" if near[0] == name else f"no such sheet (did you mean {near[0]}?); "
        place = lying[near[0]] / FOLDER / f"{near[0]}.yaml"
        return f"{meant}{place} is not searched for; name its folder: {_command(near[0], lying[near[0]])}"
    file = Path(f"{name}.yaml")
    return _by_path(file, folders) if not near and file.is_file() else ""


def _sheets_here() -> Iterator[tuple[str, Path]]:
    """Yield the sheets in folders of the working directory, and of those below it, each with the folder to be named."""
    here = Path()
    for pattern in (f"*/{FOLDER}/*.yaml", f"{FOLDER}/*.yaml"):
        for path in sorted(here.glob(pattern)):
            if NAME.fullmatch(path.stem) and path.parent.parent.name[:1] != ".":
                yield path.stem, path.parent.parent


def _by_path(path: Path, folders: Sequence[Path]) -> str:
    """Return what to type for the sheet in a file, or what to do with the file first."""
    name, folder = path.stem, path.parent.parent
    if not path.exists() and name in sheet_names(folders):
        return f"no such file; the sheet {name} is named: `dynalab reproduce {name}`"
    if not path.is_file():
        return (
            f"no such sheet, {'but a folder' if path.is_dir() else 'nor a file'}; a sheet is named: "
            f"`dynalab reproduce NAME --config-dir DIR` reads DIR/{FOLDER}/NAME.yaml"
        )
    if path.absolute().parent.name == FOLDER and path.suffix == _ENDINGS[0]:
        searched = (root / FOLDER / path.name for root in registry.roots(folders))
        if any(other.is_file() and path.samefile(other) for other in searched):
            return f"a sheet is named, not its file: `dynalab reproduce {shlex.quote(name)}`"
        return f"a sheet is named, not its file: {_command(name, folder)}"
    place = path.parent / FOLDER / f"{name}.yaml"
    return f"a sheet is named, and lies in a folder {FOLDER}: move it to {place}, then {_command(name, path.parent)}"


def _command(name: str, folder: Path) -> str:
    return f"`dynalab reproduce {shlex.quote(name)} --config-dir {shlex.quote(str(folder))}`"
