"""How far training is, as everyone sees it: on disk, in `runs watch`, in bars and lines, and what comes next."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dynalab.cli import board as boards
from dynalab.cli import next_step, runs_watch
from dynalab.cli.board import Board, showing
from dynalab.cli.names import names
from dynalab.config.command import LAUNCHERS
from dynalab.launch.base import launcher
from dynalab.store import commands, progress, runfile
from dynalab.store.commands import Announcement
from dynalab.store.lock import Lock
from dynalab.store.owner import Owner
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.progress import Progress
from dynalab.store.standing import Lookout, Standing, summarise
from dynalab.training import session

CONFIG = "task:\n  name: parity\neval:\n  every: 100\nlevels:\n  test_accuracy: 0.99\n"


def shard(
    outputs: Path,
    digest: str = "a" * 10,
    *,
    seeds: range = range(4),
    status: str = "planned",
    steps: int = 0,
    asked: int = 1000,
    config: str = "{}",
    **more: Any,
) -> ShardPaths:
    """Store a shard, without training."""
    ensemble = OutputPaths(outputs).ensemble("parity", "default", digest)
    ensemble.root.mkdir(parents=True, exist_ok=True)
    ensemble.config.write_text(CONFIG if config == "{}" else config)
    ensemble.overrides.write_text("[task=parity]")
    runs = [runfile.Run(f"s{seed:04d}", seed, {}, status, steps) for seed in seeds]
    paths = ensemble.shard(runfile.folder_name(runs, 1))
    paths.root.mkdir(exist_ok=True)
    runfile.write(paths, runfile.Shard(runs, asked, status=status, steps=steps, **more))
    return paths


def tell(paths: ShardPaths, lock: Lock, step: int, rate: float = 10.0, **latest: float) -> None:
    progress.write(paths, Progress(step, rate, latest, 1000, 4, lock.token, 1.0))


def dead_lock(path: Path, token: str = "t" * 32) -> Owner:
    """Leave the lock of a process of this machine that is gone."""
    me = Owner.me()
    owner = Owner(me.host, me.boot, 2**22 + 1, "1", me.space, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(owner.to_bytes())
    return owner


def last(outputs: Path, *ids: str) -> None:
    OutputPaths(outputs).last.write_text(json.dumps({"schema_version": 1, "ensembles": ids}))


# On disk


def test_progress_is_written_while_a_shard_is_trained_and_gone_afterwards(here, tiny, outputs, monkeypatch):
    written: list[tuple[Progress, Any]] = []
    write = progress.write

    def spy(paths, item):
        write(paths, item)
        written.append((item, progress.read(paths, Owner.from_bytes(paths.lock.read_bytes()).token)))

    monkeypatch.setattr(session, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(progress, "write", spy)
    answer = here("train", *tiny, "seed=0..1", "compute.compile=false")
    assert answer.code == 0
    items = [item for item, _ in written]
    assert [item.step for item in items] == list(range(1, len(items) + 1)) and len(items) > 30
    assert {(item.steps, item.runs) for item in items} == {(60, 2)} and all(item.rate > 0 for item in items)
    # What was written is what others read, beside the lock of who wrote it.
    assert all(found == item for item, found in written)
    assert not [*outputs.rglob("*progress*")] and not OutputPaths(outputs).commands.exists()


def test_progress_that_cannot_be_written_stops_nothing(tmp_path, outputs):
    paths = shard(outputs)
    item = Progress(5, 1.0)
    aside = paths.root / ".progress.json.tmp"
    aside.symlink_to(tmp_path / "elsewhere")
    progress.write(paths, item)
    assert not (tmp_path / "elsewhere").exists() and not paths.progress.exists()
    progress.write(ShardPaths(tmp_path / "no folder"), item)
    progress.write(paths, Progress(5, float("nan")))
    assert not paths.progress.exists()


GOOD = {"schema_version": 1, "step": 3, "rate": 2.0, "latest": {"train_loss": 1.0}, "token": "x"}
GOOD |= {"steps": 9, "runs": 2, "time": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "3"},
        {"rate": True},
        {"rate": -2},
        {"rate": 10**400},
        {"latest": {"train_loss": "\x1b[2J"}},
        {"latest": {"[bold]": 1.0}},
        {"latest": [1]},
        {"latest": {"train_loss": 10**400}},
        {"token": "y"},
        {"token": 3},
    ],
)
def test_a_strangers_progress_is_ignored(outputs, change):
    paths = shard(outputs)
    paths.progress.write_text(json.dumps(GOOD))
    assert progress.read(paths, "x").step == 3
    paths.progress.write_text(json.dumps(GOOD | change))
    assert progress.read(paths, "x") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"step": 3}', "[" * 9000, " " * 20_000 + json.dumps(GOOD)]
)
def test_a_damaged_progress_is_ignored(outputs, text):
    paths = shard(outputs)
    paths.progress.write_text(text)
    assert progress.read(paths, "x") is None


def look(outputs: Path, *shards: ShardPaths) -> list[Standing]:
    return Lookout(OutputPaths(outputs)).look(shards)[0]


def test_only_the_progress_of_the_living_owner_counts(outputs):
    paths = shard(outputs, status="running", steps=100)
    with Lock(paths.lock) as lock:
        tell(paths, lock, 400)
        (item,) = look(outputs, paths)
        assert item.active and item.step == 400 and item.rate == 10 and item.states == ["running"] * 4
        tell(paths, lock, 5000)
        assert look(outputs, paths)[0].step == 1000
    # Ended without a word, as by a kill: what its progress says is nobody's.
    (item,) = look(outputs, paths)
    assert not item.active and item.step == 100 and item.rate == 0 and item.states == ["crashed"] * 4
    owner = dead_lock(paths.lock)
    progress.write(paths, Progress(400, 10.0, {}, 1000, 4, owner.token))
    assert look(outputs, paths)[0].states == ["crashed"] * 4 and not Lookout(OutputPaths(outputs)).trained()
    # Taken over, and begun again from its checkpoint.
    paths.lock.unlink()
    with Lock(paths.lock):
        (item,) = look(outputs, paths)
        assert item.step == 100 and item.states == ["running"] * 4 and item.rate == 0


def test_a_shard_waits_where_a_living_command_says_so(outputs):
    mine, other = shard(outputs, "a" * 10), shard(outputs, "b" * 10)
    paths, lookout = OutputPaths(outputs), Lookout(OutputPaths(outputs))
    with Announcement(paths) as announcement:
        assert commands.living(paths) == [commands.Training()]
        announcement.of([mine], 2)
        (training,) = commands.living(paths)
        assert training.shards == (mine,) and training.workers == 2
        one, two = look(outputs, mine, other)
        assert one.states == ["waiting"] * 4 and two.states == ["planned"] * 4
        assert lookout.trained() == [mine]
        # It was in hand and failed: it waits no longer.
        runfile.write(
            mine, runfile.Shard(one.shard.runs, 1000, status="failed", attempts=[{"started": "2999"}])
        )
        assert look(outputs, mine)[0].states == ["failed"] * 4
        # In the place of what was split stand its parts, which wait.
        mine.root.rename(outputs / "gone")
        part = shard(
            outputs, seeds=range(2), plan={"split_from": mine.root.name}, attempts=[{"started": "2999"}]
        )
        assert [item.paths for item in look(outputs, mine)] == [part] == lookout.trained()
        assert look(outputs, part)[0].states == ["waiting"] * 2
    assert not commands.living(paths) and look(outputs, part)[0].states == ["planned"] * 2


def test_what_a_killed_command_left_counts_for_nothing_and_is_removed(outputs):
    paths = OutputPaths(outputs)
    held = shard(outputs)
    left = paths.commands / "0123456789ab"
    dead_lock(left.with_suffix(".lock"))
    left.with_suffix(".json").write_text(json.dumps({"shards": [str(held.root.relative_to(outputs))]}))
    assert not commands.living(paths) and not Lookout(paths).trained()
    with Announcement(paths):
        assert not left.with_suffix(".json").exists() and not left.with_suffix(".lock").exists()


@pytest.mark.parametrize(
    "names", [["../../etc/shard-0000-0001-2"], ["a/b"], "x", [3], ["/etc/x-0123456789/shard-0-1-2"]]
)
def test_a_strangers_command_leads_nowhere(outputs, names):
    shard(outputs)
    paths = OutputPaths(outputs)
    with Announcement(paths) as announcement:
        announcement.of([], 1)
        (place,) = paths.commands.glob("*.json")
        place.write_text(json.dumps({"shards": names, "workers": 1, "began": ""}))
        assert commands.living(paths) == [commands.Training()]


# The time that is left


def standing(
    outputs: Path, place: int, done: int, rate: float, *, held: bool = True, asked: int = 1000
) -> Standing:
    paths = OutputPaths(outputs).ensemble("parity", "x", f"{place:010d}").shard("shard-0000-0001-2")
    runs = [runfile.Run("s0000", 0, {}), runfile.Run("s0001", 1, {})]
    item = runfile.Shard(runs, asked, status="running", steps=done)
    said = Progress(done, rate, {}) if rate else None
    return Standing(paths, item, Owner.me() if held else None, said, waits=not held)


def test_the_time_left_counts_what_waits(outputs):
    two = [standing(outputs, 0, 900, 10.0), standing(outputs, 1, 800, 10.0)]
    assert summarise(two).left == 20
    # 10 + 20 + 2 * 100 s of work for two workers.
    waiting = [standing(outputs, place, 0, 0.0, held=False) for place in (2, 3)]
    assert summarise([*two, *waiting], 2).left == 115
    # The last shard is one worker's.
    assert summarise([standing(outputs, 0, 990, 10.0), standing(outputs, 1, 0, 10.0)], 2).left == 100
    # One worker has begun, the other is still loading torch; a slower ensemble's shard waits at its own rate.
    begun = [
        standing(outputs, 0, 0, 10.0),
        standing(outputs, 1, 0, 1.0),
        standing(outputs, 1, 0, 0.0, held=False),
    ]
    assert summarise(begun, 2).left == pytest.approx((100 + 1000 + 1000) / 2)
    assert summarise(begun, 2).rate == 22


def test_metrics_are_of_runs_in_work_that_are_about_as_far(outputs):
    """Runs that ended are no part of a median with others that have just begun: it would read as a collapse."""

    def at(place: int, step: int, loss: float, *, held: bool = True) -> Standing:
        item = standing(outputs, place, step, 10.0)
        return replace(
            item, progress=Progress(step, 10.0, {"train_loss": loss}), owner=item.owner if held else None
        )

    ended, begun, near = at(0, 1000, 0.001, held=False), at(1, 300, 0.5), at(2, 320, 0.7)
    summary = summarise([ended, begun, near, at(3, 20, 4.0)])
    assert summary.latest == {"train_loss": pytest.approx(0.6)}
    assert (summary.shown, summary.shown_step) == (4, 320)
    assert "4 of them at step 320: train loss 0.6" in boards._line("x", summary)
    assert ", train loss 0.6" in boards._line("x", summarise([begun, near]))
    assert summarise([ended]).latest == {"train_loss": 0.001}


def test_nothing_is_claimed_while_workers_start(outputs):
    summary = summarise([standing(outputs, 0, 0, 0.0), standing(outputs, 1, 0, 0.0, held=False)], 2)
    assert summary.left is None and boards.state(summary) == "starting"
    assert "seed-steps/s" not in boards._line("x", summary)
    assert boards.state(summarise([standing(outputs, 1, 0, 0.0, held=False)])) == "waiting"


# Drawn


def test_ensembles_are_named_by_what_differs(outputs):
    def named(*configs: str) -> list[str]:
        ensembles = [
            shard(outputs, f"{place:010d}", config=own).ensemble for place, own in enumerate(configs)
        ]
        return list(names(ensembles).values())

    assert named("optimizer: {lr: 0.1}") == ["parity"]
    assert named("parent: cb7150eb3e@200") == ["parity, fork of cb7150eb3e@200"]
    assert named("optimizer: {lr: 0.1}", "optimizer: {lr: 0.2}") == ["lr 0.1", "lr 0.2"]
    # A rate that came with the choice of an optimizer is not named; of two keys of one name each is named whole.
    chosen = "{optimizer: {name: sgd, lr: 1}}", "{optimizer: {name: sam, lr: 2}}", "{edit: {name: x}}"
    assert named(*chosen) == ["sgd", "sam", "x"]
    rates = "{optimizer: {lr: 1}, schedule: {lr: 1}}", "{optimizer: {lr: 1}, schedule: {lr: 2}, parent: a@1}"
    assert named(*rates, "optimizer: {lr: 3}") == [
        "optimizer.lr 1, schedule.lr 1",
        "optimizer.lr 1, schedule.lr 2, fork of a@1",
        "optimizer.lr 3",
    ]
    # Nothing to tell them by, or nothing that can be read.
    assert named(CONFIG, CONFIG) == ["parity 0000000000", "parity 0000000001"]
    assert named(CONFIG, CONFIG, "- no tree")[1:] == ["parity (0000000001)", "parity 0000000002"]


def board(outputs: Path, n: int, config: str = "optimizer: {{lr: 0.{}}}") -> Board:
    shards = [shard(outputs, f"{i:010d}", config=config.format(i)) for i in range(n)]
    found = Board(outputs, shards)
    found.look()
    return found


def drawn(found: Board, width: int, height: int = 24) -> list[str]:
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(found.table(width, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    "config",
    [
        "optimizer: {{lr: 0.{}}}",
        "x: {{'[bold]': '{}[/]:smile:'}}",
        "task: {{名前の長い鍵名前の長い鍵名前の長い鍵名前の長い鍵: 値{}}}",
    ],
)
@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_bars_fit_the_terminal(outputs, config, width):
    from rich.cells import cell_len

    found = board(outputs, 3, config)
    shards = [item.paths for item in found.standings]
    with Lock(shards[0].lock, beats=False) as lock, Announcement(OutputPaths(outputs)) as announcement:
        announcement.of(shards, 1)
        tell(shards[0], lock, 500, 0.1, test_accuracy=0.93, train_loss=0.012345, train_accuracy=1.0)
        found.look()
        lines = drawn(found, width)
    assert len(lines) == 4 and all(cell_len(line) <= width for line in lines)
    assert "500/1000" in lines[0] and "1:23:20 left" in lines[0] and "waiting" in lines[1]
    assert lines[3].startswith("all 3 ensembles") and "17%" in lines[3] and "6:56:40 left" in lines[3]
    assert ("test accuracy 0.93" in lines[0]) == (width >= 80 or (config.startswith("opt") and width > 70))
    assert ("seed-steps/s" in lines[0]) <= (width >= 100)
    if width == 200:
        assert "train loss 0.0123" in lines[0] and "4 seeds" in lines[0] and "0 seed-steps/s" in lines[0]
        assert boards.cell(found.ensembles()[0][1]) in lines[0]


def test_many_ensembles_take_the_lines_that_there_are(outputs):
    found = board(outputs, 30)
    shards = [item.paths for item in found.standings]
    with Lock(shards[29].lock, beats=False) as lock, Announcement(OutputPaths(outputs)) as announcement:
        announcement.of(shards[20:], 1)
        tell(shards[29], lock, 500)
        found.look()
        lines = drawn(found, 80, 12)
        assert len(lines) == 11
        # Those that move first, then those that wait, in the order of the command; the rest in a line, and the total.
        assert lines[8].startswith("lr 0.29 ") and lines[0].startswith("lr 0.2 ")
        assert lines[9] == "and 21 more: 20 planned, 1 waiting" and lines[10].startswith("all 30 ensembles")
        assert len(found.lines()) == 2 and found.lines()[0].startswith(
            "lr 0.29 (0000000029): 4 seeds, step 500 of 1,000"
        )


def test_what_became_of_runs_is_said(outputs):
    paths = shard(outputs, status="done", steps=1000)
    item = runfile.read(paths)
    item.runs[0].status = "diverged"
    runfile.write(paths, item)
    found = Board(
        outputs, [paths, shard(outputs, seeds=range(9, 11), status="partial", steps=500, asked=2000)]
    )
    found.look()
    assert boards.state(found.total) == "3 done, 2 partial, 1 diverged"
    # Of a shard that ended nothing is left to do, and lengths that differ have no step in common.
    (line,) = found.lines(moving=False)
    assert line.startswith(f"parity ({'a' * 10}): 6 seeds, 62%, ") and "62%" in drawn(found, 80)[0]
    # Where all diverged there is nothing else to say than when.
    for place, run in enumerate(item.runs):
        run.status, run.steps = "diverged", 37 + place
    runfile.write(paths, item)
    lost = Board(outputs, [paths])
    lost.look()
    assert lost.lines(moving=False)[0].endswith("step 38 of 1,000, diverged at steps 37 to 40")
    assert "38/1000" in drawn(lost, 80)[0] and lost.total.fraction == 1


@pytest.mark.parametrize("live", [True, False])
def test_lines_are_said_beside_what_is_shown(outputs, capsys, monkeypatch, live):
    monkeypatch.setattr(boards, "PLAIN_SECONDS", 0.01)
    paths, said = shard(outputs, status="running"), []
    with Lock(paths.lock, beats=False) as lock:
        tell(paths, lock, 500)
        with showing(Board(outputs, [paths]), live, said.append) as say:
            say("[bold]a line\x1b[2J")
            while not live and len(said) < 2:
                pass
    shown = capsys.readouterr().err
    if live:
        assert "[bold]a line\\x1b[2J" in shown and "500/1000" in shown
    else:
        assert said[1].startswith(f"parity ({'a' * 10}): 4 seeds, step 500 of 1,000, 40 seed-steps/s")


# runs watch


def test_where_nothing_trains_a_line_says_so(here, outputs):
    assert here("runs", "watch").code == 4
    paths = shard(outputs, status="done", steps=1000)
    last(outputs, paths.ensemble.digest)
    answer = here("runs", "watch")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"nothing is being trained in {outputs}; the last, {'a' * 10}: 4 done\n"
    assert here("runs", "watch", "-f", "task=parity", "--json").json["total"]["runs"] == {"done": 4}
    assert here("runs", "watch", "-f", "task=mlm").code == 4 and here("runs", "watch", "bbbb").code == 4
    assert here("runs", "watch", "-f", "task=").code == 2 or here("runs", "watch", "-f", "").code == 2


def test_a_snapshot_is_one_object(here, outputs):
    paths = shard(outputs, status="running")
    shard(outputs, "b" * 10, status="done", steps=1000)
    with Lock(paths.lock, beats=False) as lock:
        tell(paths, lock, 250, test_accuracy=0.5)
        found = here("runs", "watch", "--json")
        assert (
            found.code == 0
            and list(found.json)[:2] == ["schema_version", "training"]
            and found.json["training"]
        )
        (item,) = found.json["ensembles"]
        assert (
            item["id"] == "a" * 10
            and item["runs"] == {"running": 4}
            and (item["step"], item["steps"]) == (250, 1000)
        )
        assert item["seconds_left"] == 75 and item["latest"] == {"test_accuracy": 0.5}
        table = here("runs", "watch", "--once", "@all").out.splitlines()
        assert len(table) == 4 and "1:15 left" in table[1] and table[2].split()[-2] == "done"
        # Of what is trained, what fits.
        assert here("runs", "watch", "--json", "-f", "seed=99").code == 4
        assert not here("runs", "watch", "--json", "-f", "status=done").json["training"]
    failed = shard(outputs, "c" * 10, status="failed")
    assert here("runs", "watch", failed.ensemble.digest, "--once").code == 3


def test_watching_ends_with_what_became_of_the_runs(here, outputs, monkeypatch):
    paths = shard(outputs, status="running")
    runs = runfile.read(paths).runs

    def done() -> None:
        runfile.write(paths, runfile.Shard(runs, 1000, status="done"))

    for end, code, word in ((paths.lock.unlink, 3, "crashed"), (done, 0, "done")):
        ends = iter([lambda: None, end])
        sleep = lambda _, ends=ends: next(ends, lambda: None)()  # noqa: E731
        monkeypatch.setattr(runs_watch, "time", SimpleNamespace(sleep=sleep))
        with Lock(paths.lock, beats=False) as lock:
            tell(paths, lock, 250)
            answer = here("runs", "watch")
        lines = answer.out.splitlines()
        assert answer.code == code and len(lines) == 2 and lines[1].endswith(f", {word}")
        assert "step 250 of 1,000, 40 seed-steps/s, 1:15 left" in lines[0]


def test_ctrl_c_ends_the_watching_alone(here, outputs, monkeypatch):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    paths = shard(outputs, status="running")
    monkeypatch.setattr(runs_watch, "time", SimpleNamespace(sleep=interrupt))
    with Lock(paths.lock, beats=False) as lock:
        before = paths.run.read_bytes()
        answer = here("runs", "watch", "aaaa")
        assert answer.code == 130 and answer.err == "no longer watched; training goes on\n"
        assert lock.mine() and paths.run.read_bytes() == before


def test_a_command_that_still_plans_is_waited_for(here, outputs, monkeypatch):
    outputs.mkdir()
    with Announcement(OutputPaths(outputs)) as announcement:
        assert here("runs", "watch", "--once").err == "a command is planning what it trains\n"
        steps = iter([lambda: announcement.of([shard(outputs)], 1), lambda: announcement.of([], 1)])
        monkeypatch.setattr(runs_watch, "time", SimpleNamespace(sleep=lambda _: next(steps, end)()))

        def end() -> None:
            announcement.__exit__()

        answer = here("runs", "watch")
    assert answer.code == 3 and answer.out.startswith(
        f"parity ({'a' * 10}): 4 seeds, step 0 of 1,000, planned"
    )


def test_train_of_what_another_trains_offers_to_watch(here, tiny, outputs, tmp_path):
    here("train", *tiny, "seed=0..1", "-q")
    (ensemble,) = OutputPaths(outputs).ensembles()
    (paths,) = ensemble.shards()
    longer = [*[word for word in tiny if "steps" not in word], "train.steps=80", "seed=0..1"]
    with Lock(paths.lock, beats=False):
        answer = here("train", *longer)
        assert answer.code == 3 and f"`dynalab runs watch {ensemble.digest}` shows how far" in answer.err
        assert "no run failed: another command trains what is missing" in answer.err
        elsewhere = here("train", *longer, "--outputs", str(outputs), DYNALAB_OUTPUTS=str(tmp_path / "other"))
        assert f"`dynalab runs watch {ensemble.digest} --outputs {outputs}`" in elsewhere.err


# What comes next


def test_a_line_says_what_comes_next(here, tiny, outputs, tmp_path):
    words = ["train", *tiny, "seed=0..3"]
    assert here(*words, "--dry-run").err.count("next:") == 0
    assert here(*words).err.endswith("next: dynalab analyze hmm\n")
    assert "next:" not in here(*words, "-q").err + here(*words, "--json").err
    (ensemble,) = OutputPaths(outputs).ensembles()
    elsewhere = {"DYNALAB_OUTPUTS": str(tmp_path / "other")}
    answer = here("analyze", "slingshot", "--outputs", str(outputs), **elsewhere)
    assert answer.err.endswith(f"next: dynalab report --outputs {outputs}\n")
    assert "next:" not in here("analyze", "slingshot", "--json").err
    fork = here("fork", ensemble.digest, "40", "edit=rescale", "launcher=inline", "seed=0")
    (made,) = {item.digest for item in OutputPaths(outputs).ensembles()} - {ensemble.digest}
    assert fork.code == 0 and fork.err.endswith("next: dynalab report\n")
    # @last is the fork by now.
    assert here("analyze", "slingshot", ensemble.digest).err.endswith(
        f"next: dynalab report {ensemble.digest}\n"
    )
    assert here("runs", "watch", made, "--once").out.splitlines()[1].startswith(made)


@pytest.mark.parametrize(
    ("probes", "kind"),
    [
        ([], "hmm"),
        (["weights", "gradients"], "hmm"),
        (["weights", "crossed"], "variance"),
        (["weights", "gradients", "curvature"], "eos"),
        (["gradients", "numerics"], "slingshot"),
        (["gradients", "scale_invariant"], "periods"),
        (["weights", "gradients", "parity"], "progress"),
        (["weights", "gradients", "spectrum"], "spectrum"),
        (["weights", "gradients", "fourier"], "progress"),
        (["weights", "examples"], "examples"),
        (["weights", "gradients", "regions"], "regions"),
        (["weights", "parity", "swept"], "compare"),
    ],
)
def test_the_next_analysis_is_that_of_what_was_recorded(probes, kind):
    design = "crossed" if "crossed" in probes else "seeds"
    config = SimpleNamespace(probes=probes, design=design, task=SimpleNamespace(name="parity"))
    layout = SimpleNamespace(request=SimpleNamespace(config=config))
    assert next_step._kind([layout] * (1 + ("swept" in probes))) == kind


# Launchers


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_is_found_by_its_name(name):
    found = launcher(name)
    assert found.apart is (name != "inline")
    assert all(callable(getattr(found, method)) for method in ("device", "trial", "run", "close"))


def test_a_dry_run_rehearses_where_it_would_train(here, monkeypatch):
    def none(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", none)
    answer = here("train", "task=grokking", "model=mlp", "--dry-run")
    assert answer.code == 2 and "model=mlp: reads rows of numbers" in answer.err
    # A bug of a part's is an answer as well, and no traceback.
    assert launcher("inline")(1, 1).trial("rehearse", nothing=0)["exit_code"] == 3
