"""The commands of a sheet, carried out as `train`, `fork` and `analyze` do; what is stored is not computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dynalab.analysis.command import gather, needs_of, trains
from dynalab.config.analysis import keys_of, pooled, read_analysis
from dynalab.config.command import Command as Training
from dynalab.config.command import Request, Settings, read_command
from dynalab.config.forks import parse_fork
from dynalab.config.overrides import Override
from dynalab.config.registry import Part, search_path
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched
from dynalab.explore import drive
from dynalab.launch.base import Events
from dynalab.launch.fork import Forking, make_forks, plan_forks
from dynalab.launch.layout import Layout
from dynalab.launch.train import Options, Outcome, train
from dynalab.reproduce.documents import Asked
from dynalab.reproduce.words import Command, Words, ends_of, text_of
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result


@dataclass(frozen=True)
class Run:
    """How the commands of a sheet are carried out.

    Attributes:
        outputs: The outputs folder.
        settings: What whoever runs it says of how: device, launcher, `compute.*`.
        watch: As `dynalab.launch.train.train` takes it.
        tell: Takes a line about what begins.
        warn: Takes a line that must be seen.
        dry_run: Whether nothing is trained or written.
    """

    outputs: Path
    settings: Sequence[Override] = ()
    watch: Callable[[Outcome], Events] = lambda outcome: Events()
    tell: Callable[[str], None] = lambda line: None
    warn: Callable[[str], None] = lambda line: None
    dry_run: bool = False

    @property
    def launcher(self) -> list[Override]:
        """What of the settings a fork takes."""
        return [item for item in self.settings if item.key == "launcher"]

    @property
    def launcher_name(self) -> str:
        """Its name."""
        return next((str(item.value) for item in self.launcher), "local")


@dataclass(frozen=True)
class Step:
    """A command of a sheet.

    Attributes:
        name: Its name; of a removal's context the same as of what it replaces.
        words: Taken apart.
        above: The steps that it refers to; of an analysis without references all that train.
        ends: The code that it may end with, but for 0.
    """

    name: str
    words: Words
    above: tuple[Step, ...]
    ends: int

    def and_above(self) -> Iterator[Step]:
        """Yield all that it builds on, and the step itself."""
        for step in self.above:
            yield from step.and_above()
        yield self

    @property
    def text(self) -> str:
        """The command in words."""
        words = self.words
        pieces = [words.verb, words.kind, *words.refs, *[str(words.step)] * (words.verb == "fork")]
        return " ".join(filter(None, [*pieces, *words.overrides, *["--confirm"] * words.confirm]))


def steps_of(commands: Mapping[str, str | Command]) -> list[Step]:
    """Return the commands in order, each with those that it refers to."""
    steps: dict[str, Step] = {}
    for name, command in commands.items():
        words = Words.of(text_of(command))
        above = [steps[ref] for ref in words.refs]
        if words.verb == "analyze" and not words.refs:
            above = [step for step in steps.values() if step.words.verb != "analyze"]
        steps[name] = Step(name, words, tuple(above), ends_of(command))
    return list(steps.values())


@dataclass
class Done:
    """What came of commands.

    Attributes:
        asked: Of what trains: the ensembles.
        results: Of analyses: each with the ensembles that it is about.
        failed: Why a command failed, or ended otherwise than the sheet expects.
        outcomes: Of a dry run: what `train` would do.
    """

    asked: dict[Step, list[Asked]] = field(default_factory=dict)
    results: dict[Step, list[tuple[Result, list[Asked]]]] = field(default_factory=dict)
    failed: dict[Step, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """Commands that have been read: each once, however often it stood there.

    Attributes:
        trainings: What each asks to be trained, and how.
        forks: The overrides of each.
        analyses: The analysis of each, its configuration, and whether it is one over all ensembles.
    """

    trainings: dict[Step, Training] = field(default_factory=dict)
    forks: dict[Step, list[Override]] = field(default_factory=dict)
    analyses: dict[Step, tuple[Part, Any, bool]] = field(default_factory=dict)


def read(steps: Iterable[Step], run: Run) -> Read:
    """Read commands.

    Raises:
        ConfigError: One cannot be used.
    """
    found = Read()
    for step in dict.fromkeys(steps):
        words = step.words
        with _named(step):
            if words.verb == "analyze":
                pool, overrides = pooled(keys_of(words.kind, words.overrides))
                found.analyses[step] = (*read_analysis(words.kind, overrides), pool)
            elif words.verb == "fork":
                found.forks[step] = parse_fork(words.overrides)
            else:
                command = read_command([*words.overrides, *run.settings], outputs=run.outputs)
                if command.settings.outputs != run.outputs:
                    # A file that it names says so.
                    raise ConfigError(f"outputs={command.settings.outputs}: is for who runs a sheet to say")
                found.trainings[step] = command
    return found


def carry_out(found: Read, run: Run) -> Done:
    """Carry out commands. What is trained anew is trained together.

    Raises:
        ConfigError: A command cannot be used: nothing has been trained.
        KeyboardInterrupt: It was stopped; the state is saved.
        DynalabError: Nothing can be trained, or stored, at all.
    """
    done = Done()
    _train(found.trainings, run, done)
    if run.dry_run:
        return done
    for step, overrides in found.forks.items():
        _fork(step, overrides, run, done)
    for step, part in found.analyses.items():
        _analyze(step, *part, run, done)
    return done


class _named:
    """Puts a command before what is wrong with it."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{self.step.name}: {error}") from error


