// Shared by the scripts below, which are one script of the page. Names are only ever set as text.
var candling = {
  make: function (tag, attributes, children) {
    var made = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) { made.setAttribute(name, attributes[name]); });
    (children || []).forEach(function (child) { made.append(child); });
    return made;
  },
  labelled: function (words, control) {
    return candling.make("label", {}, [words, control]);
  },
  options: function (pairs) {
    return candling.make("select", {}, pairs.map(function (pair) {
      return candling.make("option", { value: pair[0] }, [pair[1]]);
    }));
  },
  data: function (script) { return JSON.parse(script.textContent); },
  // As the numbers that are drawn without a script.
  figure: function (value) {
    if (value === null || value === undefined || isNaN(value)) { return "–"; }
    // Halves go to the even digit, as in the numbers that are drawn without a script.
    function rounded(digits) {
      var power = Math.pow(10, digits), scaled = value * power;
      var half = Number.isInteger(value * Math.pow(2, digits + 1)) && Math.abs(scaled % 1) === 0.5;
      return half ? (2 * Math.round(scaled / 2) / power).toFixed(digits) : value.toFixed(digits);
    }
    var size = Math.abs(value), text;
    if (size > 0 && size < 0.0001) { text = value > 0 ? "<\u00a00.0001" : ">\u00a0-0.0001"; }
    else if (size > 0 && size < 0.001) { text = rounded(4); }
    else if (size >= 1000) { text = Number(rounded(0)).toLocaleString("en-US"); }
    else { text = size === 0 ? "0.000" : rounded(size < 10 ? 3 : 1); }
    return text.replace("-", "−");
  },
  compare: new Intl.Collator(undefined, { numeric: true }).compare
};
document.documentElement.classList.add("scripted");
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
  // What is folded away is printed, too.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
  var links = Array.from(document.querySelectorAll(".contents a"));
  if ("IntersectionObserver" in window) {
    var seen = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        links.forEach(function (link) {
          if (link.hash === "#" + entry.target.id) {
            link.setAttribute("aria-current", "true");
            link.closest("ul").scrollLeft = link.parentElement.offsetLeft - 40;
          }
          else { link.removeAttribute("aria-current"); }
        });
      });
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("main > section[id]").forEach(function (s) { seen.observe(s); });
  }
})();
