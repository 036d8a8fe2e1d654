"""Output of an evaluation: the table of questions, the summary, and the printed table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from fapo.data.files import write_json
from fapo.data.jsonl import finite, write_jsonl
from fapo.data.provenance import environment
from fapo.data.untrusted_text import escape
from fapo.evaluation.intervals import LEVEL, NUM_RESAMPLES, SEED, Estimate, decimal, percent, signed_points
from fapo.evaluation.judge_settings import judge_name
from fapo.evaluation.policy.run import AnsweredQuestion, Sample
from fapo.evaluation.policy.score import Score, by_source, majority, score, verified_majority
from fapo.evaluation.policy.settings import EvalSettings
from fapo.inference.usage import Prices, Usage
from fapo.judge.verdicts import verdict_row

SCHEMA = 1
"""Version of the table of questions and of the summary."""

CONVENTIONS = {
    "avg_at_k": "correct samples / samples; a failed request counts only in failed_rate",
    "pass_at": "unbiased, from all samples of a question; questions with fewer samples are left out",
    "verified_pass_at": "as pass_at, with samples that are correct and not flagged",
    "majority_at_k": "correct answers are one answer, wrong ones are equal by normal form; the first one wins a tie",
    "verified_majority_at_k": "only samples found without error vote, and all if there is none; for a wrong answer the "
    "judge gets this answer as the reference",
    "fp_ratio": "flawed / correct samples with a verdict",
    "gold_fp_ratio": "flawed / correct samples with a verdict, by the gold judge",
    "judge_youden_j": "true positive rate - false positive rate of the judge, if the gold judge is right",
    "reliable_accuracy": "correct and not flagged / samples; a sample without a verdict is not reliable",
    "interval": f"{LEVEL:.0%} bootstrap over questions, {NUM_RESAMPLES} resamples, seed {SEED}; those of one text are "
    "one; where all resamples are equal, Wilson's for the number of questions, and Newcombe's for judge_youden_j of "
    "such a rate",
}
"""Rules behind the numbers, by name."""


def write(
    settings: EvalSettings, answered: Sequence[AnsweredQuestion], usage: Mapping[str, Usage] = MappingProxyType({})
) -> dict[str, Any]:
    """Write the table of questions and, beside it, the summary.

    Args:
        settings: Settings of the evaluation; `out` is the file of the table.
        answered: Questions with their samples.
        usage: Tokens of policy, judge and gold_judge, as far as there are any.

    Returns:
        Summary.
    """
    found = summary(settings, answered) | {"usage": {name: u.as_json(p) for name, u, p in _used(settings, usage)}}
    write_jsonl(settings.out, (question_row(question) for question in answered))
    write_json(settings.out.with_suffix(".json"), found)
    return found


def usage_lines(settings: EvalSettings, usage: Mapping[str, Usage]) -> list[str]:
    """Return a line about the tokens of each model, and their cost if there are prices.

    Args:
        settings: Settings of the evaluation, with the prices.
        usage: Tokens of policy, judge and gold_judge.

    Returns:
        Lines of text.
    """
    return [f"tokens of the {name.replace('_', ' ')}: {u.text(p)}" for name, u, p in _used(settings, usage)]


def _used(settings: EvalSettings, usage: Mapping[str, Usage]) -> list[tuple[str, Usage, Prices | None]]:
    """Return name, tokens and prices of each model that was used."""
    return [(name, used, getattr(settings, f"{name}_prices")) for name, used in usage.items() if used]


def question_row(answered: AnsweredQuestion) -> dict[str, Any]:
    """Return a question as a row of the table."""
    samples, problem = answered.samples, answered.problem
    flawed = [sample.verdict.flawed for sample in samples if sample.verdict and sample.verdict.status == "ok"]
    truths = [sample.truly_flawed for sample in samples if sample.truly_flawed is not None]
    return {
        "schema": SCHEMA,
        "id": problem.id,
        "source": problem.source,
        "problem": problem.text,
        "reference": problem.reference,
        "num_samples": len(samples),
        "num_failed": answered.num_failed,
        **({"reason": answered.reason} if answered.reason else {}),
        "num_correct": sum(sample.check.correct for sample in samples),
        "num_judged": len(flawed),
        "num_flawed": sum(map(bool, flawed)),
        "num_truly_flawed": sum(truths) if answered.has_oracle else None,
        "majority": majority(samples),
        "verified_majority": verified_majority(samples) if answered.all_judged else None,
        "samples": [_sample(sample) for sample in samples],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    """Return a sample with the names of rollouts.jsonl, and its final answer."""
    rollout, check, verdict = sample.rollout, sample.check, sample.verdict
    return {
        "response": rollout.response,
        "num_tokens": rollout.num_tokens,
        "truncated": rollout.truncated,
        "answer": check.answer,
        "correct": check.correct,
        "check": check.status,
        **verdict_row(verdict),
        **({} if verdict else {"reason": check.detail}),
        **({"gold": verdict_row(sample.gold_verdict)} if sample.gold_verdict else {}),
        **({"own": verdict_row(sample.own_verdict)} if sample.own_verdict else {}),
        "truly_flawed": sample.truly_flawed,
    }


def summary(settings: EvalSettings, answered: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    """Return the summary for JSON.

    Args:
        settings: Settings of the evaluation.
        answered: Questions with their samples.

    Returns:
        Numbers, settings and conventions; a number that is not defined, such as the FP ratio without a judge, is None.
    """
    judge, judged, gold = settings.judge_config(), bool(settings.judge), settings.gold_judge_config()
    sources = {name: _numbers(found) for name, found in by_source(answered, settings.samples, judged).items()}
    return finite(
        {
            "schema": SCHEMA,
            "policy": settings.policy_spec().name,
            "judge": judge_name(judge) if judge else None,
            "gold_judge": judge_name(gold) if gold else None,
            "data": list(settings.data),
            "k": settings.samples,
            **_numbers(score(answered, settings.samples, judged)),
            "sources": sources,
            "settings": {
                "prompt": str(settings.prompt) if settings.prompt else None,
                **asdict(settings.sampling),
                **{name: getattr(settings, name) for name in ("split", "limit", "seed", "checker", "require_box")},
            },
            "conventions": CONVENTIONS,
            "environment": environment(),
        }
    )


def _numbers(found: Score) -> dict[str, Any]:
    """Return the numbers by name, and each interval beside its number."""
    out: dict[str, Any] = {}
    for name, value in asdict(found).items():
        if name in ("pass_at", "verified_pass_at"):
            out[name] = {str(size): number["value"] for size, number in value.items()}
            out[f"{name}_interval"] = {str(size): number["interval"] for size, number in value.items()}
        elif isinstance(value, Mapping):
            out |= {name: value["value"], f"{name}_interval": value["interval"]}
        else:
            out[name] = value
    return out


def as_table(settings: EvalSettings, answered: Sequence[AnsweredQuestion]) -> Table:
    """Return the scores as a table.

    Args:
        settings: Settings of the evaluation.
        answered: Questions with their samples.

    Returns:
        Table of percentages with intervals by source, and notes below it.
    """
    judge, judged, k = settings.judge_config(), bool(settings.judge), settings.samples
    scores = by_source(answered, k, judged)
    whole = score(answered, k, judged)
    columns = {"source": "", "n": "num_questions", f"avg@{k}": "avg_at_k"}
    columns |= {f"pass@{k}": "pass_at", f"majority@{k}": "majority_at_k"} if k > 1 else {}
    columns |= {f"verified majority@{k}": "verified_majority_at_k"} if settings.verified_majority else {}
    columns |= {"FP ratio": "fp_ratio", "reliable": "reliable_accuracy"} if judged else {}
    columns |= {"gold FP ratio": "gold_fp_ratio", "J": "judge_youden_j"} if settings.gold_judge else {}
    columns |= {f"verified pass@{k}": "verified_pass_at"} if judged and k > 1 else {}
    if whole.num_correct and not math.isnan(whole.true_fp_ratio.value):
        columns |= {"true FP ratio": "true_fp_ratio", "truly reliable": "true_reliable_accuracy"}
    columns |= {"tokens": "length"}
    lines = list(_notes(whole, judged))
    lines += ["reliable: correct and not flagged, of all samples"] if judged else []
    lines += ["verified majority: only samples without error vote"] if settings.verified_majority else []
    lines += [f"intervals: {LEVEL:.0%} bootstrap over questions; --json has all rules"]
    judged_by = f", judged by {judge_name(judge)}" if judge else ""
    title = Text(escape(f"{settings.policy_spec().name}{judged_by}"))
    # one number a line and a section for each source, so that no number is cut on a terminal of 80 columns
    table = Table(title=title, caption=Text("\n".join(lines)), caption_justify="left", box=SIMPLE, min_width=76)
    table.add_column("source", overflow="fold")
    table.add_column("number", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    names = dict(list(columns.items())[1:])
    for source, found in (*scores.items(), *([("all", whole)] if len(scores) > 1 else [])):
        table.add_section()
        for first, (name, value) in enumerate(zip(names, _cells(found, list(names.values()), k), strict=True)):
            table.add_row("" if first else Text(escape(source)), name, value)
    return table


def _cells(found: Score, names: Sequence[str], k: int) -> Iterator[str]:
    """Yield the cells of one row of the table."""
    for name in names:
        number = getattr(found, name)
        if isinstance(number, Mapping):
            number = number[k]
        yield cell(name, number) if isinstance(number, Estimate) else str(number)


def cell(name: str, number: Estimate, *, signed: bool = False) -> str:
    """Write a number of a score.

    Args:
        name: Field of `Score`.
        number: Its value, or a difference of two.
        signed: Whether it is a difference.

    Returns:
        The number with its interval; "-" for NaN.
    """
    if math.isnan(number.value):
        return "-"
    if name == "length":
        return f"{number.value:+.0f}" if signed else f"{number.value:.0f}"
    if name == "judge_youden_j":
        return decimal(number.value, number.interval)
    return (signed_points if signed else percent)(number.value, number.interval)


def _notes(found: Score, judged: bool) -> Iterator[str]:
    """Yield the rates above 0 that make the numbers less certain."""
    if judged:
        yield f"FP ratio: {found.num_flawed} flawed of {found.num_judged} correct samples with a verdict"
    gain = found.verified_majority_gain
    if not math.isnan(gain.value):
        yield f"verified majority - majority: {signed_points(gain.value, gain.interval)}"
    names = ("no_answer", "undecided", "truncated", "failed", "judge_unparsable", "judge_failed")
    for name in names:
        rate = getattr(found, f"{name}_rate")
        if rate > 0:
            yield f"{name}: {percent(rate)}"
