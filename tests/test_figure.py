"""`dynalab figure`: every figure of the page as a file, in the width of a paper's column."""

from __future__ import annotations

import csv
import io
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from conftest import Cli
from report_fakes import no_drawing

import dynalab
from dynalab.cli.figure import _write, inches
from dynalab.errors import ConfigError
from dynalab.report.archive import _value
from dynalab.report.figures import figures
from dynalab.report.names import MADE_BY
from dynalab.show.blocks import Cell


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_store: Any) -> Iterator[SimpleNamespace]:
    """A sweep, a fork, and runs from elsewhere with sharpness at two rates' thresholds, analysed."""
    root = tmp_path_factory.mktemp("figure") / "outputs"
    swept, fork = small_store(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DYNALAB_OUTPUTS", str(root))
        edges = []
        for rate in (0.1, 0.2):
            step = np.arange(60)
            rise = 2 / rate * (1 - np.exp(-step / 10))
            table = pd.DataFrame({"run": "a", "step": step, "train_loss": 1 / (step + 1), "sharpness": rise})
            constants = {"stability_threshold": 2 / rate}
            edges.append(
                dynalab.import_runs(table, f"rate{rate}", run="run", step="step", constants=constants)
            )
        dynalab.analyze("eos", edges[0])
    yield SimpleNamespace(root=root, swept=swept, fork=fork, edges=edges)


@pytest.fixture(autouse=True)
def _there(store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(store.root))
    monkeypatch.chdir(tmp_path)


def names(answer) -> list[tuple[str, int | None]]:
    return [(item["name"], item["number"]) for item in answer.json["figures"]]


def test_the_list_is_that_of_the_page(
    store: SimpleNamespace, here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_drawing(monkeypatch)
    ids = [item.id for item in store.swept]
    for refs in (ids, ids[:1], [store.fork.id], ["rate0.1"]):
        listed = names(here("figure", "--list", *refs, "--json"))
        page = Path(here("report", *refs).out.strip())
        numbers = [number for _, number in listed if number]
        assert numbers == list(range(1, len([*(page.parent / "figures").glob("*.svg")]) + 1)), refs
        files = {path.stem for path in (page.parent / "figures").glob("*.svg")}
        assert all(any(file.endswith(f"-{name}") for file in files) for name, number in listed if number), (
            refs
        )
    assert ("edge", 1) in listed and ("cohen2021", None) in listed


def test_every_figure_of_a_page_is_drawn_at_a_column(
    store: SimpleNamespace, here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(
        "dynalab.report.figures.figures", lambda *args: kept.append(figures(*args)) or kept[-1]
    )
    drawn = set()
    for refs in ([store.fork.id], ["rate0.1"], [item.id for item in store.swept]):
        listed = names(here("figure", "--list", *refs, "--json"))
        # What the command does with the one that it is asked for; a name is drawn once of all that have it.
        for item in kept[-1]:
            if item.name in drawn:
                continue
            drawn.add(item.name)
            assert _write(item, Path("x.svg"), (3.25, None))[0] == 3.25, item.name
            assert ET.parse("x.svg").getroot().get("width") == "234pt"
        assert listed == [(item.name, item.number) for item in kept[-1]]
    name, number = listed[-1]
    words = ["figure", str(number or name), *refs, "--to", "x.svg", "--force", "--width", "3.25in", "--json"]
    assert here(*words).json["size"][0] == 3.25 and ET.parse("x.svg").getroot().get("width") == "234pt"


def test_an_archive_holds_page_figures_and_tables(store: SimpleNamespace, here: Cli) -> None:
    refs = [item.id for item in store.swept]
    path = Path(here("report", *refs, "--name", "x", "--zip").out.strip())
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        # Same results, same bytes: the page's and the figures' are tested elsewhere.
        assert len({(item.date_time, item.external_attr) for item in archive.infolist()}) == 1
        assert archive.namelist() == sorted(archive.namelist())
        files = {name.removeprefix("x/"): archive.read(name) for name in archive.namelist()}
    # Its page is the same as without an archive, which leaves none of another page, and the files that it links to are
    # in it.
    alone = here("report", *refs, "--name", "x", "--json").json
    assert alone["archive"] is None and Path(alone["path"]).with_name("x.zip") == path and not path.exists()
    source = Path(alone["path"]).read_bytes()
    assert files["index.html"] == source
    links = set(re.findall(r'href="(figures/[^"]+)"', source.decode()))
    assert links and links < {*files}
    contents = [*csv.reader(io.StringIO(files["contents.csv"].decode()))]
    assert contents[0] == ["what", "section", "shows", "file"]
    figures = [row for row in contents if row[0].startswith("figure ")]
    assert len(figures) == len(links) / 2
    # What two settings have each is told apart.
    assert len({(section, shows) for _, section, shows, _ in contents}) == len(contents)
    for _, _, shows, file in figures:
        assert shows and files[file].startswith(b"%PDF") and f"{file[:-3]}svg" in links
    of_tables = [row[3] for row in contents if row[0].startswith("table ")]
    tables = {file: [*csv.reader(io.StringIO(files[file].decode()))] for file in of_tables}
    assert {*files} == {"index.html", "contents.csv", *links, *tables, *(row[3] for row in figures)}
    (swept,) = [rows for rows in tables.values() if rows[0][0] == "ensemble" and "runs" in rows[0]]
    assert [row[0] for row in swept[1:]] == refs
    # Numbers are not rounded as they are on the page.
    runs = next(rows for file, rows in tables.items() if file.endswith(f"{refs[0]}-runs.csv"))
    place = runs[0].index("final train loss")
    final = [(run.summary or {})["final"]["train_loss"] for run in store.swept[0].runs]
    assert [float(row[place]) for row in runs[1:]] == final


def test_values_of_tables_are_inert() -> None:
    said = {
        "=HYPERLINK(1)": "'=HYPERLINK(1)", "@x": "'@x", "-x": "'-x", "-1.5": "-1.5", "a\u00a0b": "a b",
    }  # fmt: skip
    assert {text: _value(text) for text in said} == said
    assert _value(Cell(0.97234, "97.2%")) == 0.97234 and _value(Cell(1e-9, "< 0.001")) == 1e-9
    assert _value(Cell(5.0, "5 [4 to 6], 3 of 4")) == "5 [4 to 6], 3 of 4"
    assert _value(Cell(None, "not by 200")) == "not by 200"
    assert (_value(None), _value(True), _value(7)) == ("", "yes", 7)


def test_formats_hold_their_letters_and_no_date(store: SimpleNamespace, here: Cli) -> None:
    ref, made = "rate0.1", {}
    for suffix in ("pdf", "svg", "png"):
        for name in ("a", "b"):
            assert here("figure", "curves", ref, "--to", f"{name}.{suffix}", "--width", "84mm").code == 0
        made[suffix] = Path(f"a.{suffix}").read_bytes()
        assert made[suffix] == Path(f"b.{suffix}").read_bytes(), suffix
    assert (
        b"/FontFile2" in made["pdf"] and b"/Type3" not in made["pdf"] and b"CreationDate" not in made["pdf"]
    )
    assert b"<text" not in made["svg"] and b"<dc:date>" not in made["svg"]
    width, _ = struct.unpack(">II", made["png"][16:24])
    assert abs(width - 300 * 84 / 25.4) <= 1 and zlib.crc32(made["png"])


def test_papers_figures_are_of_the_runs_that_are_named(store: SimpleNamespace, here: Cli) -> None:
    refs = ["rate0.1", "rate0.2"]
    answer = here("figure", "cohen2021", *refs, "--to", "x.svg", "--json")
    assert answer.code == 0 and answer.json["number"] is None and "2 / rate" in answer.json["caption"]
    answer = here("figure", "thilak2022", "rate0.1", "--to", "y.svg")
    assert answer.code == 4 and "last_layer_norm" in answer.err and "probes=" in answer.err
    for run in ("1", "s0001"):
        answer = here("figure", "thilak2022", store.swept[0].id, "--run", run, "--to", f"{run}.svg", "--json")
        assert "run s0001" in answer.json["caption"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("curve --to x.pdf", 2, "did you mean curves?"),
        ("slingshots --to x.pdf", 4, "dynalab analyze slingshot"),
        ("periods --to x.pdf", 4, "scale_invariant_norm"),
        ("fork --to x.pdf", 4, "dynalab fork"),
        ("curves", 2, "--to FILE is missing"),
        ("curve", 2, "no figure curve (did you mean curves?); figures are "),
        ("partition-norm", 2, "--to FILE is missing"),
        ("curves --to x.gif", 2, "legal: .pdf, .svg, .png"),
        ("curves --to nowhere/x.pdf", 2, "no folder"),
        ("curves --to x.pdf --width 3", 2, "expected a length"),
        ("curves --to x.pdf --width 0.6in", 2, "no room"),
        ("curves --to x.pdf --run s9", 4, "there are s0000 and s0001"),
        ("metrics --to x.pdf --metric l3", 2, "not recorded"),
        ("landmarks --to x.pdf --metric l2", 2, "not of landmarks"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(
    store: SimpleNamespace, here: Cli, words: str, code: int, said: str
) -> None:
    name, *rest = words.split()
    answer = here("figure", name, store.swept[0].id, *rest)
    assert answer.code == code and said in answer.err and answer.err.count("\n") == 1, answer.err
    assert not Path("x.pdf").exists()


def test_a_name_of_several_is_chosen_by_setting_or_number(store: SimpleNamespace, here: Cli) -> None:
    refs = [item.id for item in store.swept]
    answer = here("figure", "curves", *refs, "--to", "x.svg")
    assert answer.code == 2 and "2 figures have this name" in answer.err
    number = re.search(r"name: (\d+) ", answer.err)
    assert number and here("figure", number[1], *refs, "--to", "x.svg").code == 0
    assert here("figure", "curves", *refs, "--setting", "optimizer=sgd", "--to", "x.svg", "--force").code == 0


def test_metrics_are_chosen(store: SimpleNamespace, here: Cli) -> None:
    words = ["figure", "metrics", store.swept[0].id, "--force", "--to", "x.svg", "--metric", "l2", "--json"]
    few = here(*words).json["size"][1]
    assert few < here(*words[:-3], "--json").json["size"][1]


@pytest.mark.parametrize(
    ("text", "value"), [("3.25in", 3.25), ("8.255 cm", 3.25), ("82.55mm", 3.25), ("234pt", 3.25)]
)
def test_lengths(text: str, value: float) -> None:
    assert inches("--width", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["3", "in", "1.2.3in", "-3in", "0in", "3 ft", "1000in", "naxin"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ConfigError, match="--width"):
        inches("--width", text)


def test_what_makes_a_figure_is_said_of_those_of_the_page() -> None:
    assert {"curves", "comparison", "fork", "claims"} <= set(MADE_BY)


def test_what_is_said_beside_settings_that_are_not_shown_comes_last(here, small_store, outputs):
    one, other = (item.id for item in small_store(outputs)[0])
    assert here("analyze", "compare", one, other).code == 0

    def names(*refs: str) -> list[str]:
        made = here("figure", "--list", *refs, "--json").json["figures"]
        return [item["name"] for item in made if item["number"] is not None]

    assert names(one)[0] == "curves" and names(one)[-1] == "ranking"
    # Of both it is what the page is about.
    assert names(one, other)[0] == "ranking"
