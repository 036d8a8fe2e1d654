"""Load models, save them and find checkpoints."""

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
    """The model to train, and its tokenizer. Raises ConfigError if there is none."""
    path = model_folder(config.model.path)
    with loading("model.path", path):
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        model = load_weights(path, getattr(torch, config.model.dtype))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_weights(path: str, dtype: torch.dtype) -> Any:
    """A model from a folder or a Hub id: safetensors only, and no code but transformers' own."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False)


def save_model(trainer: Any, folder: RunFolder) -> None:
    """Save the trained model to `model/` in the run folder; that folder exists only when it is complete."""
    model, draft = folder.path / "model", folder.path / "model.tmp"  # one draft for all processes
    with contextlib.nullcontext() if folder.rank else atomic_path(model, draft):
        trainer.save_model(str(draft))


def last_checkpoint(folder: Path) -> tuple[int, str | None]:
    """Number and path of the newest checkpoint that is whole: trainer_state.json is written last. (0, None): none."""
    whole = {int(file.parent.name.rpartition("-")[2]): file for file in folder.glob("checkpoint-*/trainer_state.json")}
    newest = max(whole, default=0)
    return newest, str(whole[newest].parent) if whole else None
