"""The top of a page: what was trained, numbers written large, the picture that answers, letters that can be read."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fakes import make_ensemble, no_drawing, steps_of, training

from dynalab.analysis.hmm.events import event_words
from dynalab.analysis.hmm.findings import Course
from dynalab.config.compose import compose
from dynalab.config.ensemble import from_tree
from dynalab.config.registry import names
from dynalab.core.runs import Group, Run, Series
from dynalab.report import ensemble
from dynalab.report.blocks import Section
from dynalab.report.page import Page, render
from dynalab.report.trained import trained
from dynalab.report.write import write_report
from dynalab.show import plots, svg
from dynalab.show.blocks import Number, Picture, Raster, Say
from dynalab.show.plots.style import CYCLE
from dynalab.store.find import select
from dynalab.store.paths import AnalysisPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result

CSS = Path(ensemble.__file__).parent / "templates" / "page.css"


def config(*words: str) -> dict[str, Any]:
    return copy.deepcopy(from_tree(compose(list(words))).as_dict())


@pytest.fixture(scope="module")
def parity() -> dict[str, Any]:
    return config("task=parity")


def with_(tree: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    return {**tree, **{name: {**(tree.get(name) or {}), **own} for name, own in sections.items()}}


def test_what_was_trained_is_said_with_its_values(parity: dict[str, Any]) -> None:
    assert trained([parity]) == "Parity of 3 of 30 bits; MLP 100; SGD, lr 0.1; batches of 32"
    other = with_(parity, task={"label_noise": 0.2}, model={"hidden": [8, 4]}, train={"clip": 1.0})
    assert trained([other]) == (
        "Parity of 3 of 30 bits, label noise 0.2; MLP 8-4; SGD, lr 0.1; batches of 32; clip 1"
    )
    assert trained([config("task=grokking")]) == (
        "Modular arithmetic (add mod 59), 40% of pairs; embedding MLP 128; "
        "AdamW, lr 0.003, betas (0.9, 0.98), decay 1; full batch"
    )
    forks = [
        {**parity, "parent": f"ab@{step}", "edit": {"name": "perturb", "scale": 0.1}} for step in (100, 1200)
    ]
    assert trained(forks).endswith("; batches of 32; forked at step 100 or 1,200; perturb, scale 0.1")
    assert trained([parity, forks[0]]).endswith("; in part forked at step 100; perturb, scale 0.1")
    # Which model learns which of several tasks is no alternative.
    assert trained([parity, config("task=grokking"), config("task=digits")]) == (
        "Parity of 3 of 30 bits, modular arithmetic (add mod 59, 40% of pairs) and images of digits"
    )
    assert trained([{}]) == "" and trained([{"import": {}}]) == ""


def test_what_settings_differ_in_are_alternatives(parity: dict[str, Any]) -> None:
    rates = [with_(parity, optimizer={"lr": lr}) for lr in (0.1, 0.3, 1.0)]
    assert "; SGD, lr 0.1, 0.3 or 1; " in trained(rates)
    adam = {**parity, "optimizer": {**config("task=parity", "optimizer=adam")["optimizer"]}}
    assert "; SGD (lr 0.1) or Adam (lr 0.003); " in trained([parity, adam])
    # What some have is not said of all.
    averaged = {**parity, "average": {**config("task=parity", "average=ema")["average"]}}
    assert trained([averaged]).endswith("; batches of 32; ema")
    assert trained([parity, averaged]).endswith("; batches of 32; in part ema")
    sizes = [with_(parity, train={"batch_size": size}) for size in ("full", 32, 64)]
    assert trained(sizes).endswith("; full batch or batches of 32 or 64")
    around = [
        config("task=parity", "optimizer=lookahead", f"optimizer.inner={name}") for name in ("sgd", "adamw")
    ]
    assert "; Lookahead around sgd (lr 0.1) or Lookahead around adamw (lr 0.003" in trained(around)
    five = [{**parity, "optimizer": {"name": f"own{n}", "lr": 1}} for n in range(5)]
    assert "; 5 optimizers; " in trained(five)
    # One that a plug-in brought which is not here is said by its name and all its keys.
    assert "; own 1, lr 1; " in trained([{**parity, "optimizer": {"name": "own_1", "lr": 1}}])
    # A configuration of another version lacks a key of the template.
    assert trained([{**parity, "model": {"name": "mlp"}}]).split("; ")[1] == "mlp"


@pytest.mark.parametrize("group", ["task", "model", "optimizer", "schedule"])
def test_every_part_says_itself_with_keys_that_it_has(group: str) -> None:
    from dynalab.config.registry import find

    for name in names(group, ()):
        part = find(group, name)
        title = getattr(part.module, "TITLE", None)
        if name in ("task", "constant"):
            continue
        assert title, f"{group}={name} has no TITLE"
        fields = {field.name for field in part.config_class.__dataclass_fields__.values()}
        assert {*re.findall(r"\{(\w+)", title)} - {"lr"} <= fields, name


def test_the_numbers_of_one_ensemble(outputs: Path) -> None:
    made = make_ensemble(outputs, n_runs=5)
    ((item, runs),) = select(outputs, [made.id], None, Ensemble)
    from dynalab.report.gather import gather

    generalised, memorised, final = ensemble.numbers(gather(item, runs, (), ()))
    steps = [run.summary["generalised_step"] for run in runs]  # type: ignore[index]
    low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75])
    assert generalised == Number(
        f"step {middle:g}", "generalised, median", f"quartiles {low:g} to {high:g}, 5 of 5 runs"
    )
    assert memorised.name == "memorised, median" and final.name == "final test accuracy, median"


def test_a_median_beyond_the_end_is_not_never(outputs: Path) -> None:
    from dynalab.report.gather import gather

    steps = steps_of()
    values = training(4, steps)
    values["test_accuracy"][1:] = 0.2
    made = make_ensemble(outputs, values=values)
    ((item, runs),) = select(outputs, [made.id], None, Ensemble)
    generalised, *_ = ensemble.numbers(gather(item, runs, (), ()))
    (first,) = [step for run in runs if (step := (run.summary or {})["generalised_step"]) is not None]
    assert generalised == Number("1 of 4", "generalised", f"fewer than half, the first at step {first:,}")


def test_events_are_said_by_the_states_that_they_fall_into() -> None:
    def run(name: str, train: list[float], test: list[float]) -> Run:
        at = np.arange(len(train)) * 10
        series = {"train_accuracy": Series(at, np.array(train)), "test_accuracy": Series(at, np.array(test))}
        levels = {"levels": {"train_accuracy": 0.99, "test_accuracy": 0.99}}
        return Run(name, series, config=levels)

    runs = (
        run("e/s0", [0.1, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 1.0]),
        run("e/s1", [0.1, 1.0, 1.0, 1.0], [0.1, 0.2, 1.0, 1.0]),
        run("e/s2", [0.1, 0.2, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]),
    )
    courses = [Course(run=name, steps=[0, 10, 20, 30], states=states) for name, states in (
        ("e/s0", [0, 0, 1, 2]), ("e/s1", [0, 0, 1, 2]), ("e/s2", [0, 0, 1, 1]),
    )]  # fmt: skip
    findings = SimpleNamespace(states=courses)
    assert event_words(findings, [Group("e", runs)]) == (  # type: ignore[arg-type]
        "Memorising falls into state **0** in **2 of 3 runs** (1 in 1), generalising falls into state **2** in "
        "**1 of 2 runs** (1 in 1); 1 run never generalises."
    )
    never = [Group("e", (run("e/s0", [0.1] * 4, [0.1] * 4),))]
    assert event_words(findings, never) == "" and event_words(findings, []) == ""  # type: ignore[arg-type]


def test_a_ribbon_has_the_share_of_runs_in_each_state() -> None:
    at = [np.array([0, 10, 20]), np.array([0, 10])]
    raster = Raster(
        name="r", caption="", alt="", runs=["a", "b"], steps=at, n_states=2,
        states=[np.array([0, 1, 1]), np.array([0, 0])],
    )  # fmt: skip
    made = ensemble._shares(raster)
    assert made is not None
    # Of the runs that have a row there: at the last step there is one.
    assert made[0].tolist() == [0, 10, 20] and made[1].tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    figure = plots.training_curves(made[0], {"train": np.ones((2, 3))}, {}, states=made)
    (ribbon,) = figure.axes[0].child_axes
    assert len(ribbon.collections) == 2 and ribbon.get_xlim() == figure.axes[0].get_xlim()


def test_runs_of_several_lengths_are_titled_by_both(outputs: Path) -> None:
    from dynalab.report import write
    from dynalab.report.gather import gather

    made = make_ensemble(outputs, n_runs=3)
    ((item, runs),) = select(outputs, [made.id], None, Ensemble)
    shown = gather(item, runs, (), ())
    longest = shown.last_step
    assert write._title([shown]).endswith(f"; 3 seeds, {longest:,} steps")
    shown.runs[0] = dataclasses.replace(shown.runs[0], steps=longest // 2)
    assert write._title([shown]).endswith(f"; 3 seeds, {longest // 2:,} to {longest:,} steps")


def page_of(sections: list[Section], folder: Path) -> str:
    return render(Page("t", [], [], sections, [], "now"), folder)


def picture(name: str) -> Picture:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1], label=name)
    return Picture(name=name, figure=figure, caption=f"**{name}**", alt=name)


def test_a_page_begins_with_the_figure_that_answers_and_numbers_all(tmp_path: Path) -> None:
    first = Section("A", "a", [Say("x"), picture("one")])
    second = Section("B", "b", [picture("two"), picture("three")], lead="three")
    source = page_of([first, second], tmp_path)
    order = re.findall(r'id="figure-(\d)".*?<strong>(\w+)</strong>', source, flags=re.DOTALL)
    assert order == [("1", "three"), ("2", "one"), ("3", "two")]
    assert source.index("figure-1") < source.index("<nav") < source.index("figure-2")
    # Nobody answers: the first one does. A section that has nothing left is not there.
    alone = page_of([Section("C", "c", [picture("one")])], tmp_path)
    assert 'id="figure-1"' in alone and 'id="c"' not in alone and 'href="#c"' not in alone
    assert "<figure" not in page_of([Section("D", "d", [Say("x")])], tmp_path)


def test_several_tasks_begin_with_their_comparison(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)
    one, two = make_ensemble(outputs), make_ensemble(outputs, overrides=["task=parity"])
    source = write_report(select(outputs, [one.id, two.id], None, Ensemble), {}, outputs).read_text("utf-8")
    assert re.search(
        r'id="figure-1".*?<figcaption.*?<strong>(.*?)</strong>.*?of every ensemble', source, re.DOTALL
    )
    assert source.index("of every ensemble") < source.index("<nav") < source.index("Loss and accuracy")


def test_large_numbers_of_an_analysis_say_of_which_setting_they_are(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two settings with an analysis each; of one alone nothing needs to be said."""
    from dynalab.report import write
    from dynalab.report.sections import Rendered

    no_drawing(monkeypatch)
    monkeypatch.setattr(
        write,
        "analysed",
        lambda result, _: Rendered([], Section("A", result.id), [Number("never", "arrival")]),
    )
    made = [make_ensemble(outputs, overrides=[f"optimizer.lr={rate}"]) for rate in (0.1, 0.2)]
    results = {
        one.id: [
            Result(AnalysisPaths(outputs / f"analysis/odd-{place}"), {"ensemble": one.id, "warnings": []})
        ]
        for place, one in enumerate(made)
    }

    def names(ids: list[str]) -> list[str]:
        some = {one: results[one] for one in ids}
        source = write_report(select(outputs, ids, None, Ensemble), some, outputs).read_text("utf-8")
        head = source.partition('class="numbers"')[2].partition("</dl>")[0]
        return re.findall(r"(?:[^<>]*: )?arrival", head)

    both = [one.id for one in made]
    assert sorted(names(both)) == ["lr 0.1: arrival", "lr 0.2: arrival"] and names(both[:1]) == ["arrival"]


