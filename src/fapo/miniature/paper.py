"""The runs behind the paper's figures and tables, in the miniature, and those that go beyond."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fapo.miniature.study import CONFIGS, Job, study_jobs

TRAINED = "judge.model={genrm}"
"""Whose judge is the GenRM that was trained with the same seed."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "negative": (TRAINED, "reward.penalty=2"),
    "shift-2": (TRAINED, "reward.penalty=", "reward.shift=2"),
    "shift-half": (TRAINED, "reward.penalty=", "reward.shift=0.5"),
    "step-ratio": (TRAINED, "reward.kind=step_ratio"),
    "base-judge": (),
    "oracle": ("judge.kind=oracle",),
}
"""Name -> settings of further policies, beside the study's baseline and FAPO."""
BEYOND: dict[str, tuple[str, ...]] = {
    "located": (TRAINED, "reward.located=true"),
    "follow-rho": (TRAINED, "reward.follow_rho=true"),
    "misses-80": ("judge.kind=oracle", "judge.misses=0.8"),
    "alarms-50": ("judge.kind=oracle", "judge.alarms=0.5"),
    "misses-80-corrected": ("judge.kind=oracle", "judge.misses=0.8", "reward.judge_recall=0.2"),
    "alarms-50-corrected": ("judge.kind=oracle", "judge.alarms=0.5", "reward.judge_alarms=0.5"),
    "misses-50": ("judge.kind=oracle", "judge.misses=0.5"),
    "alarms-20": ("judge.kind=oracle", "judge.alarms=0.2"),
}
"""What the paper does not try: other penalties, and an oracle made worse to find out how good a judge must be."""


def paper_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """The study's runs, then each variant for every seed."""
    jobs = study_jobs(output, seeds)
    for name, settings in (VARIANTS | BEYOND).items():
        for seed in seeds:
            filled = tuple(s.format(genrm=f"{output}/genrm-{seed}/model") for s in settings)
            after = f"genrm-{seed}" if TRAINED in settings else None
            jobs.append(Job(f"{name}-{seed}", CONFIGS / "policy.toml", (f"seed={seed}", *filled), after))
    return jobs
