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
    "misses-50": ("judge.kind=oracle", "judge.misses=0.5"),
    "misses-80": ("judge.kind=oracle", "judge.misses=0.8"),
    "alarms-20": ("judge.kind=oracle", "judge.alarms=0.2"),
    "alarms-50": ("judge.kind=oracle", "judge.alarms=0.5"),
}
"""An oracle made worse, to find out how good a judge must be."""


def paper_jobs(output: Path, seeds: Sequence[int], *, beyond: bool = True) -> list[Job]:
    """Seed by seed, so that what is done is whole: the study's runs, then the variants."""
    jobs = []
    for seed in seeds:
        jobs += study_jobs(output, [seed])
        for name, settings in (VARIANTS | BEYOND if beyond else VARIANTS).items():
            trained = TRAINED in settings
            filled = tuple(s.format(genrm=f"{output}/genrm-{seed}/model") for s in settings)
            after = f"genrm-{seed}" if trained else None
            jobs.append(Job(f"{name}-{seed}", CONFIGS / "policy.toml", (f"seed={seed}", *filled), after))
    return jobs
