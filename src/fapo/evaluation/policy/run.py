"""Questions -> samples -> checked answers -> verdicts. Everything a model says is in the cache before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from fapo.config.schema import ModelJudge, ServedJudge
from fapo.data.files import check_not_overwriting
from fapo.data.load import load_problems
from fapo.data.miniature.oracle import known_ground_truth
from fapo.data.miniature.sets import has_oracle
from fapo.data.problems import load_prompt, question_messages, sampling_key
from fapo.errors import ConfigError, EngineError
from fapo.evaluation.policy.settings import EvalSettings
from fapo.inference.concurrency import run_batches
from fapo.inference.models import ModelSpec, reseeded
from fapo.inference.response_cache import CacheKey, ResponseCache, cache_key
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.from_config import open_judge
from fapo.judge.template import load_template
from fapo.rewards import verify as answers
from fapo.rewards.verify import Check
from fapo.types import Completion, Message, Problem, Progress, Rollout, Verdict


@dataclass(frozen=True)
class Sample:
    """One answer to a question, with all that was found out about it."""

    rollout: Rollout
    """What the policy wrote."""
    check: Check
    """Its final answer, and whether that is right."""
    verdict: Verdict | None = None
    """What the judge said; None where it was not asked."""
    truly_flawed: bool | None = None
    """By the miniature's oracle, of a right answer; None elsewhere."""


@dataclass(frozen=True)
class Answered:
    """A question with its samples."""

    problem: Problem
    """What was asked."""
    samples: tuple[Sample, ...]
    """Those that came."""
    num_failed: int
    """Samples that did not come."""
    reason: str = ""
    """Why not, the last time."""

    @property
    def has_oracle(self) -> bool:
        """Whether the truth of every step is known."""
        return has_oracle(self.problem)


def evaluate(settings: EvalSettings, progress: Progress = lambda *_: None) -> list[Answered]:
    """Ask, check and judge. Interrupted and called again, no model is asked again what is in the cache.

    Raises FapoError for mistakes, and when nothing but failures comes back from a model.
    """
    for file in (settings.out, settings.out.with_suffix(".json")):
        check_not_overwriting(file, settings.data)
    prompt, problems = load_prompt(settings.prompt), load_questions(settings)
    policy, judge = settings.policy_spec(), settings.judge_config()
    if judge:
        load_template(judge.template)  # a mistake should not wait until all is sampled
    with contextlib.closing(ResponseCache(settings.cache)) as cache:
        said = asyncio.run(_sample(settings, policy, prompt, problems, cache, progress))
    answered = _checked(settings, problems, said)
    if judge:
        answered = asyncio.run(_judged(settings, judge, answered, progress))
    return answered


def load_questions(settings: EvalSettings) -> list[Problem]:
    """Return the questions of all sources, in order; choices are shuffled by the seed.

    Raise DataError, with the place, for a file that cannot be read, and ConfigError for two sources of one name.
    """
    chosen: list[Problem] = []
    for source in settings.data:
        found = load_problems(source, split=settings.split, seed=settings.seed)
        kept = {problem.id for problem in sorted(found, key=lambda problem: sampling_key(problem.id))[: settings.limit]}
        chosen += [problem for problem in found if problem.id in kept]
    if twice := [key for key, num in Counter((p.source, p.id) for p in chosen).items() if num > 1]:
        raise ConfigError(f"two sources are both called {twice[0][0]!r}; name each once, or rename a file")
    return chosen


