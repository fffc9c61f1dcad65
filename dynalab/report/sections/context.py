"""What an analysis' section knows of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynalab.report.choice import older
from dynalab.report.gather import Shown, stale
from dynalab.store.reader import StoredRun
from dynalab.store.results import Result


@dataclass(frozen=True)
class Context:
    """The runs that are shown around an analysis."""

    shown: Sequence[Shown]  # the ensembles that the analysis is about, as far as they are on the page
    prefix: str  # beginning of the section's anchor

    @property
    def runs(self) -> list[StoredRun]:
        """The runs that are shown."""
        return [run for item in self.shown for run in item.runs]

    @property
    def log_steps(self) -> bool:
        """Whether steps are shown on a logarithmic axis: those of every ensemble are."""
        return all(item.log_steps for item in self.shown)

    def label(self, run: str) -> str:
        """Return the name of a run on the page: the last part of its id where there is one ensemble."""
        return run if len(self.shown) > 1 else run.rpartition("/")[2]

    def anchor(self, result: Result) -> str:
        """Return the id of an analysis' section."""
        return f"{self.prefix}-{result.kind}-{result.id}"

    def leave_out(self, result: Result, why: str) -> None:
        """Note that an analysis is damaged and is not shown."""
        item = self.shown[0]
        if result.paths.root.name not in item.ensemble.damaged:
            item.ensemble.damaged.append(result.paths.root.name)
            item.ensemble.warnings.append(why)
            item.warnings.append(why)

    def warnings(self, result: Result) -> list[str]:
        """Return what a reader must know before trusting an analysis."""
        old = [line] if (line := older(result)) else []
        return [*result.warnings, *old, *(line for item in self.shown for line in stale(item, result))]