def _train(commands: Mapping[Step, Training], run: Run, done: Done) -> None:
    """Train what all commands ask for, those together that are trained in the same way."""
    trainings: list[tuple[Settings, dict[str, Request]]] = []
    for step, command in commands.items():
        for note in command.notes:
            run.tell(f"{step.name}: {note}")
        same = next((known for settings, known in trainings if settings == command.settings), None)
        if same is None:
            trainings.append((command.settings, same := {}))
        for request in command.requests:
            same[request.config.id] = _both(request, same.get(request.config.id))
    layouts: dict[str, Layout] = {}
    failures: dict[str, list[str]] = {}
    for settings, wanted in trainings:
        options = Options(argv=("dynalab", "reproduce"), remember=False, dry_run=run.dry_run)
        outcome = train(Training(list(wanted.values()), settings), options, run.watch, run.tell)
        done.outcomes.append(outcome)
        _stop_if_interrupted(outcome)
        layouts |= {layout.request.config.id: layout for layout in outcome.layouts}
        _gather_failures(outcome, failures)
    if run.dry_run:
        return
    for step, command in commands.items():
        asked = [
            Asked(Ensemble(layouts[item.config.id].paths), tuple(one.label for one in item.runs), item.steps)
            for item in command.requests
        ]
        lines = [line for item in command.requests for line in failures.get(item.config.id, ())]
        _settle(step, asked, lines, done)


def _both(request: Request, other: Request | None) -> Request:
    """Return a request for all that two ask for of one ensemble."""
    if other is None:
        return request
    labels = {spec.label for spec in other.runs}
    runs = [*other.runs, *(spec for spec in request.runs if spec.label not in labels)]
    return replace(other, runs=runs, steps=max(request.steps, other.steps))


def _stop_if_interrupted(outcome: Outcome) -> None:
    if outcome.report.interrupted:
        raise KeyboardInterrupt


def _gather_failures(outcome: Outcome, failures: dict[str, list[str]]) -> None:
    """Add, by ensemble, what kept shards from being trained."""
    report = outcome.report
    for shard, line in [*report.failures.items(), *report.held.items()]:
        failures.setdefault(shard.ensemble.digest, []).append(line)
    for layout in outcome.layouts:
        lines = [f"{n} is being trained by {who}" for n, who in layout.busy.items()]
        lines += layout.warnings if layout.damaged else []
        failures.setdefault(layout.request.config.id, []).extend(lines)


