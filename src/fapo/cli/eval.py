"""`fapo eval`: measure a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fapo.cli.app import app, console, print_json, table_console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.config.options import AsJson, Options, Quiet
from fapo.evaluation.policy.settings import EvalSettings

if TYPE_CHECKING:
    from fapo.inference.usage import Usage


@app.command("eval")
def evaluate(*, settings: Options[EvalSettings], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Evaluate a policy: sample, check final answers, and measure by a judge how many correct ones are flawed.

    Several policies are evaluated in turn and compared on the same questions; the first one is the baseline. The same
    command continues an evaluation that was interrupted, and asks again for what failed.
    """
    from fapo.evaluation.policy import compare
    from fapo.evaluation.policy.output import as_table, usage_lines, write
    from fapo.evaluation.policy.run import evaluate, gold_verdict_counts, verdict_counts

    policies, everything, summaries = settings.policies(), [], []
    for of_one in policies:
        usage: dict[str, Usage] = {}
        with progress_bars(disable=quiet) as bars:
            answered = evaluate(of_one, bar_by_name(bars), usage)
        everything += answered
        summaries.append(write(of_one, answered, usage))
        if not as_json:
            table_console().print(as_table(of_one, answered))
        for line in usage_lines(of_one, usage):
            console.line(line)
        summary = of_one.out.with_suffix(".json")
        console.line(f"questions: {of_one.out}, summary: {summary}")
    found: Any = summaries[0]
    if len(policies) > 1:
        comparison = compare.compare([of_one.out for of_one in policies])
        found = {"policies": summaries, "comparison": compare.as_json(comparison)}
        if not as_json:
            table_console().print(compare.as_table(comparison))
    if as_json:
        print_json(found)
    print_notes(verdict_counts(everything), gold=gold_verdict_counts(everything))
