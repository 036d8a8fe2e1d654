"""Sample rollouts of policies and votes of the teacher; each response is written to the work folder as it arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from fapo.data.problems import question_messages
from fapo.data.trajectory import make_rollout
from fapo.errors import EngineError, FapoError, JudgeDownError
from fapo.inference.client import ChatClient
from fapo.inference.concurrency import Job, run_batches
from fapo.inference.models import ModelSpec, reseeded
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.genrm import GenRM
from fapo.judge.template import Template
from fapo.rewards import verify as answers
from fapo.training.critic_data.settings import CriticSettings
from fapo.training.critic_data.work_folder import CorrectRollout, WorkFolder
from fapo.types import Progress

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel


async def sample_rollouts(
    config: CriticSettings, policy: ModelSpec, prompt: str, work: WorkFolder, progress: Progress
) -> None:
    """Sample the rollouts of a policy that the work folder lacks, and check their final answers.

    Args:
        config: Settings.
        policy: Policy.
        prompt: Text of the policies' prompt.
        work: Work folder, which gets the rollouts.
        progress: Callback for the number of rollouts of this policy.

    Raises:
        EngineError: The policy fails for too many requests.
    """
    wanted = [key for key, place in work.wanted.items() if place.policy == policy.name]
    missing = [key for key in wanted if key not in work.outcomes]
    counts = len(wanted) - len(missing), len(wanted)
    if not missing:
        return
    complete = _opened(config, policy, "--policy", config.temperature, config.max_tokens)

    async def ask(keys: Sequence[str]) -> list[str]:
        problems = [work.wanted[key].problem for key in keys]
        completions = await complete([question_messages(prompt, problem) for problem in problems])
        answered = [
            (key, make_rollout(problem, completion.text, completion.num_tokens))
            for key, problem, completion in zip(keys, problems, completions, strict=True)
            if not completion.error
        ]
        checks = await answers.acheck_answers(
            [(rollout.response, rollout.problem.reference) for _, rollout in answered]
        )
        work.add_samples([(*pair, check) for pair, check in zip(answered, checks, strict=True)])
        return [completion.error for completion in completions]

    async with aclosing(complete):
        breaker = _breaker(config, f"the policy {policy.name}", len(missing), counts[0], EngineError)
        await _run_batches(missing, ask, complete, breaker, f"sample {policy.name}", counts, progress)


async def collect_votes(
    config: CriticSettings,
    solutions: Sequence[CorrectRollout],
    template: Template,
    work: WorkFolder,
    progress: Progress,
) -> None:
    """Request the votes that the work folder lacks, in one round for each vote.

    A GenRM judges equal solutions once, so the votes on one solution must not be in the same round.

    Args:
        config: Settings.
        solutions: Distinct correct solutions.
        template: Prompt of the teacher.
        work: Work folder, which gets the votes.
        progress: Callback for the number of votes.

    Raises:
        JudgeDownError: The teacher fails for too many requests.
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

            async def ask(samples: Sequence[CorrectRollout], judge: GenRM = judge, number: int = number) -> list[str]:
                verdicts = await judge.judge_steps([(sample.rollout.problem, sample.steps) for sample in samples])
                found = {(sample.id, number): verdict for sample, verdict in zip(samples, verdicts, strict=True)}
                work.add_votes({place: verdict for place, verdict in found.items() if verdict.status != "failed"})
                return [verdict.reason if verdict.status == "failed" else "" for verdict in verdicts]

            breaker = _breaker(config, f"the teacher {model.name}", len(missing), counts[0], JudgeDownError)
            await _run_batches(missing, ask, teacher, breaker, f"label {model.name}", counts, progress)


def _opened(
    config: CriticSettings, model: ModelSpec, option: str, temperature: float, max_tokens: int | None
) -> ChatClient | LocalModel:
    """Open a model; `option` is named in the error message if it cannot be loaded."""
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
    """Return the circuit breaker of a model."""
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
    task: str,
    counts: tuple[int, int],
    progress: Progress,
) -> None:
    """Run all jobs; `counts` are the number of jobs done before and the number of all jobs."""
    await run_batches(
        jobs,
        ask,
        batch_size=complete.batch_size,
        concurrency=complete.concurrency,
        record=breaker.record,
        num_done=counts[0],
        progress=lambda done: progress(task, done, counts[1]),
    )
