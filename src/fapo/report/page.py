"""The page of a report: one HTML file with numbers, plots, tables, and rollouts with their critiques."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fapo.errors import ConfigError
from fapo.report.agreement import Agreement
from fapo.report.browser import make_browser
from fapo.report.human_review import agreements
from fapo.report.intervals import intervals
from fapo.report.panels import genrm_panels, policy_panels, styles
from fapo.report.plots import svg
from fapo.report.render import render
from fapo.report.rollouts import LIMIT
from fapo.report.run_labels import group_runs
from fapo.report.summary import GENRM, POLICY, crossing_texts, row_titles, summarize
from fapo.report.text import visible
from fapo.report.tiles import tiles
from fapo.report.timing import time_splits
from fapo.training.run_reader import Run, read_run


def write_report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    title: str = "FAPO: what the runs show",
    num_rollouts: int = LIMIT,
    human: str | Path | None = None,
) -> Path:
    """Read run folders, write the page and return its path.

    Args:
        run_dirs: Run folders of policies and of judges.
        out: File of the page.
        title: Title of the page.
        num_rollouts: Approximate limit of the number of rollouts on the page; 0 for none.
        human: File of labels that were made by hand on such a page.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If there is no run folder, or `num_rollouts` is negative.
        DataError: If a folder holds no run, the labels cannot be read, or their rollouts are not in these runs.
    """
    if not run_dirs:
        raise ConfigError("a report needs at least one run folder, such as runs/NAME")
    if num_rollouts < 0:
        raise ConfigError(f"the number of rollouts on a page must be at least 0; got {num_rollouts}")
    runs = [read_run(path) for path in run_dirs]
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        page(runs, title, num_rollouts, agreements(human, runs) if human else ()),
        encoding="utf-8",
        errors="backslashreplace",
    )
    return out


def page(runs: Sequence[Run], title: str, num_rollouts: int = LIMIT, by_hand: Sequence[Agreement] = ()) -> str:
    """Return the whole page. Its template escapes every text and writes out invisible characters.

    Args:
        runs: Runs of policies and of judges.
        title: Title of the page.
        num_rollouts: Approximate limit of the number of rollouts on the page; 0 for none.
        by_hand: Agreement of judges with labels made by hand.

    Returns:
        HTML.
    """
    rows = summarize(runs)
    policies, judges = [run for run in runs if not run.genrm], [run for run in runs if run.genrm]
    return render(
        "page.html.jinja",
        title=visible(title, 200),
        looks=styles(runs),
        dashes=("none", "8 3", "2 2.5", "8 3 2 3"),
        runs=runs,
        tiles=tiles(runs, rows),
        policies=policies,
        policy_panels=policy_panels(runs),
        policy_rows=[row for row in rows if row.metric in POLICY],
        crossings=crossing_texts(runs),
        times=time_splits(policies),
        judges=judges,
        genrm_panels=genrm_panels(runs),
        genrm_rows=[row for row in rows if row.metric in GENRM],
        cells={(row.metric, row.split, row.label): row for row in rows},
        intervals=intervals(runs, rows),
        by_hand=by_hand,
        browser=make_browser(runs, num_rollouts),
        **{function.__name__: function for function in (group_runs, row_titles, svg)},
    )
