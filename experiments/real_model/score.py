"""Score predictions of real judges on the rows that they have: valid verdicts, what they say, and how often rightly.

    python -m experiments.real_model.score FILE [FILE ...] --data processbench_gsm8k.jsonl processbench_math.jsonl

The files are those of `fapo bench --out`, or labels that the review page of `fapo judge` exported (.json). Unlike
`fapo bench --predictions`, rows without a prediction do not count.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fapo.data.jsonl import read_jsonl
from fapo.data.load import load_labelled
from fapo.evaluation.intervals import decimal, percent, percent_of
from fapo.evaluation.judge_benchmarks.rows import subset_names
from fapo.evaluation.judge_benchmarks.score import score_process
from fapo.judge.quality import cohen_kappa
from fapo.judge.verdicts import CUT_OFF, verdict_from_row
from fapo.report.human_review import read_labels
from fapo.types import LabelledSolution, Verdict


def read_rows(file: Path) -> list[Mapping[str, Any]]:
    """Return the predictions in a file; exported labels become predictions, too."""
    if file.suffix != ".json":
        return list(read_jsonl(file))
    steps = {label.problem_id: label.error_step for label in read_labels(file).labels}
    return [{"id": id, "status": "ok", "flawed": step is not None, "error_step": step} for id, step in steps.items()]


def score(rows: Sequence[Mapping[str, Any]], solutions: Mapping[str, LabelledSolution]) -> dict[str, str]:
    """Return the numbers of one file of predictions, as text, with 95 % intervals.

    Args:
        rows: Predictions.
        solutions: Labelled solutions by id, at least those of the rows.

    Returns:
        Numbers by name. The rates of flagged rows are among valid verdicts; in all others, a row without a verdict is
        wrong. The critique length is the number of tokens within which 95 % of the finished critiques end.
    """
    verdicts = [verdict_from_row(row) or Verdict("failed") for row in rows]
    used = [solutions[row["id"]] for row in rows]
    valid = [(v, row.error_step) for v, row in zip(verdicts, used, strict=True) if v.status == "ok"]
    kinds = {kind: [bool(v.flawed) for v, label in valid if (label is not None) is kind] for kind in (True, False)}
    said = Counter(-1 if not v.flawed else v.error_step for v, _ in valid)
    process = score_process(used, ["all"] * len(used), verdicts)
    flags, num_error = process.flags, process.flags.point.num_flawed
    flags_given = [bool(v.flawed) for v, _ in valid]
    num_equal = sum(flag is (label is not None) for flag, (_, label) in zip(flags_given, valid, strict=True))
    flagged = {kind: percent_of(sum(k), len(k)) for kind, k in kinds.items()}
    lengths = [v.num_tokens for v in verdicts if v.reason != CUT_OFF]
    return {
        "rows": f"{len(rows)} ({num_error} with an error)",
        "valid": percent_of(len(valid), len(rows)),
        "cut off": str(sum(v.reason == CUT_OFF for v in verdicts)),
        "verdicts": ", ".join(f"{step}: {num}" for step, num in said.most_common()),
        "labelled with an error": percent_of(num_error, len(rows)),
        "flagged": percent_of(sum(flags_given), len(valid)),
        "flag and label agree": percent_of(num_equal, len(valid)),
        "kappa": decimal(cohen_kappa(flags_given, [label is not None for _, label in valid])),
        "flagged with an error": flagged[True],
        "flagged without": flagged[False],
        "J": decimal(flags.point.youden_j, flags.youden_j),
        "precision": percent(flags.point.precision, flags.precision),
        "recall": percent(flags.point.recall, flags.recall),
        "F1": percent(flags.point.f1, flags.f1),
        "first wrong step named": percent(process.pooled.point.error_acc, process.pooled.error_acc),
        "F1 of ProcessBench": percent(process.pooled.point.f1, process.pooled.f1),
        "tokens": f"{fmean(v.num_tokens for v in verdicts):.0f}",
        "critique length": f"{np.quantile(lengths, 0.95):.0f}" if lengths else "-",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table in Markdown: a column for each subset, and one for all rows of a file."""
    parser = argparse.ArgumentParser(description="Score predictions on the rows that they have.")
    parser.add_argument("files", nargs="+", type=Path, help="files of fapo bench --out, or exported labels")
    parser.add_argument("--data", nargs="+", required=True, help="labelled solutions")
    given = parser.parse_args(arguments)
    solutions = {row.problem.id: row for source in given.data for row in load_labelled(source)}
    subset_of = dict(zip(solutions, subset_names(list(solutions.values())), strict=True))
    for file in given.files:
        rows = read_rows(file)
        names = sorted({subset_of[row["id"]] for row in rows})
        parts = {name: [row for row in rows if subset_of[row["id"]] == name] for name in names}
        if len(names) > 1:
            parts["all"] = rows
        scores = {name: score(part, solutions) for name, part in parts.items()}
        print(f"\n| {file.stem} | {' | '.join(scores)} |\n|{'---|' * (len(scores) + 1)}")
        for number in next(iter(scores.values())):
            print(f"| {number} | {' | '.join(part[number] for part in scores.values())} |")


if __name__ == "__main__":
    main()
