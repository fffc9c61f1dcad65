"""Which files are checkpoints, and of which run and step: from a pattern, a table, or their names.

A pattern is a path with `*`, in which `{run}` and `{step}` may stand, or a regular expression with groups of these
names. Where they are not named, the step is the last number in a path, of those behind a word like `step` first, and
the run what tells paths apart besides. So the layout of Pythia is read as it is, `pythia-70m-seed1/step1000/...`, as a
folder of it or as the cache that Hugging Face downloads into.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.config.places import user_path
from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.imports.rows import Form, guess_column
from dynalab.imports.table import FORMATS, read_table

if TYPE_CHECKING:
    import pandas as pd

# What a table calls the column of checkpoints.
PATHS = ("path", "checkpoint", "file", "filename", "checkpoint_path")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# What trainers lay beside weights.
_OTHERS = re.compile(
    r"(optim|scheduler|scaler|rng_state|random_states|training_args|global_step\d+_optim)", re.I
)
# The weights in a folder that Hugging Face wrote, the likelier first; shards of them are numbered.
_NAMED = ("model.safetensors", "pytorch_model.bin")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
_INDEX = ".index.json"
_STEP_WORD = r"(?:global[_-]?steps?|steps?|iterations?|iter|updates?|checkpoints?|ckpt|epochs?)"
_STEP = re.compile(_STEP_WORD + r"[-_=.]?(\d+)", re.I)
_NUMBER = re.compile(r"\d+")
_SEED = re.compile(r"seed[-_=.]?(\d+)(?!.*seed)", re.I)
_GROUP = re.compile(r"\{(\w+)\}")
# How a commit is called in the cache of Hugging Face.
_COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_STEP = 2**53


@dataclass(frozen=True)
class Place:
    """Where a checkpoint stands, and what the pattern says of it; None where it does not."""

    path: str
    run: str | None = None
    step: int | None = None
    seed: int | None = None


def find(words: Sequence[str], form: Form) -> tuple[pd.DataFrame, Form, str, list[str]]:
    """Return a table of checkpoints, a row each, from patterns, paths, or a table of these.

    Args:
        words: As they were typed.
        form: Which columns of a table name the run and the step.

    Returns:
        The table, how its runs and steps are read, the name of the column of paths, and what was guessed.

    Raises:
        ConfigError: A pattern cannot be read, or it cannot be told which steps checkpoints are of.
        NothingMatched: There is no checkpoint.
    """
    if form.key or form.value or form.wide:
        raise ConfigError(
            "--checkpoints: a table of them has a row a run and step; leave out --key, --value, --wide"
        )
    if any(Path(word).suffix.lower() in FORMATS for word in words):
        if len(words) > 1:
            raise ConfigError(
                f"--checkpoints {' '.join(words[:3])}: expected patterns and paths, or one table"
            )
        return _table(user_path(words[0]), form)
    if form.run or form.step or form.split:
        raise ConfigError(
            "--run, --step and --split name columns of a table; a pattern has them as {run} and {step}"
        )
    places = [place for word in words for place in _places(word)]
    unique = {place.path: place for place in places}
    return _framed(list(unique.values()))


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a checkpoint: of a folder those with its weights, of a numbered shard all of them.

    Raises:
        ConfigError: A shard is missing, or a folder holds no weights, or several.
    """
    if path.is_dir():
        inside = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
        found = list(dict.fromkeys(_first(item) for item in inside if not _OTHERS.match(item.name)))
        named = [item for name in _NAMED for item in found if _whole(item.name) == name]
        if not named and len(found) != 1:
            names = listing([item.name for item in found])
            many = f"several that may be checkpoints, {names}; name one in the pattern"
            raise ConfigError(f"{path}: this folder has {many if found else 'no checkpoint'}")
        return files_of((named or found)[0])
    if path.name.endswith(_INDEX):
        whole = path.name.removesuffix(_INDEX)
        listed = sorted(item for item in path.parent.iterdir() if item != path and _whole(item.name) == whole)
        if not listed:
            raise ConfigError(f"{path}: the shards that it names are not in its folder")
        return files_of(_first(listed[0]))
    if shard := _SHARD.fullmatch(path.name):
        stem, total, suffix = shard["stem"], int(shard["total"]), shard["suffix"]
        files = []
        for number in range(1, total + 1):
            files.append(path.with_name(f"{stem}-{number:05d}-of-{total:05d}{suffix}"))
            if not files[-1].is_file():
                raise ConfigError(f"{files[-1]}: shard {number} of {total} is missing")
        return tuple(files)
    return (path,)


def _first(path: Path) -> Path:
    """Return the first of the shards that a file is one of, or the file."""
    shard = _SHARD.fullmatch(path.name)
    return path.with_name(f"{shard['stem']}-00001-of-{shard['total']}{shard['suffix']}") if shard else path


def _whole(name: str) -> str:
    """Return what a file would be called without shards."""
    shard = _SHARD.fullmatch(name)
    return f"{shard['stem']}{shard['suffix']}" if shard else name


