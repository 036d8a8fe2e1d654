"""Comparison of policies on the same questions, from the tables that `fapo eval` has written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from fapo.data.columns import Row
from fapo.data.jsonl import finite, read_jsonl
from fapo.data.untrusted_text import escape
from fapo.errors import DataError
from fapo.evaluation.intervals import LEVEL, Estimate
from fapo.evaluation.policy.output import cell
from fapo.evaluation.policy.run import AnsweredQuestion, Sample
from fapo.evaluation.policy.score import Score, paired_differences, score
from fapo.judge.verdicts import verdict_from_row
from fapo.rewards.verify import Check
from fapo.types import Problem, Rollout

SHOWN = {
    "avg_at_k": "avg@k",
    "pass_at_k": "pass@k",
    "fp_ratio": "FP ratio",
    "reliable_accuracy": "reliable",
    "verified_pass_at_k": "verified pass@k",
    "length": "tokens",
}
"""Numbers of the table, with the headings of their columns."""


@dataclass(frozen=True)
class Comparison:
    """Policies on their common questions."""

    num_questions: int
    """Number of questions that have a sample in each table."""
    num_unanswered: int
    """Number of further questions that all tables have; in one of them all requests failed."""
    k: int
    """Number of samples of each question; the smallest one of all tables."""
    judges: Mapping[str, str]
    """Judge of each policy by the path of its table, as the summary beside it says; empty where it does not."""
    scores: Mapping[str, Score]
    """Score of each policy by the path of its table."""
    differences: Mapping[str, Mapping[str, Estimate]]
    """Numbers of each further policy minus those of the first one, by path and name; intervals are paired."""


def compare(tables: Sequence[Path]) -> Comparison:
    """Compare policies on the questions that all tables have, and to which each policy has answered.

    Args:
        tables: Tables of questions that `fapo eval` has written; the first one is the baseline.

    Returns:
        Scores and paired differences.

    Raises:
        DataError: A table cannot be read, or the tables have no question in common.
    """
    if len(set(tables)) < 2:
        raise DataError("a comparison needs at least two tables of `fapo eval`; give another one")
    read = {str(path): {_key(question): question for question in read_table(path)} for path in tables}
    first, *others = read
    common = [key for key in read[first] if all(key in read[other] for other in others)]
    if not common:
        raise DataError(f"{first} and the other tables have no question in common; evaluate both on the same data")
    answered = [key for key in common if all(found[key].samples for found in read.values())]
    if not answered:
        raise DataError(f"{first} and the other tables have no answered question in common; repeat what failed")
    questions = {path: [found[key] for key in answered] for path, found in read.items()}
    k = min(max(len(q.samples) + q.num_failed for q in found) for found in questions.values())
    correct = [s for found in questions.values() for q in found for s in q.samples if s.check.correct]
    judged = all(sample.verdict for sample in correct)  # a table without a correct sample may have had a judge
    return Comparison(
        num_questions=len(answered),
        num_unanswered=len(common) - len(answered),
        k=k,
        judges={path: _judge_of(Path(path)) for path in read},
        scores={path: score(found, k, judged) for path, found in questions.items()},
        differences={other: paired_differences(questions[first], questions[other], k, judged) for other in others},
    )


def read_table(path: Path) -> list[AnsweredQuestion]:
    """Read a table of questions that `fapo eval` has written.

    Args:
        path: JSONL file.

    Returns:
        Questions with their samples.

    Raises:
        DataError: The file cannot be read, or a row is not one of `fapo eval`.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the --out file of `fapo eval`")
    out = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            _check_types(row, id=str, problem=str, reference=str, source=str, samples=list, num_failed=int)
            problem = Problem(row["id"], row["problem"], row["reference"], row["source"])
            samples = tuple(_sample(problem, sample) for sample in row["samples"])
            all_judged = row.get("verified_majority") is not None
            out.append(AnsweredQuestion(problem, samples, row["num_failed"], row.get("reason", ""), all_judged))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}:{number}: not a row of `fapo eval` ({error!r}); give its --out file") from None
    return out


def _judge_of(table: Path) -> str:
    """Return the judge in the summary beside a table; empty without a judge or a summary."""
    try:
        summary = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(summary.get("judge") or "") if isinstance(summary, dict) else ""


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison for JSON; a number that is not defined is None."""
    return finite(asdict(found))


def as_table(found: Comparison) -> Table:
    """Return a comparison as a table: a section for each policy, with the differences to the first one."""
    left_out = f" ({found.num_unanswered} left out, which a policy did not answer)" if found.num_unanswered else ""
    caption = (
        f"{found.num_questions} common questions{left_out}, k = {found.k}; differences to the first policy in points; "
        f"intervals: {LEVEL:.0%} bootstrap, those of differences paired over questions"
    )
    if len(set(filter(None, found.judges.values()))) > 1:
        caption += "\nthe policies had different judges: numbers that depend on verdicts do not compare"
    # one number a line, so that no number is cut on a terminal of 80 columns
    table = Table(caption=Text(caption), caption_justify="left", box=SIMPLE, min_width=76)
    names = [name for name in SHOWN if found.k > 1 or not name.endswith("pass_at_k")]
    table.add_column("policy", overflow="fold")
    for heading in ("number", "value", "difference"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "number" else "right")
    for path, of_policy in found.scores.items():
        table.add_section()
        for row, name in enumerate(names):
            value = cell(name, _number(of_policy, name, found.k))
            difference = cell(name, found.differences[path][name], signed=True) if path in found.differences else ""
            shown = "" if row else Text(escape(path))
            table.add_row(shown, SHOWN[name].replace("@k", f"@{found.k}"), value, difference)
    return table


def _number(found: Score, name: str, k: int) -> Estimate:
    number = getattr(found, name.removesuffix("_k") if name.endswith("pass_at_k") else name)
    estimate: Estimate = number[k] if isinstance(number, Mapping) else number
    return estimate


def _key(question: AnsweredQuestion) -> tuple[str, str, str]:
    problem = question.problem
    return problem.source, problem.id, problem.text


def _check_types(row: Row, **kinds: type) -> None:
    """Raise TypeError if a column is not of its type, KeyError if it is missing."""
    for name, kind in kinds.items():
        if type(row[name]) is not kind:
            raise TypeError(f"{name} is {str(row[name])[:40]!r}")


def _sample(problem: Problem, row: Row) -> Sample:
    _check_types(row, response=str, num_tokens=int, truncated=bool, correct=bool, check=str, status=str)
    rollout = Rollout(problem, row["response"], row["num_tokens"], row["truncated"])
    check = Check(row["correct"], row["answer"], row["check"])
    gold, own = (verdict_from_row(row[name]) if name in row else None for name in ("gold", "own"))
    return Sample(rollout, check, verdict_from_row(row), row["truly_flawed"], gold, own)
