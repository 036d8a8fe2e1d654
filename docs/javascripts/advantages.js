// The plot of concepts.md: shares and penalty in, advantages of the three classes out. Same formulas as fapo.rewards.
const fapoTheory = {
  rho: (alpha, beta) => alpha / beta,
  shiftRatio: (penalty) => 2 / penalty - 1,
  shrinkRatio: (penalty) => 4 / penalty - 1,
  mean: (alpha, beta, penalty) => 1 - 2 * beta - penalty * Math.max(0, 1 - alpha - beta),
  variance(alpha, beta, penalty) {
    const gamma = Math.max(0, 1 - alpha - beta);
    return 4 * alpha * beta + penalty ** 2 * alpha * gamma + (2 - penalty) ** 2 * beta * gamma;
  },
  advantages(alpha, beta, penalty) {
    const mean = this.mean(alpha, beta, penalty);
    const std = Math.sqrt(this.variance(alpha, beta, penalty));
    return [1, 1 - penalty, -1].map((reward) => (std ? (reward - mean) / std : 0));
  },
};

(function () {
  const place = document.getElementById("advantages");
  if (!place) return;
  const CLASSES = [["fully correct", "#2a9d5c"], ["flawed", "#e08a00"], ["wrong", "#d1495b"]];
  const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 310, 40, 40, 14];
  const [MAX_RHO, MAX_ADVANTAGE] = [16, 4];
  const x = (rho) => {
    const along = 0.5 + Math.log(Math.min(Math.max(rho, 1 / MAX_RHO), MAX_RHO)) / Math.log(MAX_RHO) / 2;
    return LEFT + along * (WIDTH - LEFT - 10);
  };
  const y = (advantage) => {
    const along = 0.5 - Math.min(Math.max(advantage, -MAX_ADVANTAGE), MAX_ADVANTAGE) / MAX_ADVANTAGE / 2;
    return TOP + along * (HEIGHT - TOP - BOTTOM);
  };
  const slider = (name, label, max, value) =>
    `<label>${label} <input type="range" name="${name}" min="0" max="${max}" step="0.01" value="${value}">
     <output name="${name}Shown"></output></label>`;
  const line = (x1, y1, x2, y2, more = "") => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${more}/>`;
  const text = (at, height, words, anchor = "middle") =>
    `<text x="${at}" y="${height}" text-anchor="${anchor}">${words}</text>`;

  place.innerHTML = `<style>
      #advantages { border: 1px solid #8886; padding: 0.8rem; border-radius: 4px; }
      #advantages label { display: grid; grid-template-columns: minmax(5em, 11em) minmax(0, 1fr) 3em; gap: 0.6rem; align-items: center; }
      #advantages input { width: 100%; min-width: 0; }
      #advantages svg { width: 100%; height: auto; margin-top: 0.6rem; }
      #advantages svg text { font-size: 12px; fill: currentColor; }
      #advantages svg line { stroke: currentColor; stroke-opacity: 0.25; }
      #advantages svg line.mark { stroke-dasharray: 4 3; stroke-opacity: 0.8; }
      #advantages p { margin: 0.3rem 0 0; }
      @media (max-width: 600px) { #advantages svg text { font-size: 17px; } }
    </style><form>
      ${slider("alpha", "fully correct, alpha", 1, 0.3)}
      ${slider("gamma", "flawed positive, gamma", 1, 0.2)}
      ${slider("penalty", "penalty, lambda", 3, 1)}
    </form><p></p>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Advantages of the three classes against rho"></svg>`;
  const form = place.querySelector("form");
  const number = (value) => (Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "∞");

  function draw(event) {
    const changed = event?.target;
    const other = { alpha: form.gamma, gamma: form.alpha }[changed?.name];
    if (other && Number(changed.value) + Number(other.value) > 1) other.value = 1 - changed.value;
    const [alpha, gamma, penalty] = ["alpha", "gamma", "penalty"].map((name) => Number(form[name].value));
    for (const name of ["alpha", "gamma", "penalty"]) form[`${name}Shown`].value = number(Number(form[name].value));
    const beta = Math.max(0, 1 - alpha - gamma);
    const [rho, shift] = [fapoTheory.rho(alpha, beta), fapoTheory.shiftRatio(penalty)];
    const now = fapoTheory.advantages(alpha, beta, penalty);
    const told = now.map((value, i) => `<b style="color:${CLASSES[i][1]}">${CLASSES[i][0]} ${number(value)}</b>`);
    place.querySelector("p").innerHTML =
      `wrong, beta ${number(beta)} · rho ${Number.isNaN(rho) ? "undefined" : number(rho)} · ` +
      `shift at rho ${number(shift)} · advantages: ${told.join(", ")}`;

    const curve = (i) => {
      const points = [];
      for (let step = 0; step <= 120; step++) {
        const along = MAX_RHO ** (step / 60 - 1);
        const [right, wrong] = [along, 1].map((part) => ((1 - gamma) * part) / (1 + along));
        points.push(`${x(along).toFixed(1)},${y(fapoTheory.advantages(right, wrong, penalty)[i]).toFixed(1)}`);
      }
      return `<polyline fill="none" stroke-width="2" stroke="${CLASSES[i][1]}" points="${points.join(" ")}"/>`;
    };
    const parts = [];
    for (const value of [-2, 0, 2]) {
      parts.push(line(LEFT, y(value), WIDTH - 10, y(value)), text(LEFT - 6, y(value) + 4, String(value).replace("-", "−"), "end"));
    }
    for (const value of [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]) {
      parts.push(text(x(value), HEIGHT - 22, value < 1 ? `1/${1 / value}` : value));
    }
    parts.push(text(WIDTH / 2, HEIGHT - 6, "rho = alpha / beta"), curve(0), curve(1), curve(2));
    if (shift > 1 / MAX_RHO && shift < MAX_RHO) {
      parts.push(line(x(shift), TOP, x(shift), HEIGHT - BOTTOM, 'class="mark"'), text(x(shift), TOP - 2, "shift"));
    }
    now.forEach((value, i) => {
      if (!Number.isNaN(rho)) parts.push(`<circle r="5" cx="${x(rho)}" cy="${y(value)}" fill="${CLASSES[i][1]}"/>`);
    });
    place.querySelector("svg").innerHTML = parts.join("");
  }

  form.addEventListener("input", draw);
  draw();
})();
