"""Scores of a policy from its samples, with bootstrap intervals over questions. Pure functions; rates are fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fapo.data.final_answers import clean
from fapo.evaluation.intervals import (
    Estimate,
    bootstrap_ratios,
    group_sums,
    grouped_difference_interval,
    percentile_interval,
    wilson_interval,
)
from fapo.evaluation.metrics import majority_vote, pass_at_k
from fapo.evaluation.policy.run import AnsweredQuestion, Sample
from fapo.judge.quality import ratio

NAMES = (
    *("avg_at_k", "majority_at_k", "fp_ratio", "reliable_accuracy", "true_fp_ratio", "true_reliable_accuracy"),
    *("length", "gold_fp_ratio", "judge_agreement", "judge_recall", "judge_specificity"),
    *("verified_majority_at_k", "plain_majority_at_k"),
    *("pass_at_k", "verified_pass_at_k"),
)
"""Names of the numbers that `_pairs` returns for one size."""
Floats = npt.NDArray[np.float64]
CORRECT = ("correct",)
"""Label of all correct answers in a vote; the labels of wrong answers are texts."""


@dataclass(frozen=True)
class Score:
    """Score of a policy on some questions."""

    num_questions: int
    """Number of questions."""
    num_samples: int
    """Number of samples, without failed requests."""
    num_correct: int
    """Number of samples with a correct final answer."""
    num_judged: int
    """Number of correct samples with a verdict."""
    num_flawed: int
    """Number of correct samples that the judge flags."""
    avg_at_k: Estimate
    """Correct samples / samples."""
    pass_at: Mapping[int, Estimate]
    """Probability (unbiased) that j samples of a question hold a correct one, by j: powers of two and k."""
    verified_pass_at: Mapping[int, Estimate]
    """Like `pass_at`, with samples that are correct and found without error; one without a verdict is not."""
    majority_at_k: Estimate
    """Questions with a correct most frequent final answer / questions."""
    verified_majority_at_k: Estimate
    """Like `majority_at_k`, where only samples that the judge finds without error vote, and all if there is none."""
    verified_majority_gain: Estimate
    """`verified_majority_at_k` - `majority_at_k` on the same questions."""
    fp_ratio: Estimate
    """Flawed / correct samples with a verdict."""
    reliable_accuracy: Estimate
    """Correct samples that the judge does not flag / samples; a sample without a verdict is not reliable."""
    gold_fp_ratio: Estimate
    """Flawed / correct samples with a verdict, by the gold judge."""
    judge_agreement: Estimate
    """Equal verdicts / correct samples on which both judges have one."""
    judge_youden_j: Estimate
    """Youden's J of the judge against the gold judge: true positive rate - false positive rate, on the same samples."""
    true_fp_ratio: Estimate
    """Flawed / correct samples, by the miniature's oracle."""
    true_reliable_accuracy: Estimate
    """Correct samples without a flaw / samples, by the miniature's oracle."""
    length: Estimate
    """Mean length in tokens of the samples with a known length."""
    no_answer_rate: float
    """Samples without a final answer / samples."""
    undecided_rate: float
    """Samples with a final answer that could not be compared (they count as wrong) / samples."""
    truncated_rate: float
    """Samples cut off by the length limit / samples."""
    failed_rate: float
    """Failed requests / requests for samples; a failed request counts in no other number."""
    judge_unparsable_rate: float
    """Unparsable verdicts / judged samples."""
    judge_failed_rate: float
    """Failed verdicts / judged samples."""


