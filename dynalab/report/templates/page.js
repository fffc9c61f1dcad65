"use strict";
function all(what, where) { return Array.from((where || document).querySelectorAll(what)); }
function make(kind, values, text, where) {
  var item = where instanceof SVGElement ? document.createElementNS(where.namespaceURI, kind) : document.createElement(kind);
  Object.keys(values).forEach(function (name) { item.setAttribute(name, values[name]); });
  if (text) item.textContent = text;
  if (where) where.appendChild(item);
  return item;
}
function say(text) { document.querySelector(".live").textContent = text; }
// A button, and what a click on it does.
function button(text, name, where, does) {
  make("button", { type: "button", "aria-label": name, title: name }, text, where).addEventListener("click", does);
}
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
// Runs and settings, which are ids of runs up to the slash: what is drawn and written of each.
var marks = {}, chosen = null, lit = null;
function setting(run) { return run.split("/")[0]; }
function own(run) { return run.slice(run.lastIndexOf("/") + 1); }
function mark(run, item) { item.dataset.run = run; (marks[run] = marks[run] || []).push(item); }
all("[data-run]").forEach(function (item) { mark(item.dataset.run, item); });
all("[data-runs]").forEach(function (item) {
  var dots = all("use", item);
  JSON.parse(item.dataset.runs).forEach(function (run, place) { if (dots[place]) mark(run, dots[place]); });
});
function named(run) { return (run.indexOf("/") < 0 ? "Setting " : "Run ") + own(run); }
function light(run) {
  if (run === lit) return;
  all(".lit").forEach(function (item) { item.classList.remove("lit"); });
  lit = run && marks[run] ? run : null;
  document.body.classList.toggle("lighting", !!lit);
  if (!lit) return;
  // A run with the curve of its setting, a setting with all of its runs.
  var whole = lit.indexOf("/") < 0;
  Object.keys(marks).forEach(function (other) {
    if (other === lit || other === setting(lit) || whole && setting(other) === lit)
      marks[other].forEach(function (item) { item.classList.add("lit"); });
  });
}
function choose(run) {
  chosen = chosen === run ? null : run;
  light(chosen);
  say(chosen ? named(chosen) + " is lit up in every figure and table. Escape puts it out." : "No run is lit up.");
}
function under(event) {
  var found = null;
  [[0, 0], [0, -3], [0, 3], [-3, 0], [3, 0]].some(function (shift) {
    // A curve that lies under a median or a band is found as well.
    var items = document.elementsFromPoint(event.clientX + shift[0], event.clientY + shift[1]);
    return (found = items.map(function (item) { return item.closest("[data-run]"); }).find(Boolean));
  });
  return found ? found.dataset.run : null;
}
// The runs of a figure, for the keys that go from one to the next.
function runs(drawing) {
  var plot = plots(drawing).find(function (one) { return one.offsetParent; }) || drawing;
  return Array.from(new Set(all("[data-run]", plot).map(function (item) { return item.dataset.run; }))).sort();
}

