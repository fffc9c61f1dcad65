"use strict";
document.querySelectorAll("table.sortable").forEach(function (table) {
  var heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
  function value(row, index) {
    var text = row.cells[index].dataset.sort;
    if (text === undefined) return null;
    return text === "" || isNaN(text) ? text : Number(text);
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }
  heads.forEach(function (head, index) {
    head.tabIndex = 0;
    head.title = "sort";
    function sort() {
      var down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      Array.from(body.rows).map(function (row, place) { return [value(row, index), place, row]; })
        .sort(function (a, b) {
          if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null) || a[1] - b[1];
          return (down ? compare(b[0], a[0]) : compare(a[0], b[0])) || a[1] - b[1];
        })
        .forEach(function (item) { body.appendChild(item[2]); });
    }
    head.addEventListener("click", sort);
    head.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
});
(function () {
  var marks = {}, chosen = null, lit = null;
  var live = document.querySelector(".live"), reading = document.querySelector(".reading");
  function mark(run, item) { item.dataset.run = run; (marks[run] = marks[run] || []).push(item); }
  document.querySelectorAll("[data-run]").forEach(function (item) { mark(item.dataset.run, item); });
  document.querySelectorAll("[data-runs]").forEach(function (item) {
    var dots = item.querySelectorAll("use");
    JSON.parse(item.dataset.runs).forEach(function (run, place) { if (dots[place]) mark(run, dots[place]); });
  });
  function each(run, does) { (marks[run] || []).forEach(does); }
  function name(run) { return run.slice(run.lastIndexOf("/") + 1); }
  function light(run) {
    if (run === lit) return;
    if (lit) each(lit, function (item) { item.classList.remove("lit"); });
    if (run) each(run, function (item) { item.classList.add("lit"); });
    document.body.classList.toggle("lighting", !!run);
    lit = run;
  }
  function choose(run) {
    chosen = chosen === run ? null : run;
    light(chosen);
    live.textContent = chosen ? "Run " + name(chosen) + " is lit up in every figure and table. Escape puts it out." : "No run is lit up.";
  }
  function under(event) {
    var shifts = [[0, 0], [0, -3], [0, 3], [-3, 0], [3, 0]], found = null;
    shifts.some(function (shift) {
      var item = document.elementFromPoint(event.clientX + shift[0], event.clientY + shift[1]);
      found = item && item.closest("[data-run]");
      return found;
    });
    return found ? found.dataset.run : null;
  }
  function at(axis, share) {
    if (!axis) return null;
    return axis[2] ? axis[0] * Math.pow(axis[1] / axis[0], share) : axis[0] + share * (axis[1] - axis[0]);
  }
  function words(value, axis) {
    var text = axis[3] === "step" ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
    return (axis[3] ? axis[3] + " " : "") + text;
  }
  function read(event, drawing) {
    var svg = drawing.querySelector("svg"), box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    var x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    drawing.scales = drawing.scales || JSON.parse(drawing.dataset.scales);
    var axes = drawing.scales.find(function (a) { return x >= a[0] && x <= a[2] && y >= a[1] && y <= a[3]; });
    reading.hidden = !axes;
    if (!axes) return;
    var parts = lit ? [name(lit)] : [];
    parts.push(words(at(axes[4], (x - axes[0]) / (axes[2] - axes[0])), axes[4]));
    if (axes[5]) parts.push(words(at(axes[5], (axes[3] - y) / (axes[3] - axes[1])), axes[5]));
    reading.textContent = parts.join(", ");
    reading.style.left = Math.min(event.clientX + 14, innerWidth - reading.offsetWidth - 8) + "px";
    reading.style.top = event.clientY + 14 + "px";
  }
  document.addEventListener("pointermove", function (event) {
    var drawing = event.target.closest && event.target.closest(".drawing");
    light(under(event) || chosen);
    if (drawing) read(event, drawing); else reading.hidden = true;
  });
  document.addEventListener("click", function (event) {
    var run = under(event);
    if (run && !event.target.closest("a")) choose(run);
  });
  document.addEventListener("focusin", function (event) {
    var row = event.target.closest("tr[data-run]");
    light(row ? row.dataset.run : chosen);
  });
  document.addEventListener("keydown", function (event) {
    var row = event.target.closest && event.target.closest("tr[data-run]");
    if (event.key === "Escape" && chosen) choose(chosen);
    if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(row.dataset.run); }
  });
})();
function unfold() {
  var item = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!item) return;
  var own = item.querySelector(":scope > details.part");
  if (own) own.open = true;
  for (var above = item.closest("details"); above; above = above.parentElement.closest("details")) above.open = true;
  item.scrollIntoView();
}
window.addEventListener("hashchange", unfold);
if (location.hash) unfold();
(function () {
  var button = document.querySelector(".theme"), root = document.documentElement;
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function name() { button.textContent = dark() ? "light" : "dark"; button.setAttribute("aria-label", "Show the page " + button.textContent); }
  button.addEventListener("click", function () { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  button.hidden = false;
  name();
})();
window.addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (item) { item.open = true; });
});