async def _sample(
    settings: EvalSettings,
    policy: ModelSpec,
    prompt: str,
    problems: Sequence[Problem],
    cache: ResponseCache,
    progress: Progress,
) -> list[list[Completion]]:
    """K completions for each problem, those on record first. Equal questions share theirs."""
    sampling: dict[str, Any] = {name: getattr(settings, name) for name in ("temperature", "top_p", "max_tokens")}
    chats = [question_messages(prompt, problem) for problem in problems]
    name, recorded = policy.record_name, sampling | {"seed": settings.seed}
    keys = [[cache_key(chat, name, recorded, number) for number in range(settings.samples)] for chat in chats]
    asked = {key: chat for chat, of_one in zip(chats, keys, strict=True) for key in of_one}
    found = {} if settings.no_cache else {key: known for key in asked if (known := cache.find(key))}
    missing = [(key, chat) for key, chat in asked.items() if key not in found]
    if missing:
        client: dict[str, Any] = {"concurrency": settings.concurrency, "timeout": settings.timeout}
        model = policy.open("--policy", seed=settings.seed, **sampling, **client)

        async def ask(some: Sequence[tuple[CacheKey, list[Message]]]) -> list[str]:
            speaker = reseeded(model, _seed(settings.seed, some[0][0]))
            completions = await speaker([chat for _, chat in some])
            rows = [(key, completion) for (key, _), completion in zip(some, completions, strict=True)]
            cache.add([row for row in rows if not row[1].error], str(settings.prompt or ""))
            found.update(rows)
            return [completion.error for completion in completions]

        num_answered = len(asked) - len(missing)
        breaker = CircuitBreaker(
            name=f"the policy {policy.name}",
            remedy=repeat_command(settings.cache),
            num_expected=len(missing),
            num_answered=num_answered,
            error=EngineError,
        )
        async with contextlib.aclosing(model):
            await run_batches(
                missing,
                ask,
                batch_size=1 if policy.urls else settings.concurrency,
                concurrency=settings.concurrency if policy.urls else 1,
                record=breaker.record,
                num_done=num_answered,
                progress=lambda done: progress("sample", done, len(asked)),
            )
    return [[found[key] for key in of_one] for of_one in keys]


def _seed(seed: int, first: CacheKey) -> int:
    """A seed for the batch that begins with this question: no two batches draw alike."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{first.prompt}:{first.vote}".encode()).digest()[:6], "big")


def _checked(
    settings: EvalSettings, problems: Sequence[Problem], said: Sequence[Sequence[Completion]]
) -> list[Answered]:
    """The completions as samples, their final answers compared with the references."""
    came = [
        [Rollout.from_text(problem, c.text, c.num_tokens, settings.max_tokens) for c in completions if not c.error]
        for problem, completions in zip(problems, said, strict=True)
    ]
    pairs = [(rollout.response, rollout.problem.reference) for rollouts in came for rollout in rollouts]
    checks = iter(answers.check_answers(pairs, require_box=settings.require_box))
    out = []
    for problem, rollouts, completions in zip(problems, came, said, strict=True):
        samples = tuple(_sample_of(rollout, next(checks)) for rollout in rollouts)
        failures = [completion.error for completion in completions if completion.error]
        out.append(Answered(problem, samples, len(failures), failures[-1] if failures else ""))
    return out


def _sample_of(rollout: Rollout, check: Check) -> Sample:
    known = known_ground_truth(rollout) if check.correct else None
    return Sample(rollout, check, truly_flawed=known.flawed if known else None)


async def _judged(
    settings: EvalSettings, config: ModelJudge, answered: Sequence[Answered], progress: Progress
) -> list[Answered]:
    """The same with verdicts on the samples with a right answer; those of one question are asked about together."""
    jobs = [
        (i, rights) for i, of_one in enumerate(answered) if (rights := [s for s in of_one.samples if s.check.correct])
    ]
    if not jobs:
        return list(answered)
    verdicts: dict[int, list[Verdict]] = {}
    async with open_judge(config, use_cache=not settings.no_cache) as judge:

        async def ask(some: Sequence[tuple[int, list[Sample]]]) -> list[str]:
            found = iter(await judge([sample.rollout for _, rights in some for sample in rights]))
            errors = []
            for i, rights in some:
                verdicts[i] = list(islice(found, len(rights)))
                failed = [verdict.reason for verdict in verdicts[i] if verdict.status == "failed"]
                errors.append(failed[-1] if len(failed) == len(rights) else "")
            return errors

        await run_batches(
            jobs,
            ask,
            batch_size=1 if isinstance(config, ServedJudge) else max(1, settings.concurrency // settings.samples),
            concurrency=settings.concurrency if isinstance(config, ServedJudge) else 1,
            record=CircuitBreaker(remedy=repeat_command(config.cache), num_expected=len(jobs)).record,
            progress=lambda done: progress("judge", done, len(jobs)),
        )
    return [_with_verdicts(of_one, verdicts.get(i, [])) for i, of_one in enumerate(answered)]


def _with_verdicts(answered: Answered, verdicts: Sequence[Verdict]) -> Answered:
    rest = iter(verdicts)
    samples = [replace(sample, verdict=next(rest)) if sample.check.correct else sample for sample in answered.samples]
    return replace(answered, samples=tuple(samples))
