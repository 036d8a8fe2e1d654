"""`fapo judge`: audit solutions."""

from __future__ import annotations

from rich.console import Console

from fapo.cli.app import Options, Quiet, app, console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.evaluation.audit.settings import AuditSettings


@app.command
def judge(*, settings: Options[AuditSettings], quiet: Quiet = False) -> None:
    """Audit reasoning: check the final answers of solutions, and judge the correct ones for wrong steps.

    A row has a problem (or question, prompt), a correct answer (reference, answer or solution), and a solution
    (response, completion, output, or a list of steps). It may have id and source. Logs of TRL and dumps of verl have
    this form.
    """
    from fapo.evaluation.audit.counts import print_counts
    from fapo.evaluation.audit.run import audit

    with progress_bars(disable=quiet) as bars:
        counts = audit(settings, bar_by_name(bars))
    print_counts(counts, Console())
    console.print(f"verdicts: {settings.out}", highlight=False, soft_wrap=True)
    print_notes(counts.verdicts)
