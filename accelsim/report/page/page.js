"use strict";
(function () {
  const study = JSON.parse(document.getElementById("study").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = {};
  const shownAtMost = 200;
  let printing = false;
  let picked = null;
  let sorted = { column: 0, up: true };
  let chosen = null;

  // The report's colours on dark paper: the same hues, lighter.
  const lighter = { "#0072B2": "#4FA8E0", "#D55E00": "#FF8A3D", "#009E73": "#2CC79A", "#CC79A7": "#E0A0C4", "#E69F00": "#F0B840", "#56B4E9": "#7CCBF5", "#B8A800": "#E5D84A" };

  function night() {
    return dark.matches && !printing;
  }

  function colours() {
    return night() ? { ink: "#e6e9ec", line: "#3a424a" } : { ink: "#1b1f24", line: "#d8dee4" };
  }

  function inked(node) {
    if (Array.isArray(node)) return node.map((n) => (typeof n === "object" && n !== null ? inked(n) : n));
    const copy = {};
    for (const [key, value] of Object.entries(node)) {
      if (value === "ink") copy[key] = colours().ink;
      else if (key === "color" && night() && lighter[value]) copy[key] = lighter[value];
      else if (typeof value === "object" && value !== null) copy[key] = inked(value);
      else copy[key] = value;
    }
    return copy;
  }

  function layout(figure) {
    const { ink, line } = colours();
    const held = JSON.parse(JSON.stringify(figure.layout));
    for (const name of ["xaxis", "yaxis"]) {
      if (held[name]) Object.assign(held[name], { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true });
    }
    return Object.assign(
      { margin: { l: 60, r: 20, t: 20, b: 60 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest" },
      held,
      { font: { color: ink, family: "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", size: 12 } });
  }

  function canvas() {
    try {
      const probe = document.createElement("canvas");
      return Boolean(probe.getContext("webgl") || probe.getContext("webgl2"));
    } catch (error) {
      return false;
    }
  }

  function draw(id) {
    const place = document.getElementById(id);
    const figure = study.figures[id];
    if (!place || !figure) return null;
    if (id === "parallel" && !canvas()) {
      place.textContent = "This browser draws no WebGL, which parallel coordinates need; the table below has the same numbers.";
      place.style.height = "auto";
      return null;
    }
    Plotly.react(place, inked(figure.data), layout(figure),
      { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["toImage"] });
    figures[id] = place;
    return place;
  }

  function numeric(column) {
    return study.numeric[column];
  }

  function show(value, column) {
    if (value === null) return numeric(column) ? "unknown" : "";
    if (!numeric(column)) return String(value);
    const size = Math.abs(value);
    if (value === 0 || (size >= 0.01 && size < 1e5)) return String(Number(value.toPrecision(4)));
    return value.toExponential(3);
  }

  function table() {
    const which = document.getElementById("which").value;
    const word = document.getElementById("word").value.toLowerCase();
    const front = new Set(study.front);
    let places = picked !== null ? picked.slice() : study.rows.map((_, i) => i);
    if (picked === null && which === "front") places = places.filter((i) => front.has(i));
    if (word) places = places.filter((i) => study.rows[i].some((v) => String(v).toLowerCase().includes(word)));
    const { column, up } = sorted;
    places.sort((a, b) => {
      const x = study.rows[a][column], y = study.rows[b][column];
      if (x === y) return a - b;
      if (x === null) return 1;
      if (y === null) return -1;
      return (x < y ? -1 : 1) * (up ? 1 : -1);
    });
    const body = document.querySelector("#rows tbody");
    const lines = document.createDocumentFragment();
    for (const i of places.slice(0, shownAtMost)) {
      const line = document.createElement("tr");
      line.tabIndex = 0;
      if (i === chosen) line.className = "picked";
      study.rows[i].forEach((value, c) => {
        const cell = document.createElement("td");
        cell.textContent = show(value, c);
        if (numeric(c)) cell.className = "n";
        line.appendChild(cell);
      });
      line.addEventListener("click", () => choose(i));
      line.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(i); });
      lines.appendChild(line);
    }
    body.replaceChildren(lines);
    const what = picked !== null ? "selected" : which === "front" ? "on the front" : "drawn";
    const cut = places.length > shownAtMost ? `, the first ${shownAtMost} shown` : "";
    document.getElementById("count").textContent = `${places.length} points ${what}${cut}`;
  }

  function choose(i) {
    chosen = i;
    document.getElementById("code").textContent = study.codes[i];
    table();
  }

  function select(places) {
    picked = places;
    table();
  }

  function clear() {
    picked = null;
    document.getElementById("word").value = "";
    if (figures.pareto) Plotly.restyle(figures.pareto, { selectedpoints: [null] }).then(() => Plotly.relayout(figures.pareto, { selections: [] }));
    if (figures.parallel) {
      const change = {};
      study.figures.parallel.data[0].dimensions.forEach((_, k) => { change[`dimensions[${k}].constraintrange`] = [null]; });
      Plotly.restyle(figures.parallel, change);
    }
    table();
  }

  function brushed(place) {
    const trace = place.data[0];
    const limits = trace.dimensions.map((d) => d.constraintrange).map((r) => (r ? (Array.isArray(r[0]) ? r : [r]) : null));
    if (limits.every((r) => r === null)) return null;
    const found = [];
    study.figures.parallel.rows.forEach((row, i) => {
      const inside = limits.every((ranges, k) => {
        const v = trace.dimensions[k].values[i];
        return ranges === null || ranges.some(([low, high]) => v >= low && v <= high);
      });
      if (inside) found.push(row);
    });
    return found;
  }

  const head = document.querySelector("#rows thead tr");
  if (head) {
    head.querySelectorAll("button").forEach((button, column) => {
      button.addEventListener("click", () => {
        sorted = { column, up: sorted.column === column ? !sorted.up : true };
        table();
      });
    });
    document.getElementById("which").addEventListener("change", () => { picked = null; table(); });
    document.getElementById("word").addEventListener("input", table);
    document.getElementById("clear").addEventListener("click", clear);
    const start = study.columns.indexOf(study.objectives[0]);
    sorted = { column: start, up: !study.maximised };
    table();
    if (study.front.length) choose(study.front[0]);
  }

  function redraw() {
    Object.keys(figures).forEach(draw);
  }

  function charts() {
    const place = draw("pareto");
    if (place) {
      place.on("plotly_selected", (event) => {
        if (event && event.points) select(event.points.map((p) => p.customdata).filter((i) => i !== undefined));
      });
      place.on("plotly_deselect", () => select(null));
      place.on("plotly_click", (event) => {
        const i = event.points[0].customdata;
        if (i !== undefined) choose(i);
      });
    }
    draw("batch");
    whenSeen("parallel", () => {
      const parallel = draw("parallel");
      if (parallel) parallel.on("plotly_restyle", () => select(brushed(parallel)));
    });
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  }

  function whenSeen(id, action) {
    const place = document.getElementById(id);
    if (!place) return;
    const watch = new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting)) {
        watch.disconnect();
        action();
      }
    }, { rootMargin: "100px" });
    watch.observe(place);
  }

  // The text and the table are there at once; the library of the charts, most of the file, is read after them.
  function library() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.appendChild(script);
    charts();
  }

  dark.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    printing = true;
    document.querySelectorAll("details").forEach((d) => { d.dataset.open = d.open; d.open = true; });
    redraw();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    document.querySelectorAll("details").forEach((d) => { d.open = d.dataset.open === "true"; });
    redraw();
  });
  document.documentElement.dataset.open = String(Math.round(performance.now()));
  requestAnimationFrame(() => setTimeout(library, 0));
})();
