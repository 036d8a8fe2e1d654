"""Scores of a benchmark as JSON and as a table, with the conventions that they follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fapo.data.jsonl import finite
from fapo.data.untrusted_text import escape
from fapo.evaluation.intervals import LEVEL, NUM_RESAMPLES, SEED, decimal, percent
from fapo.evaluation.judge_benchmarks.cost import critique_cost
from fapo.evaluation.judge_benchmarks.predictions import MISSING
from fapo.evaluation.judge_benchmarks.score import FlawedPositiveScore, ProcessScore, SubsetScore
from fapo.inference.usage import Prices, Usage
from fapo.judge.quality import Invalid
from fapo.judge.verdict_counts import MIN_VERDICTS, VerdictCounts
from fapo.types import Verdict


@dataclass(frozen=True)
class Context:
    """Data, answers and conventions of a score."""

    data: Sequence[str]
    """Sources of the rows."""
    answers: str
    """Judge with its settings, or the file of predictions."""
    name: str
    """Short name in a comparison: the prompt, or the file of predictions."""
    judge: str
    """Judge with its settings, also for predictions; empty where the file does not say."""
    verdicts: Sequence[Verdict]
    """Verdicts that were scored."""
    invalid: Invalid = "wrong"
    """Meaning of an answer without a verdict."""
    threshold: float | None = None
    """Threshold of the step scores; None for verdicts that come without scores."""
    num_for_threshold: int = 0
    """Number of further rows on which the threshold was chosen; 0 if it was given."""
    num_without_reference: int = 0
    """Number of rows that were judged without a reference answer, because the data has none."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of the judge."""
    cache: str = ""
    """Response cache of the judge; empty for predictions and rules."""
    prices: Prices | None = None
    """Prices of the judge's tokens."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows without a verdict, by reason."""
        missing = sum(verdict is MISSING for verdict in self.verdicts)
        statuses = Counter(verdict.status for verdict in self.verdicts)
        counts = {"unparsable": statuses["unparsable"], "failed": statuses["failed"] - missing, "missing": missing}
        return {f"num_{name}": count for name, count in counts.items()}


def verdict_counts(contexts: Sequence[Context]) -> VerdictCounts:
    """Return the counts of all verdicts; some rows of a benchmark are flawed, so few equal verdicts are remarkable."""
    found = (verdict for context in contexts for verdict in context.verdicts if verdict is not MISSING)
    return VerdictCounts.of(found, min_same=MIN_VERDICTS)


INVALID = {
    "wrong": "such a row counts as a false negative if it is flawed, and else as a false positive",
    "flagged": "such a row counts as flagged, as in the public script; this increases recall",
}
"""Meaning of an answer without a verdict in flawed-positive, by the value of `invalid`."""
PROCESS_INVALID = "such a row counts as wrong, and so does one that is flagged without a step"
"""Meaning of an answer without a verdict in process."""


def drawn_units(num_rows: int, num_problems: int) -> str:
    """Return what the bootstrap of a benchmark draws: rows, or problems where some have several rows."""
    return "rows" if num_problems == num_rows else f"the {num_problems} problems (some have several rows)"


def conventions(context: Context, score: FlawedPositiveScore | ProcessScore) -> dict[str, Any]:
    """Return the rules behind the numbers.

    Args:
        context: Answers that were scored.
        score: Their score.

    Returns:
        Rules by name; `invalid` is the value of the option and `threshold` a number.
    """
    rules: dict[str, Any] = {"invalid": context.invalid}
    flags = score.flags if isinstance(score, ProcessScore) else score
    if isinstance(score, ProcessScore):
        rules["rows"] = (
            "all rows; the subset is that of data_source in the form of FlawedPositiveBench, else the part of the id "
            "before its number, if all ids have one, else the source"
        )
        rules["error_acc"] = "rows with a wrong step: the first one is named exactly"
        rules["correct_acc"] = "rows without a wrong step: none is named"
        rules["f1"] = "harmonic mean of error_acc and correct_acc; mean_f1 over subsets, pooled_f1 over all rows"
        rules["youden_j"] = "rate of flagged rows among those with a wrong step, minus that among the others"
        rules["invalid_means"] = PROCESS_INVALID
    else:
        rules["rows"] = "rows with a correct final answer; a row with a wrong step is flawed"
        rules["positive"] = "flawed; an answer is flagged if it names any step"
        rules["J"] = "Youden's J, recall minus false positive rate; 0 for a judge that flags at random"
        rules["invalid_means"] = INVALID[context.invalid]
    if context.threshold is not None:
        rules["threshold"] = context.threshold
        rules["scores"] = f"the first step with a score below {context.threshold:g} is the prediction"
    if context.num_for_threshold:
        rules["choice"] = (
            f"the threshold has the best F1 on {context.num_for_threshold} other rows, a random half; "
            "all numbers are of this half"
        )
    if any(verdict.given_by for verdict in context.verdicts):
        num = sum(verdict.given_by == "strong" for verdict in context.verdicts)
        rules["cascade"] = f"the strong judge was asked about {num} of {len(context.verdicts)} rows"
    if context.num_without_reference:
        rules["reference"] = f"not given to the judge in {context.num_without_reference} rows: the data has none"
    units = drawn_units(flags.point.n, flags.num_problems)
    rules["interval"] = f"{LEVEL:.0%} bootstrap over {units}, {NUM_RESAMPLES} resamples, seed {SEED}"
    return rules


