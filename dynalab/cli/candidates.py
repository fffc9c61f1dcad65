"""What a word of a command line may become: keys, values, ids of what is stored.

What an argument or an option takes is read off its metavar, which its help shows: `[RUN|ENSEMBLE|KEY=VALUE]...`.
Nothing slow is imported and no run.json of an outputs folder is read: names of folders tell what is stored.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dynalab.cli.options import clean
from dynalab.config import explain, registry
from dynalab.config.keys import stored_keys
from dynalab.config.places import outputs_root
from dynalab.core.errors import DynalabError
from dynalab.report.names import MADE_BY as FIGURES
from dynalab.store.filters import FIELDS
from dynalab.store.names import ANALYSIS, inside
from dynalab.store.paths import OutputPaths
from dynalab.store.runfile import STATUSES
from dynalab.store.stored import IMPORTED, StoredEnsemble

# Groups that a command of training chooses from, in the order of use; the parts of `probe` are listed by `probes`.
GROUPS = ("task", "model", "optimizer", "schedule", "average")
# A value that may be typed as it is, in what a key is said to be: `full or an integer of at least 1`.
_WORD = re.compile(r"[\w-]+")
# What is said of values that no word can be given for.
_NO_WORDS = ("seeds", "values", "integers", "numbers", "words")


@dataclass(frozen=True)
class Candidate:
    """What a word may become.

    Attributes:
        text: The whole word.
        about: What it is, in a line, for shells that show it.
        goes_on: Whether more of the same word follows it, so that no space does.
    """

    text: str
    about: str = ""
    goes_on: bool = False


@dataclass(frozen=True)
class Line:
    """What was typed before the word.

    Attributes:
        command: The command's name.
        words: Its arguments, references and overrides alike.
        takes: What the word may be, in the words of a metavar.
        folders: The folders of a user's own parts.
    """

    command: str
    words: Sequence[str]
    takes: frozenset[str]
    folders: Sequence[Path] = ()
    outputs: str | None = None

    @classmethod
    def of(cls, ctx: click.Context, param: click.Parameter) -> Line:
        """Return what a command was given before one of its parameters."""
        words: list[str] = []
        for other in ctx.command.params:
            value = ctx.params.get(other.name or "")
            if isinstance(other, click.Argument) and value is not None:
                words += value if isinstance(value, tuple | list) else [str(value)]
        metavar = param.metavar or (param.name or "").upper()
        folders: list[Path] = []
        with contextlib.suppress(DynalabError), registry.searching(ctx.params.get("config_dirs") or ()):
            folders = registry.search_path()
        takes = frozenset(re.findall(r"[A-Z]+", metavar))
        return cls(str(ctx.command.name), words, takes, folders, ctx.params.get("outputs"))

    def given(self, key: str) -> list[str]:
        """Return the values that a key was given last, several where it is swept; none where it was not."""
        texts = [
            text for word in self.words for name, _, text in [word.lstrip("+~").partition("=")] if name == key
        ]
        return [text.strip("'\" ") for text in texts[-1].split(",")] if texts else []

    @property
    def root(self) -> OutputPaths:
        """The outputs folder."""
        return OutputPaths(outputs_root(next(iter(self.given("outputs")), self.outputs)))

    def options(self, group: str) -> list[str]:
        """Return the options of a group; those of installed plug-ins are missing where one cannot be imported."""
        with contextlib.suppress(DynalabError):
            return registry.names(group, self.folders)
        files = [
            path
            for root in (*self.folders, registry.conf_dir())
            for path in (root / group).glob("[!_]*.yaml")
        ]
        return sorted({path.stem for path in files})

    def chosen(self, group: str) -> list[str]:
        """Return the options of a group that the command chooses, or would where it says nothing of the group."""
        if (names := self.given(group)) or group == "experiment":
            return names
        files = [("experiment", name) for name in self.given("experiment")]
        if group != "task":
            files += [("task", name) for name in self.chosen("task")]
        chosen = [name for folder, file in files for name in self._chosen_by(folder, file, group)]
        return chosen[:1] or self._chosen_by("", "train", group)

    def _chosen_by(self, folder: str, name: str, group: str) -> list[str]:
        """Return the option of a group that a YAML file chooses, in a list of one or none."""
        paths = (root / folder / f"{name}.yaml" for root in (*self.folders, registry.conf_dir()))
        with contextlib.suppress(OSError, ValueError, StopIteration):
            option = registry.chosen(next(path.read_text() for path in paths if path.is_file()), group)
            return [option] if option and option != "None" else []
        return []


def _passed_over() -> contextlib.suppress:
    """Pass over a stranger's folder or a plug-in that is broken, and ends the process perhaps: the rest is offered."""
    return contextlib.suppress(Exception, SystemExit)


