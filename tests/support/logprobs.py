"""Log probabilities as a server of vLLM answers with them: written by hand, or by a model that transformers runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.chat_server import Reply, Script

Place = tuple[str, Mapping[str, float]]
"""Token that is written, and probability of each of the most probable tokens at its place."""


def entry(token: str, logprob: float) -> dict[str, Any]:
    """Return a token in the form of an answer."""
    return {"token": token, "logprob": max(logprob, -9999.0), "bytes": list(token.encode("utf-8", "replace"))}


def logprobs(*places: Place) -> dict[str, Any]:
    """Return the value of `logprobs` in a choice."""
    content = []
    for token, found in places:
        top = [entry(text, math.log(p) if p else -math.inf) for text, p in found.items()]
        own = math.log(found[token]) if found.get(token) else -math.inf
        content.append(entry(token, own) | {"top_logprobs": top})
    return {"content": content}


def plain(text: str, *places: Place) -> Reply:
    """Return a reply with a text and log probabilities: one token for each character before those at some places."""
    end = "".join(token for token, _ in places)
    assert text.endswith(end)
    before: list[Place] = [(character, {character: 1.0}) for character in text[: len(text) - len(end)]]
    return Reply(text, logprobs=logprobs(*before, *places))


def model_script(path: str) -> Script:
    """Return the script of a server that answers greedily with a model, by the generation loop of transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path).eval()
    lock = threading.Lock()

    def answer(body: dict[str, Any], index: int) -> Reply:
        prompt = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with lock:
            written = model.generate(
                **prompt,
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = written.sequences[0, prompt["input_ids"].shape[1] :].tolist()
        ended = tokens[-1] == model.generation_config.eos_token_id
        found: dict[str, Any] | None = None
        if body.get("logprobs"):
            rows = [logits[0].log_softmax(-1) for logits in written.logits]
            found = {
                "content": [_place(tokenizer, *pair, body["top_logprobs"]) for pair in zip(tokens, rows, strict=True)]
            }
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        return Reply(text, "stop" if ended else "length", logprobs=found)

    return answer


def _place(tokenizer: Any, token: int, row: torch.Tensor, num: int) -> dict[str, Any]:
    """Return a token that was written with the most probable tokens at its place."""
    ids: Sequence[int] = row.topk(num).indices.tolist()
    top = [entry(tokenizer.decode([other]), float(row[other])) for other in ids]
    return entry(tokenizer.decode([token]), float(row[token])) | {"top_logprobs": top}
