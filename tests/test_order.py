"""`runs tag|du|gc|query|rerun|archive|unpack` and `doctor`: order in a store, and what is opened of a stranger's."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from report_fakes import make_ensemble
from safetensors.numpy import load_file, save_file

from dynalab.cli import runs_rerun
from dynalab.config.compiling import compiler
from dynalab.launch import health
from dynalab.store import members, runfile, waste
from dynalab.store.lock import Lock
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble
from dynalab.store.table import refresh

TINY = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "train.steps=20",
    "eval.every=5",
    "compute.width=2",
]


def tags(here: Cli, *refs: str) -> dict[str, list[str]]:
    return {item["run"][-5:]: item["tags"] for item in here("runs", "tag", *refs, "--json").json["tagged"]}


def test_tags_find_runs_again_and_are_taken_away(here: Cli, outputs):
    one = make_ensemble(outputs, n_runs=3)
    make_ensemble(outputs, n_runs=1, digest="aaaaaaaaaa", slug="other")
    assert here("runs", "tag", one.id, "--add", "paper", "--add", "v1.0").code == 0
    assert here("runs", "tag", f"{one.id}/s0001", "--add", "odd", "--remove", "paper").code == 0
    expected = {"s0000": ["paper", "v1.0"], "s0001": ["odd", "v1.0"], "s0002": ["paper", "v1.0"]}
    assert tags(here) == expected
    found = here("runs", "list", "-f", "tag=paper", "--json").json["runs"]
    assert [run["tags"] for run in found] == [["paper", "v1.0"]] * 2
    assert len(here("runs", "list", "-f", "tag!=paper", "--json").json["runs"]) == 2
    assert "odd, v1.0" in here("runs", "list").out
    # A filter tags runs; an ensemble's own id means what will be trained as well.
    assert here("runs", "tag", "-f", "seed=2", one.id, "--add", "late").code == 0
    stored = StoredEnsemble(one.paths).tags
    assert stored["late"] == ["s0002"] and stored["v1.0"] is None
    for words, code in (
        (["--add", "x"], 2),
        ([one.id, "--add", "two words"], 2),
        ([one.id, "--add", "a", "--remove", "a"], 2),
        (["nothing", "--add", "a"], 4),
    ):
        assert here("runs", "tag", *words).code == code
    one.paths.tags.write_text('{"tags": {"a b": null}}')
    damaged = here("runs", "list")
    assert damaged.code == 3 and "tags.json is damaged" in damaged.err and one.id in damaged.out


def test_a_list_is_sorted_cut_and_handed_on(here: Cli, outputs):
    steps, ends = np.arange(0, 50, 10), np.array([[3.0], [np.nan], [1.0]])
    values = {"test_loss": ends * np.ones(len(steps)), "train_loss": np.ones((3, len(steps)))}
    one = make_ensemble(outputs, n_runs=3, steps=steps, values=values)
    make_ensemble(outputs, n_runs=1, digest="aaaaaaaaaa", slug="other", steps=steps)

    def ids(*words: str) -> list[str]:
        answer = here("runs", "list", *words, "--ids")
        assert answer.code == 0, answer.err
        return answer.out.split()

    s0, s1, s2 = (f"{one.id}/s000{seed}" for seed in range(3))
    assert ids(one.id, "--sort", "final.test_loss") == [s2, s0, s1]
    assert ids(one.id, "--sort", "-final.test_loss") == [s0, s2, s1]
    assert ids("--sort", "-seed", "-n", "2") == [s2, s1]
    assert {*ids("-e")} == {one.id, "aaaaaaaaaa"}
    found = here("runs", "list", "--sort", "-id", "-n", "1", "--json").json["runs"]
    assert len(found) == 1 and here("runs", "list", "-n", "2").out.count("\n") == 3
    assert here("runs", "tag", *ids(one.id, "-n", "2"), "--add", "paper").code == 0
    assert [run for run, found in tags(here).items() if found] == ["s0000", "s0001"]
    for words in (["--sort", "final.tset_loss"], ["-n", "0"], ["-e", "-n", "1"], ["--ids", "--json"]):
        answer = here("runs", "list", *words)
        assert answer.code == 2 and len(answer.err.splitlines()) == 1, words
    assert "did you mean" in here("runs", "list", "--sort", "final.tset_loss").err
    shown = here(
        "runs", "list", one.id, "--cols", "optimizer, optimizer.lr,final.test_loss,", "--sort", "-id"
    )
    head, *rows = [line.split() for line in shown.out.splitlines()]
    assert head == ["run", "optimizer", "optimizer.lr", "final.test_loss"]
    assert [row[0] for row in rows] == [s2, s1, s0] and len({(row[1], float(row[2])) for row in rows}) == 1
    assert here("runs", "list", "--cols", "optimizr.lr").code == 2
    assert here("runs", "list", "--cols", "seed", "--json").code == 2


def test_usage_is_what_lies_there(here: Cli, outputs):
    one = make_ensemble(outputs, n_runs=2)
    make_ensemble(outputs, n_runs=2, digest="aaaaaaaaaa", slug="other")
    refresh(one.paths)
    (one.path / "elsewhere").symlink_to("/usr")
    answer = here("runs", "du", "--json").json
    every = [path for path in outputs.rglob("*") if path.is_file() and not path.is_symlink()]
    links = [one.path / "elsewhere"]
    assert answer["total"]["bytes"] == sum(path.lstat().st_size for path in [*every, *links])
    assert answer["total"]["files"] == len(every) + 1 and answer["places"][0]["name"] == "grokking"
    kinds = answer["places"][0]["kinds"]
    assert kinds["tables"] == one.paths.metrics().stat().st_size
    assert kinds["series"] == sum(path.stat().st_size for path in outputs.rglob("*.npy"))
    each = here("runs", "du", "-e", "--json").json["places"]
    assert {item["name"] for item in each} == {one.id, "aaaaaaaaaa"}
    assert [item["name"] for item in here("runs", "du", one.id, "--json").json["places"]] == [one.id]
    assert "grokking" in here("runs", "du").out


def shard_of(ensemble: StoredEnsemble) -> ShardPaths:
    return ensemble.paths.shards()[0]


def test_waste_is_damaged_superseded_left_over_or_beyond(here: Cli, outputs):
    one = make_ensemble(outputs, n_runs=4, shards=2)
    first, second = one.paths.shards()
    # A later attempt of the first shard's runs, and one of the second's that failed: that one stands for nothing.
    for shard, status in ((first, "done"), (second, "failed")):
        later = ShardPaths(shard.root.with_name(f"{shard.root.name}-a2"))
        shutil.copytree(shard.root, later.root)
        record = runfile.read(later)
        record.attempt = 2
        record.settle(status)
        runfile.write(later, record)
    other = make_ensemble(outputs, n_runs=2, digest="aaaaaaaaaa", slug="other")
    shard = shard_of(other)
    aside = shard.checkpoint_folder / "step-00000010.damaged"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"x" * 100)
    shard.snapshot_folder.mkdir()
    for step in range(10):
        shard.snapshot(step).write_bytes(b"y" * 10)
    old, fresh = shard.root / ".run.json.ab.tmp", shard.root / ".run.json.cd.tmp"
    for path in (old, fresh):
        path.write_bytes(b"z")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    broken = make_ensemble(outputs, n_runs=2, digest="bbbbbbbbbb", slug="broken")
    shard_of(broken).run.write_text("{")
    newer = make_ensemble(outputs, n_runs=2, digest="cccccccccc", slug="newer")
    document = json.loads(shard_of(newer).run.read_text())
    shard_of(newer).run.write_text(json.dumps(document | {"schema_version": 99}))

    before = sorted(outputs.rglob("*"))
    dry = here("runs", "gc", "--snapshots", "4", "--json").json
    assert sorted(outputs.rglob("*")) == before and dry["removed"] is False
    gone = {str(Path(item["path"]).relative_to(outputs / "grokking")) for item in dry["items"]}
    place = f"other-aaaaaaaaaa/{shard.root.name}"
    beyond = {f"{place}/snapshots/step-{step:08d}.safetensors" for step in (1, 2, 4, 5, 7, 8)}
    assert gone == beyond | {
        f"{one.path.name}/{first.root.name}",
        f"broken-bbbbbbbbbb/{shard_of(broken).root.name}",
        f"{place}/checkpoints/step-00000010.damaged",
        f"{place}/.run.json.ab.tmp",
    }
    # Whoever writes is left alone.
    with Lock(shard.lock, beats=False):
        assert not any("aaaaaaaaaa" in item["path"] for item in here("runs", "gc", "--json").json["items"])
    assert "superseded" in here("runs", "gc").out
    runs = [run.id for run in StoredEnsemble(one.paths).runs]
    assert here("runs", "gc", "--snapshots", "4", "--yes").code == 0
    assert not any((outputs / "grokking" / path).exists() for path in gone)
    assert {*before} - {*outputs.rglob("*")} >= {outputs / "grokking" / path for path in gone}
    assert [run.id for run in StoredEnsemble(one.paths).runs] == runs and fresh.exists()
    assert here("runs", "gc", "--snapshots", "4").err.strip() == "nothing can go"
    assert not list(outputs.glob(".removed*"))


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_superseded_attempt_stays_until_forks_of_it_are_done(here: Cli, outputs, attempt):
    one = make_ensemble(outputs, n_runs=2, shards=2)
    first, second = one.paths.shards()
    for shard in (first, second):
        for number in (2, 3)[:attempt]:
            later = ShardPaths(shard.root.with_name(f"{shard.root.name}-a{number}"))
            shutil.copytree(shard.root, later.root)
            record = runfile.read(later)
            record.attempt = number
            runfile.write(later, record)
    left = [
        ShardPaths(shard.root.with_name(f"{shard.root.name}{'-a2' * (attempt == 2)}"))
        for shard in (first, second)
    ]
    ref = f"{one.id}@5" + "-a2" * (attempt == 2)
    config = one.config | {"parent": ref, "edit": None, "origin": one.config}
    fork = make_ensemble(outputs, n_runs=2, shards=2, config=config, digest="aaaaaaaaaa", slug="fork")
    cut = shard_of(fork)

    def gone() -> set[Path]:
        return {Path(item["path"]) for item in here("runs", "gc", "--json").json["items"]}

    assert {item.root for item in left} <= gone()
    record = runfile.read(cut)
    record.settle("partial")
    runfile.write(cut, record)
    # Of the other seed the fork is done.
    assert left[0].root not in gone() and left[1].root in gone()
    # The other attempts are nobody's.
    assert len(gone()) == 2 * attempt - 1


@pytest.mark.parametrize("folder", ["series", "snapshots", "checkpoints"])
def test_nothing_that_a_link_leads_to_is_waste(here: Cli, outputs, tmp_path, folder):
    shard = shard_of(make_ensemble(outputs, n_runs=2))
    away = tmp_path / "away"
    away.mkdir()
    for name in (".x.tmp", "step-00000001.safetensors", "step-00000002.damaged"):
        (away / name).write_text("mine")
        os.utime(away / name, (time.time() - 2 * 24 * 3600,) * 2)
    shutil.rmtree(shard.root / folder, ignore_errors=True)
    (shard.root / folder).symlink_to(away)
    assert here("runs", "gc", "--snapshots", "0", "--yes").err.strip() == "nothing can go"
    assert len([*away.iterdir()]) == 3


@pytest.mark.parametrize(
    ("most", "kept"), [(0, []), (1, [9]), (2, [0, 9]), (4, [0, 3, 6, 9]), (20, [*range(10)])]
)
def test_the_first_and_the_last_snapshot_stay(most, kept):
    paths = [Path(str(step)) for step in range(10)]
    left = [path for path in paths if path not in waste._beyond(paths, most)]
    assert [int(path.name) for path in left] == kept


def test_a_query_reads_the_tables_and_nothing_else(here: Cli, outputs, tmp_path):
    pytest.importorskip("duckdb")
    one = make_ensemble(outputs, n_runs=3)
    words = ["task=grokking", "optimizer.lr=0.5"]
    other = make_ensemble(outputs, n_runs=2, overrides=words, slug="lr_0.5")
    here("runs", "tag", f"{one.id}/s0001", "--add", "paper")

    def ask(sql: str, *more: str) -> list[list[object]]:
        answer = here("runs", "query", sql, *more, "--json")
        assert answer.code == 0, answer.err
        return answer.json["rows"]

    assert ask("SELECT ensemble, count(*) FROM runs GROUP BY 1 ORDER BY 2") == [[other.id, 2], [one.id, 3]]
    assert ask(f"""SELECT DISTINCT "optimizer.lr" FROM runs WHERE ensemble = '{other.id}'""") == [[0.5]]
    assert ask("SELECT run FROM runs WHERE list_contains(tags, 'paper')") == [[f"{one.id}/s0001"]]
    frame = one.frame()
    (row,) = ask("SELECT count(*), sum(train_loss) FROM metrics", one.id)
    assert row[0] == len(frame) and row[1] == pytest.approx(frame["train_loss"].sum())
    assert ask("SELECT count(*) FROM metrics", f"{one.id}/s0002") == [[len(frame) // 3]]
    # What is not finite is null in JSON.
    assert ask("SELECT grad_norm FROM metrics WHERE step = 0 LIMIT 1") == [[None]]
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    table = one.paths.metrics()
    held = table.read_bytes()
    for sql in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_parquet('{tmp_path}/*.parquet')",
        f"SELECT content FROM read_text('{outputs}/last.json')",
        f"COPY runs TO '{table}'",
        f"EXPLAIN ANALYZE COPY runs TO '{table}'",
        f"ATTACH '{tmp_path}/x.db'",
        "CREATE TABLE x AS SELECT 1",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM selection",
        "SELEC",
        "",
    ):
        answer = here("runs", "query", sql)
        assert answer.code == 2 and "query: " in answer.err, sql
    assert table.read_bytes() == held and not (tmp_path / "x.db").exists()


def test_without_duckdb_a_line_says_what_to_install(here: Cli, outputs, monkeypatch):
    make_ensemble(outputs, n_runs=1)
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    answer = here("runs", "query", "SELECT 1")
    assert answer.code == 2 and "pip install 'dynalab[query]'" in answer.err


def altered(path: Path) -> None:
    """Change a snapshot's second run."""
    tensors = load_file(path)
    path.unlink()
    name = min(tensors)
    tensors[name] = np.array(tensors[name])
    tensors[name][1] += 1
    save_file(tensors, path)


