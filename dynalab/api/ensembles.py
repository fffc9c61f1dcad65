"""Functions that open what is stored."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.places import outputs_root
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.plugins import named
from dynalab.core.words import listed
from dynalab.store.find import Selection, readable, select
from dynalab.store.reader import Ensemble
from dynalab.store.results import find_result

if TYPE_CHECKING:
    import pandas as pd

# What names ensembles: references, ensembles, and lists of these.
Refs = str | Path | Ensemble | Sequence[str | Path | Ensemble]


@named
def load(ref: str | Path = "@last", *, outputs: str | Path | None = None) -> Any:
    """Open a stored ensemble, or a stored analysis.

        ensemble = dynalab.load("cb7150eb3e")            # an Ensemble; of an imported one the name will do
        ensemble.frame(), ensemble.array("train_loss")   # a pandas data frame; (S, T)

        result = dynalab.load("hmm-7ebafd365b")          # a Result
        result.headline, result["config"]                # a sentence; plain values
        result.frames()                                  # table -> pandas data frame

    Args:
        ref: An ensemble's id (its beginning is enough), folder or, of an imported one, name; `@last`; or an analysis'
            id, with its kind before it or without.
        outputs: The outputs folder.

    Returns:
        An `Ensemble`, or a `Result` where the id is an analysis'.

    Raises:
        NothingMatched: Nothing has this id.
        ConfigError: Several ensembles do.
    """
    root = outputs_root(outputs)
    try:
        selection = select(root, [str(ref)], None, Ensemble)
    except NothingMatched:
        with contextlib.suppress(NothingMatched):
            return find_result(root, str(ref))
        raise
    if len(selection) != 1:
        ids = listed([ensemble.id for ensemble, _ in selection], 4)
        raise ConfigError(
            f"{ref} means {len(selection)} ensembles ({ids}): dynalab.load_all({str(ref)!r}) opens them all, "
            "dynalab.load(ID) one"
        )
    return selection[0][0]


def load_all(
    *refs: Refs, where: str | None = None, forks: bool = False, outputs: str | Path | None = None
) -> list[Ensemble]:
    """Open several stored ensembles, such as those of a sweep.

        for ensemble in dynalab.load_all():              # what was trained last
            print(ensemble, ensemble.array("test_accuracy")[:, -1])
        adaptive = dynalab.load_all(where="optimizer=adamw status=done")

    Args:
        *refs: As `load` takes them, without analyses; none: the last that were trained, with `where` everything.
        where: Terms of which all hold for some run of an ensemble, as `-f` of the commands: `optimizer.lr<0.01`.
        forks: Whether everything has forks in it.
        outputs: The outputs folder.

    Returns:
        The ensembles, each once, in the order in which they are named.

    Raises:
        NothingMatched: Nothing has this id, or no run fits.
        ConfigError: The beginning of an id is several ensembles', or a term cannot be read.
    """
    return [ensemble for ensemble, _ in _selection(refs, where, forks, outputs)]


def ensembles_frame(
    *refs: Refs, where: str | None = None, forks: bool = False, outputs: str | Path | None = None
) -> pd.DataFrame:
    """Return what became of runs: a pandas data frame with one row a run, for the statistics of a sweep.

        frame = dynalab.ensembles_frame()                # of what was trained last, or is being trained
        frame.groupby("ensemble")[["generalised_step", "final.test_accuracy"]].median()

    Args:
        *refs: As `load_all` takes them; of a run's id the run alone.
        where: As of `load_all`; only the runs for which all terms hold.
        forks: As of `load_all`.
        outputs: The outputs folder.

    Returns:
        A row a run, with the columns `ensemble` (its id), `task`, `run` (its id), `seed`, `label`, `status`, `steps`,
        `requested_steps`; each configuration key in which the ensembles differ (`optimizer.lr`; a part by its group,
        `optimizer`), missing where an ensemble has no such key; of forks `parent` and `parent_step`, of imported
        ensembles `name`; the landmarks `memorised_step`, `generalised_step`, `diverged_step`; and the last row's
        metrics, `final.test_accuracy`. Steps that never came are missing values of nullable integers.

    Raises:
        NothingMatched: Nothing has this id, or no run fits.
        ConfigError: The beginning of an id is several ensembles', or a term cannot be read.
        StoreError: The configurations of all of them are damaged.
    """
    from dynalab.store.outcomes import outcomes

    selection, lines = readable(_selection(refs, where, forks, outputs))
    for line in [*lines, *(line for ensemble, _ in selection for line in ensemble.warnings)]:
        warnings.warn(line, stacklevel=2)
    return outcomes(selection)


def _selection(
    refs: Iterable[Refs], where: str | None, forks: bool, outputs: str | Path | None
) -> Selection[Ensemble]:
    """Return what references name, as it is stored now: an ensemble that was opened before is opened again."""
    flat: list[str | Path | Ensemble] = []
    for ref in refs:
        flat += ref if isinstance(ref, list | tuple) else [ref]  # type: ignore[list-item]
    for ref in flat:
        if not isinstance(ref, str | Path | Ensemble):
            raise ConfigError(f"{ref!r}: expected an ensemble, its id or a list of these")
    opened = [ref for ref in flat if isinstance(ref, Ensemble)]
    root = outputs_root(opened[0].path.parent.parent if opened and outputs is None else outputs)
    if refs and not flat:
        raise NothingMatched("there are no ensembles in an empty list")
    names = [str(ref.path if isinstance(ref, Ensemble) else ref) for ref in flat]
    return select(root, names, where, Ensemble, forks)