// Axes: [left, top, right, bottom, x, y, place, title], x and y [first, last, how, name].
function forward(axis, value) {
  if (axis[2] === 1) return Math.log10(value);
  if (!axis[2]) return value;
  return value <= axis[2][0] ? axis[2][1] * value / axis[2][0] : axis[2][1] + Math.log10(value / axis[2][0]);
}
function backward(axis, place) {
  if (axis[2] === 1) return Math.pow(10, place);
  if (!axis[2]) return place;
  return place <= axis[2][1] ? place * axis[2][0] / axis[2][1] : axis[2][0] * Math.pow(10, place - axis[2][1]);
}
function share(axis, value) {
  var low = forward(axis, axis[0]), high = forward(axis, axis[1]);
  return (forward(axis, value) - low) / (high - low);
}
function at(axis, part) {
  var low = forward(axis, axis[0]), high = forward(axis, axis[1]);
  return backward(axis, low + part * (high - low));
}
function plots(drawing) { return all(".plot", drawing); }
function scales(plot) {
  if (!plot.scales) plot.scales = JSON.parse(plot.dataset.scales).map(function (item) { item.view = [0, 1]; item.shift = [0, 0]; return item; });
  return plot.scales;
}
function ofSteps(item) { return item[4] && item[4][3] === "step"; }
// Where the pointer is: the axes, and its place in them from 0 to 1.
function where(event, plot) {
  var svg = plot.querySelector("svg"), box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
  var x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale, found = null;
  scales(plot).some(function (item) {
    var left = item[0] + item.shift[0], top = item[1] + item.shift[1], wide = item[2] - item[0], high = item[3] - item[1];
    var seen = !item.folded && x >= left && x <= left + wide && y >= top && y <= top + high;
    if (seen) found = { axes: item, x: (x - left) / wide, y: (top + high - y) / high, svg: svg };
    return seen;
  });
  return found;
}
function inView(item, part) { return item.view[0] + part * (item.view[1] - item.view[0]); }
function words(value, axis) {
  var text = axis[3] === "step" ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
  return (axis[3] ? axis[3] + " " : "") + text;
}
function read(event, plot) {
  var reading = document.querySelector(".reading"), here = plot && where(event, plot);
  reading.hidden = !here;
  if (!here) return;
  var parts = lit ? [own(lit)] : [];
  parts.push(words(at(here.axes[4], inView(here.axes, here.x)), here.axes[4]));
  if (here.axes[5]) parts.push(words(at(here.axes[5], here.y), here.axes[5]));
  reading.textContent = parts.join(", ");
  reading.style.left = Math.min(event.clientX + 14, innerWidth - reading.offsetWidth - 8) + "px";
  reading.style.top = event.clientY + 14 + "px";
}

