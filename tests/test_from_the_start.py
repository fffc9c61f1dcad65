"""What holds from the start leads nothing; what is recorded elsewhere, before, or no more is said to be so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import TINY

import dynalab
from dynalab import train
from dynalab.analysis import progress
from dynalab.analysis.base import Group
from dynalab.analysis.progress import Config, analyse
from dynalab.analysis.progress.measures import LOSSES, MEASURES, RESTRICTED
from dynalab.config.schema import Levels
from dynalab.core.errors import NothingMatched
from dynalab.reproduce.documents import Asked, trained
from dynalab.show.blocks import Say
from dynalab.store import checkpoint, series
from dynalab.store.reader import Ensemble
from dynalab.store.series import Mark, SeriesWriter
from dynalab.training.summary import summarise

STEPS = np.arange(0, 201, 10)
ORDERED = ("leads", "together", "follows")


# Hidden progress.


def runs_of(measure, **columns):
    task = {"loss": "cross_entropy" if measure == RESTRICTED else "stablemax"}
    return Group.of({"s0000": columns}, STEPS, config={"task": task})


def passing(measure, at):
    level = getattr(Config(), MEASURES[measure].key)
    low, high = (
        (0.9 * level, 1.1 * level) if MEASURES[measure].direction == "up" else (1.1 * level, 0.9 * level)
    )
    return np.where(at <= STEPS, high, low)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "crossed, left, verdict, lead",
    [
        (0, 100, "from_the_start", None),
        (0, 999, "from_the_start", None),
        (50, 0, "from_the_start", None),
        (999, 0, "from_the_start", None),
        (0, 0, "from_the_start", None),
        (10, 100, "leads", 90),
    ],
)
def test_what_holds_in_the_first_row_leads_nothing(measure, crossed, left, verdict, lead):
    group = runs_of(
        measure, test_accuracy=np.where(left <= STEPS, 0.95, 0.4), **{measure: passing(measure, crossed)}
    )
    findings = analyse([group], Config())
    (run,), summary = findings.runs, findings.summary
    assert (run.verdict, run.lead_steps) == (verdict, lead) and summary.measure == measure
    ordered = verdict in ORDERED
    assert summary.earlier.total == summary.lead_steps.runs == int(ordered)
    (said,) = [block.text for block in progress.show(findings, ()) if isinstance(block, Say)]
    assert ("in **1 of 1 run** one of them holds from the start" in said) is not ordered
    assert ("came earlier" in said) is ordered


def test_a_measure_that_is_not_defined_before_anything_moved_does_not_hold_there():
    moved = np.where(STEPS == 0, np.nan, 3.0)
    group = runs_of(
        "parity_separation", test_accuracy=np.where(STEPS >= 100, 0.95, 0.4), parity_separation=moved
    )
    (run,) = analyse([group], Config()).runs
    assert (run.verdict, run.progress_step, run.lead_steps) == ("leads", 10, 90)
    # Of weights that were kept from step 20 on, the first row is the start.
    rows = {name: np.where(STEPS < 20, np.nan, 0.01) for name in LOSSES}
    (kept,) = runs_of(RESTRICTED, test_accuracy=np.where(STEPS >= 100, 0.95, 0.4), **rows).runs
    rule = progress._Rule(RESTRICTED, 0.1, 0.9, 3, thinned=True)
    assert progress._judge(kept, rule).verdict == "from_the_start"


# A run that recorded on grids of its own, forked and gone on with.

RARE = [
    *(word for word in TINY if "weights" not in word),
    "model=embedding_mlp",
    "eval.every=10",
    "probes=[numerics,examples,fourier]",
    "seed=0..1",
]
RARE += ["probe.numerics.every=25", "probe.fourier.every=10", "checkpoint.every=20", "launcher=inline"]
LATE = ("class_mean_norm", "feature_mean_norm", "gradient_imbalance")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rare")
    train([*RARE, "task.loss=stablemax,cross_entropy"], outputs=folder)
    return folder


@pytest.fixture
def ensembles(recorded, outputs):
    """By loss, in the test's own outputs folder."""
    shutil.copytree(recorded, outputs)
    return {item.config["task"]["loss"]: item for item in dynalab.load_all()}


def test_a_random_network_is_no_progress(ensembles):
    # Of 5 frequencies a neuron has a few, whatever it has learnt.
    findings = dynalab.analyze("progress", ensembles["stablemax"])
    assert {run["verdict"] for run in findings.data["runs"]} == {"from_the_start"}
    assert {run["lead_steps"] for run in findings.data["runs"]} == {None} and findings.data["version"] >= 4


