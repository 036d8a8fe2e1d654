"""Train a GenRM that earns less for the right label with a wrong reason, beside one that does not.

python -m experiments.meta_verdict [--output runs/meta_verdict] [--seeds 0 1 2] [--penalty 1]

Both are trained by `genrm.toml` of the miniature, from the same weights with the same seeds. A critique is unsound if
any of its lines is not that of an exact reviewer (`experiments.critique_reasons`). Here an unsound critique with the
right label earns `penalty` less. This is the reward of FAPO, one level higher: the critique is the solution, its label
the answer, and an exact check of its lines the judge. So the closed forms of `fapo.rewards.theory` hold for it, with
alpha the fraction of sound critiques with the right label, and beta that of critiques with a wrong one, as long as the
distance to the right step plays no part. DeepSeekMath-V2 (arXiv 2511.22570) multiplies the reward of a judge by such a
verdict.

Only the miniature has the exact check. Runs that are complete are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.critique_reasons import measured, unsound_line
from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.evaluation.intervals import mean_interval
from fapo.judge.quality import ratio
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.rewards.from_config import make_scorer
from fapo.types import Reward, Rollout, ScoredRollout

SHOWN = {
    "F1": "test/f1",
    "precision": "test/precision",
    "recall": "test/recall",
    "location": "test/location",
}
"""Column -> metric of a validation."""
REASONS = ("right step, wrong reason", "passed, wrong reason")
"""Columns about right critiques: the rate of unsound ones among flags of the right step, and among right passes."""


@dataclass(frozen=True)
class MetaScorer(CritiqueScorer):
    """Score critiques as a `CritiqueScorer` does, and subtract a penalty from the unsound ones with the right label."""

    penalty: float = 1.0
    """Penalty of an unsound critique with the right label."""

    def score(self, rollout: Rollout) -> ScoredRollout:
        """Parse one critique and return it with its reward, which has the part "meta"."""
        scored = super().score(rollout)
        value = scored.reward.value
        unsound = scored.correct and unsound_line(self.labelled[rollout.problem.id], rollout.response) is not None
        meta = -self.penalty if unsound else 0.0
        assert value is not None, "every critique has a reward"
        return replace(scored, reward=Reward(value + meta, {**scored.reward.parts, "meta": meta}))


def meta_scorer(penalty: float) -> Any:
    """Return a function with the arguments of `make_scorer`, which returns a `MetaScorer`."""

    def made(*args: Any, **options: Any) -> MetaScorer:
        plain = make_scorer(*args, **options)
        assert isinstance(plain, CritiqueScorer)
        return MetaScorer(**{f.name: getattr(plain, f.name) for f in fields(plain)}, penalty=penalty)

    return made


def run(output: Path, seed: int, penalty: float) -> Path:
    """Train a GenRM, unless the run is complete; return its run folder."""
    from fapo.trl import train as trainer

    name = f"meta-{penalty:g}-{seed}" if penalty else f"genrm-{seed}"
    config = load(CONFIG_FOLDER / "genrm.toml", (f"name={name}", f"seed={seed}", f"output={output}"))
    folder = output / name
    if (folder / "model").exists():
        return folder
    with patch.object(trainer, "make_scorer", meta_scorer(penalty)):
        return trainer.train(config, resume=folder.exists())


def ends(folder: Path) -> dict[str, float]:
    """Return the numbers of the last validation of a run."""
    last = [row for row in read_jsonl(folder / "metrics.jsonl") if row["kind"] == "validation"][-1]
    _, located, located_unsound, passed, passed_unsound, _ = measured([folder])[last["step"]]
    reasons = ratio(located_unsound, located), ratio(passed_unsound, passed)
    return {title: last[key] for title, key in SHOWN.items()} | dict(zip(REASONS, reasons, strict=True))


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation in percent."""
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/meta_verdict"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default 0 1 2)")
    parser.add_argument("--penalty", type=float, default=1.0, help="penalty of an unsound critique (default 1)")
    given = parser.parse_args()
    output = given.output.resolve()
    arms = {"without": 0.0, f"penalty {given.penalty:g}": given.penalty}
    found = {name: [ends(run(output, seed, penalty)) for seed in given.seeds] for name, penalty in arms.items()}
    table = Table("%", *SHOWN, *REASONS, box=box.MARKDOWN)
    for name, runs in found.items():
        table.add_row(name, *(spread([end[column] for end in runs]) for column in (*SHOWN, *REASONS)))
    plain, meta = found.values()
    cells = []
    for column in (*SHOWN, *REASONS):
        values = [100 * (other[column] - one[column]) for one, other in zip(plain, meta, strict=True)]
        low, high = mean_interval(values)
        cells.append(f"{fmean(values):+.1f} ({low:+.1f} to {high:+.1f})")
    table.add_row("difference", *cells)
    Console(width=160).print(table)
    print(f"seeds {given.seeds}; the last validation of 512 critiques each; intervals are Student's")


if __name__ == "__main__":
    main()
