"""Compute the claims, curves and tables of the paper from the runs of `python -m experiments.miniature paper`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.paper.changes import end, gain, gap, measured_series, start
from experiments.paper.claims import Claim
from fapo.report.panels import Curve, Panel, Scale, Style
from fapo.training.run_reader import NOTHING, Run, Series

Runs = Mapping[str, Mapping[int, Run]]
"""Runs by variant ("baseline", "fapo", ...) and seed."""
EARLY = 10
"""Number of steps that count as the beginning, or the end, of training."""
LOOKS: dict[str, tuple[str, Style]] = {
    "baseline": ("GRPO baseline", Style("orange")),
    "fapo": ("FAPO", Style("blue")),
    "negative": ("FP -> negative", Style("pink")),
    "shift-2": ("λ = 2/3", Style("sky")),
    "shift-half": ("λ = 4/3", Style("blue", 1)),
    "step-ratio": ("step ratio", Style("red")),
    "base-judge": ("FAPO, base GenRM", Style("green")),
    "oracle": ("FAPO, oracle", Style("grey")),
    "decoupled": ("decoupled advantages", Style("violet")),
    "decoupled-third": ("decoupled advantages, w = 1/3", Style("violet", 1)),
    "decoupled-3": ("decoupled advantages, w = 3", Style("violet", 2)),
    "filter": ("consistency filter, keeps 4 of 8", Style("sky")),
    "penalty-1.5": ("λ = 3/2", Style("pink", 1)),
    "penalty-3": ("λ = 3", Style("pink", 2)),
    "shared": ("first-error credit", Style("green")),
    "shared-2": ("first-error credit, λ = 2", Style("sky", 2)),
    "shared-misplaced": ("first-error credit, half of the errors at another step", Style("grey")),
    "shared-misplaced-75": ("first-error credit, three in four errors at another step", Style("grey", 1)),
    "first-error": ("first-error credit, whole", Style("green", 1)),
    "first-error-0": ("first-error credit, whole, λ = 0", Style("orange", 2)),
    "first-error-2": ("first-error credit, whole, λ = 2", Style("sky", 1)),
    "audited": ("FAPO, corrected for the rates of an audit", Style("orange", 1)),
    "first-error-misplaced-20": ("first-error credit, whole, a fifth of the errors at another step", Style("red")),
    "first-error-misplaced": ("first-error credit, whole, half of the errors at another step", Style("red", 1)),
    "cascade-05": ("cascade, bound .05", Style("green")),
    "cascade-02": ("cascade, bound .02", Style("green", 1)),
    "genrm": ("Step-RL", Style("green")),
    "genrm-outcome": ("outcome only", Style("pink")),
    "genrm-sft": ("imitation", Style("orange")),
    "genrm-noise-10": ("Step-RL, 10 % of the labels wrong", Style("green", 1)),
    "genrm-noise-20": ("Step-RL, 20 % of the labels wrong", Style("green", 2)),
    "genrm-outcome-noise-10": ("outcome only, 10 % of the labels wrong", Style("pink", 1)),
    "genrm-outcome-noise-20": ("outcome only, 20 % of the labels wrong", Style("pink", 2)),
    "false-negatives-50": ("oracle, passes 50 %", Style("sky")),
    "false-negatives-80": ("oracle, passes 80 %", Style("sky", 1)),
    "false-positives-20": ("oracle, flags 20 % of the fully correct", Style("red")),
    "false-positives-50": ("oracle, flags 50 % of the fully correct", Style("red", 1)),
    "false-negatives-80-corrected": ("oracle, passes 80 %, corrected", Style("sky", 2)),
    "false-negatives-80-audited": ("oracle, passes 80 %, corrected for the rates of an audit", Style("sky", 2)),
    "false-positives-50-corrected": ("oracle, flags 50 % of the fully correct, corrected", Style("red", 2)),
    "policy-careless": ("imitates a careless writer", Style("red")),
    "policy-guessing": ("imitates a guessing writer", Style("pink")),
    "policy-careful": ("imitates a careful writer", Style("green")),
}
"""Name for readers and style of the curves of each variant."""
_SHIPPED = "the shipped base policy"
_EASY, _HARD, _FP = "validation/accuracy", "harder/accuracy", "validation/true_fp_ratio"


@dataclass(frozen=True)
class Finding:
    """One figure or table of the paper, repeated in the miniature."""

    key: str
    """Number of the figure or table in the paper."""
    title: str
    """Title."""
    claims: tuple[Claim, ...]
    """Claims of the paper, measured on our runs."""
    panels: tuple[Panel, ...] = ()
    """Panels of the picture."""
    variants: tuple[str, ...] = ()
    """Variants with a curve in the picture."""
    table: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None
    """One number for each seed, by row and column."""

    @property
    def is_measured(self) -> bool:
        """Whether any of its claims has been measured."""
        return any(claim.margins for claim in self.claims)


def all_findings(runs: Runs) -> list[Finding]:
    """Return every figure and table; those without finished runs have no numbers."""
    return [make(runs) for make in _FIGURES]


# --- the figures, in the paper's order --------------------------------------------------------------------------------


def _f1(runs: Runs) -> Finding:
    shown = ("baseline", "fapo")
    return Finding(
        "F1",
        "FP ratio and accuracy over training",
        (
            _difference(runs, "FAPO ends with a lower true FP ratio than the baseline", "fapo", "baseline", _FP),
            _difference(runs, "FAPO ends more accurate in-distribution", "baseline", "fapo", _EASY),
            _difference(runs, "FAPO ends more accurate on harder problems", "baseline", "fapo", _HARD),
        ),
        _curves(runs, shown, ((_FP, "True FP ratio"), (_EASY, "Accuracy"), (_HARD, "Accuracy, harder"))),
        shown,
    )


def _f2a(runs: Runs) -> Finding:
    bases = {
        name: runs[name]
        for name in ("policy-careless", "policy-guessing", "baseline", "policy-careful")
        if name in runs
    }
    policies = runs.get("baseline", {})
    first = {
        seed: min(_at(by_seed[seed], _FP, 0) for by_seed in bases.values() if seed in by_seed) for seed in policies
    }
    later = {seed: min(run.series(_FP).values) for seed, run in policies.items() if run.series(_FP)}
    rows = {LOOKS[name][0] if name != "baseline" else _SHIPPED: (by_seed, 0.0) for name, by_seed in bases.items()}
    steps = next(iter(policies.values())).series(_FP).steps if policies else ()
    rows |= {f"{_SHIPPED}, after {step:.0f} steps of the baseline": (policies, step) for step in steps if step}
    table = {
        title: {
            "accuracy": tuple(_at(run, _EASY, step) for run in by_seed.values()),
            "true FP ratio": tuple(_at(run, _FP, step) for run in by_seed.values()),
        }
        for title, (by_seed, step) in rows.items()
    }
    claims = (
        _claim("at least 20 % of every base policy's correct answers are flawed", "smallest ratio - 0.2", first, -0.2),
        _claim("the same at every step of the baseline's training", "smallest ratio - 0.2", later, -0.2),
    )
    return Finding("F2a", "FP ratio of policies of different strength", claims, table=table)


def _f2b(runs: Runs) -> Finding:
    by_seed = {seed: _by_difficulty(run) for seed, run in runs.get("baseline", {}).items()}
    margins = {s: r["1-3"] - r["6-8"] for s, r in by_seed.items() if {"1-3", "6-8"} <= r.keys()}
    rows = ("1-3", "4-5", "6-8")
    table = {f"{k} of 8 right": {"true FP ratio": tuple(r[k] for r in by_seed.values() if k in r)} for k in rows}
    claim = _claim("questions that are solved less often have the higher FP ratio", "1-3 of 8 minus 6-8 of 8", margins)
    return Finding("F2b", f"FP ratio against accuracy per question, steps 1-{EARLY}", (claim,), table=table)


def _f2c(runs: Runs) -> Finding:
    gains = {seed: gain(run, _FP) for seed, run in runs.get("baseline", {}).items()}
    learned = {seed: gain(run, _EASY) for seed, run in runs.get("baseline", {}).items()}
    return Finding(
        "F2c",
        "Plain RLVR: accuracy rises, flawed positives stay",
        (
            _claim("the baseline's accuracy rises", "end - start", learned),
            _claim("its FP ratio stays within 0.05 of its start, or above", "end - start + 0.05", gains, 0.05),
        ),
        _curves(runs, ("baseline",), ((_EASY, "Accuracy"), (_FP, "True FP ratio"))),
        ("baseline",),
    )


def _f2d(runs: Runs) -> Finding:
    shown = ("baseline", "negative", "fapo")
    early = "rollout/accuracy"
    return Finding(
        "F2d",
        "Flawed positives as positives, as negatives, and FAPO",
        (
            _trained(runs, f"FP -> negative is slower than FAPO in the first {EARLY} steps", "negative", "fapo", early),
            _difference(runs, "FP -> negative beats the baseline on harder problems", "baseline", "negative", _HARD),
            _difference(runs, "FAPO beats FP -> negative on harder problems", "negative", "fapo", _HARD),
        ),
        _curves(runs, shown, ((_EASY, "Accuracy"), (_HARD, "Accuracy, harder"), (_FP, "True FP ratio"))),
        shown,
    )


def _f3(runs: Runs) -> Finding:
    judges = runs.get("genrm", {})
    table = _judges(runs, ("genrm-sft", "genrm-outcome", "genrm"))
    if judges:
        table = {"base GenRM": _judge_row(judges, start)} | table
    raised, cured = ({seed: gain(run, key) for seed, run in judges.items()} for key in ("test/f1", "test/precision"))
    over = {seed: start(run, "test/recall") - start(run, "test/precision") for seed, run in judges.items()}
    return Finding(
        "F3/T2",
        "Judges on the miniature's FlawedPositiveBench, T 0.6",
        (
            _claim("Step-RL raises the base GenRM's F1", "end - start", raised),
            _claim("the base GenRM is an over-critic: its recall is above its precision", "difference", over),
            _claim("Step-RL cures that: it raises the precision", "end - start", cured),
        ),
        table=table,
    )


def _f4(runs: Runs) -> Finding:
    shown = ("genrm", "genrm-outcome", "genrm-sft")
    return Finding(
        "F4",
        "Step-RL of the GenRM against outcome-only RL, and against imitation of its own right critiques",
        (
            _difference(runs, "Step-RL ends with the higher F1", "genrm-outcome", "genrm", "test/f1"),
            _difference(runs, "Step-RL ends with the higher location", "genrm-outcome", "genrm", "test/location"),
            _difference(runs, "Step-RL ends with a higher F1 than imitation", "genrm-sft", "genrm", "test/f1"),
        ),
        _curves(
            runs, shown, tuple((f"test/{key}", key.capitalize()) for key in ("f1", "precision", "recall", "location"))
        )
        + _curves(runs, shown, (("test/tokens", "Tokens"),), "number"),
        shown,
    )


def _f5(runs: Runs) -> Finding:
    shown = ("base-judge", "fapo", "oracle")
    return Finding(
        "F5",
        "Strength of the judge and what the policy gets from it",
        (
            _difference(runs, "the Step-RL GenRM gives the better policy on harder problems", *shown[:2], _HARD),
            _difference(runs, "an ideal judge gives a still better policy", *shown[1:], _HARD),
        ),
        _curves(runs, shown, ((_HARD, "Accuracy, harder"), (_FP, "True FP ratio"), (_EASY, "Accuracy"))),
        shown,
    )


def _f6(runs: Runs) -> Finding:
    key = "validation/length"
    margins = {seed: 1.05 * end(base, key) - end(fapo, key) for seed, base, fapo in _pairs(runs, "baseline", "fapo")}
    claim = _claim("FAPO's responses are at most 5 % longer than the baseline's", "tokens below the limit", margins)
    shown = ("baseline", "fapo")
    return Finding("F6", "Response length", (claim,), _curves(runs, shown, ((key, "Tokens"),), "number"), shown)


def _f7(runs: Runs) -> Finding:
    flaws = {
        v: {seed: _skipping(run) for seed, run in runs.get(v, {}).items()} for v in ("baseline", "fapo", "step-ratio")
    }
    more = {s: flaws["step-ratio"][s] - flaws["fapo"][s] for s in flaws["step-ratio"].keys() & flaws["fapo"].keys()}
    table = {LOOKS[v][0]: {"skips, guesses, odd lines": tuple(by_seed.values())} for v, by_seed in flaws.items()}
    claim = _claim(
        "a step-ratio reward is hacked: more steps are left out than under FAPO", "rate among correct rollouts", more
    )
    shown = ("baseline", "fapo", "step-ratio")
    panels = _curves(runs, shown, ((_HARD, "Accuracy, harder"), (_FP, "True FP ratio")))
    return Finding("F7", "The step-ratio reward", (claim,), panels, shown, table)


def _t5(runs: Runs) -> Finding:
    shown = ("shift-2", "fapo", "shift-half")
    return Finding(
        "T5",
        "lambda from rho_shift 2, 1 and 1/2",
        (
            _difference(runs, "rho_shift 1 beats 2 on harder problems", "shift-2", "fapo", _HARD),
            _difference(runs, "rho_shift 1/2 beats 1 on harder problems", "fapo", "shift-half", _HARD),
        ),
        _curves(runs, shown, ((_HARD, "Accuracy, harder"), (_FP, "True FP ratio"))),
        shown,
    )


def _t6(runs: Runs) -> Finding:
    judged, true = "validation/fp_ratio", _FP
    policies = {v: runs.get(v, {}) for v in ("fapo", "negative", "step-ratio", "base-judge")}
    table = {
        LOOKS[v][0]: {
            name: tuple(end(run, key) for run in by_seed.values())
            for name, key in (("by the judge", judged), ("in truth", true))
        }
        for v, by_seed in policies.items()
        if by_seed
    }
    margins = {s: 0.05 - abs(end(run, judged) - end(run, true)) for s, run in runs.get("fapo", {}).items()}
    claim = _claim("the judge's FP ratio of FAPO's policy is within 0.05 of the truth", "0.05 - difference", margins)
    return Finding("T6", "FP ratio by the judge and in truth, at the end", (claim,), table=table)


def _t7(runs: Runs) -> Finding:
    key = "rollout/reliable_accuracy"
    rows = {v: runs.get(v, {}) for v in ("baseline", "negative", "fapo")}
    table = {
        LOOKS[v][0]: {
            f"first {EARLY} steps": tuple(_early(run, key) for run in by_seed.values()),
            f"last {EARLY} steps": tuple(_late(run, key) for run in by_seed.values()),
        }
        for v, by_seed in rows.items()
    }
    margins = {s: _late(fapo, key) - _late(base, key) for s, base, fapo in _pairs(runs, "baseline", "fapo")}
    claim = _claim("late in training FAPO solves more problems with correct reasoning", "difference", margins)
    return Finding(
        "T7/T8", "Training rollouts with correct answer and correct reasoning, early and late", (claim,), table=table
    )


def _judge_quality(runs: Runs) -> Finding:
    shown = ("oracle", "false-negatives-50", "false-negatives-80", "false-positives-20", "false-positives-50")
    table = {
        LOOKS[v][0]: {
            name: tuple(end(run, key) for run in runs.get(v, {}).values())
            for name, key in (("accuracy", _EASY), ("accuracy, harder", _HARD), ("true FP ratio", _FP))
        }
        for v in ("baseline", *shown)
    }
    claims = tuple(
        _difference(runs, f"FAPO still beats the baseline on harder problems: {LOOKS[v][0]}", "baseline", v, _HARD)
        for v in shown
    )
    return Finding("beyond: judge", "How good must a judge be?", claims, table=table)


def _label_noise(runs: Runs) -> Finding:
    step, outcome = (
        tuple(f"{kind}{noise}" for noise in ("", "-noise-10", "-noise-20")) for kind in ("genrm", "genrm-outcome")
    )
    lost = {}
    for clean, noisy in ((step[0], step[2]), (outcome[0], outcome[2])):
        lost[clean] = {s: gap(b, a, "test/f1") for s, a, b in _pairs(runs, clean, noisy)}
    both = lost["genrm"].keys() & lost["genrm-outcome"].keys()
    return Finding(
        "beyond: labels",
        "Step-RL and outcome-only RL when some of the labels are wrong",
        (
            _claim(
                "with 20 % wrong labels Step-RL loses at most 0.05 of its F1",
                "0.05 - loss",
                {seed: -loss for seed, loss in lost["genrm"].items()},
                0.05,
            ),
            _claim(
                "with 20 % wrong labels Step-RL loses less of its F1 than outcome-only RL",
                "difference of the losses",
                {seed: lost["genrm-outcome"][seed] - lost["genrm"][seed] for seed in both},
            ),
            _difference(
                runs,
                "with 20 % wrong labels Step-RL locates better than outcome-only RL",
                outcome[2],
                step[2],
                "test/location",
            ),
        ),
        table=_judges(runs, (*step, *outcome)),
    )


def _correction(runs: Runs) -> Finding:
    pairs = {
        "false-negatives-80-corrected": "false-negatives-80",
        "false-negatives-80-audited": "false-negatives-80",
        "false-positives-50-corrected": "false-positives-50",
    }
    claims = [
        _difference(runs, f"{LOOKS[new][0]} beats {LOOKS[old][0]} on harder problems", old, new, _HARD)
        for new, old in pairs.items()
    ]
    claims += [
        _difference(runs, f"{LOOKS[new][0]} ends with a lower true FP ratio than {LOOKS[old][0]}", new, old, _FP)
        for new, old in pairs.items()
    ]
    table = {
        LOOKS[v][0]: {
            name: tuple(end(run, key) for run in runs.get(v, {}).values())
            for name, key in (("accuracy, harder", _HARD), ("true FP ratio", _FP))
        }
        for pair in pairs.items()
        for v in reversed(pair)
    }
    title = "The reward corrected for the error rates of the judge"
    return Finding("beyond: correction", title, tuple(claims), table=table)


_FIGURES: tuple[Callable[[Runs], Finding], ...] = (
    *(_f1, _f2a, _f2b, _f2c, _f2d, _f3, _f4, _f5, _f6, _f7, _t5, _t6, _t7),
    *(_judge_quality, _label_noise, _correction),
)


# --- numbers of runs --------------------------------------------------------------------------------------------------


def _judge_row(judges: Mapping[int, Run], take: Callable[[Run, str], float]) -> dict[str, tuple[float, ...]]:
    names = {"precision": "P", "recall": "R", "f1": "F1", "location": "location", "tokens": "tokens"}
    return {title: tuple(take(run, f"test/{name}") for run in judges.values()) for name, title in names.items()}


def _judges(runs: Runs, variants: Sequence[str]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the table of GenRMs at the end of their training."""
    return {LOOKS[v][0]: _judge_row(runs[v], end) for v in variants if v in runs}


