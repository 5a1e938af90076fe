"use strict";
const ROWS = JSON.parse(document.getElementById("rows").textContent);
const AXES = [
  { key: "luts", title: "LUTs per multiply-accumulate" },
  { key: "bytes", title: "model size, bytes" },
  { key: "time_ms", title: "CPU time of the layers, ms a batch" },
];
const FAMILIES = ["int", "float", "codebook"];
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon", "triangle-down"];
const COLUMNS = [
  ["weights", "weight", "text"], ["activations", "activation", "text"], ["value", "value"], ["LUTs/MAC", "luts"],
  ["bits/weight", "bits_per_weight"], ["MB", "bytes"], ["ms", "time_ms"], ["method", "method", "text method"],
];
const distinct = (items) => [...new Set(items)];
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const state = { task: ROWS[0].task, bits: null, method: "", activation: "", sort: "value", descending: true };

function format(row, key) {
  const value = row[key];
  if (value === null || value === undefined) return "–";
  if (key === "bytes") return (value / 1e6).toPrecision(3);
  if (key === "value") return shown(value);
  return typeof value === "number" ? String(+value.toPrecision(3)) : value;
}
const shown = (value) => (Math.abs(value) < 1000 ? String(+value.toPrecision(5)) : value.toExponential(2));

const ofTask = () => ROWS.filter((row) => row.task === state.task);
const chosen = () => ofTask().filter((row) => row.family !== "float32"
  && (state.bits === null || row.bits === state.bits)
  && (!state.method || row.method === state.method) && (!state.activation || row.activation === state.activation));

/* Rows that no other row of the same list beats: nothing is at most as expensive and better. */
function front(rows, key, higher) {
  const better = (a, b) => (higher ? a > b : a < b);
  const sorted = [...rows].sort((a, b) => a[key] - b[key] || (better(a.value, b.value) ? -1 : 1));
  const kept = [];
  for (const row of sorted) if (!kept.length || better(row.value, kept.at(-1).value)) kept.push(row);
  return kept;
}

function hover(row) {
  const lines = [`<b>${row.weight}</b> × ${row.activation}`, row.method + (row.ends ? `; first and last layer ${row.ends}` : "")];
  for (const [name, value] of Object.entries(row.metrics)) lines.push(`${name} ${value === null ? "–" : shown(value)}`);
  lines.push(`${format(row, "bits_per_weight")} bits per weight, ${format(row, "bytes")} MB`);
  lines.push(`${format(row, "luts")} LUTs, ${format(row, "time_ms")} ms`);
  return lines.join("<br>");
}

function traces(rows, axis, higher, methods) {
  const out = [], wide = innerWidth > 700;
  for (const family of FAMILIES) {
    const own = rows.filter((row) => row.family === family && row[axis.key] !== null && row.value !== null);
    if (!own.length) continue;
    const best = front(own, axis.key, higher), color = css(`--${family}`);
    out.push({
      x: best.map((row) => row[axis.key]), y: best.map((row) => row.value), mode: wide ? "lines+text" : "lines",
      text: best.map((row) => row.weight.split("-")[0]), textposition: family === "int" ? "top left" : "bottom right",
      textfont: { color, size: 11 }, line: { color, width: 2, shape: "hv" }, hoverinfo: "skip", cliponaxis: false,
    });
    out.push({
      x: own.map((row) => row[axis.key]), y: own.map((row) => row.value), mode: "markers", text: own.map(hover),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        color, size: own.map((row) => 6 + row.bits / 2), opacity: 0.75, line: { width: 1, color: css("--paper") },
        symbol: own.map((row) => SYMBOLS[methods.indexOf(row.method) % SYMBOLS.length]),
      },
    });
  }
  return out;
}

function layout(axis, label, reference, log) {
  const grid = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const lines = reference && reference.value !== null ? [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: reference.value, y1: reference.value,
    line: { color: css("--soft"), width: 1, dash: "dot" },
  }] : [];
  return {
    margin: { l: 56, r: 18, t: 8, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--ink"), family: "system-ui, sans-serif", size: 12 }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
    xaxis: { ...grid, title: { text: axis.title }, rangemode: "normal", nticks: 7 },
    yaxis: { ...grid, title: { text: label }, type: log ? "log" : "linear" }, shapes: lines, dragmode: innerWidth > 700 ? "zoom" : false,
  };
}

