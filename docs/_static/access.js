// What the theme leaves out for those who do not use a mouse.
document.addEventListener("DOMContentLoaded", () => {
  // The arrows that unfold the navigation get the name of what stands beside them, the menu of versions the one it shows,
  for (const arrow of document.querySelectorAll("summary:has(.toctree-toggle)")) {
    const page = arrow.closest("li").querySelector("a").textContent.trim();
    arrow.setAttribute("aria-label", `Pages under ${page}`);
  }
  for (const menu of document.querySelectorAll(".version-switcher__button")) {
    menu.removeAttribute("aria-label");
    menu.title = "Versions";
  }
  // and formulas that are wider than the page can be scrolled by keys.
  for (const formula of document.querySelectorAll(".formula")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
  }
});