// Zoom: what is cut off at the axes moves into an SVG of its own, whose viewBox shows a part of it.
var zoomed = {};
function group(plot, item) { return plot.querySelector('[data-axes="' + item[6] + '"]'); }
// Axes within axes, a ribbon below them, have one that is as high as the figure.
function lenses(plot, item) {
  if (item.lenses) return item.lenses;
  var axes = group(plot, item), height = plot.querySelector("svg").viewBox.baseVal.height, within = /-axes_\d+$/;
  var cut = Array.from(axes.children).filter(function (part) {
    return !/matplotlib\.axis_/.test(part.id) && (part.matches("[clip-path], image") || part.querySelector("[clip-path], image"));
  });
  return (item.lenses = [false, true].map(function (ribbon) {
    var own = cut.filter(function (part) { return within.test(part.id) === ribbon; }), inner = document.createElementNS(axes.namespaceURI, "svg");
    var size = { class: "lens", x: item[0], y: ribbon ? 0 : item[1], width: item[2] - item[0], height: ribbon ? height : item[3] - item[1], preserveAspectRatio: "none" };
    Object.keys(size).forEach(function (name) { inner.setAttribute(name, size[name]); });
    if (own.length) own[own.length - 1].after(inner);
    own.forEach(function (part) { inner.appendChild(part); });
    return inner;
  }));
}
function nice(low, high, most) {
  var rough = (high - low) / most, ten = Math.pow(10, Math.floor(Math.log10(rough))), made = [];
  var step = Math.max(ten * [1, 2, 5, 10].find(function (times) { return ten * times >= rough * 0.999; }), 1);
  for (var value = Math.ceil(low / step) * step; value <= high * (1 + 1e-9); value += step) made.push(Math.round(value));
  return made;
}
function ticks(plot, item, low, high) {
  var axis = item[4], axes = group(plot, item), wide = item[2] - item[0], whole = item.view[0] === 0 && item.view[1] === 1;
  all(".tick", axes).forEach(function (old) { old.remove(); });
  var old = all('[id*="-xtick_"]', axes), pattern = old.find(function (tick) { return tick.querySelector("text[x]"); });
  old.forEach(function (tick) { tick.classList.toggle("away", !whole); });
  if (whole || !pattern) return;
  var most = Math.max(2, Math.min(6, wide / (6 * Math.round(high).toLocaleString("en").length))), values = nice(low, high, most);
  if (axis[2] && high > 20 * Math.max(low, 1)) {
    values = [];
    for (var power = Math.ceil(Math.log10(Math.max(low, axis[2][0] || 1))); power <= Math.log10(high); power++) values.push(Math.pow(10, power));
  }
  values.forEach(function (value) {
    var copy = pattern.cloneNode(true), old = Number(pattern.querySelector("text").getAttribute("x"));
    var part = (share(axis, value) - item.view[0]) / (item.view[1] - item.view[0]);
    copy.removeAttribute("id");
    all("[id]", copy).forEach(function (inner) { inner.removeAttribute("id"); });
    copy.querySelector("text").textContent = value.toLocaleString("en");
    copy.setAttribute("class", "tick");
    copy.setAttribute("transform", "translate(" + (item[0] + part * wide - old) + ",0)");
    pattern.parentNode.appendChild(copy);
  });
}
function view(plot, item, range) {
  var axis = item[4], ends = range ? range.map(function (step) { return Math.min(Math.max(share(axis, step), 0), 1); }) : [0, 1];
  // What lies elsewhere stays whole.
  if (!(ends[1] - ends[0] > 1e-6)) ends = [0, 1];
  if (ends[0] === item.view[0] && ends[1] === item.view[1]) return;
  item.view = ends;
  var wide = item[2] - item[0], part = ends[1] - ends[0];
  lenses(plot, item).forEach(function (inner) {
    inner.setAttribute("viewBox", [item[0] + ends[0] * wide, inner.getAttribute("y"), part * wide, inner.getAttribute("height")].join(" "));
    // Dots stay round; what fills a stretch of steps, which is placed at 0, does not.
    all("use", inner).filter(function (dot) { return Number(dot.getAttribute("x")); }).forEach(function (dot) {
      dot.setAttribute("transform", "matrix(" + part + ",0,0,1," + Number(dot.getAttribute("x")) * (1 - part) + ",0)");
    });
  });
  all(".at", group(plot, item)).forEach(function (text) {
    var from = share(axis, Number(text.dataset.step)), to = (from - ends[0]) / part;
    text.classList.toggle("away", to < 0 || to > 1);
    text.setAttribute("transform", "translate(" + (to - from) * wide + ",0)");
  });
  ticks(plot, item, at(axis, ends[0]), at(axis, ends[1]));
}
var several = new Set(all("[data-ensemble]").map(function (item) { return item.dataset.ensemble; }));
// Figures of an ensemble go together; those of several are by themselves.
function family(drawing) {
  var above = drawing.closest('section[id^="e-"]');
  return drawing.dataset.ensemble || (several.size === 1 ? Array.from(several)[0] : above ? above.id.split("-")[1] : drawing.id);
}
var drawings = all(".drawing");
drawings.forEach(function (drawing, place) { drawing.id = drawing.id || "drawing-" + place; });
function zoom(key, range) {
  zoomed[key] = range;
  drawings.filter(function (drawing) { return family(drawing) === key; }).forEach(function (drawing) {
    plots(drawing).forEach(function (plot) {
      scales(plot).filter(ofSteps).forEach(function (item) { view(plot, item, range); });
    });
    drawing.parentNode.classList.toggle("zoomed", !!range);
  });
  say(range ? "Steps " + range.map(function (step) { return Math.round(step).toLocaleString("en"); }).join(" to ") + " are shown. Escape shows all." : "All steps are shown.");
}
function span(drawing) {
  var ends = [Infinity, -Infinity];
  plots(drawing).forEach(function (plot) {
    scales(plot).filter(ofSteps).forEach(function (item) { ends = [Math.min(ends[0], item[4][0]), Math.max(ends[1], item[4][1])]; });
  });
  return ends;
}
// A part of what is seen, between two shares of it, of a figure's widest axis of steps.
function nearer(drawing, from, to) {
  var ends = span(drawing), key = family(drawing), first = plots(drawing).map(scales).flat().find(ofSteps);
  if (!first) return;
  var range = [at(first[4], inView(first, from)), at(first[4], inView(first, to))];
  range = [Math.max(range[0], ends[0]), Math.min(range[1], ends[1])];
  if (range[1] - range[0] >= 1) zoom(key, range[0] <= ends[0] && range[1] >= ends[1] ? null : range);
}
function away() {
  if (chosen) choose(chosen);
  Object.keys(zoomed).forEach(function (key) { if (zoomed[key]) zoom(key, null); });
}
drawings.forEach(function (drawing) {
  if (!plots(drawing).some(function (plot) { return scales(plot).some(ofSteps); })) return;
  var tools = drawing.parentNode.querySelector(".tools"), brush = null;
  drawing.classList.add("steps");
  button("+", "Show fewer steps", tools, function () { nearer(drawing, 0.2, 0.8); });
  button("\u2212", "Show more steps", tools, function () { nearer(drawing, -1 / 3, 4 / 3); });
  button("all steps", "Show all steps", tools, function () { zoom(family(drawing), null); });
  drawing.addEventListener("pointerdown", function (event) {
    var plot = event.target.closest(".plot"), here = plot && event.button === 0 && event.pointerType !== "touch" && where(event, plot);
    if (here && ofSteps(here.axes)) brush = { plot: plot, axes: here.axes, from: here.x, to: here.x, svg: here.svg };
  });
  drawing.addEventListener("pointermove", function (event) {
    var here = brush && where(event, brush.plot);
    if (!here || here.axes !== brush.axes) return;
    brush.to = here.x;
    var item = brush.axes, wide = item[2] - item[0], low = Math.min(brush.from, brush.to), high = Math.max(brush.from, brush.to);
    if ((high - low) * wide < 4 && !brush.box) return;
    if (!brush.box) brush.box = make("rect", { class: "brush", y: item[1] + item.shift[1], height: item[3] - item[1] }, "", brush.svg);
    brush.box.setAttribute("x", item[0] + item.shift[0] + low * wide);
    brush.box.setAttribute("width", (high - low) * wide);
  });
  document.addEventListener("pointerup", function () {
    var drawn = brush;
    brush = null;
    if (!drawn || !drawn.box) return;
    drawn.box.remove();
    var ends = [drawn.from, drawn.to].sort(function (a, b) { return a - b; });
    zoom(family(drawing), ends.map(function (part) { return at(drawn.axes[4], inView(drawn.axes, part)); }));
    // The click that ends it chooses nothing.
    addEventListener("click", function (event) { event.stopPropagation(); }, { capture: true, once: true });
    setTimeout(function () { dispatchEvent(new Event("click")); });
  });
  drawing.addEventListener("dblclick", function () { zoom(family(drawing), null); });
  drawing.addEventListener("keydown", function (event) {
    var keys = { "+": [0.2, 0.8], "=": [0.2, 0.8], "-": [-1 / 3, 4 / 3], ArrowLeft: [-0.25, 0.75], ArrowRight: [0.25, 1.25] }[event.key];
    if (!keys || event.ctrlKey || event.metaKey || !zoomed[family(drawing)] && /^Arrow/.test(event.key)) return;
    event.preventDefault();
    nearer(drawing, keys[0], keys[1]);
  });
});

