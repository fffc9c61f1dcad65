"""Directions of training: paths against closed forms and brute force, blocks, the probe, what cannot be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as File

import numpy as np
import pytest
import torch
from bars.calibration.directions import directed
from groups import of_weights
from stored import assert_same, bits

from dynalab import analyze, fork, load, train
from dynalab.analysis import directions
from dynalab.analysis import stored as tables
from dynalab.analysis.directions.path import MANY, Path, choose
from dynalab.analysis.directions.read import paths_of
from dynalab.config.registry import find
from dynalab.core.batch import InputSpec
from dynalab.errors import ConfigError, NothingMatched
from dynalab.models.describe import kinds_of, layers_of, parts_of
from dynalab.probes import directions as probe_of
from dynalab.show.blocks import Table

SHORT = ["task=regression", "model.hidden=[40]", "train.steps=60", "launcher=inline", "eval.every=10"]
KEPT = [*SHORT, "probes=[gradients,directions]", "snapshots.every=10"]


def walk(rows: int, size: int, seed: int = 0, start: float = 0.0) -> np.ndarray:
    """A random walk with steps of length 1, (rows, size)."""
    steps = np.random.default_rng(seed).normal(size=(rows - 1, size))
    steps /= np.linalg.norm(steps, axis=1)[:, None]
    rows = np.concatenate([np.zeros((1, size)), np.cumsum(steps, axis=0)])
    rows[:, 0] += start
    return rows


def of(rows: np.ndarray, most: int = 100) -> Path:
    return Path.of(rows, choose(len(rows), most))


def test_a_straight_line_has_one_direction():
    aim = np.random.default_rng(0).normal(size=300)
    path = of(np.linspace(1, 3, 20)[:, None] * aim)
    found = path.measures()
    for name in ("directional_similarity", "relative_similarity", "principal_share", "tortuosity"):
        assert found.pop(name) == pytest.approx(1.0), name
    assert found.pop("displacement") == pytest.approx(2 * np.linalg.norm(aim))
    np.testing.assert_allclose([*found.values()], 0.0, atol=1e-5)
    bent = np.concatenate([np.linspace(0, 3, 4)[:, None] * [1.0, 0.0], [[3.0, 4.0]]])
    found = of(bent).measures()
    assert found["tortuosity"] == pytest.approx(7 / 5)
    assert found["update_angle"] == pytest.approx(90 / 3)


def test_a_random_walk_has_two_thirds_and_61_percent():
    # Of many equal steps, exactly: the sum over i, j of sqrt(min / max) and the largest eigenvalue of the centred
    # minimum, by brute force.
    path = of(walk(201, 4000), 201)
    null, _ = path.null()
    k = np.arange(1, 201)
    cosines = np.sqrt(np.minimum(k[:, None], k) / np.maximum(k[:, None], k))
    assert null["relative_similarity"] == pytest.approx(cosines.mean()) == pytest.approx(2 / 3, abs=0.004)
    assert null["principal_share"] == pytest.approx(6 / np.pi**2, abs=0.003)
    assert (null["update_angle"], null["displacement"]) == pytest.approx((90, np.sqrt(200)))
    found = path.measures()
    for name, off in (("relative_similarity", 0.02), ("principal_share", 0.02), ("update_angle", 0.5)):
        assert found[name] == pytest.approx(null[name], abs=off), name
    # With a start: A_t = R^2 + t in the place of t.
    far, levels = of(walk(51, 4000, 1, start=5.0)), 25 + np.arange(51)
    cosines = np.sqrt(np.minimum(levels[:, None], levels) / np.maximum(levels[:, None], levels))
    assert far.null()[0]["directional_similarity"] == pytest.approx(cosines.mean())
    assert far.measures()["directional_similarity"] == pytest.approx(cosines.mean(), abs=0.01)
    assert far.measures()["origin_angle"] == pytest.approx(far.null()[0]["origin_angle"], abs=1)


def test_in_few_dimensions_walks_are_drawn():
    # 400 other walks in 2 dimensions, where the closed form is far off.
    paths = [of(walk(30, 2, seed), 10) for seed in range(1000, 1400)]
    null, _ = paths[0].null()
    for name in ("relative_similarity", "principal_share", "apex_angle", "displacement"):
        values = [path.measures()[name] for path in paths]
        assert null[name] == pytest.approx(
            np.mean(values), abs=4 * np.std(values) * np.sqrt(1 / 400 + 1 / 200)
        ), name
    off = paths[0].walk().measures()["relative_similarity"] - null["relative_similarity"]
    assert off > 0.03 and paths[0].size < MANY


def test_similarities_are_the_mean_of_all_cosines_up_to_every_row():
    rows = np.random.default_rng(2).normal(size=(12, 40)).cumsum(0) + 3
    rows[4] = rows[0]  # no direction from the start
    path = of(rows)
    for values, table in ((path.directional_similarity, rows), (path.relative_similarity, rows - rows[0])):
        norms = np.linalg.norm(table, axis=1)
        for t in range(1, 12):
            some = [row / norm for row, norm in zip(table[: t + 1], norms, strict=False) if norm]
            assert values[t] == pytest.approx(np.mean(np.array(some) @ np.array(some).T))
            assert values[t] == pytest.approx(np.square(np.mean(some, axis=0)).sum())
    raw, relative = path.maps
    np.testing.assert_allclose(raw, np.corrcoef(rows) * 0 + _cosines(rows))
    assert np.isnan(relative[0]).all() and np.isnan(relative[:, 4]).all()
    np.testing.assert_allclose(relative[5:, 5:], _cosines(rows[5:] - rows[0]))


def _cosines(rows: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1)[:, None]
    return units @ units.T


@pytest.mark.parametrize("block", [1 << 24, 7 * 23, 1])
def test_blocks_add_up_to_layers_and_layers_to_the_whole(monkeypatch, block):
    rows = np.random.default_rng(3).normal(size=(7, 60)).cumsum(0).astype(np.float32)
    rows[:, :5] = rows[0, :5]
    (run,) = of_weights({"s0": rows}, np.arange(7)).runs
    monkeypatch.setattr(tables, "BLOCK", block)
    shapes = tables.Shapes.of(run)
    paths = paths_of(run, shapes, 4)
    assert shapes.sizes == {"layer.weight": (5, 11), "head.bias": (5, 1)} and not shapes.known
    whole = Path.of(rows.astype(float), choose(7, 4))
    for name, expected in vars(whole).items():
        np.testing.assert_allclose(getattr(paths.whole, name), expected, rtol=1e-12, err_msg=name)
    for parts in (paths.layers, paths.kinds):
        np.testing.assert_allclose(sum(part.gram for part in parts.values()), whole.gram)
        assert sum(part.size for part in parts.values()) == 60
    assert paths.layers["layer"].measures() == pytest.approx(
        Path.of(rows[:, 5:].astype(float), choose(7, 4)).measures()
    )
    assert not paths.layers["head"].strides.any()


def test_weights_count_as_long_as_they_are_finite():
    rows = np.random.default_rng(3).normal(size=(7, 60)).cumsum(0)
    rows[5, 3] = np.inf
    (run,) = of_weights({"s0": rows}, np.arange(7)).runs
    paths = paths_of(run, tables.Shapes.of(run), 100)
    assert paths.steps.tolist() == [0, 1, 2, 3, 4] and np.isfinite(paths.whole.gram).all()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two runs with weights and the probe on the same steps, cut off on the way."""
    outputs = tmp_path_factory.mktemp("kept")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train([*KEPT, "seed=1..2", "train.steps=30"], outputs=outputs)
    (ensemble,) = train([*KEPT, "seed=1..2"], outputs=outputs)
    torch.set_num_threads(before)
    return ensemble


