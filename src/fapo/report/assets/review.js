// Review by hand: a seeded draw of right answers, a label for each step by keyboard, the labels as a file.

const drawing = document.getElementById("draw");
const labelling = document.getElementById("labelling");
let drawn = []; // rollouts to label
let labels = []; // for each of them "fine", "flawed" or null for each step
let at = 0; // place in `drawn`
let step = 0; // the step the keys speak about
let drawnBy = null; // seed and kind of the draw, as the file of labels says them
let saved = true;

function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function sample(candidates, num, seed) {
  const random = randomNumbers(seed);
  const rest = [...candidates];
  for (let i = 0; i < Math.min(num, rest.length); i++) {
    const j = i + Math.floor(random() * (rest.length - i));
    [rest[i], rest[j]] = [rest[j], rest[i]];
  }
  return rest.slice(0, num);
}

const firstFlawed = (of) => { const index = of.indexOf("flawed"); return index < 0 ? null : index; };
const complete = (of) => firstFlawed(of) !== null || !of.includes(null);

// As many flagged as cleared solutions, in an order that tells nothing; where one kind is rare, all of it.
function balanced(candidates, num, seed) {
  const of = (flagged) => candidates.filter((i) => data.flagged[i] === flagged);
  const half = Math.min(Math.floor(num / 2), of(true).length, of(false).length);
  return sample([...sample(of(true), half, seed), ...sample(of(false), half, seed)], 2 * half, seed + 1);
}

function begin(event) {
  event.preventDefault();
  if (!data || (!saved && !confirm("Draw anew? Labels that were not exported are lost."))) return;
  const form = scope();
  const candidates = [];
  for (let i = 0; i < data.step.length; i++) {
    if (data.correct[i] && data.steps[i].length && inScope(i, form)) candidates.push(i);
  }
  const audited = candidates.filter((i) => data.audited[i]); // the audit of the run has drawn them for a person
  drawnBy = { seed: Number(drawing.elements.seed.value), balanced: drawing.elements.of.value === "balanced" };
  drawn = (drawnBy.balanced ? balanced : sample)(audited.length ? audited : candidates, Number(drawing.elements.num.value), drawnBy.seed);
  labels = drawn.map((i) => data.steps[i].map(() => null));
  saved = true;
  labelling.hidden = false;
  go(0);
  labelling.focus({ preventScroll: true });
  labelling.scrollIntoView({ block: "nearest" });
}

function go(place) {
  at = Math.min(drawn.length - 1, Math.max(0, place));
  step = 0;
  drawLabelling();
}

function set(label) {
  const mine = labels[at];
  if (label === "flawed") mine.forEach((_, k) => { mine[k] = k < step ? "fine" : k === step ? "flawed" : null; });
  else if (label === "fine") mine[step] = "fine";
  else mine.forEach((_, k) => { mine[k] = "fine"; });
  saved = false;
  if (complete(mine)) {
    const next = labels.findIndex((of, place) => place > at && !complete(of));
    if (next >= 0) return go(next);
  } else {
    step = Math.min(mine.length - 1, step + 1);
  }
  return drawLabelling();
}

const KEYS = {
  f: () => set("fine"), x: () => set("flawed"), a: () => set("all fine"),
  ArrowDown: () => { step = Math.min(labels[at].length - 1, step + 1); drawLabelling(); },
  ArrowUp: () => { step = Math.max(0, step - 1); drawLabelling(); },
  ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1),
};

function drawLabelling() {
  const done = labels.filter(complete).length;
  document.getElementById("progress").textContent = `${done} of ${drawn.length} labelled`;
  document.getElementById("export").disabled = !done;
  if (!drawn.length) {
    labelling.replaceChildren(element("p", { class: "note" }, "No right answer among the rollouts chosen above."));
    return;
  }
  const i = drawn[at];
  const items = data.steps[i].map((text, k) => element("li", {
    class: labels[at][k] || undefined, "aria-current": k === step ? "step" : undefined, click: () => { step = k; drawLabelling(); },
  }, element("pre", {}, ...prose(text)), labels[at][k] ? element("mark", {}, labels[at][k]) : ""));
  const button = (key, text, label) => element("button", { type: "button", class: label, click: KEYS[key] }, element("kbd", {}, key.replace("Arrow", "")), text);
  labelling.replaceChildren(
    element("header", {}, element("b", { class: "kind" }, `${at + 1} / ${drawn.length}`),
      element("span", {}, complete(labels[at]) ? (firstFlawed(labels[at]) === null ? "fine" : "flawed") : "to be labelled")),
    question(i),
    element("ol", { start: 0, class: "steps" }, ...items),
    element("div", { class: "keys" }, button("f", "step is fine", "fine"), button("x", "first wrong step", "flawed"), button("a", "all fine", "fine"),
      button("ArrowLeft", "back"), button("ArrowRight", "on"), element("span", {}, "up and down: another step")),
  );
}

// FNV-1a of the steps without blanks: shows later whether a label is about the same text (`text_hash` in Python).
function textHash(steps) {
  const text = steps.join("").replace(/[ \t\r\n]/g, "");
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return (value >>> 0).toString(16).padStart(8, "0");
}

function file() {
  const rows = [];
  drawn.forEach((i, place) => {
    if (!complete(labels[place])) return;
    const error_step = firstFlawed(labels[place]);
    const steps = error_step === null ? labels[place] : labels[place].slice(0, error_step + 1);
    rows.push({ run: data.run[i], split: data.split[i], step: data.step[i], problem_id: data.problem_id[i], sample: data.sample[i], steps, error_step, text_hash: textHash(data.steps[i]) });
  });
  return { schema: 1, ...drawnBy, drawn: drawn.length, labels: rows };
}

function save() {
  saveAs("labels.json", "application/json", JSON.stringify(file(), null, 1));
  saved = true;
}

drawing.addEventListener("submit", begin);
document.getElementById("export").addEventListener("click", save);
labelling.addEventListener("keydown", (event) => {
  const key = KEYS[event.key];
  if (!key || !drawn.length || event.metaKey || event.ctrlKey || event.altKey) return;
  event.preventDefault();
  key();
});
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