def score(answered: Sequence[AnsweredQuestion], k: int, judged: bool) -> Score:
    """Return the score of a policy on some questions.

    Args:
        answered: Questions with their samples.
        k: Number of samples that were requested for each question.
        judged: Whether there is a judge.

    Returns:
        Numbers with their intervals.
    """
    sizes = _sizes(k)
    numerators, denominators = _sums(answered, sizes, judged)
    draws = bootstrap_ratios(numerators, denominators)
    columns = zip(numerators.T, denominators.T, draws.T, strict=True)
    length = NAMES.index("length")
    estimates = [_estimate(*column, is_rate=i != length) for i, column in enumerate(columns)]
    named, passes = dict(zip(NAMES[:-2], estimates, strict=False)), estimates[len(NAMES) - 2 :]
    recall, specificity = (NAMES.index(name) for name in ("judge_recall", "judge_specificity"))
    found, flawed, fine = numerators[:, recall], denominators[:, recall], denominators[:, specificity]
    youden_j = Estimate(
        named.pop("judge_recall").value + named.pop("judge_specificity").value - 1,
        percentile_interval(
            draws[:, recall] + draws[:, specificity] - 1,
            grouped_difference_interval(found, flawed, fine - numerators[:, specificity], fine),
            (draws[:, recall], draws[:, specificity]),
        ),
    )
    voted, plain = (NAMES.index(name) for name in ("verified_majority_at_k", "plain_majority_at_k"))
    gain = Estimate(
        named["verified_majority_at_k"].value - named.pop("plain_majority_at_k").value,
        percentile_interval(draws[:, voted] - draws[:, plain]),
    )
    samples = [sample for question in answered for sample in question.samples]
    correct = [sample for sample in samples if sample.check.correct]
    verdicts = [sample.verdict for sample in correct if sample.verdict]
    num_failed = sum(question.num_failed for question in answered)
    return Score(
        num_questions=len(answered),
        num_samples=len(samples),
        num_correct=len(correct),
        num_judged=sum(verdict.status == "ok" for verdict in verdicts),
        num_flawed=sum(bool(verdict.flawed) for verdict in verdicts),
        **named,
        judge_youden_j=youden_j,
        verified_majority_gain=gain,
        pass_at=dict(zip(sizes, passes[: len(sizes)], strict=True)),
        verified_pass_at=dict(zip(sizes, passes[len(sizes) :], strict=True)),
        no_answer_rate=ratio(sum(s.check.status == "no_answer" for s in samples), len(samples)),
        undecided_rate=ratio(sum(s.check.undecided for s in samples), len(samples)),
        truncated_rate=ratio(sum(s.rollout.truncated for s in samples), len(samples)),
        failed_rate=ratio(num_failed, len(samples) + num_failed),
        judge_unparsable_rate=ratio(sum(v.status == "unparsable" for v in verdicts), len(verdicts)),
        judge_failed_rate=ratio(sum(v.status == "failed" for v in verdicts), len(verdicts)),
    )


def by_source(answered: Sequence[AnsweredQuestion], k: int, judged: bool) -> dict[str, Score]:
    """Return the score of a policy on each source.

    Args:
        answered: Questions with their samples.
        k: Number of samples that were requested for each question.
        judged: Whether there is a judge.

    Returns:
        Scores by the name of the source, in alphabetical order.
    """
    sources = sorted({question.problem.source for question in answered})
    return {name: score([a for a in answered if a.problem.source == name], k, judged) for name in sources}


def paired_differences(
    first: Sequence[AnsweredQuestion], second: Sequence[AnsweredQuestion], k: int, judged: bool
) -> dict[str, Estimate]:
    """Return the numbers of the second policy minus those of the first, on the same questions.

    Args:
        first: Questions with the samples of the first policy.
        second: The same questions in the same order, with the samples of the second policy.
        k: Number of samples of each question; the smaller one where the two differ.
        judged: Whether both have a judge.

    Returns:
        Differences by the names in `NAMES`. The intervals are paired over questions. Those of pass@k are over the
        questions to which both policies have k samples: requests that fail may be those of the hard questions.
    """
    sums = [_sums(answered, [k], judged) for answered in (first, second)]
    passes = slice(NAMES.index("pass_at_k"), None)
    both = np.logical_and(*(wholes[:, passes] > 0 for _, wholes in sums))
    for parts in sums:
        for part in parts:
            part[:, passes] *= both
    numerators, denominators = (np.concatenate([pair[i] for pair in sums], axis=1) for i in (0, 1))
    draws = bootstrap_ratios(numerators, denominators)
    values = [ratio(above, below) for above, below in zip(numerators.sum(0), denominators.sum(0), strict=True)]
    num = len(NAMES)
    return {
        name: Estimate(values[num + i] - values[i], percentile_interval(draws[:, num + i] - draws[:, i]))
        for i, name in enumerate(NAMES)
    }


def _estimate(numerators: Floats, denominators: Floats, drawn: Floats, is_rate: bool) -> Estimate:
    """Return a ratio with its interval: of bootstrap draws, or for a rate Wilson's where all draws are equal.

    They are so where all questions have the same rate, or a single one has any samples that count. Samples of one
    question may all be alike, so each question counts once.

    Args:
        numerators: What each problem adds to the numerator, [num_problems].
        denominators: What each problem adds to the denominator, [num_problems].
        drawn: Ratio in bootstrap draws, [num_draws].
        is_rate: Whether the ratio lies in [0, 1].

    Returns:
        The ratio, NaN where it is not defined.
    """
    value, num = ratio(numerators.sum(), denominators.sum()), int((denominators > 0).sum())
    return Estimate(value, percentile_interval(drawn, wilson_interval(value * num, num) if is_rate and num else None))


