"""A process reward model of the miniature: its GenRM with a head that classifies the token after each line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from fapo.data.miniature.sets import labelled
from fapo.inference.models import model_folder
from fapo.inference.token_classifier import TokenClassifier
from fapo.judge.prm import StepTokenizer
from fapo.types import LabelledSolution
from tests.support.chat_server import Reply

SEPARATOR = "\n"
"""Token after each step; TRL's PRMTrainer has it by default."""
IGNORED = -100
"""Label of a token that has none, for the loss of transformers."""


def step_tokenizer() -> StepTokenizer:
    """Return the form of the model's prompt."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("miniature:genrm"))
    return StepTokenizer(tokenizer, "miniature:genrm", SEPARATOR)


def train_prm(folder: Path, steps: int = 60) -> Path:
    """Train the model on labelled solutions, save it with its tokenizer, and return the folder.

    A step before the first wrong one has label 1, the first wrong one 0, and those after it none. It takes about 10 s.
    """
    base = model_folder("miniature:genrm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_pretrained(base, num_labels=2).train()
        tokenize, known = step_tokenizer(), labelled("miniature:critic-train")
        optimizer, order = torch.optim.AdamW(model.parameters(), lr=1e-3), random.Random(0)
        for _ in range(steps):
            tokens, mask, labels = _batch(tokenize, order.sample(known, 32))
            model(input_ids=tokens, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenize.tokenizer.save_pretrained(folder)
    return folder


def _batch(tokenize: StepTokenizer, rows: list[LabelledSolution]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    asked = [tokenize(row.problem, row.steps) for row in rows]
    length = max(len(solution.tokens) for solution in asked)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
    for i, (row, solution) in enumerate(zip(rows, asked, strict=True)):
        tokens[i, : len(solution.tokens)] = torch.tensor(solution.tokens)
        mask[i, : len(solution.tokens)] = 1
        for index, end in enumerate(solution.ends):
            if row.error_step is None or index <= row.error_step:
                labels[i, end] = int(index != row.error_step)
    return tokens, mask, labels


def vllm_answer(model: TokenClassifier, *, step: bool = False) -> Callable[[dict[str, Any], int], Reply]:
    """Return a script for `chat_server` that answers as `POST /pooling` of vLLM 0.32 does.

    Args:
        model: Process reward model that computes the rows.
        step: Whether the server was started with pooling type STEP, and answers with the rows of separators only.
    """
    separator = step_tokenizer().tokenizer(SEPARATOR)["input_ids"][0]

    def answer(body: dict[str, Any], index: int) -> Reply:
        assert body["task"] == "token_classify" and body["use_activation"] is True
        tokens = body["input"]
        with torch.no_grad():
            rows = model.model(input_ids=torch.tensor([tokens])).logits[0].softmax(-1).tolist()
        if step:
            rows = [row for row, token in zip(rows, tokens, strict=True) if token == separator]
        return Reply(body=pooling(rows, body["model"], len(tokens)))

    return answer


def pooling(rows: Any, model: str = "prm", num_tokens: int = 1) -> bytes:
    """Return the body of an answer of vLLM's route /pooling."""
    data = [{"index": 0, "object": "pooling", "data": rows}]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens, "completion_tokens": 0}
    body = {"id": "pooling-1", "object": "list", "created": 0, "model": model, "data": data, "usage": usage}
    return json.dumps(body).encode()
