"""The runs behind the paper's figures and tables, in the miniature, and those that go beyond."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.base_models.build import WRITERS
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.training.parallel_runs import Job, study_jobs

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
    "misses-80": ("judge.kind=oracle", "judge.false_negative_rate=0.8"),
    "alarms-50": ("judge.kind=oracle", "judge.false_positive_rate=0.5"),
    "misses-80-corrected": ("judge.kind=oracle", "judge.false_negative_rate=0.8", "reward.judge_recall=0.2"),
    "alarms-50-corrected": (
        "judge.kind=oracle",
        "judge.false_positive_rate=0.5",
        "reward.judge_false_positive_rate=0.5",
    ),
    "misses-50": ("judge.kind=oracle", "judge.false_negative_rate=0.5"),
    "alarms-20": ("judge.kind=oracle", "judge.false_positive_rate=0.2"),
}
"""Runs that the paper does not have: an oracle with errors, and the reward corrected for these errors."""

JUDGES: dict[str, tuple[str, ...]] = {
    "genrm-sft": ("method=sft", "data.train={critiques}"),
    "genrm-noise-10": ("data.label_noise=0.1",),
    "genrm-noise-20": ("data.label_noise=0.2",),
    "genrm-outcome-noise-10": ("reward.kind=genrm_outcome", "data.label_noise=0.1"),
    "genrm-outcome-noise-20": ("reward.kind=genrm_outcome", "data.label_noise=0.2"),
}
"""Further GenRMs: by imitation of critiques that name the label, and by labels of which a share is wrong."""
MEASURED = ("judge.kind=oracle", "optim.steps=1")
"""Settings of a run whose first validation tells all that is asked about a base policy."""


def critiques_file(output: Path, seed: int) -> Path:
    """Where the critiques are that the GenRM of this seed imitates."""
    return output / f"critiques-{seed}.jsonl"


def policy_folder(output: Path, writer: str, seed: int) -> Path:
    """Where the base policy of this seed is that imitates one of WRITERS."""
    return output / "policies" / f"{writer}-{seed}"


def paper_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """The study's runs, then each variant for every seed. They need each `critiques_file` and `policy_folder`."""
    jobs = study_jobs(output, seeds)
    configs = [(CONFIG_FOLDER / "policy.toml", VARIANTS | BEYOND), (CONFIG_FOLDER / "genrm.toml", JUDGES)]
    for config, variants in configs:
        for name, settings in variants.items():
            for seed in seeds:
                made = {"genrm": f"{output}/genrm-{seed}/model", "critiques": critiques_file(output, seed)}
                filled = tuple(setting.format(**made) for setting in settings)
                after = f"genrm-{seed}" if TRAINED in settings else None
                jobs.append(Job(f"{name}-{seed}", config, (f"seed={seed}", *filled), after))
    for writer in WRITERS:
        for seed in seeds:
            settings = (f"seed={seed}", f"model.path={policy_folder(output, writer, seed)}", *MEASURED)
            jobs.append(Job(f"policy-{writer}-{seed}", CONFIG_FOLDER / "policy.toml", settings))
    return jobs
