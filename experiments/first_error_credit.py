"""Show what the steps before the first error of wrong rollouts were paid in a finished run of the miniature.

python -m experiments.first_error_credit RUN_FOLDER [RUN_FOLDER ...]

A wrong rollout has one advantage for all of its lines, also for the right ones before its first error. First-error
credit (VPPO, arXiv 2601.18984) pays those lines differently. The oracle knows the first error. The table says how many
right lines there are, and what the advantage of a line with a borrow was: right, or the first error of its rollout. The
column "if not punished" has the mean of the right ones with 0 for those in wrong rollouts.

If the judge of the run reads wrong rollouts, too, the last columns say in how many of them it found an error, and how
many of those it located. With `reward.kind = "first_error"` the advantage on record is that of the wrong step, so that
the three columns before them say nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.advantages_of_kinds import named_runs
from fapo.data.miniature.world import borrows, parse
from fapo.data.steps import split_steps
from fapo.evaluation.intervals import percent_of


@dataclass(frozen=True)
class Credit:
    """Wrong rollouts of some steps, and advantages of their lines."""

    num_wrong: int
    """Number of wrong rollouts."""
    num_with_prefix: int
    """Number of those with a right line before the first error."""
    prefix: float
    """Mean rate of lines before the first error, of the rollouts that have one there."""
    num_box: int
    """Number of wrong rollouts with the first error in their last line: the box, if they have one."""
    num_hopeless: int
    """Number of wrong rollouts in a group without a correct one, which have the advantage 0."""
    right: float
    """Mean advantage of right lines with a borrow, up to the first error of their rollout."""
    unpunished: float
    """The same mean, with 0 for those in wrong rollouts."""
    first_wrong: float
    """Mean advantage of lines with a borrow that are the first error of their rollout."""
    num_judged: int
    """Number of wrong rollouts with a verdict; 0 if the judge of the run reads correct ones only."""
    num_found: int
    """Number of those in which the judge has found an error."""
    num_located: int
    """Number of those for which it has named the first error."""


def credit_of(rows: Sequence[Mapping[str, Any]]) -> Credit:
    """Return what the lines of training rows of rollouts.jsonl were paid; some lines must have a borrow."""
    correct = defaultdict(list)
    for row in rows:
        correct[row["step"], row["problem_id"]].append(row["correct"])
    wrong = [row for row in rows if not row["correct"]]
    num_lines = [max(len(split_steps(row["response"], "lines")), 1) for row in wrong]
    errors = [row["truth"]["error_step"] for row in wrong]  # a wrong rollout has a first error, if only its box
    prefixes = [error / num for error, num in zip(errors, num_lines, strict=True)]
    judged = [row for row in wrong if row["status"] == "ok"]
    right, unpunished, first_wrong = [], [], []
    for row in rows:
        task, error, advantage = parse(row["problem"]), row["truth"]["error_step"], row["advantage"] or 0.0
        for i, (before, operation) in enumerate(zip((task.start, *task.values), task.operations, strict=False)):
            if (error is not None and i > error) or not borrows(before, *operation):
                continue
            if i == error:
                first_wrong.append(advantage)
            else:
                right.append(advantage)
                unpunished.append(advantage if row["correct"] else 0.0)
    return Credit(
        len(wrong),
        sum(prefix > 0 for prefix in prefixes),
        fmean(prefix for prefix in prefixes if prefix > 0),
        sum(error == num - 1 for error, num in zip(errors, num_lines, strict=True)),
        sum(not any(correct[row["step"], row["problem_id"]]) for row in wrong),
        fmean(right),
        fmean(unpunished),
        fmean(first_wrong),
        len(judged),
        sum(row["flawed"] for row in judged),
        sum(row["flawed"] and row["error_step"] == row["truth"]["error_step"] for row in judged),
    )


def main() -> None:
    """Print the table: a cell has one number for each run."""
    runs = named_runs("first_error_credit", __doc__)
    columns = ("steps", "wrong", "with a right prefix", "its length", "only the last line", "no correct in group")
    advantages = ("borrow: right", "if not punished", "borrow: first error")
    table = Table(*columns, *advantages, "errors found", "of these, located", box=box.MARKDOWN)
    for steps in runs[0]:
        found = [credit_of(run[steps]) for run in runs if steps in run]
        table.add_row(
            steps,
            ", ".join(str(one.num_wrong) for one in found),
            ", ".join(percent_of(one.num_with_prefix, one.num_wrong) for one in found),
            ", ".join(f"{100 * one.prefix:.0f} %" for one in found),
            ", ".join(f"{100 * one.num_box / one.num_wrong:.0f} %" for one in found),
            ", ".join(f"{100 * one.num_hopeless / one.num_wrong:.0f} %" for one in found),
            *(
                ", ".join(f"{value:+.2f}" for value in values)
                for values in zip(*((one.right, one.unpunished, one.first_wrong) for one in found), strict=True)
            ),
            ", ".join(percent_of(one.num_found, one.num_judged) for one in found if one.num_judged),
            ", ".join(percent_of(one.num_located, one.num_found) for one in found if one.num_found),
        )
    Console(width=240).print(table)


if __name__ == "__main__":
    main()
