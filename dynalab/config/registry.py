"""Parts found by name: tasks, models, optimizers, probes and analyses, the package's own and a user's.

A part NAME of a group is one module and one YAML file. It is looked for in the folders of the search path
(`DIR/task/NAME.py`), then among the entry points of installed packages (`dynalab.tasks`), then in dynalab itself.

A module is a part where it has a dataclass `Config` and the group's function: `analyse` of an analysis, or `explore` of
one that trains; it needs no YAML file; `apply` of an edit, `build` of all others. What else lies beside it are helpers,
which have no name here.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dynalab.config.loading import digest, import_path, load_entry
from dynalab.config.places import real_path, user_path
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError

# Group -> the package of its modules, and the entry points that name a plug-in's.
PACKAGES = {
    "task": ("dynalab.tasks", "dynalab.tasks"),
    "model": ("dynalab.models", "dynalab.models"),
    "optimizer": ("dynalab.optim", "dynalab.optimizers"),
    "schedule": ("dynalab.optim.schedules", "dynalab.schedules"),
    "average": ("dynalab.averages", "dynalab.averages"),
    "probe": ("dynalab.probes", "dynalab.probes"),
    "edit": ("dynalab.edits", "dynalab.edits"),
    "analysis": ("dynalab.analysis", "dynalab.analyses"),
}

# Fields that every part of a group has, and the class that they come from.
_FIELDS = {
    "analysis": ("steps",),
    "probe": ("name", "every", "at"),
    "edit": ("name", "seed"),
    "average": ("name", "every", "from_"),
}
_BASES = {
    "analysis": " (from dynalab.analysis.base.Keys)",
    "probe": " (from dynalab.probes.base.Cadence)",
    "average": " (from dynalab.averages.base.Keys)",
}
# Any source will do: what a user names now, as opposed to what a stored configuration was made with.
ANY = "any"
_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Part:
    """A part that was found.

    Attributes:
        group: `task`, `model`, ...
        name: As the configuration names it.
        module: The imported module.
        source: Hash of the source file of a plug-in; None for dynalab's own parts.
        folder: The folder of the search path that it lies in; None elsewhere.

    Raises:
        ConfigError: The module is no part: it lacks `Config`, or the group's function.
    """

    group: str
    name: str
    module: ModuleType
    source: str | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check that the module is a part."""
        where, functions = f"{self.group}={self.name}: {self.module.__file__}", _functions(self.group)
        config_class = getattr(self.module, "Config", None)
        if not is_dataclass(config_class) or not isinstance(config_class, type):
            raise ConfigError(f"{where} has no dataclass named Config")
        if not any(callable(getattr(self.module, function, None)) for function in functions):
            raise ConfigError(f"{where} has no function {functions[0]}")
        names = {field.name for field in fields(config_class)}
        for name in _FIELDS.get(self.group, ("name",)):
            if name not in names:
                base = _BASES.get(self.group, "")
                raise ConfigError(f"{where}: Config has no field {name}, which every {self.group} has{base}")

    @property
    def config_class(self) -> type[Any]:
        """The part's configuration dataclass."""
        config_class: type[Any] = self.module.Config
        return config_class

    def file(self, folders: Sequence[Path]) -> Path | None:
        """Return the part's YAML file; None where it has none."""
        paths = (root / self.group / f"{self.name}.yaml" for root in roots(folders))
        return next((path for path in paths if path.is_file()), None)

    def defaults(self, folders: Sequence[Path] = ()) -> str:
        """Return the text of the part's YAML file; empty where it has none."""
        path = self.file(folders)
        return path.read_text(encoding="utf-8").rstrip() if path else ""

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module's `build`."""
        return self.module.build(*args, **kwargs)


def conf_dir() -> Path:
    """Return the folder of shipped configurations: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


# The folders of the command that is under way, as they were typed.
_TYPED: list[str] = []


@contextlib.contextmanager
def searching(folders: Sequence[str]) -> Iterator[None]:
    """Search a command's own folders, before those of `DYNALAB_PATH`, while the block lasts.

    Raises:
        ConfigError: A folder does not exist.
    """
    before = _TYPED[:]
    _TYPED[:] = folders
    try:
        search_path()
        yield
    finally:
        _TYPED[:] = before


def typed_folders() -> list[str]:
    """Return the folders of the command that is under way, as they were typed."""
    return list(_TYPED)


def search_path() -> list[Path]:
    """Return the user's folders: those of the command that is under way, then those of `DYNALAB_PATH`.

    Raises:
        ConfigError: A folder does not exist.
    """
    listed = [*_TYPED, *filter(None, os.environ.get("DYNALAB_PATH", "").split(os.pathsep))]
    folders = []
    for text in dict.fromkeys(listed):
        folder = real_path(user_path(text))
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {text}: no such folder")
        folders.append(folder)
    return folders


def roots(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders that YAML files are looked for in: a user's, those of installed plug-ins, conf/."""
    return (*folders, *entry_folders(), conf_dir())


