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
