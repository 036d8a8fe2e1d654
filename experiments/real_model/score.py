"""Score predictions of real judges on the rows that they have: valid verdicts, what they say, and how often rightly.

    python -m experiments.real_model.score FILE [FILE ...] --data processbench_gsm8k.jsonl processbench_math.jsonl

The files are those of `fapo bench --out`. Unlike `fapo bench --predictions`, rows without a prediction do not count.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fapo.data.jsonl import read_jsonl
from fapo.data.load import load_labelled
from fapo.evaluation.intervals import percent, wilson_interval
from fapo.judge.quality import judge_quality, processbench_f1
from fapo.judge.verdicts import verdict_from_row
from fapo.types import LabelledSolution, Verdict


def score(rows: Sequence[Mapping[str, Any]], solutions: Mapping[str, LabelledSolution]) -> dict[str, str]:
    """Return the numbers of one file of predictions, as text.

    Args:
        rows: Predictions.
        solutions: Labelled solutions by id, at least those of the rows.

    Returns:
        Numbers by name. J is the rate of flagged rows with an error minus that of those without, among valid verdicts.
    """
    verdicts = [verdict_from_row(row) or Verdict("failed") for row in rows]
    labels = [solutions[row["id"]].error_step for row in rows]
    valid = [(v, label) for v, label in zip(verdicts, labels, strict=True) if v.status == "ok"]
    kinds = {kind: [bool(v.flawed) for v, label in valid if (label is not None) is kind] for kind in (True, False)}
    said = Counter(-1 if not v.flawed else v.error_step for v, _ in valid)
    quality, process = judge_quality(verdicts, labels), processbench_f1(verdicts, labels)
    flagged = {kind: percent(fmean(k), wilson_interval(sum(k), len(k))) if k else "-" for kind, k in kinds.items()}
    return {
        "rows": f"{len(rows)} ({sum(label is not None for label in labels)} with an error)",
        "valid": percent(len(valid) / len(rows), wilson_interval(len(valid), len(rows))),
        "verdicts": ", ".join(f"{step}: {num}" for step, num in said.most_common()),
        "flagged with an error": flagged[True],
        "flagged without": flagged[False],
        "J": f"{fmean(kinds[True]) - fmean(kinds[False]):+.2f}" if all(kinds.values()) else "-",
        "precision, recall, F1": ", ".join(percent(quality[name]) for name in ("precision", "recall", "f1")),
        "step named exactly": percent(quality["location"]),
        "F1 of ProcessBench": percent(process.f1),
        "tokens": f"{fmean(row['critique_tokens'] for row in rows):.0f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table in Markdown for each file."""
    parser = argparse.ArgumentParser(description="Score predictions on the rows that they have.")
    parser.add_argument("files", nargs="+", type=Path, help="files of fapo bench --out")
    parser.add_argument("--data", nargs="+", required=True, help="labelled solutions")
    given = parser.parse_args(arguments)
    solutions = {row.problem.id: row for source in given.data for row in load_labelled(source)}
    for file in given.files:
        print(f"\n{file.name}\n")
        for name, value in score(list(read_jsonl(file)), solutions).items():
            print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
