"""Evaluation of a policy: sample answers, check them, and judge the correct ones. All responses go into a cache."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from fapo.config.schema import CascadeJudge, CritiqueJudge, ModelJudge
from fapo.data.files import check_not_overwriting
from fapo.data.load import load_problems
from fapo.data.miniature.oracle import known_ground_truth
from fapo.data.miniature.sets import has_oracle
from fapo.data.problems import load_prompt, question_messages, sampling_key
from fapo.data.trajectory import closes_unopened_thinking, make_rollout
from fapo.errors import ConfigError
from fapo.evaluation.policy.sample import sample_policy
from fapo.evaluation.policy.settings import EvalSettings
from fapo.inference.concurrency import run_batches
from fapo.inference.numbered_answers import SampledModel
from fapo.inference.response_cache import ResponseCache
from fapo.inference.usage import Usage, usage_of
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.from_config import check_caches, open_judge
from fapo.judge.template import load_template
from fapo.judge.verdict_counts import VerdictCounts
from fapo.rewards.checkers import AnswerChecker, make_checker
from fapo.rewards.scorer import checker_breaker
from fapo.rewards.verify import Check
from fapo.types import Completion, Problem, Progress, Rollout, Verdict


@dataclass(frozen=True)
class Sample:
    """One sampled answer to a question, with its check and its verdict."""

    rollout: Rollout
    """Solution that the policy wrote."""
    check: Check
    """Final answer, and whether it is correct."""
    verdict: Verdict | None = None
    """Verdict of the judge; None without a judge or for a wrong answer."""
    truly_flawed: bool | None = None
    """Whether a correct solution is flawed by the miniature's oracle; None for other problems and wrong answers."""
    gold_verdict: Verdict | None = None
    """Verdict of the gold judge, a second opinion; None without one or for a wrong answer."""
    own_verdict: Verdict | None = None
    """Verdict on a wrong answer, with this answer as the reference; None for other samples and if it is not needed."""


@dataclass(frozen=True)
class AnsweredQuestion:
    """One question with its samples."""

    problem: Problem
    """Question."""
    samples: tuple[Sample, ...]
    """Samples, without failed requests."""
    num_failed: int
    """Number of failed requests."""
    reason: str = ""
    """Error of the last failed request; empty without one."""
    all_judged: bool = False
    """Whether the wrong answers are judged too, which a vote of the samples without error needs."""

    @property
    def has_oracle(self) -> bool:
        """Whether the miniature's oracle knows the truth of every step."""
        return has_oracle(self.problem)


def evaluate(
    settings: EvalSettings, progress: Progress = lambda *_: None, usage: dict[str, Usage] | None = None
) -> list[AnsweredQuestion]:
    """Sample answers to questions, check them, and judge the correct ones.

    An evaluation that was interrupted and is called again takes from the cache what the models have answered before.

    Args:
        settings: Questions, policy and judge.
        progress: Callback for the tasks "sample", "judge", "judge wrong answers" and "gold judge".
        usage: Dictionary to which the tokens of policy, judge and gold_judge are added.

    Returns:
        One record for each question, in order.

    Raises:
        ConfigError: A model, template or checker cannot be used, or an output file is one of the data files.
        DataError: A question cannot be read.
        EngineError: The policy fails for too many requests, or the checker for too many samples.
        JudgeDownError: The judge fails for too many samples.
    """
    for file in (settings.out, settings.out.with_suffix(".json")):
        check_not_overwriting(file, settings.data)
    prompt, problems = load_prompt(settings.prompt), load_questions(settings)
    check = make_checker(settings.checker, require_box=settings.require_box)
    policy, judge, gold = settings.policy_spec(), settings.judge_config(), settings.gold_judge_config()
    for config in (judge, gold):
        if isinstance(config, CritiqueJudge):
            load_template(config.template)  # a wrong template should stop the command before it samples
    named = (("--judge", judge), ("--gold-judge", gold))
    parts = ((key + end, part) for key, named_judge in named if named_judge for end, part in named_judge.parts)
    check_caches(parts, "set --judge-revision")
    with contextlib.closing(ResponseCache(settings.cache)) as cache:
        model = SampledModel(policy, "--policy", settings.sampling, settings.requests, settings.seed)
        chats = [question_messages(prompt, problem) for problem in problems]
        prompt_name, use_cache = str(settings.prompt or ""), not settings.no_cache
        completed = asyncio.run(
            sample_policy(model, chats, settings.samples, cache, progress, prompt=prompt_name, use_cache=use_cache)
        )
    usage = {} if usage is None else usage
    usage["policy"] = usage_of({id(c): c for completions in completed for c in completions}.values())
    answered = asyncio.run(_checked(check, problems, completed))
    if judge:
        answered, usage["judge"] = asyncio.run(_judged(settings, judge, answered, progress, "judge", "verdict"))
    if judge and settings.verified_majority:
        answered = [replace(question, all_judged=True) for question in answered]
        answered, more = asyncio.run(_judged(settings, judge, answered, progress, "judge wrong answers", "own_verdict"))
        usage["judge"] += more
    if gold:
        answered, usage["gold_judge"] = asyncio.run(
            _judged(settings, gold, answered, progress, "gold judge", "gold_verdict")
        )
    return answered


