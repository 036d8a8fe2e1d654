// Formulas: LaTeX in a text becomes MathML. A formula with anything unknown in it stays as its source.
//
// No text becomes markup: the elements are those named here, and everything else is a text node or the text on hover.

// A dollar sign opens a formula only before, and closes one only after a character that is no blank; prices stay text.
const FORMULA = /\\\[([^]{1,2000}?)\\\]|\\\(([^]{1,2000}?)\\\)|\$\$([^$]{1,2000}?)\$\$|\$(?=\S)((?:[^$\\\n]|\\.|\n(?!\n)){0,2000}?[^\s\\$])\$(?!\d)/g;
const TOKEN = /\\(?:[a-zA-Z]+\*?|[^])|\d+(?:[.,]\d+)*|\s+|[^]/gu;
const MAX_DEPTH = 60;
const SYMBOLS = {
  mi: "alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ nu ν "
    + "xi ξ pi π rho ρ sigma σ tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π "
    + "Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω infty ∞ emptyset ∅ varnothing ∅ ell ℓ hbar ℏ Re ℜ Im ℑ aleph ℵ partial ∂ nabla ∇ "
    + "angle ∠ triangle △ circ ∘ degree ° ldots … dots … cdots ⋯ vdots ⋮ ddots ⋱ dotsc … dotsb ⋯ square □ checkmark ✓",
  mo: "cdot ⋅ times × div ÷ pm ± mp ∓ ast ∗ star ⋆ bullet ∙ oplus ⊕ otimes ⊗ cup ∪ cap ∩ setminus ∖ wedge ∧ land ∧ vee ∨ lor ∨ "
    + "neg ¬ lnot ¬ leq ≤ le ≤ leqslant ⩽ geq ≥ ge ≥ geqslant ⩾ neq ≠ ne ≠ equiv ≡ approx ≈ sim ∼ simeq ≃ cong ≅ propto ∝ ll ≪ "
    + "gg ≫ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ supset ⊃ supseteq ⊇ mid ∣ nmid ∤ parallel ∥ perp ⊥ forall ∀ exists ∃ "
    + "to → rightarrow → leftarrow ← leftrightarrow ↔ Rightarrow ⇒ Leftarrow ⇐ Leftrightarrow ⇔ implies ⟹ iff ⟺ mapsto ↦ "
    + "longrightarrow ⟶ uparrow ↑ downarrow ↓ therefore ∴ because ∵ colon : lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ langle ⟨ rangle ⟩ "
    + "lvert | rvert | vert | Vert ‖ lVert ‖ rVert ‖ lbrace { rbrace } lbrack [ rbrack ] backslash \\ prime ′ int ∫ iint ∬ oint ∮",
  limits: "sum ∑ prod ∏ bigcup ⋃ bigcap ⋂ lim lim max max min min sup sup inf inf limsup lim⁡sup liminf lim⁡inf",
  names: "sin sin cos cos tan tan cot cot sec sec csc csc arcsin arcsin arccos arccos arctan arctan sinh sinh cosh cosh tanh tanh "
    + "log log ln ln lg lg exp exp gcd gcd lcm lcm det det dim dim deg deg arg arg ker ker",
};
const KNOWN = new Map(Object.entries(SYMBOLS).flatMap(([kind, text]) => {
  const words = text.split(" ");
  return words.flatMap((word, i) => (i % 2 ? [] : [[`\\${word}`, [kind, words[i + 1]]]]));
}));
const SPACES = { "\\,": 0.17, "\\:": 0.22, "\\;": 0.28, "\\ ": 0.25, "\\quad": 1, "\\qquad": 2, "~": 0.25, "\\!": 0 };
const ACCENTS = {
  "\\overline": "‾", "\\bar": "‾", "\\vec": "→", "\\hat": "^", "\\widehat": "^", "\\tilde": "~", "\\dot": "˙", "\\ddot": "¨",
  "\\overrightarrow": "→", "\\overbrace": "⏞", "\\underline": "_", "\\underbrace": "⏟",
};
const BLACKBOARD = { N: "ℕ", Z: "ℤ", Q: "ℚ", R: "ℝ", C: "ℂ", P: "ℙ", E: "𝔼", F: "𝔽" };
const WORDS = ["\\text", "\\textrm", "\\textit", "\\mathrm", "\\operatorname", "\\mbox", "\\textnormal"];
const BOLD = ["\\textbf", "\\mathbf", "\\boldsymbol", "\\bm"];
const NOTHING = ["\\displaystyle", "\\textstyle", "\\limits", "\\nolimits"];
const SIZES = /^\\(?:big|Big|bigg|Bigg)[lrm]?$/;
const FENCES = { matrix: "  ", pmatrix: "()", bmatrix: "[]", vmatrix: "||", Bmatrix: "{}", cases: "{ " };
const TABLES = ["array", "aligned", "align", "align*", "gathered", "gather*", "gather", "split", "equation", "equation*", ...Object.keys(FENCES)];

