"""Rollouts of policies, with the checks of their final answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fapo.config.schema import ModelJudge
from fapo.data.jsonl import write_jsonl
from fapo.data.problems import question_messages
from fapo.data.steps import split_steps
from fapo.data.trajectory import closes_unopened_thinking, make_rollout
from fapo.evaluation.policy.sample import sample_policy
from fapo.inference.models import ModelSpec
from fapo.inference.numbered_answers import SampledModel
from fapo.inference.response_cache import ResponseCache
from fapo.rewards.checkers import AnswerChecker
from fapo.rewards.scorer import checker_breaker
from fapo.rewards.verify import Check
from fapo.training.critic_data.settings import CriticSettings
from fapo.types import Problem, Progress, Rollout, StepRule


@dataclass(frozen=True)
class SampledRollout:
    """Rollout of a policy, with the check of its final answer."""

    id: str
    """Id, made of those of the problem, the policy and the sample."""
    policy: str
    """Name of the policy."""
    rollout: Rollout
    """Problem and response."""
    check: Check
    """Check of the final answer."""
    rule: StepRule
    """Rule by which the response is split into steps."""

    @property
    def outcome(self) -> str:
        """right, wrong, or the status of a check without a result."""
        return ("right" if self.check.correct else "wrong") if self.check.status == "ok" else self.check.status

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps of the solution as a judge sees them, without surrounding blanks."""
        return tuple(step.strip() for step in split_steps(self.rollout.response, self.rule))


async def sample_rollouts(
    config: CriticSettings,
    policies: Sequence[ModelSpec],
    problems: Sequence[Problem],
    prompt: str,
    check: AnswerChecker,
    rule: StepRule,
    cache: ResponseCache,
    progress: Progress,
) -> list[SampledRollout]:
    """Sample rollouts of each policy, check their final answers, and record all of them in samples.jsonl.

    Args:
        config: Settings.
        policies: Policies.
        problems: Problems that each policy solves.
        prompt: Text of the policies' prompt.
        check: Checker of final answers.
        rule: Rule by which responses are split into steps.
        cache: Cache of the responses.
        progress: Callback for the number of rollouts of each policy.

    Returns:
        Rollouts in the order of the problems, without failed requests.

    Raises:
        ConfigError: A policy cannot be loaded.
        DataError: The cache cannot be used.
        EngineError: A policy fails for too many requests, or the checker for too many rollouts.
    """
    how = config.sampling, config.requests, config.seed
    models = [SampledModel(policy, "--policy", *how) for policy in policies]
    chats = [question_messages(prompt, problem) for problem in problems]
    name = str(config.prompt or "")
    found = [
        await sample_policy(
            model, chats, config.samples, cache, progress, task=f"sample {model.spec.name}", prompt=name
        )
        for model in models
    ]
    thinking = [any(closes_unopened_thinking(answer.text) for row in rows for answer in row) for rows in found]
    answered = [
        (f"{problem.id}-{place}-{index}", place, problem, answer)
        for row, problem in enumerate(problems)
        for place in range(len(models))
        for index, answer in enumerate(found[place][row])
        if not answer.error
    ]
    rollouts = [
        make_rollout(problem, answer.text, answer.num_tokens, truncated=answer.truncated, thinking=thinking[place])
        for _, place, problem, answer in answered
    ]
    checks = await check(rollouts)
    checker_breaker(ModelJudge.max_failure_rate).record([c.failure for c in checks])
    sampled = [
        SampledRollout(id, models[place].spec.name, rollout, checked, rule)
        for (id, place, _, _), rollout, checked in zip(answered, rollouts, checks, strict=True)
    ]
    write_jsonl(config.folder / "samples.jsonl", map(_row, sampled))
    return sampled


def distinct(rollouts: Iterable[SampledRollout]) -> list[SampledRollout]:
    """Return the correct rollouts in order, and of equal solutions to equal problems only the first."""
    first: dict[tuple[str, tuple[str, ...]], SampledRollout] = {}
    for rollout in rollouts:
        if rollout.check.correct:
            first.setdefault((rollout.rollout.problem.text, rollout.steps), rollout)
    return list(first.values())


def _row(sampled: SampledRollout) -> dict[str, object]:
    """Return a rollout as a row of samples.jsonl."""
    problem = sampled.rollout.problem
    return {
        "id": sampled.id,
        "problem_id": problem.id,
        "problem": problem.text,
        "reference": problem.reference,
        "policy": sampled.policy,
        "response": sampled.rollout.response,
        "num_tokens": sampled.rollout.num_tokens,
        "correct": sampled.check.correct,
        "outcome": sampled.outcome,
    }
