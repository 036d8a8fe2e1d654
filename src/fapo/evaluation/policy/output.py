"""An evaluation as files and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from fapo.data.files import write_json
from fapo.data.jsonl import finite, write_jsonl
from fapo.data.provenance import environment
from fapo.data.untrusted_text import escape
from fapo.evaluation.intervals import LEVEL, NUM_RESAMPLES, SEED, percent
from fapo.evaluation.judge_settings import judge_name
from fapo.evaluation.policy.run import Answered, Sample
from fapo.evaluation.policy.score import Number, Score, by_source, majority, score
from fapo.evaluation.policy.settings import EvalSettings
from fapo.judge.verdicts import verdict_row

SCHEMA = 1
"""Version of the files."""

CONVENTIONS = {
    "avg_at_k": "right samples / samples; a sample that did not come counts nowhere but in failed_rate",
    "pass_at": "unbiased, from all samples of a question; questions with fewer samples are left out",
    "majority_at_k": "right answers are one answer, wrong ones are equal by their normal form, of equals the first",
    "fp_ratio": "flawed / right samples with a verdict",
    "reliable_accuracy": "right and found sound / samples; without a verdict a sample is not reliable",
    "interval": f"{LEVEL:.0%} bootstrap over questions, {NUM_RESAMPLES} resamples, seed {SEED}",
}
"""The rules behind the numbers."""


def write(settings: EvalSettings, answered: Sequence[Answered]) -> dict[str, Any]:
    """Write the table of questions and, beside it, the summary; returns the summary."""
    found = summary(settings, answered)
    write_jsonl(settings.out, (row(of_one) for of_one in answered))
    write_json(settings.out.with_suffix(".json"), found)
    return found


def row(answered: Answered) -> dict[str, Any]:
    """A question in the table."""
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
        "samples": [_sample(sample) for sample in samples],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    """As in rollouts.jsonl of a run, with the final answer."""
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
        "truly_flawed": sample.truly_flawed,
    }


def summary(settings: EvalSettings, answered: Sequence[Answered]) -> dict[str, Any]:
    """For programs. What is not defined, such as the FP ratio without a judge, is null."""
    judge, judged = settings.judge_config(), bool(settings.judge)
    sources = {name: _numbers(of_it) for name, of_it in by_source(answered, settings.samples, judged).items()}
    found = {
        "schema": SCHEMA,
        "policy": settings.policy_spec().name,
        "judge": judge_name(judge) if judge else None,
        "data": list(settings.data),
        "k": settings.samples,
        **_numbers(score(answered, settings.samples, judged)),
        "sources": sources,
        "settings": {
            "prompt": str(settings.prompt) if settings.prompt else None,
            **{
                name: getattr(settings, name)
                for name in ("temperature", "top_p", "max_tokens", "split", "limit", "seed", "require_box")
            },
        },
        "conventions": CONVENTIONS,
        "environment": environment(),
    }
    known: dict[str, Any] = finite(found)
    return known


def _numbers(found: Score) -> dict[str, Any]:
    """Numbers by name, each interval beside its number."""
    out: dict[str, Any] = {}
    for name, value in asdict(found).items():
        if name == "pass_at":
            out["pass_at"] = {str(size): number["value"] for size, number in value.items()}
            out["pass_at_interval"] = {str(size): number["interval"] for size, number in value.items()}
        elif isinstance(value, Mapping):
            out |= {name: value["value"], f"{name}_interval": value["interval"]}
        else:
            out[name] = value
    return out


def as_table(settings: EvalSettings, answered: Sequence[Answered]) -> Table:
    """For people: percent with intervals, by source; what a reader should know below."""
    judge, judged, k = settings.judge_config(), bool(settings.judge), settings.samples
    scores = by_source(answered, k, judged)
    whole = score(answered, k, judged)
    columns = {"source": "", "n": "num_questions", f"avg@{k}": "avg_at_k"}
    columns |= {f"pass@{k}": "pass_at", f"majority@{k}": "majority_at_k"} if k > 1 else {}
    columns |= {"FP ratio": "fp_ratio", "reliable": "reliable_accuracy"} if judged else {}
    if whole.num_correct and not math.isnan(whole.true_fp_ratio.value):
        columns |= {"true FP ratio": "true_fp_ratio", "truly reliable": "true_reliable_accuracy"}
    columns |= {"tokens": "length"}
    lines = [*_notes(whole, judged), *(f"{name}: {CONVENTIONS[name]}" for name in ("reliable_accuracy", "interval"))]
    judged_by = f", judged by {judge_name(judge)}" if judge else ""
    title = Text(escape(f"{settings.policy_spec().name}{judged_by}"))
    table = Table(title=title, caption=Text("\n".join(lines)), caption_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "source" else "right")
    for name, of_it in scores.items():
        table.add_row(Text(escape(name)), *_cells(of_it, list(columns.values())[1:], k))
    if len(scores) > 1:
        table.add_section()
        table.add_row("all", *_cells(whole, list(columns.values())[1:], k))
    return table


def _cells(found: Score, names: Sequence[str], k: int) -> Iterator[str]:
    for name in names:
        number = found.pass_at[k] if name == "pass_at" else getattr(found, name)
        if not isinstance(number, Number):
            yield str(number)
        elif name == "length":
            yield "-" if math.isnan(number.value) else f"{number.value:.0f}"
        else:
            yield percent(number.value, number.interval)


def _notes(found: Score, judged: bool) -> Iterator[str]:
    """Shares that put the numbers into doubt, where there are any."""
    if judged:
        yield f"FP ratio: {found.num_flawed} flawed of {found.num_judged} right samples with a verdict"
    names = ("no_answer", "undecided", "truncated", "failed", "judge_unparsable", "judge_failed")
    for name in names:
        share = getattr(found, f"{name}_rate")
        if share > 0:
            yield f"{name}: {percent(share)}"