def test_a_run_is_trained_again_and_held_against_the_stored_one(here: Cli, outputs, one_thread):
    (ensemble,) = here("train", *TINY, "seed=0..2", "launcher=inline", "--json").json["ensembles"]
    last = (outputs / "last.json").read_bytes()
    # Alone, where it was trained beside another.
    again = here("runs", "rerun", f"{ensemble['id']}/s0001", "launcher=inline", "--json")
    assert again.code == 0 and again.json["agrees"] and again.json["weights"]["compared"] == 1
    path = next(Path(ensemble["path"]).glob("shard-0000*/snapshots/*13.safetensors"))
    for other in path.parent.glob("*.safetensors"):
        if other != path:
            other.unlink()
    altered(path)
    differs = here("runs", "rerun", "@last", "launcher=inline", "--steps", "15")
    assert (
        differs.code == 3
        and "15 steps: the rows are equal to the bit; the weights of s0001 differ" in differs.out
    )
    for words, code in (
        (["@last", "optimizer.lr=1"], 2),
        (["@last", "seed=77"], 2),
        (["@last", "outputs=x"], 2),
        (["nothing"], 4),
    ):
        assert here("runs", "rerun", *words, "launcher=inline").code == code
    assert (outputs / "last.json").read_bytes() == last and not list(outputs.glob(".rerun*"))