def _table(path: Path, form: Form) -> tuple[pd.DataFrame, Form, str, list[str]]:
    """Return a table of paths, which are relative to its folder."""
    frame, notes = read_table(path, form)
    column = guess_column(list(frame.columns), PATHS)
    if column is None:
        raise ConfigError(f"{path}: no column is called {listing(PATHS)}; there are {listing(frame.columns)}")
    if (empty := frame[column].isna().to_numpy()).any():
        raise ConfigError(f"{path}: row {empty.argmax() + 1} names no checkpoint in the column {column}")
    paths = [str(path.parent / user_path(str(text).strip())) for text in frame[column]]
    return frame.assign(**{column: paths}), form, column, notes


def _framed(places: Sequence[Place]) -> tuple[pd.DataFrame, Form, str, list[str]]:
    import pandas as pd

    spans = [_step_of(place.path) if place.step is None else None for place in places]
    for place, span in zip(places, spans, strict=True):
        if place.step is None and span is None:
            raise ConfigError(
                f"{place.path}: its name has no number that is the step; say where it stands: {{step}}"
            )
    guessed = [place.path for place in places if place.run is None]
    runs = dict(zip(guessed, _runs_of(guessed), strict=True))
    rows = []
    for place, span in zip(places, spans, strict=True):
        run = runs.get(place.path) or place.run or "run"
        step = place.step if span is None else int(place.path[slice(*span)])
        named = _SEED.search(run)
        seed = place.seed if place.seed is not None or named is None else int(named[1])
        if max(step or 0, seed or 0) >= MOST_STEP:
            raise ConfigError(f"{place.path}: steps and seeds are whole numbers below 2^53")
        rows.append((place.path, run, step, seed))
    frame = pd.DataFrame(rows, columns=["path", "run", "step", "seed"])
    if frame["seed"].isna().any() or frame.groupby("run")["seed"].nunique().max() > 1:
        frame = frame.drop(columns="seed")
    doubts = []
    if guessed:
        path, run, step, *_ = next(row for row in rows if row[0] in runs)
        doubts = [
            f"from the paths: {path} is run {run} at step {step:,} ({{run}} and {{step}} in a pattern say more)"
        ]
    return frame, Form(("run",), "step"), "path", doubts


def _step_of(path: str) -> tuple[int, int] | None:
    """Return where the step stands in a path: the last number behind a word like `step`, else the last number."""
    starts = [match.end() for match in re.finditer(f"{re.escape(os.sep)}|^", path)]
    for pattern, group in ((_STEP, 1), (_NUMBER, 0)):
        end = len(path) - len(_suffix(path))
        for start in reversed(starts):
            if found := list(pattern.finditer(path, start, end)):
                return found[-1].span(group)
            end = max(start - 1, 0)
    return None


def _suffix(path: str) -> str:
    suffix = Path(path).suffix
    return suffix if suffix.lower() in SUFFIXES else ""


def _runs_of(paths: Sequence[str]) -> list[str]:
    """Return what tells the runs of paths apart: the parts that differ once the step is taken out."""
    parts, before = [], ""
    for path in map(os.path.abspath, paths):
        first, last = _step_of(path) or (len(path), len(path))
        before = re.sub(rf"[-_.=]?(?:{_STEP_WORD})?[-_.=]*$", "", path[:first], flags=re.I)
        # What follows the step in its name, a loss, is no run; folders may be.
        below = path.removesuffix(_suffix(path))[last:].partition(os.sep)[2]
        parts.append(Path(before, below).parts[1:])
    if len(set(parts)) == 1:
        return [os.path.basename(before.rstrip(os.sep)) or "run"] * len(parts)
    while len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    while len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    return ["/".join(own) for own in parts]


def _places(word: str) -> Iterator[Place]:
    """Yield the checkpoints that a word means."""
    text = str(user_path(word))
    path = Path(text)
    if os.path.lexists(text):
        found: Iterable[Place] = _inside(path) if path.is_dir() else [Place(str(_first(path)))]
    elif "(?P<" in word:
        found = _by_expression(word, text)
    elif _GROUP.search(word):
        found = _by_template(word, text)
    elif glob.has_magic(text):
        paths = map(Path, _globbed(text))
        found = [
            one for item in paths for one in (_inside(item) if item.is_dir() else [Place(str(_first(item)))])
        ]
    else:
        raise ConfigError(f"{word}: no such file or folder")
    found = sorted(found, key=lambda place: place.path)
    if not found:
        what = "no checkpoint in this folder" if path.is_dir() else "nothing there matches this pattern"
        raise NothingMatched(
            f"--checkpoints {word}: {what}; a checkpoint is {listing(SUFFIXES)}, or a folder of these"
        )
    if path.is_dir() or not os.path.lexists(text):
        _refuse_outside(path if path.is_dir() else Path(os.path.dirname(_plain(text))), found)
    yield from found


