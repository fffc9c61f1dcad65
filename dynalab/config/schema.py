"""Typed schemas of the configuration keys that belong to no task, model, optimizer or probe.

Every field's default is neutral: it leaves out the field's effect, and a field at its default does not enter the
identity hash (so a new field never orphans stored ensembles). The YAML files under conf/ list every key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dynalab.config.keys import Section, key
from dynalab.config.keys import require as require
from dynalab.core.convergence import direction_of

STREAMS = ("init", "split", "order", "noise")
LAUNCHERS = ("local", "inline", "slurm")
ON_ERROR = ("continue", "stop")
OUTPUTS = "the outputs folder; null: --outputs, else DYNALAB_OUTPUTS, else ./outputs"


def check_cadence(key: str, every: int | None, at: Any) -> None:
    """Check a pair of cadence keys `<key>.every` and `<key>.at`."""
    require(every is None or every >= 1, f"{key}.every", every, "an integer of at least 1, or null")
    if isinstance(at, list | tuple):
        steps = all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in at)
        require(steps, f"{key}.at", list(at), "a list of steps, or log")
    else:
        require(at in (None, "log", "never"), f"{key}.at", at, "log, never or a list of steps")
    require(every is None or at is None, f"{key}.at", at, f"only one of {key}.every and {key}.at")


@dataclass(frozen=True, kw_only=True)
class Loose(Section):
    """The keys that are a value, and not made of keys."""

    probes: tuple[str, ...] = key(
        ("weights", "gradients"), "what is measured while training; keys of each: probe.NAME.KEY"
    )
    seed: Any = key(0, "seeds of the runs, one run each: 7, 0..19, 1,5,9 or 0..9,20", kind="seeds")
    design: str = key(
        "seeds",
        "seeds: a run for every seed; crossed: one for every combination of the seed_streams that have several values",
        one_of=("seeds", "crossed"),
    )
    device: str = key(
        "auto",
        "where training runs; auto: CUDA where there is one, else CPU; kept when a run is resumed",
        kind="auto, cpu, cuda or cuda:N",
    )
    launcher: str = key(
        "local",
        "who runs the shards; local: a pool of worker processes, inline: this process, slurm: jobs of a cluster",
        one_of=LAUNCHERS,
    )
    on_error: str = key(
        "continue",
        "what a shard that fails does to the others of the command; continue: nothing, stop: those that are being "
        "trained save their state, and no more are begun; a run that diverges stops nothing",
        one_of=ON_ERROR,
    )
    outputs: str | None = key(None, OUTPUTS, kind="a folder or null")


@dataclass(frozen=True, kw_only=True)
class Analyze(Section):
    """The keys that `dynalab analyze` takes itself, whatever the analysis."""

    pool: bool = key(False, "one analysis over the runs of all ensembles, in the place of one each")
    outputs: str | None = key(None, OUTPUTS, kind="a folder or null")


@dataclass(frozen=True, kw_only=True)
class Train(Section, of="train"):
    """How long and on what: `train.*`."""

    steps: int | None = key(
        None, "updates, from the initialisation on; null: as epochs say, else 1,000", least=0
    )
    epochs: float | None = key(None, "passes over the training set, in the place of steps", least=0)
    batch_size: Any = key(
        "full",
        "examples of a batch; full: the whole training set in every update",
        kind="full or an integer of at least 1",
    )
    loss_dtype: str = key(
        "float32", "precision of the loss from the logits on", one_of=("float32", "float64")
    )
    clip: float | None = key(
        None, "largest norm of a run's gradient, over all its parameters; null: not clipped", above=0
    )
    accumulate: int = key(1, "batches whose mean gradient makes one update", least=1)
    temperature: float = key(
        1.0,
        "what the logits (any outputs) are divided by in the loss, where it is trained and where it is recorded",
        above=0,
    )
    sphere: bool = key(False, "rescale the scale-invariant weights to their initial norm after every update")
    norm_clamp: float | None = key(
        None,
        "rescale all weights after every update, so that their norm is this multiple of the initial one; null: never",
        above=0,
    )
    halve_at: int | None = key(
        None, "step from which on the learning rate is half of what it would be; null: never", least=0
    )
    modes: int | None = key(
        None,
        "modes of a run, of which ever more weights become affine functions while it trains; null: none",
        least=1,
    )
    modes_every: int = key(10, "with modes: steps between the weights that are taken into them", least=1)
    modes_warmup: int = key(20, "with modes: weights that are taken before the modes are fixed", least=2)
    modes_window: int = key(10, "with modes: weights that are taken before more are embedded", least=1)
    modes_share: float = key(
        0.1, "with modes: share of the weights that are embedded at a time", above=0, most=1
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        size = self.batch_size
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        self._require(size == "full" or whole, "batch_size")
        one = self.norm_clamp is None or not self.sphere
        self._require(one, "norm_clamp", "null, or train.sphere=false: only one of them holds a norm")
        free = self.modes is None or not (self.sphere or self.norm_clamp is not None)
        self._require(
            free, "modes", "null, or weights whose norm is not held (train.sphere, train.norm_clamp)"
        )
        for name in ("every", "warmup", "window", "share"):
            default = type(self).__dataclass_fields__[f"modes_{name}"].default
            said = self.modes is not None or getattr(self, f"modes_{name}") == default
            self._require(said, f"modes_{name}", "train.modes as well, the number of modes")


@dataclass(frozen=True, kw_only=True)
class Eval(Section, of="eval"):
    """Evaluation of whole splits (or a fixed prefix of them): `eval.*`."""

    every: int = key(10, "steps between rows of losses, accuracies and norms", least=1)
    size: int | None = key(
        None, "examples of each split that are evaluated, the first so many; null: all", least=1
    )
    train_size: int | None = key(
        None,
        "of these, the training examples that are evaluated; null, and where updates take the whole set: all of them",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class Snapshots(Section, of="snapshots"):
    """When weights are kept for later analysis: `snapshots.*`."""

    at: Any = key(
        "log",
        "steps at which weights are kept for analysis; log: log-spaced",
        kind="log, never or a list of steps",
    )
    every: int | None = key(None, "steps between snapshots, in the place of at", least=1)

    def __post_init__(self) -> None:
        """Check ranges; `every` replaces the default grid."""
        super().__post_init__()
        at = None if self.every is not None and self.at == "log" else self.at
        check_cadence("snapshots", self.every, at)


_STREAM = "an integer, several under design=crossed or as a sweep, or null"


@dataclass(frozen=True, kw_only=True)
class SeedStreams(Section, of="seed_streams"):
    """Streams held at a seed of their own: `seed_streams.*`; a list of values only under `design=crossed`."""

    init: Any = key(None, "seed of the initial weights in all runs; null: the run's seed", kind=_STREAM)
    split: Any = key(None, "seed of which examples are training data; null: the run's seed", kind=_STREAM)
    order: Any = key(None, "seed of batches and augmentation; null: the run's seed", kind=_STREAM)
    noise: Any = key(None, "seed of dropout and label noise; null: the run's seed", kind=_STREAM)


@dataclass(frozen=True, kw_only=True)
class Compute(Section, of="compute"):
    """How the work is laid out, and what it may take: `compute.*`. Changes no result (with `exact`)."""

    workers: int | None = key(
        None, "worker processes; null: by the planner, from a trial of the step", least=1
    )
    threads: int | None = key(
        None, "threads of a worker; null: by the planner, from a trial of the step", least=1
    )
    width: int | None = key(
        None,
        "seeds that one worker trains side by side; null: by the planner, from a trial of the step",
        least=1,
    )
    exact: bool = key(True, "one thread a worker on a CPU, so that a seed's bits are its own")
    graph: bool = key(
        False,
        "replay gradients as CUDA graphs, where an update is one batch and asks nothing of the card: 2 to 5 times the "
        "updates of 20 seeds on an H200; no effect on a CPU",
    )
    compile: bool | None = key(
        None,
        "make updates in code that is compiled for this machine, where the model, loss and optimizer are known to it; "
        "a seed's bits are its own, and others than without; no effect on a card; null: where there is a C++ compiler, "
        "of runs of at most a million weights",
    )
    snapshot_gb: float = key(
        10.0, "GB that the snapshots of a command may take; it is refused where they would take more", above=0
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        legal = (
            "1 with compute.exact=true (a seed's bits depend on the thread count); add compute.exact=false"
        )
        self._require(not self.exact or (self.threads or 1) == 1, "threads", legal)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Section, of="checkpoint"):
    """When training state is saved, and how much of it is kept: `checkpoint.*`."""

    every: int | None = key(
        None,
        "steps between checkpoints; null: by the clock: at most 30 s of training are lost",
        least=1,
    )
    # One alone could be the one that was being written when the machine stopped.
    keep: Any = key(
        2,
        "how many of the newest checkpoints are kept, or those of which steps",
        kind="2 or more, all, or a list of steps",
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        keep = self.keep
        number = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 2
        listed = isinstance(keep, list | tuple) and all(isinstance(step, int) and step >= 0 for step in keep)
        self._require(keep == "all" or number or listed, "keep")


_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?")
_TIME = re.compile(r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}")
_WORD = re.compile(r"[^\s\x00-\x1f]+")


@dataclass(frozen=True, kw_only=True)
class Slurm(Section, of="launcher"):
    """What each job of `launcher=slurm` asks for: `launcher.*`. Changes no result."""

    partition: str | None = key(
        None, "partition that jobs run in, several with commas; null: the cluster's usual"
    )
    time: Any = key(
        None,
        "time limit of a job: minutes, or [DAYS-]HOURS:MINUTES:SECONDS; before it ends a job saves its state and is "
        "put in the queue again; null: the partition's",
        kind="minutes, [DAYS-]HOURS:MINUTES:SECONDS or null",
    )
    gpus: Any = key(None, "cards of a job; null: none", kind="an integer of at least 1, TYPE:NUMBER or null")
    cpus: int = key(1, "processors of a job; compute.exact=true trains on one", least=1)
    memory: Any = key(
        None, "memory of a job: MB, or with K, M, G or T; null: the partition's", kind="4000, 4G or null"
    )
    constraint: str | None = key(None, "features that the machine must have, as sbatch has them; null: any")
    account: str | None = key(None, "account that jobs are charged to; null: the user's usual")
    qos: str | None = key(None, "quality of service; null: the usual")
    setup: list[str] = key(
        [], "lines of bash that a job runs first, as module load cuda", kind="a list of lines"
    )
    options: list[str] = key(
        [],
        "further options of sbatch, as --nice=100 or --exclude=node7",
        kind="a list of words that begin with --",
    )
    at_once: int | None = key(
        None, "jobs of a command that run at the same time, at most; null: all", least=1
    )
    warn: int = key(
        90,
        "seconds before the time limit at which a job saves its state; Slurm may be a minute early",
        least=1,
    )
    restarts: int = key(
        20, "times that a job is put in the queue again by itself after its time limit, at most", least=0
    )
    wait: bool = key(False, "wait for the jobs, in the place of ending once they are submitted")
    trial: int = key(
        10,
        "minutes that a trial job is waited for in the queue, which measures a step where none was measured on these "
        "machines; then the jobs are planned without; 0: none is submitted",
        least=0,
    )

    def __post_init__(self) -> None:
        """Check what sbatch would refuse without a word of the key, or read as another option."""
        super().__post_init__()
        self._require(_fits(_TIME, self.time), "time")
        self._require(_fits(_MEMORY, self.memory), "memory")
        cards = isinstance(self.gpus, int | None) and not isinstance(self.gpus, bool) and self.gpus != 0
        typed = isinstance(self.gpus, str) and re.fullmatch(r"[\w.-]+(:[1-9][0-9]*)?", self.gpus) is not None
        self._require((cards and (self.gpus or 1) > 0) or typed, "gpus")
        for name in ("partition", "constraint", "account", "qos"):
            value = getattr(self, name)
            self._require(value is None or _WORD.fullmatch(value) is not None, name, "a word without spaces")
        for line in self.setup:
            self._require("\0" not in line, "setup", "lines of bash")
        for word in self.options:
            good = word.startswith("--") and _WORD.fullmatch(word.partition("=")[0]) and "\0" not in word
            self._require(bool(good), "options")
            taken = word.partition("=")[0] in _TAKEN
            self._require(not taken, "options", f"no {word.partition('=')[0]}, which dynalab says itself")


# What `dynalab.launch.slurm` says to sbatch whatever the keys are.
_TAKEN = (
    "--array",
    "--job-name",
    "--output",
    "--error",
    "--signal",
    "--wrap",
    "--parsable",
    "--wait",
    "--nodes",
)


def _fits(form: re.Pattern[str], value: Any) -> bool:
    """Return whether a value is null, or written as a pattern says; a number counts as its digits."""
    plain = value is None or (isinstance(value, str | int) and not isinstance(value, bool))
    return plain and (value is None or form.fullmatch(str(value)) is not None)


@dataclass(frozen=True, kw_only=True)
class Convergence(Section, of="convergence"):
    """When a run counts as converged, unless an analysis is told otherwise: `convergence.*` of a task's YAML."""

    metric: str | None = key(None, "metric that is watched; null: as the analysis is told")
    threshold: float | None = key(None, "level that it has to reach; null: as the analysis is told")
    direction: str | None = key(
        None,
        "whether it has to be at least (up) or at most (down) the level; null: as the metric is known to improve",
        one_of=("up", "down"),
    )
    persistence: int = key(1, "rows in a row that hold it", least=1)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        known = self.metric is None or self.direction is not None or direction_of(self.metric) is not None
        self._require(known, "direction", "up or down")


@dataclass(frozen=True, kw_only=True)
class Levels(Section, of="levels"):
    """Accuracies that count as memorised and as generalised: `levels.*` of a task's YAML."""

    train_accuracy: float = key(
        0.99, "train_accuracy from which on a run counts as having memorised, a share"
    )
    test_accuracy: float = key(
        0.99, "test_accuracy from which on a run counts as having generalised, a share"
    )


# Section -> its schema; under an empty name the keys that are in none.
SHARED: dict[str, type[Any]] = {
    "": Loose,
    "train": Train,
    "eval": Eval,
    "snapshots": Snapshots,
    "seed_streams": SeedStreams,
    "compute": Compute,
    "checkpoint": Checkpoint,
    "launcher": Slurm,
    "convergence": Convergence,
    "levels": Levels,
}