def of(ctx: click.Context, param: click.Parameter, word: str) -> list[Candidate]:
    """Return what a word of a command, for one of its parameters, may become."""
    line = Line.of(ctx, param)
    found: dict[str, Candidate] = {}
    sources: list[tuple[str, Callable[[Line, str], Iterable[Candidate]]]] = [
        ("KIND", _kinds), ("SHEET", _sheets), ("REPRODUCTION", _reproductions),
        ("KEY", _overrides), ("ANALYSIS", _analyses), ("ENSEMBLE", _ensembles), ("REF", _ensembles),
        ("FIGURE", _figures), ("STEP", _kept_steps), ("TERMS", _terms), ("EXPERIMENT", _experiments),
    ]  # fmt: skip
    for name, source in sources:
        if name in line.takes:
            with _passed_over():
                for item in source(line, word):
                    if item.text.startswith(word):
                        found.setdefault(item.text, item)
    return list(found.values())


def _kinds(line: Line, word: str) -> Iterator[Candidate]:
    return (Candidate(kind) for kind in line.options("analysis"))


def _sheets(line: Line, word: str) -> Iterator[Candidate]:
    return (Candidate(name) for name in line.options("reproduce"))


def _figures(line: Line, word: str) -> Iterator[Candidate]:
    """Yield names of figures: the page's own, and those that analyses say they have, read without importing them."""
    yield from (Candidate(name) for name in FIGURES)
    for root in (Path(registry.__file__).parent.parent, *line.folders):
        folder = root / "analysis"
        for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
            declared = re.findall(
                r"^(?:FIGURES|PAPERS) = [({](.*?)[)}]$", path.read_text(), re.MULTILINE | re.DOTALL
            )
            yield from (Candidate(name) for name in re.findall(r'"([\w-]+)"', " ".join(declared)))


def _reproductions(line: Line, word: str) -> Iterator[Candidate]:
    return (Candidate(path.parent.name) for path in line.root.stored_reproductions())


def _analyses(line: Line, word: str) -> Iterator[Candidate]:
    return (Candidate(path.name) for path in inside(line.root.analyses, ANALYSIS))


def _ensembles(line: Line, word: str) -> Iterator[Candidate]:
    """Yield ids of ensembles and names of imported ones, `@last`; after a slash the runs of one."""
    paths = line.root
    ref, slash, _ = word.partition("/")
    if slash:
        for task, slug, digest in paths.named():
            if ref and digest.startswith(ref):
                runs = StoredEnsemble(paths.ensemble(task, slug, digest)).runs
                yield from (Candidate(f"{ref}/{run.label}", run.status) for run in runs)
        return
    yield Candidate("@last", "what was trained last")
    for task, slug, digest in paths.named():
        yield Candidate(digest, f"{task}: {slug}")
        if task == IMPORTED:
            yield Candidate(slug, "imported")


def _kept_steps(line: Line, word: str) -> Iterator[Candidate]:
    """Yield the steps of which the ensemble that was named before has a checkpoint."""
    paths, ref = line.root, line.words[0].partition("/")[0]
    named = (paths.ensemble(*parts) for parts in paths.named() if ref and parts[-1].startswith(ref))
    steps = {item.step for ensemble in named for shard in ensemble.shards() for item in shard.checkpoints()}
    return (Candidate(str(step), "a kept checkpoint") for step in sorted(steps))


def _experiments(line: Line, word: str) -> Iterator[Candidate]:
    return (Candidate(name) for name in line.options("experiment"))


def _terms(line: Line, word: str) -> Iterator[Candidate]:
    """Yield terms of a filter: fields of a run and keys of its configuration, and values where there is a sign."""
    key, equals, _ = word.partition("=")
    if equals:
        values = STATUSES if key == "status" else _values(line, key)
        yield from (Candidate(f"{key}={value}") for value in values)
    elif "." in key:
        yield from _keys(line, key)
    else:
        yield from (Candidate(f"{name}=", goes_on=True) for name in FIELDS)
        yield from (Candidate(f"{name}.", f"keys of {name}", True) for name in (*GROUPS, "edit", "train"))


