"""Ask policies for rollouts and the teacher for votes; each answer is written down before the next is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from fapo import answers
from fapo.client import ChatClient
from fapo.critic.settings import CriticConfig
from fapo.critic.work import Sample, Work
from fapo.judge import GenRM, Template
from fapo.models import ChatModel, reseeded
from fapo.types import Complete, Rollout

LOCAL_BATCH = 256
"""Conversations a model in this process is asked at once; they are written down together."""
PATIENCE = 20
"""So many failures one after the other, or a hundredth of all there is to ask, end the run."""

Progress = Callable[[str, int, int], None]
"""Told as it goes: what is being done, how much is done, how much there is."""
Job = TypeVar("Job")


async def sample_rollouts(config: CriticConfig, policy: ChatModel, prompt: str, work: Work, progress: Progress) -> None:
    """Ask a policy for the rollouts that are missing; check each final answer."""
    wanted = [key for key, place in work.plan.items() if place.policy == policy.name]
    missing = [key for key in wanted if key not in work.outcomes]
    counts = len(wanted) - len(missing), len(wanted)
    if not missing:
        return
    complete = policy.open(
        "--policy",
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        concurrency=config.concurrency,
        timeout=config.timeout,
        seed=config.seed,
    )

    async def ask(keys: Sequence[str]) -> list[str]:
        problems = [work.plan[key].problem for key in keys]
        said = await complete([[{"role": "user", "content": prompt.replace("{{problem}}", p.text)}] for p in problems])
        answered = [
            (key, Rollout(problem, completion.text, completion.num_tokens))
            for key, problem, completion in zip(keys, problems, said, strict=True)
            if not completion.error
        ]
        checks = await answers.acheck_many([(rollout.response, rollout.problem.reference) for _, rollout in answered])
        work.add_samples([(*pair, check) for pair, check in zip(answered, checks, strict=True)])
        return [completion.error for completion in said]

    try:
        await _work_off(missing, ask, complete, config, f"sample {policy.name}", counts, progress)
    finally:
        await _close(complete)


async def collect_votes(
    config: CriticConfig, solutions: Sequence[Sample], template: Template, work: Work, progress: Progress
) -> None:
    """Ask the teacher for the votes that are missing, one round after the other.

    A GenRM asks about equal solutions once, so the votes on one solution must never be asked for together.
    """
    wanted = [(sample.id, number) for number in range(config.votes) for sample in solutions]
    if all(place in work.votes for place in wanted):
        return
    teacher = config.teacher.open(
        "--teacher",
        temperature=config.teacher_temperature,
        max_tokens=config.teacher_max_tokens,
        concurrency=config.concurrency,
        timeout=config.timeout,
        seed=config.seed,
    )
    try:
        for number in range(config.votes):
            missing = [sample for sample in solutions if (sample.id, number) not in work.votes]
            counts = sum(place in work.votes for place in wanted), len(wanted)
            judge = GenRM(template, reseeded(teacher, config.seed + number))

            async def ask(samples: Sequence[Sample], judge: GenRM = judge, number: int = number) -> list[str]:
                verdicts = await judge.judge_steps([(sample.rollout.problem, sample.steps) for sample in samples])
                found = {(sample.id, number): verdict for sample, verdict in zip(samples, verdicts, strict=True)}
                work.add_votes({place: verdict for place, verdict in found.items() if verdict.status != "failed"})
                return [verdict.reason if verdict.status == "failed" else "" for verdict in verdicts]

            await _work_off(missing, ask, teacher, config, f"label {config.teacher.name}", counts, progress)
    finally:
        await _close(teacher)


async def _work_off(
    jobs: Sequence[Job],
    ask: Callable[[Sequence[Job]], Awaitable[list[str]]],
    complete: Complete,
    config: CriticConfig,
    what: str,
    counts: tuple[int, int],
    progress: Progress,
) -> None:
    """Ask in small batches to a server, many at once, and in large ones to a model in this process, one at a time.

    `ask` returns an error for each job, empty where it is done; `counts` are what is done already and what there is in
    all. Raises ValueError when nothing comes back any more.
    """
    served = isinstance(complete, ChatClient)
    batches = _batches(jobs, 1 if served else LOCAL_BATCH)
    done, total = counts
    failed = in_a_row = 0

    async def worker() -> None:
        nonlocal done, failed, in_a_row
        for batch in batches:
            for error in await ask(batch):
                done, failed, in_a_row = (done, failed + 1, in_a_row + 1) if error else (done + 1, failed, 0)
                if in_a_row >= max(PATIENCE, total // 100) or (not done and failed == len(jobs)):
                    raise ValueError(
                        f"{what}: {in_a_row} failures one after the other, the last one: {error}; "
                        f"what was answered is in {config.folder}: put it right and start again"
                    )
            progress(what, done, total)

    workers = [asyncio.create_task(worker()) for _ in range(config.concurrency if served else 1)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()


def _batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Lists of `size` jobs, from one iterator that several workers share."""
    rest = iter(jobs)
    return iter(lambda: list(islice(rest, size)), [])


async def _close(complete: Complete) -> None:
    """End the connections to servers."""
    if isinstance(complete, ChatClient):
        await complete.aclose()
