"""`dynalab report`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import (
    clean,
    config_dir_option,
    echo,
    emit_json,
    filter_options,
    note,
    quiet_option,
    result_options,
    shortened,
    split_arguments,
    warn,
)
from dynalab.config.places import outputs_root, user_path
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError
from dynalab.show.drawer import Drawer, second
from dynalab.store.results import Result, damaged_results

if TYPE_CHECKING:
    from pathlib import Path

    from dynalab.report.asked import Asked
    from dynalab.store.paths import ShardPaths
    from dynalab.store.reader import Ensemble
    from dynalab.store.stored import StoredRun

KEYS = ("name", "outputs")
LONGEST_NOTE = 100_000


@click.command("report")
@click.argument("arguments", nargs=-1, metavar="[RUN|ENSEMBLE|ANALYSIS|REPRODUCTION|KEY=VALUE]...")
@filter_options
@click.option("--name", metavar="NAME", help="Name of the report's folder (default: from what is shown).")
@click.option("--title", metavar="TEXT", help="Its heading; what was trained stands below it.")
@click.option("--note", "remark", metavar="TEXT|@FILE", help="Paragraphs under the heading.")
@click.option(
    "--zip", "archive", is_flag=True, help="One archive of it: page, figures as SVG and PDF, tables as CSV."
)
@click.option(
    "--watch", is_flag=True, help="Write it again while it is trained, until that ends (or Ctrl-C)."
)
@result_options
@config_dir_option
@quiet_option
def command(
    arguments: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    name: str | None,
    title: str | None,
    remark: str | None,
    archive: bool,
    watch: bool,
    as_json: bool,
    outputs: str | None,
    quiet: bool,
) -> int:
    """Write one self-contained HTML page, and its figures beside it.

    Runs, ensembles and analyses are named by id (its beginning is enough), what `dynalab reproduce` stored by sheet and
    scale; without one, the last that were trained.
    Each ensemble is shown with the analysis of every kind that has default keys, unless an analysis is named; the
    others are listed. The same report is replaced when it is written again. The page asks for nothing: with
    --watch it is reloaded by hand.

    \b
    dynalab report
    dynalab report -f 'task=grokking optimizer.lr<0.01'
    dynalab report cb7150eb3e hmm-7ebafd365b --name paper --title 'Three phases' --note @note.md
    dynalab report --watch               # in another terminal, while `dynalab train` works
    dynalab report thilak2022-cpu        # a paper's claims, and the runs that they are about
    """
    from dynalab.cli.report_watch import follow
    from dynalab.config.overrides import parse, settings

    refs, words = split_arguments(arguments)
    own, strange = settings(parse(words, seeds=False), *KEYS)
    if strange:
        key = strange[0].key
        raise ConfigError(f"{key}: no such key{did_you_mean(key, KEYS)}; there are {', '.join(KEYS)}")
    name, outputs = own["name"] or name, own["outputs"] or outputs
    texts = _text("--title", title), _text("--note", remark, file=True)
    given = {"-f": filter_text, "--name": name, "--title": title, "--note": remark}
    root = outputs_root(outputs)
    request = _Request(
        root,
        refs,
        forks,
        {key: text for key, text in given.items() if text},
        texts,
        archive,
        quiet or as_json,
    )
    if watch and not follow(root, request.shards, quiet=quiet):
        return 130
    # Where training goes on beside it, it needs the processors.
    with nullcontext() if watch else second() as drawer:
        about, page = request.write(drawer=drawer)
    from dynalab.report.choice import key_words, older, superseded, unmade
    from dynalab.store.table import notice

    selection, choices = about.selection, about.choices
    packed = page.with_name(f"{page.parent.name}.zip")
    for item, _ in selection:
        notice(item.paths)
    left_out = damaged_results(root, [item.id for item, _ in selection])
    code = 3 if left_out or any(item.damaged for item, _ in selection) else 0
    shown = {result.id: result for choice in choices.values() for result in choice.shown}
    others = {result.id: result for choice in choices.values() for result in choice.others}
    warnings = [line for item, _ in selection for line in item.warnings] + left_out
    warnings += [*(line for result in shown.values() for line in result.warnings), *about.refused]
    warnings = list(dict.fromkeys(warnings))
    if as_json:
        emit_json(
            {
                "name": page.parent.name,
                "path": str(page),
                "archive": str(packed) if archive else None,
                "ensembles": [_ensemble_json(item, runs) for item, runs in selection],
                "analyses": [_result_json(result) for result in shown.values()],
                "others": [_result_json(item) | {"keys": key_words(item)} for item in others.values()],
                "warnings": warnings,
            }
        )
        return code
    warn(warnings)
    stored = [*shown.values(), *others.values()]
    if not stored:
        note("no analysis of these runs is stored; `dynalab analyze hmm` adds the states they passed through")
    for result in others.values():
        if (line := older(result)) and not superseded(result, stored):
            note(line)
    commands = [
        f"`{line}`"
        for item, _ in selection
        for line in unmade(item, [*choices[item.id].shown, *choices[item.id].others])
    ]
    if commands:
        note(f"recorded, and not analysed: {shortened(commands)}")
    if others:
        names = shortened([f"{item.kind}-{item.id}" for item in others.values()])
        note(f"stored as well, and listed on the page: {names}; name one to show it")
    echo(packed if archive else page)
    return code


@dataclass
class _Request:
    """A page that is asked for, as it can be written again and again."""

    root: Path  # the outputs folder
    refs: Sequence[str]  # what is shown
    forks: bool  # whether forks that nothing names are
    given: Mapping[str, str]  # option -> what was typed
    texts: tuple[str, str]  # heading and note
    archive: bool  # whether it is packed as well
    quiet: bool  # whether nothing is said of it

    def write(self, *, last: bool = True, drawer: Drawer | None = None) -> tuple[Asked, Path]:
        """Write it; what is said of settings together is made for the `last` one alone."""
        from dynalab.cli.progress import pieces

        with pieces("report", quiet=self.quiet):
            return self._written(last, drawer)

    def _written(self, last: bool, drawer: Drawer | None) -> tuple[Asked, Path]:
        from dynalab.config.registry import typed_folders
        from dynalab.report.asked import asked
        from dynalab.report.write import report_name, write_report

        about = asked(self.root, self.refs, self.given.get("-f"), self.forks, sweeping=last)
        if len(about.selection) > 3 and last and not self.quiet:
            note(f"drawing {len(about.selection)} ensembles")
        alone = about.papers[0] if len(about.papers) == 1 and not about.refs else None
        name = self.given.get("--name") or alone or report_name(about.selection, about.named)
        options = [*self.given.items(), *(("--config-dir", folder) for folder in typed_folders())]
        words = ["dynalab", "report", *about.words, *(word for option in options for word in option)]
        page = write_report(
            about.selection,
            {ensemble: choice.shown for ensemble, choice in about.choices.items()},
            self.root,
            name,
            [clean(shlex.join(words))],
            {ensemble: choice.others for ensemble, choice in about.choices.items()},
            title=self.texts[0],
            note=self.texts[1],
            archive=self.archive,
            drawer=drawer,
        )
        return about, page

    def shards(self) -> list[ShardPaths]:
        """Write it while it is trained; return the shards of the runs that it shows."""
        about, _ = self.write(last=False)
        # What was the last when the watching began.
        self.refs = about.words
        return list(dict.fromkeys(run.shard for item, _ in about.selection for run in item.runs))


def _text(option: str, given: str | None, *, file: bool = False) -> str:
    """Return a text for the page, from a file where it is `@FILE`; empty where none was given.

    Raises:
        ConfigError: There is none in it, it is too long, or the file cannot be read.
    """
    if given is None:
        return ""
    text = given
    if file and given.startswith("@"):
        try:
            with user_path(given[1:]).open(encoding="utf-8-sig") as stream:
                text = stream.read(LONGEST_NOTE + 1)
        except (OSError, ValueError) as error:
            why = "not UTF-8 text" if isinstance(error, ValueError) else error.strerror
            raise ConfigError(f"{option} {given}: {why}") from error
    if not text.strip() or len(text) > LONGEST_NOTE:
        source = f" {given}" if file and given.startswith("@") else ""
        raise ConfigError(f"{option}{source}: expected 1 to {LONGEST_NOTE:,} letters")
    text = clean("\n".join(text.splitlines()))
    return text if file else " ".join(text.split())


def _ensemble_json(ensemble: Ensemble, runs: list[StoredRun]) -> dict[str, Any]:
    whole = [run.id for run in runs if run.shard.root.name not in ensemble.damaged]
    return {"id": ensemble.id, "path": str(ensemble.path), "runs": whole}


def _result_json(result: Result) -> dict[str, Any]:
    return {"id": result.id, "kind": result.kind, "ensemble": result.ensemble}
