"""Experiments that can be named: what each is, from the block `about` of its YAML file; composition leaves it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dynalab.config import registry

ABOUT = "about"


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: As `experiment=` takes it.
        path: Its file.
        paper: `Cohen et al. 2021`; empty where none is named.
        arxiv: `2103.00065`; empty where none is named.
        shows: What it shows, in a line.
        text: The setting, what was tried and its controls, in full.
        words: What follows `dynalab train`.
        then: The commands that look at what was trained.
        keys: What its file sets, without its defaults list.
        parts: Group -> the part that it takes; of an experiment that begins with another, `experiment` -> that one.
    """

    name: str
    path: Path
    paper: str = ""
    arxiv: str = ""
    shows: str = ""
    text: str = ""
    words: str = ""
    then: tuple[str, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """What trains it."""
        return f"dynalab train experiment={self.name} {self.words}".rstrip()

    @property
    def line(self) -> str:
        """What it is in a line."""
        return ": ".join(filter(None, [self.paper, self.shows]))


def experiments(folders: Sequence[Path] = ()) -> list[Experiment]:
    """Return all experiments, by name; one whose file cannot be read has its name alone.

    Args:
        folders: A user's configuration folders.
    """
    return [_read(name, folders) for name in registry.names("experiment", folders)]


def matching(listed: Sequence[Experiment], terms: Sequence[str]) -> Iterator[Experiment]:
    """Yield the experiments in whose name, task, paper or line all terms occur, whatever their case."""
    for item in listed:
        text = " ".join([item.name, item.arxiv, item.line, *item.parts.values()]).lower()
        if all(term.lower() in text for term in terms):
            yield item


def _read(name: str, folders: Sequence[Path]) -> Experiment:
    path = next(
        path for root in registry.roots(folders) if (path := root / "experiment" / f"{name}.yaml").is_file()
    )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        tree = None
    if not isinstance(tree, Mapping):
        return Experiment(name, path)
    about = tree.get(ABOUT)
    # One sentence alone is what it shows.
    said = about if isinstance(about, Mapping) else {"shows": about or ""}
    words = {
        key: " ".join(str(said.get(key) or "").split())
        for key in ("paper", "arxiv", "shows", "text", "words")
    }
    then = said.get("then") or []
    keys = {key: value for key, value in tree.items() if key not in (ABOUT, "defaults")}
    return Experiment(
        name,
        path,
        **words,
        then=tuple(map(str, then if isinstance(then, list) else [then])),
        keys=keys,
        parts=_parts(tree.get("defaults")),
    )


def _parts(defaults: Any) -> dict[str, str]:
    """Return what a defaults list chooses: `override /task: digits`, or another experiment that it goes on from."""
    parts: dict[str, str] = {}
    for item in defaults if isinstance(defaults, list) else ():
        if isinstance(item, Mapping):
            parts |= {str(key).split()[-1].strip("/"): str(value) for key, value in item.items()}
        elif item != "_self_":
            parts["experiment"] = str(item)
    return parts
