"""Ask policies for rollouts and the teacher for votes; each answer is written down before the next is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from fapo.data.problems import question_messages
from fapo.errors import EngineError, FapoError, JudgeDownError
from fapo.inference.client import ChatClient
from fapo.inference.concurrency import Job, run_batches
from fapo.inference.models import ModelSpec, reseeded
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.genrm import GenRM
from fapo.judge.template import Template
from fapo.rewards import verify as answers
from fapo.training.critic_data.settings import CriticSettings
from fapo.training.critic_data.work_folder import Sample, Work
from fapo.types import Progress, Rollout

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel


async def sample_rollouts(
    config: CriticSettings, policy: ModelSpec, prompt: str, work: Work, progress: Progress
) -> None:
    """Ask a policy for the rollouts that are missing; check each final answer."""
    wanted = [key for key, place in work.plan.items() if place.policy == policy.name]
    missing = [key for key in wanted if key not in work.outcomes]
    counts = len(wanted) - len(missing), len(wanted)
    if not missing:
        return
    complete = _opened(config, policy, "--policy", config.temperature, config.max_tokens)

    async def ask(keys: Sequence[str]) -> list[str]:
        problems = [work.plan[key].problem for key in keys]
        said = await complete([question_messages(prompt, problem) for problem in problems])
        answered = [
            (key, Rollout(problem, completion.text, completion.num_tokens))
            for key, problem, completion in zip(keys, problems, said, strict=True)
            if not completion.error
        ]
        checks = await answers.acheck_answers(
            [(rollout.response, rollout.problem.reference) for _, rollout in answered]
        )
        work.add_samples([(*pair, check) for pair, check in zip(answered, checks, strict=True)])
        return [completion.error for completion in said]

    async with aclosing(complete):
        breaker = _breaker(config, f"the policy {policy.name}", len(missing), counts[0], EngineError)
        await _run_batches(missing, ask, complete, breaker, f"sample {policy.name}", counts, progress)


async def collect_votes(
    config: CriticSettings, solutions: Sequence[Sample], template: Template, work: Work, progress: Progress
) -> None:
    """Ask the teacher for the votes that are missing, one round after the other.

    A GenRM asks about equal solutions once, so the votes on one solution must never be asked for together.
    """
    wanted = [(sample.id, number) for number in range(config.votes) for sample in solutions]
    if all(place in work.votes for place in wanted):
        return
    model = config.teacher_spec()
    teacher = _opened(config, model, "--teacher", config.teacher_temperature, config.teacher_max_tokens)
    async with aclosing(teacher):
        for number in range(config.votes):
            missing = [sample for sample in solutions if (sample.id, number) not in work.votes]
            counts = sum(place in work.votes for place in wanted), len(wanted)
            judge = GenRM(template, reseeded(teacher, config.seed + number))

            async def ask(samples: Sequence[Sample], judge: GenRM = judge, number: int = number) -> list[str]:
                verdicts = await judge.judge_steps([(sample.rollout.problem, sample.steps) for sample in samples])
                found = {(sample.id, number): verdict for sample, verdict in zip(samples, verdicts, strict=True)}
                work.add_votes({place: verdict for place, verdict in found.items() if verdict.status != "failed"})
                return [verdict.reason if verdict.status == "failed" else "" for verdict in verdicts]

            breaker = _breaker(config, f"the teacher {model.name}", len(missing), counts[0], JudgeDownError)
            await _run_batches(missing, ask, teacher, breaker, f"label {model.name}", counts, progress)


def _opened(
    config: CriticSettings, model: ModelSpec, option: str, temperature: float, max_tokens: int | None
) -> ChatClient | LocalModel:
    return model.open(
        option,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=config.seed,
        concurrency=config.concurrency,
        timeout=config.timeout,
    )


def _breaker(
    config: CriticSettings, name: str, num_expected: int, num_answered: int, error: type[FapoError]
) -> CircuitBreaker:
    return CircuitBreaker(
        name=name,
        remedy=repeat_command(config.folder),
        num_expected=num_expected,
        num_answered=num_answered,
        error=error,
    )


async def _run_batches(
    jobs: Sequence[Job],
    ask: Callable[[Sequence[Job]], Awaitable[list[str]]],
    complete: ChatClient | LocalModel,
    breaker: CircuitBreaker,
    what: str,
    counts: tuple[int, int],
    progress: Progress,
) -> None:
    """`counts` are what is done already and what there is in all."""
    await run_batches(
        jobs,
        ask,
        batch_size=complete.batch_size,
        concurrency=complete.concurrency,
        record=breaker.record,
        num_done=counts[0],
        progress=lambda done: progress(what, done, counts[1]),
    )
