"""`fapo judge`: audit solutions."""

from __future__ import annotations

import json
from pathlib import Path

from fapo.cli.app import AsJson, Options, Quiet, app, console
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
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Audit reasoning: check the final answers of solutions, and judge the correct ones for wrong steps.

    A row has a problem (or question, prompt), a correct answer (reference, answer or solution), and a solution
    (response, completion, output, or a list of steps). It may have id and source. Logs of TRL and dumps of verl have
    this form.

    Args:
        settings: Solutions and judge.
        report: HTML file for a self-contained page: FP ratio, kinds of error, every solution beside its critique.
        second: Verdicts of another judge on the same files, which are compared: an output of this command, or rows
            {id, error_step} or {id, flawed} as fapo bench writes them.
        human: File of labels exported from such a page, which are compared with the judge.
        as_json: Print JSON instead of tables.
        quiet: Show no progress bar.
    """
    from rich.console import Console

    from fapo.evaluation.audit import counts as output
    from fapo.evaluation.audit.run import audit

    if report:
        from fapo.report.audit_page import check_inputs

        check_inputs(settings, report, second, human)
    elif second or human:
        raise ConfigError(f"{'--second' if second else '--human'} is shown on the page; give --report audit.html, too")
    with progress_bars(disable=quiet) as bars:
        counts = audit(settings, bar_by_name(bars))
    found = output.as_json(counts, settings.prices)
    if not as_json:
        output.print_counts(counts, Console(), settings.prices)
    console.print(f"verdicts: {settings.out}", highlight=False, soft_wrap=True)
    if report:
        from fapo.report.audit_page import compare_judges, write_audit

        page = write_audit(settings, report, second=second, human=human)
        console.print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
        if second:
            judges = compare_judges(settings, second)
            found["second_judge"] = judges.as_json()
            console.print(judges.text(), highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    print_notes(counts.verdicts)