def test_the_last_row_of_rarer_probes_is_a_final_value_with_its_step(ensembles, here):
    ensemble = ensembles["cross_entropy"]
    for run in ensemble.runs:
        final, steps = run.summary["final"], run.summary["final_steps"]
        assert final["step"] == 60 and {*LATE} <= {*steps} and {*steps.values()} == {50}
        assert final["min_margin"] == ensemble.array("min_margin")[run.index, -1]
        assert "test_loss" in final and "fourier_gini_embedding" in final and "test_loss" not in steps
    (row, _) = here("runs", "list", ensemble.id, "--json").json["runs"]
    assert row["summary"]["final_steps"]["min_margin"] == 50
    assert dynalab.ensembles_frame(ensemble)["final.min_margin"].notna().all()
    # What was stored of before has them in a sheet, as they were at the steps that it asks for.
    new = ensemble.runs[0].summary
    for run in ensemble.runs:
        run.summary.pop("final_steps")
        run.summary["final"] = {"step": 60}
    for steps, last in ((60, 50), (30, 25)):
        asked = Asked(ensemble, ("s0000",), steps)
        (document,) = trained("x", [asked], ["summary.final.min_margin"])
        (found,) = document.tree["runs"]
        assert found["summary"]["final_steps"]["min_margin"] == last
        known = ensemble.array("min_margin")[0, last // 25]
        assert found["summary"]["final"]["min_margin"] == known and found["summary"]["final"]["step"] == steps
    assert new["final"] == {"step": 60}


def test_final_values_are_of_before_a_divergence():
    evaluated, rare = np.zeros(4, series.row_type(["test_loss"], 2)), np.zeros(2, series.row_type(["l2"], 2))
    evaluated["step"], rare["step"], rare["l2"] = [0, 10, 20, 30], [0, 25], [[1, 2], [3, np.nan]]
    made = [
        summarise(evaluated, run, Levels(), diverged, [rare])
        for run, diverged in ((0, 12), (1, None), (0, 0))
    ]
    assert made[0]["final"] == {"step": 10, "test_loss": 0, "l2": 1} and made[0]["final_steps"] == {"l2": 0}
    assert made[1]["final"] == {"step": 30, "test_loss": 0, "l2": None} and made[1]["final_steps"] == {
        "l2": 25
    }
    assert made[2]["final"] is None


def test_a_fork_keeps_what_its_parent_recorded_and_it_does_not(ensembles):
    parent = ensembles["cross_entropy"]
    (fork,) = dynalab.fork(parent, 40, ["task.loss=stablemax", "launcher=inline"])
    before, after = parent.array("gradient_imbalance"), fork.array("gradient_imbalance")
    assert fork.steps("gradient_imbalance").tolist() == [0, 25, 50]
    assert (
        np.array_equal(after[:, :2], before[:, :2])
        and np.isfinite(before).all()
        and np.isnan(after[:, 2]).all()
    )
    assert np.isfinite(fork.array("min_margin")).all()


def strip(ensemble: Ensemble, names: set[str]) -> None:
    """Take columns from all series, as if recorded before there were any."""
    (shard,) = ensemble.paths.shards()
    for path in shard.series_folder.glob("every-*.npy"):
        rows = series.read(path)
        left = [name for name in series.metrics_of(rows.dtype) if name not in names]
        kept = np.zeros(len(rows), series.row_type(left, 2))
        for name in kept.dtype.names:
            kept[name] = rows[name]
        series.replace(path, kept)
        for file in (shard.run, *(item.state for item in shard.checkpoints())):
            document = json.loads(file.read_text())
            marks = document.get("marks") or document["series"]
            marks[path.stem][1] = series.checksum_of(kept, marks[path.stem][0])
            if document.pop("check", None):
                document["check"] = checkpoint._check(document)
            file.write_text(json.dumps(document))


def test_a_run_of_before_goes_on_with_the_columns_that_it_began_with(ensembles):
    strip(ensembles["cross_entropy"], {*LATE})
    with pytest.warns(
        UserWarning, match="goes on with the columns that it began with, without class_mean_norm, fea"
    ):
        (longer,) = train([*RARE, "task.loss=cross_entropy", "train.steps=80"])
    assert {run.status for run in longer.runs} == {"done"} and longer.runs[0].steps == 80
    assert longer.steps("min_margin").tolist() == [0, 25, 50, 75] and not {*LATE} & {*longer.metrics}


def test_columns_that_are_gone_are_missing_and_new_ones_left_out(tmp_path):
    path = tmp_path / "every-1.npy"

    def append(columns, keep=None):
        writer = SeriesWriter(path, list(columns), 1, keep)
        writer.append(np.array([writer.rows]), np.zeros(1), columns)
        mark = writer.sync()
        writer.close()
        return mark, writer.left_out

    one = np.ones((1, 1))
    mark, _ = append({"a": one, "b": one})
    mark, left_out = append({"c": 3 * one, "b": 2 * one}, mark)
    assert left_out == ("c",) and mark == Mark(2, series.checksum(path, 2))
    rows = series.read(path)
    assert rows["b"][:, 0].tolist() == [1, 2] and np.isnan(rows["a"][1, 0]) and "c" not in rows.dtype.names


# Python and the command.


def test_python_has_what_the_command_says_of_several(ensembles, here):
    ids = [item.id for item in ensembles.values()]
    said = here("analyze", "examples", *ids, "--json").json["analyses"]
    found = dynalab.analyze("examples", list(ensembles.values()))
    assert [item.id for item in found] == [item["id"] for item in said] and len(found) == 3
    assert {*found[-1].ensembles} == {*ids} and [len(item.ensembles) for item in found] == [1, 1, 2]
    assert dynalab.analyze("examples", ids[0]).id == found[0].id
    assert [item.id for item in dynalab.analyze("examples", [ids[0], ids[0]])] == [found[0].id]
    assert dynalab.analyze("examples", []) == []


def test_an_ensemble_without_a_run_that_can_enter_is_named(ensembles, here, outputs):
    one, other = ensembles.values()
    (shard,) = other.paths.shards()
    document = json.loads(shard.run.read_text())
    for run in [document, *document["runs"]]:
        run["status"] = "partial"
    shard.run.write_text(json.dumps(document))
    answer = here("analyze", "examples", one.id, other.id)
    assert answer.code == 0 and other.id in answer.err and "left out" in answer.err
    with pytest.raises(NothingMatched, match=other.id):
        dynalab.analyze("examples", [one.id, other.id])