def test_an_ensemble_whose_runs_are_not_equally_far_is_listed_with_both_ends(here: Cli, outputs):
    one = make_ensemble(outputs, n_runs=2, shards=2)
    assert here("runs", "list", "-e").out.splitlines()[1].split()[-2] == "200"
    shard = one.paths.shards()[0]
    record = runfile.read(shard)
    record.runs[0].steps = 160
    runfile.write(shard, record)
    assert here("runs", "list", "-e").out.splitlines()[1].split()[-2] == "160..200"


def test_each_run_is_trained_again_as_it_was_made(here: Cli, outputs, one_thread):
    plain = ["device=cpu", "compute.compile=false", "-q"]
    here("train", *TINY, "seed=0,1", "compute.exact=false", "compute.threads=1", *plain)
    here("train", *TINY, "seed=2", "device=cpu", "compute.compile=true", "-q")
    (ensemble,) = here("train", *TINY, "seed=0..3", *plain, "--json").json["ensembles"]
    again = here("runs", "rerun", ensemble["id"], "launcher=inline", "--steps", "5")
    assert again.code == 0 and "4 runs, 5 steps: equal to the bit" in again.out
    # A word about how they are trained is of all.
    other = here("runs", "rerun", ensemble["id"], "launcher=inline", "compute.compile=true", "--json")
    assert compiler() is None or set(other.json["series"]["differing"]) == {"s0000", "s0001", "s0003"}
    assert here("runs", "rerun", ensemble["id"], "launcher=inline", "seed=7").code == 2


