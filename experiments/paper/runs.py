"""List the runs in the miniature behind the figures and tables of the paper, and some runs beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.base_models.build import WRITERS
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.training.parallel_runs import Job, demo_jobs

TRAINED = "judge.model={genrm}"
"""Setting of the judge: the GenRM trained with the same seed."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "negative": (TRAINED, "reward.penalty=2"),
    "shift-2": (TRAINED, "reward.penalty=", "reward.shift=2"),
    "shift-half": (TRAINED, "reward.penalty=", "reward.shift=0.5"),
    "step-ratio": (TRAINED, "reward.kind=step_ratio"),
    "base-judge": (),
    "oracle": ("judge.kind=oracle",),
}
"""Settings of more policies by name; the study has the baseline and FAPO."""
BEYOND: dict[str, tuple[str, ...]] = {
    "decoupled": (TRAINED, "reward.kind=decoupled"),
    "filter": (TRAINED, "reward.kind=filter", "reward.keep=4"),
    "false-negatives-80": ("judge.kind=oracle", "judge.false_negative_rate=0.8"),
    "false-positives-50": ("judge.kind=oracle", "judge.false_positive_rate=0.5"),
    "false-negatives-80-corrected": ("judge.kind=oracle", "judge.false_negative_rate=0.8", "reward.judge_recall=0.2"),
    "false-positives-50-corrected": (
        "judge.kind=oracle",
        "judge.false_positive_rate=0.5",
        "reward.judge_false_positive_rate=0.5",
    ),
    "false-negatives-50": ("judge.kind=oracle", "judge.false_negative_rate=0.5"),
    "false-positives-20": ("judge.kind=oracle", "judge.false_positive_rate=0.2"),
}
"""Settings of policies that the paper does not have: other uses of verdicts, an oracle with errors, and corrections."""

JUDGES: dict[str, tuple[str, ...]] = {
    "genrm-sft": ("method=sft", "data.train={critiques}"),
    "genrm-noise-10": ("data.label_noise=0.1",),
    "genrm-noise-20": ("data.label_noise=0.2",),
    "genrm-outcome-noise-10": ("reward.kind=genrm_outcome", "data.label_noise=0.1"),
    "genrm-outcome-noise-20": ("reward.kind=genrm_outcome", "data.label_noise=0.2"),
}
"""Settings of more GenRMs: one imitates critiques that agree with the label, others learn from labels with errors."""
COMPARED: dict[str, tuple[str, ...]] = {
    "baseline": ("reward.kind=outcome", "judge="),
    "fapo": (TRAINED,),
    "decoupled": BEYOND["decoupled"],
    "filter": BEYOND["filter"],
    "negative": VARIANTS["negative"],
}
"""Settings of the arms of the comparison of methods by name, the most wanted ones first."""
WORLDS: dict[str, tuple[str, ...]] = {"today": (), "weak": ("model.path={weak}",)}
"""Settings of the worlds of the comparison by name: the shipped policy as the start, and a weaker one."""
MEASURED = ("judge.kind=oracle", "optim.steps=1")
"""Settings of a run that only measures a base policy, by its first validation."""


def critiques_file(output: Path, seed: int) -> Path:
    """Return the path of the critiques that the GenRM of this seed imitates."""
    return output / f"critiques-{seed}.jsonl"


def policy_folder(output: Path, writer: str, seed: int) -> Path:
    """Return the folder of the base policy of this seed that imitates one of WRITERS."""
    return output / "policies" / f"{writer}-{seed}"


def study_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """Return the jobs of the demo for several seeds, and a GenRM with the outcome reward for each seed."""
    jobs = [job for seed in seeds for job in demo_jobs(output, seed)]
    config, overrides = CONFIG_FOLDER / "genrm.toml", ("reward.kind=genrm_outcome",)
    jobs += [Job(f"genrm-outcome-{seed}", config, (f"seed={seed}", *overrides)) for seed in seeds]
    return sorted(jobs, key=lambda job: job.after is not None)


def paper_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """Return the jobs of the study and of each variant and seed; `critiques_file` and `policy_folder` must exist."""
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


def comparison_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """Return the jobs of the comparison of methods: a GenRM for each seed, then each arm in each world.

    `policy_folder(output, "weak", 0)` must exist. The GenRM of a seed judges all arms of this seed in both worlds.

    Args:
        output: Folder that holds the run folders.
        seeds: Seeds of the runs.
    """
    jobs = [Job(f"genrm-{seed}", CONFIG_FOLDER / "genrm.toml", (f"seed={seed}",)) for seed in seeds]
    for world, start in WORLDS.items():
        for arm, settings in COMPARED.items():
            for seed in seeds:
                made = {"genrm": f"{output}/genrm-{seed}/model", "weak": policy_folder(output, "weak", 0)}
                filled = tuple(setting.format(**made) for setting in (*start, *settings))
                after = f"genrm-{seed}" if TRAINED in settings else None
                jobs.append(
                    Job(f"{world}-{arm}-{seed}", CONFIG_FOLDER / "policy.toml", (f"seed={seed}", *filled), after)
                )
    return jobs
