"""An outputs folder is data: nothing in it is run, nothing outside is touched, and what is odd is named in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from fuzz_lines import furnish
from fuzz_lines import try_number as try_line
from hostile import make, run, try_number
from report_fakes import make_ensemble, make_hmm, no_drawing
from test_plugin import PROBE, TASK, TASK_YAML

from dynalab.cli.options import clean, columns
from dynalab.config.ensemble import from_stored
from dynalab.config.registry import find
from dynalab.errors import ConfigError, DynalabError, StoreError
from dynalab.launch.layout import find_ensemble
from dynalab.launch.process import python
from dynalab.store import lock, runfile, series
from dynalab.store.carve import undo_unfinished
from dynalab.store.checkpoint import newest_whole, save_bytes
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.read import read_json, read_yaml
from dynalab.store.reader import Ensemble
from dynalab.store.weights import network_at
from dynalab.training.job import Control, Job


@pytest.fixture
def stored(outputs: Path) -> Ensemble:
    """Four done runs in one shard, with rows and no weights."""
    return make_ensemble(outputs)


def the_shard(ensemble: Ensemble) -> ShardPaths:
    (shard,) = ensemble.paths.shards()
    return shard


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "outputs"
    with pytest.MonkeyPatch.context() as patched:
        no_drawing(patched)
        make(folder)
    return folder


@pytest.mark.parametrize("numbers", [range(first, first + 25) for first in range(0, 100, 25)], ids=str)
def test_command_lines_made_at_random_are_answered_in_lines(base, tmp_path, monkeypatch, numbers):
    no_drawing(monkeypatch)
    furnish(tmp_path / "nonsense")
    # Tests share what is stored.
    shutil.copytree(base, tmp_path / "outputs")
    assert not [line for number in numbers for line in try_line(number, tmp_path / "outputs", tmp_path)]


@pytest.mark.parametrize("numbers", [range(first, first + 8) for first in range(0, 40, 8)], ids=str)
def test_hostile_outputs_folders_do_no_harm(base, tmp_path, monkeypatch, numbers):
    no_drawing(monkeypatch)
    # Owners of locks that cannot be seen from here are watched that long.
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    wrong = [line for n in numbers for line in try_number(n, base, tmp_path / str(n), most=2)]
    assert not wrong, "\n".join(wrong)


# What is removed.


@pytest.mark.parametrize(
    "name", ["project", "outputs/grokking/project", "outputs/theirs", "outputs/theirs/run-1700000000"]
)
def test_rm_removes_no_folder_that_is_no_ensemble_of_the_outputs_folder(outputs, stored, tmp_path, name):
    project = tmp_path / name
    project.mkdir(parents=True, exist_ok=True)
    (project / "config.yaml").write_text("defaults: [_self_]\n")
    code, _, err = run("runs", "rm", f"{project}/", "--yes", "--outputs", str(outputs))
    assert code == 2 and len(err.strip().splitlines()) == 1 and str(project) in err
    run("runs", "rm", "@all", "--yes", "--outputs", str(outputs))
    assert (project / "config.yaml").is_file() and not stored.path.exists()


def test_rm_reads_and_never_removes_an_ensemble_of_another_outputs_folder(outputs, stored, tmp_path):
    other = tmp_path / "theirs" / stored.task / stored.path.name
    shutil.copytree(stored.path, other)
    there = ("--outputs", str(outputs))
    assert run("runs", "show", f"{other}/", *there)[0] == 0
    code, _, err = run("runs", "rm", f"{other}/", "--yes", *there)
    assert code == 2 and "outside" in err and (other / "config.yaml").is_file()
    # What lies in the outputs folder may be named by its path.
    assert run("runs", "rm", f"{stored.path}/", "--yes", *there)[0] == 0
    assert not stored.path.exists() and other.is_dir()


def test_of_a_linked_ensemble_rm_removes_the_link(outputs, stored, tmp_path):
    away = tmp_path / "away"
    shutil.move(stored.path, away)
    stored.path.symlink_to(away)
    assert run("runs", "rm", stored.id, "--yes", "--outputs", str(outputs))[0] == 0
    assert not stored.path.is_symlink() and (away / "config.yaml").is_file()
    (outputs / stored.task).mkdir(exist_ok=True)
    shutil.move(away, stored.path)
    shutil.move(outputs / stored.task, tmp_path / "task")
    (outputs / stored.task).symlink_to(tmp_path / "task")
    code, _, err = run("runs", "rm", stored.id, "--yes", "--outputs", str(outputs))
    assert code == 3 and "is a link" in err and stored.paths.config.is_file()


@pytest.mark.parametrize(
    "name", ["/elsewhere", "..", ".", "", "../{other}", "checkpoints", "{self}", "a\0b", 3]
)
def test_a_split_names_shards_beside_it_and_nothing_else(stored, tmp_path, name):
    shard, victim = the_shard(stored), tmp_path / "elsewhere"
    victim.mkdir()
    given = str(name).format(other="other", self=shard.root.name) if isinstance(name, str) else name
    shard.split.write_text(json.dumps({"parts": [str(victim) if given == "/elsewhere" else given]}))
    assert shard.parts() == [] and stored.paths.shards() == [shard]
    undo_unfinished(stored.paths)
    assert victim.is_dir() and shard.run.is_file() and stored.path.is_dir()


def test_no_shard_is_removed_as_a_part_but_what_was_split_from_another(stored):
    shard = the_shard(stored)
    other = stored.paths.shard("shard-0009-0009-1")
    shutil.copytree(shard.root, other.root)
    shard.split.write_text(json.dumps({"parts": [other.root.name]}))
    assert shard.parts() == [] and len(stored.paths.shards()) == 2
    undo_unfinished(stored.paths)
    assert other.run.is_file() and not shard.split.exists()
    rewrite(other.run, plan={"split_from": shard.root.name})
    shard.split.write_text(json.dumps({"parts": [other.root.name]}))
    assert stored.paths.shards() == [shard]
    undo_unfinished(stored.paths)
    assert not other.root.exists()


def test_nothing_is_written_through_links(stored, tmp_path):
    shard, away = the_shard(stored), tmp_path / "away.npy"
    path = shard.series("every-10")
    shutil.move(path, away)
    path.symlink_to(away)
    with pytest.raises(StoreError, match="is a link"):
        shard.refuse_links()
    with pytest.raises(StoreError, match="is a link"):
        from dynalab.training.shard import train_shard

        train_shard(shard, Job(), Control())
    assert len(Ensemble(stored.path).steps("train_loss")) == 21, "it is read all the same"


# What is run.


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name, text in {"task/line.py": TASK, "task/line.yaml": TASK_YAML, "probe/slope.py": PROBE}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def evil(folder: Path, *names: str) -> Path:
    marker = folder / "was run"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"open({str(marker)!r}, 'w')\n")
    return marker


def test_a_stored_plug_in_is_compared_before_it_is_imported(plugins, tmp_path):
    part = find("task", "line", [plugins])
    tree = {"task": {"name": "line", "slope": 2.0}, "model": {"name": "task"}, "optimizer": {"name": "sgd"}}
    tree |= {"schedule": {"name": "constant"}, "sources": {"task": part.source}}
    marker = evil(tmp_path / "evil", "task/line.py", "model/task.py", "line.py")
    theirs = tmp_path / "evil"
    assert from_stored(tree, [theirs, plugins]).sources == {"task": part.source}, (
        "the one that it was, wherever"
    )
    for folders in ([theirs], []):
        with pytest.raises(ConfigError, match="--config-dir") as refused:
            from_stored(tree, folders)
        assert "task=line" in str(refused.value)
    # A part of dynalab's own is not another's of the same name; a name is no path.
    own = {**tree, "task": {"name": "digits"}, "sources": {}}
    evil(theirs, "task/digits.py", "optimizer/sgd.py", "schedule/constant.py")
    assert from_stored(own, [theirs]).sources == {}
    with pytest.raises(ConfigError, match="no such task"):
        find("task", "../line", [theirs / "task"])
    assert not marker.exists()


def test_folders_of_a_stored_run_are_never_imported_from(stored, tmp_path, monkeypatch):
    names = [
        f"{group}/{name}.py"
        for group in ("task", "model", "optimizer")
        for name in ("grokking", "gromov", "adamw")
    ]
    marker = evil(tmp_path / "evil", *names)
    rewrite(the_shard(stored).run, folders=[str(tmp_path / "evil")])
    no_drawing(monkeypatch)
    assert run("report", stored.id, "--outputs", str(stored.path.parent.parent))[0] == 0
    save_weights(the_shard(stored))
    with pytest.raises(DynalabError):
        Ensemble(stored.path).model(0, 10)
    assert not marker.exists()


def save_weights(shard: ShardPaths) -> Path:
    from safetensors.numpy import save

    path = shard.snapshot(10)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(save({"weight": np.zeros((4, 2), np.float32)}))
    return path


def test_workers_do_not_import_from_the_working_directory(tmp_path):
    for name in ("numpy", "safetensors", "click", "json", "dynalab"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*python("dynalab"), "runs", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "no runs" in done.stderr, done.stderr
    # Run as a module, what lies there is the last place to look.
    (tmp_path / "dynalab.py").unlink()
    home = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    words = [python("")[0], "-m", "dynalab", "runs", "list"]
    assert subprocess.run(words, cwd=tmp_path, env=home, capture_output=True).returncode == 0


# What is said.


def test_letters_that_move_or_turn_a_line_are_spelled_out(stored):
    assert clean("a\x1b[2Jb\u202ec\x9bd\r\ud800\u200b") == r"a\x1b[2Jb\u202ec\x9bd\r\ud800\u200b"
    assert clean("é ß 中 \t\n") == "é ß 中 \t\n"
    assert columns(["a"], [["x\ny"]]) == "a\nx\\ny"
    rewrite(the_shard(stored).run, started="\x1b]0;title\x07")
    code, out, err = run("runs", "list", "--outputs", str(stored.path.parent.parent))
    assert code == 0 and r"\x1b]0;title\x07" in out and "\x1b" not in out + err
    code, out, _ = run("runs", "list", "--json", "--outputs", str(stored.path.parent.parent))
    assert json.loads(out)["runs"][0]["started"] == "\x1b]0;title\x07"


@pytest.mark.parametrize(
    "label", ["../../x", "/x", "a/b", "..", "", "a\0b", "a\nb", "x" * 300, 7, None, "\x1b[1m"]
)
def test_a_label_is_a_name(stored, label):
    path = the_shard(stored).run
    runs = json.loads(path.read_text())["runs"]
    rewrite(path, runs=[{**runs[0], "label": label}, *runs[1:]])
    with pytest.raises(StoreError, match=r"run.json is damaged: runs\[0\].label"):
        runfile.read(the_shard(stored))


# What is odd.


def test_strangers_in_a_shard_are_nobodys_business(stored):
    shard = the_shard(stored)
    weights = save_weights(shard)
    save_bytes(shard, newest_state(), b"", b"")
    path = shard.series("every-10")
    before = stored.columns()
    for name in (
        "{0} (1){1}",
        "{0} copy{1}",
        "._{0}{1}",
        "{0}{1}~",
        "{0}.sync-conflict-20240101{1}",
        "{0} (a's conflicted copy){1}",
    ):
        for file in (path, weights):
            shutil.copy(file, file.with_name(name.format(file.stem, file.suffix)))
        shutil.copytree(
            shard.checkpoint(10).root, shard.checkpoint(10).root.with_name(name.format("step-00000010", ""))
        )
        shutil.copytree(shard.root, shard.root.with_name(name.format(shard.root.name, "")))
    for folder in (
        path.parent,
        weights.parent,
        shard.checkpoint_folder,
        shard.root,
        stored.path,
        stored.path.parent,
    ):
        (folder / ".DS_Store").write_text("")
        (folder / "Thumbs.db").mkdir()
    (weights.parent / "step-0000000².safetensors").write_text("")
    (shard.checkpoint_folder / "step-0000000²").mkdir()
    again = Ensemble(stored.path)
    assert again.columns() == before and again.warnings == []
    assert list(shard.snapshots()) == [10] and [item.step for item in shard.checkpoints()] == [10]
    assert again.paths.shards() == [shard]


def newest_state():
    from dynalab.store.checkpoint import CheckpointState

    return CheckpointState(10, {})


def test_a_shard_without_rows_yet_is_not_damaged(outputs, stored, tmp_path):
    # Before the others by its name, so that it is asked first.
    young = stored.paths.shard("shard-0000-0000-1")
    young.root.mkdir()
    runfile.write(young, runfile.Shard([runfile.Run("s0009", 9, {"init": 9})], 400))
    assert stored.paths.shards()[0] == young
    metric = Ensemble(stored.paths).metrics[0]
    again = Ensemble(stored.paths)
    assert again.array(metric).shape == (5, 21) and np.isnan(again.array(metric)[4]).all()
    assert again.damaged == [] and again.warnings == []
    there = ("--outputs", str(outputs))
    code, _, err = run("runs", "export", stored.id, "--to", str(tmp_path / "rows.csv"), *there)
    assert code == 0 and "damaged" not in err and "cannot read" not in err


def test_a_copied_ensemble_does_not_double_its_runs(outputs, stored, tmp_path):
    for name in ("{} (1)", "{} copy", "Copy of {}", "{}.bak", "{}~"):
        shutil.copytree(stored.path, stored.path.with_name(name.format(stored.path.name)))
    code, out, err = run("runs", "list", "--json", "--outputs", str(outputs))
    assert code == 0 and err == "" and len(json.loads(out)["runs"]) == 4
    # Of two with the same hash one is read: the one where training goes on.
    twin = outputs / "archive" / stored.path.name
    shutil.copytree(stored.path, twin)
    code, out, err = run("runs", "list", "--json", "--outputs", str(outputs))
    assert code == 0 and str(twin) in err and len(err.strip().splitlines()) == 1
    assert {item["task"] for item in json.loads(out)["runs"]} == {stored.task}
    target = tmp_path / "rows.csv"
    assert run("runs", "export", "-f", "status=done", "--to", str(target), "--outputs", str(outputs))[0] == 0
    assert len(target.read_text().splitlines()) == 1 + 4 * 21
    assert OutputPaths(outputs).of_task(stored.task, stored.id) == stored.paths


def test_a_configuration_of_another_ensemble_is_written_again(tmp_path):
    from dynalab.config.command import read_command
    from dynalab.launch.layout import Layout, mend_config

    one, other = (
        read_command(["task=grokking", f"task.modulus={n}"], outputs=str(tmp_path)).requests[0]
        for n in (7, 11)
    )
    paths = find_ensemble(OutputPaths(tmp_path), one)
    mend_config(Layout(one, paths))
    right = paths.config.read_bytes()
    paths.config.write_text(yaml.safe_dump(other.config.as_dict()))
    layout = Layout(one, paths)
    mend_config(layout)
    assert paths.config.read_bytes() == right
    # One that says the same in an older dynalab's words stays.
    older = {**one.config.as_dict(), "levels": {}}
    paths.config.write_text(yaml.safe_dump(older))
    mend_config(layout)
    assert yaml.safe_load(paths.config.read_text()) == older


# What is damaged.


def test_what_a_newer_dynalab_adds_is_ignored_and_what_is_wrong_is_named(stored):
    path = the_shard(stored).run
    good = json.loads(path.read_text())
    newer = {**good, "mood": [1], "plan": {**good["plan"], "moon": "full"}}
    newer["runs"] = [
        {**item, "mood": "good", "summary": {**(item["summary"] or {}), "x": []}} for item in good["runs"]
    ]
    newer["attempts"] = [{**item, "mood": 1} for item in good["attempts"]]
    path.write_text(json.dumps(newer))
    assert [item.label for item in runfile.read(the_shard(stored)).runs] == [
        item["label"] for item in good["runs"]
    ]
    for key, value in {
        **{
            "steps": 10**30,
            "attempt": 0,
            "status": "well",
            "runs": [],
            "marks": {"../x": [1, 2]},
            "plan": {"threads": "2"},
        },
        **{
            "attempts": [{"argv": [1]}],
            "started": 3,
            "folders": "x",
            "schema_version": "1",
            "requested_steps": True,
        },
    }.items():
        path.write_text(json.dumps({**good, key: value}))
        with pytest.raises(StoreError, match=r"run\.json is damaged"):
            runfile.read(the_shard(stored))
    path.write_text(json.dumps({**good, "runs": [good["runs"][0]] * 2}))
    with pytest.raises(StoreError, match="twice"):
        runfile.read(the_shard(stored))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, '{"a": NaN}', "[1e999]", '"\\ud800"', "\xff"]
)
def test_json_that_is_none_names_its_file(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(StoreError, match=r"x\.json is damaged"):
        read_json(path)


LISTS = "a: &a0 [1]\n" + "".join(f"b{n}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(20))
MERGED = "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{<<: [{f'*a{n}, ' * 9}]}}\n" for n in range(20))


@pytest.mark.parametrize(
    "text",
    [
        LISTS,
        MERGED,
        "a: &a [*a]",
        "[" * 5000,
        "- " * 800,
        "!!python/object/apply:os.getcwd []",
        "a: 2020-01-01",
        *[
            "a: !!binary aGk=",
            "a: !!set {b}",
            "1: 2",
            "a: .nan",
            f"a: 0x{'f' * 400}",
            "a: \x07",
            "? [a]\n: b",
        ],
    ],
    ids=lambda text: text[:12],
)
def test_yaml_of_more_than_plain_values_names_its_file(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"x\.yaml is damaged"):
        read_yaml(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    for name in ("pipe.json", "zero.json", "loop.json", "none.json"):
        with pytest.raises(StoreError, match=name):
            read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new"),
    [("'<f8'", f"'{kind}'") for kind in ("|O", "|V0", "|S8", "<U4", "<c16", "<M8[s]")]
    + [("(4,)", shape) for shape in ("(-1,)", "(3,)", "()", "(2, 2)", "(1099511627776,)", "(2**40,)")]
    + [
        ("'shape': (21,)", f"'shape': {rows}")
        for rows in ("(-1,)", "(1.5,)", "()", "(21, 21)", "21", "('21',)")
    ]
    + [
        ("'<i8'", "'<f8'"),
        ("'step'", "'wall'"),
        ("'descr': [", "'descr': " + "[" * 500),
        ("'descr'", "-" * 900 + "1"),
    ],
)
def test_a_damaged_series_is_named(stored, old, new):
    path = the_shard(stored).series("every-10")
    data = path.read_bytes()
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin1")
    assert old in text
    body = text.replace(old, new).rstrip().ljust(size - 1)
    # Long enough for what the header promises.
    path.write_bytes(
        data[:8] + (len(body) + 1).to_bytes(2, "little") + body.encode() + b"\n" + data[10 + size :] * 2
    )
    again = Ensemble(stored.path)
    assert again.frame().empty and the_shard(stored).root.name in again.damaged
    assert str(path) in again.warnings[0]


def test_more_rows_than_there_are_take_no_memory(stored):
    path = the_shard(stored).series("every-10")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'shape': (21,)" + b" " * 12, b"'shape': (" + b"9" * 14 + b",)"))
    assert len(series.read(path)) == 21


@pytest.mark.parametrize("harm", ["length", "offsets", "shape", "names", "empty"])
def test_damaged_weights_are_named(stored, harm, monkeypatch):
    import torch

    path = save_weights(the_shard(stored))
    data = path.read_bytes()
    changed = {
        "length": (2**62).to_bytes(8, "little") + data[8:],
        "offsets": data.replace(b"[0,32]", b"[8,32]"),
        "shape": data.replace(b"[4,2]", b"[2,4]"),
        "names": data.replace(b"weight", b"height"),
        "empty": b"",
    }[harm]
    assert changed != data
    path.write_bytes(changed)
    linear = torch.nn.Linear(2, 1, bias=False)
    monkeypatch.setattr("dynalab.store.weights.network_of", lambda *_: linear)
    with pytest.raises(StoreError, match="safetensors is damaged"):
        network_at(stored, stored.runs[3], 10)


def test_a_damaged_checkpoint_is_passed_over(stored):
    shard = the_shard(stored)
    save_bytes(shard, newest_state(), b"", b"")
    assert newest_whole(shard)[2] == []
    for step, change in ((20, {"series": {"../x": [1, 1]}}), (30, {"sha256": []}), (10, {"step": "x"})):
        target = shard.checkpoint(step)
        if step != 10:
            shutil.copytree(shard.checkpoint(10).root, target.root)
        rewrite(target.state, **change)
    found, state, warnings = newest_whole(shard)
    assert (
        found is state is None
        and len(warnings) == 3
        and all("state.json is damaged" in line for line in warnings)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../x"},
        {"kind": "eos"},
        {"warnings": [3]},
        {"tables": ["../x"]},
        {"inputs": [3]},
        {"created": []},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_result_with_wrong_fields_is_named(outputs, stored, change):
    result = make_hmm(outputs, stored)
    rewrite(result.paths.result, **change)
    code, out, err = run("runs", "list", "--analyses", "--json", "--outputs", str(outputs))
    assert code == 3 and "result.json is damaged" in json.loads(out)["warnings"][0] and err == ""


def test_a_result_of_another_form_does_not_spoil_the_page(outputs, stored, monkeypatch):
    no_drawing(monkeypatch)
    result = make_hmm(outputs, stored)
    rewrite(result.paths.result, states="none", edges=[3], convergence={"run": 1}, paths=[None])
    code, out, err = run("report", stored.id, "--outputs", str(outputs))
    assert code == 3 and "it is no result of analyze hmm" in err and "Traceback" not in err
    assert "it is no result of analyze hmm" in Path(out.strip()).read_text()


def test_a_damaged_table_is_named(outputs, stored):
    import pandas as pd

    result = make_hmm(outputs, stored)
    path = result.paths.table("extra")
    pd.DataFrame({"x": [1.0]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-9] + b"garbage!!")
    with pytest.raises(StoreError, match=r"extra\.parquet is damaged"):
        result.table("extra")


@pytest.mark.parametrize(
    "change",
    [
        {"eval": {"every": "x"}},
        {"eval": {"every": 0}},
        {"optimizer": "adam"},
        {"convergence": {"threshold": "high"}},
        {"parent": 3},
        {"probes": "all"},
        {"levels": {"train_accuracy": "x"}},
        {"seed_streams": {"init": ["a"]}},
    ],
    ids=str,
)
def test_a_configuration_of_wrong_types_is_named(outputs, stored, change):
    stored.paths.config.write_text(yaml.safe_dump({**stored.config, **change}, sort_keys=False))
    code, _, err = run("runs", "show", stored.id, "--outputs", str(outputs))
    assert code == 3 and "config.yaml is damaged" in err and len(err.strip().splitlines()) == 1
    assert EnsemblePaths(stored.path).digest == stored.id
