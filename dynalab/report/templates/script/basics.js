"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const say = text => { document.querySelector(".live").textContent = text; };
const whole = value => Math.round(value).toLocaleString("en");
function set(item, values) {
  for (const [name, value] of Object.entries(values)) item.setAttribute(name, value);
  return item;
}
function make(kind, values, text, where) {
  const item = where instanceof SVGElement ? document.createElementNS(where.namespaceURI, kind) : document.createElement(kind);
  if (text) item.textContent = text;
  where.append(set(item, values));
  return item;
}
// A button, and what a click on it does.
function button(text, name, where, does) {
  make("button", { type: "button", "aria-label": name, title: name }, text, where).addEventListener("click", does);
}
