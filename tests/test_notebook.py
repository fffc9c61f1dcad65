"""In a notebook: how objects print, several ensembles at once, one row a run, figures of a size, examples that run."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

import dynalab
from dynalab.errors import ConfigError, NothingMatched
from dynalab.show import plots


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_store: Any) -> Iterator[SimpleNamespace]:
    """A sweep, a fork, a run that diverged and an imported ensemble, in an outputs folder of this module."""
    root = tmp_path_factory.mktemp("store") / "outputs"
    swept, fork = small_store(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DYNALAB_OUTPUTS", str(root))
        (diverged,) = dynalab.train([*SMALL, "optimizer=sgd", "optimizer.lr=1e20", "seed=0..1"])
        loss = np.exp(-np.arange(30) / 5.0)
        table = pd.DataFrame(
            {"run": ["a"] * 30, "step": np.arange(30), "train_loss": loss, "sharpness": 20 - 20 * loss}
        )
        imported = dynalab.import_runs(
            table, "elsewhere", run="run", step="step", constants={"stability_threshold": 20}
        )
        dynalab.train([*SMALL, "optimizer=adamw,sgd", "seed=0..1"])
    yield SimpleNamespace(root=root, swept=swept, fork=fork, diverged=diverged, imported=imported)


@pytest.fixture(autouse=True)
def _here(store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(store.root))


def test_ensembles_and_runs_print_in_a_line(store):
    first, second = store.swept
    assert repr([first, second]) == (
        f"[Ensemble({first.id}, grokking, {first.slug}, 2 runs: 2 done), "
        f"Ensemble({second.id}, grokking, {second.slug}, 2 runs: 2 done)]"
    )
    assert second.slug.endswith("-sgd")
    assert f"fork of {first.id}@10" in repr(store.fork)
    assert "2 runs: 2 diverged" in repr(store.diverged) and ", elsewhere, 1 run: 1 done)" in repr(
        store.imported
    )
    assert repr(first.runs[0]) == f"StoredRun({first.id}/s0000, done, 20 steps)"
    group = first.group()
    assert re.fullmatch(rf"Group\({first.id}, 2 runs: 2 done, \d+ metrics\)", repr(group))
    assert re.fullmatch(
        rf"Run\({first.id}/s0000, done, \d+ metrics, 3 rows, steps 0 to 20\)", repr(group.runs[0])
    )
    assert re.fullmatch(
        r"Series\(3 rows, steps 0 to 20, last [\d.]+\)", repr(group.runs[0].series["train_loss"])
    )
    trajectories = first.trajectories(["train_loss"])
    for item in (group.runs[0].series, group.runs[0].weights, trajectories, trajectories.runs[0]):
        assert len(repr(item)) < 200 and "\n" not in repr(item)


def test_an_ensemble_is_a_table_of_its_runs(store):
    page = store.diverged._repr_html_()
    assert page.count("<tr>") == 3 and "s0001" in page and ">diverged<" in page
    assert "test_accuracy" in store.swept[0]._repr_html_()


def test_a_result_says_what_it_comes_to(store):
    result = dynalab.analyze("eos", store.imported)
    assert re.fullmatch(
        rf"Result\(eos-{result.id}, 1 run of {store.imported.id}(, \d+ warnings?)?\)", repr(result)
    )
    assert result.headline and result.headline.replace("**", "")[:20] in result._repr_html_()


def test_what_a_stranger_wrote_is_escaped(store, tmp_path):
    folder = tmp_path / "grokking" / "x-0123456789"
    (folder / "shard-0000-0000-1").mkdir(parents=True)
    (folder / "config.yaml").write_text("task:\n  name: grokking\nparent: 0123456789@<b>\x1b[2J\n")
    ensemble = dynalab.load(str(folder))
    ensemble.warnings.append("<script>\x1b[2J")
    assert "\x1b" not in repr(ensemble) and "<script>" not in ensemble._repr_html_()
    assert "&lt;script&gt;\\x1b" in ensemble._repr_html_()


def test_several_ensembles_are_opened_at_once(store):
    ids = [ensemble.id for ensemble in store.swept]
    assert [item.id for item in dynalab.load_all()] == [item.id for item in dynalab.load_all("@last")] == ids
    with pytest.raises(
        ConfigError, match=r"@last means 2 ensembles .*dynalab\.load_all\('@last'\) opens them all"
    ):
        dynalab.load("@last")
    assert [item.id for item in dynalab.load_all(ids[1], store.swept, "elsewhere")] == [
        ids[1],
        ids[0],
        store.imported.id,
    ]
    assert {item.id for item in dynalab.load_all(where="optimizer=sgd")} == {ids[1], store.diverged.id}
    assert store.fork.id in {item.id for item in dynalab.load_all(where="task=grokking", forks=True)}
    for wrong in ("nothing", "hmm-0123456789"):
        with pytest.raises(NothingMatched):
            dynalab.load_all(wrong)
    for ref in (3, None, store.swept[0].runs[0]):
        with pytest.raises(ConfigError, match="expected an ensemble, its id or a list of these"):
            dynalab.load_all(ref)
    with pytest.raises(NothingMatched, match="empty list"):
        dynalab.load_all([])


def test_the_frame_has_what_the_list_of_runs_has(store, here):
    frame = dynalab.ensembles_frame(store.swept, store.fork.id, store.diverged, "elsewhere").set_index("run")
    listed = here("runs", "list", "--forks", "--json").json["runs"]
    assert sorted(frame.index) == sorted(run["id"] for run in listed)
    for run in listed:
        row, summary = frame.loc[run["id"]], run["summary"]
        told = {
            name: run[name] for name in ("ensemble", "task", "seed", "status", "steps", "requested_steps")
        }
        told |= {name: value for name, value in summary.items() if name.endswith("_step")}
        told |= {f"final.{name}": value for name, value in summary["final"].items()}
        for name, value in told.items():
            assert pd.isna(row[name]) if value is None else row[name] == value, (run["id"], name)
    assert frame.loc[store.fork.runs[0].id, ["parent", "parent_step"]].tolist() == [store.swept[0].id, 10]
    assert frame["name"].dropna().tolist() == ["elsewhere"]
    assert frame.loc[store.diverged.runs[0].id, "optimizer.lr"] == 1e20


def test_the_frames_columns_are_of_their_kind(store):
    frame = dynalab.ensembles_frame()
    keys = [name for name in frame if "." in name and not name.startswith("final.")]
    assert len(frame) == 4 and set(frame["optimizer"]) == {"adamw", "sgd"}
    assert {"optimizer.lr", "optimizer.momentum"} <= set(keys) and not any(
        key.startswith("task") for key in keys
    )
    kinds = {name: str(frame[name].dtype) for name in frame}
    assert kinds["optimizer.lr"] == kinds["final.test_accuracy"] == "float64" and kinds["steps"] == "int64"
    landmarks = ("memorised_step", "generalised_step", "diverged_step", "seed")
    assert {kinds[name] for name in landmarks} == {"Int64"} and kinds["optimizer.nesterov"] == "boolean"
    # One that lists: it can be grouped by.
    assert frame.groupby("optimizer.betas").size().to_dict() == {"[0.9,0.98]": 2}
    one = dynalab.ensembles_frame(f"{store.swept[0].id}/s0001")
    assert one["label"].tolist() == ["s0001"] and "optimizer.lr" not in one


def test_a_frame_of_what_was_opened_before_is_of_what_is_stored_now(store):
    (early,) = dynalab.train([*SMALL, "model.width=4", "seed=0"])
    assert len(early.runs) == 1
    dynalab.train([*SMALL, "model.width=4", "seed=0..2"])
    assert len(dynalab.ensembles_frame(early)) == 3


NOISE = np.random.default_rng(0)
STEPS = np.arange(0, 2000, 100)
RUNS = np.exp(-STEPS / 500)[None] * NOISE.uniform(0.5, 1.5, (6, 1))
CURVES = [(STEPS, row) for row in RUNS]
HALVED = {"step": STEPS, "sharpness": RUNS[0], "threshold": RUNS[1], "parent_sharpness": RUNS[2]}
EDGES = np.concatenate([-np.geomspace(1e2, 1e-2, 9), np.geomspace(1e-2, 1e2, 9)])
FIGURES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "comparison": (({"a": (STEPS, RUNS), "b": (STEPS, RUNS)},), {}),
    "curves": ((STEPS, {"train": RUNS}), {}),
    "effect_rows": ((["a"], [1.0], [(0.0, None)]), {}),
    "events_over_curves": (
        (["a"], CURVES[:1], CURVES[1:2], [[(200, 300, "slingshot")]]),
        {"names": ("loss", "norm")},
    ),
    "halved_rate": (
        (["a"], [HALVED], [5]),
        {},
    ),
    "hidden_progress": ((STEPS, RUNS, {"fourier": RUNS}), {"leaves": 0.5, "level": 0.2}),
    "landmark_steps": (({"memorised": np.arange(6.0)},), {}),
    "metric_panels": (({"l2": STEPS, "l1": STEPS}, {"l2": RUNS, "l1": RUNS}), {}),
    "model_selection": (([1, 2], [-2.0, -1.0], [0.1, 0.1], [20.0, 10.0], 2), {}),
    "effect": ((["1", "2"], ["a"], [[1.0, None]], [[(0.5, 2.0), (None, None)]]), {"key": "lr"}),
    "estimates_in_regions": ((["a"], [0.5], [(0.2, None)], [(0.4, 1.0)]), {"notes": ["agrees"]}),
    "ranking": (
        (["a", "b"], [[1.0, 2.0], [3.0, None]], [1.5, None], [(1.0, 2.0), (3.0, None)]),
        {"last": 9.0},
    ),
    "response": (
        ([0.0, 1.0], [[1.0], [None]], [1.0, None], [(None, None), (1.0, None)]),
        {"best": (0.0, 0.0)},
    ),
    "polygon_pictures": (
        (["a"], [[np.array([[0, 0], [1, 0], [0, 1]])]], [np.array([2.0])]),
        {"boundaries": [np.array([[[0, 0.5], [0.5, 0]]])], "points": [np.array([[0.2, 0.2]])]},
    ),
    "similarity_maps": ((["a"], [STEPS], [np.eye(len(STEPS))]), {}),
    "spectral_density": ((["a"], [STEPS], [NOISE.dirichlet(np.ones(17), len(STEPS))], EDGES), {}),
    "state_profiles": ((NOISE.normal(size=(2, 3)), ["l1", "l2", "trace"]), {}),
    "state_raster": (([STEPS], [np.arange(len(STEPS)) // 10], ["a"], 2), {}),
    "surface_pictures": (
        (["a"], [(np.arange(4.0), np.arange(3.0))], [np.outer(np.arange(4.0), np.ones(3)) + 1]),
        {"levels": [2.5], "paths": [np.array([[0, 0], [1, 1]])], "points": [np.array([[2, 1]])]},
    ),
    "training_curves": ((STEPS, {"train": RUNS}, {"test": RUNS}), {}),
    "training_map": ((2, [{"from": 0, "to": 1, "runs": 3}], 3), {}),
    "variance_shares": ((["init", "rest"], [0.5, 0.5], [(0.1, 0.9), (0.2, 0.8)]), {}),
}


def test_every_figure_takes_a_size():
    drawn = {
        name
        for name in plots.__all__
        if name not in ("draw", "forks", "state_colours", "state_graph", "style")
    }
    assert set(FIGURES) == drawn
    for name, (words, keys) in FIGURES.items():
        figure = getattr(dynalab.figures, name)(*words, **keys, size=(3.25, 2.5))
        assert tuple(figure.get_size_inches()) == (3.25, 2.5), name


@pytest.mark.parametrize("size", [(3, 0), (3,), 3, (np.nan, 2), ("3", "2")])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ConfigError, match=r"expected \(width, height\) in inches"):
        dynalab.figures.curves(STEPS, {"train": RUNS}, size=size)


def test_no_text_of_a_column_of_a_paper_is_cut():
    words = [[HALVED], [5]]
    figure = plots.halved_rate(["a"], *words, size=(3.25, 2.5))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_a_view_shows_its_figures_in_a_size(store):
    view = dynalab.view(dynalab.analyze("eos", store.imported), size=(4, 2))
    assert not re.search(r'viewBox="0 0 (?!288 144)', view._repr_html_())


def examples(function: Any) -> str:
    """Return the code of a docstring, which is indented and stands before its sections."""
    text = inspect.cleandoc(function.__doc__).partition("\n\nArgs:")[0]
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("name", ["analyze", "ensembles_frame", "load", "load_all", "view"])
def test_examples_run(store, name, tmp_path, monkeypatch, capsys):
    result = dynalab.analyze("eos", store.imported)
    named = {
        "cb7150eb3e": store.imported.id,
        "hmm-7ebafd365b": f"eos-{result.id}",
        '"hmm"': '"eos"',
        ", max_states=4": "",
        "load_all())": "load_all('elsewhere'))",
    }
    code = examples(getattr(dynalab, name))
    for written, here in named.items():
        code = code.replace(written, here)
    monkeypatch.chdir(tmp_path)
    exec(code, {"dynalab": dynalab})


@pytest.mark.filterwarnings("ignore:from the header:UserWarning")
def test_the_example_of_importing_runs(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.csv").write_text("step,train_loss\n0,2.3\n1,2.1\n")
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    exec(examples(dynalab.import_runs), {"dynalab": dynalab, "pandas": pd})
    assert [item.slug for item in dynalab.load_all("mine", "others")] == ["mine", "others"]


def test_every_public_function_has_an_example():
    assert [name for name in dynalab._PUBLIC if "dynalab." not in examples(getattr(dynalab, name))] == []


def test_progress_is_a_line_that_ends_at_all_steps(store, capsys):
    dynalab.train([*SMALL, "train.steps=25", "seed=0..1"], progress=True)
    assert capsys.readouterr().err.endswith("training 2 runs: 100% of 50 steps, 2 ended\n")
    dynalab.train([*SMALL, "train.steps=25", "seed=0..1"])
    assert capsys.readouterr().err == ""


def test_printing_loads_no_torch(store):
    code = """
import sys, dynalab
for item in [*dynalab.load_all(), dynalab.load("elsewhere")]:
    repr(item), item._repr_html_(), item.runs, repr(item.group())
dynalab.ensembles_frame()
assert not {"torch", "scipy", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_runs_of_an_ensemble_follow_its_slash(store, monkeypatch, capsys):
    from dynalab.cli.app import run

    start = store.swept[0].id[:8]
    monkeypatch.setenv("_DYNALAB_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_LINE", f"dynalab runs list {start}/")
    run([])
    assert [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()] == [
        f"{start}/s0000",
        f"{start}/s0001",
    ]