def _sizes(k: int) -> list[int]:
    """Return the sizes j of pass@j: powers of two and k."""
    return sorted({2**i for i in range(1, k.bit_length())} | {k})


def _sums(answered: Sequence[AnsweredQuestion], sizes: Sequence[int], judged: bool) -> tuple[Any, Any]:
    """Return what each problem adds to the numerators and denominators of `_pairs`, each [num_problems, num].

    Questions with the same text are one problem: they have the same samples.
    """
    pairs = np.array([_pairs(question, sizes, judged) for question in answered], dtype=float)
    sums = group_sums(pairs.reshape(len(answered), -1, 2), [question.problem.text for question in answered], float)
    return sums[..., 0], sums[..., 1]


def majority(samples: Sequence[Sample]) -> bool | None:
    """Return whether the most frequent final answer is correct; None without samples, or if nobody knows their answers.

    Among equally frequent answers the first one counts. All correct answers are equal, and wrong answers are equal if
    their normal forms are. Samples without an answer do not vote. A checker of the user finds no answers: it says only
    whether a response is correct.
    """
    if not samples or any(sample.check.status == "ok" and sample.check.answer is None for sample in samples):
        return None
    labels: list[Hashable] = [
        CORRECT if sample.check.correct else clean(sample.check.answer or "")
        for sample in samples
        if sample.check.answer is not None
    ]
    return bool(labels) and majority_vote(labels) == CORRECT


def verified_majority(samples: Sequence[Sample]) -> bool | None:
    """Return whether the most frequent answer among the samples that a judge finds without error is correct.

    If there is no such sample with an answer, all samples vote. None without samples; see `majority`.
    """
    verdicts = [sample.verdict if sample.check.correct else sample.own_verdict for sample in samples]
    pairs = zip(samples, verdicts, strict=True)
    verified = [sample for sample, verdict in pairs if verdict is not None and verdict.flawed is False]
    return majority(verified or samples)


def _pairs(answered: AnsweredQuestion, sizes: Sequence[int], judged: bool) -> list[tuple[float, float]]:
    """Return what a question adds to the numerator and denominator of each number, in the order of `score`.

    The first samples vote, as many as the largest size: majorities of different numbers of samples do not compare.
    """
    samples = answered.samples
    voters = samples[: max(sizes)]
    num, num_correct = len(samples), sum(sample.check.correct for sample in samples)
    verdicts = [sample.verdict for sample in samples if sample.verdict and sample.verdict.status == "ok"]
    num_flawed = sum(bool(verdict.flawed) for verdict in verdicts)
    num_verified = len(verdicts) - num_flawed
    truths = [sample.truly_flawed for sample in samples if sample.truly_flawed is not None]
    known = [
        sample.rollout.num_tokens for sample in samples if sample.rollout.num_tokens or not sample.rollout.response
    ]
    vote = majority(voters)
    verified_vote = verified_majority(voters) if answered.all_judged else None
    gold = [s.gold_verdict.flawed for s in samples if s.gold_verdict and s.gold_verdict.flawed is not None]
    both = [
        (bool(s.verdict.flawed), bool(s.gold_verdict.flawed))
        for s in samples
        if s.verdict and s.gold_verdict and s.verdict.status == s.gold_verdict.status == "ok"
    ]
    agreed = Counter(flagged for flagged, flawed in both if flagged == flawed)
    num_gold_flawed = sum(flawed for _, flawed in both)
    return [
        (num_correct, num),
        (bool(vote), vote is not None),
        (num_flawed, len(verdicts)),
        (num_verified, num if judged else 0),
        (sum(truths), len(truths)),
        (len(truths) - sum(truths), num if answered.has_oracle else 0),
        (sum(known), len(known)),
        (sum(gold), len(gold)),
        (agreed.total(), len(both)),
        (agreed[True], num_gold_flawed),
        (agreed[False], len(both) - num_gold_flawed),
        (bool(verified_vote), verified_vote is not None),
        (bool(vote) and verified_vote is not None, verified_vote is not None),
        *((pass_at_k(num_correct, num, size), 1) if num >= size else (0.0, 0) for size in sizes),
        *((pass_at_k(num_verified, num, size), 1) if judged and num >= size else (0.0, 0) for size in sizes),
    ]
