"""List the runs in the miniature behind the figures and tables of the paper, and some runs beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.base_models.build import STARTS, WRITERS
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.training.parallel_runs import Job, demo_jobs

TRAINED = "judge.model={genrm}"
"""Setting of the judge: the GenRM trained with the same seed."""
AUDIT = 'judge.audit={{judge={{kind="oracle"}}, rate=0.05, correct=true}}'
"""Setting of the judge: an oracle reads one verdict in 20, and the reward is corrected for the rates that it finds."""
SHARED = ("reward.kind=first_error",)
"""Settings of first-error credit where the steps before an error share the credit of one."""
WHOLE = (*SHARED, "reward.share_credit=false")
"""Settings of first-error credit where each of these steps has the whole credit."""
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
    "false-negatives-80": ("judge.kind=oracle", "judge.false_negative_rate=0.8"),
    "false-positives-50": ("judge.kind=oracle", "judge.false_positive_rate=0.5"),
    "false-negatives-80-corrected": ("judge.kind=oracle", "judge.false_negative_rate=0.8", "reward.judge_recall=0.2"),
    "false-negatives-80-audited": ("judge.kind=oracle", "judge.false_negative_rate=0.8", AUDIT),
    "false-positives-50-corrected": (
        "judge.kind=oracle",
        "judge.false_positive_rate=0.5",
        "reward.judge_false_positive_rate=0.5",
    ),
    "false-negatives-50": ("judge.kind=oracle", "judge.false_negative_rate=0.5"),
    "false-positives-20": ("judge.kind=oracle", "judge.false_positive_rate=0.2"),
}
"""Settings of policies that the paper does not have: an oracle with errors, and corrections for them."""

JUDGES: dict[str, tuple[str, ...]] = {
    "genrm-sft": ("method=sft", "data.train={critiques}"),
    "genrm-noise-10": ("data.label_noise=0.1",),
    "genrm-noise-20": ("data.label_noise=0.2",),
    "genrm-outcome-noise-10": ("reward.kind=genrm_outcome", "data.label_noise=0.1"),
    "genrm-outcome-noise-20": ("reward.kind=genrm_outcome", "data.label_noise=0.2"),
}
"""Settings of more GenRMs: one imitates critiques that agree with the label, others learn from labels with errors."""
_CASCADE = (
    'judge.cheap={{kind="prm", model="{prm}", separator="\\n", steps="lines"}}',
    'judge.strong={{kind="local", model="miniature:genrm", template="compact", max_tokens=80}}',
)
"""Judges of a cascade: a small process reward model, and the base GenRM without sampling."""
COMPARED: dict[str, tuple[str, ...]] = {
    "baseline": ("reward.kind=outcome", "judge="),
    "fapo": (TRAINED,),
    "decoupled": (TRAINED, "reward.kind=decoupled"),
    "decoupled-third": (TRAINED, "reward.kind=decoupled", "reward.weight=0.3333"),
    "decoupled-3": (TRAINED, "reward.kind=decoupled", "reward.weight=3"),
    "filter": (TRAINED, "reward.kind=filter", "reward.keep=4"),
    "penalty-1.5": (TRAINED, "reward.penalty=1.5"),
    "negative": VARIANTS["negative"],
    "penalty-3": (TRAINED, "reward.penalty=3"),
    "first-error": (TRAINED, *WHOLE),
    "first-error-0": (TRAINED, *WHOLE, "reward.penalty=0"),
    "first-error-2": (TRAINED, *WHOLE, "reward.penalty=2"),
    "audited": (TRAINED, AUDIT),
    "first-error-misplaced-20": (TRAINED, *WHOLE, "judge.location_error_rate=0.2"),
    "first-error-misplaced": (TRAINED, *WHOLE, "judge.location_error_rate=0.5"),
    "shared": (TRAINED, *SHARED),
    "shared-2": (TRAINED, *SHARED, "reward.penalty=2"),
    "shared-misplaced": (TRAINED, *SHARED, "judge.location_error_rate=0.5"),
    "shared-misplaced-75": (TRAINED, *SHARED, "judge.location_error_rate=0.75"),
    "step-ratio": VARIANTS["step-ratio"],
    "cascade-05": ("judge.kind=cascade", "judge.thresholds=[0.0623, 0.653]", *_CASCADE),
    "cascade-02": ("judge.kind=cascade", "judge.thresholds=[0.0155, 0.79]", *_CASCADE),
}
"""Settings of the arms of the comparison of methods by name, the most wanted ones first."""
EXACT = "judge.kind=oracle"
"""Setting of the judge in a world where no GenRM is good enough: the oracle."""
STRONG = "judge.temperature=0"
"""Setting of the judge in the world of the cascades: the base GenRM without sampling."""


@dataclass(frozen=True)
class World:
    """One start, or one set of problems, of the comparison of methods."""

    title: str
    """Title on the page."""
    settings: tuple[str, ...] = ()
    """Settings of all its runs."""
    judge: str = TRAINED
    """Setting of the judge: TRAINED, EXACT or STRONG."""
    arms: tuple[str, ...] = ("baseline", "fapo", "decoupled", "filter", "negative", "first-error")
    """Names of its arms."""
    note: str = ""
    """Sentence under its title on the page."""


WORLDS = {
    "today": World(
        "The shipped policy as the start",
        arms=(
            *("baseline", "fapo", "decoupled", "decoupled-third", "decoupled-3", "filter"),
            *("negative", "shared", "first-error", "first-error-2"),
        ),
    ),
    "weak": World(
        "A weak start",
        ("model.path={weak}",),
        arms=(
            *("baseline", "fapo", "decoupled", "decoupled-third", "decoupled-3", "filter"),
            *("penalty-1.5", "negative", "penalty-3", "shared", "shared-2"),
            *("first-error", "first-error-0", "first-error-2"),
        ),
    ),
    "cold": World(
        "A start with hardly any fully correct solution",
        ("model.path={cold}",),
        arms=("baseline", "fapo", "negative", "shared", "shared-2", "first-error", "first-error-2"),
        note="The start has 3 to 4 fully correct rollouts among the 384 of a step.",
    ),
    "known": World(
        "A start with hardly any fully correct solution, and a judge without errors",
        ("model.path={cold}",),
        EXACT,
        ("fapo", "negative", "shared", "first-error"),
        "The judge is the oracle.",
    ),
    "unfinished": World(
        "A weak start that seldom gives an answer",
        ("model.path={unfinished}",),
        arms=("fapo", "negative", "shared"),
        note="Nine in ten solutions end without an answer.",
    ),
    "doubtful": World(
        "A weak start, and a judge that is often wrong",
        ("model.path={weak}", "judge.false_negative_rate=0.3", "judge.false_positive_rate=0.3"),
        EXACT,
        (
            *("fapo", "negative", "audited", "shared", "shared-misplaced", "shared-misplaced-75"),
            *("first-error", "first-error-misplaced-20", "first-error-misplaced"),
        ),
        "The judge is the oracle; three in ten of its verdicts are inverted at random, so that Youden's J is .4.",
    ),
    "useless": World(
        "A weak start, and a judge that hardly knows",
        ("model.path={weak}", "judge.false_negative_rate=0.45", "judge.false_positive_rate=0.45"),
        EXACT,
        ("fapo", "negative", "shared", "first-error"),
        "The judge is the oracle; 45 of 100 of its verdicts are inverted at random, so that Youden's J is .1.",
    ),
    "longer": World(
        "A weak start, twice as long",
        ("model.path={weak}", "optim.steps=100"),
        arms=("fapo", "negative", "shared"),
        note="Runs of 100 steps; their end is the mean of the validations at steps 80, 90 and 100.",
    ),
    "cascade": World(
        "A cascade as the judge",
        judge=STRONG,
        arms=("fapo", "cascade-05", "cascade-02"),
        note="The judge of FAPO is the base GenRM without sampling. The cascades ask it only where a small process "
        "reward model is not sure, with thresholds for error bounds of .05 and .02 ([table](../judges.md#cascades)).",
    ),
    "exposed": World(
        "One answer in five exposes the flaw",
        ("data.train=miniature:exposed-train", "data.validation.validation=miniature:exposed-validation"),
        arms=("baseline", "fapo", "decoupled", "negative", "shared", "first-error"),
    ),
    "leaps": World(
        "Lines may be left out",
        (
            "model.path={leaping}",
            "data.train=miniature:leaps-train",
            "data.validation.validation=miniature:leaps-validation",
            "data.validation.harder=miniature:leaps-harder",
        ),
        EXACT,
        ("baseline", "fapo", "decoupled", "negative", "step-ratio", "shared", "first-error", "first-error-2"),
        "The judge is the oracle.",
    ),
    "repeats": World(
        "Lines may be repeated",
        (
            "model.path={repeating}",
            "data.train=miniature:repeats-train",
            "data.validation.validation=miniature:repeats-validation",
            "data.validation.harder=miniature:repeats-harder",
        ),
        EXACT,
        ("fapo", "negative", "step-ratio", "shared"),
        "The judge is the oracle.",
    ),
}
"""Worlds of the comparison by name. Besides the shipped policy as the start and a weaker one there are two sets of
problems. In "exposed" one problem in five asks for the value itself, so that a flaw lowers the accuracy in training and
validation too. In "leaps" solutions may leave out lines, so that there is more than one way to write them. In
"repeats" they may repeat lines, as a policy may that is paid for steps. "longer"
is "weak" with more steps, and "cascade" has the shipped policy and other judges."""
MEASURED = ("judge.kind=oracle", "optim.steps=1")
"""Settings of a run that only measures a base policy, by its first validation."""


def critiques_file(output: Path, seed: int) -> Path:
    """Return the path of the critiques that the GenRM of this seed imitates."""
    return output / f"critiques-{seed}.jsonl"


def policy_folder(output: Path, writer: str, seed: int) -> Path:
    """Return the folder of the base policy of this seed that imitates one of WRITERS."""
    return output / "policies" / f"{writer}-{seed}"


def prm_folder(output: Path) -> Path:
    """Return the folder of the process reward model of the cascades."""
    return output / "prm"


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


def comparison_jobs(output: Path, seeds: Sequence[int], worlds: Sequence[str] = tuple(WORLDS)) -> list[Job]:
    """Return the jobs of the comparison of methods: a GenRM for each seed, then each arm in each world.

    `policy_folder(output, name, 0)` must exist for each name in STARTS, and `prm_folder(output)`. The GenRM of a seed
    judges the arms of this seed in all worlds but those with a judge of their own.

    Args:
        output: Folder that holds the run folders.
        seeds: Seeds of the runs.
        worlds: Names of the worlds.
    """
    jobs = [Job(f"genrm-{seed}", CONFIG_FOLDER / "genrm.toml", (f"seed={seed}",)) for seed in seeds]
    starts = {name: policy_folder(output, name, 0) for name in STARTS}
    for name in worlds:
        world = WORLDS[name]
        for arm in world.arms:
            settings = [world.judge if setting == TRAINED else setting for setting in COMPARED[arm]]
            for seed in seeds:
                made = {"genrm": f"{output}/genrm-{seed}/model", "prm": prm_folder(output), **starts}
                filled = tuple(setting.format(**made) for setting in (*world.settings, *settings))
                after = f"genrm-{seed}" if TRAINED in settings else None
                jobs.append(
                    Job(f"{name}-{arm}-{seed}", CONFIG_FOLDER / "policy.toml", (f"seed={seed}", *filled), after)
                )
    return jobs
