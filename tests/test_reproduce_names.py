"""What no result of a sheet's commands could have: names, keys and values are looked up before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from test_reproduce import claim, own, rows

from dynalab.cli.reproduce import _print
from dynalab.config import registry
from dynalab.core.errors import ConfigError
from dynalab.report.reproductions import headline, section
from dynalab.reproduce.commands import Run
from dynalab.reproduce.paths import require_names
from dynalab.reproduce.reading import parse_sheet, read_sheet, sheet_names
from dynalab.reproduce.result import Outcome, Removed, Reproduction
from dynalab.reproduce.rows import Document, rows_of
from dynalab.reproduce.run import plan
from dynalab.reproduce.shapes import ANYTHING, columns_of, of_analysis, of_training, of_value
from dynalab.reproduce.statistics import estimate
from dynalab.reproduce.verdict import judge

# Paths -------------------------------------------------------------------------------------------------------------

TRAINED = of_training(
    of_value({"task": {"name": "grokking"}}), columns_of("grokking", ("weights", "curvature", "spectrum"))
)


def read_in(analysis: str, path: str, each: str = "runs") -> bool:
    """Look a path up in what a result of an analysis may hold."""
    shape = TRAINED if analysis == "train" else of_analysis(registry.find("analysis", analysis).module)
    about = claim(
        "difference", by="seed", of=[1, 2], rows={"analysis": analysis, "each": each, "value": path}
    )
    return require_names(about, shape)


@pytest.mark.parametrize(
    "analysis, path, said",
    [
        ("train", "summary.generalized_step == null", r"generalized_step in .*\(did you mean generalised_step\?\)"),
        ("train", "sumary.final.test_loss", r"sumary in .* \(did you mean summary\?\)"),
        ("train", "rows[?stp == `3`] | [0].train_loss", r"stp in .* \(did you mean step\?\)"),
        ("train", "max(rows[].sharpnes)", r"sharpnes in .* \(did you mean sharpness\?\)"),
        ("train", "max(rows[].zero_loss_fraction)", r"no such name; .*; probes=\[numerics\] records it"),
        ("train", "rows[].{a: step}[?b > `1`] | [0].a", "b in .* there are a"),
        ("train", "max_by(rows, &train_los).step", r"train_los in .* \(did you mean train_loss"),
        ("train", "rows.step", r"step in 'rows.step': a list stands there; \[\] goes through its places"),
        ("train", "steps.last > `3`", "last in .*: a number stands there, which has no keys"),
        ("train", "seed[0]", r"\[\] in .*: a number stands there, no list"),
        ("train", "lenght(rows)", r"lenght\(\) in .*: no such function \(did you mean length\?\)"),
        ("train", "length(rows, steps)", "takes 1, and 2 are given"),
        ("train", "||".join(["a"] * 333), "too deep|a in .*: no such name"),
        ("train", "status", "gives text: expected a number.*a word can be compared"),
        ("train", "summary.final", "gives an object: expected a number, true, false or null$"),
        ("slingshot", "length(events[?stpe > `3`])", "stpe in .*; there are amplitude_decades, "),
        ("slingshot", "verdict == slingshot", "slingshot in .*; a value stands in quotes, 'slingshot'"),
        ("eos", "loss.corroborated == true", "true in .*; a value stands in quotes, `true`"),
        ("hmm", "paths[].member[]", r"member in .* \(did you mean members"),
    ],
)  # fmt: skip
def test_a_name_that_no_result_has_is_none(analysis, path, said):
    each = "[@]" if analysis == "hmm" else "runs"
    with pytest.raises(ConfigError, match=said):
        read_in(analysis, path, each)


@pytest.mark.parametrize(
    "analysis, path, told",
    [
        ("train", "summary.generalised_step != null && status != 'diverged'", True),
        ("train", "rows[?test_accuracy > `0.55` && sharpness != null] | [-1].eigenvalue_share_3", True),
        ("train", "sort_by(rows, &test_loss)[0].step || `0`", True),
        ("train", "sum(map(&not_null(test_loss, train_loss), rows[1:]))", True),
        ("slingshot", "length(events[?kind == 'slingshot'])", True),
        ("slingshot", "events[0].{a: onset_step, b: [end_step, `3`]}.b[1]", True),
        ("eos", "stays[-1].last", True),
        ("compare", "landmarks.generalized_step.reached", False),
    ],
)
def test_what_a_result_may_have_is_there_whatever_lists_hold(analysis, path, told):
    assert read_in(analysis, path, "settings" if analysis == "compare" else "runs") is told


def test_a_share_is_of_what_is_true_or_false_and_a_mean_of_numbers():
    for statistic, path, said in (
        ("share", "steps", "a share is of what"),
        ("mean", "steps > `3`", "numbers; of"),
    ):
        with pytest.raises(ConfigError, match=said):
            require_names(claim(statistic, (0, 1), rows={"analysis": "train", "value": path}), TRAINED)
    mixed = "status == 'done' && steps || `null`"
    assert require_names(claim("mean", (0, 1), rows={"analysis": "train", "value": mixed}), TRAINED)


def test_rows_are_in_a_list():
    with pytest.raises(ConfigError, match=r"rows.each: 'summary' gives an object, no list"):
        read_in("eos", "verdict == 'at_edge'", "summary")
    with pytest.raises(ConfigError, match=r"rows.each: run in 'run': no such name"):
        read_in("eos", "verdict == 'at_edge'", "run")


@dataclass(frozen=True)
class _Part:
    step: int


@dataclass(frozen=True)
class _Findings:
    named: dict[str, _Part]
    counts: dict[str, int]
    untyped: Any


def test_names_that_are_data_are_looked_up_in_results():
    """A user's own analysis may declare little; what a verdict was counted for may not have come about."""
    declared = of_analysis(SimpleNamespace(Findings=_Findings))
    seen = [
        {"named": {"a": {"step": 1}}, "untyped": [{"x": 1, "y": None}]},
        {"named": {"b": None}, "untyped": []},
    ]
    shape = declared.filled(of_value(seen).items)

    def look(path: str) -> bool:
        return require_names(
            claim("mean", (0, 9), rows={"analysis": "own", "each": "[@]", "value": path}), shape
        )

    for path in ("named.a.step", "named.b.step", "counts.rare || `0`", "untyped[0].x", "untyped[0].y.z"):
        look(path)
    for path in ("named.c.step", "named.a.stp", "untyped[0].z"):
        with pytest.raises(ConfigError, match="no such name"):
            look(path)
    nothing = declared.filled(of_value({"named": {}, "untyped": []}))
    assert (
        require_names(
            claim("mean", (0, 9), rows={"analysis": "own", "each": "[@]", "value": "named.c.step"}), nothing
        )
        is False
    )
    assert ANYTHING.filled(of_value(None)) == ANYTHING


