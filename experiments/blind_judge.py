"""A judge with a blind spot: what canaries and an audit show of it, how soon the audit stops the run, and two remedies.

python -m experiments.blind_judge [--output runs/blind_judge] [--seeds 3] [--steps 50] [--draws 200]

The policy of the miniature is trained with FAPO. Its judge is the oracle, blind to slips: wrong results of single
lines, which are most of the policy's flaws. The canaries have flaws of the other kinds only, like labelled solutions of
another model. The second judge of the audit is the exact oracle. It reads every judged rollout, so that smaller rates
can be drawn afterwards. From the end of each run, training continues with the exact oracle as the judge. Another run
has the blind judge from the start, and its rewards are corrected for the rates of the audit (`judge.audit.correct`).

Runs that are complete are not repeated. With the same seeds the results are the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import JudgeDownError
from fapo.evaluation.intervals import percentile_interval
from fapo.training.judge_audit import AuditedVerdict, AuditWindow, audited_verdicts

CANARY_FLAWS = (None, "guess", "skip", "format")
"""Kinds of flaws of the canaries; None is no flaw."""
RATES, MIN_J = (0.02, 0.05, 0.1), 0.5
HONEST = 0.9, 0.1
"""Recall and false positive rate of a simulated judge without a blind spot."""
COLUMNS = {
    "accuracy": "rollout/accuracy",
    "FP ratio by the judge": "rollout/fp_ratio",
    "true FP ratio": "rollout/true_fp_ratio",
    "canary F1": "canary/f1",
    "J in the audit": "audit/youden_j",
    "gap in the audit": "audit/gap",
    "recall of the reward": "reward/judge_recall",
}
"""Column of the first table -> metric of a training step."""


def run(output: Path, name: str, seed: int, steps: int, *changed: str) -> Path:
    """Train a policy with an audited oracle, unless the run is complete; return the run folder."""
    from fapo.trl.train import train

    canaries = output / "canaries.jsonl"
    if not canaries.exists():
        rows = list(read_jsonl(BASE_FOLDER / "critic-test.jsonl"))
        write_jsonl(canaries, [row for row in rows if row["flaw"] in CANARY_FLAWS])
    overrides = (
        "judge.kind=oracle",
        f"judge.canaries={canaries}",
        "judge.audit.rate=1",
        "judge.audit.judge.kind=oracle",
    )
    length = (f"optim.steps={steps}", f"validation.every={steps}", f"validation.save_every={steps}")
    config = load(
        BASE_FOLDER.parent / "configs/policy.toml", (*overrides, *length, f"seed={seed}", f"output={output}", *changed)
    )
    config = replace(config, name=f"{name}-{seed}")
    folder = output / config.name
    return folder if (folder / "model").exists() else train(config, resume=folder.exists())


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of the training steps of a run."""
    return [row for row in read_jsonl(folder / "metrics.jsonl") if row["kind"] == "train"]


def by_step(rows: Sequence[Mapping[str, Any]]) -> list[list[AuditedVerdict]]:
    """Return the audited verdicts of each step, in order."""
    return [audited_verdicts(list(group)) for _, group in groupby(rows, key=lambda row: row["step"])]


def stop(steps: Sequence[Sequence[AuditedVerdict]], rate: float, rng: random.Random) -> tuple[int | None, int]:
    """Return the step after which an audit with this rate stops the run, None for never, and the number it has read."""
    window, num_read = AuditWindow(MIN_J), 0
    for step, verdicts in enumerate(steps, start=1):
        drawn = [verdict for verdict in verdicts if rng.random() < rate]
        num_read += len(drawn)
        window.add(drawn)
        try:
            window.check()
        except JudgeDownError:
            return step, num_read
    return None, num_read


def honest(steps: Sequence[Sequence[AuditedVerdict]], rng: random.Random) -> list[list[AuditedVerdict]]:
    """Return the steps as a judge without a blind spot would judge them, with the error rates HONEST."""
    recall, false_positive_rate = HONEST
    return [
        [AuditedVerdict(rng.random() < (recall if v.gold else false_positive_rate), v.gold) for v in verdicts]
        for verdicts in steps
    ]


def stops(runs: Sequence[Sequence[Sequence[AuditedVerdict]]], num_draws: int) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the second table."""
    for rate in RATES:
        for kind in ("blind to slips", "honest"):
            found = []
            for draw in range(num_draws):
                rng = random.Random(f"{rate} {kind} {draw}")
                steps = runs[draw % len(runs)]
                found.append(stop(steps if kind != "honest" else honest(steps, rng), rate, rng))
            ended = [(step, read) for step, read in found if step is not None]
            when, cost = "", ""
            if ended:
                low, high = percentile_interval(np.array([step for step, _ in ended], dtype=float))
                when = f"{statistics.median(step for step, _ in ended):g} [{low:g}, {high:g}]"
                cost = f"{statistics.median(read for _, read in ended):g}"
            yield f"{rate:g}", kind, f"{len(ended)} of {num_draws}", when, cost


def main() -> None:
    """Train, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/blind_judge"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs (default 3)")
    parser.add_argument("--steps", type=int, default=50, help="steps with the blind judge (default 50)")
    parser.add_argument("--draws", type=int, default=200, help="audits that are drawn for each rate (default 200)")
    given = parser.parse_args()
    output, after = given.output.resolve(), max(1, given.steps * 2 // 5)
    output.mkdir(parents=True, exist_ok=True)
    blind, switched, corrected = [], [], []
    for seed in range(given.seeds):
        blindness = 'judge.blind_to=["slip"]'
        blind.append(run(output, "blind", seed, given.steps, blindness))
        corrected.append(run(output, "corrected", seed, given.steps, blindness, "judge.audit.correct=true"))
        switched.append(
            run(output, "switched", seed, after, f"model.path={blind[-1] / 'model'}", "optim.warmup_steps=0")
        )
    table = Table("judge", "step", *COLUMNS, box=box.MARKDOWN)
    arms = (
        ("blind to slips", blind, given.steps),
        ("blind to slips, corrected", corrected, given.steps),
        ("exact, afterwards", switched, after),
    )
    for kind, folders, length in arms:
        runs = [steps_of(folder) for folder in folders]
        for step in sorted({1, *(max(1, round(length * part / 5)) for part in range(1, 6))}):
            values = [[rows[step - 1].get(key) for rows in runs] for key in COLUMNS.values()]
            table.add_row(kind, str(step), *map(mean, values))
    console = Console(width=220)
    console.print(table)
    audits = [by_step(list(read_jsonl(folder / "audit.jsonl"))) for folder in blind]
    second = Table("audit rate", "judge", "stopped", "after step", "rollouts read", box=box.MARKDOWN)
    for row in stops(audits, given.draws):
        second.add_row(*row)
    console.print(second)
    print(
        f"{given.seeds} seeds; stopped below J {MIN_J:g}; recall and false positive rate of the honest judge: {HONEST}"
    )


def mean(values: Sequence[float | None]) -> str:
    """Return the mean of the runs that have a value, with the lowest and the highest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})"


if __name__ == "__main__":
    main()