// Panels: those that are left close up.
function fold(plot, names) {
  var items = scales(plot), place = 0, slots = items.map(function (item) { return [item[0], item[1]]; }), below = {}, last = 0;
  items.forEach(function (item) {
    var axes = group(plot, item);
    item.folded = !names.has(item[7]);
    axes.classList.toggle("away", item.folded);
    all(".label", axes).forEach(function (old) { old.remove(); });
    if (item.folded) return;
    item.shift = [slots[place][0] - item[0], slots[place][1] - item[1]];
    axes.setAttribute("transform", "translate(" + item.shift + ")");
    below[slots[place][0]] = item;
    last = Math.max(last, slots[place++][1]);
  });
  var svg = plot.querySelector("svg"), height = plot.height = plot.height || svg.viewBox.baseVal.height;
  var less = Math.max.apply(null, slots.map(function (slot) { return slot[1]; })) - last;
  svg.setAttribute("viewBox", "0 0 " + svg.viewBox.baseVal.width + " " + (height - less));
  // The words below the lowest panels, and notes at the foot, move up with them.
  function label(item) { return all(':scope > [id*="matplotlib.axis_"] > [id*="-text_"]', group(plot, item)).find(function (text) { return text.textContent.trim() === "step"; }); }
  var pattern = items.find(label);
  Object.keys(below).forEach(function (left) {
    var item = below[left];
    if (!pattern || label(item)) return;
    var copy = label(pattern).cloneNode(true);
    copy.removeAttribute("id");
    copy.setAttribute("class", "label");
    copy.setAttribute("transform", "translate(" + (item[0] - pattern[0]) + "," + (item[1] - pattern[1]) + ")");
    group(plot, item).appendChild(copy);
  });
  all(':scope > g > [id*="-text_"]', svg).forEach(function (text) {
    var first = text.querySelector("text"), y = first && /(?:translate\(|rotate\()[^)]*?([\d.]+)\)/.exec(first.getAttribute("transform") || "");
    if (y && Number(y[1]) > height / 2) text.setAttribute("transform", "translate(0," + -less + ")");
  });
}
// A list of boxes to tick, behind a fold; `does` gets the set of those that are ticked.
function boxes(title, names, where, does) {
  var fold = make("details", { class: "choice" }), head = make("summary", {}, title + ": all " + names.length, fold), inputs = [];
  where.before(fold);
  function set() {
    var kept = inputs.filter(function (input) { return input.checked; });
    head.textContent = title + ": " + (kept.length === names.length ? "all " : kept.length + " of ") + names.length;
    say(head.textContent);
    does(new Set(kept.map(function (input) { return input.value; })));
  }
  [["all", true], ["none", false]].forEach(function (item) {
    button(item[0], title + ": " + item[0], fold, function () { inputs.forEach(function (input) { input.checked = item[1]; }); set(); });
  });
  names.forEach(function (name) {
    var label = make("label", {}, "", fold), input = make("input", { type: "checkbox", value: name[0] }, "", label);
    input.checked = true;
    label.append(" " + name[1]);
    input.addEventListener("change", set);
    inputs.push(input);
  });
}
drawings.forEach(function (drawing) {
  var first = plots(drawing)[0], items = first ? scales(first) : [];
  var names = Array.from(new Set(items.map(function (item) { return item[7]; })));
  var alike = items.every(function (item) { return Math.abs(item[2] - item[0] - items[0][2] + items[0][0]) < 1 && Math.abs(item[3] - item[1] - items[0][3] + items[0][1]) < 1; });
  if (items.length < 3 || names.length < items.length || names.indexOf("") >= 0 || !alike) return;
  boxes("Panels", names.map(function (name) { return [name, name]; }), drawing, function (kept) {
    plots(drawing).forEach(function (plot) { fold(plot, kept); });
  });
});

