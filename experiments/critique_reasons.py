"""Measure how often a GenRM of the miniature is right for the wrong reason, at each validation of its training.

python -m experiments.critique_reasons RUN_FOLDER [RUN_FOLDER ...]

A run folder is that of a GenRM with the template "compact". Each line of a critique states what the next line of the
solution should be, which result the solution has, and whether they agree. An exact reviewer can write only one critique
of a solution, so a critique is sound if it equals that one. A critique with the right label (flawed or not) and, for a
flawed solution, the right step is right for the wrong reason if any of its lines differs. Rates are over the rollouts
of all given runs, with Wilson's 95 % intervals; several runs share their problems, so that these are too narrow.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.base_models.critiques import critique
from experiments.base_models.writers import PERFECT
from fapo.data.jsonl import read_jsonl
from fapo.data.load import load_labelled
from fapo.data.miniature.world import parse
from fapo.evaluation.intervals import percent_of
from fapo.types import LabelledSolution


def unsound_line(solution: LabelledSolution, text: str) -> str | None:
    """Return the first line that an exact reviewer writes and the critique does not; None for a sound critique."""
    exact = critique(random.Random(0), parse(solution.problem.text), "\n".join(solution.steps), PERFECT).split("\n")
    given = text.strip().split("\n")
    return next((e for e, g in zip_longest(exact, given) if e != g), None)


def counts(rows: Iterable[Mapping[str, Any]], solutions: Mapping[str, LabelledSolution]) -> tuple[int, ...]:
    """Count critiques.

    Args:
        rows: Rows of rollouts.jsonl.
        solutions: Labelled solutions by the id of their problem.

    Returns:
        Number of flawed solutions that were flagged at the right step, and of those for a wrong reason; number of
        correct solutions that were passed, of those for a wrong reason, and of these with the operations right and the
        answer line wrong.
    """
    located = located_unsound = passed = passed_unsound = in_answer = 0
    for row in rows:
        solution = solutions[row["problem_id"]]
        if row["flawed"] is None or row["error_step"] != solution.error_step:
            continue
        line = unsound_line(solution, row["response"])
        if row["flawed"]:
            located, located_unsound = located + 1, located_unsound + (line is not None)
        else:
            passed, passed_unsound = passed + 1, passed_unsound + (line is not None)
            in_answer += line is not None and line.startswith("answer")
    return located, located_unsound, passed, passed_unsound, in_answer


def measured(folders: Sequence[Path]) -> dict[int, tuple[int, ...]]:
    """Return step -> number of all critiques of the validations, then `counts`, summed over the runs."""
    solutions = {s.problem.id: s for s in load_labelled("miniature:critic-test")}
    by_step: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for folder in folders:
        for row in read_jsonl(folder / "rollouts.jsonl"):
            if row["split"] != "train":
                by_step[row["step"]].append(row)
    return {step: (len(rows), *counts(rows, solutions)) for step, rows in sorted(by_step.items())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.critique_reasons", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders of GenRMs")
    reason = "for a wrong reason"
    table = Table("step", "critiques", "right step", reason, "passed", reason, "in the answer line", box=box.MARKDOWN)
    for step, found in measured(parser.parse_args().folders).items():
        total, located, located_unsound, passed, passed_unsound, in_answer = found
        cells = [
            percent_of(unsound, number) if number else ""
            for unsound, number in ((located_unsound, located), (passed_unsound, passed), (in_answer, passed))
        ]
        table.add_row(str(step), str(total), str(located), cells[0], str(passed), *cells[1:])
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