class Unknown extends Error {}

class Parser {
  constructor(source) {
    this.tokens = source.match(TOKEN) || [];
    this.at = 0;
    this.depth = 0;
  }

  math(tag, ...children) {
    return element(`math:${tag}`, {}, ...children);
  }

  peek() {
    while (/^\s/.test(this.tokens[this.at] ?? "")) this.at++;
    return this.tokens[this.at];
  }

  next() {
    const token = this.peek();
    if (token === undefined) throw new Unknown("end");
    this.at++;
    return token;
  }

  expect(token) {
    if (this.next() !== token) throw new Unknown(token);
  }

  // Atoms with their indices up to one of the tokens that end them.
  row(ends) {
    if (++this.depth > MAX_DEPTH) throw new Unknown("too deep");
    const out = [];
    while (!ends.includes(this.peek())) {
      if (this.peek() === undefined) throw new Unknown("end");
      const word = /^[a-z]{2}/.test(KNOWN.get(this.peek())?.[1] ?? ""); // such as sin: a blank keeps it from its argument
      const atom = this.scripted();
      if (atom) out.push(atom);
      if (word && ![...ends, "(", "[", "\\left"].includes(this.peek())) out.push(this.space(SPACES["\\,"]));
    }
    this.depth--;
    return out;
  }

  space(width) {
    return element("math:mspace", { width: `${width}em` });
  }

  group() {
    if (this.peek() !== "{") return this.atom() ?? this.math("mrow");
    this.next();
    const inside = this.row(["}"]);
    this.expect("}");
    return inside.length === 1 ? inside[0] : this.math("mrow", ...inside);
  }

  // The text in braces as it stands, with braces in pairs.
  words() {
    this.expect("{");
    let text = "";
    for (let open = 1; ;) {
      const token = this.tokens[this.at++];
      if (token === undefined) throw new Unknown("end");
      open += token === "{" ? 1 : token === "}" ? -1 : 0;
      if (!open) return text.replace(/ /g, "\u00a0");
      if (/^\\[a-zA-Z]/.test(token) || token === "$") throw new Unknown(token);
      text += token.replace(/^\\/, "");
    }
  }

  scripted() {
    const limits = KNOWN.get(this.peek())?.[0] === "limits" || ["\\underbrace", "\\overbrace"].includes(this.peek());
    const base = ["^", "_", "'"].includes(this.peek()) ? this.math("mrow") : this.atom();
    let [lower, upper, primes] = [null, null, ""];
    for (; ;) {
      const token = this.peek();
      if (token === "'") primes += "′";
      else if (token === "_" && !lower) { this.next(); lower = this.group(); continue; }
      else if (token === "^" && !upper) { this.next(); upper = this.group(); continue; }
      else if (token === "_" || token === "^") throw new Unknown("two indices");
      else if (NOTHING.includes(token) && limits) { this.next(); continue; }
      else break;
      this.next();
    }
    if (primes) upper = this.math("mrow", this.math("mo", primes), upper);
    if (!lower && !upper) return base;
    const tags = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    return this.math(tags[lower && upper ? 2 : upper ? 1 : 0], base ?? this.math("mrow"), lower, upper);
  }

  atom() {
    const token = this.next();
    if (++this.depth > MAX_DEPTH) throw new Unknown("too deep");
    const made = this.made(token);
    this.depth--;
    return made;
  }

