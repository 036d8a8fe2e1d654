"use strict";
// The rollout browser. Text of rollouts only ever becomes text nodes.

const ROW_HEIGHT = 38;
const CLASSES = { fully_correct: "fully correct", flawed: "flawed", wrong: "wrong", unscored: "unscored" };
const filters = document.getElementById("filters");
const list = document.getElementById("list");
const shown = document.getElementById("shown");
let data = null; // column -> values, one for each rollout
let found = []; // rollouts that pass the filters, the latest first
let chosen = -1; // place in `found`

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("rollouts").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const columns = await new Response(stream).json();
  for (const [name, column] of Object.entries(columns)) {
    if (!Array.isArray(column)) columns[name] = column.rows.map((i) => column.names[i]);
  }
  return columns;
}

// --- filters ---------------------------------------------------------------------------------------------------------

function agreement(i) {
  if (!data.known[i] || data.status[i] !== "ok") return "";
  const [flagged, judged, truth] = [data.flagged[i], data.judged[i], data.true[i]];
  if (flagged !== (truth !== null)) return flagged ? "false_positive" : "false_negative";
  return judged === truth || (flagged && judged === null) ? "agree" : "elsewhere";
}

function inScope(i, form) {
  const step = data.step[i];
  return (!form.run || data.run[i] === form.run) && (!form.split || data.split[i] === form.split)
    && (form.from === "" || step >= Number(form.from)) && (form.to === "" || step <= Number(form.to));
}

function scope() {
  return Object.fromEntries(new FormData(filters));
}

function passes(i, form, words) {
  if (!inScope(i, form) || (form.agreement && agreement(i) !== form.agreement)) return false;
  if (!words.length || data.problem_id[i] === form.question) return true;
  const text = data.problem[i].toLowerCase();
  return words.every((word) => text.includes(word));
}

function apply() {
  const form = scope();
  const words = form.question.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set(new FormData(filters).getAll("kind"));
  const counts = { fully_correct: 0, flawed: 0, wrong: 0, unscored: 0 };
  found = [];
  for (let i = 0; i < data.step.length; i++) {
    if (!passes(i, form, words)) continue;
    counts[data.kind[i]]++;
    if (wanted.has(data.kind[i])) found.push(i);
  }
  found.sort((a, b) => data.step[b] - data.step[a] || a - b);
  for (const chip of filters.querySelectorAll(".chip")) {
    chip.querySelector("b").textContent = counts[chip.querySelector("input").value].toLocaleString("en");
  }
  document.getElementById("count").textContent =
    `${found.length.toLocaleString("en")} of ${data.step.length.toLocaleString("en")} rollouts`;
  list.firstElementChild.style.height = `${found.length * ROW_HEIGHT}px`;
  list.scrollTop = 0;
  choose(found.length ? 0 : -1);
}

// --- the list: only the rows in sight exist ----------------------------------------------------------------------------

function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 4);
  const last = Math.min(found.length, first + Math.ceil(list.clientHeight / ROW_HEIGHT) + 8);
  const rows = [];
  for (let place = first; place < last; place++) {
    const i = found[place];
    const row = element("div", {
      class: `row ${data.kind[i]}`, role: "option", id: `row-${place}`, "aria-selected": String(place === chosen),
      click: () => choose(place),
    }, element("i", { title: CLASSES[data.kind[i]] }), element("b", {}, String(data.step[i])),
    element("span", {}, data.problem[i]));
    row.style.transform = `translateY(${place * ROW_HEIGHT}px)`;
    rows.push(row);
  }
  list.firstElementChild.replaceChildren(...rows);
}

function choose(place) {
  chosen = place;
  if (place >= 0) {
    const top = place * ROW_HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
    list.setAttribute("aria-activedescendant", `row-${place}`);
    show(found[place]);
  } else {
    shown.replaceChildren(element("p", { class: "note" }, "No rollout fits these filters."));
  }
  drawRows();
}

// --- one rollout -------------------------------------------------------------------------------------------------------

const signed = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));