def test_a_crossed_run_is_trained_again_with_the_streams_that_it_had(here: Cli, outputs, one_thread):
    words = [*TINY, "design=crossed", "seed_streams.init=0,1", "seed_streams.order=0"]
    (one,) = here("train", *words, "seed=3", "-q", "--json").json["ensembles"]
    (other,) = here("train", *words, "-q", "--json").json["ensembles"]
    assert one["id"] != other["id"]
    for ref, count in ((one["id"], 2), (f"{one['id']}/init1", 1)):
        again = here("runs", "rerun", ref, "launcher=inline", "-q")
        assert again.code == 0 and f"{count} run" in again.out
    # As dynalab was before `seed=` was in the ids of crossed designs.
    for path in Path(other["path"]).glob("shard-*/run.json"):
        record = json.loads(path.read_text())
        for run in record["runs"]:
            run["streams"]["split"] = 3
        path.write_text(json.dumps(record))
    refused = here("train", *words, "-q")
    assert refused.code == 2 and len(refused.err.splitlines()) == 1
    assert f"{other['id']}/init0 was trained with streams split 3; seed_streams.split=0 trains" in refused.err
    assert here("train", *words, "seed_streams.split=0", "-q").code == 0


def test_metrics_that_part_later_are_not_named_with_the_first(here: Cli, outputs):
    steps = np.arange(0, 50, 10)
    same = {"train_loss": np.ones((2, 5)), "l1": np.ones((2, 5)), "l2": np.ones((2, 5))}
    one = make_ensemble(outputs, steps=steps, values=same, n_runs=2)
    later = {name: values.copy() for name, values in same.items()}
    later["train_loss"][1, 0] = later["l1"][0, 2] = 1.5
    other = make_ensemble(outputs, steps=steps, values=later, n_runs=2, digest="aaaaaaaaaa", slug="other")
    a, b = (Ensemble(item.paths) for item in (one, other))
    said = runs_rerun._said(runs_rerun._compared(a, a.runs, b))
    assert said.startswith(
        "2 runs, 40 steps: they part at step 0, in train_loss; the largest difference is 0.5,"
    )