# Keys and values ----------------------------------------------------------------------------------------------------


def planned(folder: Path, *changes: tuple[str, str]) -> Any:
    """Plan the sheet of one's own, with changes."""
    path = own(folder)
    text = path.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    # Seeds that no other command has.
    text = text.replace("seed=0..3 optimizer.weight_decay=0", "seed=4..7 optimizer.weight_decay=0")
    path.write_text(text)
    return plan("mine", parse_sheet(path), "cpu", Run(folder / "outputs"))


FINAL = "value: summary.final.train_loss"
LEVELS = "by: optimizer.weight_decay\n    of: [1, 0]"


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("{command: decay}", "{command: dekay}",
         r"^claims.sooner.where.command: command is never dekay \(did you mean decay\?\); it is decay or none$"),
        ("{command: decay}", "{comand: decay}", r"where.comand: no run has this key \(did you mean command\?\)"),
        ("{command: decay}", "{seed: 9}", "where.seed: seed is never 9; it is 0 or 1 or 2 or 3 or 4 or"),
        ("{command: decay}", "{command: none, optimizer.weight_decay: 1}",
         "claims.sooner.where: no run has command=none and optimizer.weight_decay=1 together"),
        (LEVELS, "by: optimizer.weight_decy\n    of: [1, 0]", r"claims.numbers.by: .*mean optimizer.weight_decay"),
        (LEVELS, "by: optimizer.weight_decay\n    of: [1, 0.5]", "of: optimizer.weight_decay is never 0.5; it is"),
        (LEVELS, "by: model.width\n    of: [16, 32]",
         "model.width is never 32; it is 16; what tells the runs apart is by: command, which is decay or none"),
        (FINAL, "terms: {l: summary.final.train_loss}, formula: l * optimizer.lrr",
         r"claims.numbers.rows.formula: optimizer.lrr is no key of a run \(did you mean optimizer.lr\?\); terms are l"),
        (FINAL, "terms: {l: steps}, formula: l * optimizer", "optimizer in 'l \\* optimizer' is adamw, and no number"),
        (FINAL, "terms: {l: summary.finl.train_loss}, formula: l", r"numbers.rows.terms.l: finl in .*mean final"),
        (LEVELS, f"{LEVELS}\n    pair: seed", "numbers.pair: no seed is of both: 1 has 0, 1, 2, 3; 0 none of these"),
        (f"{LEVELS}\n    statistic: difference", "x: model.width\n    statistic: slope",
         "claims.numbers.x: 'model.width' is 16 in all runs; two values are needed"),
        ("{decay: train", "{none: train", "removals.0.commands: the main claim sooner needs decay, of which"),
    ],
)  # fmt: skip
def test_what_no_run_has_is_refused_before_anything_is_trained(tmp_path, before, after, said):
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, (before, after))


