// Prototypes of many classes: found by name, held to a trust, put in order.
(function () {
  "use strict";
  var PAGE = 48, make = candling.make;
  var gallery = document.querySelector(".galleries, .galleries-of-many");
  if (!gallery) { return; }
  var sections = Array.from(gallery.querySelectorAll(".gallery")), later = gallery.querySelector("template");
  if (later) { sections = sections.concat(Array.from(later.content.querySelectorAll(".gallery"))); }
  var classes = sections.map(function (section, place) {
    var trust = section.dataset.trust;
    return { section: section, place: place, name: section.dataset.name, trust: trust === "" ? NaN : Number(trust) };
  });
  // For the heat map, which shows pictures of classes that are not in view.
  candling.galleries = new Map(classes.map(function (one) { return [one.name, one.section]; }));
  if (classes.length < 2) { return; }
  var trusted = classes.some(function (one) { return !isNaN(one.trust); });
  var search = make("input", { type: "search", placeholder: "part of a name" });
  var order = candling.options([["place", "as audited"], ["name", "by name"]].concat(
    trusted ? [["most", "most trusted first"], ["least", "least trusted first"]] : []));
  var least = make("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0" });
  var leastWords = make("span", {});
  var count = make("span", { "class": "count", role: "status" });
  var more = make("button", { type: "button", "class": "button more-rows" });
  var shown = PAGE;
  var orders = {
    place: function (a, b) { return a.place - b.place; },
    name: function (a, b) { return candling.compare(a.name, b.name); },
    most: function (a, b) { return (isNaN(b.trust) ? -1 : b.trust) - (isNaN(a.trust) ? -1 : a.trust) || a.place - b.place; },
    least: function (a, b) { return (isNaN(a.trust) ? 2 : a.trust) - (isNaN(b.trust) ? 2 : b.trust) || a.place - b.place; }
  };
  function draw() {
    var word = search.value.trim().toLowerCase(), bound = Number(least.value);
    var found = classes.filter(function (one) {
      return one.name.toLowerCase().includes(word) && (bound === 0 || one.trust >= bound);
    }).sort(orders[order.value]);
    gallery.replaceChildren.apply(gallery, found.slice(0, shown).map(function (one) { return one.section; }));
    leastWords.textContent = "Trusted at least " + bound + " on average";
    count.textContent = Math.min(shown, found.length) + " of " + classes.length + " classes" +
      (found.length < classes.length ? ", " + found.length + " found" : "");
    more.hidden = found.length <= shown;
    more.textContent = "Show " + Math.min(PAGE, found.length - shown) + " more";
  }
  function again() { shown = PAGE; draw(); }
  search.addEventListener("input", again);
  order.addEventListener("change", again);
  least.addEventListener("input", again);
  more.addEventListener("click", function () { shown += PAGE; draw(); });
  var tools = [candling.labelled("Class", search), candling.labelled("Order", order)];
  if (trusted) { tools.push(make("label", {}, [leastWords, least])); }
  gallery.before(make("div", { "class": "tools", role: "group", "aria-label": "Prototypes: search" }, tools.concat(count)));
  gallery.after(more);
  draw();
})();
