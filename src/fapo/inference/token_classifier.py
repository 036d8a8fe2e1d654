"""A process reward model that runs in this process with transformers: scores of steps from a token classifier."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import AutoModelForTokenClassification

from fapo.errors import ConfigError
from fapo.inference.pretrained import commit_setting
from fapo.inference.step_scores import score_text, why_no_scores
from fapo.types import Completion, Message, StepTokens


@dataclass(frozen=True)
class TokenClassifier:
    """Process reward model; a conversation is a `StepTokens`, a completion the scores of its steps as JSON."""

    model: Any
    """Token classifier of transformers with one label, or with two; the second one means "correct"."""
    batch_size: int = 32
    """Number of solutions in one forward pass."""
    commit: Mapping[str, str] = field(default_factory=dict)
    """Commit of weights from the Hub, as `commit_setting` returns it."""
    concurrency: ClassVar[int] = 1
    """Number of calls under way at once, for callers that ask in batches."""

    @classmethod
    def load(cls, path: str) -> TokenClassifier:
        """Load a model from a folder or from the Hugging Face Hub.

        Args:
            path: Folder or Hub id.

        Returns:
            The model, on the GPU if there is one.

        Raises:
            ConfigError: The model is no token classifier with one or two labels.
            OSError: There is no model at the path.
            ValueError: The model cannot be used, for example because it needs code of its own.
        """
        model, report = AutoModelForTokenClassification.from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        if lacking := sorted(report["missing_keys"]):
            raise ConfigError(
                f"{path}: no token classifier, it lacks {', '.join(lacking)}; give a model of TRL's PRMTrainer, or "
                "serve it with vLLM if vLLM knows its kind"
            )
        if model.config.num_labels > 2:
            raise ConfigError(f"{path}: has {model.config.num_labels} labels, must have one, or wrong and correct")
        return cls(model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), commit=commit_setting(path))

    @property
    def settings(self) -> dict[str, Any]:
        """All that scores depend on, besides the tokens and the folder of the model; for a cache."""
        return dict(self.commit)

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return the scores of each solution, in order; the event loop stays free meanwhile."""
        return await asyncio.to_thread(self.score, conversations)

    async def aclose(self) -> None:
        """Do nothing; the method exists because `ChatClient` has it."""

    @torch.no_grad()
    def score(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return the scores of each solution, in order; one that is too long, or without scores, becomes an error.

        Solutions of similar length share a batch, because padding costs time.
        """
        solutions = [solution for solution in conversations if isinstance(solution, StepTokens)]
        assert len(solutions) == len(conversations), "a process reward model reads step tokens"
        context = getattr(self.model.config, "max_position_embeddings", None) or math.inf
        out = [
            Completion(error=f"the solution has {len(s.tokens)} tokens, the model's context {context}")
            if len(s.tokens) > context
            else Completion()
            for s in solutions
        ]
        order = sorted((i for i, answer in enumerate(out) if not answer.error), key=lambda i: len(solutions[i].tokens))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            begin = time.perf_counter()
            found = self._score_batch([solutions[i] for i in batch])
            seconds = time.perf_counter() - begin
            for i, scores in zip(batch, found, strict=True):
                error = why_no_scores(scores)
                text = "" if error else score_text(scores)
                out[i] = Completion(text, error=error, prompt_tokens=len(solutions[i].tokens), seconds=seconds)
        return out

    def _score_batch(self, solutions: Sequence[StepTokens]) -> list[list[float]]:
        """Return the scores of the steps of each solution."""
        length = max(len(s.tokens) for s in solutions)
        tokens = torch.tensor([[*s.tokens, *[0] * (length - len(s.tokens))] for s in solutions])
        mask = torch.tensor([[i < len(s.tokens) for i in range(length)] for s in solutions], dtype=torch.long)
        device = self.model.device
        logits = self.model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits.float()
        scores = logits.softmax(-1)[..., 1] if logits.shape[-1] == 2 else logits[..., 0].sigmoid()
        return [scores[row, list(s.ends)].tolist() for row, s in enumerate(solutions)]
