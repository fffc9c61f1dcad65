"""`scripts/docs`: the parts of docs/*.md that are made from the code.

A part stands between `<!-- made by scripts/docs: NAME ARGUMENT... -->` and `<!-- end -->`; the function listed in
`MAKERS` under NAME makes it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from docs_markdown import code, docstring, prose, table, value
from docs_records import entries, tables_of

from dynalab.analysis.base import Needs
from dynalab.averages import base as averages
from dynalab.config import explain, registry
from dynalab.config.experiments import Experiment
from dynalab.config.experiments import experiments as listed
from dynalab.core.columns import OF_EMBEDDING, OF_UPDATES, Columns

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = re.compile(r"(<!-- made by scripts/docs: ([^>]+?) -->\n).*?(<!-- end -->)", re.S)
KEYS = ("key", "default", "may be", "what it is")


def page(text: str) -> str:
    """Return a page with what is made on it as the code has it now."""

    def make(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        return f"{match[1]}\n{MAKERS[name](*arguments)}\n\n{match[3]}"

    return MADE.sub(make, text)


def keys(items: Iterable[explain.Explained], given: Mapping[str, Any] | None = None) -> str:
    """Return a table of keys; `given` are values that stand in the place of the defaults, by key."""
    given = given or {}
    rows = [
        (
            code(item.key),
            value(given.get(item.key, item.default)),
            prose(", ".join(filter(None, (item.kind, item.legal)))),
            prose(item.about),
        )
        for item in items
    ]
    return table(KEYS, rows) if rows else "It has no keys."


def shared(section: str = "") -> str:
    """Return the keys of a section that belongs to no part; without a name those of none."""
    return keys(explain.shared()[section])


def parts(group: str, level: str = "##") -> str:
    """Return every part of a group: a table of all, then a section each, with its docstring and its keys."""
    found = [(part.name, part) for part in _own(group)]
    rows = [(f"[`{name}`](#{name})", prose(_first(part.module.__doc__))) for name, part in found]
    blocks = [table(("name", "what it is"), rows)]
    for name, part in found:
        about = docstring(part.module.__doc__)
        blocks += [f"{level} {name}", about, *_more(group, part), keys(*_keys(group, part))]
        if columns := getattr(part.module, "COLUMNS", None):
            names = " ".join(code(column) for column in _recorded(group, columns))
            blocks.append(f"It records {names}: [metrics.md](metrics.md#{_anchor(group, name)}).")
    return "\n\n".join(blocks)


def _own(group: str) -> list[registry.Part]:
    """Return dynalab's own parts of a group; plug-ins that happen to be installed have no place on its pages."""
    found = [registry.find(group, name) for name in registry.names(group)]
    return [part for part in found if part.source is None]


def _first(doc: str | None) -> str:
    """Return the first line of a docstring without the word that names its part and without its stop."""
    line = re.sub(r"^`\S+`: ", "", (doc or "").strip().partition("\n")[0]).removesuffix(".")
    return line[:1].upper() + line[1:] if re.match(r"[a-z]+ ", line) else line


def _keys(group: str, part: registry.Part) -> tuple[list[explain.Explained], dict[str, Any]]:
    """Return the keys of a part, and the values that its YAML file gives them, by key."""
    items = explain.part(group, part.name)
    prefix = f"probe.{part.name}" if group == "probe" else group
    own = _yaml(part).get("task", {}) if group == "task" else _yaml(part)
    given = {f"{prefix}.{name}": item for name, item in own.items() if item is not None}
    return items, {} if group == "analysis" else given


def _yaml(part: registry.Part) -> dict[str, Any]:
    path = part.file(())
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}


def _more(group: str, part: registry.Part) -> list[str]:
    """Return what else is to be said of a part: what a task sets, what an analysis reads."""
    if group == "task":
        return _task(_yaml(part))
    return [_needs(part)] if group == "analysis" else []


