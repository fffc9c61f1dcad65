"""The page in a real browser: runs lit up, zoom, scales, folding, filters, themes, print, phones, hostile names."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from report_fakes import make_ensemble, make_hmm, steps_of, training

from dynalab.report.sweeps import sweeps
from dynalab.report.write import write_report
from dynalab.store.find import select
from dynalab.store.reader import Ensemble

CHROMIUM = shutil.which("chromium")
WIDTHS = ((1280, 800), (390, 844))
EVIL = '<script>window.evil = 1</script>"\'&<svg onload="window.evil = 2">'


def _absent() -> str:
    missing = [name for name in ("playwright", "axe_playwright_python") if find_spec(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} (pip install --group dev)"
    return "" if CHROMIUM else "no Chromium (apt-get install chromium)"


@pytest.fixture(scope="module", autouse=True)
def _browser_is_there() -> None:
    if why := _absent():
        if "browser" in os.environ.get("DYNALAB_DEMAND", ""):
            pytest.fail(f"the page cannot be tried in a browser: {why}")
        pytest.skip(f"the page is not tried in a browser: {why}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages of one ensemble, of a sweep and of hostile names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynalab.show.svg.RASTER_DPI", 40)
        made = {}
        outputs = tmp_path_factory.mktemp("one")
        values = training(4, steps_of())
        more = {f"var_{name}": values["l2"] * (1 + 0.1 * place) for place, name in enumerate("wb")}
        one = make_ensemble(outputs, values=values | more)
        made["one"] = write_report(
            select(outputs, [one.id], None, Ensemble), {one.id: [make_hmm(outputs, one)]}, outputs
        )
        outputs = tmp_path_factory.mktemp("sweep")
        items = [
            make_ensemble(
                outputs, overrides=["task=grokking", f"optimizer.lr={lr}"], slug=f"lr_{lr}", n_runs=4,
                values=training(4, steps_of(), seed=place),
            )
            for place, lr in enumerate((0.003, 0.01, 0.03))
        ]  # fmt: skip
        selection = select(outputs, [item.id for item in items], None, Ensemble)
        results, _ = sweeps(selection, outputs)
        made["sweep"] = write_report(selection, {item.id: results for item in items}, outputs)
        outputs = tmp_path_factory.mktemp("evil")
        config = {"task": {"name": EVIL, "x": "</style><b>"}, "eval": {"every": 10}, "model": {"name": EVIL}}
        values = {f"{EVIL}{i}": array for i, array in enumerate(training(3, steps_of()).values())}
        evil = make_ensemble(
            outputs, n_runs=3, config={**config, "levels": {}}, overrides=[f"task={EVIL}"],
            labels=["a", "b.b", "c"], values=values, attempt={"argv": [EVIL], "host": EVIL},
        )  # fmt: skip
        made["evil"] = write_report(select(outputs, [evil.id], None, Ensemble), {}, outputs)
    return made


class Tab:
    """A page that is open, and what went wrong on it."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        context = {"viewport": dict(zip(("width", "height"), WIDTHS[0], strict=True)), **context}
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.bad: list[str] = []
        self.page.on("pageerror", lambda error: self.bad.append(str(error)))
        self.page.on("console", lambda line: self.bad.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda asked: self.bad.append(asked.url) if asked.url != self.url else None)
        self.url = path.as_uri()
        self.page.goto(self.url)

    def eval(self, script: str, *words: Any) -> Any:
        return self.page.evaluate(script, *words)

    def live(self) -> str:
        return str(self.page.text_content(".live"))

    def unfold(self) -> None:
        self.eval("document.querySelectorAll('details').forEach(x => x.open = true)")


@pytest.fixture(scope="module")
def tabs(chromium: Any, pages: dict[str, Path]) -> Iterator[dict[str, Tab]]:
    made = {name: Tab(chromium, path) for name, path in pages.items()}
    yield made
    for tab in made.values():
        tab.context.close()


@pytest.fixture
def one(tabs: dict[str, Tab]) -> Iterator[Tab]:
    yield from _fresh(tabs["one"])


@pytest.fixture
def sweep(tabs: dict[str, Tab]) -> Iterator[Tab]:
    yield from _fresh(tabs["sweep"])


