"""Samples -> the numbers of a policy, with intervals by drawing questions. Pure; shares are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fapo.data.final_answers import clean
from fapo.evaluation.intervals import Interval, bootstrap_ratio_intervals
from fapo.evaluation.metrics import majority_vote, pass_at_k
from fapo.evaluation.policy.run import Answered, Sample
from fapo.judge.quality import ratio

RIGHT = ("right",)
"""Label of all right answers in a vote; those of wrong ones are texts."""


@dataclass(frozen=True)
class Number:
    """A number with its interval."""

    value: float
    """NaN where it is not defined."""
    interval: Interval
    """95 % interval over questions."""


@dataclass(frozen=True)
class Score:
    """What a policy achieves on some questions."""

    num_questions: int
    """Questions asked."""
    num_samples: int
    """Samples that came."""
    num_correct: int
    """Of these, with a right final answer."""
    num_judged: int
    """Of these, with a verdict."""
    num_flawed: int
    """Of these, found flawed."""
    avg_at_k: Number
    """Right samples / samples."""
    pass_at: Mapping[int, Number]
    """j -> chance that j samples of a question hold a right one (unbiased), for powers of two and k."""
    majority_at_k: Number
    """Questions whose most frequent final answer is right / questions."""
    fp_ratio: Number
    """Flawed / right samples with a verdict."""
    reliable_accuracy: Number
    """Samples that are right and found sound / samples; what has no verdict is not reliable."""
    true_fp_ratio: Number
    """Flawed / right samples, by the miniature's oracle."""
    true_reliable_accuracy: Number
    """Right and sound samples / samples, by the oracle."""
    length: Number
    """Mean length of a sample in tokens, where it is known."""
    no_answer_rate: float
    """Samples without a final answer / samples."""
    undecided_rate: float
    """Samples whose final answer could not be compared (they count as wrong) / samples."""
    truncated_rate: float
    """Samples cut off by the length limit / samples."""
    failed_rate: float
    """Samples that did not come / samples asked for; they are in no other number."""
    judge_unparsable_rate: float
    """Unparsable verdicts / verdicts asked for."""
    judge_failed_rate: float
    """Verdicts that did not come / verdicts asked for."""


def score(answered: Sequence[Answered], k: int, judged: bool) -> Score:
    """The numbers of some questions, each asked k times; `judged`: there was a judge."""
    sizes = sorted({2**i for i in range(1, k.bit_length())} | {k})
    pairs = [_pairs(of_one, sizes, judged) for of_one in answered]
    parts = np.array([[part for part, _ in row] for row in pairs], dtype=float).reshape(len(pairs), -1)
    wholes = np.array([[whole for _, whole in row] for row in pairs], dtype=float).reshape(len(pairs), -1)
    totals = zip(parts.sum(0), wholes.sum(0), bootstrap_ratio_intervals(parts, wholes), strict=True)
    avg, majority, fp, reliable, true_fp, true_reliable, length, *passes = [
        Number(ratio(part, whole), interval) for part, whole, interval in totals
    ]
    samples = [sample for of_one in answered for sample in of_one.samples]
    rights = [sample for sample in samples if sample.check.correct]
    verdicts = [sample.verdict for sample in rights if sample.verdict]
    num_failed = sum(of_one.num_failed for of_one in answered)
    return Score(
        num_questions=len(answered),
        num_samples=len(samples),
        num_correct=len(rights),
        num_judged=sum(verdict.status == "ok" for verdict in verdicts),
        num_flawed=sum(bool(verdict.flawed) for verdict in verdicts),
        avg_at_k=avg,
        pass_at=dict(zip(sizes, passes, strict=True)),
        majority_at_k=majority,
        fp_ratio=fp,
        reliable_accuracy=reliable,
        true_fp_ratio=true_fp,
        true_reliable_accuracy=true_reliable,
        length=length,
        no_answer_rate=ratio(sum(s.check.status == "no_answer" for s in samples), len(samples)),
        undecided_rate=ratio(sum(s.check.status in ("timeout", "error") for s in samples), len(samples)),
        truncated_rate=ratio(sum(s.rollout.truncated for s in samples), len(samples)),
        failed_rate=ratio(num_failed, len(samples) + num_failed),
        judge_unparsable_rate=ratio(sum(v.status == "unparsable" for v in verdicts), len(verdicts)),
        judge_failed_rate=ratio(sum(v.status == "failed" for v in verdicts), len(verdicts)),
    )


def by_source(answered: Sequence[Answered], k: int, judged: bool) -> dict[str, Score]:
    """The scores of each source, in order of their names."""
    sources = sorted({of_one.problem.source for of_one in answered})
    return {name: score([a for a in answered if a.problem.source == name], k, judged) for name in sources}


def majority(samples: Sequence[Sample]) -> bool | None:
    """Whether the most frequent final answer is right; of equally frequent ones the first counts. None: no samples.

    All right answers are one; wrong ones are equal if their normal forms are. Samples without an answer do not vote.
    """
    if not samples:
        return None
    labels: list[Hashable] = [
        RIGHT if sample.check.correct else clean(sample.check.answer or "")
        for sample in samples
        if sample.check.answer is not None
    ]
    return bool(labels) and majority_vote(labels) == RIGHT


def _pairs(answered: Answered, sizes: Sequence[int], judged: bool) -> list[tuple[float, float]]:
    """What a question adds to the part and the whole of each number, in the order of `score`."""
    samples = answered.samples
    num, num_right = len(samples), sum(sample.check.correct for sample in samples)
    verdicts = [sample.verdict for sample in samples if sample.verdict and sample.verdict.status == "ok"]
    num_flawed = sum(bool(verdict.flawed) for verdict in verdicts)
    truths = [sample.truly_flawed for sample in samples if sample.truly_flawed is not None]
    known = [
        sample.rollout.num_tokens for sample in samples if sample.rollout.num_tokens or not sample.rollout.response
    ]
    vote = majority(samples)
    return [
        (num_right, num),
        (bool(vote), vote is not None),
        (num_flawed, len(verdicts)),
        (len(verdicts) - num_flawed, num if judged else 0),
        (sum(truths), len(truths)),
        (len(truths) - sum(truths), num if answered.has_oracle else 0),
        (sum(known), len(known)),
        *((pass_at_k(num_right, num, size), 1) if num >= size else (0.0, 0) for size in sizes),
    ]
