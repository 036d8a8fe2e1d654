"""Comparison of judges, or of prompts of one judge, on the same rows, with paired bootstrap differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from fapo.errors import DataError
from fapo.evaluation.intervals import (
    SEED,
    Estimate,
    Interval,
    bootstrap_sums,
    grouped_rate_estimate,
    percentile_interval,
)
from fapo.evaluation.judge_benchmarks.cost import critique_cost
from fapo.evaluation.judge_benchmarks.output import Context
from fapo.evaluation.judge_benchmarks.predictions import MISSING
from fapo.evaluation.judge_benchmarks.rows import Rows
from fapo.evaluation.judge_benchmarks.score import (
    FlawedPositiveScore,
    by_length,
    by_num_steps,
    by_problem,
    flag_counts,
    score_flawed_positive,
    score_process,
    step_counts,
)
from fapo.evaluation.judge_benchmarks.settings import RULES, Benchmark
from fapo.judge.quality import (
    PRF,
    Invalid,
    precision_recall_f1,
    processbench_rates,
    ratio,
    youden_j,
)
from fapo.types import LabelledSolution, Verdict

Floats = npt.NDArray[np.float64]
NUM_FLAG_COUNTS, NUM_STEP_COUNTS = 4, 4
"""Number of counts of a row: of the confusion table, and of ProcessBench."""


@dataclass(frozen=True)
class ComparedJudge:
    """One judge of a comparison."""

    settings: str
    """Model, prompt and sampling as recorded with the answers; empty where the file does not say."""
    numbers: Mapping[str, Estimate]
    """Numbers by name, such as "precision" or "youden_j"; which ones depends on the benchmark."""
    differences: Mapping[str, Estimate]
    """Numbers minus those of the first judge, with paired intervals; empty for the first judge."""
    invalid_rate: float
    """Rows without a verdict / rows."""
    critique_tokens: float
    """Mean length of a critique in tokens, where it is known; NaN if it is known nowhere."""
    critique_seconds: float
    """Mean time from a request to its critique in seconds, where it is known; NaN if it is known nowhere."""
    by_num_steps: Mapping[str, PRF]
    """Numbers of "flagged" of solutions with few or many steps, by the range of their number of steps."""
    by_length: Mapping[str, PRF]
    """Numbers of "flagged" of short and long solutions, by the range of their length in characters."""


@dataclass(frozen=True)
class Sensitivity:
    """Spread of one model over several prompts or settings."""

    model: str
    """Name of the model."""
    names: tuple[str, ...]
    """Names of its entries in the comparison."""
    ranges: Mapping[str, tuple[float, float]]
    """Smallest and largest value of each number."""
    disagreement: Estimate
    """Rows on which the entries do not all say the same about "flawed" / rows; Wilson's interval, over problems where
    these have several rows."""


@dataclass(frozen=True)
class JudgeComparison:
    """Judges on their common rows."""

    benchmark: Benchmark
    """Benchmark."""
    data: tuple[str, ...]
    """Sources of the rows."""
    num_rows: int
    """Number of rows that all judges have answered."""
    num_problems: int
    """Number of problems among these rows."""
    num_left_out: int
    """Number of rows that some judge has no answer to."""
    num_flawed: int
    """Number of common rows with a wrong step."""
    invalid: Invalid
    """Meaning of an answer without a verdict."""
    judges: Mapping[str, ComparedJudge]
    """Judges by name; the last two are flag-all and flag-none, which read nothing."""
    sensitivity: tuple[Sensitivity, ...]
    """Models with several prompts or settings."""


def compare_judges(benchmark: Benchmark, rows: Rows, contexts: Sequence[Context]) -> JudgeComparison:
    """Compare judges on the rows that all of them have answered.

    Args:
        benchmark: Name of the benchmark.
        rows: Rows of the benchmark, [num_rows].
        contexts: Answers of each judge to these rows; the first one is the baseline of the differences.

    Returns:
        Numbers, paired differences, and the spread over prompts.

    Raises:
        DataError: No row has an answer of every judge.
    """
    invalid: Invalid = "wrong" if benchmark == "process" else contexts[0].invalid
    answered = zip(*(context.verdicts for context in contexts), strict=True)
    common = [index for index, verdicts in enumerate(answered) if all(v is not MISSING for v in verdicts)]
    if not common:
        names = ", ".join(context.name for context in contexts)
        raise DataError(f"{names}: no row has a prediction in every file; compare files about the same rows")
    counting = [rows.counting[index] for index in common]
    verdicts = {context.name: [context.verdicts[index] for index in common] for context in contexts}
    verdicts |= {name: [Verdict.from_step(step)] * len(common) for name, step in RULES.items()}
    subsets = [rows.subsets[index] for index in common] if benchmark == "process" else ["all"] * len(common)
    values, rates = _values(benchmark, counting, subsets, list(verdicts.values()), invalid)
    settings = {context.name: context.judge for context in contexts}
    judges = {}
    for number, (name, found) in enumerate(verdicts.items()):
        cost = critique_cost(found)
        closed = {} if name in RULES else _intervals(benchmark, counting, subsets, found, invalid)
        judges[name] = ComparedJudge(
            settings=settings.get(name, ""),
            numbers={
                key: _estimate(draws[:, number], closed.get(key), [rate[1:, number] for rate in rates.get(key, ())])
                for key, draws in values.items()
            },
            differences={key: _estimate(draws[:, number] - draws[:, 0]) for key, draws in values.items() if number},
            invalid_rate=ratio(sum(verdict.status != "ok" for verdict in found), len(found)),
            critique_tokens=cost.tokens,
            critique_seconds=cost.seconds,
            by_num_steps=by_num_steps(counting, found, invalid),
            by_length=by_length(counting, found, invalid),
        )
    return JudgeComparison(
        benchmark=benchmark,
        data=tuple(contexts[0].data),
        num_rows=len(common),
        num_problems=len({row.problem.text for row in counting}),
        num_left_out=len(rows.counting) - len(common),
        num_flawed=sum(row.error_step is not None for row in counting),
        invalid=invalid,
        judges=judges,
        sensitivity=tuple(_sensitivities(judges, verdicts, [row.problem.text for row in counting])),
    )


def _sensitivities(
    judges: Mapping[str, ComparedJudge], verdicts: Mapping[str, Sequence[Verdict]], problems: Sequence[str]
) -> list[Sensitivity]:
    """Return the spread of each model that has several entries; the model is the text before the first comma."""
    names_of: dict[str, list[str]] = {}
    for name, judge in judges.items():
        if model := judge.settings.partition(",")[0]:
            names_of.setdefault(model, []).append(name)
    out = []
    for model, names in names_of.items():
        if len(names) < 2:
            continue
        flags = list(zip(*([verdict.flawed for verdict in verdicts[name]] for name in names), strict=True))
        differ = [len(set(of_row)) > 1 for of_row in flags]
        found = {key: [judges[name].numbers[key].value for name in names] for key in judges[names[0]].numbers}
        ranges = {key: (min(values), max(values)) for key, values in found.items()}
        out.append(Sensitivity(model, tuple(names), ranges, grouped_rate_estimate(differ, problems)))
    return out


def _estimate(draws: Floats, closed: Interval | None = None, rates: Sequence[Floats] = ()) -> Estimate:
    """Return the first entry, which is the value, with the interval of the others by `percentile_interval`."""
    return Estimate(float(draws[0]), percentile_interval(draws[1:], closed, rates))


def _intervals(
    benchmark: Benchmark,
    rows: Sequence[LabelledSolution],
    subsets: Sequence[str],
    verdicts: Sequence[Verdict],
    invalid: Invalid,
) -> dict[str, Interval]:
    """Return the intervals of one judge's numbers as in a benchmark without a comparison."""
    if benchmark == "flawed-positive":
        flags = score_flawed_positive(rows, verdicts, invalid)
        return {"precision": flags.precision, "recall": flags.recall, "f1": flags.f1, **_balanced(flags)}
    found = score_process(rows, subsets, verdicts)
    rates = {"error_acc": found.pooled.error_acc, "correct_acc": found.pooled.correct_acc, "pooled_f1": found.pooled.f1}
    return rates | {"mean_f1": found.mean_f1_interval, **_balanced(found.flags)}


