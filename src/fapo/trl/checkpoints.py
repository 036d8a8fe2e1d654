"""Models on disk: load the model to train, find its checkpoints, and save the trained model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from fapo.config.schema import Config
from fapo.data.files import atomic_path
from fapo.errors import ConfigError
from fapo.inference.models import loading, model_folder
from fapo.inference.pretrained import base_of, load_tokenizer, load_weights
from fapo.training.run_folder import RunFolder
from fapo.trl.lora import quantization, save_merged


def load_model(config: Config) -> tuple[Any, Any]:
    """Return the model to train and its tokenizer. Raises ConfigError if `model.path` has no usable model.

    If `model.path` is an adapter, it is merged into its base model.
    """
    path = model_folder(config.model.path)
    if config.model.lora and Path(path).is_dir():
        path = str(Path(path).resolve())  # the adapter will name its base model by this path
    bits = quantization(config)
    with loading("model.path", path):
        if config.model.lora and base_of(path) is not None:
            raise ConfigError(
                f"{path!r} is an adapter, and [model.lora] would put a second one on it; train the first one with "
                'model.lora.save = "merged", or merge it with peft'
            )
        tokenizer = load_tokenizer(path, padding_side="left")
        dtype = torch.bfloat16 if config.model.dtype == "bfloat16" else torch.float32
        model = load_weights(path, dtype, bits)
    if base_of(path) is not None:
        model = model.merge_and_unload().requires_grad_(True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def save_model(trainer: Any, folder: RunFolder, *, merge: bool = False) -> None:
    """Save the trained model to `model/` in the run folder; that folder exists only when it is complete.

    Args:
        trainer: A transformers Trainer. All of its processes call this function.
        folder: Run folder of this process.
        merge: Whether to save weights with the trained adapter in them, in place of the adapter.
    """
    model = (folder.path / "model").resolve()  # it may be a link to a larger disk
    draft = model.with_name(f"{model.name}.tmp")  # one draft for all processes
    with contextlib.nullcontext() if folder.rank else atomic_path(model, draft):
        if not merge:
            trainer.save_model(str(draft))
        elif not folder.rank:
            save_merged(trainer, draft)


def last_checkpoint(folder: Path) -> tuple[int, str | None]:
    """Return the number and path of the newest complete checkpoint; (0, None) if there is none."""
    states = folder.glob("checkpoint-*/trainer_state.json")  # this file is written last; a full disk may cut it off
    whole = (file.parent for file in states if file.read_bytes().endswith(b"}\n"))
    complete = {int(checkpoint.name.rpartition("-")[2]): checkpoint for checkpoint in whole}
    newest = max(complete, default=0)
    return newest, str(complete[newest]) if complete else None
