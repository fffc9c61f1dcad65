"""The commands of a sheet: words of `train`, `fork` and `analyze`, taken apart, and what they may not say."""

from __future__ import annotations

import re
import shlex
from typing import Literal

from msgspec import Struct

from dynalab.core.errors import ConfigError

TRAIN = "train"
_VERBS = (TRAIN, "fork", "analyze")
# What a command of a sheet may not say: where results go, and who trains, are for the user who runs it to say.
_NOT_ITS_OWN = ("outputs", "launcher", "hydra")
_KEY = re.compile(r"(?:\+\+|\+|~)?([^=@]*)")


class Form(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping with these keys and no others."""


class Command(Form, frozen=True, kw_only=True):
    """A command, and the code that it ends with: 3 where runs are meant to diverge."""

    run: str
    ends: Literal[0, 3] = 0

    def __post_init__(self) -> None:
        """Refuse what is no command of a sheet."""
        Words.of(self.run)


class Words(Struct, frozen=True):
    """A command taken apart."""

    verb: str  # `train`, `fork` or `analyze`
    overrides: tuple[str, ...]
    refs: tuple[str, ...] = ()  # names of commands above, whose runs are forked or analysed
    kind: str = ""  # of an analysis
    step: int = 0  # of a fork
    confirm: bool = False  # whether an analysis trains to confirm what it found

    @classmethod
    def of(cls, text: str) -> Words:
        """Take a command apart.

        Raises:
            ConfigError: It is none that a sheet may have.
        """
        try:
            verb, *words = shlex.split(text)
        except ValueError as error:
            raise ConfigError(f"{text!r}: {str(error) or 'there is no command'}") from error
        if verb not in _VERBS:
            raise ConfigError(f"{verb}: a command of a sheet is one of {', '.join(_VERBS)}")
        confirm = verb == "analyze" and "--confirm" in words
        words = [word for word in words if not (confirm and word == "--confirm")]
        for word in words:
            key = (_KEY.match(word) or [word, word])[1].strip()
            if word.startswith("-"):
                raise ConfigError(f"{verb} {word}: a sheet gives no options but analyze --confirm")
            if "${" in word:
                raise ConfigError(f"{verb} {word}: a sheet has values, no interpolations")
            if re.split(r"[./]", key)[0] in _NOT_ITS_OWN and ("=" in word or word.startswith("~")):
                raise ConfigError(f"{verb} {word}: {key} is for who runs a sheet to say")
        overrides = tuple(word for word in words if "=" in word or word.startswith("~"))
        refs = [word for word in words if word not in overrides]
        if verb == TRAIN and refs:
            raise ConfigError(f"train {refs[0]}: expected KEY=VALUE, for example task=grokking")
        if verb == "analyze":
            if not refs:
                raise ConfigError("analyze: name an analysis, as analyze slingshot")
            return cls(verb, overrides, tuple(refs[1:]), kind=refs[0], confirm=confirm)
        if verb == "fork":
            if len(refs) != 2 or not refs[1].isdecimal():
                raise ConfigError("fork: expected the name of a command above and a step, as fork adam 200")
            return cls(verb, overrides, (refs[0],), step=int(refs[1]))
        return cls(verb, overrides)


def text_of(command: str | Command) -> str:
    """Return a command as it is written."""
    return command if isinstance(command, str) else command.run


def ends_of(command: str | Command) -> int:
    """Return the code that a command may end with, but for 0."""
    return 0 if isinstance(command, str) else command.ends
