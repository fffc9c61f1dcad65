"""Command lines made at random from the command tree, the keys and what is stored, and what none of them may do.

`python tests/fuzz_lines.py 0 1000` tries the numbers 0 to 999 and prints what went wrong; `scripts/verify fuzz` records
it.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
from hostile import CODES, make, run, state

# What a word may be that is neither a key nor a reference: empty, of another kind, huge, of no encoding, of a shell.
WORDS = (
    *("", " ", "-", "--", "---", ".", "..", "/", "~", "~nobody", "=", "==", "a=", "=a", "@", "@@", "*", "?"),
    *(
        "0",
        "-1",
        "1e9",
        "-0.0",
        "nan",
        "inf",
        "1e999",
        "9" * 400,
        "0x10",
        "1_000",
        "٣",
        "1,2",
        "0..3",
        "3..0",
    ),
    *("true", "null", "None", "[]", "{}", "[", "]", "{a:", "[1,[2,[3]]]", "[" * 300, "'", '"', "\\", "$HOME"),
    *(
        "${seed}",
        "${oc.env:HOME}",
        "${",
        "${x:y}",
        "range(3)",
        "range(1e9)",
        "choice(1,2)",
        "glob(*)",
        "interval(0,1)",
    ),
    *(
        "é" * 60,
        "\u202egnp",
        "\x1b[31m",
        "\n",
        "a\nb",
        "\t",
        "\udcff",
        "\ufeff",
        "😀",
        "a" * 5000,
        "a b",
        "a;b",
        "a|b",
    ),
    *(
        "/dev/null",
        "/proc/self/mem",
        "/etc/passwd",
        "nowhere/at/all",
        "SELECT 1",
        "SELECT * FROM runs",
        "DROP TABLE x",
    ),
    *(
        "status=done",
        "seed<",
        "seed<<1",
        "loss>",
        "tag=",
        "optimizer.lr<1",
        "!",
        "!=",
        "a!=b",
        "%s",
        "%(x)s",
        "{0}",
    ),
)
# Commands that would train, time or wait, and what keeps them from it.
_SPARED = {
    ("train",): ("--dry-run",),
    ("fork",): ("--dry-run",),
    ("reproduce",): ("--dry-run",),
    ("analyze",): ("--dry-run",),
    ("runs", "watch"): ("--once",),
}
# Their work is to remove, or to be given: of what is stored nothing may go by them here.
_REMOVES = (("runs", "rm"), ("runs", "gc"))


def leaves(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that does something, with the words that name it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*words, name))


@cache
def tree() -> tuple[tuple[tuple[str, ...], click.Command], ...]:
    """Return all commands."""
    from dynalab.cli.app import app

    # What fetches from the network, and what times the machine for seconds, is not called at random.
    return tuple(item for item in leaves(app) if item[0] not in (("data", "fetch"), ("bench",)))


@cache
def keys() -> tuple[str, ...]:
    """Return every key, part and group that can be asked about."""
    from dynalab.config.lookup import known

    return tuple(known())


class Maker:
    """Makes one command line.

    Args:
        rng: All that is drawn.
        outputs: The outputs folder, whose ensembles and analyses are referred to.
        nonsense: A folder of files that are none.
    """

    def __init__(self, rng: random.Random, outputs: Path, nonsense: Path) -> None:
        self._rng, self._outputs, self._nonsense = rng, outputs, nonsense

    def line(self) -> list[str]:
        """Return its words."""
        name, command = self._rng.choice(tree())
        words: list[str] = []
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                count = (
                    self._rng.choice([0, 1, 1, 2, 3])
                    if parameter.nargs < 0
                    else self._rng.choice([0, 1, 1, 1])
                )
                words += [self._argument() for _ in range(count)]
            elif self._rng.random() < (0.6 if parameter.required else 0.15):
                words += self._option(parameter)
        if self._rng.random() < 0.1:
            words.append(self._rng.choice(WORDS))
        self._rng.shuffle(words) if self._rng.random() < 0.1 else None
        words = [word for word in words if name not in _REMOVES or word != "--yes"]
        if (
            "--outputs" in [opt for parameter in command.params for opt in parameter.opts]
            and "--outputs" not in words
        ):
            words += ["--outputs", str(self._outputs)]
        # Before what ends the options.
        return [*name, *_SPARED.get(name, ()), *words]

    def _option(self, parameter: click.Parameter) -> list[str]:
        name = self._rng.choice(parameter.opts)
        if getattr(parameter, "is_flag", False):
            return [name]
        if name == "--outputs":
            return [name, self._place()]
        if isinstance(parameter.type, click.Choice) and self._rng.random() < 0.7:
            return [name, self._rng.choice(list(map(str, parameter.type.choices)))]
        if name in ("-f", "--filter") or self._rng.random() < 0.3:
            return [name, self._override()]
        return [name, self._rng.choice([self._place, self._argument, lambda: self._rng.choice(WORDS)])()]

    def _argument(self) -> str:
        return self._rng.choice([self._override, self._override, self._reference, self._any, self._name])()

    def _any(self) -> str:
        return self._rng.choice(WORDS)

    def _name(self) -> str:
        """A word that some command knows."""
        from dynalab.config import registry
        from dynalab.config.explain import GROUPS

        return self._rng.choice(sorted(registry.names(self._rng.choice(list(GROUPS)))) or ["hmm"])

    def _override(self) -> str:
        key = self._rng.choice([*keys(), "seed", "task", "train.steps", "optimizer.lr"])
        if self._rng.random() < 0.2:
            place = self._rng.randrange(len(key) + 1)
            key = (
                key[:place]
                + self._rng.choice(["", ".", "x", "é", " ", "=", key[place : place + 1] * 2])
                + key[place + 1 :]
            )
        sign = self._rng.choice(["=", "=", "=", "=", "<", ">", "!=", "", ":"])
        value = self._rng.choice([self._any, self._any, self._name, self._number, self._reference])()
        return self._rng.choice(["", "", "", "", "+", "++", "~"]) + key + sign + value

    def _number(self) -> str:
        return str(
            self._rng.choice([0, 1, 2, 3, 7, -1, 0.5, 1e-3, 1e18, 2**63, 2**31, 1e-320, "0..2", "1,2"])
        )

    def _reference(self) -> str:
        stored = [path.name.rpartition("-")[2] for path in self._outputs.glob("*/*-*")]
        stored = sorted({*stored, "mine", "@last", "@all", "@failed", "page", "slingshot"})
        word = self._rng.choice(stored)
        end = ["", "", "", "/s0000", "/s9999", "/a", "/", "@10", "@-1", "-a2", f"/{self._any()}"]
        return word[: self._rng.choice([len(word), len(word), 4, 1])] + self._rng.choice(end)

    def _place(self) -> str:
        there = sorted(str(path) for path in self._nonsense.iterdir())
        return self._rng.choice([*there, str(self._outputs), self._any()])


def furnish(nonsense: Path) -> None:
    """Make a folder of things that a command may be given and can do nothing with."""
    nonsense.mkdir()
    (nonsense / "file").write_bytes(b"\xff\x00nothing")
    (nonsense / "empty").mkdir()
    (nonsense / "table.csv").write_text("a,b\n1,2\n")
    (nonsense / "table.parquet").write_bytes(b"PAR1")
    (nonsense / "old.tar.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (nonsense / "link").symlink_to(nonsense / "nothing")
    (nonsense / "circle").symlink_to(nonsense / "circle")
    parts = nonsense / "parts"
    (parts / "task").mkdir(parents=True)
    (parts / "task" / "broken.py").write_text("raise RuntimeError('broken')\n")
    (parts / "task" / "broken.yaml").write_text("name: broken\n")
    (parts / "model").mkdir()
    (parts / "model" / "odd.yaml").write_text("- 1\n")
    closed = nonsense / "closed"
    closed.mkdir()
    closed.chmod(0o555)


def try_number(number: int, base: Path, work: Path) -> list[str]:
    """Run the command line of a number and return what it did wrong.

    Args:
        number: Seed of everything.
        base: An outputs folder that `hostile.make` made; it is only read.
        work: A folder for what commands may write; `furnish` made `nonsense` in it.
    """
    rng = random.Random(f"line {number}")
    before, given = _stored(base), state(work / "nonsense")
    words = Maker(rng, base, work / "nonsense").line()
    current = work / "here"
    current.mkdir(exist_ok=True)
    code, out, err = run(*words, cwd=current)
    line = f"{number}: {' '.join(map(repr, words))[:600]} -> {code}"
    wrong = []
    if code not in CODES or "Traceback" in out + err or "traceback in" in err:
        wrong.append(f"{line}: {err[-400:]}")
    if code and len(err.splitlines()) > 12:
        wrong.append(f"{line}: {len(err.splitlines())} lines")
    if any(not (letter.isprintable() or letter in "\n\t") for letter in err):
        wrong.append(f"{line}: letters that no terminal should get: {err[-300:]!r}")
    if changed := {*before.items()} ^ {*_stored(base).items()}:
        wrong.append(f"{line}: changed {sorted({name for name, _ in changed})[:4]}")
    if state(work / "nonsense").keys() - given.keys() and code not in (0, 3):
        wrong.append(f"{line}: left {sorted(state(work / 'nonsense').keys() - given.keys())[:4]} behind")
    return wrong


def _stored(outputs: Path) -> dict[str, object]:
    """Return what is stored of runs; results of analyses, pages and tags may be added."""
    found = {}
    for kind in ("grokking", "imported"):
        for name, (_, data) in state(outputs / kind).items():
            if Path(name).name not in ("lock", "tags.json"):
                found[f"{kind}/{name}"] = data
    return found


def main() -> int:
    """Try numbers and print what went wrong."""
    first, last = map(int, sys.argv[1:3])
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "outputs")
        make(base)
        os.environ["DYNALAB_OUTPUTS"] = f"{folder}/none"
        for number in range(first, last):
            work = Path(folder, str(number))
            work.mkdir()
            furnish(work / "nonsense")
            wrong = try_number(number, base, work)
            (work / "nonsense/closed").chmod(0o755)
            shutil.rmtree(work)
            n_wrong += bool(wrong)
            print("\n".join(wrong), end="\n" if wrong else "", flush=True)
    print(f"{last - first - n_wrong} of {last - first} command lines are answered in a few lines")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
