// Panels of a figure and settings of a page, ticked in a list.
// A list of boxes to tick, [value, words] of each, behind a fold; `does` gets the set of the values that are ticked.
function boxes(title, names, place, does) {
  const fold = make("details", { class: "choice" }, "", place.parentNode), head = make("summary", {}, `${title}: all ${names.length}`, fold);
  const inputs = [], tick = () => {
    const kept = inputs.filter(input => input.checked).map(input => input.value);
    head.textContent = `${title}: ${kept.length === names.length ? "all" : `${kept.length} of`} ${names.length}`;
    say(head.textContent);
    does(new Set(kept));
  };
  place.before(fold);
  for (const [word, checked] of [["all", true], ["none", false]]) {
    button(word, `${title}: ${word}`, fold, () => { for (const input of inputs) input.checked = checked; tick(); });
  }
  for (const [value, text] of names) {
    const label = make("label", {}, "", fold), input = make("input", { type: "checkbox", value }, "", label);
    input.checked = true;
    label.append(` ${text}`);
    input.addEventListener("change", tick);
    inputs.push(input);
  }
}
const stepLabel = item => all(':scope > [id*="matplotlib.axis_"] > [id*="-text_"]', item.group).find(text => text.textContent.trim() === "step");
// Panels that are left close up.
function closeUp(plot, names) {
  const items = scales(plot), kept = items.filter(item => names.has(item.title)), lowest = new Map();
  const svg = plot.querySelector("svg"), height = plot.height ||= svg.viewBox.baseVal.height;
  for (const item of items) {
    item.folded = !names.has(item.title);
    item.group.classList.toggle("away", item.folded);
    for (const old of all(".label", item.group)) old.remove();
  }
  kept.forEach((item, place) => {
    const { left, top } = items[place];
    item.shift = [left - item.left, top - item.top];
    item.group.setAttribute("transform", `translate(${item.shift})`);
    lowest.set(left, item);
  });
  const less = Math.max(...items.map(item => item.top)) - Math.max(0, ...items.slice(0, kept.length).map(item => item.top));
  svg.setAttribute("viewBox", `0 0 ${svg.viewBox.baseVal.width} ${height - less}`);
  // The words below the lowest panels, and notes at the foot, move up with them.
  const pattern = items.find(stepLabel);
  for (const item of lowest.values()) {
    if (!pattern || stepLabel(item)) continue;
    const copy = stepLabel(pattern).cloneNode(true);
    copy.removeAttribute("id");
    item.group.append(set(copy, { class: "label", transform: `translate(${item.left - pattern.left},${item.top - pattern.top})` }));
  }
  for (const text of all(':scope > g > [id*="-text_"]', svg)) {
    const place = text.querySelector("text")?.getAttribute("transform") || "", y = /(?:translate\(|rotate\()[^)]*?([\d.]+)\)/.exec(place);
    if (y && Number(y[1]) > height / 2) text.setAttribute("transform", `translate(0,${-less})`);
  }
}
for (const drawing of drawings) {
  const items = plots(drawing).slice(0, 1).flatMap(scales), names = [...new Set(items.map(item => item.title))];
  const alike = items.every(item => Math.abs(item.wide - items[0].wide) < 1 && Math.abs(item.high - items[0].high) < 1);
  if (items.length < 3 || names.length < items.length || names.includes("") || !alike) continue;
  boxes("Panels", names.map(name => [name, name]), drawing, kept => { for (const plot of plots(drawing)) closeUp(plot, kept); });
}
// What is drawn and written of some settings alone.
const parts = all("section").filter(part => /^e-[^-]+$/.test(part.id)), known = new Set(parts.map(part => part.id.slice(2)));
if (parts.length > 1) {
  const names = parts.map(part => [part.id.slice(2), part.querySelector("h2, h3").textContent]);
  boxes("Settings", names, document.querySelector("nav").nextElementSibling, kept => {
    const gone = id => known.has(id) && !kept.has(id), hide = (item, away) => item.classList.toggle("away", away);
    for (const part of parts) {
      const away = gone(part.id.slice(2));
      hide(part, away);
      for (const link of all(`nav a[href="#${part.id}"]`)) hide(link.parentNode, away);
    }
    for (const [run, items] of marks) for (const item of items) hide(item, gone(setting(run)));
    for (const row of all("[data-settings]")) hide(row, row.dataset.settings.split(" ").some(gone));
  });
}