def as_json(score: FlawedPositiveScore | ProcessScore, context: Context) -> dict[str, Any]:
    """Return a score for `--json`.

    Args:
        score: Score of one of the benchmarks.
        context: Answers that were scored.

    Returns:
        Numbers by name; a number that is not defined, such as recall without flawed rows, is None.
    """
    origin = {"data": list(context.data), "answers": context.answers}
    if isinstance(score, FlawedPositiveScore):
        point = score.point
        numbers: dict[str, Any] = {
            "benchmark": "flawed-positive",
            "n": point.n,
            "num_flawed": point.num_flawed,
            "precision": point.precision,
            "recall": point.recall,
            "f1": point.f1,
            "invalid_rate": point.invalid_rate,
            "precision_interval": score.precision,
            "recall_interval": score.recall,
            "f1_interval": score.f1,
            **_flags(score),
        }
    else:
        points = {name: subset.point for name, subset in score.subsets.items()}
        numbers = {
            "benchmark": "process",
            "n": score.pooled.point.n,
            "subsets": {
                name: {"n": point.n, "error_acc": point.error_acc, "correct_acc": point.correct_acc, "f1": point.f1}
                for name, point in points.items()
            },
            "mean_f1": score.mean_f1,
            "pooled_f1": score.pooled.point.f1,
            "invalid_rate": score.pooled.point.invalid_rate,
            "mean_f1_interval": score.mean_f1_interval,
            "pooled_f1_interval": score.pooled.f1,
            "num_error": score.pooled.point.num_error,
            **_flags(score.flags),
            "step_distances": {str(distance): num for distance, num in score.distances.items()},
            "subset_details": {name: _details(subset) for name, subset in score.subsets.items()},
        }
    rules = conventions(context, score)
    cost = critique_cost(context.verdicts)
    numbers |= {"critique_tokens": cost.tokens, "critique_seconds": cost.seconds}
    return finite({**numbers, **context.counts, **origin, "conventions": rules, **_usage(context)})


def _usage(context: Context) -> dict[str, Any]:
    """Return the tokens of the judge and its cache for JSON; {} for predictions and rules, which have none."""
    return {"usage": context.usage.as_json(context.prices), "cache": context.cache} if context.usage else {}


def cache_line(contexts: Sequence[Context]) -> str:
    """Return where the critiques are kept and how many were there before; empty for predictions and rules."""
    usage = sum((context.usage for context in contexts), Usage())
    if not usage:
        return ""
    line = f"critiques: {contexts[0].cache}"
    if not usage.from_cache:
        return line
    return (
        f"{line}, which had {usage.from_cache} of {usage.from_cache + usage.requests} already; --no-cache asks the "
        "judge again; if the model behind this name has changed, give --revision a new text"
    )


def _flags(score: FlawedPositiveScore) -> dict[str, Any]:
    """Return how well the judge finds flawed rows, beyond precision, recall and F1."""
    rates = ("n", "num_flawed", "precision", "recall", "f1", "youden_j")
    point = score.point
    ranges = {"by_num_steps": score.by_num_steps, "by_length": score.by_length}
    return {
        "num_problems": score.num_problems,
        "youden_j": point.youden_j,
        "youden_j_interval": score.youden_j,
        "balanced_accuracy": point.balanced_accuracy,
        "balanced_f1": point.balanced_f1,
        **{name: getattr(point, name) for name in ("tp", "fp", "fn", "tn")},
        **{
            kind: {size: {name: getattr(found, name) for name in rates} for size, found in of_kind.items()}
            for kind, of_kind in ranges.items()
        },
    }


def _details(score: SubsetScore) -> dict[str, Any]:
    """Return the numbers of a subset that `subsets` leaves out."""
    return {
        "num_error": score.point.num_error,
        "invalid_rate": score.point.invalid_rate,
        "error_acc_interval": score.error_acc,
        "correct_acc_interval": score.correct_acc,
        "f1_interval": score.f1,
    }


def as_table(score: FlawedPositiveScore | ProcessScore, context: Context) -> Group:
    """Return a score as tables for a terminal.

    Args:
        score: Score of one of the benchmarks.
        context: Answers that were scored.

    Returns:
        Tables of percentages with intervals, and notes below them; `conventions` has all rules.
    """
    process = isinstance(score, ProcessScore)
    title = Text(escape(f"{'process' if process else 'flawed-positive'} - {context.answers}"))
    if isinstance(score, ProcessScore):
        tables = [_subset_table(score, title), _flag_table(score.flags), *_size_tables(score.flags)]
    else:
        tables = [_flag_table(score, title), *_size_tables(score)]
    lines = [f"tokens of the judge: {context.usage.text(context.prices)}"] if context.usage else []
    lines += [*_distance_line(score), *_cost_line(context), *_notes(conventions(context, score), context)]
    return Group(*tables, *map(Text, lines))