def _task(given: Mapping[str, Any]) -> list[str]:
    chosen = {
        name.removeprefix("override /"): option
        for default in given["defaults"]
        if isinstance(default, dict)
        for name, option in default.items()
    }
    words = [f"{group}={option}" for group, option in chosen.items()]
    words += [
        f"{section}.{name}={value(item)[1:-1]}"
        for section in ("train", "eval")
        for name, item in given.get(section, {}).items()
        if item is not None
    ]
    words += [f"probes=[{','.join(given['probes'])}]"] if "probes" in given else []
    rule = given["convergence"]
    way = "at least" if rule.get("direction") == "up" else "at most"
    reached = f"{code(rule['metric'])} {way} {rule['threshold']:g}"
    rows = rule.get("persistence", 1)
    blocks = [
        f"It sets {', '.join(map(code, words))}. A run has converged with {reached}"
        + (f" in {rows} rows on end." if rows > 1 else ".")
    ]
    tuned = [
        (
            code(f"{group}={name}"),
            ", ".join(code(f"{group}.{key}={value(item)[1:-1]}") for key, item in own.items()),
        )
        for group, options in given.get("tuned", {}).items()
        for name, own in options.items()
    ]
    return [*blocks, "Settings that train it:", table(("with", "values"), tuned)] if tuned else blocks


def _needs(part: registry.Part) -> str:
    declared = getattr(part.module, "NEEDS", Needs())
    needs: Needs = declared(part.config_class()) if callable(declared) else declared
    optional = dict.fromkeys(re.sub(r"(?<=_)\d+$", "#", name) for name in needs.optional)
    ways = [" or ".join(map(code, (item,) if isinstance(item, str) else item)) for item in needs.columns]
    lines = [f"It reads {', '.join(ways)}" if ways else "It reads what was recorded"]
    lines[0] += f", and {', '.join(map(code, optional))} where they were recorded." if optional else "."
    if needs.record:
        lines.append(f"To record these: `dynalab train ... {needs.record}`.")
    lines.append(f"Runs that enter are {' or '.join(needs.statuses)}.")
    lines.append(f"Its JSON: [json.md](json.md#{part.name}).")
    return " ".join(lines)


def metrics(group: str) -> str:
    """Return the columns of every part of a group, a section each; `updates` are the loop's own, averages' the same."""
    if same := {"updates": OF_UPDATES, "average": averages.COLUMNS, "embedding": OF_EMBEDDING}.get(group):
        return _columns(same)
    blocks = []
    for names, columns in _by_columns(group):
        blocks += [f"### {group}: {', '.join(names)}", _columns(columns, group)]
        if group == "probe":
            about = registry.find(group, names[0]).module.__doc__
            blocks.insert(-1, f"{prose(_first(about))}: [probes.md](probes.md#{names[0]}).")
    return "\n\n".join(blocks)


def _columns(columns: Columns, group: str = "") -> str:
    rows = [
        (" ".join(map(code, _recorded(group, {name: column}))), prose(column.about), prose(column.unit))
        for name, column in columns.items()
    ]
    return table(("column", "definition", "unit"), rows)


def _recorded(group: str, columns: Columns) -> list[str]:
    """Return the names under which columns are recorded, of a task over either split."""
    return [
        f"{split}{name}" for name in columns for split in (("train_", "test_") if group == "task" else ("",))
    ]


def _by_columns(group: str) -> list[tuple[list[str], Columns]]:
    """Return the parts of a group, those together that declare the same columns."""
    same: list[tuple[list[str], Columns]] = []
    for part in _own(group):
        columns = part.module.COLUMNS
        if known := next((names for names, other in same if other == columns), None):
            known.append(part.name)
        else:
            same.append(([part.name], columns))
    return same


def _anchor(group: str, name: str) -> str:
    """Return where the columns of a part stand on their page."""
    names = next(names for names, _ in _by_columns(group) if name in names)
    return f"{group}-{'-'.join(names)}"