def test_a_removal_that_leaves_the_main_claim_without_a_run_tries_nothing(tmp_path):
    where = ("{command: decay}", "{command: decay, optimizer: adamw}")
    with pytest.raises(
        ConfigError, match=r"removals.0: under it the main claim sooner is about nothing: .*never adamw"
    ):
        planned(tmp_path, where, ("optimizer.lr=1e-9", "optimizer=sgd"))


def test_a_command_may_stand_in_a_removal_alone_where_the_main_claim_names_it(tmp_path):
    """As where the cause is too slow for the scale, at which the main claim cannot be told."""
    slow = ("    where: {command: decay}", "    where: {command: slow}\n    not_at: {cpu: it takes hours}")
    assert planned(tmp_path, slow, ("{decay: train", "{slow: train")).under[0][0].name == "slow"


def test_what_a_fork_changes_is_not_known_before_and_what_it_keeps_is(tmp_path):
    text = f"""\
title: Forks
claims:
  moves:
    says: A shaken run moves
    rows: {{{{analysis: train, value: "rows[-1].train_loss"}}}}
    by: command
    of: [shaken, base]
    statistic: difference
    agrees: [0, null]
  scales:
    says: The more the more
    rows: {{{{analysis: train, value: summary.final.train_loss}}}}
    where: {{{{command: shaken, KEY}}}}
    statistic: slope
    x: edit.scale
    agrees: [0, null]
scales:
  ci:
    minutes: 0.1
    commands:
      base: train {" ".join(TINY)} seed=0..2
      shaken: fork base 30 edit=perturb edit.scale=0.1,1 optimizer.lr=0.5
"""
    for key, said in (
        ("optimizer.lr: 0.5", ""),
        ("optimizer.lr: 0.1", "is never 0.1"),
        ("task: parity", "never parity"),
    ):
        sheet = parse_sheet(own(tmp_path, text=text.replace("KEY", key)))
        if not said:
            plan("mine", sheet, "ci", Run(tmp_path / "outputs"))
            continue
        with pytest.raises(ConfigError, match=said):
            plan("mine", sheet, "ci", Run(tmp_path / "outputs"))


