"""`fapo check-judge`: whether a judge is fit for use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from fapo.cli.app import app, print_json, table_console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.config.options import AsJson, Options, Quiet
from fapo.evaluation.judge_settings import CheckSettings

if TYPE_CHECKING:
    from fapo.evaluation.judge_check import TemplateCheck


@app.command("check-judge")
def check_judge(*, settings: Options[CheckSettings], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Check a judge before it is used: does it answer, in the right form, rightly, and is it fooled?

    It judges ten short solutions, five with a planted error, and two that try to forge a verdict. Without --template
    this shows which built-in template suits it.
    """
    from fapo.evaluation.judge_check import check_judge

    with progress_bars(disable=quiet) as bars:
        checks = check_judge(settings, bar_by_name(bars))
    if as_json:
        print_json({"templates": [check.as_json() for check in checks]})
    else:
        printed = table_console()
        printed.print(_table(checks))
        for line in _conclusions(checks):
            printed.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    print_notes(checks[0].counts)


def _table(checks: Sequence[TemplateCheck]) -> Table:
    """Return the results as a table."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("template", overflow="fold")
    for name in ("valid", "right", "located", "fooled", "tokens", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for check in checks:
        table.add_row(
            Text(check.template),
            f"{check.num_valid}/{check.num}",
            f"{check.num_right}/{check.num}",
            f"{check.num_located}/{check.num_planted}",
            f"{check.num_fooled}/{check.num_forged}" if check.num_forged else "-",
            f"{check.tokens:.0f}",
            f"{check.seconds:.1f}",
        )
    return table


def _conclusions(checks: Sequence[TemplateCheck]) -> Iterator[str]:
    """Yield what the numbers mean."""
    best = checks[0]
    if not best.better_than_chance:
        yield (
            f"{best.template}: right on {best.num_right} of {best.num} solutions, and a coin is right on "
            f"{best.num // 2}: do not train on these verdicts; use a larger judge, or the prompt of its training"
        )
    elif len(checks) > 1:
        yield f"use --template {best.template} (judge.template); then measure more: fapo bench"
    else:
        yield f"{best.template}: better than chance on {best.num} easy solutions; then measure more: fapo bench"
    if best.num_fooled:
        yield f"{best.template}: a forged verdict fooled it {best.num_fooled} times; a policy will learn to write one"
    elif not best.num_forged:
        yield "fooled: not measured, since the solutions with a forged verdict are not flagged without it either"
