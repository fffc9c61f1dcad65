"""The typed configuration of an ensemble, its identity, and the runs that a command asks of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dynalab.config import registry, schema
from dynalab.config.schema import STREAMS, Convergence, Levels, check_cadence
from dynalab.config.tree import texts
from dynalab.config.tuned import around, filled
from dynalab.config.typed import non_neutral, plain, typed
from dynalab.core.errors import ConfigError

DEFAULT_PROBES = ("weights", "gradients")
# Shared sections that decide results, or what counts as one.
# Groups of which a configuration need have no part -> one that it may have.
OPTIONAL = {"average": "ema", "edit": "perturb"}
_SHARED = ("train", "eval", "snapshots", "seed_streams", "convergence", "levels")


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Everything that decides an ensemble's results, typed; the parts' own sections are their `Config`s."""

    task: Any
    model: Any
    optimizer: Any
    schedule: Any
    train: schema.Train
    eval: schema.Eval
    snapshots: schema.Snapshots
    seed_streams: schema.SeedStreams
    probes: tuple[str, ...] = DEFAULT_PROBES
    probe: Mapping[str, Any] = field(default_factory=dict)
    design: str = "seeds"
    convergence: Convergence = field(default_factory=Convergence)
    levels: Levels = field(default_factory=Levels)
    sources: Mapping[str, str] = field(default_factory=dict)
    # Whether the schedule needs the length of training, which is then part of the identity.
    depends_on_total: bool = False
    # Fields of `optimizer` that enter the identity although they are neutral (`dynalab.config.tuned`).
    named: tuple[str, ...] = ()
    # Of a fork: the ensemble and the step that it starts from, `ID@STEP`, that ensemble's stored configuration (what it
    # does before that step is no part of the identity: the parent's id stands for it), and what is done to its state.
    parent: str | None = None
    origin: Mapping[str, Any] | None = None
    edit: Any = None
    average: Any = None

    def identity(self) -> dict[str, Any]:
        """Return what is hashed: the identity sections, without anything at its neutral default."""
        # What is read from files enters by its content (`fingerprint`), not by its path.
        by_content = getattr(self.task, "by_content", ())
        task = {key: value for key, value in non_neutral(self.task).items() if key not in by_content}
        named = {name: plain(self.optimizer)[name] for name in self.named}
        schedule = non_neutral(self.schedule)
        sections = {
            "task": {"name": self.task.name, **task},
            "model": {"name": self.model.name, **non_neutral(self.model)},
            "optimizer": {"name": self.optimizer.name, **named, **non_neutral(self.optimizer)},
            "schedule": schedule | ({"name": self.schedule.name} if self.schedule.name != "constant" else {}),
            "train": self._lasting(non_neutral(self.train)),
            "eval": self._effective(non_neutral(self.eval)),
            "snapshots": non_neutral(self.snapshots),
            "seed_streams": non_neutral(self.seed_streams),
            "probe": {name: keys for name, config in self.probe.items() if (keys := non_neutral(config))},
            "design": self.design if self.design != "seeds" else None,
            "sources": dict(self.sources),
            "parent": self.parent,
            **{
                group: {"name": part.name, **non_neutral(part)}
                for group in OPTIONAL
                if (part := getattr(self, group)) is not None
            },
        }
        identity = {name: section for name, section in sections.items() if section}
        # Apart from the others: no probes at all is an empty list, and says something.
        other = sorted(self.probes) != sorted(DEFAULT_PROBES)
        return {**identity, "probes": sorted(self.probes)} if other else identity

    def _lasting(self, train: Mapping[str, Any]) -> dict[str, Any]:
        """Return keys of `train` without the length, which may grow, unless the schedule depends on it."""
        keys = {key: value for key, value in train.items() if key not in ("steps", "epochs")}
        return {**keys, "steps": self.train.steps} if self.depends_on_total else keys

    def _effective(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return keys of `eval` without a number of training examples that leaves none out."""
        return {key: value for key, value in keys.items() if key != "train_size" or self.most_evaluated}

    @property
    def most_evaluated(self) -> int | None:
        """The training examples of a run that are evaluated, where `eval.train_size` leaves any out; else None.

        It leaves none out where an update takes the whole set: its own pass evaluates that.
        """
        most, batch = self.eval.train_size, self.train.batch_size
        if most is None or batch == "full":
            return None
        size_of = getattr(self.task, "train_size", None)
        there = size_of() if size_of else None
        if there is not None and int(batch) >= there:
            return None
        return most if all(size is None or most < size for size in (there, self.eval.size)) else None

    @cached_property
    def id(self) -> str:
        """First 10 hex digits of the sha256 of the canonical JSON of `identity`."""
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()[:10]

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved configuration, as config.yaml stores it: without the length, which may grow."""
        tree = {
            "task": plain(self.task),
            "model": plain(self.model),
            "optimizer": plain(self.optimizer),
            "schedule": plain(self.schedule),
            "train": self._lasting(plain(self.train)),
            "probes": list(self.probes),
            "probe": {name: plain(config) for name, config in self.probe.items()},
            "snapshots": plain(self.snapshots),
            "eval": plain(self.eval),
            "seed_streams": plain(self.seed_streams),
            "design": self.design,
            "convergence": plain(self.convergence),
            "levels": plain(self.levels),
        }
        more = {
            "named": list(self.named),
            "parent": self.parent,
            **{group: plain(part) for group in OPTIONAL if (part := getattr(self, group)) is not None},
            "origin": dict(self.origin or {}),
            "sources": dict(self.sources),
        }
        return tree | {key: value for key, value in more.items() if value}


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, floats by repr."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_stored(tree: Mapping[str, Any], folders: Sequence[Path] = ()) -> EnsembleConfig:
    """Type a stored config.yaml, with the plug-ins that it was made with, which are compared before they are imported.

    Args:
        tree: The configuration.
        folders: The command's plug-in folders.

    Raises:
        ConfigError: A plug-in or data file is not what it was, or is in none of the folders; or as `from_tree`.
    """
    if named := next((key for key, text in texts(tree) if "${" in text), None):
        raise ConfigError(
            f"{named}: a stored configuration refers to nothing; this one was not written by dynalab"
        )
    stored = dict(tree.get("sources") or {})
    config = from_tree(tree, folders, stored=stored)
    for name in {**stored, **config.sources}:
        if stored.get(name) != config.sources.get(name):
            raise ConfigError(
                f"{name}: a plug-in or data file is not the one that this ensemble was first trained with"
            )
    return config


def from_tree(
    tree: Mapping[str, Any],
    folders: Sequence[Path] = (),
    known: MutableMapping[Any, Any] | None = None,
    stored: Mapping[str, str] | None = None,
) -> EnsembleConfig:
    """Type a composed tree.

    Args:
        tree: The tree.
        folders: A user's configuration folders.
        known: Sections that were typed before, as `typed` keeps them.
        stored: Of a stored configuration, the hashes of the plug-ins and files that it was made with.

    Raises:
        ConfigError: A part that does not exist, an unknown key, a wrong type or a value out of range.
    """
    read = partial(typed, known=known)

    def find(group: str, name: str, source: str) -> registry.Part:
        wanted = registry.ANY if stored is None else stored.get(source)
        return registry.find(group, name, folders, wanted, key=group if group == "probe" else source)

    # In a stored configuration every value is said.
    tuned = tree.get("tuned") or {} if stored is None else {}
    parts: dict[str, Any] = {}
    sources: dict[str, str] = {}
    named: Sequence[str] = ()
    for group in ("task", "model", "optimizer", "schedule"):
        node = dict(tree.get(group) or {})
        part = find(group, str(node.get("name")), group)
        config_class = part.config_class
        if hasattr(config_class, "around"):
            config_class, node, named = around(config_class, group, {**tree, "tuned": tuned}, folders, find)
            if config_class.part.source:
                sources[f"{group}.inner"] = config_class.part.source
        else:
            node = filled(node, tuned.get(group) or {})
        parts[group] = read(config_class, node, group)
        if part.source:
            sources[group] = part.source
        if group == "schedule":
            # One of the user's that does not say may use the length; that it cannot be prolonged is the safe side.
            says = getattr(part.module, "needs_total", None)
            depends_on_total = bool(says(parts[group])) if says else True
    if fingerprint := getattr(parts["task"], "fingerprint", None):
        sources |= {f"task.{name}": digest for name, digest in fingerprint().items()}
    probe = {}
    for name in tree.get("probes") or ():
        part = find("probe", name, f"probe.{name}")
        probe[name] = read(part.config_class, (tree.get("probe") or {}).get(name) or {}, f"probe.{name}")
        check_cadence(f"probe.{name}", probe[name].every, probe[name].at)
        if part.source:
            sources[f"probe.{name}"] = part.source
    optional = {}
    for group, example in OPTIONAL.items():
        if not (keys := tree.get(group)):
            continue
        if "name" not in keys:
            raise ConfigError(
                f"{group}.{next(iter(keys))}: name the {group} as well, for example {group}={example}"
            )
        part = find(group, str(keys["name"]), group)
        optional[group] = read(part.config_class, keys, group)
        if part.source:
            sources[group] = part.source
    design = tree.get("design") or "seeds"
    if design not in ("seeds", "crossed"):
        raise ConfigError(f"design={design}: expected seeds or crossed")
    return EnsembleConfig(
        **parts,
        **{name: read(schema.SHARED[name], tree.get(name) or {}, name) for name in _SHARED},
        probes=tuple(dict.fromkeys(tree.get("probes") or ())),
        probe=probe,
        design=design,
        sources=sources,
        depends_on_total=depends_on_total,
        named=tuple(named),
        parent=tree.get("parent"),
        origin=tree.get("origin"),
        **optional,
    )


@dataclass(frozen=True)
class RunSpec:
    """One run of an ensemble.

    Attributes:
        label: Last part of its id: `s0007`, or `init3-order1` in a crossed design.
        seed: Its seed, or None in a crossed design.
        streams: Stream -> seed of the stream.
    """

    label: str
    seed: int | None
    streams: Mapping[str, int]


def runs_of(config: EnsembleConfig, seeds: Sequence[int]) -> list[RunSpec]:
    """Return the runs that the seeds (or the crossed streams) span.

    Raises:
        ConfigError: A stream has several values without `design=crossed`, or a crossed design spans nothing.
    """
    streams = {name: value for name in STREAMS if (value := getattr(config.seed_streams, name)) is not None}
    if config.design == "seeds":
        return [
            RunSpec(f"s{seed:04d}", seed, {name: streams.get(name, seed) for name in STREAMS})
            for seed in seeds
        ]
    crossed = [name for name, value in streams.items() if isinstance(value, list)]
    if not crossed:
        raise ConfigError(
            "design=crossed needs a stream with several values, for example seed_streams.init=0..4"
        )
    if len(seeds) != 1:
        raise ConfigError("design=crossed takes one seed=, for the streams that are not crossed")
    base = dict.fromkeys(STREAMS, seeds[0]) | {k: v for k, v in streams.items() if k not in crossed}
    specs = [RunSpec("", None, base)]
    for name in crossed:
        specs = [
            RunSpec(f"{spec.label}-{name}{value}".lstrip("-"), None, {**spec.streams, name: value})
            for spec in specs
            for value in streams[name]
        ]
    return specs
