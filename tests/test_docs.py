"""The pages of docs/: what is made from the code is fresh, links lead somewhere, what commands print stands there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docs_markdown
import docs_pages
import docs_records
import pytest
import torch
from conftest import but
from report_fakes import no_drawing
from test_smoke import SMALL, data_for

from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.core.columns import OF_UPDATES, Column, Columns, declared
from dynalab.core.streams import Streams
from dynalab.launch import health
from dynalab.store import paths as places

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_made_from_the_code_is_fresh(path):
    text = path.read_text("utf-8")
    assert docs_pages.page(text) == text, f"docs/{path.name} is stale: scripts/docs writes it anew"


def test_a_stale_page_is_named_and_written(tmp_path, monkeypatch, capsys):
    """`--check` writes nothing; what stands around what is made stays."""
    page = tmp_path / "keys.md"
    page.write_text("before\n<!-- made by scripts/docs: keys eval -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(docs_pages, "DOCS", tmp_path)
    assert docs_pages.main(["--check"]) == 1 and "old" in page.read_text()
    assert "keys.md is stale: scripts/docs" in capsys.readouterr().out
    assert docs_pages.main([]) == 0 and docs_pages.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "| `eval.every` |" in text and "old" not in text


def test_tables_hold_whatever_stands_in_a_cell():
    made = docs_markdown.table(("a", "b"), [("`x|y`", docs_markdown.prose("2 * 3 < 7 and _b, a_b\nnext"))])
    assert made.splitlines()[2] == "| `x\\|y` | 2 \\* 3 &lt; 7 and \\_b, a_b next |"
    assert docs_markdown.value([1e-3, None, True, ""]) == "`[0.001, null, true, null]`"


def _anchors(path: Path) -> set[str]:
    """Return the names of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), target


def test_the_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text("utf-8")
    assert [path.name for path in PAGES if f"({path.name})" not in index and path.name != "README.md"] == []


def test_every_key_of_findings_says_what_it_is():
    for kind in registry.names("analysis"):
        entries = list(docs_records.entries(registry.find("analysis", kind).module.Findings))
        assert len(entries) > 3 and [item.path for item in entries if not item.about] == [], kind


def test_every_file_of_the_store_stands_on_its_page():
    text = (ROOT / "docs/files.md").read_text("utf-8")
    classes = (places.OutputPaths, places.EnsemblePaths, places.ShardPaths, places.CheckpointPaths)
    named = {
        place.name
        for cls in (*classes, places.AnalysisPaths)
        for place in vars(cls).values()
        if isinstance(place, places._Place)
    }
    assert len(named) > 15 and [name for name in named if name not in text] == []


# Columns ------------------------------------------------------------------------------------------------------------

# Beside every task with its own network and probes these record all that probes can.
PROBED = [
    [
        *("task=digits", "model=si_mlp", "model.width=8", "task.n_train=40", "train.batch_size=full"),
        *(
            "optimizer.weight_decay=0.1",
            "optimizer.decay=matrices",
            "probes=[curvature,scale_invariant,spectrum,regions]",
        ),
        *(
            "probe.curvature.eigenvalues=2",
            "probe.curvature.trace=1",
            "probe.spectrum.m=4",
            "probe.regions.points=5",
        ),
    ],
    [
        "task=grokking",
        "task.modulus=7",
        "model=onehot_mlp",
        "model.hidden=[8]",
        "probes=[weights,gradients,numerics,examples,fourier]",
    ],
    ["task=parity", "task.n=10", "model.hidden=[8]", "optimizer=adam", "probes=[curvature,directions,modes]"],
]


def declarations(task: str, probes: Sequence[str]) -> Columns:
    """Return all that a training of a task with some probes may record."""
    own: dict[str, Column] = dict(OF_UPDATES)
    for name, column in registry.find("task", task).module.COLUMNS.items():
        own |= {f"train_{name}": column, f"test_{name}": column}
    for probe in probes:
        own |= registry.find("probe", probe).module.COLUMNS
    return own


def test_every_column_is_declared_and_every_declaration_recorded(one_thread, tmp_path):
    from dynalab.training.loop import Loop

    found: set[str] = set()
    tasks = [[f"task={name}", *words, *data_for(name, tmp_path)] for name, words in SMALL.items()]
    for words in [*tasks, *PROBED]:
        (request,) = read_command(words).requests
        config = request.config
        loop = Loop(config, [Streams.from_seed(seed) for seed in (0, 1)], request.steps, torch.device("cpu"))
        names = {name for row in loop.rows().values() for name in row}
        columns = declarations(config.task.name, config.probes)
        assert [name for name in names if declared(name, columns) is None] == [], words
        found |= {form for name in names if (form := declared(name, columns))}
    every = [declarations(name, registry.names("probe")) for name in SMALL]
    assert {form for columns in every for form in columns} == found