def findings() -> str:
    """Return the keys of every analysis' result, a section each."""
    blocks = []
    for part in _own("analysis"):
        kind, module = part.name, part.module
        blocks.append(f"### {kind}")
        blocks.append(
            prose((inspect.getdoc(module.Findings) or "").split("\n\n")[0])
            + f" See [analyses.md](analyses.md#{kind})."
        )
        rows = [(code(item.path), item.kind, prose(item.about)) for item in entries(module.Findings)]
        blocks.append(table(("key", "type", "what it is"), rows))
        if tables := tables_of(module.Findings):
            blocks.append(f"Tables beside it: {', '.join(code(f'{name}.parquet') for name in tables)}.")
    return "\n\n".join(blocks)


def record(name: str) -> str:
    """Return the fields of a dataclass that is stored as JSON, given as `MODULE:CLASS`."""
    module, _, cls = name.partition(":")
    rows = [
        (code(item.path), item.kind, prose(item.about))
        for item in entries(getattr(importlib.import_module(module), cls))
    ]
    return table(("key", "type", "what it is"), rows)


def experiments() -> str:
    """Return the shipped experiments by task: what each shows, and the command that trains it."""
    known = {item.name: item for item in listed()}
    by_task: dict[str, list[Experiment]] = {}
    for item in known.values():
        by_task.setdefault(_task_of(item, known), []).append(item)
    blocks = []
    for task, items in sorted(by_task.items()):
        rows = []
        for item in items:
            paper = f"[{item.paper}](https://arxiv.org/abs/{item.arxiv})" if item.arxiv else prose(item.paper)
            rows.append((code(item.name), paper, prose(item.shows), code(item.command)))
        blocks += [f"## {task}", table(("experiment", "paper", "what it shows", "command"), rows)]
    return "\n\n".join(blocks)


def _task_of(item: Experiment, known: Mapping[str, Experiment]) -> str:
    """Return the task of an experiment, which may be that of the one that it begins with."""
    while "task" not in item.parts and item.parts.get("experiment") in known:
        item = known[item.parts["experiment"]]
    return item.parts.get("task", "grokking")


def module(name: str) -> str:
    """Return what a module says of itself."""
    return docstring(importlib.import_module(name).__doc__)


def commands() -> str:
    """Return every command with its options."""
    from dynalab.cli.app import app

    blocks: list[str] = []
    _command(app, "dynalab", blocks)
    return "\n\n".join(blocks)


def _command(command: click.Command, name: str, blocks: list[str]) -> None:
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            inner = command.get_command(context, below)
            assert inner is not None
            _command(inner, f"{name} {below}", blocks)
        return
    usage = " ".join([name, *(piece for piece in command.collect_usage_pieces(context))])
    blocks += [f"## {name}", f"```text\n{usage}\n```", _help(command.help or "")]
    rows = []
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            names, about = parameter.get_help_record(context) or ("", "")
            rows.append((code(names), prose(about)))
    if rows:
        blocks.append(table(("option", "what it does"), rows))


def _help(text: str) -> str:
    """Return a command's help as Markdown; what click keeps line by line is code."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        kept = block.startswith("\b\n")
        blocks.append(f"```bash\n{inspect.cleandoc(block[2:])}\n```" if kept else prose(block))
    return "\n\n".join(blocks)


MAKERS: dict[str, Callable[..., str]] = {
    "keys": shared,
    "parts": parts,
    "metrics": metrics,
    "findings": findings,
    "record": record,
    "module": module,
    "experiments": experiments,
    "commands": commands,
}


def main(arguments: Sequence[str]) -> int:
    """Write the pages anew, or say which are stale."""
    parser = argparse.ArgumentParser(prog="scripts/docs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    check = parser.parse_args(arguments).check
    stale = {
        path: made
        for path in sorted(DOCS.glob("*.md"))
        if (made := page(path.read_text("utf-8"))) != path.read_text("utf-8")
    }
    for path, made in stale.items():
        print(f"docs/{path.name} is stale: scripts/docs writes it anew" if check else f"docs/{path.name}")
        if not check:
            path.write_text(made, "utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
