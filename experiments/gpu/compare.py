"""Compare runs question by question: all answered the same questions, so that the comparisons are paired.

    python -m experiments.gpu.compare RESULTS/sentences-rollouts.jsonl.gz [--step 10]

For each learning rate, set, pair of arms and measure the output has both rates, their difference (the second arm minus
the first) with its 95 % bootstrap interval over questions, the numbers of questions on which only one run has the
property, and the p-value of the exact McNemar test. The oracle counts; the judge has no part in it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from experiments.gpu import world
from experiments.gpu.measured import KINDS
from fapo.evaluation.intervals import bootstrap_ratios, percentile_interval

Row = Mapping[str, Any]


def is_right(row: Row) -> bool:
    """Return whether the final answer is right."""
    return bool(row["correct"])


def is_right_for_the_right_reason(row: Row) -> bool:
    """Return whether the answer is right and no step is wrong."""
    return is_right(row) and not world.truth(world.parse(row["problem"]), row["response"]).flawed


def is_flawed_positive(row: Row) -> bool:
    """Return whether the answer is right although a step is wrong."""
    return is_right(row) and not is_right_for_the_right_reason(row)


MEASURES: dict[str, Callable[[Row], bool]] = {
    "right": is_right,
    "right for the right reason": is_right_for_the_right_reason,
    "flawed positive": is_flawed_positive,
}


def paired(first: Iterable[bool], second: Iterable[bool]) -> dict[str, Any]:
    """Return the comparison of one property in two runs.

    Args:
        first: Whether each question has the property in the first run.
        second: The same for the second run, in the same order.

    Returns:
        Number of questions, both rates, second minus first with its bootstrap interval, the questions that have the
        property in one run only, and the p-value of the exact McNemar test.
    """
    a, b = np.array(list(first), dtype=int), np.array(list(second), dtype=int)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"two runs with the same questions are needed; got {len(a)} and {len(b)}")
    only_first, only_second = int((a > b).sum()), int((b > a).sum())
    apart = only_first + only_second
    low, high = percentile_interval(bootstrap_ratios((b - a)[:, None], np.ones((len(a), 1)))[:, 0])
    return {
        "n": len(a),
        "first": round(float(a.mean()), 4),
        "second": round(float(b.mean()), 4),
        "difference": round(float((b - a).mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "only_first": only_first,
        "only_second": only_second,
        "p": float(f"{binomtest(only_first, apart).pvalue:.2g}") if apart else 1.0,
    }


def pairs(
    runs: Mapping[str, Mapping[str, Row]], measures: Mapping[str, Callable[[Row], bool]]
) -> Iterable[dict[str, Any]]:
    """Yield the comparisons of each two runs on the questions that both answered.

    Args:
        runs: For each run its rollouts by question; a run later in the order is the second one of a pair.
        measures: Properties by name.
    """
    for first, second in combinations(runs, 2):
        a, b = runs[first], runs[second]
        if same := [question for question in a if question in b]:
            for name, measure in measures.items():
                found = paired((measure(a[q]) for q in same), (measure(b[q]) for q in same))
                yield {"runs": [first, second], "measure": name, **found}


def compare(rows: Iterable[Row], step: int | None = None) -> Iterable[dict[str, Any]]:
    """Yield the paired comparisons of each two arms.

    Args:
        rows: Rollouts of validations, as `measured.keep_rollouts` writes them.
        step: Training step of the validation; None takes the last one that both arms have.
    """
    runs: dict[tuple[str, str], dict[int, dict[str, Row]]] = {}
    for row in rows:
        by_step = runs.setdefault((row["run"], row["split"]), {})
        by_step.setdefault(row["step"], {})[row["problem"]] = row
    for rate in sorted({run.split("-", 1)[1] for run, _ in runs if "-" in run}):
        for split in ("validation", "harder"):
            arms = {kind: runs[f"{kind}-{rate}", split] for kind in KINDS if (f"{kind}-{rate}", split) in runs}
            for pair in combinations(arms, 2):
                common = set.intersection(*(set(arms[kind]) for kind in pair))
                last = max(common, default=0) if step is None else step
                if last in common:
                    for found in pairs({kind: arms[kind][last] for kind in pair}, MEASURES):
                        yield {"rate": rate, "set": split, "step": last, **found}


def line_of(found: Mapping[str, Any]) -> str:
    """Return one comparison as a line of text."""
    low, high = (100 * end for end in found["interval"])
    return (
        f"{found.get('rate', ''):>8} {found['set']:10} step {found['step']:<3} {found['measure']:27} "
        f"{' '.join(found['runs'])}: {100 * found['first']:5.1f} {100 * found['second']:5.1f} %, "
        f"difference {100 * found['difference']:+5.1f} ({low:+.1f} to {high:+.1f}), "
        f"only one: {found['only_first']} {found['only_second']}, p {found['p']:.2g}, n {found['n']}"
    )


def main() -> None:
    """Print one line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", type=Path, help="sentences-rollouts.jsonl.gz of the results")
    parser.add_argument("--step", type=int, help="training step; without it the last one that both arms have")
    given = parser.parse_args()
    with gzip.open(given.rollouts, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    print(*map(line_of, compare(rows, given.step)), sep="\n")


if __name__ == "__main__":
    main()