def _flag_table(score: FlawedPositiveScore, title: Text | None = None) -> Table:
    """Return how well the judge distinguishes flawed rows from correct ones, as a table of one number a line."""
    table = Table(title=title or Text("flagged, whatever the step"), min_width=60)
    for name in ("number", "value"):
        table.add_column(name, justify="right")
    point = score.point
    for name, value in {
        "n": point.n,
        "flawed": point.num_flawed,
        "precision": percent(point.precision, score.precision),
        "recall": percent(point.recall, score.recall),
        "F1": percent(point.f1, score.f1),
        "J": decimal(point.youden_j, score.youden_j),
        "balanced accuracy": percent(point.balanced_accuracy),
        "balanced F1": percent(point.balanced_f1),
        "flagged, flawed (tp)": point.tp,
        "flagged, correct (fp)": point.fp,
        "passed, flawed (fn)": point.fn,
        "passed, correct (tn)": point.tn,
        "no verdict": percent(point.invalid_rate),
    }.items():
        table.add_row(name, str(value))
    return table


def _size_tables(score: FlawedPositiveScore) -> Iterator[Table]:
    """Yield a table of the numbers of short and long solutions; none if all solutions are of one size."""
    kinds = {"steps": score.by_num_steps, "characters": score.by_length}
    if all(len(of_kind) < 2 for of_kind in kinds.values()):
        return
    table = Table(title="flagged, by the size of the solution", min_width=60)
    for name in ("size", "n", "flawed", "precision", "recall", "F1", "J"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, of_kind in kinds.items():
        for size, found in of_kind.items():
            rates = map(percent, (found.precision, found.recall, found.f1))
            table.add_row(f"{size} {kind}", str(found.n), str(found.num_flawed), *rates, decimal(found.youden_j))
        table.add_section()
    yield table


def _subset_table(score: ProcessScore, title: Text) -> Table:
    """Return the accuracies and F1 of each subset; an interval stands below its number."""
    table = Table(title=title)
    table.add_column("subset", overflow="fold")
    for name in ("n", "with\nerror", "error\nacc", "correct\nacc", "F1", "no\nverdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, subset in score.subsets.items():
        table.add_row(Text(escape(name)), *_subset_cells(subset))
    table.add_section()
    table.add_row("all rows", *_subset_cells(score.pooled))
    mean = percent(score.mean_f1, score.mean_f1_interval)
    table.add_row("mean of subsets", "", "", "", "", _below(mean), "")
    return table


def _distance_line(score: FlawedPositiveScore | ProcessScore) -> Iterator[str]:
    """Yield how far the named steps are from the first wrong one, for a benchmark of steps."""
    if isinstance(score, ProcessScore) and (total := sum(score.distances.values())):
        near = {limit: sum(num for step, num in score.distances.items() if abs(step) <= limit) for limit in (0, 1, 2)}
        yield (
            f"flawed rows flagged with a step: {total}; exact {percent(near[0] / total)}, at most 1 off "
            f"{percent(near[1] / total)}, at most 2 off {percent(near[2] / total)}"
        )


def _cost_line(context: Context) -> Iterator[str]:
    """Yield what a critique costs on average, if it is known."""
    cost = critique_cost(context.verdicts)
    known = [] if math.isnan(cost.tokens) else [f"{cost.tokens:.0f} tokens"]
    known += [] if math.isnan(cost.seconds) else [f"{cost.seconds:.2f} s from request to end, with others at once"]
    if known:
        yield f"a critique: {', '.join(known)} (mean)"


def _notes(rules: Mapping[str, Any], context: Context) -> Iterator[str]:
    """Yield what a reader of the table has to know."""
    counts = {name.removeprefix("num_"): count for name, count in context.counts.items() if count}
    if counts:
        which = ", ".join(f"{count} {name}" for name, count in counts.items())
        yield f"rows without a verdict: {which}; {rules['invalid_means']}"
    yield from (f"{name}: {rules[name]}" for name in ("scores", "cascade", "reference", "interval") if name in rules)


def _subset_cells(score: SubsetScore) -> list[str]:
    """Return the cells of one subset."""
    point = score.point
    rates = [(point.error_acc, score.error_acc), (point.correct_acc, score.correct_acc), (point.f1, score.f1)]
    cells = [_below(percent(*rate)) for rate in rates]
    return [str(point.n), str(point.num_error), *cells, percent(point.invalid_rate)]


def _below(cell: str) -> str:
    """Return a number with its interval on the next line."""
    return cell.replace(" [", "\n[")