def _overrides(line: Line, word: str) -> Iterator[Candidate]:
    """Yield keys, and values where the word has a key."""
    sign = next(sign for sign in ("++", "+", "~", "") if word.startswith(sign))
    key, equals, value = word.removeprefix(sign).partition("=")
    if not equals:
        for item in _keys(line, key):
            yield Candidate(sign + item.text, item.about, True)
        return
    # The last of several values.
    head = value[: max(value.rfind(letter) for letter in ",[") + 1]
    taken = re.split(r"[,\[]", head)
    # A list of probes has its bracket, also with one.
    opening = "[" if key == "probes" and not head else ""
    for legal in _values(line, key):
        if legal not in taken:
            yield Candidate(f"{sign}{key}={opening}{head}{legal}", goes_on=f"{opening}{head}".startswith("["))


def _keys(line: Line, key: str) -> Iterator[Candidate]:
    """Yield the keys that may be meant, one level at a time: `train.`, then `train.batch_size=`."""
    if line.command == "report":
        yield from (Candidate(f"{name}=") for name in ("name", "outputs"))
        return
    if line.command == "analyze":
        kind = line.words[0] if line.words else ""
        prefix = f"{kind}." if key.startswith(f"{kind}.") else ""
        yield Candidate("pool=", "one analysis over all ensembles together")
        yield from _explained(explain.part("analysis", kind, line.folders), prefix)
        return
    section, dot, rest = key.partition(".")
    shared = explain.shared()
    groups = [*GROUPS, *["edit"] * (line.command == "fork")]
    if not dot:
        for group in groups:
            yield Candidate(f"{group}=", explain.GROUPS.get(group, ""))
        yield Candidate("experiment=", "a paper's setting")
        yield from _explained(shared[""])
        for name in (*groups, "probe", *filter(None, shared)):
            yield Candidate(f"{name}.", f"keys of {name}")
    elif section == "probe":
        name, dot, _ = rest.partition(".")
        if dot:
            yield from _explained(explain.part("probe", name, line.folders))
        else:
            yield from (Candidate(f"probe.{name}.") for name in line.options("probe"))
    elif section in groups:
        for name in line.chosen(section):
            with _passed_over():
                yield from _explained(explain.part(section, name, line.folders))
    else:
        yield from _explained(shared.get(section, []))


def _explained(keys: Iterable[explain.Explained], prefix: str = "") -> Iterator[Candidate]:
    return (Candidate(f"{prefix}{item.key}=", item.about) for item in keys)


def _values(line: Line, key: str) -> list[str]:
    """Return the words that a key may be given; of numbers there are none."""
    if line.command == "analyze":
        kind = line.words[0] if line.words else ""
        key = key.removeprefix(f"{kind}.")
        if key == "pool":
            return ["true", "false"]
        stored = stored_keys(registry.find("analysis", kind, line.folders).config_class).get(key)
        if stored:
            ids = [item.text for item in _analyses(line, "") if item.text.startswith(f"{stored}-")]
            return [*ids, "@last"] if ids else []
        return _words(explain.part("analysis", kind, line.folders), key)
    if key in (*GROUPS, "experiment", "edit"):
        return line.options(key)
    if key in ("probes", "optimizer.inner"):
        return line.options({"probes": "probe"}.get(key, "optimizer"))
    section, dot, rest = key.partition(".")
    if section == "probe":
        return _words(explain.part("probe", rest.partition(".")[0], line.folders), key)
    if dot and section in (*GROUPS, "edit"):
        words: dict[str, None] = {}
        for name in line.chosen(section):
            with _passed_over():
                words |= dict.fromkeys(_words(explain.part(section, name, line.folders), key))
        return list(words)
    return _words(explain.shared().get(section if dot else "", []), key)


def _words(keys: Iterable[explain.Explained], key: str) -> list[str]:
    """Return the words among what a key is said to be: `auto, cpu, cuda or cuda:N` has three."""
    kinds = [item.kind for item in keys if item.key == key]
    pieces = [piece for kind in kinds for piece in re.split(r", | or ", kind)]
    words = [piece for piece in pieces if _WORD.fullmatch(piece) and piece not in _NO_WORDS]
    # Where null is the only word, it is hardly the value that is wanted.
    return words if words != ["null"] else []


def one_line(text: str) -> str:
    """Return a text as a shell may be given it: in a line, without what moves a cursor."""
    return " ".join(clean(text).split())
