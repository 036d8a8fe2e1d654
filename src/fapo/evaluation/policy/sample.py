"""Sample answers of a policy, through the response cache and with a circuit breaker."""

from __future__ import annotations

from collections.abc import Sequence

from fapo.errors import EngineError
from fapo.inference.numbered_answers import SampledModel, ask_numbered
from fapo.inference.response_cache import CacheKey, ResponseCache
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.types import Completion, Message, Progress


async def sample_policy(
    model: SampledModel,
    chats: Sequence[list[Message]],
    num_samples: int,
    cache: ResponseCache,
    progress: Progress,
    *,
    task: str = "sample",
    prompt: str = "",
    use_cache: bool = True,
) -> list[list[Completion]]:
    """Return the completions of each question; equal questions have the same ones.

    Args:
        model: Policy.
        chats: Conversation of each question, [num_questions].
        num_samples: Number of completions of each question.
        cache: Cache of the completions.
        progress: Callback for the number of completions.
        task: Name of the task, for `progress`.
        prompt: Name of the prompt, for the record only.
        use_cache: Whether stored completions are used.

    Returns:
        Completions, [num_questions, num_samples]; that of a failed request has an error.

    Raises:
        ConfigError: The policy cannot be loaded.
        DataError: The cache cannot be used.
        EngineError: The policy fails for too many requests.
    """
    keys = [[model.key(chat, number) for number in range(num_samples)] for chat in chats]
    questions = {key: chat for chat, numbered in zip(chats, keys, strict=True) for key in numbered}
    found: dict[CacheKey, Completion] = {}
    breaker = CircuitBreaker(
        name=f"the policy {model.spec.name}",
        remedy=repeat_command(cache.path),
        num_expected=len(questions),
        error=EngineError,
    )

    def show(done: int, cached: int) -> None:
        progress(task, done, len(questions), {"from the cache": cached} if cached else {})

    await ask_numbered(
        model,
        questions,
        cache,
        found.__setitem__,
        record=breaker.record,
        progress=show,
        template=prompt,
        use_cache=use_cache,
    )
    return [[found[key] for key in numbered] for numbered in keys]
