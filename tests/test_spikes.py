"""Rows that a spike of a run's loss forces: whose they are, when they come, and that they disturb nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from stored import bits, difference

from dynalab import analyze, train
from dynalab.config.command import read_command
from dynalab.store.reader import Ensemble
from dynalab.training.loop import Loop
from dynalab.training.spikes import Spikes
from dynalab.training.streams import Streams

# The rate jumps in step 300: the loss leaps, in the runs that do not stand on flat ground by then.
WORDS = ["task=digits", "task.n_train=60", "model.hidden=[12]", "optimizer=sgd", "optimizer.momentum=0"]
WORDS += ["optimizer.lr=0.3", "schedule=step", "schedule.milestones=[300,312]", "train.batch_size=full"]
WORDS += ["probes=[curvature]", "probe.curvature.every=500", "eval.every=50", "snapshots.at=never"]
WORDS += ["launcher=inline", "train.steps=500"]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_spike_is_ten_times_the_lowest_of_the_blocks_before():
    spikes = Spikes(4, torch.device("cpu"))
    #         level, spikes, is too small, is not finite
    blocks = [[1.0, 0.5, 1e-6, 0.1], [0.9, 0.4, 1e-6, 0.1], [1.1, 0.4, 1e-6, 0.1], [1.0, 0.3, 1e-6, 0.1]]
    blocks += [
        [2.0, 3.1, 9e-4, np.inf],
        [2.0, 3.1, 1e-6, np.nan],
        [2.0, 0.3, 2e-3, 0.1],
        [30.0, 9.0, 1e-6, 0.1],
    ]
    found = []
    for number, block in enumerate(blocks, 1):
        spikes.add(torch.tensor(block, dtype=torch.float64))
        # Losses come in pieces; only the largest of a block counts.
        spikes.add(torch.tensor(block, dtype=torch.float64) / 2)
        found.append(spikes.at(64 * number, 128))
    # The second run is not taken again until 128 steps have passed.
    assert found == [[], [], [], [], [1], [], [2], [0, 1]]


@pytest.mark.parametrize(
    ("level", "most", "spikes"),
    [(1.0, 10.0, 1), (1.0, 9.99, 0), (1e-5, 1e-3, 1), (1e-5, 0.99e-3, 0), (1e-3, 0.01, 1)],
)
def test_the_least_that_is_a_spike(level, most, spikes):
    found = Spikes(1, torch.device("cpu"))
    for largest in (5 * level, 2 * level, level, 2 * level):
        found.add(torch.tensor([largest], dtype=torch.float64))
        assert found.at(64, 1) == []
    found.add(torch.tensor([most], dtype=torch.float64))
    again = Spikes(1, torch.device("cpu"))
    again.load(found.tensors())
    assert len(found.at(64, 1)) == len(again.at(64, 1)) == spikes


def test_a_spike_counts_again_from_its_distance_on():
    spikes = Spikes(1, torch.device("cpu"))
    found = []
    for number in range(1, 9):
        spikes.add(torch.tensor([10.0 if number > 5 else 1.0], dtype=torch.float64))
        found.append(spikes.at(64 * number, 128))
    assert found == [[], [], [], [], [], [0], [], [0]]


def jumped(gamma: float) -> list[str]:
    return [*WORDS, f"schedule.gamma={gamma}"]


@pytest.mark.filterwarnings("ignore:schedule=step")
def test_rows_are_the_runs_own_and_disturb_nothing(tmp_path):
    (among,) = train([*jumped(3.0), "seed=0..3", "compute.width=4"], outputs=tmp_path / "a")
    own = {run.label: among.forced_rows(run) for run in among.runs}
    spiked = {label: rows for label, rows in own.items() if len(rows)}
    assert 0 < len(spiked) < 4, "runs that spike and runs that do not: else the setting has lost its point"
    for label, rows in spiked.items():
        # One row: at the end of the block that spiked, and none for 500 steps after.
        assert rows["step"].tolist() in ([320], [384])
        names = among.columns()["every-500"]
        names = [
            name for name in names if "sharpness" in name or name in ("edge_ratio", "stability_threshold")
        ]
        assert {"sharpness", "edge_ratio"} <= set(names)
        run = next(run for run in among.runs if run.label == label)
        assert np.isfinite(among.forced_rows(run)["sharpness"]).all()
    # One series of the shard, a value of one run in every row.
    (shard,) = {run.shard for run in among.runs}
    assert sorted(path.stem for path in shard.series_folder.iterdir()) == ["every-50", "every-500", "forced"]
    rows = np.load(shard.series("forced"))
    assert [among.runs[place].label for place in sorted(rows["run"])] == sorted(spiked)
    assert rows["sharpness"].shape == (len(spiked),)
    # Grids, and what is read from them, know nothing of them.
    assert among.cadences() == ["every-50", "every-500"] and among.steps("sharpness").tolist() == [0, 500]
    table = pd.read_parquet(among.paths.metrics("forced"))
    assert set(table["run"]) == {f"{among.id}/{label}" for label in spiked} and "sharpness" in table
    (without,) = train([*jumped(3.0), "seed=0..3", "probe.curvature.on_spike=false"], outputs=tmp_path / "b")
    assert without.id != among.id and not any(len(without.forced_rows(run)) for run in without.runs)
    mine, theirs = bits(among.path), bits(without.path)
    for label, item in mine.items():
        assert [name for name in difference(item, theirs[label]) if not name.startswith("forced/")] == []
    assert [run["verdict"] for run in analyze("eos", among).data["runs"]] == ["insufficient_data"] * 4
    # Alone, and cut off on the way, also within the block that spikes.
    label = next(iter(spiked))
    seed = int(label[1:])
    (alone,) = train([*jumped(3.0), f"seed={seed}"], outputs=tmp_path / "c")
    assert difference(mine[label], bits(alone.path)[label]) == []
    for steps in (250, 310, 320, 330, 384):
        with warnings.catch_warnings():
            # The first piece is too short for a row of the probe.
            warnings.filterwarnings("ignore", "probe curvature: it has a row every 500 steps")
            (pieces,) = train([*jumped(3.0), f"seed={seed}", f"train.steps={steps}"], outputs=tmp_path / "d")
    (pieces,) = train([*jumped(3.0), f"seed={seed}"], outputs=tmp_path / "d")
    assert difference(bits(alone.path)[label], bits(pieces.path)[label]) == []
    assert (
        Ensemble(pieces.paths).forced_rows(pieces.runs[0])["step"].tolist() == spiked[label]["step"].tolist()
    )


def test_a_forced_row_is_what_a_row_would_have_been():
    for words in (
        ["optimizer=adam", "optimizer.lr=0.01"],
        ["optimizer.weight_decay=0.1", "optimizer.decay=matrices"],
    ):
        base = [word for word in jumped(1.0) if not word.startswith("optimizer")]
        (request,) = read_command([*base, *words, "probe.curvature.tolerance=1e-4"]).requests
        loop = Loop(request.config, [Streams.from_seed(s) for s in range(3)], 500, torch.device("cpu"))
        for _ in range(20):
            loop.update()
        (item,) = loop.measuring.items
        state = loop.measuring.state(set(item.probe.needs))
        before = {name: tensor.clone() for name, tensor in item.probe.tensors().items()}
        one = item.probe.measure_run(state, 1)
        assert {name: t.tolist() for name, t in before.items()} == {
            name: t.tolist() for name, t in item.probe.tensors().items()
        }
        whole = item.probe.measure(state)
        assert list(one) == list(whole)
        for name, value in whole.items():
            assert one[name].isnan().tolist() == [True, False, True], name
            if "residual" not in name:
                assert one[name][1].item() == pytest.approx(value[1].item(), rel=1e-3), name
