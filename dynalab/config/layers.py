"""The files that make a configuration, in their order: Hydra's defaults lists over conf/ and a user's folders.

The only module that imports Hydra, with `overrides`: its parser and its reading of defaults lists. What its Compose API
does beside (a global state, a search path of text, a composition of its own settings) is not needed here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override as Choice
from hydra.core.override_parser.types import OverrideType, ValueType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.version import Version, VersionBase
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dynalab.config import registry
from dynalab.config.overrides import Override
from dynalab.config.tree import Tree
from dynalab.core.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """One file, by the name that defaults lists have for it, and its keys at the place that its package gives them."""

    name: str
    path: Path
    tree: Tree

    @property
    def title(self) -> str:
        """The file for a message: a shipped one below conf/, a user's in full."""
        shipped = self.path.is_relative_to(registry.conf_dir())
        return f"conf/{self.name}.yaml" if shipped else str(self.path)


class Folders(ConfigRepository):
    """A user's folders and conf/, as Hydra's reading of defaults lists sees them."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self.sources = []
        self.roots = registry.roots(folders)
        self._results: dict[str, ConfigResult | None] = {}
        self._trees: dict[str, Tree] = {}

    def _find(self, name: str) -> Path | None:
        """Return the file of a name, `probe/curvature`; None where there is none."""
        # os.path takes any text: too long for a file system, or no name at all.
        return next((path for root in self.roots if os.path.isfile(path := root / f"{name}.yaml")), None)

    def read(self, name: str) -> tuple[Path, Tree]:
        """Return a file's path and keys, without its defaults list.

        Raises:
            ConfigError: It does not exist, or is no YAML.
        """
        result = self.load_config(name)
        if result is None:
            raise ConfigError(f"{name}.yaml: no such file in {', '.join(map(str, self.roots))}")
        if name not in self._trees:
            keys = OmegaConf.to_container(result.config, resolve=False)
            assert isinstance(keys, dict)
            self._trees[name] = {str(key): value for key, value in keys.items()}
        return Path(result.path), self._trees[name]

    def layers(self, root: str, choices: Sequence[Override]) -> list[Layer]:
        """Return the files of a configuration, each stronger than those before, of a primary file and chosen groups.

        Raises:
            ConfigError: A group or option that does not exist, or a file that cannot be read.
        """
        try:
            with _current_version():
                listed = create_defaults_list(
                    self, root, list(map(_choice, choices)), prepend_hydra=False, skip_missing=False
                )
        except RecursionError as error:
            raise ConfigError("a configuration file includes itself") from error
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError) as error:
            first, *rest = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
            hint = [line for line in rest[:1] if line.startswith(("Did you mean", "To append"))]
            raise ConfigError(" ".join([first, *hint])) from error
        layers = []
        for default in listed.defaults:
            assert default.config_path is not None
            path, tree = self.read(default.config_path)
            for part in reversed((default.package or "").split(".") if default.package else []):
                tree = {part: tree}
            layers.append(Layer(default.config_path, path, tree))
        return layers

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a file with its header and defaults list; None where there is none."""
        if config_path not in self._results:
            path = self._find(config_path)
            self._results[config_path] = None if path is None else self._load(config_path, path)
        return self._results[config_path]

    def _load(self, name: str, path: Path) -> ConfigResult:
        try:
            stat = path.stat()
            text, config = _parsed(path, stat.st_mtime_ns, stat.st_size)
            if not OmegaConf.is_dict(config):
                raise ConfigError(f"{path}: expected keys and values")
            own = OmegaConf.masked_copy(config, [key for key in config if key != "defaults"])
            defaults = config._get_node("defaults") if "defaults" in config else OmegaConf.create([])
            if not OmegaConf.is_list(defaults):
                raise ConfigError(f"{path}: defaults: expected a list")
            listed = self._create_defaults_list(name, defaults)
            header = ConfigSource._get_header_dict(text[:512])
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: nested too deeply, or in itself") from error
        except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
            raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
        return ConfigResult("dynalab", str(path), own, header, listed)

    def group_exists(self, config_path: str) -> bool:
        """Return whether there is such a group."""
        return any(os.path.isdir(root / config_path) for root in self.roots)

    def config_exists(self, config_path: str) -> bool:
        """Return whether there is such a file."""
        return self._find(config_path) is not None

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        """Return the options of a group."""
        names = {path.stem for root in self.roots for path in (root / group_name).glob("*.yaml")}
        return sorted(name for name in names if not name.startswith("_"))


def _choice(item: Override) -> Choice:
    """Return the choice of a group's option as Hydra has it."""
    sign = {
        "": OverrideType.CHANGE,
        "+": OverrideType.ADD,
        "++": OverrideType.FORCE_ADD,
        "~": OverrideType.DEL,
    }
    return Choice(sign[item.sign], item.key, ValueType.ELEMENT, item.value, item.package, item.written)


@lru_cache(maxsize=256)
def _parsed(path: Path, changed: int, size: int) -> tuple[str, Any]:
    """Read a file once for as long as it stays as it is: YAML is slow to read."""
    return path.read_text(encoding="utf-8"), OmegaConf.load(path)


@contextlib.contextmanager
def _current_version() -> Iterator[None]:
    """Read defaults lists as Hydra 1.3 does, whatever a program around has set; that is put back."""
    base = VersionBase.instance()
    before = base.getbase()
    base.setbase(Version("1.3"))
    try:
        yield
    finally:
        base.version_base = before
