"""Metrics of a training step or of a validation, computed from scored rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from fapo.config.schema import JudgeConfig, ServedJudge
from fapo.evaluation import metrics
from fapo.inference.usage import Usage
from fapo.judge.quality import judge_quality, processbench_f1
from fapo.rewards import theory
from fapo.rewards.advantages import flawed_fraction, mean_advantage_by_class
from fapo.types import GroundTruth, RolloutClass, ScoredRollout, Verdict, rollout_class


def policy_metrics(scored: Sequence[ScoredRollout], truths: Sequence[GroundTruth | None]) -> dict[str, float]:
    """Compute the metrics of solutions.

    The false positive ratio counts correct rollouts with a verdict. Rho is the number of fully correct rollouts divided
    by the number of wrong ones, by verdict. A rollout on which a checker of the user failed is neither.

    Args:
        scored: Scored rollouts, [batch_size], at least one.
        truths: Truth about each rollout, None where it is unknown, [batch_size].

    Returns:
        Metrics by name. True ratios and the quality of the judge are there only if a truth is known, and the rate of
        errors of the checker only if there are some.
    """
    correct = [s for s in scored if s.correct]
    judged = [s for s in correct if s.flawed is not None]
    num_flawed = sum(bool(s.flawed) for s in judged)
    num_errors = sum(bool(s.check_error) for s in scored)
    num_wrong = len(scored) - len(correct) - num_errors
    out = {
        "rollout/accuracy": len(correct) / len(scored),
        "rollout/length": fmean(s.rollout.num_tokens for s in scored),
        "rollout/truncated_rate": fmean(s.rollout.truncated for s in scored),
        "rollout/unscored_rate": fmean(s.reward.value is None for s in scored),
    }
    if num_errors:
        out["rollout/checker_error_rate"] = num_errors / len(scored)
    if judged:
        out |= {
            "rollout/fp_ratio": metrics.fp_ratio(num_flawed, len(judged)),
            "rollout/rho": theory.rho(len(judged) - num_flawed, num_wrong),
            **_strong_rate([s.verdict for s in judged if s.verdict]),
            "judge/tokens": fmean(s.verdict.num_tokens for s in judged if s.verdict),
        }
    known = [(s, t) for s, t in zip(scored, truths, strict=True) if s.correct and t is not None]
    if known:
        true_flawed = sum(t.flawed for _, t in known)
        out |= {
            "rollout/true_fp_ratio": metrics.fp_ratio(true_flawed, len(known)),
            "rollout/reliable_accuracy": metrics.reliable_accuracy(true_flawed, len(known), len(scored)),
            "rollout/true_rho": theory.rho(len(known) - true_flawed, num_wrong),
        }
        if pairs := [(s.verdict, t.error_step) for s, t in known if s.verdict is not None]:
            out |= {f"judge/{name}": value for name, value in judge_quality(*zip(*pairs, strict=True)).items()}
    return out


def _strong_rate(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return the rate of verdicts by the strong judge of a cascade; {} for other judges."""
    if not any(verdict.given_by for verdict in verdicts):
        return {}
    return {"judge/strong_rate": fmean(verdict.given_by == "strong" for verdict in verdicts)}


def usage_metrics(usage: Usage, judge: JudgeConfig | None, group: str = "judge") -> dict[str, float]:
    """Return the tokens of a judge as metrics.

    Args:
        usage: Tokens of the requests for some rollouts.
        judge: Settings of the judge, which may have prices.
        group: Group of the names: judge, or audit for the second judge.

    Returns:
        Sums by name, judge/requests, judge/prompt_tokens and so on, and with prices judge/cost; {} if nothing was
        requested.
    """
    if not usage:
        return {}
    prices = judge.prices if isinstance(judge, ServedJudge) else None
    return {f"{group}/{name}": value for name, value in usage.as_json(prices).items() if value is not None}


