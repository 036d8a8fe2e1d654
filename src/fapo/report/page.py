"""Run folders -> one HTML page that needs nothing else: numbers, plots, a table, rollouts with their critiques."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fapo.errors import ConfigError
from fapo.intervals import Interval, percent
from fapo.report.browser import browser, script_source, shown_cards
from fapo.report.human import Agreement, agreements
from fapo.report.intervals import intervals
from fapo.report.panels import Panel, Style, genrm_panels, policy_panels, styles
from fapo.report.plots import PALETTE, svg
from fapo.report.rollouts import LIMIT
from fapo.report.runs import grouped
from fapo.report.summary import GENRM, POLICY, Row, crossing_texts, row_titles, show, summarize
from fapo.report.text import safe
from fapo.report.tiles import Tile, tiles
from fapo.report.timing import TimeSplit, time_splits
from fapo.run_reader import Run, read_run

_POLICY = (
    "Lines are measured on validation sets; bold lines over faint ones are running means of training batches. "
    "rho is fully correct per wrong rollout. The dotted level is where theory lets the advantage of flawed positives "
    "change sign, group by group: so it holds for rho of the groups that have some, each weighted by their number, and "
    "the whole batch, in which solved groups count as well, is past it long before."
)
_INTERVALS = (
    "In brackets 95 % intervals of the last value: over seeds (Student's t) where there are several runs, otherwise "
    "over the questions of the validation set."
)


def write_report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    title: str = "FAPO: what the runs show",
    num_rollouts: int = LIMIT,
    human: str | Path | None = None,
) -> Path:
    """Read the run folders, write the page, return its path. Raises DataError for a folder without a run.

    The page holds about `num_rollouts` rollouts at most, 0 for none. `human` is a file of labels made on such a page;
    DataError if it is not, or if its rollouts are not in these runs.
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
    """The whole page."""
    rows = summarize(runs)
    known = intervals(runs, rows)
    policies, judges = [run for run in runs if not run.genrm], [run for run in runs if run.genrm]
    parts = [
        f'<h1>{safe(title, 200)}</h1><p class="lead">A flawed positive is a solution with the right answer and a wrong '
        "step. Plain reinforcement learning rewards it like any other; FAPO takes the reward back.</p>",
        _tiles(tiles(runs, rows)),
    ]
    if policies:
        crossings = crossing_texts(runs)
        parts.append(
            f'<h2>The policies</h2><p class="note">{_POLICY}</p>{_legend(runs, policies)}{_plots(policy_panels(runs))}'
        )
        parts.append(_table([row for row in rows if row.metric in POLICY], crossings, known))
        parts.append(_times(time_splits(policies)))
    if judges:
        parts.append(
            '<h2>The judge</h2><p class="note">The GenRM in training: how well it tells flawed positives from sound '
            f"solutions, and whether it names the right step.</p>{_legend(runs, judges)}{_plots(genrm_panels(runs))}"
        )
        parts.append(_table([row for row in rows if row.metric in GENRM], {}, known))
    parts.append(_by_hand(by_hand))
    shown, share = shown_cards(runs, num_rollouts) if num_rollouts else ([], 0.0)
    parts += [browser(shown, share) if shown else "", f"<footer>{_sources(runs)}</footer>"]
    scripts = f"; script-src {script_source()}" if shown else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'{scripts}\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{safe(title, 200)}</title>\n<style>\n{_css()}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _css() -> str:
    light = "".join(f"--{name}: {color}; " for name, (color, _) in PALETTE.items())
    dark = "".join(f"--{name}: {color}; " for name, (_, color) in PALETTE.items())
    sheet = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n{sheet}"


def _tiles(shown: Sequence[Tile]) -> str:
    texts = (f'<div class="tile"><b>{safe(t.number)}</b><p>{safe(t.sentence)}</p></div>' for t in shown)
    return f'<div class="tiles">{"".join(texts)}</div>' if shown else ""


def _legend(runs: Sequence[Run], shown: Sequence[Run]) -> str:
    look = styles(runs)
    sizes = {label: f" ({len(group)} runs)" if len(group) > 1 else "" for label, group in grouped(shown).items()}
    items = (f"<li>{_stroke(look[label])}{safe(label + size)}</li>" for label, size in sizes.items())
    return f'<ul class="legend">{"".join(items)}</ul>'