def test_several_tasks_have_a_large_number_each(outputs: Path) -> None:
    from dynalab.report import overview, write
    from dynalab.report.gather import gather

    made = [make_ensemble(outputs, n_runs=3, overrides=[f"task={task}"]) for task in ("grokking", "parity")]
    shown = [gather(*select(outputs, [one.id], None, Ensemble)[0], (), ()) for one in made]
    overview.name_ensembles(shown)
    large = write._numbers(shown, [], [])
    assert [number.name for number in large] == [f"{one.title}: generalised, median" for one in shown]
    assert [number.value for number in large] == [ensemble.numbers(one)[0].value for one in shown]


def test_equal_ends_and_a_single_run_are_no_spread(outputs: Path) -> None:
    from dynalab.report.gather import gather

    values = training(4, steps_of())
    values["test_accuracy"][:, -1] = 1.0
    for runs, about in ((4, "in all 4 runs"), (1, "")):
        own = {name: table[:runs] for name, table in values.items()}
        made = make_ensemble(outputs, n_runs=runs, values=own, overrides=[f"train.clip={runs}"])
        *_, final = ensemble.numbers(gather(*select(outputs, [made.id], None, Ensemble)[0], (), ()))
        assert final.value == "1" and final.about == about


def test_settings_of_a_comparison_are_folded(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_drawing(monkeypatch)
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    selection = select(outputs, [one.id, two.id], None, Ensemble)
    source = write_report(selection, {}, outputs).read_text("utf-8")
    for item in (one, two):
        assert re.search(rf'<section id="e-{item.id}">\s*<details class="part">', source)
    alone = write_report(select(outputs, [one.id], None, Ensemble), {}, outputs).read_text("utf-8")
    assert re.search(rf'<section id="e-{one.id}-metrics">\s*<details class="part">', alone)
    assert re.search(rf'<section id="e-{one.id}-runs">\s*<h2>', alone)


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, 1.4.3)."""

    def light(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        rgb = np.array([int(digits[k : k + 2], 16) for k in (0, 2, 4)]) / 255
        return float(
            np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    text = CSS.read_text("utf-8")
    root, dark = text[: text.index("}")], text[text.index("{% set dark %}") : text.index("{% endset %}")]
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", part)) for part in (root, dark)]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_letters_can_be_read(theme: int) -> None:
    colours = themes()[theme]
    assert colours.keys() == themes()[1 - theme].keys()
    letters = ("ink", "muted", "link", "found", "bad", *svg._LETTERS.values())
    for name in letters:
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert (
        contrast(colours["muted"], colours["soft"]) >= 4.5
        and contrast(colours["link"], colours["soft"]) >= 4.5
    )
    assert (
        contrast(colours["alarm"], colours["warn"]) >= 4.5
        and contrast(colours["ink"], colours["warn"]) >= 4.5
    )


def test_a_figure_takes_the_colours_of_its_page() -> None:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], color=CYCLE[4])
    axes.text(0, 0, "a", color=CYCLE[4])
    axes.text(0, 0, "b", color="white")
    inline = svg.inline(svg.to_svg(figure), "p", "x")
    assert "fill: var(--paper, #ffffff)" in inline and "stroke: #56b4e9" in inline
    assert "fill: var(--sky, #56b4e9)" in inline and re.search(r"<text[^>]*fill: #ffffff", inline)


def test_a_key_of_a_later_dynalab_is_no_difference(outputs: Path) -> None:
    from dynalab.report.provenance import differences

    made = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"])
    del made.config["train"]["clip"], made.config["train"]["sphere"], made.config["optimizer"]["eps"]
    assert differences(made) == {"optimizer.lr": (0.01, 0.003)}
    # Another part lacks the default's keys: these are differences.
    other = make_ensemble(outputs, overrides=["task=grokking", "optimizer=sgd"], slug="sgd")
    assert differences(other)["optimizer.betas"] == (None, [0.9, 0.98])  # type: ignore[index]


def test_the_figure_that_an_analysis_leads_with_is_one_that_it_draws() -> None:
    from fnmatch import fnmatch

    from dynalab.config.registry import find

    leads = {}
    for name in names("analysis", ()):
        module = find("analysis", name, ()).module
        if lead := getattr(module, "LEAD", ""):
            leads[name] = any(fnmatch(lead, figure) for figure in module.FIGURES)
    assert {"butterfly", "compare", "connectivity", "eos", "slingshot"} <= leads.keys() and all(
        leads.values()
    )
