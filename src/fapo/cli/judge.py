"""`fapo judge`: audit solutions."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from fapo.cli.app import app, console
from fapo.cli.judge_options import JudgeOptions
from fapo.cli.progress import bar_by_name, progress_bars

_JUDGE = JudgeOptions()


@app.command
def judge(
    files: Positional[tuple[str, ...]],
    /,
    *,
    asked: OmitArgPrefixes[JudgeOptions] = _JUDGE,
    out: Path,
    all: bool = False,
    references: str = "",
    require_box: bool = False,
    skip_bad: bool = False,
    quiet: bool = False,
) -> None:
    """Audit reasoning: check the final answers of solutions, judge those that are right, say where the errors are.

    A row has a problem (or question, prompt), a right answer (reference, answer or solution) and a solution (response,
    completion, output, or steps, a list); id and source if it likes. Logs of TRL and rollout dumps of verl will do.

    Args:
        files: JSONL, JSON or Parquet files, or Hugging Face ids; - is JSONL from standard input.
        out: JSONL file for the verdicts, a row for each row, in order.
        all: Judge solutions with a wrong final answer, too.
        references: Data set to look up right answers in, for rows that do not have them.
        require_box: Only a \\boxed{} counts as a final answer.
        skip_bad: Report rows that make no sense and go on, instead of stopping before anything is asked.
        quiet: No progress bar.
    """
    from fapo.evaluation.audit.counts import print_counts
    from fapo.evaluation.audit.run import audit
    from fapo.evaluation.audit.settings import AuditSettings

    settings = AuditSettings(
        files=files,
        out=out,
        all=all,
        skip_bad=skip_bad,
        require_box=require_box,
        references=references,
        **{field.name: getattr(asked, field.name) for field in fields(asked)},
    )
    with progress_bars(disable=quiet) as bars:
        found = audit(settings, bar_by_name(bars))
    print_counts(found, Console())
    console.print(f"verdicts: {out}", highlight=False, soft_wrap=True)
