"""Which analyses a page shows, what it is allowed to compute, and how analyses are removed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nulls.hmm import states_of
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page

import dynalab
from dynalab.analysis import hmm
from dynalab.analysis.command import contrast
from dynalab.analysis.hmm.published import table
from dynalab.cli.app import run
from dynalab.config.analysis import given_keys, read_analysis
from dynalab.config.overrides import Override
from dynalab.config.registry import find
from dynalab.config.typed import plain
from dynalab.report import write
from dynalab.report.choice import choose, key_words
from dynalab.show.blocks import Say as Words
from dynalab.store import remove
from dynalab.store.lock import Lock
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, write_result

Say = Callable[..., tuple[int, Any, str]]


@pytest.fixture(autouse=True)
def _pencil(monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command with `--json`: exit code, document, standard error."""

    def command(*words: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = run([*words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return command


def stored(outputs: Path, ensemble: Ensemble, letter: str, day: int, **more: Any) -> Result:
    made = make_hmm(outputs, ensemble, digest=letter * 10, created=f"2026-11-{day}T00:00:00+00:00")
    return write_result(made.paths, {**made.data, "keys": {}, **more}, {})


def pair(outputs: Path) -> tuple[Ensemble, Ensemble]:
    one = make_ensemble(outputs, n_runs=5)
    two = make_ensemble(outputs, n_runs=5, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    stored(outputs, one, "a", 20)
    made = make_hmm(outputs, two, digest="b" * 10, paths=[np.repeat([0, 1, 2], 7)] * 5)
    write_result(made.paths, {**made.data, "keys": {}}, {})
    return one, two


@pytest.mark.usefixtures("undrawn")
def test_a_toy_does_not_take_the_place_of_the_analysis_with_default_keys(outputs, say, capsys):
    ensemble = make_ensemble(outputs)
    stored(outputs, ensemble, "a", 20)
    stored(outputs, ensemble, "b", 21, keys={"n_states": 2, "convergence.metric": "test_loss"})
    code, document, _ = say("report")
    assert code == 0 and [item["id"] for item in document["analyses"]] == ["a" * 10]
    assert [(item["id"], item["keys"]) for item in document["others"]] == [
        ("b" * 10, ["n_states=2", "convergence.metric=test_loss"])
    ]
    page = read_page(Path(document["path"]))
    (row,) = page.table("analysis", "keys", "runs", "made", "shown by")
    assert row == ["hmm-bbbbbbbbbb", "n_states=2 convergence.metric=test_loss", "4", "2026-11-21 00:00",
                   f"dynalab report {ensemble.id} hmm-bbbbbbbbbb"]  # fmt: skip
    assert "Made with" not in page.text
    # Named, it is shown, and says its keys.
    assert run(["report", ensemble.id, "hmm-bbbbbbbbbb"]) == 0
    said = capsys.readouterr()
    assert "listed on the page: hmm-aaaaaaaaaa; name one" in said.err
    page = read_page(Path(said.out.strip()))
    assert page.text.count("Made with n_states=2 convergence.metric=test_loss") == 2
    assert page.table("analysis", "keys")[0][:2] == ["hmm-aaaaaaaaaa", "default"]


def test_what_was_recorded_and_not_analysed_has_its_command(outputs, capsys):
    steps = np.arange(0, 201, 10)
    values = {
        name: np.ones((2, len(steps)))
        for name in ("test_accuracy", "parity_separation", "scale_invariant_norm")
    }
    ensemble = make_ensemble(outputs, n_runs=2, steps=steps, values=values)
    dynalab.analyze("periods", ensemble)
    line = f"`dynalab analyze progress {ensemble.id}`"
    assert run(["report"]) == 0
    said = capsys.readouterr()
    assert f"recorded, and not analysed: {line}\n" in said.err
    assert f"Recorded, and not analysed: {line.strip('`')}." in read_page(Path(said.out.strip())).text
    dynalab.analyze("progress", ensemble, persistence=2)
    assert run(["report"]) == 0
    assert "not analysed" not in capsys.readouterr().err


def chosen(outputs: Path, ensemble: Ensemble) -> str:
    found = choose(outputs, ensemble.id, [])
    assert len(found.shown) + len(found.others) == len(list(outputs.glob("analysis/hmm-*")))
    return "".join(result.id[0] for result in found.shown)


def test_of_analyses_with_other_keys_the_newest_is_shown(outputs):
    ensemble = make_ensemble(outputs)
    stored(outputs, ensemble, "c", 20, keys={"decode_with": "hmm-x"}, decoded_with="x")
    assert chosen(outputs, ensemble) == "c"
    stored(outputs, ensemble, "a", 17, keys={"max_states": 2})
    stored(outputs, ensemble, "b", 18, keys={"max_states": 3})
    # Runs under a stored model, however new, do not stand in the way of a fit; nor does one over several ensembles.
    assert sorted(chosen(outputs, ensemble)) == ["b", "c"]
    stored(outputs, ensemble, "d", 16)
    stored(outputs, ensemble, "e", 22, ensembles=[ensemble.id, "0123456789"])
    assert sorted(chosen(outputs, ensemble)) == ["c", "d"]


def test_the_analysis_of_all_runs_is_not_hidden_by_one_of_a_few(outputs):
    ensemble = make_ensemble(outputs)
    whole = stored(outputs, ensemble, "a", 20)
    stored(outputs, ensemble, "b", 21, inputs=whole.data["inputs"][:1])
    assert chosen(outputs, ensemble) == "a"
    stored(outputs, ensemble, "c", 22)
    assert chosen(outputs, ensemble) == "c"


@pytest.mark.parametrize(
    "keys",
    [{}, {"preset": "paper"}, {"max_states": 2, "metrics": ["l2"]}, {"n_iter": 50}, {"emission": "level"},
     {"preset": "paper", "n_iter": 50}],
)  # fmt: skip
def test_the_keys_of_an_analysis_are_those_that_were_typed(outputs, keys):
    part, config = read_analysis("hmm", itertools.starmap(Override.of, keys.items()))
    assert given_keys(part.config_class, plain(config)) == keys
    # Results of before hold the configuration alone.
    made = make_hmm(outputs, make_ensemble(outputs))
    data = {key: value for key, value in made.data.items() if key != "keys"}
    result = write_result(made.paths, {**data, "config": plain(config)}, {})
    words = key_words(result)
    assert len(words) == len(keys) and all(word.partition("=")[0] in keys for word in words)


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_sampled_while_a_page_is_drawn(outputs, say, monkeypatch):
    pair(outputs)
    draw, inside = write._page, []
    rng = np.random.default_rng

    def drawing(*args: Any) -> Any:
        inside.append(True)
        return draw(*args)

    def generator(*args: Any) -> Any:
        assert not inside, "a generator is made while the page is drawn"
        return rng(*args)

    monkeypatch.setattr(write, "_page", drawing)
    monkeypatch.setattr("numpy.random.default_rng", generator)
    code, first, err = say("report", "-f", "task=grokking")
    assert code == 0, err
    (made,) = outputs.glob("analysis/contrast-*/result.json")
    before = made.stat().st_mtime_ns
    # A second report reads it: it makes no generator at all.
    code, second, err = say("report", "-f", "task=grokking")
    assert code == 0 and made.stat().st_mtime_ns == before, err
    tables = [read_page(Path(item["path"])).table("setting", "what is compared") for item in (first, second)]
    assert tables[0] == tables[1] and len(tables[0]) == 3
    text = read_page(Path(first["path"])).text
    assert "nothing is fitted, sampled or tested for it" in text


def test_a_comparison_is_a_stored_result_known_by_what_it_compares(outputs, monkeypatch):
    one, two = pair(outputs)
    fits = [dynalab.load(name) for name in ("hmm-aaaaaaaaaa", "hmm-bbbbbbbbbb")]
    part = find("analysis", "hmm")
    made = contrast(part, *fits, outputs)
    assert made["of"] == ["hmm-aaaaaaaaaa", "hmm-bbbbbbbbbb"] and made.ensembles == [one.id, two.id]
    assert made["off_path"]["difference"] == pytest.approx(-0.2) and made["left_out"] == 0
    again = dynalab.load(made.paths.root.name)
    assert again.data == made.data and again.value.off_path.difference == pytest.approx(-0.2)
    # It is no analysis of its own on the page, and nobody can ask for it.
    assert {result.kind for item in (one, two) for result in choose(outputs, item.id, []).shown} == {"hmm"}
    assert run(["analyze", "contrast"]) == 2
    # A damaged one is made again; other content makes another.
    made.paths.result.write_text("{")
    assert contrast(part, *fits, outputs).paths == made.paths
    other = dict(fits[0].data, states=[dict(row, states=[0] * 21) for row in fits[0]["states"]])
    assert contrast(part, Result(fits[0].paths, other), fits[1], outputs).paths != made.paths
    monkeypatch.setattr(hmm, "CONTRAST_VERSION", hmm.CONTRAST_VERSION + 1)
    assert contrast(part, *fits, outputs).paths != made.paths
    assert len(list(outputs.glob("analysis/contrast-*"))) == 3


def test_an_older_analysis_says_how_its_claims_are_had():
    said = table(states_of())
    assert isinstance(said, Words) and "`dynalab analyze hmm` does" in said.text


def test_an_analysis_is_removed_by_id_and_nothing_else(outputs, say):
    one, two = pair(outputs)
    before = sorted(path for path in outputs.rglob("*") if "hmm-a" not in str(path))
    code, document, err = say("runs", "rm", "hmm-aaaa")
    assert code == 2 and "1 analysis" in err and "--yes" in err and len(err.splitlines()) == 2
    code, document, err = say("runs", "rm", "hmm-aaaa", "--yes")
    assert code == 0 and document["analyses"] == ["hmm-aaaaaaaaaa"] and document["removed"] == []
    assert document["bytes"] > 0
    assert sorted(outputs.rglob("*")) == before
    for words, code in ((["hmm-aaaa"], 4), (["hmm-cccc"], 4), (["hmm-bbbb", "-f", "seed=0"], 2)):
        assert say("runs", "rm", *words, "--yes")[0] == code, words
    assert sorted(outputs.rglob("*")) == before
    # Damaged, by its folder, and beside runs.
    folder = outputs / "analysis" / "hmm-bbbbbbbbbb"
    (folder / "result.json").write_text("{")
    code, document, _ = say("runs", "rm", str(folder), one.id, "--yes")
    assert code == 0 and document["analyses"] == [folder.name] and len(document["removed"]) == 5
    assert not folder.exists() and not one.path.exists() and two.path.is_dir()
    assert not list(outputs.glob(".removed*"))


def test_what_was_decoded_with_a_removed_model_is_named_and_stays(outputs, say):
    ensemble = make_ensemble(outputs)
    stored(outputs, ensemble, "a", 20)
    stored(outputs, ensemble, "b", 21, keys={"decode_with": "hmm-aaaaaaaaaa"}, decoded_with="a" * 10)
    code, _, err = say("runs", "rm", "hmm-aaaaaaaaaa", "--yes")
    assert code == 0 and "hmm-bbbbbbbbbb was decoded with hmm-aaaaaaaaaa: it stays" in err
    assert dynalab.load("hmm-bbbbbbbbbb").kind == "hmm"


def test_the_beginning_of_two_ids_is_refused(outputs, say):
    one = make_ensemble(outputs)
    make_hmm(outputs, one, digest=f"{one.id[:4]}{'0' * 6}")
    for command in (["runs", "rm", "--yes"], ["report"]):
        code, _, err = say(*command, one.id[:3])
        assert code == 2 and err.count("\n") == 1 and "is ambiguous: the ensemble" in err
    assert say("runs", "rm", one.id, "--yes")[0] == 0
    assert list(outputs.glob("analysis/hmm-*"))


def test_a_linked_folder_of_analyses_is_left_alone(outputs, say, tmp_path):
    make_hmm(outputs, make_ensemble(outputs))
    os.rename(outputs / "analysis", tmp_path / "elsewhere")
    (outputs / "analysis").symlink_to(tmp_path / "elsewhere")
    code, _, err = say("runs", "rm", "hmm-7ebafd365b", "--yes")
    assert code == 3 and "is a link" in err and list((tmp_path / "elsewhere").glob("hmm-*"))


def test_a_removal_that_fails_half_way_is_undone(outputs, say, monkeypatch):
    ensemble = make_ensemble(outputs, n_runs=6, shards=3)
    before = sorted(path for path in outputs.rglob("*"))
    rename = os.rename

    def resists(source: Any, target: Any) -> None:
        if Path(source).name.startswith("shard-0002") and Path(target).parent.name.startswith(".removed"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(remove.os, "rename", resists)
    words = [f"{ensemble.id}/s000{k}" for k in range(4)]
    code, document, err = say("runs", "rm", *words, "--yes")
    assert code == 3 and document is None and "shard-0002-0003-2" in err
    assert sorted(path for path in outputs.rglob("*")) == before
    assert len(dynalab.load(ensemble.id).runs) == 6


def test_what_was_removed_before_a_refusal_is_named(outputs, say, monkeypatch):
    one, two = pair(outputs)
    taken = remove.remove

    def late(removal: Any, root: Path) -> None:
        if removal.ensemble.digest == two.id:
            with Lock(two.paths.shards()[0].lock):
                taken(removal, root)
        taken(removal, root)

    monkeypatch.setattr("dynalab.cli.runs_files.remove", late)
    code, document, err = say("runs", "rm", one.id, two.id, "hmm-aaaaaaaaaa", "--yes")
    assert code == 3 and document is None
    assert f"removed before this went wrong: {one.id}\n" in err
    assert two.path.is_dir() and not one.path.exists() and list(outputs.glob("analysis/hmm-a*"))
