"""From files to claim sheets: which there are, and what is wrong with one, in a line with the file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from dynalab.config import registry
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError, StoreError
from dynalab.reproduce.sheet import Claim, Removal, Scale, Sheet, SheetError
from dynalab.reproduce.words import Command, Words
from dynalab.store.names import NAME
from dynalab.store.read import read_bytes, read_yaml

FOLDER = "reproduce"
# What msgspec says of a place, `Expected `int`, got `str` - at `$.rows.each``, and of a key that is not there.
_PLACE = re.compile(r"(.*?)(?: - at (`key` in )?`\$\.?(.*)`)?", re.S)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_VALUE = re.compile(r"Invalid enum value '?(.*?)'?")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def sheet_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of all sheets, shipped and in a user's folders."""
    return [name for name in registry.names(FOLDER, folders) if NAME.fullmatch(name)]


def read_sheet(name: str, folders: Sequence[Path]) -> Sheet:
    """Read a sheet by its name.

    Raises:
        ConfigError: There is none, or something in it cannot be used.
    """
    return parse_sheet(path_of(name, folders))


def path_of(name: str, folders: Sequence[Path]) -> Path:
    """Return the file of a sheet, or raise a `ConfigError`: there is no sheet of that name."""
    legal = sheet_names(folders)
    if name not in legal:
        hint = did_you_mean(name, legal)
        raise ConfigError(f"reproduce {name}: no such sheet{hint}; there are {listing(legal)}")
    paths = (root / FOLDER / f"{name}.yaml" for root in registry.roots(folders))
    return next(path for path in paths if path.is_file())


def located(error: SheetError, path: Path) -> ConfigError:
    """Return what is wrong in a sheet that has been read with its file and line."""
    return _File(path, yaml.compose(read_bytes(path), Loader=yaml.SafeLoader)).error(error.said, error.place)


def parse_sheet(path: Path) -> Sheet:
    """Read the sheet in a file.

    Raises:
        ConfigError: It cannot be read, or something in it cannot be used: one line with file, line and key.
    """
    try:
        text = read_bytes(path)
        nodes = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = read_yaml(path, text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.context or 'not YAML'}: {error.problem}") from error
    except (StoreError, yaml.YAMLError, RecursionError) as error:
        said = str(error).removeprefix(f"{path} is damaged: ")
        raise ConfigError(f"{path}: {' '.join(said.split())}") from error
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path}: expected the keys of a sheet, title, claims and scales")
    for key, line in _doubles(nodes):
        raise ConfigError(f"{path}:{line}: {key} stands there twice")
    file = _File(path, nodes)
    for name, claim in _items(tree.get("claims")):
        file.convert(claim, Claim, "claims", name)
    for name, scale in _items(tree.get("scales")):
        for command, words in _items(_get(scale, "commands")):
            file.convert(words, str | Command, "scales", name, "commands", command)
        for place, removal in enumerate(_listed(_get(scale, "removals"))):
            at = ("scales", name, "removals", str(place))
            for command, words in _items(_get(removal, "commands")):
                file.convert(words, str | Command, *at, "commands", command)
            file.convert(removal, Removal, *at)
        file.convert(scale, Scale, "scales", name)
    sheet: Sheet = file.convert(tree, Sheet)
    return sheet


@dataclass(frozen=True)
class _File:
    """A file, and where its keys stand."""

    path: Path
    nodes: yaml.Node

    def convert(self, value: Any, form: Any, *place: str) -> Any:
        """Return a part of the file in its form."""
        try:
            if value is None:
                raise ConfigError("expected a value")
            converted = msgspec.convert(value, form, strict=False)
            if isinstance(converted, str):
                Words.of(converted)
            return converted
        except msgspec.ValidationError as error:
            said, of_key, below = _PLACE.fullmatch(str(error)).groups()  # type: ignore[union-attr]
            steps = [*place, *re.findall(r"[^.\[\]]+", below or "")]
            line: list[str] = []
            if found := _UNKNOWN.fullmatch(said):
                steps.append(found[1])
                said = f"no such key{_legal(found[1], _keys_of(_form_at(form, below or '')))}"
            elif found := _MISSING.fullmatch(said):
                said = f"{found[1]} is missing"
            elif found := _VALUE.fullmatch(said):
                said = f"{found[1]} is none of its values{_legal(found[1], _words_of(_form_at(form, below or '')))}"
                line = [found[1]] * bool(of_key)
            raise self.error(said.replace("`", ""), steps, line) from error
        except SheetError as error:
            raise self.error(error.said, (*place, *error.place)) from error
        except ConfigError as error:
            raise self.error(str(error), place) from error

    def error(self, said: str, place: Sequence[str], below: Sequence[str] = ()) -> ConfigError:
        """Return an error at a place, with the line of that, or of what stands below it; of none without a line."""
        node, line = self.nodes, 0
        for step in (*place, *below):
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
                node = node.value[int(step)]
                line = node.start_mark.line + 1
            elif found := next((pair for pair in pairs if pair[0].value == step), None):
                line, node = found[0].start_mark.line + 1, found[1]
            else:
                break
        where = f"{self.path}:{line}" if line else str(self.path)
        return ConfigError(": ".join([where, *filter(None, [".".join(place)]), said]))


def _form_at(form: Any, below: str) -> Any:
    """Return the form of what stands below another."""
    for step in filter(None, re.findall(r"[^.\[\]]+", below)):
        inner = next((item for item in (form, *get_args(form)) if _is_form(item)), None)
        form = get_type_hints(inner).get(step) if inner else form
    return form


def _keys_of(form: Any) -> list[str]:
    """Return the keys of a form; none of what is none."""
    inner = next((item for item in (form, *get_args(form)) if _is_form(item)), None)
    return list(inner.__struct_fields__) if inner else []


def _words_of(form: Any) -> list[str]:
    """Return the words that a value may be."""
    if get_origin(form) is Literal:
        return list(map(str, get_args(form)))
    return [word for item in get_args(form) for word in _words_of(item)]


def _legal(given: str, legal: Sequence[str]) -> str:
    return f"{did_you_mean(given, legal)}; there are {listing(legal)}" if legal else ""


def _is_form(form: Any) -> bool:
    return isinstance(form, type) and issubclass(form, msgspec.Struct)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, Mapping) else ()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _doubles(node: yaml.Node) -> Iterator[tuple[str, int]]:
    """Yield the keys that stand twice in one mapping, with their lines; of such YAML takes the last in silence."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield str(key.value), key.start_mark.line + 1
            seen.add(key.value)
            yield from _doubles(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _doubles(item)