def _balanced(flags: FlawedPositiveScore) -> dict[str, Interval]:
    """Return the intervals of J and of the balanced accuracy, which is (1 + J) / 2."""
    low, high = flags.youden_j
    return {"youden_j": (low, high), "balanced_accuracy": ((1 + low) / 2, (1 + high) / 2)}


def _values(
    benchmark: Benchmark,
    rows: Sequence[LabelledSolution],
    subsets: Sequence[str],
    verdicts: Sequence[Sequence[Verdict]],
    invalid: Invalid,
) -> tuple[dict[str, Floats], dict[str, list[Floats]]]:
    """Return each number in the data (entry 0) and in bootstrap draws within subsets, [1 + draws, num_judges].

    Problems are drawn, with all of their rows. All judges have the same draws, so that their differences are paired.
    The rates of different rows that a number is made of follow in a second table.
    """
    kinds = NUM_FLAG_COUNTS + NUM_STEP_COUNTS
    counts = [[n for of_one in verdicts for n in _counts(row, of_one[i], invalid)] for i, row in enumerate(rows)]
    rng = np.random.default_rng(SEED)
    by_subset = []
    for name in sorted(set(subsets)):
        indices = [index for index, other in enumerate(subsets) if other == name]
        inside = by_problem([rows[index] for index in indices], [counts[index] for index in indices]).astype(float)
        sums = np.concatenate([inside.sum(0, keepdims=True), bootstrap_sums(inside, rng)])
        by_subset.append(np.moveaxis(sums.reshape(-1, len(verdicts), kinds), -1, 0))
    total = np.sum(by_subset, axis=0)
    flags, steps = total[:NUM_FLAG_COUNTS], total[NUM_FLAG_COUNTS:]
    precision, recall, f1 = precision_recall_f1(*flags[:3])
    j = youden_j(*flags)
    tp, fp, fn, tn = flags
    *of_flags, balanced_f1 = processbench_rates(tp, fn, tn, fp)
    balanced = {"youden_j": j, "balanced_accuracy": (1 + j) / 2, "balanced_f1": balanced_f1}
    rates = dict.fromkeys(balanced, of_flags)
    if benchmark == "flawed-positive":
        return {"precision": precision, "recall": recall, "f1": f1, **balanced}, rates
    error_acc, correct_acc, pooled_f1 = processbench_rates(*steps)
    *of_subsets, f1_of = zip(*(processbench_rates(*of_one[NUM_FLAG_COUNTS:]) for of_one in by_subset), strict=True)
    named: dict[str, Any] = {"error_acc": error_acc, "correct_acc": correct_acc, "pooled_f1": pooled_f1}
    rates |= {"pooled_f1": [error_acc, correct_acc], "mean_f1": [*chain(*of_subsets)]}
    return named | {"mean_f1": np.mean(f1_of, axis=0), **balanced}, rates


def _counts(row: LabelledSolution, verdict: Verdict, invalid: Invalid) -> tuple[int, ...]:
    """Return what a row adds to (tp, fp, fn, tn) and to the four counts of `processbench_counts`."""
    return *flag_counts(row, verdict, invalid), *step_counts(row, verdict)
