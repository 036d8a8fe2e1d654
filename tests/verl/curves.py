"""Runs of the two engines beside each other: a table of each step's mean and standard deviation, and a picture.

.venv/bin/python -m tests.verl.curves PICTURE.png --trl RUN ... --verl RUN ...
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

from experiments.plots import picture
from fapo.report.panels import Curve, Panel, Style
from fapo.training.run_reader import Run, read_run

MEASURED = {
    "validation/accuracy": "Accuracy",
    "harder/accuracy": "Accuracy, harder",
    "validation/true_fp_ratio": "True flawed positives",
    "validation/fp_ratio": "Flawed positives, judged",
    "validation/length": "Length, tokens",
}
LOOKS = {"trl": Style("blue"), "verl": Style("orange")}


def spread(values: list[float]) -> str:
    digits = 1 if fmean(values) > 2 else 3
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    for engine in LOOKS:
        parser.add_argument(f"--{engine}", type=Path, nargs="+", required=True, metavar="RUN")
    given = parser.parse_args()
    runs: dict[str, list[Run]] = {engine: [read_run(path) for path in getattr(given, engine)] for engine in LOOKS}
    print("| | step | TRL | verl | verl - TRL | in standard errors |\n|---|---|---|---|---|---|")
    panels = []
    for key, title in MEASURED.items():
        series = {engine: [run.series(key) for run in of_engine] for engine, of_engine in runs.items()}
        curves = [Curve(one, LOOKS[engine]) for engine, several in series.items() for one in several]
        panels.append(Panel(title, tuple(curves), "number" if "Length" in title else "rate from 0"))
        for i, step in enumerate(series["trl"][0].steps):
            trl, verl = ([one.values[i] for one in series[engine]] for engine in LOOKS)
            gap = fmean(verl) - fmean(trl)
            error = (stdev(trl) ** 2 / len(trl) + stdev(verl) ** 2 / len(verl)) ** 0.5
            print(f"| {title} | {step:.0f} | {spread(trl)} | {spread(verl)} | {gap:+.3f} | {gap / error:+.1f} |")
    names = {"trl": "TRL", "verl": "verl"}
    given.picture.write_bytes(picture(panels[:3], {names[engine]: look for engine, look in LOOKS.items()}, columns=3))


if __name__ == "__main__":
    main()