def test_the_line_names_the_file_and_nothing_is_trained(here, tmp_path, outputs):
    path = own(tmp_path)
    path.write_text(path.read_text().replace("summary.final.train_loss", "summary.final.train_los"))
    for words in ([], ["--dry-run"]):
        answer = here(
            "reproduce", "mine", "--config-dir", str(tmp_path / "sheets"), "launcher=inline", *words
        )
        line = f"dynalab: {path}:14: claims.numbers.rows.value: train_los in "
        assert answer.code == 2 and answer.err.startswith(line) and answer.err.count("\n") == 1
    assert not outputs.exists()


UNTYPED = """\
from dataclasses import dataclass
from typing import Any
from dynalab.analysis.base import Keys

@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    pass

@dataclass(frozen=True)
class Findings:
    runs: tuple[Any, ...]

def analyse(groups, config):
    return Findings(tuple({"run": run.id, "score": 3.0} for group in groups for run in group.runs))
"""


def test_a_name_that_only_results_can_tell_is_a_failure_where_none_has_it(here, tmp_path):
    text = f"""\
title: An analysis that declares nothing
claims:
  known: {{{{says: a, rows: {{{{analysis: untyped, value: score > `2`}}}}, statistic: share, agrees: [0.1, 1]}}}}
  lost:
    says: b
    rows: {{{{analysis: untyped, value: scroe}}}}
    by: seed
    of: [0, 1]
    statistic: difference
    agrees: [0, null]
scales:
  cpu: {{{{minutes: 0.1, commands: {{{{t: "train {" ".join(TINY)} seed=0..1", a: analyze untyped}}}}}}}}
"""
    own(tmp_path, text=text)
    analyses = tmp_path / "sheets/analysis"
    analyses.mkdir()
    (analyses / "untyped.py").write_text(UNTYPED)
    answer = here("reproduce", "mine", "--json", "--config-dir", str(tmp_path / "sheets"), "launcher=inline")
    (sheet,) = answer.json["sheets"]
    assert answer.code == 3 and [claim["verdict"] for claim in sheet["claims"]] == ["agrees", "undecided"]
    (failed,) = sheet["failed"]
    assert (failed["command"], failed["words"]) == ("claim", "lost") and "did you mean score?" in failed[
        "why"
    ]


@pytest.mark.parametrize("name", sheet_names(()))
def test_a_shipped_sheet_can_be_planned_at_its_largest_scale(name, tmp_path):
    """Which nobody runs by the way; `.ci/run` tries them at `ci`, and the exam at `cpu`."""
    sheet = read_sheet(name, ())
    assert plan(name, sheet, [*sheet.scales][-1], Run(tmp_path)).under


# What rows come to --------------------------------------------------------------------------------------------------


def test_an_analysis_own_estimate_is_one_row_with_its_interval():
    about = {"analysis": "compare", "each": "pairs[?of == 'generalised_step']", "value": "ratio"}
    given = claim("given", (0, 0.5), rows={**about, "interval": "ratio_interval"})
    pairs = [
        {"of": "generalised_step", "ratio": 0.3, "ratio_interval": [0.2, None]},
        {"of": "test_loss", "ratio": 1, "ratio_interval": [1, 1]},
    ]
    table = rows_of(given, [Document("compare", {"pairs": pairs}, {}, {})])
    found = estimate(given, table)
    assert (found.value, found.interval, found.n) == (0.3, (0.2, None), 1)
    assert judge(given, found).verdict == "undecided"
    assert judge(claim("given", (0.1, None), rows=given.rows), found).verdict == "agrees"
    with pytest.raises(ConfigError, match="of one row, and there are 2"):
        estimate(given, table * 2)
    broken = claim("given", (0, 1), rows={**about, "interval": "[ratio]"})
    with pytest.raises(
        ConfigError, match=r"rows.interval: '\[ratio\]' gives \[0.3\]: expected \[low, high\]"
    ):
        rows_of(broken, [Document("compare", {"pairs": pairs}, {}, {})])
    # What a plug-in's analysis finds is not known before.
    with pytest.raises(ConfigError, match=r"'ratio_interval' gives 3: expected \[low, high\]"):
        rows_of(given, [Document("compare", {"pairs": [{**pairs[0], "ratio_interval": 3}]}, {}, {})])
    with pytest.raises(ConfigError, match=r"rows.interval: statistic given alone has it"):
        claim("mean", (0, 1), rows={**about, "interval": "ratio_interval"})
    with pytest.raises(ConfigError, match=r"rows.interval: 'ratio' gives a number: given takes a list"):
        shape = of_analysis(registry.find("analysis", "compare").module)
        require_names(claim("given", (0, 1), rows={**about, "interval": "ratio"}), shape)


