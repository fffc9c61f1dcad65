"""What a word that somebody asks about means: a key, the keys of a section or part, or the options of a group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.experiments import experiments
from dynalab.config.explain import GROUPS, Explained, part, shared, title
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError

_TUNED = (
    "what a task says of the other parts in its YAML, where your words leave it open: tuned.optimizer.adamw.lr is the "
    "rate that optimizer=adamw has in this task"
)


@dataclass(frozen=True)
class Answer:
    """What is said of one key.

    Attributes:
        key: As one types it.
        about: What it is.
        kind: What it may be, in words; empty of a group.
        legal: Its range, in words.
        defaults: Part -> its default there, `sgd`; under an empty name that of a key that belongs to no part.
        options: Of a group, option -> what it is.
    """

    key: str
    about: str
    kind: str = ""
    legal: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def look_up(
    word: str,
    folders: Sequence[Path] = (),
    chosen: Mapping[str, tuple[str, Sequence[Explained]]] | None = None,
) -> list[Answer]:
    """Return what is said of a word, several answers where it stands for several keys.

    Args:
        word: `train.sphere`, `train`, `optimizer`, `optimizer.lr`, `optimizer.sgd`, `probe.curvature.every`, `hmm`,
            `hmm.max_states`, `seed`.
        folders: A user's configuration folders.
        chosen: Group -> the part that is chosen and its keys, where one is: others of the group are not looked at.

    Raises:
        ConfigError: It means nothing; says what is near.
    """
    # As a shell completes it.
    word, chosen = word.rstrip("="), chosen or {}
    if answers := _shared(word) or _group(word, folders):
        return answers
    group, _, rest = word.partition(".")
    if group == "tuned":
        return [Answer(word, _TUNED)]
    if group == "analysis" and rest:
        group, _, rest = rest.partition(".")
    if group in GROUPS and group != "analysis":
        keys = dict([chosen[group]]) if group in chosen else dict(_parts(group, folders))
        if answers := _merged(_matching(word, keys)):
            return answers
        name, _, below = rest.partition(".")
        if name in registry.names(group, folders) and not below:
            return _merged([(name, item) for item in part(group, name, folders)]) or [
                Answer(word, f"{title(group, name, folders)}; no keys of its own")
            ]
        if group in chosen and (answers := _merged(_matching(word, dict(_parts(group, folders))))):
            return answers
    elif group in registry.names("analysis", folders):
        keys = {group: part("analysis", group, folders)}
        named = [
            (name, Explained(f"{group}.{x.key}", x.about, x.kind, x.legal, x.default))
            for name, x in _flat(keys)
        ]
        if answers := _merged([pair for pair in named if not rest or _is(pair[1].key, word)]):
            return answers
    if (name := rest.partition(".")[0]) in registry.names(group, folders) if group in GROUPS else False:
        # One of the user's may not work, which is what there is to say of it.
        part(group, name, folders)
    raise ConfigError(
        f"{word}: no such key{did_you_mean(word, known(folders))}; dynalab config shows every key"
    )


def known(folders: Sequence[Path] = ()) -> list[str]:
    """Return every word that can be looked up."""
    words = [item.key for keys in shared().values() for item in keys]
    words += [*filter(None, shared()), *GROUPS, "experiment", "tuned"]
    for group in GROUPS:
        for name, keys in _parts(group, folders):
            words.append(f"{group}.{name}")
            words += [f"{name}.{item.key}" if group == "analysis" else item.key for item in keys]
    return list(dict.fromkeys([*words, *registry.names("analysis", folders)]))


def _is(key: str, word: str) -> bool:
    """Return whether a key is the one that was asked for, or below it."""
    return key == word or key.startswith(f"{word}.")


def _shared(word: str) -> list[Answer]:
    return [
        Answer(item.key, item.about, item.kind, item.legal, {"": item.default})
        for keys in shared().values()
        for item in keys
        if _is(item.key, word)
    ]


def _group(word: str, folders: Sequence[Path]) -> list[Answer]:
    if word == "experiment":
        shipped = {item.name: item.line for item in experiments(folders)}
        return [Answer(word, "a setting of a paper, or of your own", options=shipped)]
    if word not in GROUPS:
        return []
    options = {}
    for name in registry.names(word, folders):
        # One of the user's may not work.
        with contextlib.suppress(ConfigError):
            options[name] = title(word, name, folders)
    return [Answer(word, GROUPS[word], options=options)]


def _parts(group: str, folders: Sequence[Path]) -> Iterator[tuple[str, list[Explained]]]:
    for name in registry.names(group, folders):
        with contextlib.suppress(ConfigError):
            yield name, part(group, name, folders)


def _flat(parts: Mapping[str, Sequence[Explained]]) -> list[tuple[str, Explained]]:
    return [(name, item) for name, keys in parts.items() for item in keys]


def _matching(word: str, parts: Mapping[str, Sequence[Explained]]) -> list[tuple[str, Explained]]:
    return [(name, item) for name, item in _flat(parts) if _is(item.key, word)]


def _merged(pairs: Sequence[tuple[str, Explained]]) -> list[Answer]:
    """Return an answer for every key; one for all parts in which it is the same thing."""
    answers: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for name, item in pairs:
        # The key of a probe or an analysis names it itself.
        answers.setdefault((item.key, item.about, item.kind, item.legal), {})[
            "" if f"{name}." in item.key else name
        ] = item.default
    return [Answer(key, about, kind, legal, found) for (key, about, kind, legal), found in answers.items()]
