// Zoom: what is cut off at the axes moves into an SVG of its own, whose viewBox shows a part of it.
const zoomed = new Map();
// Axes within axes, a ribbon below them, have one that is as high as the figure.
function lenses(plot, item) {
  if (item.lenses) return item.lenses;
  const height = plot.querySelector("svg").viewBox.baseVal.height, within = /-axes_\d+$/;
  const cut = [...item.group.children].filter(part =>
    !/matplotlib\.axis_/.test(part.id) && (part.matches("[clip-path], image") || part.querySelector("[clip-path], image")));
  item.lenses = [false, true].map(ribbon => {
    const parts = cut.filter(part => within.test(part.id) === ribbon), inner = make("svg", {
      class: "lens", x: item.left, y: ribbon ? 0 : item.top, width: item.wide, height: ribbon ? height : item.high,
      preserveAspectRatio: "none",
    }, "", item.group);
    if (parts.length) parts.at(-1).after(inner);
    else inner.remove();
    inner.append(...parts);
    return inner;
  });
  return item.lenses;
}
function tickSteps(item, low, high) {
  if (item.x.how && high > 20 * Math.max(low, 1)) {
    const first = Math.ceil(Math.log10(Math.max(low, item.x.how[0] || 1))), last = Math.floor(Math.log10(high));
    return Array.from({ length: last - first + 1 }, (_, place) => 10 ** (first + place));
  }
  // As many round steps as their letters leave room for.
  const most = Math.max(2, Math.min(6, item.wide / (6 * whole(high).length))), rough = (high - low) / most;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const gap = Math.max(ten * [1, 2, 5, 10].find(times => ten * times >= rough * 0.999), 1), steps = [];
  for (let step = Math.ceil(low / gap) * gap; step <= high * (1 + 1e-9); step += gap) steps.push(Math.round(step));
  return steps;
}
function drawTicks(item) {
  const [from, to] = item.view, old = all('[id*="-xtick_"]', item.group);
  const pattern = old.find(tick => tick.querySelector("text[x]")), whole_axis = from === 0 && to === 1;
  for (const tick of all(".tick", item.group)) tick.remove();
  for (const tick of old) tick.classList.toggle("away", !whole_axis);
  if (whole_axis || !pattern) return;
  const place = Number(pattern.querySelector("text").getAttribute("x"));
  for (const step of tickSteps(item, item.x.at(from), item.x.at(to))) {
    const copy = pattern.cloneNode(true), part = (item.x.share(step) - from) / (to - from);
    for (const one of [copy, ...all("[id]", copy)]) one.removeAttribute("id");
    copy.querySelector("text").textContent = step.toLocaleString("en");
    set(copy, { class: "tick", transform: `translate(${item.left + part * item.wide - place},0)` });
    pattern.parentNode.append(copy);
  }
}
function view(plot, item, range) {
  let [from, to] = range ? range.map(step => Math.min(Math.max(item.x.share(step), 0), 1)) : [0, 1];
  // What lies elsewhere stays whole.
  if (!(to - from > 1e-6)) [from, to] = [0, 1];
  if (from === item.view[0] && to === item.view[1]) return;
  item.view = [from, to];
  const part = to - from;
  for (const inner of lenses(plot, item)) {
    const box = [item.left + from * item.wide, inner.getAttribute("y"), part * item.wide, inner.getAttribute("height")];
    inner.setAttribute("viewBox", box.join(" "));
    // Dots stay round; what fills a stretch of steps, which is placed at 0, does not.
    for (const dot of all("use", inner)) {
      const x = Number(dot.getAttribute("x"));
      if (x) dot.setAttribute("transform", `matrix(${part},0,0,1,${x * (1 - part)},0)`);
    }
  }
  for (const text of all(".at", item.group)) {
    const before = item.x.share(Number(text.dataset.step)), after = (before - from) / part;
    text.classList.toggle("away", after < 0 || after > 1);
    text.setAttribute("transform", `translate(${(after - before) * item.wide},0)`);
  }
  drawTicks(item);
}
// Figures of an ensemble go together; those of several are by themselves.
const ensembles = [...new Set(all("[data-ensemble]").map(item => item.dataset.ensemble))];
function family(drawing) {
  const above = drawing.closest('section[id^="e-"]');
  return drawing.dataset.ensemble || (ensembles.length === 1 ? ensembles[0] : above ? above.id.split("-")[1] : drawing);
}
function zoom(key, range) {
  zoomed.set(key, range);
  for (const drawing of drawings.filter(one => family(one) === key)) {
    for (const { plot, item } of stepAxes(drawing)) view(plot, item, range);
    drawing.parentNode.classList.toggle("zoomed", !!range);
  }
  say(range ? `Steps ${range.map(whole).join(" to ")} are shown. Escape shows all.` : "All steps are shown.");
}
// A part of what is seen, between two shares of it, of a figure's first axis of steps.
function nearer(drawing, from, to) {
  const axes = stepAxes(drawing).map(one => one.item);
  const first = Math.min(...axes.map(item => item.x.first)), last = Math.max(...axes.map(item => item.x.last));
  const range = [Math.max(stepAt(axes[0], from), first), Math.min(stepAt(axes[0], to), last)];
  if (range[1] - range[0] >= 1) zoom(family(drawing), range[0] <= first && range[1] >= last ? null : range);
}
let brush = null;
document.addEventListener("pointermove", event => {
  const here = brush && where(event, brush.plot);
  if (here?.item !== brush?.item || !here) return;
  brush.to = here.x;
  const { item } = here, low = Math.min(brush.from, brush.to), wide = Math.abs(brush.to - brush.from) * item.wide;
  if (wide < 4 && !brush.box) return;
  brush.box ||= make("rect", { class: "brush", y: item.top + item.shift[1], height: item.high }, "", here.svg);
  set(brush.box, { x: item.left + item.shift[0] + low * item.wide, width: wide });
});
document.addEventListener("pointerup", () => {
  const drawn = brush;
  brush = null;
  if (!drawn?.box) return;
  drawn.box.remove();
  const ends = [drawn.from, drawn.to].sort((a, b) => a - b);
  zoom(family(drawn.drawing), ends.map(part => stepAt(drawn.item, part)));
  // The click that ends it chooses nothing.
  addEventListener("click", event => event.stopPropagation(), { capture: true, once: true });
  setTimeout(() => dispatchEvent(new Event("click")));
});
const KEYS = { "+": [0.2, 0.8], "=": [0.2, 0.8], "-": [-1 / 3, 4 / 3], ArrowLeft: [-0.25, 0.75], ArrowRight: [0.25, 1.25] };
for (const drawing of drawings.filter(one => stepAxes(one).length)) {
  const tools = drawing.parentNode.querySelector(".tools"), everything = () => zoom(family(drawing), null);
  drawing.classList.add("steps");
  button("+", "Show fewer steps", tools, () => nearer(drawing, ...KEYS["+"]));
  button("\u2212", "Show more steps", tools, () => nearer(drawing, ...KEYS["-"]));
  button("all steps", "Show all steps", tools, everything);
  drawing.addEventListener("dblclick", everything);
  drawing.addEventListener("pointerdown", event => {
    const plot = event.target.closest(".plot"), here = plot && event.button === 0 && event.pointerType !== "touch" && where(event, plot);
    if (here && ofSteps(here.item)) brush = { drawing, plot, item: here.item, from: here.x, to: here.x };
  });
  drawing.addEventListener("keydown", event => {
    const part = KEYS[event.key];
    if (!part || event.ctrlKey || event.metaKey || !zoomed.get(family(drawing)) && event.key.startsWith("Arrow")) return;
    event.preventDefault();
    nearer(drawing, ...part);
  });
}
document.addEventListener("keydown", event => {
  if (event.key === "Escape") for (const [key, range] of zoomed) if (range) zoom(key, null);
});