def verdict_counts(answered: Sequence[AnsweredQuestion]) -> VerdictCounts:
    """Return the counts of the judge's verdicts on all samples."""
    samples = [sample for question in answered for sample in question.samples]
    return VerdictCounts.of(verdict for s in samples for verdict in (s.verdict, s.own_verdict) if verdict)


def gold_verdict_counts(answered: Sequence[AnsweredQuestion]) -> VerdictCounts:
    """Return the counts of the gold judge's verdicts on all samples."""
    return VerdictCounts.of(s.gold_verdict for question in answered for s in question.samples if s.gold_verdict)


def load_questions(settings: EvalSettings) -> list[Problem]:
    """Load the questions of all sources.

    Args:
        settings: Sources, split, limit and seed; the seed shuffles the choices of multiple-choice questions.

    Returns:
        Questions in the order of the sources.

    Raises:
        ConfigError: Two sources have the same name.
        DataError: A question cannot be read; the message has the file and line.
    """
    chosen: list[Problem] = []
    for source in settings.data:
        found = load_problems(source, split=settings.split, seed=settings.seed)
        kept = {problem.id for problem in sorted(found, key=lambda problem: sampling_key(problem.id))[: settings.limit]}
        chosen += [problem for problem in found if problem.id in kept]
    if twice := [key for key, num in Counter((p.source, p.id) for p in chosen).items() if num > 1]:
        raise ConfigError(f"two sources are both called {twice[0][0]!r}; name each once, or rename a file")
    return chosen


async def _checked(
    check: AnswerChecker, problems: Sequence[Problem], completed: Sequence[Sequence[Completion]]
) -> list[AnsweredQuestion]:
    """Return the completions as samples, with their final answers compared with the references."""
    thinking = any(closes_unopened_thinking(c.text) for completions in completed for c in completions)
    rollouts_of = [
        [
            make_rollout(problem, c.text, c.num_tokens, truncated=c.truncated, thinking=thinking)
            for c in completions
            if not c.error
        ]
        for problem, completions in zip(problems, completed, strict=True)
    ]
    found = await check([rollout for rollouts in rollouts_of for rollout in rollouts])
    checker_breaker(ModelJudge.max_failure_rate).record([c.failure for c in found])
    checks = iter(found)
    out = []
    for problem, rollouts, completions in zip(problems, rollouts_of, completed, strict=True):
        samples = tuple(_checked_sample(rollout, next(checks)) for rollout in rollouts)
        failures = [completion.error for completion in completions if completion.error]
        out.append(AnsweredQuestion(problem, samples, len(failures), failures[-1] if failures else ""))
    return out


def _checked_sample(rollout: Rollout, check: Check) -> Sample:
    """Return a sample without a verdict."""
    known = known_ground_truth(rollout) if check.correct else None
    return Sample(rollout, check, truly_flawed=known.flawed if known else None)


async def _judged(
    settings: EvalSettings,
    config: CritiqueJudge | CascadeJudge,
    answered: Sequence[AnsweredQuestion],
    progress: Progress,
    task: str,
    name: str,
) -> tuple[list[AnsweredQuestion], Usage]:
    """Return the questions with verdicts in the field `name`, and the tokens of the judge.

    The samples of a question are judged together. The judge reads the correct samples. For `own_verdict` it reads those
    with a wrong answer, which takes the place of the reference. The policy wrote it, so it is escaped.
    """
    template = load_template(config.template) if isinstance(config, CritiqueJudge) else None

    def rollout_of(sample: Sample) -> Rollout | None:
        """Return what the judge reads; None for a sample that it does not read."""
        rollout, check = sample.rollout, sample.check
        if name != "own_verdict":
            return rollout if check.correct else None
        if check.correct or check.answer is None:
            return None
        assert template, "a cascade reads correct samples only"
        return replace(rollout, problem=replace(rollout.problem, reference=template.escape(check.answer)))

    read = [[rollout_of(sample) for sample in question.samples] for question in answered]
    jobs = [(i, found) for i, rollouts in enumerate(read) if (found := [rollout for rollout in rollouts if rollout])]
    if not jobs:
        return list(answered), Usage()
    verdicts: dict[int, list[Verdict]] = {}
    async with open_judge(config, use_cache=not settings.no_cache) as judge:

        async def ask(batch: Sequence[tuple[int, list[Rollout]]]) -> list[str]:
            found = iter(await judge([rollout for _, rollouts in batch for rollout in rollouts]))
            errors = []
            for i, rollouts in batch:
                verdicts[i] = list(islice(found, len(rollouts)))
                failed = [verdict.reason for verdict in verdicts[i] if verdict.status == "failed"]
                errors.append(failed[-1] if len(failed) == len(rollouts) else "")
            return errors

        await run_batches(
            jobs,
            ask,
            batch_size=1 if config.num_requests else max(1, settings.requests.concurrency // settings.samples),
            concurrency=config.num_requests or 1,
            record=CircuitBreaker(
                name=f"the {task}", remedy=repeat_command(config.cache), num_expected=len(jobs)
            ).record,
            progress=lambda done: progress(task, done, len(jobs), judge.usage.progress_metrics),
        )
    out = []
    for i, (question, rollouts) in enumerate(zip(answered, read, strict=True)):
        rest: Iterator[Any] = iter(verdicts.get(i, []))
        pairs = zip(question.samples, rollouts, strict=True)
        samples = tuple(replace(sample, **{name: next(rest)}) if rollout else sample for sample, rollout in pairs)
        out.append(replace(question, samples=samples))
    return out, judge.usage.total
