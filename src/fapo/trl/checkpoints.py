"""Models on disk: load the model to train, find its checkpoints, and save the trained model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fapo.config.schema import Config
from fapo.data.files import atomic_path
from fapo.inference.models import loading, model_folder
from fapo.training.run_folder import RunFolder


def load_model(config: Config) -> tuple[Any, Any]:
    """Return the model to train and its tokenizer. Raises ConfigError if `model.path` has no usable model."""
    path = model_folder(config.model.path)
    with loading("model.path", path):
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        model = load_weights(path, torch.bfloat16 if config.model.dtype == "bfloat16" else torch.float32)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_weights(path: str, dtype: torch.dtype) -> Any:
    """Load a model from safetensors, without code of the repository.

    Args:
        path: Folder of the model, or its id on the Hugging Face Hub.
        dtype: Precision of the weights.

    Returns:
        The model.

    Raises:
        OSError: If there is no such model.
        ValueError: If transformers does not know the kind of model.
    """
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False)


def save_model(trainer: Any, folder: RunFolder) -> None:
    """Save the trained model to `model/` in the run folder; that folder exists only when it is complete.

    Args:
        trainer: A transformers Trainer. All of its processes call this function.
        folder: Run folder of this process.
    """
    model, draft = folder.path / "model", folder.path / "model.tmp"  # one draft for all processes
    with contextlib.nullcontext() if folder.rank else atomic_path(model, draft):
        trainer.save_model(str(draft))


def last_checkpoint(folder: Path) -> tuple[int, str | None]:
    """Return the number and path of the newest complete checkpoint; (0, None) if there is none."""
    states = folder.glob("checkpoint-*/trainer_state.json")  # this file is written last
    complete = {int(file.parent.name.rpartition("-")[2]): file.parent for file in states}
    newest = max(complete, default=0)
    return newest, str(complete[newest]) if complete else None