def _fresh(tab: Tab) -> Iterator[Tab]:
    """Yield a tab as it was opened; nothing must have gone wrong on it."""
    tab.page.set_viewport_size(dict(zip(("width", "height"), WIDTHS[0], strict=True)))
    tab.page.emulate_media(media="screen", color_scheme="light")
    tab.page.reload()
    yield tab
    assert tab.bad == []


# Figures, by number, and tables that show something lit, and the runs that this is of.
LIT = """() => {
  const items = [...document.querySelectorAll('.lit')], places = new Set();
  items.forEach(x => { const f = x.closest('figure'); places.add(f ? f.id : x.closest('table') && 'table'); });
  return [[...places].sort(), [...new Set(items.map(x => x.dataset.run))].sort()];
}"""
# Figures that tell runs apart.
APART = """() => [...document.querySelectorAll('figure')]
  .filter(f => f.querySelector('[data-run*="/"]')).map(f => f.id)"""


def place_of(
    tab: Tab, where: tuple[float, float], figure: str = "#figure-1", axes: int = 0
) -> tuple[float, float]:
    """Return the place on the screen of a share of the axes of a figure."""
    tab.page.locator(f"{figure} .drawing").scroll_into_view_if_needed()
    return tuple(
        tab.eval(
            """([figure, axes, x, y]) => {
              const plot = [...document.querySelectorAll(figure + ' .plot')].find(p => p.offsetParent);
              const svg = plot.querySelector('svg'), b = svg.getBoundingClientRect();
              const s = b.width / svg.viewBox.baseVal.width;
              const a = JSON.parse(plot.dataset.scales)[axes];
              return [b.left + s * (a[0] + x * (a[2] - a[0])), b.top + s * (a[3] - y * (a[3] - a[1]))];
            }""",
            [figure, axes, *where],
        )
    )


def ticks(tab: Tab, figure: str, axes: int = 0) -> list[str]:
    return tab.eval(
        """([figure, axes]) => {
          const plot = [...document.querySelectorAll(figure + ' .plot')].find(p => p.offsetParent);
          const box = plot.querySelector(`[data-axes="${axes}"]`);
          const own = [...box.querySelectorAll('[id*="-xtick_"], .tick')].filter(t => !t.classList.contains('away'));
          return own.map(t => t.textContent.trim()).filter(t => t);
        }""",
        [figure, axes],
    )  # type: ignore[no-any-return]


def test_a_run_lights_up_in_every_figure_and_table_by_keys(one: Tab) -> None:
    one.unfold()
    apart = one.eval(APART)
    assert len(apart) >= 4
    rows = one.page.locator("tr[data-run]")
    run = rows.nth(1).get_attribute("data-run")
    rows.nth(1).focus()
    places, runs = one.eval(LIT)
    assert runs == [run] and set(apart) | {"table"} <= set(places)
    one.page.keyboard.press("Enter")
    assert one.live().startswith(f"Run {run.rpartition('/')[2]} is lit up")
    one.page.evaluate("document.activeElement.blur()")
    one.page.mouse.move(2, 2)
    assert one.eval(LIT)[1] == [run]
    one.page.keyboard.press("Escape")
    assert one.eval(LIT) == [[], []]
    # In a figure the arrows go from run to run.
    one.page.locator("#figure-1 .drawing").focus()
    seen = []
    for _ in range(3):
        one.page.keyboard.press("ArrowDown")
        seen += one.eval(LIT)[1]
    assert len(set(seen)) == 3 and one.live() == f"Run {seen[-1].rpartition('/')[2]}"
    one.page.keyboard.press("Enter")
    one.page.evaluate("document.activeElement.blur()")
    assert one.eval(LIT)[1] == seen[-1:]