// Settings: what is drawn and written of some alone.
(function () {
  var parts = all("section").filter(function (item) { return /^e-[^-]+$/.test(item.id); });
  if (parts.length < 2) return;
  var names = parts.map(function (part) { return [part.id.slice(2), part.querySelector("h2, h3").textContent]; });
  boxes("Settings", names, document.querySelector("nav").nextElementSibling, function (kept) {
    var known = new Set(names.map(function (name) { return name[0]; }));
    function gone(id) { return known.has(id) && !kept.has(id); }
    parts.forEach(function (part) {
      part.classList.toggle("away", gone(part.id.slice(2)));
      all('nav a[href="#' + part.id + '"]').forEach(function (link) { link.parentNode.classList.toggle("away", gone(part.id.slice(2))); });
    });
    Object.keys(marks).forEach(function (run) {
      marks[run].forEach(function (item) { item.classList.toggle("away", gone(setting(run))); });
    });
    all("[data-settings]").forEach(function (row) { row.classList.toggle("away", row.dataset.settings.split(" ").some(gone)); });
  });
})();

document.addEventListener("pointermove", function (event) {
  light(under(event) || chosen);
  read(event, event.target.closest && event.target.closest(".plot"));
});
document.addEventListener("click", function (event) {
  var run = under(event);
  if (run && !event.target.closest("a, button, label")) choose(run);
});
document.addEventListener("focusin", function (event) {
  var row = event.target.closest("tr[data-run]");
  light(row ? row.dataset.run : chosen);
});
document.addEventListener("keydown", function (event) {
  var row = event.target.closest && event.target.closest("tr[data-run]"), drawing = event.target.closest && event.target.closest(".drawing");
  if (event.key === "Escape") away();
  if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(row.dataset.run); }
  if (!drawing) return;
  var way = { ArrowDown: 1, ArrowUp: -1 }[event.key], some = way && runs(drawing);
  if (way && some.length) {
    event.preventDefault();
    var place = some.indexOf(lit);
    light(some[place < 0 ? (way > 0 ? 0 : some.length - 1) : (place + way + some.length) % some.length]);
    say(named(lit));
  }
  if (event.key === "Enter" && lit) choose(lit);
});
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
