"""`fapo report`: a page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fapo.cli.app import app, console
from fapo.errors import ConfigError


@app.command
def report(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    output: Annotated[Path, arg(aliases=["-o"])] = Path("report.html"),
    rollouts: int = 100_000,
    human: Path | None = None,
) -> None:
    """Write a self-contained HTML page about runs: curves, final numbers, a rollout browser, review by hand.

    Args:
        runs: Run folders.
        output: File of the page.
        rollouts: Maximum number of rollouts on the page; if there are more, groups are chosen at random. 0 for none.
        human: File of labels exported from such a page, which are compared with the judge.
    """
    from fapo.report import write_report

    if not runs:
        raise ConfigError("no run folder given: fapo report RUN [RUN ...] -o page.html")
    page = write_report(list(runs), output, num_rollouts=rollouts, human=human)
    console.print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
