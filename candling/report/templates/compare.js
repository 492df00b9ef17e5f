// One image large: wiped between the picture and what is used of it, and faded from subject to subject.
(function () {
  "use strict";
  var make = candling.make;
  var specimens = Array.from(document.querySelectorAll("#isolation .specimen")).filter(function (one) {
    return one.querySelector(".first img") && one.querySelector(".view img");
  });
  if (!specimens.length) { return; }
  function views(specimen, name) {
    return Array.from(specimen.querySelectorAll(".view")).filter(function (view) {
      return view.dataset["class"] === name && view.querySelector("img");
    });
  }
  function names(specimen) {
    return Array.from(new Set(Array.from(specimen.querySelectorAll(".view")).filter(function (view) {
      return view.querySelector("img");
    }).map(function (view) { return view.dataset["class"]; })));
  }

  var original = make("img", { alt: "" }), first = make("img", { alt: "" }), second = make("img", { alt: "" });
  var edge = make("div", { "class": "edge" });
  var stage = make("div", { "class": "stage" }, [original, first, second, edge]);
  var title = make("h3"), told = make("dl", { "class": "told" });
  var which = make("select"), back = make("button", { type: "button", "class": "button", "aria-label": "Image before" }, ["←"]);
  var on = make("button", { type: "button", "class": "button", "aria-label": "Next image" }, ["→"]);
  var wipe = make("input", { type: "range", min: "0", max: "100", step: "1", value: "50", "aria-label": "From the picture to what is used of it" });
  var along = make("input", { type: "range", min: "0", step: "0.05", value: "0", "aria-label": "From subject to subject" });
  var stops = make("div", { "class": "ends" });
  var number = 0, current = [];
  var picture = make("span", {}, ["picture"]), used = make("span", {}, ["what is used"]);

  function draw() {
    var at = Number(along.value), low = Math.min(Math.floor(at), current.length - 1), high = Math.min(low + 1, current.length - 1);
    var share = Number(wipe.value);
    [[first, low], [second, high]].forEach(function (pair) {
      var from = current[pair[1]].querySelector("img");
      if (pair[0].src !== from.src) { pair[0].src = from.src; }
      pair[0].className = from.className;
      pair[0].style.clipPath = "inset(0 0 0 " + (100 - share) + "%)";
    });
    second.style.opacity = high === low ? 0 : at - low;
    edge.style.left = (100 - share) + "%";
    edge.hidden = share === 0 || share === 100;
    picture.classList.toggle("at", share < 50);
    used.classList.toggle("at", share > 50);
    var nearest = current[Math.round(at)];
    Array.from(stops.children).forEach(function (stop, index) { stop.classList.toggle("at", index === Math.round(at)); });
    var values = nearest.querySelector("dl");
    told.replaceChildren.apply(told, values ? Array.from(values.cloneNode(true).children) : []);
    first.alt = nearest.querySelector("img").alt;
    along.setAttribute("aria-valuetext", nearest.dataset.subject);
    wipe.setAttribute("aria-valuetext", share + " percent of the picture is covered by what is used of it");
  }
  function choose() {
    // Not every subject has a map of every image: the subject is kept, not its place.
    var kept = current.length ? current[Math.round(Number(along.value))].dataset.subject : "";
    current = views(specimens[number], which.value);
    along.max = String(current.length - 1);
    var place = current.findIndex(function (view) { return view.dataset.subject === kept; });
    if (place < 0) { place = Math.min(Number(along.value), current.length - 1); }
    if (Math.round(Number(along.value)) !== place) { along.value = String(place); }
    stops.replaceChildren.apply(stops, current.map(function (view) { return make("span", {}, [view.dataset.subject]); }));
    along.parentElement.hidden = current.length < 2;
    draw();
  }
  function load(index) {
    specimens[number].classList.remove("at");
    number = (index + specimens.length) % specimens.length;
    var specimen = specimens[number], kept = which.value, found = names(specimen);
    specimen.classList.add("at");
    var shown = specimen.querySelector(".first img");
    original.src = shown.src;
    original.className = shown.className;
    original.alt = shown.alt;
    title.textContent = "Image " + specimen.dataset.image;
    which.replaceChildren.apply(which, found.map(function (name) { return make("option", { value: name }, [name]); }));
    which.value = found.includes(kept) ? kept : found[0];
    which.parentElement.hidden = found.length < 2;
    choose();
  }
  wipe.addEventListener("input", draw);
  along.addEventListener("input", draw);
  which.addEventListener("change", choose);
  back.addEventListener("click", function () { load(number - 1); });
  on.addEventListener("click", function () { load(number + 1); });
  // Drawn over with the pointer, as one does with such a picture.
  function drag(event) {
    var box = stage.getBoundingClientRect();
    wipe.value = String(Math.round(100 - 100 * Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1)));
    draw();
  }
  stage.addEventListener("pointerdown", function (event) { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", function (event) { if (event.buttons) { drag(event); } });

  var panel = make("section", { "class": "comparison", "aria-label": "One image, large" }, [stage,
    make("div", { "class": "controls" }, [
      title,
      make("div", { "class": "tools" }, [back, on, candling.labelled("Evidence for", which)]),
      make("div", { "class": "slide" }, [wipe, make("div", { "class": "ends" }, [picture, used])]),
      make("div", { "class": "slide" }, [along, stops]),
      told
    ])]);
  document.querySelector("#isolation .groups").before(panel);
  specimens.forEach(function (specimen, index) {
    var button = make("button", { type: "button", "class": "button look" }, ["Look closer"]);
    button.setAttribute("aria-label", "Look closer at image " + specimen.dataset.image);
    button.addEventListener("click", function () { load(index); panel.scrollIntoView({ block: "nearest" }); wipe.focus(); });
    specimen.querySelector(".specimen-name").append(" ", button);
  });
  load(0);
})();