def test_of_a_side_that_never_came_the_bound_is_known():
    n, steps = 10, [100.0 + 10 * place for place in range(10)]
    sooner = claim("ratio", (0, 0.9), by="command", of=["a", "b"])
    table = rows([*steps, *[None] * n], command=["a"] * n + ["b"] * n)
    found = estimate(sooner, table)
    assert found.value is None and found.interval[0] == 0 and 0.5 < found.interval[1] < 0.9
    assert (
        "10 of 20 never came" in found.said
        and "command=b all that is known is that it is later than 190" in found.said
    )
    assert judge(sooner, found).verdict == "agrees"
    later = estimate(claim("ratio", (0, 0.9), by="command", of=["b", "a"]), table)
    assert (
        later.interval[0] > 1.1 and later.interval[1] is None and judge(sooner, later).verdict == "disagrees"
    )
    neither = estimate(sooner, rows([None] * 20, command=["a"] * n + ["b"] * n))
    assert judge(sooner, neither).verdict == "undecided" and "tell nothing" in neither.said


def test_a_key_may_be_a_list():
    table = rows([1.0, 2, 3, 7, 8, 9], **{"model.hidden": [[64]] * 3 + [[64, 64]] * 3})
    for of in ([[64, 64], [64]], ["[64, 64]", "[64]"]):
        found = estimate(claim("difference", (0, 9), by="model.hidden", of=of), table)
        np.testing.assert_allclose(found.value, 6)
    missing = estimate(claim("difference", (0, 9), by="model.hidden", of=[[64.0], [32]]), table)
    assert missing.said.startswith("model.hidden is never [32]; it is [64] or [64, 64]")


# What is said -------------------------------------------------------------------------------------------------------


def test_a_claim_of_ones_own_may_have_no_published_value_and_reads_as_a_sentence(capsys):
    more = {
        "section": "",
        "statistic": "ratio",
        "region": (0, 1),
        "interval": (0, 0.7),
        "n": 20,
        "why": "0 to 0.7",
    }
    made = Outcome(id="sooner", says="It is sooner", published=None, measured=None, verdict="agrees", **more)
    gone = [
        Removed(removes=what, claim="sooner", verdict=verdict, measured=2.0, interval=(1.5, 3), n=20, why="w")
        for what, verdict in (("decay", "disagrees"), ("noise", "undecided"))
    ]
    whole = Reproduction(
        name="mine", scale="cpu", title="T", paper="", arxiv="", main="sooner", claims=(made,), removals=tuple(gone),
        failed=(), ensembles=(), analyses=(), removed=(), commit="", sheet="abc", dynalab="1",
    )  # fmt: skip
    _print(whole)
    out = capsys.readouterr().out
    assert "sooner          -          0 to 0.7, n=20" in out
    assert "Without decay the claim sooner no longer holds: w." in out
    assert "Without noise the claim sooner is undecided, and does not agree: w." in out
    assert headline(whole) == "The claim of this sheet **agrees** (`mine` at scale cpu)."
    table = section(whole).blocks[1]
    assert table.rows[0][1] is None and table.rows[0][2] == "0 to 0.7, n = 20"
