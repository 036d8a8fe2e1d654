"""Several answers to each of many conversations: from the response cache, and from a model where it has none.

`CachedModel` numbers the copies of a conversation within one call. All answers to a conversation would thus have to be
in one call, without progress and without a circuit breaker in between. Here each answer is a job of its own. Its number
is in its key, and the seed of a model in this process depends on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from fapo.config.sampling import Requests, Sampling
from fapo.inference.client import ChatClient
from fapo.inference.concurrency import run_batches
from fapo.inference.models import ModelSpec, reseeded
from fapo.inference.response_cache import CacheKey, ResponseCache, cache_key
from fapo.types import Completion, Message

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel


@dataclass(frozen=True)
class SampledModel:
    """A model with all that its answers depend on."""

    spec: ModelSpec
    """Name and place of the model."""
    option: str
    """Command-line option that names the model, for messages."""
    sampling: Sampling
    """Temperature, nucleus sampling and length limit."""
    requests: Requests
    """Limits of the requests to its servers; `concurrency` is the size of a batch of a model in this process."""
    seed: int
    """Seed of a model in this process. It is in the keys of all answers, so another seed takes none from the cache."""

    def key(self, conversation: list[Message], number: int) -> CacheKey:
        """Return the key of an answer in the cache; `number` counts the answers to the conversation from 0."""
        return cache_key(conversation, self._record_name, {**asdict(self.sampling), "seed": self.seed}, number)

    @cached_property
    def _record_name(self) -> str:
        return self.spec.record_name

    def open(self) -> ChatClient | LocalModel:
        """Return the model, ready to be asked; raise ConfigError if it cannot be loaded."""
        model = self.spec.open(self.option, self.sampling, self.requests, seed=self.seed)
        return model if isinstance(model, ChatClient) else replace(model, batch_size=self.requests.concurrency)


async def ask_numbered(
    model: SampledModel,
    questions: Mapping[CacheKey, list[Message]],
    cache: ResponseCache,
    keep: Callable[[CacheKey, Completion], None],
    *,
    record: Callable[[Sequence[str]], None],
    progress: Callable[[int, int], None],
    template: str = "",
    use_cache: bool = True,
) -> None:
    """Get the answer to each question, and store new answers in the cache as they arrive.

    Failed requests are not stored, so a later call repeats them. A model in this process answers in batches in the
    order of the questions. Each batch has its own seed, so an interrupted call ends with the same answers.

    Args:
        model: Model, which is opened only if the cache lacks an answer.
        questions: Conversation of each key; the keys are those of `model`.
        cache: Cache that is read and added to.
        keep: Called with each key and its answer, in any order; that of a failed request has an error.
        record: Called with the errors of each batch, empty texts for answers; see `CircuitBreaker.record`.
        progress: Called with the number of answers that are there, and how many of them the cache had.
        template: Name of the prompt, for the record only.
        use_cache: Whether stored answers are used; if not, the model is asked again.

    Raises:
        ConfigError: The model cannot be loaded.
        DataError: The cache cannot be used.
    """
    missing: list[CacheKey] = []
    for key in questions:
        if use_cache and (known := cache.find(key)):
            keep(key, known)
        else:
            missing.append(key)
    num_found = len(questions) - len(missing)
    record([""] * num_found)
    progress(num_found, num_found)
    if not missing:
        return
    opened = model.open()

    async def ask(batch: Sequence[CacheKey]) -> list[str]:
        seeded = reseeded(opened, _batch_seed(model.seed, batch[0]))
        completions = await seeded([questions[key] for key in batch])
        answers = list(zip(batch, completions, strict=True))
        await cache.write([answer for answer in answers if not answer[1].error], template)
        for answer in answers:
            keep(*answer)
        return [completion.error for completion in completions]

    async with aclosing(opened):
        await run_batches(
            missing,
            ask,
            batch_size=opened.batch_size,
            concurrency=opened.concurrency,
            record=record,
            num_done=num_found,
            progress=lambda done: progress(done, num_found),
        )


def _batch_seed(seed: int, first: CacheKey) -> int:
    """Return the seed of a batch from the key of its first answer, so that other batches get other seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{first.prompt}:{first.vote}".encode()).digest()[:6], "big")
