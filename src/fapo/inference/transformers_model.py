"""A chat model that runs in this process with transformers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from fapo.config.sampling import Sampling, settings_of
from fapo.inference.decoding import decode
from fapo.inference.pretrained import commit_setting, load_tokenizer, load_weights
from fapo.inference.token_choices import NUM_ALTERNATIVES, kept_tokens, token_choice
from fapo.types import Completion, Message, TokenChoice

MAX_TOKENS = 1024
"""Default length limit of a completion, in tokens."""
_GENERATING = threading.Lock()
"""Held while a model generates, because calls in other threads would share the random state of torch."""


@dataclass(frozen=True)
class LocalModel:
    """Chat model that writes with `generate` of transformers. A conversation that is too long becomes an error."""

    model: Any
    """Causal language model of transformers."""
    tokenizer: Any
    """Tokenizer of the model, with a chat template."""
    sampling: Sampling = Sampling()
    """Sampling; what is unset there gets the defaults of a model in this process."""
    batch_size: int = 256
    """Number of conversations in one call of generate."""
    seed: int | None = None
    """Seed of the sampling, used with the conversations of a call; None samples from the state of torch."""
    commit: Mapping[str, str] = field(default_factory=dict)
    """Commit of weights from the Hub, as `commit_setting` returns it."""
    logprobs_after: str = ""
    """Text before the verdict in a response: `token_choices` begin after its last occurrence. Empty: there are none.
    They take a further forward pass over each prompt and its completion."""
    _texts: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    concurrency: ClassVar[int] = 1
    """Number of calls under way at once, for callers that ask in batches."""

    def __post_init__(self) -> None:
        unset = {"temperature": 0.0, "top_p": 1.0, "max_tokens": MAX_TOKENS}
        given = {name: value for name, value in settings_of(Sampling, self.sampling).items() if value is not None}
        object.__setattr__(self, "sampling", Sampling(**unset | given))

    @classmethod
    def load(
        cls,
        path: str,
        sampling: Sampling = Sampling(),
        *,
        batch_size: int = 256,
        seed: int | None = None,
        logprobs_after: str = "",
    ) -> LocalModel:
        """Load a model from a folder or from the Hugging Face Hub.

        Args:
            path: Folder or Hub id of a model, or of an adapter.
            sampling: Temperature, nucleus sampling and length limit.
            batch_size: Number of conversations in one call of generate.
            seed: Seed of the sampling; None samples from the state of torch.
            logprobs_after: Text after which completions have `token_choices`; empty: they have none.

        Returns:
            The model, on the GPU if there is one.

        Raises:
            ConfigError: The path holds an adapter, and peft is not installed or the adapter names no base model.
            OSError: There is no model at the path.
            ValueError: The model cannot be used, for example because it needs code of its own.
        """
        tokenizer = load_tokenizer(path, padding_side="left")
        model = load_weights(path).eval()
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, tokenizer, sampling, batch_size, seed, commit_setting(path), logprobs_after)

    @property
    def settings(self) -> dict[str, Any]:
        """All that a completion depends on, besides the conversations and the folder of the model; for a cache."""
        further = {"logprobs": True} if self.logprobs_after else {}
        return {**settings_of(Sampling, self.sampling), "seed": self.seed, **self.commit, **further}

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order; the event loop stays free meanwhile."""
        return await asyncio.to_thread(self.generate, conversations)

    async def aclose(self) -> None:
        """Do nothing; the method exists because `ChatClient` has it."""

    @torch.no_grad()
    def generate(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order.

        Conversations of similar length share a batch, because padding costs time.
        """
        if not conversations:
            return []
        conversations = list(conversations)
        prompts = self.tokenizer.apply_chat_template(conversations, add_generation_prompt=True, return_dict=True)
        prompts = prompts["input_ids"]
        context = getattr(self.model.config, "max_position_embeddings", None) or math.inf
        out = [
            Completion(error=f"the prompt has {len(prompt)} tokens, the model's context {context}")
            if len(prompt) >= context
            else Completion()
            for prompt in prompts
        ]
        order = sorted((i for i, answer in enumerate(out) if not answer.error), key=lambda i: len(prompts[i]))
        with _GENERATING, torch.random.fork_rng(enabled=self.seed is not None):
            if self.seed is not None:
                digest = hashlib.sha256(repr((self.seed, conversations)).encode()).digest()
                torch.manual_seed(int.from_bytes(digest[:7], "big"))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                begin = time.perf_counter()
                answers = self._generate_batch([prompts[i] for i in batch])
                found = [self._token_choices(prompts[i], tokens) for i, (tokens, _) in zip(batch, answers, strict=True)]
                seconds = time.perf_counter() - begin
                for i, (tokens, ended), choices in zip(batch, answers, found, strict=True):
                    out[i] = Completion(
                        self.tokenizer.decode(tokens, skip_special_tokens=True),
                        len(tokens),
                        truncated=not ended,
                        token_choices=choices,
                        prompt_tokens=len(prompts[i]),
                        seconds=seconds,
                    )
        return out

    def _token_choices(self, prompt: list[int], written: list[int]) -> tuple[TokenChoice, ...]:
        """Return the `token_choices` of a completion.

        The log probabilities are those of the model at temperature 1, over all tokens, as vLLM gives them by default.
        One sequence at a time needs no padding, and no memory for the logits of others.
        """
        kept = kept_tokens([self._text(token) for token in written], self.logprobs_after) if self.logprobs_after else ()
        if not kept:
            return ()
        tokens = torch.tensor([[*prompt, *written[: kept[-1] + 1]]], device=self.model.device)
        logits = self.model(input_ids=tokens, logits_to_keep=len(kept) + 1, use_cache=False).logits
        logprobs = logits[0, -len(kept) - 1 : -1].float().log_softmax(-1)
        top = logprobs.topk(min(NUM_ALTERNATIVES, logprobs.shape[-1]))
        own = tokens[0, -len(kept) :, None]
        texts = [[self._text(token) for token in row] for row in torch.cat([own, top.indices], dim=-1).tolist()]
        values = torch.cat([logprobs.gather(-1, own), top.values], dim=-1).tolist()
        return tuple(token_choice(*zip(*row, strict=True)) for row in zip(texts, values, strict=True))

    def _text(self, token: int) -> str:
        """Return the text of a single token."""
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token])
        return self._texts[token]

    def _generate_batch(self, prompts: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Return the tokens of one completion for each prompt, without the end token, and whether there was one."""
        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        padded = padded.to(self.model.device)
        temperature = self.sampling.temperature
        sampling = {"temperature": temperature, "top_p": self.sampling.top_p, "top_k": 0} if temperature else {}
        sequences = self.model.generate(
            input_ids=padded["input_ids"],
            attention_mask=padded["attention_mask"],
            max_new_tokens=self.sampling.max_tokens,
            do_sample=bool(temperature),
            pad_token_id=self.tokenizer.pad_token_id,
            custom_generate=decode,
            **sampling,
        )
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        rows = sequences[:, padded["input_ids"].shape[1] :].tolist()
        lengths = [next((i for i, token in enumerate(row) if token in ends), len(row)) for row in rows]
        return [(row[:length], length < len(row)) for row, length in zip(rows, lengths, strict=True)]


def prompts_over(limit: int, path: str, conversations: Sequence[list[Message]]) -> list[bool]:
    """Find prompts that are too long.

    Args:
        limit: Length limit of a prompt in tokens, chat template included.
        path: Folder or Hub id of the model.
        conversations: Prompts.

    Returns:
        Whether each prompt has more tokens than the limit.

    Raises:
        OSError: There is no model at the path.
        ValueError: Its tokenizer cannot be used, for example because it has no chat template.
    """
    tokenizer = load_tokenizer(path)

    def is_over(conversation: list[Message]) -> bool:
        """Return whether one prompt has more tokens than the limit."""
        text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        short = len(text.encode("utf-8", "replace")) <= limit  # a token has at least one byte
        return not short and len(tokenizer(text, add_special_tokens=False)["input_ids"]) > limit

    return [is_over(conversation) for conversation in conversations]
