(function () {
  "use strict";
  var root = document.documentElement;
  var button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function current() {
    return root.dataset.theme || (dark.matches ? "dark" : "light");
  }
  function label() {
    var next = current() === "dark" ? "light" : "dark";
    button.textContent = next === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", "Switch to the " + next + " theme");
  }
  function remember(theme) {
    // Storage is refused in some private windows and sandboxes; the toggle works without it.
    try { localStorage.setItem("candling-theme", theme); } catch (error) { return; }
  }
  function recall() {
    try { return localStorage.getItem("candling-theme"); } catch (error) { return null; }
  }
  var stored = recall();
  if (stored === "dark" || stored === "light") { root.dataset.theme = stored; }
  button.hidden = false;
  label();
  button.addEventListener("click", function () {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  dark.addEventListener("change", label);
  var links = Array.from(document.querySelectorAll(".contents a"));
  if ("IntersectionObserver" in window) {
    var seen = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        links.forEach(function (link) {
          if (link.hash === "#" + entry.target.id) { link.setAttribute("aria-current", "true"); }
          else { link.removeAttribute("aria-current"); }
        });
      });
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("main > section[id]").forEach(function (s) { seen.observe(s); });
  }
})();