def test_a_fork_is_made_again_from_its_parent_while_that_is_stored(here: Cli, outputs, one_thread):
    (parent,) = here(
        "train", *TINY, "seed=0..2", "checkpoint.keep=[10]", "checkpoint.every=5", "--json"
    ).json["ensembles"]
    inline = ("launcher=inline", "-q")
    words = ["edit=perturb", "edit.scale=0.1", "optimizer.lr=0.01", "seed_streams.noise=5", "train.steps=25"]
    here("fork", parent["id"], "10", *words, *inline)
    (one,) = {run["ensemble"] for run in here("runs", "list", "@last", "--json").json["runs"]}
    here("fork", one, "15", "optimizer=sgd", *inline)
    again = here("runs", "rerun", "@last", *inline)
    assert again.code == 0 and "3 runs, steps 15 to 25: equal to the bit, weights of 3 runs" in again.out
    altered(next(outputs.glob(f"grokking/*-{one}/shard-0000*/snapshots/*25.safetensors")))
    differs = here("runs", "rerun", one, *inline, "--json")
    assert differs.code == 3 and differs.json["weights"]["differing"] == ["s0001"]
    assert (differs.json["divergence"]["step"], differs.json["first_step"]) == (None, 10)
    for more, code in (
        (["edit.scale=0.1"], 2),
        (["optimizer.lr=1"], 2),
        (["--steps", "10"], 2),
        (["seed=7"], 4),
    ):
        assert here("runs", "rerun", one, *inline, *more).code == code
    here("runs", "rm", f"{parent['id']}/s0002", "--yes")
    some = here("runs", "rerun", one, *inline, "--json")
    assert some.code == 3 and some.json["runs"] == [f"{one}/s0000", f"{one}/s0001"]
    assert f"{parent['id']}@10 of s0002" in some.json["warnings"][0]
    here("runs", "rm", parent["id"], "--yes")
    gone = here("runs", "rerun", one, *inline)
    assert gone.code == 4 and len(gone.err.splitlines()) == 1 and "is not stored any more" in gone.err
    assert not list(outputs.glob(".rerun*"))