def _claim(text: str, measured: str, by_seed: Mapping[int, float], shift: float = 0.0) -> Claim:
    return Claim(text, measured, tuple(by_seed[seed] + shift for seed in sorted(by_seed)))


def _pairs(runs: Runs, first: str, second: str) -> Iterable[tuple[int, Run, Run]]:
    one, other = runs.get(first, {}), runs.get(second, {})
    return [(seed, one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def _difference(runs: Runs, text: str, low: str, high: str, key: str) -> Claim:
    """Return a claim about `high` minus `low` at the end of training, for each seed."""
    return _claim(text, "difference", {s: gap(a, b, key) for s, a, b in _pairs(runs, low, high)})


def _trained(runs: Runs, text: str, low: str, high: str, key: str) -> Claim:
    return _claim(text, "difference", {s: _early(b, key) - _early(a, key) for s, a, b in _pairs(runs, low, high)})


def _at(run: Run, key: str, step: float) -> float:
    return (series := measured_series(run, key)).values[series.steps.index(step)]


def _early(run: Run, key: str) -> float:
    return fmean(measured_series(run, key, "train").values[:EARLY])


def _late(run: Run, key: str) -> float:
    return fmean(measured_series(run, key, "train").values[-EARLY:])


def _by_difficulty(run: Run) -> dict[str, float]:
    """Return the true FP ratio in the first training steps by the number of right answers in a group, as a range."""
    groups: dict[tuple[int, str], list[Mapping]] = defaultdict(list)
    for row in run.rollouts():
        if row["split"] == "train" and row["step"] <= EARLY:
            groups[row["step"], row["problem_id"]].append(row)
    flawed: dict[str, list[bool]] = defaultdict(list)
    for group in groups.values():
        correct = [row["truth"]["error_step"] is not None for row in group if row["correct"]]
        if correct:
            flawed["1-3" if len(correct) <= 3 else "4-5" if len(correct) <= 5 else "6-8"] += correct
    return {name: fmean(rows) for name, rows in flawed.items()}


def _skipping(run: Run) -> float:
    """Return the rate of right answers with a step left out, at the last validation of all sets."""
    rows = [row for row in run.rollouts() if row["split"] != "train" and row["correct"]]
    last = max(row["step"] for row in rows)
    return fmean(row["truth"]["flaw"] in ("skip", "guess", "format") for row in rows if row["step"] == last)


# --- curves ---------------------------------------------------------------------------------------------------------


def _curves(
    runs: Runs, variants: Sequence[str], metrics: Sequence[tuple[str, str]], scale: Scale = "rate"
) -> tuple[Panel, ...]:
    """Return a panel for each metric: the mean over the seeds of each variant, with faint curves of single seeds."""
    panels = []
    for key, title in metrics:
        curves: list[Curve] = []
        for variant in variants:
            series = [run.series(key) for run in runs.get(variant, {}).values()]
            style = LOOKS[variant][1]
            curves += [Curve(NOTHING, style, one) for one in series if len(series) > 1]
            if series:
                curves.append(Curve(_average(series), style))
        if curves:
            panels.append(Panel(title, tuple(curves), "rate from 0" if "fp_ratio" in key else scale))
    return tuple(panels)


def _average(series: Sequence[Series]) -> Series:
    steps = sorted(set.intersection(*(set(one.steps) for one in series)))
    return Series(tuple(steps), tuple(fmean(one.values[one.steps.index(step)] for one in series) for step in steps))