def advantage_metrics(
    scored: Sequence[ScoredRollout], advantages: Sequence[float | None], truths: Sequence[GroundTruth | None] = ()
) -> dict[str, float]:
    """Compute the mean advantage of fully correct, flawed and wrong rollouts, and the fraction that is for flawed ones.

    Args:
        scored: Scored rollouts, [num_rollouts].
        advantages: Advantage of each rollout, [num_rollouts].
        truths: Truth about each rollout, None where it is unknown; empty if no truth is known.

    Returns:
        Mean advantages, and the fraction of the positive advantage that flawed rollouts get, by verdict, and by truth
        where it is known.
    """
    values = np.array(advantages, dtype=np.float64)
    kinds = {"": [s.rollout_class for s in scored]}
    if any(truth is not None for truth in truths):
        kinds["true_"] = _true_classes(scored, truths)
    out: dict[str, float] = {}
    for kind, classes in kinds.items():
        means = mean_advantage_by_class(values, classes) | {"flawed_fraction": flawed_fraction(values, classes)}
        out |= {f"advantage/{kind}{name}": value for name, value in means.items()}
    return out


def flawed_rho_metrics(
    scored: Sequence[ScoredRollout], group_size: int, truths: Sequence[GroundTruth | None]
) -> dict[str, float]:
    """Compute rho over groups that are weighted by their flawed positives.

    Args:
        scored: Scored rollouts in consecutive groups, [num_groups * group_size].
        group_size: Number of rollouts of one prompt.
        truths: Truth about each rollout, None where it is unknown, [num_groups * group_size].

    Returns:
        Rho by verdict, and by truth where it is known. It is NaN without flawed positives, or if their groups hold no
        other rollouts. A correct rollout without a verdict is not counted.
    """
    by_verdict, out = [s.rollout_class for s in scored], {}
    for key, classes in (("flawed_rho", by_verdict), ("true_flawed_rho", _true_classes(scored, truths))):
        if "flawed" in classes or "fully_correct" in classes:
            groups = [classes[i : i + group_size] for i in range(0, len(classes), group_size)]
            counts = ([group.count(name) for group in groups] for name in ("fully_correct", "flawed", "wrong"))
            out[f"rollout/{key}"] = theory.flawed_rho(*counts)
    return out


def _true_classes(scored: Sequence[ScoredRollout], truths: Sequence[GroundTruth | None]) -> list[RolloutClass]:
    """Return the class of each rollout by its truth."""
    pairs = zip(scored, truths, strict=True)
    return ["unscored" if s.check_error else rollout_class(s.correct, t.flawed if t else None) for s, t in pairs]


def genrm_metrics(scored: Sequence[ScoredRollout], truths: Sequence[GroundTruth]) -> dict[str, float]:
    """Compute the metrics of critiques.

    The quality of the flags is that of FlawedPositiveBench: over solutions with a correct answer. If others are among
    them, the accuracies and F1 of ProcessBench over all solutions are there, too, with the prefix process_, unless the
    critiques say yes or no without a step.

    Args:
        scored: Scored critiques, [batch_size], at least one.
        truths: Label of each solution, and whether its answer is correct, [batch_size].

    Returns:
        Precision, recall, F1 and others by name.
    """
    judged = [(s.verdict, truth) for s, truth in zip(scored, truths, strict=True) if s.verdict]
    positives = [(verdict, truth.error_step) for verdict, truth in judged if truth.answer_correct is not False]
    out = judge_quality(*zip(*positives, strict=True)) if positives else {}
    verdicts = [verdict for verdict, _ in judged]
    if len(positives) < len(judged) and not any(v.flawed and v.error_step is None for v in verdicts):
        found = processbench_f1(verdicts, [truth.error_step for _, truth in judged])
        out |= {
            "process_error_accuracy": found.error_acc,
            "process_correct_accuracy": found.correct_acc,
            "process_f1": found.f1,
        }
    return out | {
        "tokens": fmean(s.rollout.num_tokens for s in scored),
        "truncated_rate": fmean(s.rollout.truncated for s in scored),
    }


def validation_metrics(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics to those of a validation set: rollout/accuracy becomes NAME/accuracy.

    Args:
        name: Name of the validation set.
        metrics: Metrics by name.

    Returns:
        Metrics by their new names.
    """
    return {f"{name}/{key.removeprefix('rollout/')}": value for key, value in metrics.items()}
