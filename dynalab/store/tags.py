"""Tags: words that a user puts on ensembles and runs to find them again, `-f tag=paper`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from dynalab.core.atomic import write_json
from dynalab.core.errors import ConfigError, StoreError
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths
from dynalab.store.read import check, mapping, read_json, text, whole

# As it is typed in a filter, without quotes.
_TAG = re.compile(r"\w[\w.+-]{0,49}")
# Tag -> the labels of runs that have it; null: the whole ensemble, runs that are trained later included.
Tags = Mapping[str, Sequence[str] | None]


def check_tag(tag: str) -> str:
    """Return a tag.

    Raises:
        ConfigError: It is none.
    """
    if not _TAG.fullmatch(tag):
        raise ConfigError(f"{tag!r} is no tag: expected up to 50 letters, digits, . _ + or -, without spaces")
    return tag


def read(paths: EnsemblePaths) -> Tags:
    """Read the tags of an ensemble, none where there is no file.

    Raises:
        StoreError: It is damaged.
    """
    if not paths.tags.is_file():
        return {}
    document = read_json(paths.tags)
    try:
        check(document, {"schema_version": whole, "tags": mapping(([text],), _is_tag)})
    except ValueError as error:
        raise StoreError(f"{paths.tags} is damaged: {error}") from error
    return document.get("tags", {})


def _is_tag(value: object) -> bool:
    return isinstance(value, str) and _TAG.fullmatch(value) is not None


def of_run(tags: Tags, label: str) -> list[str]:
    """Return the tags of a run, in order."""
    return sorted(tag for tag, labels in tags.items() if labels is None or label in labels)


def change(
    paths: EnsemblePaths,
    labels: Collection[str] | None,
    every: Collection[str],
    add: Collection[str],
    remove: Collection[str],
) -> None:
    """Put tags on runs and take others away.

    Args:
        paths: The ensemble.
        labels: Of the runs; None: of the whole ensemble.
        every: The labels of all its runs.
        add: Tags to put on.
        remove: Tags to take away; one that is not there is no mistake.

    Raises:
        StoreError: The file is damaged, or cannot be written; it stands as it was.
    """
    paths.refuse_links()
    with Lock(paths.lock, wait=10.0):
        tags = {tag: None if some is None else [*some] for tag, some in read(paths).items()}
        for tag in add:
            here = tags.get(tag, [])
            tags[tag] = None if labels is None or here is None else sorted({*here, *labels})
        for tag in remove:
            some = [] if labels is None else [*(every if (kept := tags.get(tag, [])) is None else kept)]
            tags[tag] = [label for label in some if labels is None or label not in labels]
        write_json(
            paths.tags, {"schema_version": 1, "tags": {tag: some for tag, some in tags.items() if some != []}}
        )