@lru_cache(maxsize=64)
def chosen(text: str, group: str) -> str | None:
    """Return the option of a group that the defaults list of a YAML file chooses; None where it chooses none."""
    import yaml

    listed = (yaml.safe_load(text) or {}).get("defaults") or []
    pairs = [pair for item in listed if isinstance(item, Mapping) for pair in item.items()]
    return next((str(name) for key, name in pairs if str(key).split()[-1].lstrip("/") == group), None)


def names(group: str, folders: Sequence[Path] = (), mentioning: Collection[str] = ()) -> list[str]:
    """Return every option of a group, for error messages and completion.

    Of dynalab's own analyses, where words are given, only those whose source has one of these.
    """
    stems = {path.stem for root in roots(folders) for path in (root / group).glob("*.yaml")}
    options = {stem for stem in stems if not stem.startswith("_")}
    return sorted(options | (_analyses(folders, mentioning) if group == "analysis" else set()))


def _analyses(folders: Sequence[Path], mentioning: Collection[str]) -> set[str]:
    """Return the names of all analyses, told by their sources: listing them imports none."""
    own = Path(__file__).resolve().parent.parent / "analysis"
    paths = [*own.glob("*.py"), *own.glob("*/__init__.py")]
    if mentioning:
        word = re.compile(rf"\b(?:{'|'.join(map(re.escape, mentioning))})\b".encode())
        paths = [path for path in paths if word.search(path.read_bytes())]
    paths += [path for folder in folders for path in (folder / "analysis").glob("*.py")]
    own_names = [(path, _declared(path, _stamp(path))) for path in paths]
    declared = [path for path, has in own_names if "Config" in has and has & {*_functions("analysis")}]
    kinds = {path.parent.name if path.stem == "__init__" else path.stem for path in declared}
    return kinds | {entry.name for entry in _entry_points()["analysis"]}


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a file does; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


@cache
def _declared(path: Path, stamp: tuple[int, ...]) -> set[str]:
    """Return the names that a source file defines or imports at its top level; none where it cannot be read.

    A page asks several times, and to parse all takes a tenth of a second; `stamp` tells when a file was changed.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return set()
    declared: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            declared.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            declared |= {item.asname or item.name for item in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            declared |= {target.id for target in targets if isinstance(target, ast.Name)}
    return declared


def _functions(group: str) -> tuple[str, ...]:
    """Return the functions of which one makes a module a part of a group."""
    return {"analysis": ("analyse", "explore"), "edit": ("apply",)}.get(group, ("build",))


def find(
    group: str, name: str, folders: Sequence[Path] = (), source: str | None = ANY, key: str = ""
) -> Part:
    """Return the part `name` of a group.

    Args:
        group: `task`, `model`, ...
        name: As a configuration names it.
        folders: The command's plug-in folders.
        source: Hash of the one plug-in that will do, so that no other is imported; None: one of dynalab's own.
        key: What asked for it, for errors; the group by default.

    Raises:
        ConfigError: There is none, or its module cannot be imported or is no part.
    """
    # A name may come from a stored file; it names a file in the folder of its group.
    paths = [folder / group / f"{name}.py" for folder in folders] if _NAME.fullmatch(name) else []
    paths = [path for path in paths if os.path.isfile(path)]
    for path in paths:
        if source is ANY or source == digest(path):
            return Part(group, name, import_path(path, group, name), digest(path), path.parent.parent)
    for entry in _entry_points()[group]:
        if entry.name == name:
            module = load_entry(entry)
            return Part(group, name, module, digest(Path(module.__file__)) if module.__file__ else None)
    if source is not ANY and source is not None:
        where = f"{paths[0]} is not the plug-in" if paths else "no folder holds the plug-in"
        raise ConfigError(
            f"{group}={name}: {where} that this was trained with (hash {source}); name its folder with --config-dir "
            "or DYNALAB_PATH"
        )
    module_name = f"{PACKAGES[group][0]}.{name}"
    if name.isidentifier() and importlib.util.find_spec(module_name) is not None:
        with contextlib.suppress(ConfigError):
            return Part(group, name, importlib.import_module(module_name))
    legal = names(group, folders)
    raise ConfigError(
        f"{key or group}={name}: no such {group}{did_you_mean(name, legal)}; there are {listing(legal)}"
    )


@lru_cache(maxsize=1)
def entry_folders() -> tuple[Path, ...]:
    """Return the `CONF` folders that installed plug-ins ship their YAML files in."""
    modules = [load_entry(entry) for entries in _entry_points().values() for entry in entries]
    return tuple(dict.fromkeys(Path(module.CONF) for module in modules if getattr(module, "CONF", None)))


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, tuple[importlib.metadata.EntryPoint, ...]]:
    everything = importlib.metadata.entry_points()
    return {group: tuple(everything.select(group=word)) for group, (_, word) in PACKAGES.items()}
