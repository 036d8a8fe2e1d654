"""`fapo judge`: audit solutions."""

from __future__ import annotations

from pathlib import Path

from fapo.cli.app import Options, Quiet, app, console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.errors import ConfigError
from fapo.evaluation.audit.settings import AuditSettings


@app.command("judge")
def judge(
    *,
    settings: Options[AuditSettings],
    report: Path | None = None,
    second: Path | None = None,
    human: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Audit reasoning: check the final answers of solutions, and judge the correct ones for wrong steps.

    A row has a problem (or question, prompt), a correct answer (reference, answer or solution), and a solution
    (response, completion, output, or a list of steps). It may have id and source. Logs of TRL and dumps of verl have
    this form.

    Args:
        settings: Solutions and judge.
        report: HTML file for a self-contained page: FP ratio, kinds of error, every solution beside its critique.
        second: Output of this command for the same files with another judge; the page compares the two.
        human: File of labels exported from such a page, which are compared with the judge.
        quiet: Show no progress bar.
    """
    from rich.console import Console

    from fapo.evaluation.audit.counts import print_counts
    from fapo.evaluation.audit.run import audit

    if report:
        from fapo.report.audit_page import check_inputs

        check_inputs(settings, report, second, human)
    elif second or human:
        raise ConfigError(f"{'--second' if second else '--human'} is shown on the page; give --report audit.html, too")
    with progress_bars(disable=quiet) as bars:
        counts = audit(settings, bar_by_name(bars))
    print_counts(counts, Console(), settings.prices)
    console.print(f"verdicts: {settings.out}", highlight=False, soft_wrap=True)
    if report:
        from fapo.report.audit_page import write_audit

        page = write_audit(settings, report, second=second, human=human)
        console.print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    print_notes(counts.verdicts)
