"""Functions that analyse, and show what an analysis says."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dynalab.api.ensembles import load
from dynalab.config.places import outputs_root
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.plugins import named
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, find_result

if TYPE_CHECKING:
    from dynalab.show.view import View


@overload
def analyze(kind: str, ensemble: Ensemble | str, **keys: Any) -> Result: ...
@overload
def analyze(kind: str, ensemble: Any, *others: Any, **keys: Any) -> Any: ...
@named
def analyze(kind: str, ensemble: Any, *others: Any, **keys: Any) -> Any:
    """Analyse an ensemble, as `dynalab analyze KIND` does; a stored result is reused. Some kinds train, as it does.

    Where the outputs folder cannot be written a warning says so, and the result has all that it would have.

        result = dynalab.analyze("hmm", "cb7150eb3e", max_states=4)
        results = dynalab.analyze("hmm", dynalab.load_all())          # of each ensemble one

    Args:
        kind: `hmm`, ...; one of your own is found in the folders of `DYNALAB_PATH` and among installed plug-ins.
        ensemble: An ensemble or its id, or a list of several.
        *others: More of them.
        **keys: Keys of the analysis; nested ones as dictionaries, `convergence={"metric": "loss"}`.

    Returns:
        The result; for several ensembles a list, one for each, and after these one a task where the kind is also about
        all of them together (`*each, together = dynalab.analyze("examples", ...)`). Where it is about nothing else, or
        `pool=True` makes one over all: one.

    Raises:
        ConfigError: There is no such analysis, or a key does not exist or cannot have this value.
        NothingMatched: Of an ensemble no run can enter; where it is one over all, of none.
    """
    from dynalab.analysis.command import gather, needs_of
    from dynalab.config.analysis import pooled, read_analysis
    from dynalab.config.overrides import Override
    from dynalab.config.registry import search_path
    from dynalab.explore import drive

    ensemble = [ensemble, *others] if others else ensemble
    several = isinstance(ensemble, list | tuple)
    refs = ensemble if several else [ensemble]
    named_ones = [item if isinstance(item, Ensemble) else load(item) for item in refs]
    opened = list({item.id: item for item in named_ones}.values())
    pool, overrides = pooled([Override.of(key, value) for key, value in keys.items()])
    part, config = read_analysis(kind, overrides)
    together = pool or needs_of(part, config).across
    if not opened:
        if together:
            raise NothingMatched(f"analyze {kind} needs ensembles, and there is none")
        return []

    def tell(line: str) -> None:
        # A list has one of each.
        if not together:
            said = line.removeprefix("left out: ")
            raise NothingMatched(f"analyze {kind} needs a run of each ensemble that can enter: {said}")
        warnings.warn(line, stacklevel=4)

    results = []
    for inputs in gather([(item, item.runs) for item in opened], part, config, pool=pool, tell=tell):
        try:
            trainer = drive.Trainer(inputs.ensembles[0].path.parent.parent, search_path())
            results.append(drive.analyse(inputs, part, config, trainer))
            if results[-1].unstored:
                warnings.warn(results[-1].unstored, stacklevel=3)
        except (NothingMatched, ConfigError) as error:
            # As by the command, what is said of each stands where nothing can be said of all together.
            if together or len(inputs.ensembles) == 1:
                raise
            warnings.warn(f"the ensembles are not compared: {error}", stacklevel=3)
    return results if several and not together else results[0]


@named
def view(
    result: Result | str, *, size: tuple[float, float] | None = None, outputs: str | Path | None = None
) -> View:
    """Return what an analysis says, as the page has it: a notebook shows it, `print` prints it.

        view = dynalab.view("hmm-7ebafd365b", size=(6, 3))
        print(view)
        figures = [block for block in view if hasattr(block, "alt")]
        dynalab.figures.draw(figures[0], size=(3.25, 2.2)).savefig("figure.pdf")   # a column of a paper

    Args:
        result: A stored analysis, or its id.
        size: Width and height of its figures in inches; by default each has its own.
        outputs: The outputs folder, where an id is given.

    Raises:
        ConfigError: The analysis is not there, has nothing to say, or is at another version than the result's.
        NothingMatched: No analysis has this id.
    """
    from dynalab.analysis.command import blocks_of
    from dynalab.config.registry import find, search_path
    from dynalab.show.blocks import in_order
    from dynalab.show.view import View
    from dynalab.store.runfile import STATUSES

    if isinstance(result, str):
        result = find_result(outputs_root(outputs), result)
    if not isinstance(result, Result):
        raise ConfigError(f"view: expected a stored analysis or its id, not {type(result).__name__}")
    name = f"{result.kind}-{result.id}"
    part = find("analysis", result.kind, search_path())
    if not hasattr(part.module, "show"):
        raise ConfigError(
            f"{name}: the analysis {result.kind} has no blocks to show; `dynalab report` shows it"
        )
    if result.value is None:
        raise ConfigError(
            f"{name}: another version of the analysis made it; `dynalab analyze {result.kind}` makes it anew"
        )
    root = result.paths.root.parent.parent
    runs = [item["run"] for item in result.data.get("inputs") or ()]
    groups = []
    for ref in result.ensembles:
        # Figures are of what was recorded, where it is still there.
        with contextlib.suppress(NothingMatched):
            groups.append(load(ref, outputs=root).group(STATUSES, runs))
    said = in_order(blocks_of(part, result.value, groups), result.warnings)
    return View(said, name, size, part.module.show)
