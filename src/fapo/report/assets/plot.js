// Plots with values on hover, the choice of a metric, and the numbers as CSV.

const PAD = { left: 48, right: 16, top: 12, bottom: 32 };
const FIRST = ["loss", "reward", "entropy", "grad_norm", "clip_ratio/region_mean"]; // in the choice of metrics
const number = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4))));
const rate = (value) => `${Number((100 * value).toPrecision(4))} %`;

function ticks(low, high, num) {
  const rough = (high - low || 1) / num;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

function limits(panel, values) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (panel.scale === "log") {
    low = Math.min(...values.filter((value) => value > 0), panel.level ?? Infinity);
    return [low / 1.2, Math.max(high, panel.level ?? low) * 1.2];
  }
  if (panel.scale === "rate from 0") low = 0;
  if (panel.scale === "number" && panel.level !== null) [low, high] = [Math.min(low, panel.level), Math.max(high, panel.level)];
  const room = Math.max(0.08 * (high - low), panel.scale === "number" ? 0.04 * Math.abs(high) || 0.05 : 0.005);
  return [low >= 0 && low < room * 2 ? 0 : low - room, high + room * (1 + 1.6 * panel.marks.length)];
}

// The plot of a panel: lines, a level, marks, labels at the ends of lines, and the values under the pointer.
function draw(figure, panel, width = 390, height = 235) {
  const ends = panel.curves.filter((curve) => curve.end);
  const right = width - (ends.length ? Math.max(...ends.map((curve) => curve.end.length)) * 6 + 14 : PAD.right);
  const [top, bottom] = [PAD.top, height - PAD.bottom];
  const all = panel.curves.flatMap((curve) => [...curve.values, ...curve.faint.values]);
  const steps = [...new Set(panel.curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const [low, high] = limits(panel, all);
  const warp = panel.scale === "log" ? (value) => Math.log(Math.max(value, low)) : (value) => value;
  const stretch = panel.axis === "k" ? Math.log2 : (step) => step; // numbers of samples are powers of two
  const span = (stretch(steps.at(-1)) - stretch(steps[0])) || 1;
  const x = (step) => PAD.left + ((stretch(step) - stretch(steps[0])) / span) * (right - PAD.left);
  const y = (value) => bottom - ((warp(value) - warp(low)) / (warp(high) - warp(low) || 1)) * (bottom - top);
  const show = panel.scale.startsWith("rate") ? rate : number;
  const line = (curve) => curve.steps.map((step, k) => `${k ? "L" : "M"}${x(step).toFixed(1)} ${y(curve.values[k]).toFixed(1)}`).join("");

  const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary(panel, show) });
  const grid = panel.scale === "log" ? [0.001, 0.01, 0.1, 1, 10, 100, 1000].flatMap((p) => [p, 2 * p, 5 * p]) : ticks(low, high, 5);
  for (const value of grid.filter((tick) => tick >= low && tick <= high)) {
    svg.append(element("svg:line", { class: "grid", x1: PAD.left, x2: right, y1: y(value), y2: y(value) }),
      element("svg:text", { class: "tick", x: PAD.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, show(value)));
  }
  for (const step of panel.axis === "k" ? steps : ticks(steps[0], steps.at(-1), 6).filter(Number.isInteger)) {
    svg.append(element("svg:text", { class: "tick", x: x(step), y: bottom + 15, "text-anchor": "middle" }, String(step)));
  }
  svg.append(element("svg:line", { class: "axis", x1: PAD.left, x2: right, y1: bottom, y2: bottom }),
    element("svg:text", { class: "tick", x: (PAD.left + right) / 2, y: height - 3, "text-anchor": "middle" }, panel.axis));
  if (panel.level !== null) svg.append(element("svg:line", { class: "level", x1: PAD.left, x2: right, y1: y(panel.level), y2: y(panel.level) }));
  for (const curve of panel.curves) {
    const stroke = `var(--${curve.color})`;
    if (curve.faint.steps.length) svg.append(element("svg:path", { class: "faint", stroke, d: line(curve.faint) }));
    svg.append(element("svg:path", { class: "curve", stroke, "stroke-dasharray": curve.dash, d: line(curve) }));
    if (curve.steps.length === 1 || (curve.steps.length <= 25 && !curve.faint.steps.length)) {
      curve.steps.forEach((step, k) => svg.append(element("svg:circle", { cx: x(step), cy: y(curve.values[k]), r: 2.6, fill: stroke })));
    }
  }
  let above = -Infinity; // labels at the ends keep 12 units between them
  for (const curve of [...ends].sort((a, b) => y(a.values.at(-1)) - y(b.values.at(-1)))) {
    above = Math.max(above + 12, y(curve.values.at(-1)) + 3.5);
    svg.append(element("svg:text", { x: x(curve.steps.at(-1)) + 5, y: above, fill: `var(--${curve.color})` }, curve.end));
  }
  panel.marks.forEach((mark, k) => {
    const [color, height] = [`var(--${mark.color})`, top + 8 + 12 * k];
    const late = x(mark.step) > PAD.left + 0.7 * (right - PAD.left);
    svg.append(element("svg:line", { stroke: color, x1: x(mark.step), x2: x(mark.step), y1: y(mark.value), y2: height }),
      element("svg:circle", { cx: x(mark.step), cy: y(mark.value), r: 4, fill: color }),
      element("svg:text", { x: x(mark.step) + (late ? -5 : 5), y: height + 3, "text-anchor": late ? "end" : "start", fill: color, class: "mark" }, mark.text));
  });
  const cursor = element("svg:line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  svg.append(cursor);
  const values = element("output", { hidden: true });
  figure.querySelectorAll("svg, output").forEach((old) => old.remove());
  figure.append(svg, values);

  let at = -1; // place in `steps`
  function point(place) {
    at = place;
    cursor.setAttribute("visibility", place < 0 ? "hidden" : "visible");
    values.hidden = place < 0;
    if (place < 0) return;
    const step = steps[place];
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    const rows = panel.curves.filter((curve) => curve.steps.includes(step)).map((curve) =>
      element("span", { style: `--class:var(--${curve.color})` }, `${curve.end || curve.name} `, element("b", {}, show(curve.values[curve.steps.indexOf(step)]))));
    values.replaceChildren(element("i", {}, `${panel.axis} ${step}`), ...rows);
    values.className = x(step) > width / 2 ? "left" : "right";
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const here = (event.clientX - box.left) * (width / box.width);
    point(steps.reduce((best, step, k) => (Math.abs(x(step) - here) < Math.abs(x(steps[best]) - here) ? k : best), 0));
  });
  svg.addEventListener("pointerleave", () => point(-1));
  figure.onkeydown = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    point(Math.min(steps.length - 1, Math.max(0, at + move)));
  };
  figure.onblur = () => point(-1);
}