def test_the_probe_measures_what_the_analysis_does(kept):
    by_weights, by_probe = (
        analyze("directions", kept, source=source).value for source in ("weights", "probe")
    )
    for one, other in zip(by_weights.runs, by_probe.runs, strict=True):
        assert (one.rows, other.rows, one.source, other.source) == (7, 7, "weights", "probe")
        for name in (
            "directional_similarity",
            "relative_similarity",
            "update_angle",
            "origin_angle",
            "tortuosity",
        ):
            mine, theirs = one.whole.measures[name], other.whole.measures[name]
            assert vars(theirs) == pytest.approx(vars(mine), rel=1e-9), name
        assert other.whole.measures["principal_share"].value is None
        assert one.whole.measures["principal_share"].value > 0.5
    for name in ("relative_similarity_null", "directional_similarity_null", "path_length", "displacement"):
        np.testing.assert_allclose(by_probe.curves[name], by_weights.curves[name], rtol=1e-9)
    for name in ("relative_similarity_null", "directional_similarity_null"):
        mine = kept.array(name).ravel()
        np.testing.assert_allclose(mine[np.isfinite(mine)], by_weights.curves[name].dropna(), rtol=1e-9)


def test_rows_of_the_probe_do_not_depend_on_neighbours_or_interruptions(kept, tmp_path, one_thread):
    (alone,) = train([*KEPT, "seed=1"], outputs=tmp_path)
    assert_same(bits(alone.path), bits(kept.path), ["s0001"])


def test_a_fork_that_measures_more_goes_on_with_the_path(kept, tmp_path, one_thread):
    (parent,) = train([*KEPT, "seed=1", "train.steps=30"], outputs=tmp_path)
    more = ["probes=[gradients,directions,weights]", "train.steps=50", "launcher=inline"]
    (one,) = fork(parent.id, 30, more, outputs=tmp_path)
    for name in probe_of.COLUMNS:
        np.testing.assert_array_equal(
            one.array(name)[0], kept.array(name)[0, : one.array(name).shape[1]], name
        )