def archived(here: Cli, outputs: Path, path: Path) -> str:
    one = make_ensemble(outputs, n_runs=4, shards=2)
    make_ensemble(outputs, n_runs=1, digest="aaaaaaaaaa", slug="other")
    here("runs", "tag", one.id, "--add", "paper")
    for name, text in (("page", one.id), ("both", f"{one.id} aaaaaaaaaa"), ("none", "")):
        (outputs / "reports" / name).mkdir(parents=True)
        (outputs / "reports" / name / "index.html").write_text(f"<p>{text}</p>")
    (one.path / "link").symlink_to("/etc/passwd")
    answer = here("runs", "archive", one.id, "--to", str(path), "--json")
    assert answer.code == 3 and "is a link" in answer.json["warnings"][0]
    assert answer.json["ensembles"] == [one.id] and answer.json["reports"] == ["page"]
    return one.id


def test_an_archive_is_opened_elsewhere_and_adds_what_is_missing(here: Cli, outputs, tmp_path):
    path, back = tmp_path / "x.tar.gz", tmp_path / "back"
    digest = archived(here, outputs, path)
    place = ["--outputs", str(back)]
    opened = here("runs", "unpack", str(path), *place, "--json")
    assert opened.code == 0 and opened.json["ensembles"] == [digest] and "files" in opened.err
    theirs, ours = (here("runs", "list", digest, "--json", *more).json["runs"] for more in (place, []))
    assert theirs == ours and theirs[0]["tags"] == ["paper"]
    assert len(list((back / "reports").glob("*/index.html"))) == 1
    assert not list(back.rglob("lock")) and not list(back.glob(".unpacked*"))
    # Plain tar makes an outputs folder of it.
    shutil.unpack_archive(path, tmp_path / "plain", filter="data")
    assert (
        len(
            here("runs", "list", "@last", "--outputs", str(tmp_path / "plain/outputs"), "--json").json["runs"]
        )
        == 4
    )
    shard = next(back.glob("*/*/shard-0002*"))
    shutil.rmtree(shard)
    (next(back.glob("*/*/shard-0000*")) / "log.txt").write_text("mine")
    again = here("runs", "unpack", str(path), *place, "--json").json
    assert again["shards"] == 1 and shard.is_dir() and len(again["left"]) == 2
    assert (next(back.glob("*/*/shard-0000*")) / "log.txt").read_text() == "mine"
    assert here("runs", "unpack", str(path), *place).err.strip().endswith("nothing was new")
    single = tmp_path / "one.tgz"
    made = here("runs", "archive", f"{digest}/s0003", "--to", str(single), "--json")
    assert made.json["shards"] == 1
    for words, code in (
        (["--to", str(tmp_path / "x.zip")], 2),
        (["--to", str(tmp_path / "no/x.tgz")], 2),
        (["--to", str(single)], 2),
    ):
        assert here("runs", "archive", digest, *words).code == code


