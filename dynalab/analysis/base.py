"""What an analysis is: a pure function from stored runs to findings, and what it says of them.

An analysis is one module (`dynalab/analysis/KIND.py`, or a package of that name, or a plug-in's file) that holds

- `VERSION`, an integer that is raised when results change (it enters the result's id);
- `NEEDS`, a `Needs`, or a function of the configuration that returns one;
- `Config`, a dataclass of its keys, a subclass of `Keys`;
- `Findings`, a frozen dataclass; its fields are the keys of the command's `--json`, those of type `Frame` are tables
  that are stored beside it, and `warnings`, where there is one, are lines a reader must see before the numbers;
- `analyse(groups, config) -> Findings`;
- `show(findings, groups)`, which yields blocks (`dynalab.show.blocks`) for terminal, page and notebook alike; a
  terminal gives no groups. Without it, findings are shown as plain tables.

An analysis that trains holds `explore(groups, config)` in the place of `analyse`, or beside it, where `--confirm` asks
for it: a generator that yields waves of `dynalab.core.waves.Fork`, is sent name -> their runs as groups, and returns
the findings.

It may hold

- `TITLE`, the heading of its section, or a function of the findings that returns it;
- `FIGURES`, the names of its figures, `profile-*` where they begin so, and `PAPERS`, those of its paper: name -> a
  function of label -> group that returns a `Figure`;
- `LEAD`, the name of its figure that answers its question: the page begins with it, in place of the curves;
- `contrast(findings)`, of the findings of two stored results by their ids, the reference first: a frozen dataclass
  `Contrast`, which is stored; `CONTRAST_VERSION`, which is raised when its numbers change; `compared(findings)`, the
  plain values that it looks at; and `show_contrasts(contrasts, findings)`, the blocks that say it on the page;
- in `Findings` a method `facts()`: name -> value, for the table that holds ensembles side by side.

A key with `stored=` names another stored result: `analyse` finds its findings in the key's value, a `Stored`.

Beside series a run has its weights (`Run.weights`), its network and its examples, and a group has all runs' networks
side by side (`Group.stack`); `Needs` says so, and nothing of it is read before it is asked for.

It reads arrays and returns plain values and tables. It knows no folder, no terminal and nothing of training. Nothing
outside knows it by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dynalab.config.keys import Keys as Keys
from dynalab.config.keys import key as key
from dynalab.core.convergence import Convergence as Convergence
from dynalab.core.records import Frame as Frame
from dynalab.core.records import frame as frame
from dynalab.core.runs import Group as Group
from dynalab.core.runs import Run as Run
from dynalab.core.runs import Series as Series
from dynalab.core.trajectories import Trajectories as Trajectories
from dynalab.core.trajectories import Trajectory as Trajectory


@dataclass(frozen=True)
class Needs:
    """What an analysis reads, how it comes to be recorded, and which runs it takes.

    Attributes:
        columns: Metrics that it cannot do without; of those in a tuple one is enough.
        optional: Metrics that it looks at where they were recorded.
        record: Overrides of `dynalab train` that record them.
        imports: Columns that a table of runs trained elsewhere needs, in words; empty: those that are missing.
        blocks: Blocks that it cannot do without.
        statuses: Statuses of the runs that it takes.
        weights: Whether it reads weights (`Run.weights`), which must have been kept at some step.
        network: Whether it runs networks (`Run.network`, `Group.stack`), which must be dynalab's own or a plug-in's.
        across: Whether it is of all ensembles together; otherwise of each, unless `pool=true` asks for that.
        together: Whether it is, beside of each, of all ensembles of a task together, as `pool=true` alone makes it.
        sweeps: Whether a report makes it first for every task that has several ensembles.
    """

    columns: tuple[str | tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    record: str = ""
    imports: str = ""
    blocks: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ("done",)
    weights: bool = False
    network: bool = False
    across: bool = False
    together: bool = False
    sweeps: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """The names in `columns`."""
        return tuple(name for item in self.columns for name in (item if isinstance(item, tuple) else (item,)))

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics that it looks at; empty where it takes whatever was recorded."""
        return tuple(dict.fromkeys([*self.required, *self.optional]))

    def missing(self, recorded: Collection[str], blocks: Collection[str] = ()) -> list[str]:
        """Return what is not among the metrics and blocks that were recorded."""
        ways = [(item,) if isinstance(item, str) else item for item in self.columns]
        found = [" or ".join(names) for names in ways if not {*recorded} & {*names}]
        return [*found, *(name for name in self.blocks if name not in blocks)]

    def require_weights(self, group: Group) -> None:
        """Raise `NothingMatched` where a run has no weights at any step, or no network, and it is needed."""
        for run in group.runs if self.weights or self.network else ():
            if not run.weights.steps:
                raise run.weights.missing()
            if self.network:
                run.require_learner()


def runs_of(groups: Sequence[Group]) -> list[Run]:
    """Return the runs of some groups, in their order."""
    return [run for group in groups for run in group.runs]


def on_one_grid(groups: Sequence[Group]) -> Trajectories:
    """Return the runs of some groups as tables, on the metrics and the rule of convergence that all have.

    Their rows are those of the evaluation grid, their metrics what was recorded on it or on a finer one.
    """
    shared = [name for name in groups[0].metrics if all(name in group.metrics for group in groups)]
    runs = [
        Trajectory(run.id, run.grid, run.table(shared), run.seed, run.status, run.config, run.diverged_step)
        for run in runs_of(groups)
    ]
    warnings = []
    dropped = sorted({name for group in groups for name in group.metrics} - set(shared))
    if dropped:
        warnings.append(f"not in every ensemble, left out: {', '.join(dropped)}")
    rules = list(dict.fromkeys(group.convergence for group in groups))
    if len(rules) > 1:
        names = ", ".join("none" if rule is None else f"{rule.metric} {rule.threshold:g}" for rule in rules)
        warnings.append(
            f"the ensembles converge by different rules ({names}), none is taken: give convergence.metric= and "
            "convergence.threshold="
        )
    return Trajectories(
        groups[0].id,
        tuple(shared),
        tuple(runs),
        rules[0] if len(rules) == 1 else None,
        tuple(warnings),
        any(group.imported for group in groups),
    )
