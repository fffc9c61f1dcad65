// Axes of a figure, from its data: where they lie, which part of them is in view, and what the pointer is at.
// An axis is [first, last, how, name]: linear, by the logarithm, or linear up to a threshold, so high in decades.
function axis([first, last, how, name]) {
  let forward = value => value, backward = forward;
  if (how === 1) [forward, backward] = [Math.log10, place => 10 ** place];
  else if (how) {
    const [threshold, height] = how;
    forward = value => value <= threshold ? height * value / threshold : height + Math.log10(value / threshold);
    backward = place => place <= height ? place * threshold / height : threshold * 10 ** (place - height);
  }
  const low = forward(first), wide = forward(last) - low;
  return { first, last, how, name, share: value => (forward(value) - low) / wide, at: part => backward(low + part * wide) };
}
function scales(plot) {
  plot.scales ||= JSON.parse(plot.dataset.scales).map(([left, top, right, bottom, x, y, place, title]) => ({
    left, top, wide: right - left, high: bottom - top, x: axis(x), y: y && axis(y), title,
    group: plot.querySelector(`[data-axes="${place}"]`), view: [0, 1], shift: [0, 0], folded: false,
  }));
  return plot.scales;
}
const plots = drawing => all(".plot", drawing);
const drawings = all(".drawing");
const ofSteps = item => item.x.name === "step";
const stepAxes = drawing => plots(drawing).flatMap(plot => scales(plot).filter(ofSteps).map(item => ({ plot, item })));
// The step at a share of what is in view.
const stepAt = (item, part) => item.x.at(item.view[0] + part * (item.view[1] - item.view[0]));
// Where the pointer is: the axes, and its place in them from 0 to 1.
function where(event, plot) {
  const svg = plot.querySelector("svg"), box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
  for (const item of scales(plot)) {
    const x = ((event.clientX - box.left) * scale - item.left - item.shift[0]) / item.wide;
    const y = 1 - ((event.clientY - box.top) * scale - item.top - item.shift[1]) / item.high;
    if (!item.folded && x >= 0 && x <= 1 && y >= 0 && y <= 1) return { item, x, y, svg };
  }
  return null;
}
function words(value, { name }) {
  return `${name ? `${name} ` : ""}${name === "step" ? whole(value) : Number(value.toPrecision(3))}`;
}
document.addEventListener("pointermove", event => {
  const plot = event.target.closest?.(".plot"), reading = document.querySelector(".reading"), here = plot && where(event, plot);
  reading.hidden = !here;
  if (!here) return;
  const { x, y } = here.item, parts = [words(stepAt(here.item, here.x), x)];
  if (lit) parts.unshift(own(lit));
  if (y) parts.push(words(y.at(here.y), y));
  reading.textContent = parts.join(", ");
  reading.style.left = `${Math.min(event.clientX + 14, innerWidth - reading.offsetWidth - 8)}px`;
  reading.style.top = `${event.clientY + 14}px`;
});
