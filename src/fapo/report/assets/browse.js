// The rollout browser.

const ROW_HEIGHT = 38;
const CLASSES = { fully_correct: "fully correct", flawed: "flawed", wrong: "wrong", unscored: "unscored" };
const filters = document.getElementById("filters");
const list = document.getElementById("list");
const shown = document.getElementById("shown");
const FIELDS = ["run", "split", "step", "problem_id", "sample"]; // the key of a rollout, in links
const ORDERS = {
  latest: (a, b) => data.step[b] - data.step[a] || a - b,
  earliest: (a, b) => data.step[a] - data.step[b] || a - b,
  longest: (a, b) => size(b) - size(a) || a - b,
  shortest: (a, b) => size(a) - size(b) || a - b,
  error: (a, b) => (data.judged[a] ?? Infinity) - (data.judged[b] ?? Infinity) || a - b,
};
let data = null; // column -> values, one for each rollout
let texts = []; // rollout -> its text in lower case, made when it is first searched
let varied = new Set(); // columns with several values
let found = []; // rollouts that pass the filters, in the order chosen
let chosen = -1; // place in `found`
let showing = -1; // rollout on view

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
    && (!form.from || step >= Number(form.from)) && (!form.to || step <= Number(form.to));
}

function scope() {
  return Object.fromEntries(new FormData(filters));
}

function size(i) {
  return data.num_tokens[i] || data.steps[i].reduce((sum, text) => sum + text.length, 0);
}

function text(i) {
  texts[i] ??= [data.problem[i], ...data.steps[i], data.critique[i]].join("\n").toLowerCase();
  return texts[i];
}

function second(i) {
  if (data.flagged[i] === null || data.second[i] === null) return "";
  return data.flagged[i] === data.second[i] ? "agree" : "differ";
}

function passes(i, form, words) {
  if (!inScope(i, form) || (form.agreement && agreement(i) !== form.agreement)) return false;
  if ((form.error_kind && data.error_kind[i] !== form.error_kind) || (form.second && second(i) !== form.second)) return false;
  if (!words.length || data.problem_id[i] === form.question) return true;
  return words.every((word) => text(i).includes(word));
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
  found.sort(ORDERS[form.order]);
  for (const chip of filters.querySelectorAll(".chip")) {
    chip.querySelector("b").textContent = counts[chip.querySelector("input").value].toLocaleString("en");
  }
  document.getElementById("count").textContent =
    `${found.length.toLocaleString("en")} of ${data.step.length.toLocaleString("en")} ${list.getAttribute("aria-label")}`;
  list.firstElementChild.style.height = `${found.length * ROW_HEIGHT}px`;
  list.scrollTop = 0;
  choose(found.length ? 0 : -1);
}

// A flagged rollout with its critique shows best what the page is about: best where the oracle agrees, and where the
// verdict made a difference within the group.
function telling() {
  const flagged = (i) => data.flagged[i] && data.critique[i];
  const agreed = (i) => flagged(i) && agreement(i) === "agree";
  for (const fits of [(i) => agreed(i) && data.advantage[i] && data.advantage[i] < 0, agreed, flagged]) {
    const place = found.findIndex(fits);
    if (place >= 0) return place;
  }
  return Math.min(0, found.length - 1);
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
    }, element("i", { title: CLASSES[data.kind[i]] }), varied.has("step") ? element("b", {}, String(data.step[i])) : "",
    element("span", {}, data.problem[i]), element("small", {}, brief(i)));
    row.style.transform = `translateY(${place * ROW_HEIGHT}px)`;
    rows.push(row);
  }
  list.firstElementChild.replaceChildren(...rows);
}

function brief(i) {
  const parts = [varied.has("run") ? data.run[i] : "", data.judged[i] === null ? "" : `step ${data.judged[i]} wrong`];
  return parts.filter(Boolean).join(" · ");
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
    shown.replaceChildren(element("p", { class: "note" }, "Nothing fits these filters."));
  }
  drawRows();
}

// --- one rollout -------------------------------------------------------------------------------------------------------

const signed = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));

// A text, with its formulas drawn or as their source.
function prose(text) {
  return filters.elements.formulas?.value === "drawn" ? withFormulas(text) : [text];
}

function redraw() {
  if (showing >= 0) show(showing);
  if (drawn.length) drawLabelling();
}

function question(i) {
  const answer = data.reference[i] ? element("span", {}, "right answer ", element("b", {}, data.reference[i])) : null;
  return element("p", { class: "problem" }, ...prose(data.problem[i]), answer);
}

function solution(i) {
  const items = data.steps[i].map((text, step) => {
    const [judged, truth, other] = [data.judged[i] === step, data.true[i] === step, data.second_step[i] === step];
    return element("li", { class: judged || truth || other ? "error" : undefined }, element("pre", {}, ...prose(text)),
      judged ? element("mark", {}, "judge: first wrong step") : "", truth ? element("mark", { class: "oracle" }, "oracle: first wrong step") : "",
      other ? element("mark", { class: "oracle" }, "second judge: first wrong step") : "");
  });
  return element("ol", { start: 0 }, ...items);
}

