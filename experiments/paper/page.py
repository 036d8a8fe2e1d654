"""Write the page of `python -m experiments.miniature paper`: pictures, tables, and the numbers as JSON.

A row without runs in the folder is that of the page before, from its results.json.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.paper.claims import Claim
from experiments.paper.findings import LOOKS, Finding, all_findings
from experiments.plots import picture
from fapo.errors import DataError
from fapo.report.panels import Style
from fapo.training.run_reader import Run, is_finished, read_run


def read_runs(folder: Path) -> dict[str, dict[int, Run]]:
    """Return the finished runs in a folder by variant and seed.

    Raises:
        DataError: The folder has no finished run.
    """
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for path in sorted(folder.glob("*-*")):
        variant, _, seed = path.name.rpartition("-")
        if seed.isdigit() and variant in LOOKS and is_finished(path):
            found[variant][int(seed)] = read_run(path)
    if not found:
        raise DataError(
            f"{folder}: no finished runs; `python -m experiments.miniature paper --output {folder}` makes them"
        )
    return dict(found)


def write_findings(folder: Path, out: Path) -> Path:
    """Write README.md, results.json and a picture for each figure into `out`, and return the path of the page.

    Claims and rows of tables that these runs do not measure stay as they are in results.json.

    Args:
        folder: Folder with run folders.
        out: Folder of the page.

    Raises:
        DataError: The folder has no finished run.
    """
    runs = read_runs(folder)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    stored = {row["figure"]: row for row in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}
    known = [with_stored(finding, stored.get(finding.key)) for finding in all_findings(runs)]
    found = [finding for finding in known if finding.is_measured]
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    text = [
        "# The paper's figures and tables, in the miniature",
        "",
        f"Seeds: {', '.join(map(str, seeds))}; a row with fewer numbers has the first of them. Faint lines are single",
        "seeds. Rows and pictures without runs in this call are those of an earlier one.",
        "",
        "* *The end of a run* is the mean of its last three validations of 512 problems each.",
        "* *True* flawed positives are those that the oracle finds.",
        "* A claim *holds* when every seed meets it and the 95 % interval of the mean (Student's t) is above 0.",
        "* It *does not hold* when no seed meets it and the interval is below 0.",
        "* Anything else is *too noisy to say*. The number of seeds beside it is what a two-sided t test at 5 % needs",
        "  to find the measured mean with probability .8.",
        "",
        "```console",
        "python -m experiments.miniature paper --output runs/paper --docs docs/results/paper --seeds "
        + " ".join(map(str, seeds)),
        "```",
        "",
        "| | expected | measured | mean ± sd | each seed | |",
        "|---|---|---|---|---|---|",
    ]
    for finding in found:
        for claim in finding.claims:
            margins = " ".join(f"{margin:+.3f}" for margin in claim.margins)
            if margins:
                cells = (finding.key, claim.text, claim.measured, claim.spread, margins, f"**{claim.result}**")
                text.append("| " + " | ".join(cells) + " |")
    for finding in found:
        text += ["", f"## {finding.key}: {finding.title}", ""]
        if finding.panels:
            name = f"{finding.key.replace('/', '-').replace(': ', '-')}.png"
            looks: dict[str, Style] = {LOOKS[v][0]: LOOKS[v][1] for v in finding.variants if v in runs}
            if not (out / name).exists() or all(variant in runs for variant in finding.variants):
                (out / name).write_bytes(picture(finding.panels, looks, columns=3))
            text += [f"![{finding.title}]({name})", ""]
        if finding.table:
            text += _table(finding.table)
    (out / "README.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    numbers = [
        {
            "figure": finding.key,
            "claims": [
                {"claim": c.text, "measured": c.measured, "margins": c.margins, "verdict": c.status}
                for c in finding.claims
                if c.margins
            ],
            "table": finding.table,
        }
        for finding in found
    ]
    file.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return out / "README.md"


def with_stored(finding: Finding, stored: Mapping[str, Any] | None) -> Finding:
    """Return a figure, with the claims and rows that it lacks out of its entry in results.json."""
    if stored is None:
        return finding
    claims = {row["claim"]: Claim(row["claim"], row["measured"], tuple(row["margins"])) for row in stored["claims"]}
    table = {name: row for name, row in (finding.table or {}).items() if any(row.values())}
    return replace(
        finding,
        claims=tuple(claim if claim.margins else claims.get(claim.text, claim) for claim in finding.claims),
        table=((stored["table"] or {}) | table) or None,
    )


def _table(table: Mapping[str, Mapping[str, tuple[float, ...]]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        if not any(row.values()):
            continue
        lines.append(f"| {name} | " + " | ".join(_cell(row.get(column, ())) for column in columns) + " |")
    return lines


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    digits = 1 if max(values) > 2 else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"
