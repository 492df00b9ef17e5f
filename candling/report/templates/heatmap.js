// Entanglement of every class with every class: hovered, zoomed, sorted, searched, and walked with the keys.
(function () {
  "use strict";
  var place = document.getElementById("heatmap"), make = candling.make;
  if (!place) { return; }
  var data = candling.data(place.querySelector("script"));
  var names = data.classes, K = names.length, LISTED = 200, PAGE = 25, LABELLED = 40, LEAST = Math.min(4, K);
  var UNKNOWN = -128, STEPS = 127;
  var subjects = data.subjects.map(function (one) {
    var text = atob(one.steps), steps = new Int8Array(text.length), exact = new Map();
    for (var i = 0; i < text.length; i++) { steps[i] = text.charCodeAt(i); }
    one.exact.forEach(function (pair) { exact.set(pair[0] * K + pair[1], pair); });
    return { name: one.name, steps: steps, exact: exact };
  });

  // -- What is shown
  var subject = subjects[0], order = names.map(function (_, i) { return i; });
  var view = { row: 0, column: 0, span: K }, at = { row: 0, column: 1 }, matched = null, sorted = { column: 2, down: true }, listed = [], shown = PAGE;

  function strongest(c) {
    var best = -Infinity;
    for (var k = 0; k < K; k++) { if (k !== c) { best = Math.max(best, subject.steps[c * K + k], subject.steps[k * K + c]); } }
    return best;
  }
  var ORDERS = {
    alike: function () { return data.alike; },
    model: function () { return names.map(function (_, i) { return i; }); },
    name: function () { return ORDERS.model().sort(function (a, b) { return candling.compare(names[a], names[b]); }); },
    strong: function () {
      var best = names.map(function (_, i) { return strongest(i); });
      return ORDERS.model().sort(function (a, b) { return best[b] - best[a] || a - b; });
    }
  };
  function told(c, k) {
    var exact = subject.exact.get(c * K + k), step = subject.steps[c * K + k];
    if (c === k && !exact) { return "1"; }
    if (exact) { return candling.figure(exact[2]) + (exact[7] === "ok" ? "" : " ?"); }
    return step === UNKNOWN ? "–" : "≈ " + (step / STEPS * data.full).toFixed(2).replace("-", "−");
  }
  function value(c, k) {
    var exact = subject.exact.get(c * K + k), step = subject.steps[c * K + k];
    return exact ? exact[2] : step === UNKNOWN ? -Infinity : step / STEPS * data.full;
  }

  // -- The parts of it
  var search = make("input", { type: "search", placeholder: "part of a name", list: "heatmap-classes", autocomplete: "off" });
  var list = make("datalist", { id: "heatmap-classes" }, names.map(function (name) { return make("option", { value: name }); }));
  var sorts = candling.options([["alike", "alike beside each other"], ["model", "as the model lists them"], ["name", "by name"], ["strong", "most entangled first"]]);
  var closer = make("button", { type: "button", "class": "button", "aria-label": "Zoom in" }, ["+"]);
  var wider = make("button", { type: "button", "class": "button", "aria-label": "Zoom out" }, ["−"]);
  var whole = make("button", { type: "button", "class": "button" }, ["Whole map"]);
  var count = make("span", { "class": "count", role: "status" });
  var canvas = make("canvas", { tabindex: "0", role: "application", "aria-label": "Heat map of entanglement, " + K + " classes", "aria-describedby": "heatmap-keys" });
  var keys = make("p", { "class": "hint", id: "heatmap-keys" }, ["Arrow keys walk, with Shift ten at a time; + and − zoom, 0 shows the whole map. Drag to move, double-click to zoom in."]);
  var pair = make("p", { "class": "pair" }), figures = make("p", {}), pictures = make("figure", {});
  var read = make("div", { "class": "map-read" }, [pictures, make("div", { "aria-live": "polite" }, [pair, figures])]);
  var more = make("button", { type: "button", "class": "button more-rows" });
  more.addEventListener("click", function () { shown += PAGE; table(); });
  var body = make("tbody"), heads = ["Prototype of", "Excites", "By", "Back"].map(function (words, column) {
    var button = make("button", { type: "button", "class": "sorter" }, [words]);
    button.addEventListener("click", function () {
      sorted = { column: column, down: sorted.column === column ? !sorted.down : column > 1 };
      table();
    });
    return make("th", { scope: "col" }, [button]);
  });
  var tools = [candling.labelled("Class", search), list, candling.labelled("Order", sorts)];
  var choices = subjects.map(function (one) {
    var button = make("button", { type: "button", "class": "button" }, [one.name]);
    button.addEventListener("click", function () { subject = one; keep(); });
    return button;
  });
  if (subjects.length > 1) {
    tools.push(make("div", { "class": "tool", role: "group", "aria-label": "Subject" }, ["Subject", make("div", {}, choices)]));
  }
  tools.push(make("div", { role: "group", "aria-label": "Zoom" }, [closer, " ", wider, " ", whole]), count);
  place.append(
    make("div", { "class": "tools", role: "group", "aria-label": "Heat map: search and order" }, tools),
    make("div", { "class": "map" }, [
      make("div", { "class": "map-frame" }, [canvas, make("p", { "class": "legend" }, [
        make("span", {}, ["−" + data.full.toFixed(1) + ": suppresses"]), make("span", { "class": "ramp", "aria-hidden": "true" }),
        make("span", {}, [data.full.toFixed(1) + ": excites"]), make("span", { "class": "swatch own", "aria-hidden": "true" }), make("span", {}, ["itself"])
      ]), keys]),
      make("div", { "class": "map-side" }, [read, make("div", { "class": "scroll", role: "group", "aria-label": "Pairs of classes", tabindex: "0" },
        [make("table", {}, [make("thead", {}, [make("tr", {}, heads)]), body])]), more])
    ]));

  // -- Colours, read off the style sheet so that both themes have theirs
  var probe = make("span", { hidden: "" }), inks = {}, tiles = make("canvas");
  place.append(probe);
  function ink(name) {
    probe.style.color = "var(" + name + ")";
    return getComputedStyle(probe).color;
  }
  function rgb(css) {
    var one = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    one.fillStyle = css;
    one.fillRect(0, 0, 1, 1);
    return one.getImageData(0, 0, 1, 1).data;
  }
  function paint() {
    ["--heat-mid", "--map-high", "--map-low", "--map-own", "--sunk"].forEach(function (name) { inks[name] = rgb(ink(name)); });
    inks.text = ink("--ink");
    inks.accent = ink("--accent");
    var palette = new Uint8Array(256 * 3);
    for (var step = -128; step < 128; step++) {
      var to = step === UNKNOWN ? inks["--sunk"] : step < 0 ? inks["--map-low"] : inks["--map-high"];
      var share = step === UNKNOWN ? 1 : Math.abs(step) / STEPS;
      for (var i = 0; i < 3; i++) { palette[(step + 128) * 3 + i] = inks["--heat-mid"][i] + (to[i] - inks["--heat-mid"][i]) * share; }
    }
    tiles.width = tiles.height = K;
    var context = tiles.getContext("2d"), image = context.createImageData(K, K), out = 0;
    for (var r = 0; r < K; r++) {
      var from = order[r] * K;
      for (var c = 0; c < K; c++) {
        var colour = r === c ? -1 : (subject.steps[from + order[c]] + 128) * 3;
        for (var j = 0; j < 3; j++) { image.data[out++] = colour < 0 ? inks["--map-own"][j] : palette[colour + j]; }
        image.data[out++] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    draw();
  }

  // -- The map
  function margin(side) { return view.span <= LABELLED ? Math.min(130, side * 0.24) : 0; }
  function geometry() {
    var side = canvas.getBoundingClientRect().width || 600, edge = margin(side);
    return { side: side, edge: edge, cell: (side - edge) / view.span };
  }
  function clamp() {
    view.span = Math.min(K, Math.max(LEAST, Math.round(view.span)));
    view.row = Math.min(Math.max(0, Math.round(view.row)), K - view.span);
    view.column = Math.min(Math.max(0, Math.round(view.column)), K - view.span);
  }
  function draw() {
    clamp();
    var g = geometry(), ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
    canvas.width = canvas.height = Math.round(g.side * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, g.side, g.side);
    context.imageSmoothingEnabled = g.cell * ratio < 1;
    context.drawImage(tiles, view.column, view.row, view.span, view.span, g.edge, g.edge, g.side - g.edge, g.side - g.edge);
    context.fillStyle = inks.text;
    context.strokeStyle = inks.accent;
    if (g.edge) {
      context.font = Math.min(13, Math.max(8, g.cell * 0.62)) + "px " + getComputedStyle(document.body).fontFamily;
      context.textBaseline = "middle";
      context.textAlign = "right";
      for (var i = 0; i < view.span; i++) {
        context.fillText(fitted(context, names[order[view.row + i]], g.edge - 8), g.edge - 6, g.edge + (i + 0.5) * g.cell);
      }
      context.save();
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      for (var j = 0; j < view.span; j++) {
        context.fillText(fitted(context, names[order[view.column + j]], g.edge - 8), -g.edge + 6, g.edge + (j + 0.5) * g.cell);
      }
      context.restore();
    }
    function box(row, column, rows, columns, width) {
      context.lineWidth = width;
      var x = g.edge + (column - view.column) * g.cell, y = g.edge + (row - view.row) * g.cell;
      context.save();
      context.beginPath();
      context.rect(g.edge, g.edge, g.side, g.side);
      context.clip();
      context.strokeRect(x, y, columns * g.cell, rows * g.cell);
      context.restore();
    }
    if (matched && matched.size <= 12) {
      order.forEach(function (c, i) {
        if (matched.has(c)) { box(i, -1, 1, K + 2, 1); box(-1, i, K + 2, 1, 1); }
      });
    }
    // A cell of a large map is less than a point: the mark around it stays visible.
    var grown = Math.max(0, (9 - g.cell) / 2 / g.cell);
    context.strokeStyle = inks.text;
    box(at.row - grown, at.column - grown, 1 + 2 * grown, 1 + 2 * grown, 2);
    // A finger moves a map that is larger than its frame, else it scrolls the page.
    canvas.style.touchAction = view.span < K ? "none" : "pan-y";
    wider.disabled = whole.disabled = view.span >= K;
    closer.disabled = view.span <= LEAST;
  }
  function fitted(context, text, room) {
    // Of a name of many thousand characters only the beginning can be seen.
    text = text.slice(0, 60);
    if (context.measureText(text).width <= room) { return text; }
    while (text.length > 1 && context.measureText(text + "…").width > room) { text = text.slice(0, -1); }
    return text + "…";
  }
  function prototype(c) {
    var gallery = candling.galleries && candling.galleries.get(names[c]);
    if (!gallery) { return null; }
    var columns = Array.from(gallery.querySelectorAll(".column"));
    var own = columns.length ? columns.find(function (one) { return one.dataset.subject === subject.name; }) : gallery;
    return own ? own.querySelector("img") : null;
  }
  function tell() {
    var c = order[at.row], k = order[at.column], exact = subject.exact.get(c * K + k);
    pair.textContent = c === k ? names[c] + ", itself" : names[c] + " → " + names[k] + ": " + told(c, k);
    figures.textContent = c === k ? "" : "and back: " + told(k, c) +
      (exact && exact[3] !== null ? "; 95% interval " + candling.figure(exact[3]) + " to " + candling.figure(exact[4]) + ", n = " + exact[5] : "") +
      (exact && exact[7] !== "ok" ? "; " + exact[7] : "") + (exact && exact[6] ? "; " + exact[6] : "");
    pictures.replaceChildren.apply(pictures, (c === k ? [c] : [c, k]).map(function (one) {
      var found = prototype(one);
      if (!found) { return ""; }
      return make("img", { src: found.src, alt: "prototype of " + names[one], "class": found.className, title: names[one] });
    }).filter(Boolean));
    Array.from(body.rows).forEach(function (row) { row.classList.toggle("at", row.dataset.pair === c + "," + k); });
  }
  function goto(row, column) {
    var before = at;
    at = { row: Math.min(Math.max(0, row), K - 1), column: Math.min(Math.max(0, column), K - 1) };
    if (at.row < view.row || at.row >= view.row + view.span) { view.row = at.row - view.span / 2; }
    if (at.column < view.column || at.column >= view.column + view.span) { view.column = at.column - view.span / 2; }
    draw();
    if (at.row !== before.row || at.column !== before.column) { tell(); }
  }
  function zoom(factor, row, column) {
    var span = Math.min(K, Math.max(LEAST, Math.round(view.span * factor)));
    if (factor < 1 && span === view.span) { span = Math.max(LEAST, span - 1); }
    // Around the middle of the cell.
    view.row = row + 0.5 - (row + 0.5 - view.row) * span / view.span;
    view.column = column + 0.5 - (column + 0.5 - view.column) * span / view.span;
    view.span = span;
    draw();
  }
  function under(event) {
    var box = canvas.getBoundingClientRect(), g = geometry();
    // The last fraction of a point is of the last cell in view, not of one beyond.
    function cell(along) { return Math.min(Math.floor((along - g.edge) / g.cell), view.span - 1); }
    return {
      row: view.row + cell(event.clientY - box.top),
      column: view.column + cell(event.clientX - box.left),
      inside: event.clientX - box.left >= g.edge && event.clientY - box.top >= g.edge
    };
  }
  var dragged = null;
  canvas.addEventListener("pointermove", function (event) {
    var g = geometry();
    if (dragged && event.buttons) {
      view.row = dragged.row - (event.clientY - dragged.y) / g.cell;
      view.column = dragged.column - (event.clientX - dragged.x) / g.cell;
      draw();
      return;
    }
    var cell = under(event);
    if (cell.inside) { goto(cell.row, cell.column); }
  });
  canvas.addEventListener("pointerdown", function (event) {
    dragged = view.span < K ? { x: event.clientX, y: event.clientY, row: view.row, column: view.column } : null;
    var cell = under(event);
    if (cell.inside) { goto(cell.row, cell.column); }
  });
  ["pointerup", "pointercancel"].forEach(function (name) { window.addEventListener(name, function () { dragged = null; }); });
  canvas.addEventListener("dblclick", function (event) { var cell = under(event); zoom(0.4, cell.row, cell.column); });
  canvas.addEventListener("wheel", function (event) {
    if (!event.ctrlKey) { return; } // the wheel alone scrolls the page
    event.preventDefault();
    var cell = under(event);
    zoom(event.deltaY > 0 ? 1.25 : 0.8, cell.row, cell.column);
  }, { passive: false });
  canvas.addEventListener("keydown", function (event) {
    var step = event.shiftKey ? 10 : 1;
    var moves = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step], Home: [0, -K], End: [0, K], PageUp: [-K, 0], PageDown: [K, 0] };
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (moves[event.key]) { goto(at.row + moves[event.key][0], at.column + moves[event.key][1]); }
    else if (event.key === "+" || event.key === "=") { zoom(0.6, at.row, at.column); }
    else if (event.key === "-") { zoom(1 / 0.6, at.row, at.column); }
    else if (event.key === "0") { view.span = K; draw(); }
    else { return; }
    event.preventDefault();
  });
  closer.addEventListener("click", function () { zoom(0.6, at.row, at.column); });
  wider.addEventListener("click", function () { zoom(1 / 0.6, at.row, at.column); });
  whole.addEventListener("click", function () { view.span = K; draw(); });

  // -- The table
  // Of a million pairs only the strongest are sorted: how strong they are, a count of each step says.
  function pairs() {
    var bins = new Array(256).fill(0), found = [], equal = [], cut = STEPS, sum = 0;
    function each(look) {
      for (var c = 0; c < K; c++) {
        var wanted = !matched || matched.has(c);
        for (var k = 0; k < K; k++) {
          if (c !== k && (wanted || matched.has(k))) { look(c, k, subject.steps[c * K + k]); }
        }
      }
    }
    each(function (c, k, step) { bins[step + 128]++; });
    while (cut > UNKNOWN + 1 && sum + bins[cut + 128] < LISTED) { sum += bins[cut + 128]; cut--; }
    each(function (c, k, step) {
      if (step === UNKNOWN || step < cut) { return; }
      if (step > cut) { found.push([c, k]); }
      else if (equal.length < 4 * LISTED) { equal.push([c, k]); }
    });
    return found.concat(equal).sort(function (a, b) { return value(b[0], b[1]) - value(a[0], a[1]); }).slice(0, LISTED);
  }
  function table() {
    var found = pairs();
    found.sort(function (a, b) {
      var order = [
        candling.compare(names[a[0]], names[b[0]]), candling.compare(names[a[1]], names[b[1]]),
        value(a[0], a[1]) - value(b[0], b[1]), value(a[1], a[0]) - value(b[1], b[0])
      ][sorted.column] || 0;
      return sorted.down ? -order : order;
    });
    heads.forEach(function (head, column) {
      if (column === sorted.column) { head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending"); }
      else { head.removeAttribute("aria-sort"); }
    });
    listed = found;
    more.hidden = found.length <= shown;
    more.textContent = "Show " + Math.min(PAGE, found.length - shown) + " more";
    body.replaceChildren.apply(body, found.slice(0, shown).map(function (p) {
      var go = make("button", { type: "button", "class": "go" }, [names[p[0]].slice(0, 80)]);
      var row = make("tr", { "data-pair": p[0] + "," + p[1] }, [
        make("td", {}, [go]), make("td", {}, [names[p[1]].slice(0, 80)]),
        make("td", {}, [told(p[0], p[1])]), make("td", {}, [told(p[1], p[0])])
      ]);
      row.addEventListener("click", function () { goto(order.indexOf(p[0]), order.indexOf(p[1])); });
      return row;
    }));
    count.textContent = (matched ? matched.size + " of " : "") + K + " classes, " + found.length + (matched ? " of their pairs" : " strongest pairs");
    tell();
  }
  function reorder() {
    order = ORDERS[sorts.value]();
    choices.forEach(function (button, i) { button.setAttribute("aria-pressed", String(subjects[i] === subject)); });
    paint();
    table();
  }
  search.addEventListener("input", function () {
    var word = search.value.trim().toLowerCase();
    var found = names.map(function (_, i) { return i; }).filter(function (i) { return names[i].toLowerCase() === word; });
    if (!found.length) { found = names.map(function (_, i) { return i; }).filter(function (i) { return names[i].toLowerCase().includes(word); }); }
    matched = word ? new Set(found) : null;
    shown = PAGE;
    table();
    if (word && found.length) {
      var best = listed.find(function (p) { return p[0] === found[0]; });
      goto(order.indexOf(found[0]), best ? order.indexOf(best[1]) : at.column);
    } else { draw(); }
  });
  // The pair that is looked at stays that, wherever it comes to lie.
  function keep() {
    var c = order[at.row], k = order[at.column];
    reorder();
    goto(order.indexOf(c), order.indexOf(k));
    tell();
  }
  sorts.addEventListener("change", keep);
  new MutationObserver(paint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  ["(prefers-color-scheme: dark)", "print"].forEach(function (media) { window.matchMedia(media).addEventListener("change", paint); });
  if ("ResizeObserver" in window) { new ResizeObserver(draw).observe(canvas); }
  order = ORDERS[sorts.value]();
  reorder();
  var first = listed[0];
  if (first) { goto(order.indexOf(first[0]), order.indexOf(first[1])); }
})();