@pytest.mark.usefixtures("undrawn")
def test_the_command_and_its_page(kept, here, monkeypatch):
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(kept.path.parents[1]))
    done = here("analyze", "directions", "--json")
    assert done.code == 0, done.err
    (found,) = done.json["analyses"]
    assert found["summary"]["whole"]["measures"]["relative_similarity"]["runs"] == 2
    assert [part["part"] for part in found["summary"]["layers"]] == ["layers.0", "layers.1"]
    assert {part["part"] for part in found["runs"][0]["kinds"]} == {"weight", "bias", "head"}
    text = File(here("report").out.strip()).read_text()
    for said in ("Trajectory maps", "Direction over training", "Direction of kinds of parameters"):
        assert said in text, said
    some = here("analyze", "directions", "parts=[head]", "--json").json["analyses"][0]
    assert [len(some["summary"][name]) for name in ("layers", "kinds")] == [0, 1]
    for words, code, said in (
        (["parts=[hed]"], 2, "did you mean head?"),
        (["rows=2"], 2, "at least 3"),
        (["source=weigths"], 2, "did you mean weights?"),
    ):
        answer = here("analyze", "directions", *words)
        assert answer.code == code and said in answer.err and len(answer.err.splitlines()) <= 2, answer.err


def test_without_weights_the_probe_is_read_and_without_both_a_line_is_said(here, tmp_path):
    words = [*SHORT, "train.steps=40", "snapshots.at=never", "seed=0"]
    (ensemble,) = train([*words, "probes=[gradients,directions]"], outputs=tmp_path / "outputs")
    done = here("analyze", "directions", "--json")
    (run,) = done.json["analyses"][0]["runs"]
    assert (run["source"], run["rows"], run["verdict"]) == ("probe", 5, "measured")
    assert "layers" not in done.json["analyses"][0]["tables"]
    assert load(ensemble.id, outputs=tmp_path / "outputs").array("relative_similarity").shape == (1, 5)


def test_intervals_of_the_excess_hold_none_where_weights_walk_at_random():
    """A thousand and other walks: the bar `calibration:directions`. Of 120 ensembles at most 11% err by chance."""
    found = [directed("shorter steps", 5, 12, 120, seed) for seed in range(120)]
    rates = {name: np.mean([errors[name] for errors in found]) for name in found[0]}
    assert len(rates) == 8 and max(rates.values()) <= 0.11 and min(rates.values()) < 0.05, rates


def test_angles_have_their_unit(kept):
    *_, whole, _parts, every = (
        block for block in directions.show(analyze("directions", kept).value, []) if isinstance(block, Table)
    )
    rows = {row[0]: row[1:] for row in whole.rows}
    assert all(cell.endswith("°") for cell in rows["angle between updates"][:3])
    assert not any("°" in cell for cell in rows["tortuosity"]) and "angle between updates, °" in every.header


def test_what_cannot_be_measured_is_said():
    none = of_weights({"s0": np.ones((3, 60))}, np.arange(3))
    for last, steps in ((-1, "0 steps"), (0, "1 step"), (1, "2 steps")):
        line = rf"s0: weights were kept at {steps}, and a path takes 3: dynalab train .*snapshots\.every=20.*probes="
        with pytest.raises(NothingMatched, match=line):
            directions.analyse([none.until(last)], directions.Config())
    both = replace(none, runs=(none.until(1).runs[0], *of_weights({"s1": walk(3, 60)}, np.arange(3)).runs))
    one, other = directions.analyse([both], directions.Config()).runs
    assert (one.verdict, one.whole, other.verdict) == ("insufficient_data", None, "measured")
    found = directions.analyse([none], directions.Config())
    assert found.runs[0].verdict == "still" and found.summary.whole is None
    same = vars(found.runs[0].whole.measures["directional_similarity"])
    assert same == pytest.approx({"value": 1.0, "null": 1.0, "excess": 0.0})
    assert found.runs[0].whole.measures["relative_similarity"].value is None
    # What holds of several groups is said once.
    warnings = directions.analyse([none, replace(none, id="other")], directions.Config()).warnings
    assert len(warnings) == 1 and warnings[0].startswith(
        f"{none.id} and other: the network is not known, so all "
    )
    with pytest.raises(ConfigError, match=r"parts=layr: .* layer, head, weight and bias .did you mean layer"):
        directions.analyse([none], directions.Config(parts=["layr"]))


@pytest.mark.parametrize(
    ("model", "query"), [("nanda", ["w_q"]), ("power", ["blocks.0.query.weight", "blocks.1.query.weight"])]
)
def test_models_name_queries_keys_and_values(model, query):
    part = find("model", model)
    network = part.module.build(part.config_class(), InputSpec(kind="pairs", symbols=11, classes=11))
    kinds, names = kinds_of(network), [name for name, _ in network.named_parameters()]
    assert kinds["query"] == query and {"key", "value", "embedding", "head"} <= kinds.keys()
    for groups in (kinds, layers_of(network)):
        assert sorted(name for members in groups.values() for name in members) == sorted(names)
    assert parts_of(network)["query"] == query
