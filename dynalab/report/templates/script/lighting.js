// Runs and settings, which are ids of runs up to the slash: what is drawn and written of each lights up together.
const marks = new Map();
let chosen = null, lit = null;
const setting = run => run.split("/")[0];
const own = run => run.slice(run.lastIndexOf("/") + 1);
const named = run => (run.includes("/") ? "Run " : "Setting ") + own(run);
function mark(run, item) {
  item.dataset.run = run;
  marks.set(run, [...(marks.get(run) || []), item]);
}
for (const item of all("[data-run]")) mark(item.dataset.run, item);
for (const item of all("[data-runs]")) {
  const dots = all("use", item);
  JSON.parse(item.dataset.runs).forEach((run, place) => { if (dots[place]) mark(run, dots[place]); });
}
function light(run) {
  if (run === lit) return;
  for (const item of all(".lit")) item.classList.remove("lit");
  lit = marks.has(run) ? run : null;
  document.body.classList.toggle("lighting", !!lit);
  if (!lit) return;
  // A run with the curve of its setting, a setting with all of its runs.
  const some = lit.includes("/") ? [lit, setting(lit)] : [...marks.keys()].filter(other => setting(other) === lit);
  for (const other of some) for (const item of marks.get(other) || []) item.classList.add("lit");
}
function choose(run) {
  chosen = chosen === run ? null : run;
  light(chosen);
  say(chosen ? `${named(chosen)} is lit up in every figure and table. Escape puts it out.` : "No run is lit up.");
}
// The run under the pointer or beside it; a curve that lies under a median or a band is found as well.
function under(event) {
  for (const [x, y] of [[0, 0], [0, -3], [0, 3], [-3, 0], [3, 0]]) {
    for (const item of document.elementsFromPoint(event.clientX + x, event.clientY + y)) {
      const marked = item.closest("[data-run]");
      if (marked) return marked.dataset.run;
    }
  }
  return null;
}
document.addEventListener("pointermove", event => light(under(event) || chosen));
document.addEventListener("click", event => {
  const run = under(event);
  if (run && !event.target.closest("a, button, label")) choose(run);
});
document.addEventListener("focusin", event => {
  const row = event.target.closest("tr[data-run]");
  light(row ? row.dataset.run : chosen);
});
document.addEventListener("keydown", event => {
  const row = event.target.closest?.("tr[data-run]"), drawing = event.target.closest?.(".drawing");
  if (event.key === "Escape" && chosen) choose(chosen);
  if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(row.dataset.run); }
  if (!drawing) return;
  // The arrows go from one run of a figure to the next.
  const plot = all(".plot", drawing).find(one => one.offsetParent) || drawing;
  const some = [...new Set(all("[data-run]", plot).map(item => item.dataset.run))].sort();
  const way = { ArrowDown: 1, ArrowUp: -1 }[event.key], place = some.indexOf(lit);
  if (way && some.length) {
    event.preventDefault();
    light(some.at(place >= 0 ? (place + way) % some.length : way > 0 ? 0 : -1));
    say(named(lit));
  }
  if (event.key === "Enter" && lit) choose(lit);
});
