"""`dynalab report`: arguments, exit codes, streams, and what it must not import."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Cli
from markupsafe import escape
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page

from dynalab.cli import report_watch
from dynalab.cli.app import run
from dynalab.core.atomic import write_json
from dynalab.store import runfile
from dynalab.store.lock import Lock
from dynalab.store.paths import OutputPaths


@pytest.fixture(autouse=True)
def _pencil(monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)


def test_the_path_on_standard_output(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = make_ensemble(outputs)
    assert run(["report"]) == 0
    said = capsys.readouterr()
    path = Path(said.out.strip())
    assert path == outputs / "reports" / f"grokking-default-{ensemble.id}" / "index.html"
    assert "dynalab analyze hmm" in said.err
    assert f"dynalab report {ensemble.id}" in read_page(path).text


def test_the_page_names_the_ensembles_that_were_the_last(outputs: Path) -> None:
    ensemble = make_ensemble(outputs)
    for words in (["@last"], ["@last", ensemble.id[:6]]):
        assert run(["report", *words, "--name", "x"]) == 0
        text = read_page(outputs / "reports" / "x" / "index.html").text
        assert "@last" not in text and f"dynalab report {ensemble.id}" in text
    assert run(["report", "@last", "-f", "seed<1", "--name", "x"]) == 0
    text = read_page(outputs / "reports" / "x" / "index.html").text
    assert f"dynalab report {ensemble.id} -f 'seed<1' --name x" in text


def test_json(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = make_ensemble(outputs)
    result = make_hmm(outputs, ensemble, warnings=["beware"])
    assert run(["report", "name=mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == [
        "schema_version",
        "name",
        "path",
        "archive",
        "ensembles",
        "analyses",
        "others",
        "warnings",
    ]
    assert (
        document["name"] == "mine" and Path(document["path"]) == outputs / "reports" / "mine" / "index.html"
    )
    assert document["ensembles"] == [
        {"id": ensemble.id, "path": str(ensemble.path), "runs": [item.id for item in ensemble.runs]}
    ]
    assert document["analyses"] == [{"id": result.id, "kind": "hmm", "ensemble": ensemble.id}]
    assert document["warnings"] == ["beware"]


@pytest.mark.usefixtures("undrawn")
def test_the_newest_analysis_unless_one_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = make_ensemble(outputs)
    make_hmm(outputs, ensemble, digest="aaaaaaaaaa", created="2026-11-23T00:00:00+00:00")
    make_hmm(outputs, ensemble, digest="bbbbbbbbbb", created="2026-11-24T00:00:00+00:00")
    for words, expected in (([], "b"), (["hmm-aaaa"], "a"), ([ensemble.id[:6], "aaaaaaaaaa"], "a")):
        assert run(["report", *words, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [item["id"][0] for item in document["analyses"]] == [expected]
        assert document["name"].endswith("-hmm-aaaaaaaaaa") == bool(words)


def test_an_analysis_of_other_runs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    make_hmm(outputs, one)
    assert run(["report", two.id, "hmm-7ebafd365b"]) == 2
    assert f"is about {one.id}" in capsys.readouterr().err


def test_a_filter_shows_its_runs_only(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_ensemble(outputs, n_runs=5)
    assert run(["report", "-f", "seed<2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [item.rpartition("/")[2] for item in document["ensembles"][0]["runs"]] == ["s0000", "s0001"]
    page = read_page(Path(document["path"]))
    assert [row[0] for row in page.table("run", "seed")] == ["s0000", "s0001"]
    assert "dynalab report -f 'seed<2'" in page.text


def test_a_title_and_a_note_are_text(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_ensemble(outputs)
    bad = "<script>alert(1)</script></title><img src=x onerror=alert(1)>\"'&{{ 7*7 }}\u202e\udcff"
    file = tmp_path / "note.md"
    file.write_bytes(f"\ufeffFirst **line**\r\nof two.\r\n \r\n{bad[:-2]}\x07 `code`".encode())
    assert run(["report", "--title", f"Mine\n{bad}", "--note", f"@{file}", "--name", "x"]) == 0
    path = outputs / "reports/x/index.html"
    source, text = path.read_text("utf-8"), read_page(path).text
    assert source.count("<script>") == 1 and "<img" not in source and "\x07" not in source
    assert f"<title>Mine {escape(bad[:-2])}\\u202e\\udcff</title>" in source
    # What was trained stands below, then the note.
    places = [
        text.index(part) for part in (f"Mine {bad[:-2]}", "4 seeds, 200 steps", "First", bad[:-2] + "\\x07")
    ]
    assert places == sorted(places)
    assert "<strong>line</strong>\nof two.</p>" in source and "<code>code</code></p>" in source
    assert f"--note @{file}" in text
    # The next without them has none.
    assert run(["report", "--note", "Two words", "--name", "x"]) == 0
    text = read_page(path).text
    assert "Mine" not in text and text.index("4 seeds, 200 steps") < text.index("Two words")
    capsys.readouterr()
    file.write_bytes(b"\xff\xfe")
    for words, said in (
        (["--title", " "], "--title: expected 1 to"),
        (["--note", f"@{file}"], "not UTF-8 text"),
        (["--note", f"@{tmp_path}"], "Is a directory"),
        (["--note", "@none"], "No such file"),
        (["--note", "@~nobody-here/x"], "no home folder"),
        (["--note", "@a\0b"], "--note"),
        (["--note", "x" * 100_001], "--note: expected 1 to 100,000 letters"),
    ):
        assert run(["report", *words]) == 2, words
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1 and len(error) < 300


def test_outputs_is_an_override_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_ensemble(tmp_path / "elsewhere")
    assert run(["report", f"outputs={tmp_path / 'elsewhere'}"]) == 0
    assert str(tmp_path / "elsewhere" / "reports") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nam=x"], 2, "did you mean name?"),
        (["optimizer.lr=0.1"], 2, "no such key"),
        (["name="], 2, "expected"),
        (["--name", "../x"], 2, "name=../x"),
        (["deadbeef"], 4, "deadbeef"),
        (["-f", "task=parity"], 4, "no run fits"),
        (["-f", "nonsense"], 2, "nonsense"),
        (["--nam", "x"], 2, "--nam"),
    ],
)
def test_mistakes(
    outputs: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    make_ensemble(outputs)
    assert run(["report", *words]) == code
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out
    assert not (outputs / "reports").exists()


def test_no_runs_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report"]) == 4
    assert "dynalab train" in capsys.readouterr().err


def test_a_damaged_shard_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    (ensemble.path / "shard-0000-0001-2" / "run.json").write_text("{")
    assert run(["report", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert len(document["warnings"]) == 1 and "shard-0000-0001-2 is left out" in document["warnings"][0]
    assert [item.rpartition("/")[2] for item in document["ensembles"][0]["runs"]] == ["s0002", "s0003"]
    assert "shard-0000-0001-2 is left out" in read_page(Path(document["path"])).text


def test_a_damaged_analysis_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    path = make_hmm(outputs, two).paths.result
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # Of runs that it is not about, it is no matter.
    for words, code in (([two.id], 3), (["hmm-7ebafd365b"], 3), ([two.id, "7ebafd"], 3), ([one.id], 0)):
        assert run(["report", *words]) == code
        assert (f"{path} is damaged" in capsys.readouterr().err) == (code == 3), words
    assert run(["analyze", "hmm", one.id, "decode_with=hmm-7ebafd365b"]) == 3
    assert f"{path} is damaged" in capsys.readouterr().err
    path.write_text("")
    assert run(["report", one.id]) == 3


def test_outputs_that_cannot_be_written(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_ensemble(outputs)
    (outputs / "reports").write_text("a file where the folder would be")
    assert run(["report"]) == 3
    assert "cannot write" in capsys.readouterr().err
    (outputs / "reports").unlink()
    (outputs / "reports").mkdir()
    (outputs / "reports" / "page").write_text("a file where the report would be")
    assert run(["report", "--name", "page"]) == 3
    assert "page: Not a directory" in capsys.readouterr().err


def test_neither_torch_nor_hmmlearn_is_imported(outputs: Path, cli: Cli, tmp_path: Path) -> None:
    ensemble = make_ensemble(outputs)
    make_hmm(outputs, ensemble)
    hook = tmp_path / "hook"
    hook.mkdir()
    # Whatever imports them fails, and says so; SciPy asks sys.modules for torch, and must not find it there.
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refusal:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'hmmlearn', 'matplotlib.pyplot'):\n"
        "            raise ImportError(f'{name} is not to be imported')\n"
        "sys.meta_path.insert(0, Refusal())\n"
    )
    answer = cli("report", PYTHONPATH=str(hook), PYTHONWARNINGS="error")
    assert answer.code == 0, answer.err
    assert Path(answer.out.strip()).is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_page_is_written_again_while_a_sweep_trains(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_ensemble(outputs, status="partial")
    two = make_ensemble(
        outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01", status="partial"
    )
    write_json(OutputPaths(outputs).last, {"schema_version": 1, "ensembles": [one.id, two.id]})
    page = outputs / "reports/x/index.html"
    texts, times, shards = list[str](), set[int](), [item.paths.shards()[0] for item in (one, two)]

    def look(_: float) -> None:
        # Whenever it waits a page stands there, whole, of all that is trained.
        texts.append(read_page(page).text)
        times.add(page.stat().st_mtime_ns)
        assert one.id in texts[-1] and two.id in texts[-1]
        if len(texts) == 3:
            # Another command begins: it is not what is watched.
            make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.1"], slug="lr_0.1")
        if 2 <= len(texts) <= 5:
            record = runfile.read(shards[0])
            record.steps -= 10
            runfile.write(shards[0], record)
        if len(texts) == 6:
            held.close()

    clock = SimpleNamespace(sleep=look, monotonic=lambda: 60.0 * len(texts))
    monkeypatch.setattr(report_watch, "time", clock)
    with ExitStack() as held:
        held.enter_context(Lock(shards[0].lock, beats=False))
        assert run(["report", "--watch", "--name", "x"]) == 0
    assert len(times) == 5 and len(texts) == 6 + report_watch.ENDED
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(page)] and "Ctrl-C ends that alone" in said.err
    assert 'http-equiv="refresh' not in page.read_text("utf-8")
    assert f"dynalab report {one.id} {two.id} --name x" in read_page(page).text

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupt
    with Lock(shards[0].lock, beats=False):
        assert run(["report", one.id, "--watch", "--name", "x"]) == 130
    assert "training goes on" in capsys.readouterr().err and two.id not in read_page(page).text
    # Where nothing is trained, the page is written and that is all.
    clock.sleep = lambda _: texts.append("")
    assert run(["report", one.id, "--watch", "--name", "x"]) == 0
