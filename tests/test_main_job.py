"""The main job with fewer seeds: the default task really groks, and the road ends in a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.mark.usefixtures("undrawn")
def test_default_grokking_memorises_early_and_generalises_late(here, outputs):
    answer = here("train", "task=grokking", "seed=0..1", "train.steps=1600", "--json")
    assert answer.code == 0, answer.err
    (entry,) = answer.json["ensembles"]
    for run in entry["runs"]:
        early, late = run["summary"]["memorised_step"], run["summary"]["generalised_step"]
        assert early < 400 and late >= 5 * early, run["summary"]

    # The landmarks are what the stored rows say.
    rows = np.load(next(Path(entry["path"]).glob("shard-*/series/every-10.npy")))
    first = rows["step"][np.argmax(rows["test_accuracy"][:, 0] >= 0.99)]
    assert first == entry["runs"][0]["summary"]["generalised_step"]

    import pandas as pd

    table = pd.read_parquet(Path(entry["path"], "metrics.parquet"))
    assert list(table.columns[:3]) == ["run", "seed", "step"] and len(table) == 2 * 161
    one = table[(table.seed == 0) & (table.step == 500)]
    assert one["l2"].item() == rows["l2"][rows["step"] == 500][0, 0]

    found = here("analyze", "hmm", "max_states=3", "restarts=2", "--json")
    assert found.code == 0, found.err
    (result,) = found.json["analyses"]
    assert {"id", "ensemble", "warnings", "n_states", "selection", "states", "transitions", "edges"} <= set(
        result
    )
    assert [row["n_states"] for row in result["selection"]] == [1, 2, 3]
    assert len(result["states"]) == 2 and len(result["convergence"]) == 2
    counts = np.array(result["transitions"]["counts"])
    assert counts.sum() == 2 * 160 and counts.shape == (result["n_states"],) * 2
    assert Path(result["path"], "states.parquet").is_file()

    page = here("report")
    assert page.code == 0, page.err
    text = Path(page.out.strip()).read_text()
    assert entry["id"] in text and "s0001" in text and "<svg" in text
    again = here("report")
    assert again.out == page.out
