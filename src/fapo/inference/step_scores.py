"""Scores of steps by a process reward model behind vLLM servers.

`POST /pooling` of vLLM takes token ids, so that a step separator is where it was put, whatever a policy has written.
The answer has one row for each token, or one for each token that is the separator (`pooling_type` STEP, the default of
Qwen2.5-Math-PRM in vLLM). Source: vLLM 0.32, `entrypoints/pooling` and `model_executor/layers/pooler/tokwise`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fapo.inference.client import ChatClient, NotACompletion, usage_numbers
from fapo.types import Completion, Message, StepTokens

SUM_TOLERANCE = 0.02
"""Largest distance to 1 of the sum of two probabilities; servers compute in half precision."""


def score_text(scores: Sequence[float]) -> str:
    """Return scores as the text of a completion, which a response cache keeps."""
    return json.dumps([round(score, 6) for score in scores])


def why_no_scores(scores: Sequence[float]) -> str:
    """Return why numbers of a model are no scores of steps, as the error of a completion; empty if they are."""
    wrong = [score for score in scores if not 0 <= score <= 1]  # also NaN, as from weights that overflow
    return f"no score of a step: expected a probability, not {wrong[0]}" if wrong else ""


@dataclass(frozen=True, eq=False)
class PoolingClient(ChatClient):
    """Process reward model behind vLLM servers; a conversation is a `StepTokens`, a completion the scores as JSON.

    Addresses, retries and limits are those of a `ChatClient`; a base URL may end in "/v1", although the route does not.
    """

    path: ClassVar[str] = "pooling"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "urls", [url.rstrip("/").removesuffix("/v1") for url in self.urls])

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of a request besides model and tokens; they make vLLM answer with probabilities."""
        return {"task": "token_classify", "use_activation": True}

    def _body(self, messages: list[Message]) -> bytes:
        """Return the body of the request as JSON."""
        assert isinstance(messages, StepTokens)
        return json.dumps({"model": self.model, "input": list(messages.tokens), **self.settings}).encode()

    def _read(self, answer: Any, messages: list[Message]) -> Completion:
        """Return the scores of the steps, or an error for rows that are no scores of them."""
        assert isinstance(messages, StepTokens)
        data = answer.get("data") if isinstance(answer, dict) else None
        rows = data[0].get("data") if isinstance(data, list) and data and isinstance(data[0], dict) else None
        if not isinstance(rows, list):
            raise NotACompletion("the answer is not one of vLLM's route /pooling")
        separator = messages.tokens[messages.ends[0]]
        tagged = [index for index, token in enumerate(messages.tokens) if token == separator]
        if len(rows) == len(messages.tokens):
            found = [rows[end] for end in messages.ends]
        elif len(rows) == len(tagged):
            ends = set(messages.ends)
            found = [row for row, index in zip(rows, tagged, strict=True) if index in ends]
        else:
            return Completion(
                error=f"{len(rows)} scores for {len(messages.ends)} steps: expected one for each of the "
                f"{len(messages.tokens)} tokens or of the {len(tagged)} separators"
            )
        scores = [_score(row) for row in found]
        if None in scores:
            row = found[scores.index(None)]
            return Completion(error=f"no score of a step: expected one probability, or two with sum 1, not {row!r:.80}")
        _, read, cached = usage_numbers(answer.get("usage"))
        text = score_text([score for score in scores if score is not None])
        return Completion(text, prompt_tokens=read, cached_tokens=cached)


def _score(row: Any) -> float | None:
    """Return the probability of "correct" in a row, which is its last entry; None if the row has none."""
    row = row if isinstance(row, list) else [row]
    if not 1 <= len(row) <= 2 or any(isinstance(p, bool) or not isinstance(p, int | float) for p in row):
        return None
    if any(not 0 <= p <= 1 for p in row) or (len(row) == 2 and abs(math.fsum(row) - 1) > SUM_TOLERANCE):
        return None
    return float(row[-1])
