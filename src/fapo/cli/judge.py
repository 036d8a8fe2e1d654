"""`fapo judge`: audit solutions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fapo.cli.app import app, console, print_json, table_console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.config.options import AsJson, Human, Options, Quiet
from fapo.errors import ConfigError
from fapo.evaluation.audit.settings import AuditSettings


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Page about an audit."""

    report: Path | None = None
    """HTML file for a self-contained page: FP ratio, kinds of error, every solution beside its critique."""
    second: Path | None = None
    """Verdicts of another judge on the same files, which are compared: an output of this command, or rows
    {id, error_step} or {id, flawed} as fapo bench writes them."""
    human: Human = None


@app.command("judge")
def judge(
    *, settings: Options[AuditSettings], page: Options[PageSettings], as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Audit reasoning: check the final answers of solutions, and judge the correct ones for wrong steps.

    A row has a problem (or question, prompt), a correct answer (reference, answer or solution), and a solution
    (response, completion, output, or a list of steps). It may have id and source. Logs of TRL and dumps of verl have
    this form.
    """
    from fapo.evaluation.audit import counts as output
    from fapo.evaluation.audit.run import audit

    if page.report:
        from fapo.report.audit_page import check_inputs

        check_inputs(settings, page.report, page.second, page.human)
    elif page.second or page.human:
        raise ConfigError(
            f"{'--second' if page.second else '--human'} is shown on the page; give --report audit.html, too"
        )
    with progress_bars(disable=quiet) as bars:
        counts = audit(settings, bar_by_name(bars))
    found = output.as_json(counts, settings.prices)
    if not as_json:
        output.print_counts(counts, table_console(), settings.prices)
    console.line(f"verdicts: {settings.out}")
    if page.report:
        from fapo.report.audit_page import write_audit

        file, judges, by_hand = write_audit(settings, page.report, second=page.second, human=page.human)
        console.line(f"page: {file} ({file.stat().st_size / 1e6:.1f} MB)")
        if judges:
            found["second_judge"] = judges.as_json()
            console.line(judges.text())
        for found_by_hand in by_hand:
            found["by_hand"] = found_by_hand.as_json()
            console.line(f"by hand: {found_by_hand.text()}")
    if as_json:
        print_json(found)
    print_notes(counts.verdicts)