def test_a_run_lights_up_by_the_pointer_and_is_read(one: Tab) -> None:
    one.unfold()
    row = one.page.locator("tr[data-run]").nth(2)
    row.hover()
    run = row.get_attribute("data-run")
    assert one.eval(LIT)[1] == [run]
    # Every figure that tells runs apart answers the pointer by itself.
    for figure in one.eval(APART):
        one.page.locator(f"#{figure} .drawing").scroll_into_view_if_needed()
        found = one.eval(
            """figure => {
              const plot = [...document.querySelectorAll('#' + figure + ' .plot')].find(p => p.offsetParent);
              for (const item of plot.querySelectorAll('[data-run*="/"]')) {
                const part = item.matches('path, use') ? item : item.querySelector('path, use') || item;
                const box = part.getBoundingClientRect(), at = [];
                if (part.getPointAtLength && part.getTotalLength()) for (const s of [.2, .5, .8, 0, 1]) {
                  const p = part.getPointAtLength(s * part.getTotalLength()).matrixTransform(part.getScreenCTM());
                  at.push([p.x, p.y]);
                }
                at.push([box.left + box.width / 2, box.top + box.height / 2]);
                for (const [x, y] of at) {
                  const own = document.elementsFromPoint(x, y).map(i => i.closest('[data-run]')).find(Boolean);
                  if (own && plot.contains(own)) return [own.dataset.run, x, y];
                }
              }
              return null;
            }""",
            figure,
        )
        assert found, figure
        one.page.mouse.move(found[1], found[2])
        assert one.eval(LIT)[1] == [found[0]], figure
    one.page.mouse.move(*place_of(one, (0.5, 0.5)))
    assert re.search(r"step 100, loss [\d.e-]+$", str(one.page.text_content(".reading")))


def test_steps_are_zoomed_in_all_figures_and_back(one: Tab) -> None:
    one.unfold()
    whole = {figure: ticks(one, figure) for figure in ("#figure-1", "#figure-2")}
    low, high = place_of(one, (0.25, 0.4)), place_of(one, (0.5, 0.6))
    one.page.mouse.move(*low)
    one.page.mouse.down()
    one.page.mouse.move((low[0] + high[0]) / 2, low[1])
    one.page.mouse.move(*high)
    one.page.mouse.up()
    assert one.live() == "Steps 50 to 100 are shown. Escape shows all."
    assert one.eval(LIT)[1] == []
    boxes = one.eval("[...document.querySelectorAll('.lens')].map(x => x.getAttribute('viewBox'))")
    assert len(boxes) >= 6 and all(boxes)
    numbers = [int(text.replace(",", "")) for text in ticks(one, "#figure-1")]
    assert len(numbers) >= 2 and all(49 <= number <= 101 for number in numbers)
    # A band ends where the axes do, as the curves in it.
    reach = one.eval(
        """() => [...document.querySelectorAll('#figure-1 .plot')].find(p => p.offsetParent)
          .querySelectorAll('.lens [id*="FillBetween"] use').values()
          .map(x => x.getBoundingClientRect().width).toArray()"""
    )
    axes = place_of(one, (1, 0))[0] - place_of(one, (0, 0))[0]
    assert len(reach) >= 6 and sum(abs(width / axes - 4) < 0.2 for width in reach) >= 4
    # What is read is what is seen.
    one.page.mouse.move(*place_of(one, (0.5, 0.5)))
    assert "step 75" in str(one.page.text_content(".reading"))
    for reset in ("Escape", "dblclick", "button"):
        if reset == "Escape":
            one.page.keyboard.press("Escape")
        elif reset == "dblclick":
            one.page.mouse.dblclick(*place_of(one, (0.5, 0.02)))
        else:
            one.page.locator("#figure-1 .tools button", has_text="all steps").click()
        assert {figure: ticks(one, figure) for figure in whole} == whole, reset
        one.page.keyboard.press("Escape")
        one.page.locator("#figure-1 .drawing").focus()
        one.page.keyboard.press("+")
        assert ticks(one, "#figure-1") != whole["#figure-1"]
    one.page.keyboard.press("ArrowRight")
    assert one.live() == "Steps 70 to 190 are shown. Escape shows all."
    one.page.keyboard.press("Escape")


def test_values_turn_from_one_scale_to_the_other_and_stay_in_print(one: Tab) -> None:
    switch = one.page.locator("#figure-1 .values, figure .values").first
    figure = switch.evaluate("x => '#' + x.closest('figure').id")
    seen = (
        f"[...document.querySelectorAll('{figure} .plot')].map(p => getComputedStyle(p).display !== 'none')"
    )
    assert one.eval(seen) == [True, False, False]
    switch.focus()
    one.page.keyboard.press("Space")
    assert one.eval(seen) == [False, True, False]
    # A phone has a drawing of its own, in one scale.
    one.page.set_viewport_size({"width": 390, "height": 844})
    assert one.eval(seen) == [False, False, True] and not switch.is_visible()
    one.page.emulate_media(media="print")
    assert one.eval(seen) == [False, True, False] and not switch.is_visible()