function question(i) {
  return element("p", { class: "problem" }, data.problem[i], element("span", {}, "right answer ", element("b", {}, data.reference[i])));
}

function solution(i) {
  const items = data.steps[i].map((text, step) => {
    const [judged, truth] = [data.judged[i] === step, data.true[i] === step];
    return element("li", { class: judged || truth ? "error" : undefined }, element("pre", {}, text),
      judged ? element("mark", {}, "judge: first wrong step") : "", truth ? element("mark", { class: "oracle" }, "oracle: first wrong step") : "");
  });
  return element("ol", { start: 0 }, ...items);
}

function verdict(i) {
  if (data.status[i] === "skipped") return "not asked";
  if (data.status[i] !== "ok") return `no verdict (${data.status[i]})`;
  if (!data.flagged[i]) return "found no error";
  return data.judged[i] === null ? "found an error, without naming a step" : `step ${data.judged[i]} is the first wrong one`;
}

function truth(i) {
  if (!data.known[i]) return null;
  const says = data.true[i] === null ? "every step is right" : `step ${data.true[i]} is the first wrong one`;
  return element("p", { class: "oracle" }, element("b", {}, "Oracle "), says, data.flaw[i] ? ` (${data.flaw[i]})` : "");
}

function group(i) {
  const same = [];
  const keys = ["run", "split", "step", "problem_id"];
  for (let j = 0; j < data.step.length; j++) if (keys.every((key) => data[key][j] === data[key][i])) same.push(j);
  if (same.length < 2) return null;
  const members = same.map((j) => element("button", {
    type: "button", class: data.kind[j], "aria-current": j === i ? "true" : undefined, title: CLASSES[data.kind[j]], click: () => show(j),
  }, signed(data.advantage[j])));
  return element("div", { class: "group" }, element("h4", {}, "Group, with advantages"), ...members);
}

function show(i) {
  const facts = [data.run[i], data.split[i], `step ${data.step[i]}`, `reward ${signed(data.reward[i])}`];
  if (data.advantage[i] !== null) facts.push(`advantage ${signed(data.advantage[i])}`);
  if (data.num_tokens[i]) facts.push(`${data.num_tokens[i]} tokens`);
  const only = element("button", { type: "button", class: "link", click: () => { filters.elements.question.value = data.problem_id[i]; apply(); } }, "only this question");
  shown.className = data.kind[i];
  shown.replaceChildren(
    element("header", {}, element("b", { class: "kind" }, CLASSES[data.kind[i]]), element("span", {}, facts.join(" · ")), only),
    question(i),
    element("div", { class: "sides" }, solution(i), element("div", {}, element("h4", {}, "Critique"),
      element("pre", {}, data.critique[i] || "(none on record)"), element("p", {}, element("b", {}, "Judge "), verdict(i)), truth(i))),
    group(i) || "",
  );
}

// --- start ---------------------------------------------------------------------------------------------------------------

function options(select, values, all) {
  const entries = [element("option", { value: "" }, all), ...values.map((value) => element("option", { value }, value))];
  select.replaceChildren(...entries);
}

function start(columns) {
  data = columns;
  options(filters.elements.run, [...new Set(data.run)], "all");
  options(filters.elements.split, [...new Set(data.split)], "all");
  if (!data.known.some(Boolean)) filters.elements.agreement.parentElement.remove();
  if (!data.kind.includes("flawed")) for (const box of filters.querySelectorAll("[name=kind]")) box.checked = true;
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("scroll", drawRows);
  list.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (!move || event.metaKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    choose(Math.min(found.length - 1, Math.max(0, chosen + move)));
  });
  apply();
  document.body.dataset.ready = "true";
}

function tooOld(error) {
  document.getElementById("count").textContent = `The rollouts cannot be shown: ${error.message}. A browser of 2023 or later can.`;
}

const watcher = new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  watcher.disconnect();
  unpack().then(start).catch(tooOld);
}, { rootMargin: "1200px" });
watcher.observe(document.getElementById("browser"));
