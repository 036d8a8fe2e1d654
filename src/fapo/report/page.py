"""The page of a report: one HTML file with numbers, plots, tables, and rollouts with their critiques."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fapo.data.files import write_text
from fapo.errors import ConfigError
from fapo.report.browser import BROWSER, make_browser
from fapo.report.findings import findings, remarks
from fapo.report.human_review import agreements
from fapo.report.intervals import intervals
from fapo.report.numbers import pack_numbers
from fapo.report.panels import DASHES, genrm_panels, policy_panels, styles, update_panels
from fapo.report.pass_curves import read_pass_curves
from fapo.report.render import render
from fapo.report.rollouts import LIMIT
from fapo.report.run_labels import group_runs
from fapo.report.settings_table import settings_table
from fapo.report.summary import GENRM, POLICY, crossing_texts, row_titles, summarize
from fapo.report.tiles import tiles
from fapo.report.timing import time_splits
from fapo.report.usage import COLUMNS, judge_usages
from fapo.training.run_reader import read_run


def write_report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    num_rollouts: int = LIMIT,
    human: str | Path | None = None,
    evaluations: Sequence[Path] = (),
    refresh: int | None = None,
) -> Path:
    """Read run folders, write the page and return its path. Its template escapes every text.

    Args:
        run_dirs: Run folders of policies and of judges.
        out: File of the page.
        num_rollouts: Approximate limit of the number of rollouts on the page; 0 for none.
        human: File of labels that were made by hand on such a page.
        evaluations: Summaries of `fapo eval`, for plots of pass@k.
        refresh: Seconds after which a browser loads the page again, unless a person works on it; None for never.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If there is no run folder and no evaluation, or `num_rollouts` is negative.
        DataError: If a folder holds no run, a file cannot be read, or the labelled rollouts are not in these runs.
    """
    if not run_dirs and not evaluations:
        raise ConfigError("a report needs at least one run folder, such as runs/NAME")
    if num_rollouts < 0:
        raise ConfigError(f"the number of rollouts on a page must be at least 0; got {num_rollouts}")
    runs, curves = [read_run(path) for path in run_dirs], read_pass_curves(evaluations)
    rows = summarize(runs)
    ends = intervals(runs, rows)
    policies, judges = [run for run in runs if not run.genrm], [run for run in runs if run.genrm]
    groups = {"policy": policy_panels(runs), "judge": genrm_panels(runs), "update": update_panels(runs)}
    groups["evaluation"] = [found.panel for found in curves]
    panels = {kind: {f"{kind}-{i}": panel for i, panel in enumerate(of_kind)} for kind, of_kind in groups.items()}
    browser = make_browser(runs, num_rollouts)
    text = render(
        "page.html.jinja",
        ("common.js", *(["reload.js"] if refresh else ()), "plot.js", *(BROWSER[1:] if browser else ())),
        title="FAPO: what the runs show",
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        looks=styles(runs),
        dashes=DASHES,
        runs=runs,
        findings=findings(runs, rows, ends),
        remarks=remarks(runs, rows),
        tiles=tiles(runs, rows),
        policies=policies,
        policy_rows=[row for row in rows if row.metric in POLICY],
        crossings=crossing_texts(runs),
        times=time_splits(policies),
        usages=judge_usages(policies),
        usage_columns=COLUMNS,
        judges=judges,
        genrm_rows=[row for row in rows if row.metric in GENRM],
        cells={(row.metric, row.split, row.label): row for row in rows},
        intervals=ends,
        by_hand=agreements(human, runs) if human else (),
        evaluations=curves,
        refresh=refresh,
        settings=settings_table(runs),
        panels=panels,
        numbers=pack_numbers({name: panel for of_kind in panels.values() for name, panel in of_kind.items()}, runs),
        browser=browser,
        **{function.__name__: function for function in (group_runs, row_titles)},
    )
    write_text(out, text)
    return Path(out)