ENSEMBLE = "outputs/grokking/default-0123456789"
EVIL = {
    "absolute": ("/tmp/evil", {}),
    "above": ("outputs/../../evil", {}),
    "link": (f"{ENSEMBLE}/config.yaml", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hard link": (f"{ENSEMBLE}/config.yaml", {"type": tarfile.LNKTYPE, "linkname": "../../x"}),
    "device": (f"{ENSEMBLE}/run.json", {"type": tarfile.CHRTYPE}),
    "pipe": (f"{ENSEMBLE}/run.json", {"type": tarfile.FIFOTYPE}),
    "another folder": ("home/.bashrc", {}),
    "hidden": ("outputs/.training/x", {}),
    "lock": (f"{ENSEMBLE}/lock", {}),
    "no ensemble": ("outputs/grokking/x/y", {}),
    "control": (f"{ENSEMBLE}/a\x1b[2Jb", {}),
    "deep": (f"{ENSEMBLE}/{'a/' * 3000}b", {}),
}


@pytest.mark.parametrize("what", list(EVIL))
def test_nothing_of_an_archive_with_anything_odd_is_opened(here: Cli, outputs, tmp_path, what):
    name, about = EVIL[what]
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        good = tarfile.TarInfo(f"{ENSEMBLE}/overrides.yaml")
        tar.addfile(good, io.BytesIO())
        info = tarfile.TarInfo(name)
        for key, value in about.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO())
    before = sorted(tmp_path.rglob("*"))
    answer = here("runs", "unpack", str(path))
    assert answer.code == 3 and "nothing of it is opened" in answer.err and "\x1b" not in answer.err
    assert sorted(tmp_path.rglob("*")) == before


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    """Return a header of a tar file that says it has so many bytes, whatever follows."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def record(key: str, value: str) -> bytes:
    """Return a record of a pax header."""
    body = f" {key}={value}\n"
    size = len(body) + len(str(len(body) + 2))
    return f"{size}{body}".encode()


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header(kind, len(b"".join(records))) + padded(b"".join(records))


def summed(block: bytes, place: int) -> bytes:
    """Return a header with one byte set, and its sum."""
    changed = block[:148] + b" " * 8 + block[156:place] + b"1" + block[place + 1 :]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


LARGE = 1 << 24
FILE = header(tarfile.REGTYPE, 0, f"{ENSEMBLE}/overrides.yaml")
BOMBS = {
    "one long pax header": header(tarfile.XHDTYPE, LARGE) + bytes(LARGE) + FILE,
    "a pax header of less than nothing": header(tarfile.XHDTYPE, -LARGE) + bytes(LARGE) + FILE,
    "a pax header for all files": pax(record("a", "b"), kind=tarfile.XGLTYPE) + FILE,
    "a pax header before a pax header": pax(record("a", "b")) * 2000 + FILE,
    "a long name": header(tarfile.GNUTYPE_LONGNAME, LARGE) + bytes(LARGE) + FILE,
    "a long name before a long name": (header(tarfile.GNUTYPE_LONGNAME, 5) + padded(b"name")) * 2000 + FILE,
    "many long headers": (pax(record("a", "b" * 15_000)) + FILE) * 50,
    "a row of digits": pax(b"1" * 15_000) + FILE,
    "a sparse file": pax(record("GNU.sparse.map", "0,1"), record("GNU.sparse.size", "9")) + FILE,
    "a sparse file whose map has no end": summed(
        header(tarfile.GNUTYPE_SPARSE, 0, f"{ENSEMBLE}/log.txt"), 482
    )
    + b"1" * 512 * 40_000,
    "a file that is most of the disk": header(tarfile.REGTYPE, 1 << 50, f"{ENSEMBLE}/log.txt"),
}


@pytest.mark.parametrize("what", list(BOMBS))
def test_an_archive_that_would_take_memory_or_time_is_refused_before(here: Cli, outputs, tmp_path, what):
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(BOMBS[what] + bytes(1024), 1))
    began = time.process_time()
    tracemalloc.start()
    try:
        answer = here("runs", "unpack", str(path))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.code == (2 if "disk" in what else 3) and len(answer.err.splitlines()) == 1, answer.err
    assert most < 5e6 and time.process_time() - began < 1 and not outputs.exists()


def test_an_archive_of_ever_so_many_files_is_refused_and_none_is_kept_in_memory(
    here: Cli, outputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(members, "MOST_MEMBERS", 2000)
    path = tmp_path / "many.tar.gz"
    path.write_bytes(gzip.compress(FILE * 2001 + bytes(1024), 1))
    tracemalloc.start()
    answer = here("runs", "unpack", str(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.code == 3 and "more than 2,000 files" in answer.err and most < 1e6


def test_what_is_no_archive_is_refused_in_a_line(here: Cli, tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"{ENSEMBLE}/config.yaml")
        info.size = 10_000
        tar.addfile(info, io.BytesIO(os.urandom(10_000)))
    whole = path.read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2], b"\x1f\x8b" + bytes(50)):
        path.write_bytes(data)
        answer = here("runs", "unpack", str(path))
        assert answer.code == 3 and len(answer.err.splitlines()) == 1, data[:9]
    assert here("runs", "unpack", str(tmp_path / "none.tar.gz")).code == 2
    assert here("runs", "unpack", str(tmp_path)).code == 2


def test_the_doctor_looks_and_leaves_nothing_behind(here: Cli, outputs, monkeypatch):
    make_ensemble(outputs, n_runs=2, status="failed")
    # These two start workers.
    monkeypatch.setattr(health, "_launcher", lambda: health.Check("launcher", "ok", "it starts"))
    monkeypatch.setattr(health, "_bits", lambda: (_ for _ in ()).throw(RuntimeError("no kernels")))
    before = sorted(outputs.rglob("*"))
    answer = here("doctor", "--json")
    states = {item["what"]: item["state"] for item in answer.json["checks"]}
    assert answer.code == 3 and states["bits"] == "failed" and states["runs"] == "warning"
    assert all(states[name] == "ok" for name in ("installation", "locks", "clock", "launcher"))
    assert sorted(outputs.rglob("*")) == before
    monkeypatch.setattr(health, "_bits", lambda: health.Check("bits", "ok", "hold"))
    shown = here("doctor", "--outputs", str(outputs / "not/yet"))
    assert shown.code == 0 and "to be made" in shown.out and not (outputs / "not").exists()
    assert OutputPaths(outputs).ensembles()


def test_a_difference_of_final_metrics_has_its_interval(here: Cli, outputs):
    steps = np.arange(0, 50, 10)

    def stored(digest: str, ends: list[float]) -> None:
        values = {"test_loss": np.array(ends)[:, None] * np.ones(len(steps))}
        make_ensemble(outputs, n_runs=len(ends), steps=steps, values=values, digest=digest, slug=digest)

    x, y = [1.0, 2.0, 4.0, 7.0], [2.1, 3.0, 4.9, 8.2]
    stored("aaaaaaaaaa", x)
    stored("bbbbbbbbbb", y)
    stored("cccccccccc", y[:3])

    def between(a: str, b: str) -> dict | None:
        results = here("runs", "diff", a, b, "--json").json["results"]
        return {item["what"]: item["difference"] for item in results}["final test_loss"]

    found = between("aaaaaaaaaa", "bbbbbbbbbb")
    gaps = np.subtract(y, x)
    half = 3.182446 * gaps.std(ddof=1) / 2
    assert found["paired"] and found["estimate"] == pytest.approx(gaps.mean())
    assert found["interval"] == pytest.approx([gaps.mean() - half, gaps.mean() + half], rel=1e-5)
    apart = between("aaaaaaaaaa", "cccccccccc")
    assert not apart["paired"] and apart["interval"][0] < apart["estimate"] < apart["interval"][1]
    assert between("aaaaaaaaaa", "bbbbbbbbbb/s0001") is None
    # A change in every run alike has no spread.
    assert between("bbbbbbbbbb", "bbbbbbbbbb")["interval"] == [0, 0]
    # What stands in brackets is named.
    said = here("runs", "diff", "aaaaaaaaaa", "bbbbbbbbbb").out
    assert "difference of means [95%]" in said and "the median [lower to upper quartile]" in said
    assert "[95% interval by Student's t, of pairs of one label]" in said
    said = here("runs", "diff", "aaaaaaaaaa", "cccccccccc").out
    assert "[95% interval by Student's t, of runs that are no pairs (Welch)]" in said
    # Ends of trainings of other lengths are of other steps.
    steps = np.arange(0, 40, 10)
    stored("dddddddddd", x)
    assert between("aaaaaaaaaa", "dddddddddd") is None
    said = here("runs", "diff", "aaaaaaaaaa", "dddddddddd").out
    assert (
        "the two end at other steps (40 and 30)" in said and "analyze compare aaaaaaaaaa dddddddddd" in said
    )
    alone = here("runs", "diff", "aaaaaaaaaa/s0000", "bbbbbbbbbb/s0000").out
    assert "quartile" not in alone and "interval" not in alone