function drawPlots(rows, methods) {
  const all = ofTask(), sample = all[0], reference = all.find((row) => row.family === "float32");
  const label = sample.metric.replaceAll("_", " ") + (sample.higher_is_better ? "" : " (lower is better)");
  for (const axis of AXES) {
    const found = traces(rows, axis, sample.higher_is_better, methods), plot = $(`plot-${axis.key}`);
    plot.parentElement.querySelector(".empty").hidden = found.length > 0;
    plot.hidden = !found.length;
    if (found.length) {
      const settings = { responsive: true, displaylogo: false, displayModeBar: false };
      Plotly.react(plot, found, layout(axis, label, reference, !sample.higher_is_better), settings);
    }
  }
}

function drawKeys(rows, methods) {
  const keys = FAMILIES.filter((name) => rows.some((row) => row.family === name))
    .map((name) => `<li><span class="dot" style="background:${css(`--${name}`)}"></span>${name}</li>`);
  const glyphs = ["●", "◆", "■", "▲", "✚", "✖", "★", "⬢", "▼"];
  methods.forEach((name, i) => {
    const item = document.createElement("li");
    item.textContent = `${glyphs[i % glyphs.length]} ${name}`;
    keys.push(item.outerHTML);
  });
  keys.push("<li>larger mark: more bits</li><li>line: Pareto front</li><li>dotted: float32</li>");
  $("keys").innerHTML = keys.join("");
}

function drawTable(rows) {
  const column = state.sort, sign = state.descending ? -1 : 1;
  const sorted = [...ofTask().filter((row) => row.family === "float32"), ...rows].sort((a, b) => {
    if (a[column] === null || b[column] === null) return (a[column] === null) - (b[column] === null);
    return sign * (typeof a[column] === "number" ? a[column] - b[column] : a[column].localeCompare(b[column]));
  });
  $("head").replaceChildren(...COLUMNS.map(([title, key, kind]) => {
    const th = document.createElement("th"), button = document.createElement("button");
    th.className = kind || "";
    const arrow = key === state.sort ? (state.descending ? " ▾" : " ▴") : "";
    button.textContent = (key === "value" ? ofTask()[0].metric.replaceAll("_", " ") : title) + arrow;
    th.setAttribute("aria-sort", key !== state.sort ? "none" : state.descending ? "descending" : "ascending");
    button.onclick = () => { state.descending = key === state.sort ? !state.descending : !kind; state.sort = key; draw(); };
    th.append(button);
    return th;
  }));
  $("body").replaceChildren(...sorted.map((row) => {
    const tr = document.createElement("tr");
    tr.dataset.family = row.family;
    tr.append(...COLUMNS.map(([, key, kind]) => {
      const td = document.createElement("td");
      td.className = kind || "";
      td.textContent = format(row, key);
      return td;
    }));
    return tr;
  }));
}

function fill(select, values, current, all) {
  const options = [...(all ? [["", all]] : []), ...values.map((value) => [value, value])];
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === current)));
  select.parentElement.hidden = values.length < 2;
}

function drawControls() {
  const rows = ofTask().filter((row) => row.family !== "float32");
  fill($("task"), distinct(ROWS.map((row) => row.task)), state.task);
  fill($("method"), distinct(rows.map((row) => row.method)), state.method, "all");
  fill($("activation"), distinct(rows.map((row) => row.activation)), state.activation, "all");
  const widths = [null, ...distinct(rows.map((row) => row.bits)).sort((a, b) => a - b)];
  $("widths").replaceChildren("weight bits", ...widths.map((bits) => {
    const button = document.createElement("button");
    button.textContent = bits ?? "all";
    button.setAttribute("aria-pressed", bits === state.bits);
    button.onclick = () => { state.bits = bits; draw(); };
    return button;
  }));
  $("about").textContent = ofTask()[0].about + ".";
}

function draw() {
  const rows = chosen(), methods = distinct(ofTask().filter((row) => row.method).map((row) => row.method));
  drawControls();
  drawKeys(rows, distinct(methods));
  drawPlots(rows, methods);
  drawTable(rows);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "light" : "dark";
}

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => { setTheme(system.matches); draw(); });
$("theme").onclick = () => { setTheme(document.documentElement.dataset.theme !== "dark"); draw(); };
for (const name of ["task", "method", "activation"]) {
  $(name).onchange = (event) => {
    state[name] = event.target.value;
    if (name === "task") {
      Object.assign(state, { bits: null, method: "", activation: "", sort: "value", descending: ofTask()[0].higher_is_better });
    }
    draw();
  };
}
state.descending = ofTask()[0].higher_is_better;
setTheme(system.matches);
draw();