def _refuse_outside(folder: Path, found: Iterable[Place]) -> None:
    """Refuse what links in a folder lead to outside of it: the folder may be somebody else's.

    The cache of Hugging Face is of links from a revision to what the whole model has.

    Raises:
        ConfigError: A checkpoint lies elsewhere.
    """
    root = folder.resolve()
    root = next((part for part in (root, *root.parents) if part.name.startswith("models--")), root)
    for place in found:
        with contextlib.suppress(OSError):
            for file in files_of(Path(place.path)):
                if not (target := file.resolve()).is_relative_to(root):
                    raise ConfigError(
                        f"{file}: a link leads out of {folder}, to {target}; name what it leads to, or the file itself"
                    )


def _plain(pattern: str) -> str:
    """Return what a pattern begins with that stands for itself."""
    return re.split(r"[\\\[\](){}*+?^$|]", pattern, maxsplit=1)[0]


def _globbed(pattern: str) -> list[str]:
    """Return what a pattern matches, but for what trainers lay beside weights."""
    return [path for path in glob.glob(pattern, recursive=True) if not _OTHERS.match(os.path.basename(path))]


def _inside(folder: Path) -> list[Place]:
    """Return the checkpoints in a folder: itself, those below it, or those of a cache of Hugging Face."""
    hubs = [folder] if folder.name.startswith("models--") else sorted(folder.glob("models--*"))
    if hubs:
        return [place for hub in hubs for place in _in_hub(hub)]
    below = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
    files = [path for path in below if not _OTHERS.match(path.name) and not path.is_dir()]
    named = {path.parent for path in files if _whole(path.name) in _NAMED}
    others = [_first(path) for path in files if path.parent not in named]
    return [Place(str(path)) for path in dict.fromkeys([*named, *others])]


def _in_hub(hub: Path) -> Iterator[Place]:
    """Yield the revisions `step...` that a cache of Hugging Face holds of a model."""
    for reference in hub.glob("refs/*"):
        step = _STEP.fullmatch(reference.name)
        commit = (
            reference.read_text(encoding="ascii", errors="replace").strip() if reference.is_file() else ""
        )
        if step and _COMMIT.fullmatch(commit):
            run = hub.name.rpartition("--")[2]
            yield Place(str(hub / "snapshots" / commit), run, int(step[1]))


def _by_template(word: str, text: str) -> list[Place]:
    """Return what a path with `*` and `{names}` matches."""
    expression, names = "", set[str]()
    for token in re.findall(r"\{\w+\}|\*\*/?|\*|\?|\[!?\]?[^]]*\]|.", text, re.S):
        if name := _GROUP.fullmatch(token):
            form = "[0-9]+" if name[1] in ("step", "seed") else "[^/]+"
            expression += f"(?P={name[1]})" if name[1] in names else f"(?P<{name[1]}>{form})"
            names.add(name[1])
        elif token.startswith("**"):
            expression += "(?:.*/)?" if token.endswith("/") else ".*"
        elif token in "*?":
            expression += {"*": "[^/]*", "?": "[^/]"}[token]
        elif len(token) > 1:
            among = re.sub(r"([\\[\]^])", r"\\\1", token[1:-1].removeprefix("!"))
            expression += f"[{'^' if token[1] == '!' else ''}{among}]"
        else:
            expression += re.escape(token)
    return _matched(word, expression, _globbed(_GROUP.sub("*", text)))


def _by_expression(word: str, text: str) -> list[Place]:
    """Return what a regular expression matches whole, below the folder that it begins with."""
    folder = os.path.dirname(_plain(text))
    paths = []
    for root, folders, files in os.walk(folder or "."):
        at = root if folder else os.path.relpath(root)
        paths += [name if at == "." else os.path.join(at, name) for name in (*folders, *files)]
    return _matched(word, text, paths)


def _matched(word: str, expression: str, paths: Iterable[str]) -> list[Place]:
    try:
        pattern = re.compile(expression, re.S)
    except re.error as error:
        raise ConfigError(f"--checkpoints {word}: not a regular expression ({error})") from error
    if "step" not in pattern.groupindex:
        raise ConfigError(
            f"--checkpoints {word}: does not say where the step stands; expected {{step}} or (?P<step>\\d+) in it"
        )
    matches = ((str(_first(Path(path))), pattern.fullmatch(path)) for path in paths)
    return [_place(word, path, match.groupdict()) for path, match in matches if match]


def _place(word: str, path: str, groups: Mapping[str, str | None]) -> Place:
    for name in groups.keys() & {"step", "seed"}:
        if not re.fullmatch("[0-9]+", groups[name] or ""):
            raise ConfigError(
                f"--checkpoints {word}: {name} is {groups[name]!r} in {path}; expected a whole number of 0 or more"
            )
    others = [f"{name}{value}" for name, value in groups.items() if name not in ("run", "step") and value]
    run = groups.get("run") or "-".join(others) or None
    seed = groups.get("seed")
    return Place(path, run, int(groups["step"] or 0), None if seed is None else int(seed))