function verdict(i) {
  if (data.status[i] === "skipped") return "not asked";
  if (data.status[i] !== "ok") return `no verdict (${data.status[i]})`;
  return finding(data.flagged[i], data.judged[i]) + (data.error_kind[i] ? ` (kind by its words: ${data.error_kind[i]})` : "");
}

function finding(flagged, step) {
  if (!flagged) return "found no error";
  return step === null ? "found an error, without naming a step" : `step ${step} is the first wrong one`;
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
  return element("div", { class: "group" }, element("h3", {}, "Group, with advantages"), ...members);
}

function show(i) {
  const facts = [varied.has("run") || varied.has("step") ? data.run[i] : "", data.split[i]].filter(Boolean);
  if (varied.has("step")) facts.push(`step ${data.step[i]}`);
  if (varied.has("reward")) facts.push(`reward ${signed(data.reward[i])}`);
  if (data.advantage[i] !== null) facts.push(`advantage ${signed(data.advantage[i])}`);
  if (data.num_tokens[i]) facts.push(`${data.num_tokens[i]} tokens`);
  const only = element("button", { type: "button", class: "link", click: () => { filters.elements.question.value = data.problem_id[i]; apply(); } }, "only this question");
  const link = element("a", { class: "link", href: address(i) }, "link");
  showing = i;
  shown.className = data.kind[i];
  shown.replaceChildren(
    element("header", {}, element("b", { class: "kind" }, CLASSES[data.kind[i]]), element("span", {}, facts.join(" · ")), only, link),
    question(i),
    element("div", { class: "sides" }, solution(i), element("div", {}, element("h3", {}, "Critique"),
      element("pre", {}, ...prose(data.critique[i] || "(none on record)")), element("p", {}, element("b", {}, "Judge "), verdict(i)),
      data.second[i] === null ? null : element("p", {}, element("b", {}, "Second judge "), finding(data.second[i], data.second_step[i])), truth(i))),
    group(i) || "",
  );
}

// --- a link to one rollout -------------------------------------------------------------------------------------------

function address(i) {
  return "#rollout=" + FIELDS.map((name) => encodeURIComponent(data[name][i])).join("/");
}

function follow() {
  if (!location.hash.startsWith("#rollout=")) return false;
  const wanted = location.hash;
  const i = data.step.findIndex((_, j) => address(j) === wanted);
  if (i < 0) {
    document.getElementById("count").textContent = "The rollout of this link is not on the page.";
    return false;
  }
  if (!found.includes(i)) {
    filters.reset();
    for (const box of filters.querySelectorAll("[name=kind]")) box.checked = true;
    apply();
  }
  choose(found.indexOf(i));
  document.getElementById("browser").scrollIntoView();
  return true;
}

// --- start ---------------------------------------------------------------------------------------------------------------

function options(select, values, all) {
  const entries = [element("option", { value: "" }, all), ...values.map((value) => element("option", { value }, value))];
  select.replaceChildren(...entries);
}

function start(columns) {
  for (const [name, column] of Object.entries(columns)) {
    if (!Array.isArray(column)) columns[name] = column.rows.map((i) => column.names[i]);
  }
  data = columns;
  for (const name of ["run", "step", "split", "reward"]) if (data[name].some((value) => value !== data[name][0])) varied.add(name);
  for (const name of ["run", "split", "error_kind"]) {
    const values = [...new Set(data[name])].filter(Boolean);
    if (values.length > 1) options(filters.elements[name], values, "all");
    else filters.elements[name].parentElement.remove();
  }
  if (!varied.has("step")) filters.elements.from.closest("label").remove();
  if (!data.known.some(Boolean)) filters.elements.agreement.parentElement.remove();
  if (!data.second.some((value) => value !== null)) filters.elements.second.parentElement.remove();
  if (!data.kind.includes("flawed")) for (const box of filters.querySelectorAll("[name=kind]")) box.checked = true;
  const hasFormula = (text) => /\\[[(]|\$/.test(text);
  if (![data.problem, ...data.steps, data.critique].some((column) => column.some(hasFormula))) filters.elements.formulas.parentElement.remove();
  filters.addEventListener("input", (event) => (event.target.name === "formulas" ? redraw() : apply()));
  filters.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("scroll", drawRows);
  list.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (!move || event.metaKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    choose(Math.min(found.length - 1, Math.max(0, chosen + move)));
  });
  apply();
  if (!follow()) choose(telling());
  window.addEventListener("hashchange", follow);
  document.body.dataset.ready = "true";
}

function tooOld(error) {
  document.getElementById("count").textContent = `The rollouts cannot be shown: ${error.message}. A browser of 2023 or later can.`;
}

const watcher = new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  watcher.disconnect();
  unpack("rollouts").then(start).catch(tooOld);
}, { rootMargin: "1200px" });
watcher.observe(document.getElementById("browser"));
if (location.hash.startsWith("#rollout=")) document.getElementById("browser").scrollIntoView();
