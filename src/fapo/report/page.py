"""Run folders -> one HTML page that needs nothing else: numbers, plots, a table, rollouts with their critiques."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fapo.report.examples import card, choose, safe
from fapo.report.panels import Panel, Style, genrm_panels, policy_panels, styles
from fapo.report.plots import PALETTE, svg
from fapo.report.runs import Run, grouped, read_run
from fapo.report.summary import GENRM, POLICY, Row, crossing_texts, row_titles, summarize
from fapo.report.tiles import Tile, tiles

_NUM_EXAMPLES = 20
_POLICY = (
    "Lines are measured on validation sets; bold lines over faint ones are running means of training batches. "
    "rho is fully correct per wrong rollout. The dotted level is where theory lets the advantage of flawed positives "
    "change sign, group by group: so it holds for rho of the groups that have some, each weighted by their number, and "
    "the whole batch, in which solved groups count as well, is past it long before."
)


def write_report(run_dirs: Sequence[str | Path], out: str | Path, title: str = "FAPO: what the runs show") -> Path:
    """Read the run folders, write the page, return its path. Raises ValueError for a folder without a run."""
    if not run_dirs:
        raise ValueError("a report needs at least one run folder, such as runs/NAME")
    runs = [read_run(path) for path in run_dirs]
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(runs, title), encoding="utf-8", errors="backslashreplace")
    return out


def page(runs: Sequence[Run], title: str) -> str:
    """The whole page."""
    rows = summarize(runs)
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
        parts.append(_table([row for row in rows if row.metric in POLICY], crossings))
    if judges:
        parts.append(
            '<h2>The judge</h2><p class="note">The GenRM in training: how well it tells flawed positives from sound '
            f"solutions, and whether it names the right step.</p>{_legend(runs, judges)}{_plots(genrm_panels(runs))}"
        )
        parts.append(_table([row for row in rows if row.metric in GENRM], {}))
    parts += [_examples(policies), f"<footer>{_sources(runs)}</footer>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
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


def _table(rows: Sequence[Row], crossings: dict[str, str]) -> str:
    labels = list(dict.fromkeys(row.label for row in rows))
    if not labels:
        return ""
    cells = {(row.metric, row.split, row.label): row for row in rows}
    head = "".join(f"<th>{safe(label)}</th>" for label in labels)
    lines = [
        f"<tr><th>{safe(line)}</th>{''.join(_cell(cells.get((metric, name, label))) for label in labels)}</tr>"
        for (metric, name), line in row_titles(rows).items()
    ]
    if crossings:
        moments = "".join(f"<td>{safe(crossings.get(label, '–'))}</td>" for label in labels)
        lines.append(f"<tr><th>flawed positives turn negative at</th>{moments}</tr>")
    table = f"<table><thead><tr><th>start → end</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<h3>First and last measurement</h3><div class="table">{table}</div>'


def _cell(row: Row | None) -> str:
    if row is None:
        return "<td>–</td>"
    start, _, end = row.text.partition(" → ")
    kind = ' class="best"' if row.best else ""
    return f"<td{kind}><i>{safe(start)} →</i> {safe(end)}</td>"


def _examples(runs: Sequence[Run]) -> str:
    sections, groups = [], {label: group[0] for label, group in grouped(runs).items()}
    chosen = {label: run for label, run in groups.items() if run.penalty is not None} or groups
    for label, run in chosen.items():
        if cards := [card(example) for example in choose(run, max(4, _NUM_EXAMPLES // len(chosen)))]:
            sections.append(f"<h3>{safe(label)}</h3>{''.join(cards)}")
    note = "Right answers of the last steps: what the judge flagged, what it flagged wrongly, what it missed."
    return f'<h2>Rollouts to read</h2><p class="note">{note}</p>{"".join(sections)}' if sections else ""


def _sources(runs: Sequence[Run]) -> str:
    return "Made from " + ", ".join(safe(run.path) for run in runs) + "."
