// Folds open where something in them is asked for, and all in print; light and dark.
function unfold() {
  const item = document.getElementById(decodeURIComponent(location.hash.slice(1))), part = item?.querySelector(":scope > details.part");
  if (!item) return;
  if (part) part.open = true;
  for (let above = item.closest("details"); above; above = above.parentElement.closest("details")) above.open = true;
  item.scrollIntoView();
}
addEventListener("hashchange", unfold);
if (location.hash) unfold();
addEventListener("beforeprint", () => { for (const item of all("details")) item.open = true; });
const theme = document.querySelector(".theme"), root = document.documentElement;
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
function nameTheme() {
  theme.textContent = dark() ? "light" : "dark";
  theme.setAttribute("aria-label", `Show the page ${theme.textContent}`);
}
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); });
theme.hidden = false;
nameTheme();