function summary(panel, show) {
  const ends = panel.curves.map((curve) => `${curve.end || curve.name} ends at ${show(curve.values.at(-1))}`);
  return `${panel.title}: ${ends.join(", ")}`;
}

// --- every metric ------------------------------------------------------------------------------------------------------

function smoothed(values, window) {
  const half = Math.floor(window / 2);
  return values.map((_, k) => {
    const near = values.slice(Math.max(0, k - half), k + half + 1);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

function startExplorer(runs) {
  const form = document.getElementById("explore");
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.series)))];
  const order = (key) => { const [kind, name] = [key.split(" ", 1)[0], key.slice(key.indexOf(" ") + 1)]; const place = kind === "train" ? FIRST.indexOf(name) : -1; return place < 0 ? FIRST.length : place; };
  keys.sort((a, b) => order(a) - order(b) || a.localeCompare(b));
  form.elements.metric.replaceChildren(...keys.map((key) => element("option", { value: key }, key)));
  const update = () => {
    const [key, window] = [form.elements.metric.value, Number(form.elements.window.value)];
    const curves = runs.filter((run) => run.series[key]).map((run) => {
      const { steps, values } = run.series[key];
      const faint = window > 1 ? { steps, values } : { steps: [], values: [] };
      return { name: run.name, end: "", color: run.color, dash: run.dash, steps, values: window > 1 ? smoothed(values, window) : values, faint };
    });
    const figure = document.getElementById("explored");
    const size = figure.clientWidth < 700 ? [390, 300] : [1080, 320]; // labels stay readable on a phone
    draw(figure, { title: key, scale: "number", level: null, marks: [], axis: "step", curves }, ...size);
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("csv").addEventListener("click", () => saveAs("metrics.csv", "text/csv", csv(runs)));
  if (keys.length) update();
  else form.parentElement.hidden = true;
}

function csv(runs) {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = runs.flatMap((run) => Object.entries(run.series).flatMap(([key, { steps, values }]) =>
    steps.map((step, k) => [quoted(run.name), ...[key.slice(0, key.indexOf(" ")), key.slice(key.indexOf(" ") + 1)].map(quoted), step, values[k]].join(","))));
  return ["run,kind,metric,step,value", ...lines].join("\r\n") + "\r\n";
}

unpack("numbers").then(({ panels, runs }) => {
  for (const figure of document.querySelectorAll("figure[data-panel]")) draw(figure, panels[figure.dataset.panel]);
  if (document.getElementById("explore")) startExplorer(runs);
  document.body.dataset.drawn = "true";
}).catch((error) => {
  for (const figure of document.querySelectorAll("figure[data-panel]")) figure.append(`This plot cannot be drawn: ${error.message}. A browser of 2023 or later can.`);
});
