"""How far commands are that take long: told by each, drawn on a terminal alone, and one thing at a time."""

import json
from contextlib import ExitStack, contextmanager

import pytest
from report_fakes import make_ensemble, make_hmm, steps_of

from dynalab.analysis.command import trains
from dynalab.cli import progress
from dynalab.config.registry import find, names
from dynalab.core.progress import counted, telling
from dynalab.store import export

# What each tells of, the first and the last.
COMMANDS = {
    ("report",): ("reading", "writing"),
    ("report", "--zip"): ("reading", "writing"),
    ("figure", "curves", "--to", "f.pdf"): ("reading", "reading"),
    ("runs", "export", "--to", "r.csv"): ("reading", "writing"),
    ("runs", "export", "--to", "r.jsonl"): ("reading", "writing"),
    ("runs", "export", "--to", "r.npz"): ("reading", "writing"),
    ("runs", "export", "--to", "r.parquet"): ("reading", "reading"),
    ("runs", "archive", "--to", "r.tar.gz"): ("", ""),
}


@pytest.fixture(autouse=True)
def store(outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ensemble = make_ensemble(outputs, n_runs=3, shards=2)
    make_hmm(outputs, ensemble)
    return ensemble


@pytest.fixture
def terminal(monkeypatch):
    """What is drawn is drawn as on a terminal."""
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_tells_how_far_it_is(words, here, store):
    told = []
    with telling(lambda *what: told.append(what)):
        done = here(*words)
    assert done.code == 0, done.err
    first, last = (what.replace(store.id, "").strip() for what in (told[0][0], told[-1][0]))
    assert (first, last) == COMMANDS[words]
    assert told[0][1] == 0 and told[-1][1] == told[-1][2] > 0


@pytest.mark.usefixtures("undrawn", "terminal")
@pytest.mark.parametrize("words", [("report",), ("runs", "export", "--to", "r.csv")])
def test_it_is_drawn_on_a_terminal_and_never_among_answers(words, here):
    done = here(*words)
    assert done.code == 0 and f"{words[-1] if len(words) == 1 else words[1]}: writing" in done.err
    assert len(done.out.splitlines()) == 1 and "writing" not in done.out
    for silent in (["-q"] if words == ("report",) else [], ["--json"]):
        more = ["--force"] if words[0] == "runs" else []
        if silent:
            quiet = here(*words, *more, *silent)
            assert quiet.code == 0 and "writing" not in quiet.err
    assert json.loads(quiet.out)["schema_version"] == 1


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_drawn_elsewhere(here):
    done = here("report")
    assert done.code == 0 and "reading" not in done.err and "writing" not in done.err


@pytest.mark.usefixtures("terminal")
def test_one_thing_is_drawn_at_a_time(monkeypatch):
    drawn = []

    class Line:
        def add_task(self, kind, **about):
            return len(drawn)

        def update(self, task, **about):
            drawn.append((about["description"], about["completed"]))

    @contextmanager
    def line():
        drawn.append("line")
        yield Line()
        drawn.append("no line")

    @contextmanager
    def board():
        drawn.append("board")
        yield
        drawn.append("no board")

    monkeypatch.setattr(progress, "_line", line)
    shown = ExitStack()
    with shown, progress.pieces("hybrid", shown):
        list(counted("a", "forks", "planning"))
        # As `watching` does for every wave.
        shown.close()
        shown.enter_context(board())
        list(counted("b", "runs"))
        drawn.append("end")
    planned, ends = ([(what, done) for done in (0, 1)] for what in ("hybrid: planning", "hybrid"))
    assert drawn == ["line", *planned, "no line", "board", "no board", "line", *ends, "end", "no line"]
    with shown, progress.pieces("hybrid", shown):
        shown.enter_context(board())
        del drawn[:]
    assert drawn == ["no board"], "who has told nothing ends nothing before its time"


def test_many_small_pieces_are_seldom_drawn(terminal, monkeypatch):
    redrawn = []

    class Line:
        def add_task(self, kind, **about):
            return 0

        def update(self, task, *, refresh, **about):
            redrawn.append(refresh)

    @contextmanager
    def line():
        yield Line()

    monkeypatch.setattr(progress, "_line", line)
    now = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now) / 64)
    with progress.pieces("report"):
        list(counted(range(40), "runs"))
    assert redrawn == [place % 7 == 0 for place in range(41)]


def test_a_table_in_parts_has_the_bytes_of_one_in_whole(here, outputs, monkeypatch, tmp_path):
    suffixes = ("csv", "jsonl")
    for suffix in suffixes:
        assert here("runs", "export", "--to", f"whole.{suffix}").code == 0
    monkeypatch.setattr(export, "ROWS", len(steps_of()) + 3)
    for suffix in suffixes:
        assert here("runs", "export", "--to", f"parts.{suffix}").code == 0
        one, other = (tmp_path.joinpath(f"{name}.{suffix}").read_bytes() for name in ("whole", "parts"))
        assert one == other and one.count(b"\n") == 3 * len(steps_of()) + (suffix == "csv")


def test_every_analysis_is_held_to_it():
    """Those that train are called with a listener in tests of their own."""
    from groups import EXAMPLES

    shipped = {name: find("analysis", name) for name in names("analysis")}
    assert {name for name, part in shipped.items() if trains(part)} == {"butterfly", "hybrid"}
    assert {*shipped} - {"butterfly", "hybrid"} == {*EXAMPLES}