def test_panels_are_folded_and_close_up(one: Tab) -> None:
    one.unfold()
    choice = one.page.locator("figure .choice").first
    figure = choice.locator("xpath=ancestor::figure")
    height = figure.locator(".plot").first.bounding_box()["height"]
    inputs = choice.locator("input")
    count = inputs.count()
    inputs.first.focus()
    one.page.keyboard.press("Space")
    assert one.live() == f"Panels: {count - 1} of {count}"
    gone = figure.locator(".plot").first.locator("[data-axes].away")
    assert gone.count() == 1
    choice.get_by_role("button", name="Panels: none").click()
    inputs.nth(1).check()
    assert gone.count() == count - 1
    assert figure.locator(".plot").first.bounding_box()["height"] <= height
    choice.get_by_role("button", name="Panels: all").click()
    assert gone.count() == 0 and figure.locator(".plot").first.bounding_box()["height"] == height


def test_settings_are_filtered_and_lit(sweep: Tab) -> None:
    sweep.unfold()
    ids = sweep.eval(
        "[...document.querySelectorAll('section')].map(x => x.id).filter(x => /^e-[^-]+$/.test(x))"
    )
    assert len(ids) == 3
    gone = ids[1].removeprefix("e-")
    choice = sweep.page.locator(".choice", has_text="Settings").first
    box = choice.locator(f'input[value="{gone}"]')
    box.focus()
    sweep.page.keyboard.press("Space")
    assert sweep.live() == "Settings: 2 of 3"
    assert not sweep.page.locator(f"#{ids[1]}").is_visible() and sweep.page.locator(f"#{ids[0]}").is_visible()
    shown = """id => [...document.querySelectorAll('[data-run], [data-settings]')]
      .filter(x => (x.dataset.run || '').split('/')[0] === id || (x.dataset.settings || '').includes(id))
      .filter(x => x.getClientRects().length).length"""
    assert sweep.eval(shown, gone) == 0 and sweep.eval(shown, ids[0].removeprefix("e-")) > 9
    box.check()
    assert sweep.eval(shown, gone) > 9
    # The ranking tells runs apart; a setting's row lights all of its runs.
    ranked = sweep.eval("document.querySelectorAll('#figure-1 .plot:not(.narrow) use[data-run]').length")
    assert ranked == 12
    sweep.page.locator(f'tr[data-run="{gone}"]').first.focus()
    runs = sweep.eval(
        "[...document.querySelectorAll('#figure-1 .plot:not(.narrow) use.lit')].map(x => x.dataset.run.split('/')[0])"
    )
    assert runs == [gone] * 4


def test_a_head_sorts(one: Tab) -> None:
    head = one.page.locator("table.sortable th", has_text="generalised").first
    column = """() => [...document.querySelectorAll('table.sortable')].find(t => t.querySelector('tr[data-run]'))
      .querySelectorAll('tbody tr').length"""
    assert one.eval(column) == 4
    head.focus()
    one.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    values = head.evaluate(
        "h => [...h.closest('table').tBodies[0].rows].map(r => Number(r.cells[h.cellIndex].dataset.sort))"
    )
    assert values == sorted(values)
    head.click()
    down = head.evaluate(
        "h => [...h.closest('table').tBodies[0].rows].map(r => Number(r.cells[h.cellIndex].dataset.sort))"
    )
    assert down == sorted(values, reverse=True) and len(set(values)) > 1


def test_dark_by_the_system_and_by_the_switch(one: Tab) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = one.eval(paper)
    one.page.emulate_media(color_scheme="dark")
    dark = one.eval(paper)
    assert dark != light
    one.page.locator(".theme").click()
    assert one.eval(paper) == light
    one.page.locator(".theme").click()
    # Paper stays white.
    one.page.emulate_media(media="print")
    assert one.eval(paper) == light


def test_print_opens_everything_and_hides_what_is_clicked(one: Tab) -> None:
    one.eval("window.dispatchEvent(new Event('beforeprint'))")
    one.page.emulate_media(media="print")
    assert one.eval("[...document.querySelectorAll('details')].every(x => x.open)")
    assert not one.eval("[...document.querySelectorAll('.tools, .theme, nav')].some(x => x.offsetParent)")
    assert len(one.page.pdf()) > 10_000