  made(token) {
    if (token === "{") { this.at--; return this.group(); }
    if (/^\d/.test(token)) return this.math("mn", token);
    if (/^\p{L}$/u.test(token)) return this.math("mi", token);
    if (token in SPACES) return this.space(SPACES[token]);
    if (NOTHING.includes(token)) return null;
    if (/^\\[{}%$#&_|]$/.test(token)) return this.math("mo", token === "\\|" ? "‖" : token[1]);
    if (/^[()[\]|]$/.test(token)) return element("math:mo", { stretchy: "false" }, token);
    if (token === "-" || token === "+") return element("math:mo", { form: this.isSign() ? "prefix" : "infix" }, token === "-" ? "−" : token);
    if (/^[*/=<>,.;:!?]$/.test(token)) return this.math("mo", token);
    if (!token.startsWith("\\")) {
      if (/^[^\p{C}\p{Z}\\{}^_&#$%~'"`]$/u.test(token)) return this.math("mo", token);
      throw new Unknown(token);
    }
    const known = KNOWN.get(token);
    if (known) return this.math(known[0] === "limits" ? "mo" : known[0] === "names" ? "mi" : known[0], known[1]);
    if (["\\frac", "\\dfrac", "\\tfrac", "\\cfrac"].includes(token)) return this.math("mfrac", this.group(), this.group());
    if (["\\binom", "\\dbinom", "\\tbinom"].includes(token)) {
      const over = element("math:mfrac", { linethickness: "0" }, this.group(), this.group());
      return this.math("mrow", this.math("mo", "("), over, this.math("mo", ")"));
    }
    if (token === "\\sqrt") {
      if (this.peek() !== "[") return this.math("msqrt", this.group());
      this.next();
      const degree = this.math("mrow", ...this.row(["]"]));
      this.expect("]");
      return this.math("mroot", this.group(), degree);
    }
    if (token === "\\boxed" || token === "\\fbox") return element("math:mrow", { class: "boxed" }, this.group());
    if (WORDS.includes(token)) return this.math("mtext", this.words());
    if (BOLD.includes(token)) return element("math:mtext", { class: "bold" }, this.words());
    if (token === "\\mathbb") {
      const letter = this.words();
      if (!(letter in BLACKBOARD)) throw new Unknown(letter);
      return this.math("mi", BLACKBOARD[letter]);
    }
    if (token in ACCENTS) {
      const under = token.startsWith("\\under");
      return this.math(under ? "munder" : "mover", this.group(), element("math:mo", { stretchy: "true" }, ACCENTS[token]));
    }
    if (["\\overset", "\\stackrel", "\\underset"].includes(token)) {
      const other = this.group();
      return this.math(token === "\\underset" ? "munder" : "mover", this.group(), other);
    }
    if (token === "\\pmod") return this.math("mrow", this.math("mo", "("), this.math("mtext", "mod\u00a0"), this.group(), this.math("mo", ")"));
    if (token === "\\bmod" || token === "\\mod") return this.math("mtext", "\u00a0mod\u00a0");
    if (token === "\\not" && this.peek() === "=") { this.next(); return this.math("mo", "≠"); }
    if (SIZES.test(token)) return this.fence();
    if (token === "\\left") {
      const open = this.fence();
      const inside = this.row(["\\right"]);
      this.expect("\\right");
      return this.math("mrow", open, ...inside, this.fence());
    }
    if (token === "\\begin") return this.table();
    throw new Unknown(token);
  }

  // Whether the plus or minus that was just read is a sign, not between two numbers.
  isSign() {
    const before = this.tokens.slice(0, this.at - 1).findLast((token) => token.trim());
    const [kind, sign] = KNOWN.get(before) ?? ["", ""];
    return before === undefined || /^[=<>([{,&^_*/+-]$/.test(before) || before === "\\\\" || (kind === "mo" && !/[⌋⌉⟩}\]|]/.test(sign));
  }

  fence() {
    const token = this.next();
    const sign = KNOWN.get(token)?.[1] ?? token.replace(/^\\(?=[{}|])/, "");
    if (sign === ".") return this.math("mrow");
    if (!/^[()[\]{}|/⌊⌋⌈⌉⟨⟩‖<>↑↓\\]$/.test(sign)) throw new Unknown(token);
    return element("math:mo", { stretchy: "true", fence: "true" }, token === "\\|" ? "‖" : sign);
  }

  table() {
    const name = this.words();
    if (!TABLES.includes(name)) throw new Unknown(name);
    if (name === "array") this.words();
    const rows = [[]];
    for (let end = ""; end !== "\\end";) {
      rows.at(-1).push(this.math("mtd", ...this.row(["&", "\\\\", "\\end"])));
      end = this.next();
      if (end === "\\\\") rows.push([]);
      if (end === "\\\\" && this.tokens[this.at] === "[") throw new Unknown("a distance of rows");
    }
    if (this.words() !== name) throw new Unknown(name);
    const table = element("math:mtable", { class: name.startsWith("align") || name === "split" ? "aligned" : undefined },
      ...rows.map((cells) => this.math("mtr", ...cells)));
    const fences = [...(FENCES[name] ?? "  ")].map((sign) => (sign === " " ? "" : element("math:mo", { stretchy: "true", fence: "true" }, sign)));
    return this.math("mrow", fences[0], table, fences[1]);
  }
}

// The parts of a text: formulas that are understood as elements, all else as text.
function withFormulas(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(FORMULA)) {
    const [display, inline, dollars, dollar] = match.slice(1);
    try {
      const parser = new Parser(display ?? inline ?? dollars ?? dollar);
      const row = parser.row([undefined]);
      const block = display !== undefined || dollars !== undefined;
      const math = element("math:math", { display: block ? "block" : "inline" }, ...row);
      parts.push(text.slice(end, match.index), element("span", { class: "formula", title: match[0] }, math)); // the source on hover
      end = match.index + match[0].length;
      if (block) end += /^[ \t]*\n?[ \t]*/.exec(text.slice(end))[0].length; // it ends its line already
    } catch (error) {
      if (!(error instanceof Unknown)) throw error;
    }
  }
  return [...parts, text.slice(end)];
}