def _stroke(style: Style) -> str:
    dashes = ("none", "8 3", "2 2.5", "8 3 2 3")[style.dash]
    line = f'<line x2="30" y1="4" y2="4" stroke="var(--{style.color})" stroke-width="3" stroke-dasharray="{dashes}"/>'
    return f'<svg viewBox="0 0 30 8" aria-hidden="true">{line}</svg>'


def _plots(panels: Sequence[Panel]) -> str:
    figures = (f"<figure><figcaption>{safe(panel.title)}</figcaption>{svg(panel)}</figure>" for panel in panels)
    return f'<div class="plots">{"".join(figures)}</div>'


def _table(rows: Sequence[Row], crossings: dict[str, str], known: Mapping[Row, Interval]) -> str:
    labels = list(dict.fromkeys(row.label for row in rows))
    if not labels:
        return ""
    cells = {(row.metric, row.split, row.label): row for row in rows}
    head = "".join(f"<th>{safe(label)}</th>" for label in labels)
    lines = [
        f"<tr><th>{safe(line)}</th>{''.join(_cell(cells.get((metric, name, label)), known) for label in labels)}</tr>"
        for (metric, name), line in row_titles(rows).items()
    ]
    if crossings:
        moments = "".join(f'<td class="words">{safe(crossings.get(label, "–"))}</td>' for label in labels)
        lines.append(f"<tr><th>flawed positives turn negative at</th>{moments}</tr>")
    table = f"<table><thead><tr><th>start → end</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<h3>First and last measurement</h3><p class="note">{_INTERVALS}</p><div class="table">{table}</div>'


def _cell(row: Row | None, known: Mapping[Row, Interval]) -> str:
    if row is None:
        return "<td>–</td>"
    start, end = show(row.start, row.metric), show(row.end, row.metric)
    low, high = (show(bound, row.metric).removesuffix(" %") for bound in known.get(row, (math.nan, math.nan)))
    interval = f'<i class="interval">[{low}, {high}]</i>' if row in known else ""
    kind = ' class="best"' if row.best else ""
    return f"<td{kind}><i>{safe(start)} →</i> {safe(end)}{interval}</td>"


def _times(found: Sequence[TimeSplit]) -> str:
    """A bar for each label, as long as its step takes."""
    if not found:
        return ""
    longest = max(split.total for split in found)
    lines = []
    for split in found:
        parts = (("rollout", split.rollout), ("score", split.score), ("update", split.update))
        bars = "".join(f'<i class="{name}" style="width:{100 * part / longest:.2f}%"></i>' for name, part in parts)
        shares = "".join(f"<td>{100 * part / split.total:.0f} %</td>" for _, part in parts)
        lines.append(
            f'<tr><th>{safe(split.label)}</th>{shares}<td>{split.total:.2f} s</td><td class="bar">{bars}</td></tr>'
        )
    names = "".join(f'<th><i class="{name}"></i>{name}</th>' for name in ("rollout", "score", "update"))
    note = "Seconds of a training step. Score: answers checked, judge asked. Update: all the rest."
    return (
        f'<h3>Where the time goes</h3><p class="note">{note}</p><div class="table"><table class="times"><thead><tr>'
        f"<th></th>{names}<th>step</th><th></th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _by_hand(rows: Sequence[Agreement]) -> str:
    if not rows:
        return ""
    names = ("by it", "by hand", "agreement", "kappa", "same step, of flawed for both", "rollouts", "no verdict")
    lines = []
    for row in rows:
        shares = (*row.ratios, row.num_agreed / row.num)
        cells = [
            f"{percent(rate)} <i>[{100 * low:.1f}, {100 * high:.1f}]</i>"
            for rate, (low, high) in zip(shares, row.intervals, strict=True)
        ]
        kappa = "–" if math.isnan(row.kappa) else f"{row.kappa:.2f}"
        cells += [kappa, "{} of {}".format(*row.num_located), str(row.num), str(row.num_silent)]
        lines.append(f"<tr><th>{row.other}, {safe(row.run)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    note = (
        "FP ratio of the same right answers by the judge (and, where there is one, the oracle) and by hand; agreement "
        "and Cohen's kappa on flawed or not. In brackets 95 % intervals (Wilson)."
    )
    return (
        f'<h2>Judge against human</h2><p class="note">{note}</p><div class="table"><table id="human"><thead><tr>'
        f"<th>FP ratio</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _sources(runs: Sequence[Run]) -> str:
    return "Made from " + ", ".join(safe(run.path) for run in runs) + "."
