"""Modules of plug-ins, imported as their sources are now."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dynalab.core import plugins
from dynalab.core.errors import ConfigError


@dataclass(frozen=True)
class _Loaded:
    """A module as it was when it was loaded: source file -> hash, of it and of those that it imported; their names."""

    module: ModuleType
    digests: Mapping[Path, str]
    names: tuple[str, ...] = ()

    def is_current(self) -> bool:
        return all(path.is_file() and digest(path) == digest_ for path, digest_ in self.digests.items())


# A long-lived process, a notebook's, sees its user edit plug-ins.
_LOADED: dict[Path, _Loaded] = {}


def load_entry(entry: importlib.metadata.EntryPoint) -> ModuleType:
    """Import the module that an entry point of an installed package names.

    Raises:
        PluginError: It cannot be imported.
        ConfigError: The entry point names no module.
    """
    package = importlib.util.find_spec(entry.module.partition(".")[0])
    for folder in (package and package.submodule_search_locations) or ():
        plugins.know(Path(folder))
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        raise _cannot(error, f"plug-in {entry.value}") from error
    if not isinstance(loaded, ModuleType):
        raise ConfigError(f"plug-in {entry.value}: the entry point must name a module")
    if loaded.__file__:
        path = Path(loaded.__file__)
        known = _LOADED.setdefault(path, _Loaded(loaded, {path: digest(path)}))
        if not known.is_current():
            loaded = importlib.reload(loaded)
            _LOADED[path] = _Loaded(loaded, {path: digest(path)})
    return loaded


def import_path(path: Path, group: str, name: str) -> ModuleType:
    """Import a file as it is now: again where it, or a module of its folder that it imports, was changed.

    Raises:
        PluginError: It cannot be imported.
    """
    folder = path.parent.parent
    plugins.know(folder)
    loaded = _LOADED.get(path)
    if loaded is not None:
        if loaded.is_current():
            return loaded.module
        for below in loaded.names:
            sys.modules.pop(below, None)
    # The module's name carries its folder, so that two folders may hold a part of the same name.
    of_path = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    qualified = f"dynalab_plugins.p{of_path}.{group}.{name}"
    spec = importlib.util.spec_from_file_location(qualified, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    before = sys.dont_write_bytecode
    # Compiled files are told from their sources by size and second: an edit may change neither.
    sys.dont_write_bytecode = True
    try:
        text = path.read_bytes()
        exec(compile(text, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[qualified]
        raise _cannot(error, str(path)) from error
    finally:
        sys.dont_write_bytecode = before
    imported = {
        key: Path(file)
        for key, item in list(sys.modules.items())
        if (file := getattr(item, "__file__", None))
        and not key.startswith("dynalab_plugins.")
        # First what is fast: where torch is loaded, there are thousands.
        and folder.name in file
        and Path(file).is_relative_to(folder)
        and plugins.is_plugin(file)
        # What imports this file, as its test does, is not what it imports.
        and not getattr(item.__spec__, "_initializing", False)
    }
    digests = {file: digest(file) for file in imported.values() if file.is_file()}
    _LOADED[path] = _Loaded(module, {**digests, path: _hash(text)}, tuple(imported))
    return module


def _cannot(error: BaseException, name: str) -> plugins.PluginError:
    """Return the error for a module that cannot be imported; `name` stands where no line of it is to blame."""
    place = plugins.innermost(error) or f"{name}: "
    return plugins.PluginError(f"{place}cannot be imported: {plugins.said(error)}")


def digest(path: Path) -> str:
    """Return what stands for a plug-in's source in an identity."""
    return _hash(path.read_bytes())


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
