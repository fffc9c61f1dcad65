"""A claim sheet: what a paper says, the commands that try it at some scale, and what takes its cause away.

These are its forms, and what they refuse; `dynalab.reproduce.reading` makes them of a file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import jmespath
from jmespath.exceptions import JMESPathError
from msgspec import UNSET, UnsetType, field

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.reproduce.expression import Expression
from dynalab.reproduce.words import TRAIN, Command, Form, Words, text_of

ScaleName = Literal["ci", "cpu", "paper"]
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
Statistic = Literal[
    "share", "count", "mean", "median", "difference", "ratio", "slope", "correlation", "given"
]
# A value of a key, as a sheet names it.
Single = str | float | bool | None
Level = Single | tuple[Single, ...]
GIVEN = "given"
# Of these the rows are true or false.
OF_SHARES = ("share", "count")
OF_TWO = ("difference", "ratio")
OVER_X = ("slope", "correlation")
ON_LOGARITHMS = ("mean", *OF_TWO, "slope")
# These are in what their values are in, and these values are in steps: of paths to some, and of sums of such.
OF_UNIT = ("mean", "median", "difference", GIVEN)
_STEPS, _SUM = re.compile(r"(?:^|\W|_)steps?$"), re.compile(r"[\w\s+-]*")
_LONGEST = 1000


class SheetError(ConfigError):
    """Something in a sheet that cannot be used.

    Attributes:
        said: What is wrong with it.
        place: Where it stands: keys, and places in lists, from the top of the sheet or of a part of it.
    """

    def __init__(self, said: str, *place: str) -> None:
        """Put the place before what is wrong there."""
        super().__init__(f"{'.'.join(place)}: {said}" if place else said)
        self.said, self.place = said, place


@contextlib.contextmanager
def placed(*place: str) -> Iterator[None]:
    """Say of what is wrong inside that it is wrong at a place of a sheet."""
    try:
        yield
    except SheetError as error:
        raise SheetError(error.said, *place, *error.place) from error
    except ConfigError as error:
        raise SheetError(str(error), *place) from error


def compiled(path: str) -> jmespath.parser.ParsedResult:
    """Return a JMESPath that can be asked.

    Raises:
        ConfigError: It is none.
    """
    if len(path) > _LONGEST:
        raise ConfigError(f"a path of {len(path)} characters is too long: at most {_LONGEST}")
    try:
        return jmespath.compile(path)
    except (JMESPathError, RecursionError) as error:
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ConfigError(f"{path!r} is no JMESPath: {line}") from error


class Source(Form, frozen=True, kw_only=True):
    """Where the claims were published."""

    authors: str
    title: str
    year: int
    arxiv: str = ""

    def __str__(self) -> str:
        """Return `Barak et al. 2022`."""
        names = [author.split()[-1] for author in self.authors.split(",") if author.strip()] or ["anonymous"]
        return f"{' and '.join(names) if len(names) < 3 else f'{names[0]} et al.'} {self.year}"


class Rows(Form, frozen=True, kw_only=True):
    """What a claim is about: a row for each run, event or pair, with a value."""

    analysis: str  # `train`: what became of runs; or the kind of an analysis
    each: str = "runs"  # JMESPath in a result: the rows
    value: str = ""  # JMESPath in a row: its value
    terms: Mapping[str, str] = field(default_factory=dict)  # name -> JMESPath in a row
    formula: str = ""  # the value as arithmetic of the terms and the keys, in the place of `value`
    # JMESPath in a row: the value's own interval, [low, high]. Without it the hash of a sheet is what it was.
    interval: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse paths and formulas that cannot be asked."""
        with placed("rows"):
            if bool(self.value) == bool(self.formula):
                raise ConfigError("give one of value (a JMESPath) and formula (arithmetic of terms)")
            for place, path in self.paths():
                with placed(*place):
                    compiled(path)
            with placed("formula"):
                _ = self.formula and Expression(self.formula)

    def paths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the JMESPaths, each after its place: that of the rows, then those that are asked in a row."""
        yield ("each",), self.each
        for name in ("value", "interval"):
            if path := getattr(self, name):
                yield (name,), path
        for name, path in self.terms.items():
            yield ("terms", name), path


class Claim(Form, frozen=True, kw_only=True):
    """One claim, and where its statistic has to lie."""

    says: str
    published: str | float | None = None  # what the paper has
    rows: Rows
    statistic: Statistic
    agrees: tuple[float | None, float | None]  # the region; null: no bound
    section: str = ""  # of the paper, or a figure of it
    by: str | None = None
    where: Mapping[str, Level] = field(default_factory=dict)
    of: tuple[Level, Level] | None = None
    pair: Literal["seed"] | None = None
    x: str | None = None
    log: bool = False
    not_at: Mapping[ScaleName, str] = field(default_factory=dict)  # scale -> why it cannot be told there

    def __post_init__(self) -> None:
        """Refuse keys that do not go together."""
        low, high = self.agrees
        bounds = [bound for bound in self.agrees if bound is not None]
        with placed("agrees"):
            if not bounds:
                raise ConfigError("one of its two bounds is needed; null is no bound")
            if low is not None and high is not None and low >= high:
                raise ConfigError(f"{low:g} is not below {high:g}")
            if self.statistic == "share" and not all(0 <= bound <= 1 for bound in bounds):
                raise ConfigError("a share lies between 0 and 1")
        # Key -> whether it is given, the statistics that have it, and what is said where the two do not go together.
        two = (
            f"{' and '.join(OF_TWO)} have both by: KEY and of: [a, b], two of its values; others have neither"
        )
        for key, given, having, said in (
            ("by", self.by is not None, OF_TWO, two),
            ("of", self.of is not None, OF_TWO, two),
            (
                "x",
                self.x is not None,
                OVER_X,
                f"{' and '.join(OVER_X)} have it, arithmetic of keys; others do not",
            ),
        ):
            if given != (self.statistic in having):
                raise SheetError(said, key)
        if bool(self.rows.interval) != (self.statistic == GIVEN):
            needs = "needs it" if self.statistic == GIVEN else "alone has it"
            raise SheetError(f"statistic {GIVEN} {needs}, a JMESPath of [low, high]", "rows", "interval")
        if self.of and self.of[0] == self.of[1]:
            raise SheetError("its two values are the same", "of")
        if self.pair and self.statistic not in OF_TWO:
            raise SheetError(f"{' and '.join(OF_TWO)} alone have it", "pair")
        if self.log and self.statistic not in ON_LOGARITHMS:
            raise SheetError(f"{', '.join(ON_LOGARITHMS)} alone have it", "log")
        with placed("x"):
            _ = self.x and Expression(self.x)

    @property
    def unit(self) -> str:
        """`steps` of a statistic that is counted in them; empty of others, and where the paths do not say."""
        rows = self.rows
        if self.statistic not in OF_UNIT or self.log or not _SUM.fullmatch(rows.formula):
            return ""
        terms = {term: rows.terms.get(term, "") for term in re.findall(r"\w+", rows.formula)}
        paths = [rows.value, *terms.values()] if rows.value else [*terms.values()]
        return "steps" if all(map(_STEPS.search, paths)) else ""

    def names(self, key: str) -> set[str]:
        """Return the commands that it names, as `command` (what trains) or `analysis`."""
        named = [self.where.get(key), *(self.of or () if self.by == key else ())]
        return {str(name) for name in named if name is not None}


class Removal(Form, frozen=True, kw_only=True):
    """The cause taken away: commands in the place of those of the same names."""

    removes: str
    commands: Mapping[str, str | Command]


class Scale(Form, frozen=True, kw_only=True):
    """The commands that try the claims."""

    minutes: float  # what it takes on two cores, removals included
    commands: Mapping[str, str | Command]
    removals: tuple[Removal, ...] = ()

    def __post_init__(self) -> None:
        """Refuse references to what is not above, here and under every removal."""
        contexts = [
            (self.commands, ()),
            *((self.under(item), _at(n)) for n, item in enumerate(self.removals)),
        ]
        for commands, removal in contexts:
            above: list[str] = []
            for name, command in commands.items():
                words = Words.of(text_of(command))
                if lost := [ref for ref in words.refs if ref not in above]:
                    own = not removal or commands[name] is self.commands.get(name)
                    place = ("commands", name) if own else (*removal, "commands", name)
                    raise SheetError(
                        f"{lost[0]} is no train or fork above it{did_you_mean(lost[0], above)}", *place
                    )
                above += [name] if words.verb != "analyze" else []

    def under(self, removal: Removal) -> dict[str, str | Command]:
        """Return the commands with those of a removal in their places."""
        return {**self.commands, **removal.commands}

    def kinds(self) -> set[str]:
        """Return the analyses that are made."""
        return {TRAIN, *(Words.of(text_of(command)).kind for command in self.commands.values())}


def _at(removal: int) -> tuple[str, str]:
    """Return the place of a removal in its scale."""
    return "removals", str(removal)


class Sheet(Form, frozen=True, kw_only=True):
    """A claim sheet."""

    title: str
    claims: Mapping[str, Claim]
    scales: Mapping[ScaleName, Scale]
    main: str = ""  # the claim that removals are held against; by default the first
    source: Source | None = None
    commit: str = ""  # that it was written against

    def __post_init__(self) -> None:
        """Refuse a main claim that is not there, claims that nothing is computed for, removals of nothing."""
        for key in ("claims", "scales"):
            if not getattr(self, key):
                raise SheetError("at least one is needed", key)
        if self.main and self.main not in self.claims:
            hint = did_you_mean(self.main, self.claims)
            raise SheetError(f"there is no claim {self.main}{hint}; there are {listing(self.claims)}", "main")
        for scale, name in ((scale, name) for scale in self.scales for name in self.claims):
            claim, kinds = self.claims[name], self.scales[scale].kinds()
            if scale not in claim.not_at and claim.rows.analysis not in kinds:
                kind = claim.rows.analysis
                hint = (
                    did_you_mean(kind, kinds)
                    or f"; add the command `analyze {kind}`, or not_at: {{{scale}: WHY}}"
                )
                said = f"{kind} is not computed at scale {scale}{hint}"
                raise SheetError(said, "claims", name, "rows", "analysis")
        main = self.claims[self.main_claim]
        for key, own in self.scales.items():
            for place, removal in enumerate(own.removals):
                with placed("scales", key, *_at(place)):
                    _refuse_void(removal, own, main)

    @property
    def main_claim(self) -> str:
        """The claim that removals are held against."""
        return self.main or next(iter(self.claims))


def _refuse_void(removal: Removal, scale: Scale, main: Claim) -> None:
    """Refuse commands of a removal that stand in nobody's place.

    One may be new where the main claim, or another command of the removal, names it.
    """
    if not removal.commands:
        raise SheetError("a removal has at least one command", "commands")
    named = main.names("command") | main.names("analysis")
    for name, command in removal.commands.items():
        others = (other for key, other in removal.commands.items() if key != name)
        referred = {ref for other in others for ref in Words.of(text_of(other)).refs}
        if name not in {*scale.commands, *named, *referred}:
            raise SheetError(
                f"it stands in the place of no command{did_you_mean(name, scale.commands)}; there are "
                f"{listing(scale.commands)}; one of a removal alone has to be named by the main claim's where or of",
                *("commands", name),
            )
        if command == scale.commands.get(name):
            raise SheetError("it is the command that it stands in the place of", "commands", name)
