"""`fapo filter-problems`: questions by their solve rate."""

from __future__ import annotations

from fapo.cli.app import app, console
from fapo.config.options import Options
from fapo.evaluation.policy.settings import FilterSettings


@app.command("filter-problems")
def filter_problems(*, settings: Options[FilterSettings]) -> None:
    """Keep the questions of an evaluation that the policy solves sometimes, but not always, for training.

    If all rollouts of a question get the same reward, training learns nothing from it.
    """
    from fapo.evaluation.policy.filter import filter_problems

    found = filter_problems(settings)
    total = found.kept + found.below + found.above + found.unanswered
    print(
        f"{found.kept} of {total} questions kept; {found.below} have a lower solve rate, {found.above} a higher one, "
        f"{found.unanswered} no sample"
    )
    console.line(f"questions: {settings.out}")