# JSON ---------------------------------------------------------------------------------------------------------------


def sections() -> dict[str, dict[str, str]]:
    """Return heading -> path -> type, of the tables of docs/json.md."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^#+ ", (ROOT / "docs/json.md").read_text("utf-8"), flags=re.M)[1:]:
        heading, _, text = part.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, re.M)
        if rows:
            found[heading] = dict(rows)
    return found


def leaves(value: Any, before: str = "") -> Iterator[str]:
    """Yield the path of every key in plain values, `[]` for any place of a list."""
    if isinstance(value, dict):
        for key, item in value.items():
            path = f"{before}.{key}".lstrip(".")
            yield path
            yield from leaves(item, path)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{before}[]")


def parents(path: str) -> set[str]:
    """Return a path and those of what it lies in."""
    parts = path.split(".")
    return {".".join(parts[:count]).removesuffix("[]") for count in range(1, len(parts) + 1)}


def unlike(value: Any, rows: dict[str, str]) -> tuple[set[str], set[str]]:
    """Return the paths that are in a value and not in a table, and those that are in the table alone.

    What lies in an object of which the table has no key is the object's own.
    """
    seen = {path for path in leaves(value) if path not in ("schema_version", "kind")}
    opened = {above for row in rows for above in parents(row)}
    closed = {row for row in rows if not any(other != row and row in parents(other) for other in rows)}
    spare = {path for path in seen - opened if not parents(path) & closed}
    return spare, {row for row, kind in rows.items() if "may be absent" not in kind} - seen


def test_what_commands_print_stands_on_the_page(here, tiny, tmp_path, monkeypatch):
    """Every key of every command; and no key stands there that none prints."""
    no_drawing(monkeypatch)
    tables = sections()
    table = tmp_path / "runs.csv"
    table.write_text(
        "run,step,train_loss,last_layer_norm\n" + "".join(f"a,{i},{1 / (i + 1)},1\n" for i in range(60))
    )
    own = [*but(tiny, "train.steps=20"), "eval.every=10", "seed=0..1", "launcher=inline"]
    (ensemble,) = here("train", *own, "--json").json["ensembles"]
    ref = ensemble["id"]
    commands = {
        "train": ["train", *own],
        "train --dry-run": ["train", *own, "--dry-run"],
        "train --prepare": ["train", *own, "--prepare"],
        "worker": ["worker", "--shard", str(next(Path(ensemble["path"]).glob("shard-*")))],
        "import": ["import", str(table), "--name", "mine"],
        "runs list": ["runs", "list", ref],
        "runs show": ["runs", "show", ref],
        "config": ["config", *own],
        "runs diff": ["runs", "diff", f"{ref}/s0000", f"{ref}/s0001"],
        "runs export": ["runs", "export", ref, "--to", str(tmp_path / "all.csv")],
        "Analyses": ["analyze", "slingshot", "mine"],
        "runs list --analyses": ["runs", "list", "--analyses"],
        "report": ["report", ref],
        "figure": ["figure", "curves", ref, "--to", str(tmp_path / "curves.svg")],
        "figure --list": ["figure", "--list", ref],
        "data list": ["data", "list"],
        "data verify": ["data", "verify", "mnist", "--root", str(tmp_path)],
        "runs tag": ["runs", "tag", ref, "--add", "paper"],
        "runs du": ["runs", "du", ref],
        "runs gc": ["runs", "gc", "--snapshots", "1", "--yes"],
        "runs rerun": ["runs", "rerun", f"{ref}/s0000", "--steps", "5", "launcher=inline"],
        "runs archive": ["runs", "archive", ref, "--to", str(tmp_path / "x.tgz")],
        "runs unpack": ["runs", "unpack", str(tmp_path / "x.tgz")],
        "runs query": ["runs", "query", "SELECT 1"],
        "doctor": ["doctor"],
        "runs rm": ["runs", "rm", ref, "--yes"],
    }
    if importlib.util.find_spec("duckdb") is None:
        del commands["runs query"], tables["runs query"]
    # These two start workers.
    for name in ("_launcher", "_bits"):
        monkeypatch.setattr(health, name, health._memory)
    for heading, words in commands.items():
        answer = here(*words, "--json")
        assert answer.code in (0, 2) and answer.out, (words, answer.err)
        printed = answer.json
        for run in [run for run in printed.get("runs", []) if isinstance(run, dict)]:
            assert unlike(run, tables["A run"]) == (set(), set()), heading
        if heading == "Analyses":
            (printed,) = printed["analyses"]
            tables[heading] |= tables["slingshot"]
            assert {path for path in tables["slingshot"] if "." not in path} <= set(printed)
            assert unlike(printed, tables[heading])[0] == set()
            continue
        assert unlike(printed, tables[heading]) == (set(), set()), heading
    assert set(tables) - set(commands) - set(registry.names("analysis")) == {"A run", "bench", "reproduce"}
