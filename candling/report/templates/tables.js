// Tables of many rows can be searched and sorted; of very many, rows are drawn as they are looked for.
(function () {
  "use strict";
  var LEAST = 12, PAGE = 50, make = candling.make;

  function svg(tag, attributes) {
    var made = document.createElementNS(document.querySelector("svg").namespaceURI, tag);
    Object.keys(attributes).forEach(function (name) { made.setAttribute(name, attributes[name]); });
    return made;
  }
  function bar(kind, cell, bounds) {
    function x(value) {
      var share = (value - kind.low) / (kind.high - kind.low);
      return (100 * Math.min(Math.max(share, 0), 1)).toFixed(2) + "%";
    }
    var drawn = svg("svg", { "class": "bar", "aria-hidden": "true", focusable: "false" });
    drawn.append(svg("line", { "class": "track", x1: "0%", x2: "100%", y1: 9, y2: 9 }));
    if (kind.low < 0 && kind.high > 0) { drawn.append(svg("line", { "class": "zero", x1: x(0), x2: x(0), y1: 5, y2: 13 })); }
    if (kind.chance !== null) { drawn.append(svg("line", { "class": "chance", x1: x(kind.chance), x2: x(kind.chance), y1: 2, y2: 16 })); }
    bounds.forEach(function (bound) { drawn.append(svg("line", { "class": "bound", x1: x(bound), x2: x(bound), y1: 0, y2: 18 })); });
    if (cell[1] !== null && cell[2] !== null) { drawn.append(svg("line", { "class": "whisker", x1: x(cell[1]), x2: x(cell[2]), y1: 9, y2: 9 })); }
    drawn.append(svg("circle", { "class": "dot", cx: x(cell[0]), cy: 9, r: 3.6 }));
    return drawn;
  }
  function number(value) {
    return make("data", { value: value === null ? "" : String(value) }, [candling.figure(value)]);
  }
  function drawCell(kind, cell, bounds) {
    if (cell === null) { return make("td", {}, [make("span", { "class": "absent" }, ["not recorded"])]); }
    var told = make("span", { "class": "measured" }, [make("strong", {}, [number(cell[0])])]);
    if (cell[1] !== null || cell[2] !== null) {
      told.append(" ", make("span", { "class": "interval" }, ["[", number(cell[1]), ", ", number(cell[2]), "]"]));
    }
    if (cell[3] !== null) { told.append(" ", make("span", { "class": "n" }, ["n\u00a0=\u00a0" + cell[3]])); }
    var box = make("div", { "class": "cell" }, [told]);
    if (cell[0] !== null) { box.append(bar(kind, cell, bounds)); }
    if (cell[4] !== "ok" || cell[5]) {
      box.append(make("span", { "class": "remark" }, [[cell[4] === "ok" ? "" : cell[4], cell[5]].filter(Boolean).join(": ")]));
    }
    return make("td", {}, [box]);
  }
  function drawRow(packed, row) {
    var scope = make("ul", { "class": "scope", "aria-label": "scope" }, row[1].map(function (pair) {
      return make("li", {}, [make("span", {}, [pair[0].replace(/[_.]/g, " ")]), " " + pair[1]]);
    }));
    var kind = packed.kinds[row[0]];
    var head = make("th", { scope: "row" }, [make("span", { "class": "what" }, [kind.title]), scope]);
    if (row[3].length) {
      head.append(make("span", { "class": "axis" }, [make("span", { "class": "key key-bound" }), " bound of the policy " + row[3].join(", ")]));
    }
    return make("tr", {}, [head].concat(row[2].map(function (cell) { return drawCell(kind, cell, row[3]); })));
  }
  function fromPacked(packed) {
    return packed.rows.map(function (row, place) {
      var words = [packed.kinds[row[0]].title].concat(row[1].map(function (pair) { return pair.join(" "); }));
      var drawn = null;
      return {
        place: place, name: words.join(" "),
        values: row[2].map(function (cell) { return cell === null || cell[0] === null ? NaN : cell[0]; }),
        row: function () { drawn = drawn || drawRow(packed, row); return drawn; }
      };
    });
  }
  function fromDrawn(body) {
    return Array.from(body.rows).map(function (row, place) {
      return {
        place: place, name: row.cells[0].textContent,
        values: Array.from(row.cells).slice(1).map(function (cell) {
          var first = cell.querySelector("data");
          return first && first.value !== "" ? Number(first.value) : NaN;
        }),
        row: function () { return row; }
      };
    });
  }

  document.querySelectorAll(".table").forEach(function (table) {
    var body = table.querySelector("tbody"), script = table.querySelector("script");
    var rows = script ? fromPacked(candling.data(script)) : fromDrawn(body);
    if (rows.length <= LEAST) { return; }
    var label = table.querySelector(".scroll").getAttribute("aria-label");
    var search = make("input", { type: "search", placeholder: "a class, a group, a measurement" });
    var count = make("span", { "class": "count", role: "status" });
    var more = make("button", { type: "button", "class": "button more-rows" });
    var sorted = { column: -1, down: true }, shown = PAGE;
    var heads = Array.from(table.querySelectorAll("thead th"));

    function draw() {
      var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      var found = rows.filter(function (row) {
        var name = row.name.toLowerCase();
        return words.every(function (word) { return name.includes(word); });
      });
      if (sorted.column >= 0) {
        found.sort(function (a, b) {
          var order;
          if (sorted.column === 0) { order = candling.compare(a.name, b.name); }
          else {
            var x = a.values[sorted.column - 1], y = b.values[sorted.column - 1];
            if (isNaN(x) || isNaN(y)) { return isNaN(x) - isNaN(y) || a.place - b.place; }
            order = x - y;
          }
          return (sorted.down ? -order : order) || a.place - b.place;
        });
      }
      body.classList.toggle("reordered", sorted.column >= 0 || words.length > 0 || Boolean(script));
      body.replaceChildren.apply(body, found.slice(0, shown).map(function (row) { return row.row(); }));
      count.textContent = Math.min(shown, found.length) + " of " + rows.length + " rows" +
        (words.length ? ", " + found.length + " found" : "");
      more.hidden = found.length <= shown;
      more.textContent = "Show " + Math.min(PAGE, found.length - shown) + " more";
    }
    heads.forEach(function (head, column) {
      var button = make("button", { type: "button", "class": "sorter" }, Array.from(head.childNodes));
      head.replaceChildren(button);
      button.addEventListener("click", function () {
        // Names from the first, numbers from the largest.
        sorted = { column: column, down: sorted.column === column ? !sorted.down : column > 0 };
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
        draw();
      });
    });
    search.addEventListener("input", function () { shown = PAGE; draw(); });
    more.addEventListener("click", function () { shown += PAGE; draw(); });
    table.prepend(make("div", { "class": "tools", role: "group", "aria-label": label + ": search" },
      [candling.labelled("Search", search), count]));
    table.append(more);
    draw();
    window.addEventListener("beforeprint", function () { if (!script) { shown = rows.length; draw(); } });
  });
})();