CUT = """() => [document.scrollingElement, document.body, ...document.querySelectorAll('.drawing, .scroll, figure')]
  .filter(x => x.scrollWidth > x.clientWidth + 1 && (x.offsetParent || x === document.body))
  .map(x => [x.className || x.tagName, x.scrollWidth, x.clientWidth, x.textContent.slice(0, 60)])"""


@pytest.mark.parametrize("size", WIDTHS, ids=lambda size: f"{size[0]}")
@pytest.mark.parametrize("name", ["one", "sweep"])
def test_nothing_is_cut(tabs: dict[str, Tab], name: str, size: tuple[int, int]) -> None:
    for tab in _fresh(tabs[name]):
        tab.page.set_viewport_size({"width": size[0], "height": size[1]})
        tab.unfold()
        cut = tab.eval(CUT)
        assert cut == []


@pytest.mark.parametrize("name", ["one", "sweep"])
def test_figures_wider_than_a_phone_are_drawn_for_it(tabs: dict[str, Tab], name: str) -> None:
    for tab in _fresh(tabs[name]):
        tab.page.set_viewport_size({"width": 390, "height": 844})
        tab.unfold()
        drawn = tab.eval(
            """() => [...document.querySelectorAll('figure')].map(f => {
              const all = [...f.querySelectorAll('.plot')], seen = all.filter(p => p.offsetParent);
              const svg = seen[0].querySelector('svg'), wide = all[0].querySelector('svg').viewBox.baseVal.width;
              const box = svg.getBoundingClientRect(), own = svg.viewBox.baseVal.width;
              // Of turned letters the box is as wide as a line is high, whatever the letters are.
              const texts = [...svg.querySelectorAll('text:not([transform*="rotate(-90"])')];
              const cut = b => b.left < box.left - 1 || b.right > box.right + 1;
              const out = texts.filter(t => cut(t.getBoundingClientRect())).map(t => t.textContent).join();
              return [f.id, seen.length, seen[0].classList.contains('narrow'), wide > 4.4 * 72, box.width / own, out];
            })"""
        )
        assert len(drawn) >= 3 and sum(narrow for _, _, narrow, *_ in drawn) >= 3
        for figure, seen, narrow, wide, scale, _ in drawn:
            # Letters of 8.5 points are 10 pixels or more.
            assert seen == 1 and narrow == wide and scale > 1.13, figure
        assert [(item[0], item[-1]) for item in drawn if item[-1]] == []
        ids = tab.eval("[...document.querySelectorAll('[id]')].map(x => x.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "sweep"])
def test_axe_finds_nothing_serious(tabs: dict[str, Tab], name: str, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for tab in _fresh(tabs[name]):
        tab.page.emulate_media(color_scheme=scheme)
        tab.unfold()
        found = Axe().run(tab.page).response["violations"]
        assert [
            (item["id"], item["nodes"][0]["html"][:200], item["nodes"][0]["failureSummary"][:300])
            for item in found
            if item["impact"] in ("serious", "critical")
        ] == []


def test_hostile_names_are_inert(tabs: dict[str, Tab]) -> None:
    tab = tabs["evil"]
    tab.unfold()
    tab.page.locator("tr[data-run]").first.click()
    for box in tab.page.locator(".choice input").all()[:2]:
        box.uncheck()
    tab.page.locator(".drawing").first.focus()
    tab.page.keyboard.press("+")
    assert tab.eval("window.evil") is None and tab.bad == []
    assert EVIL.partition("<svg")[0] in str(tab.page.text_content("body"))


def test_without_scripts_the_page_is_whole(chromium: Any, pages: dict[str, Path]) -> None:
    tab = Tab(chromium, pages["one"], java_script_enabled=False)
    assert tab.page.locator("figure svg").count() >= 6 and tab.page.locator("tr[data-run]").count() >= 4
    assert tab.page.locator("#figure-1 svg").first.is_visible()
    for dead in (".theme", ".tools button", ".choice"):
        assert not [item for item in tab.page.locator(dead).all() if item.is_visible()], dead
    # The other scale is a matter of CSS.
    switch = tab.page.locator(".values").first
    switch.check()
    assert tab.page.locator("figure:has(.values:checked) .plot.other").first.is_visible()
    assert tab.bad == []
    tab.context.close()