def _settle(step: Step, asked: list[Asked], lines: Sequence[str], done: Done) -> None:
    """Note what a command that trains came to."""
    # A configuration that its worker refused leaves no folder.
    asked = [item for item in asked if item.ensemble.paths.config.is_file()]
    runs = [(item, run) for item in asked for run in item.runs]
    diverged = [
        run.id for item, run in runs if run.diverged_step is not None and run.diverged_step <= item.steps
    ]
    if diverged and step.ends != 3:
        more = f" and {len(diverged) - 1} more" if len(diverged) > 1 else ""
        lines = [*lines, f"{diverged[0]}{more} diverged, which the sheet does not expect (ends: 3)"]
    done.asked[step] = asked
    if lines:
        done.failed[step] = "; ".join(dict.fromkeys(lines))


def _fork(step: Step, overrides: Sequence[Override], run: Run, done: Done) -> None:
    (parent,) = step.above
    if not done.asked[parent]:
        done.failed[step], done.asked[step] = f"{parent.name} has nothing to go on from", []
        return
    words: list[str | Override] = [*overrides, *run.launcher]
    forking = Forking([])
    try:
        for item in done.asked[parent]:
            with _named(step):
                planned = plan_forks(item.ensemble, item.runs, step.words.step, words, outputs=run.outputs)
            forking = forking.beside(planned)
        outcome = make_forks(
            forking,
            Options(argv=("dynalab", "reproduce"), remember=False),
            run.watch,
            run.tell,
        )
    except NothingMatched as error:
        done.failed[step], done.asked[step] = str(error), []
        return
    _stop_if_interrupted(outcome)
    failures: dict[str, list[str]] = {}
    _gather_failures(outcome, failures)
    asked = [
        Asked(
            Ensemble(layout.paths),
            tuple(spec.label for spec in layout.request.runs),
            layout.request.steps,
        )
        for layout in outcome.layouts
    ]
    lines = [line for some in failures.values() for line in some]
    lines += [] if step.ends == 3 else [f"left out: {line}" for line in forking.left_out]
    _settle(step, asked, lines, done)


def _analyze(step: Step, part: Part, config: Any, pool: bool, run: Run, done: Done) -> None:
    """Analyse what the commands above have trained; what cannot be analysed is a failure of this command alone."""
    done.results[step] = []
    asked = list(_unique(item for above in step.above for item in done.asked.get(above, ())))
    if not asked:
        done.failed[step] = "there is nothing to analyse"
        return
    longer = [item.steps for item in asked if item.is_longer]
    if longer and config.steps is None and not trains(part):
        config = replace(config, steps=min(longer))
    known = {item.ensemble.id: item for item in asked}
    together = pool or needs_of(part, config).across
    run.tell(f"{step.name}: analyze {part.name}")
    for some in [asked] if together else [[item] for item in asked]:
        try:
            for inputs in gather([(item.ensemble, item.runs) for item in some], part, config, pool=pool):
                if step.words.confirm:
                    drive.require_confirmable(inputs, part, config)
                trainer = drive.Trainer(run.outputs, search_path(), run.watch, run.launcher_name)
                result = drive.analyse(inputs, part, config, trainer)
                if step.words.confirm and result.data.get("confirmation") is None:
                    result = drive.confirm(inputs, result, part, config, trainer) or result
                if lacks := [*result.failed, *filter(None, [result.unstored])]:
                    done.failed[step] = "; ".join(lacks)
                done.results[step].append((result, [known[item.id] for item in inputs.ensembles]))
        except DynalabError as error:
            done.failed[step] = "; ".join(filter(None, [done.failed.get(step), str(error)]))


def _unique(asked: Iterator[Asked]) -> Iterator[Asked]:
    """Yield what was asked for, what several commands ask of one ensemble as one."""
    found: dict[str, Asked] = {}
    for item in asked:
        known = found.get(item.ensemble.id)
        labels = dict.fromkeys([*(known.labels if known else ()), *item.labels])
        steps = max(item.steps, known.steps if known else 0)
        found[item.ensemble.id] = Asked(item.ensemble, tuple(labels), steps)
    return iter(found.values())
