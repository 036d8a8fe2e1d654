"""Weights and tokenizers on disk or on the Hub: whole models, and adapters with the base model that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file, extract_commit_hash, find_adapter_config_file, has_file

from fapo.inference.adapters import adapter_base, import_peft


def load_weights(path: str, dtype: torch.dtype | str = "auto", quantization: Any = None) -> Any:
    """Load a model from safetensors, without code of the repository. An adapter is put on its base model, not merged.

    Args:
        path: Folder of a model or of an adapter, or its id on the Hugging Face Hub.
        dtype: Precision of the weights; "auto" is that of the file.
        quantization: Settings of quantized weights, as transformers has them; None: the weights are not quantized.

    Returns:
        The model; for an adapter a `peft.PeftModel`.

    Raises:
        ConfigError: If the path holds an adapter, and peft is not installed or the adapter names no base model.
        OSError: If there is no such model.
        ValueError: If transformers does not know the kind of model, or the base model of an adapter cannot be loaded.
    """
    base = base_of(path)
    if base is None:
        return _whole_model(path, dtype, quantization)
    peft = import_peft(f"{path} is an adapter, which")
    try:
        model = _whole_model(base, dtype, quantization)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"it is an adapter of {base!r}, which cannot be loaded ({str(error).partition(chr(10))[0]}); "
            "put the folder or Hub id of this model into base_model_name_or_path of adapter_config.json"
        ) from None
    try:
        return peft.PeftModel.from_pretrained(model, path)
    except RuntimeError as error:  # weights of other sizes
        raise ValueError(f"it is an adapter that does not fit {base!r}: {error}") from None


def load_tokenizer(path: str, **options: Any) -> Any:
    """Load a tokenizer without code of the repository; that of the base model where an adapter has none of its own.

    Args:
        path: Folder of a model or of an adapter, or its id on the Hugging Face Hub.
        **options: Arguments of `AutoTokenizer.from_pretrained`.

    Returns:
        The tokenizer.

    Raises:
        OSError: If there is no such model.
        ValueError: If transformers does not know the kind of tokenizer.
    """
    base = base_of(path)
    source = base if base is not None and not has_file(path, "tokenizer_config.json") else path
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)


def base_of(path: str) -> str | None:
    """Return the base model that an adapter names, as in `adapter_base`; `path` may be a Hub id as well."""
    if Path(path).is_dir():
        return adapter_base(path)
    file = find_adapter_config_file(path)
    return adapter_base(str(Path(file).parent)) if file else None


def commit_of(path: str) -> str | None:
    """Return the commit of a model or adapter on the Hub; None for a folder."""
    if Path(path).is_dir():
        return None
    name = "config.json" if base_of(path) is None else "adapter_config.json"
    commit: str | None = extract_commit_hash(cached_file(path, name), None)
    return commit


def commit_setting(path: str) -> dict[str, str]:
    """Return the commit of a model on the Hub as a setting on which answers depend; of an adapter, with its base model.

    Args:
        path: Folder of a model or of an adapter, or its id on the Hugging Face Hub.

    Returns:
        {"commit": text}; empty where all weights are in folders.
    """
    places = [path] if (base := base_of(path)) is None else [path, base]
    commits = [commit for place in places if (commit := commit_of(place))]
    return {"commit": "+".join(commits)} if commits else {}


def _whole_model(path: str, dtype: torch.dtype | str, quantization: Any) -> Any:
    """Load a model that is no adapter."""
    if base_of(path) is not None:
        raise ValueError(f"{path!r} is an adapter itself: merge it into its base model first")
    options = {"use_safetensors": True, "trust_remote_code": False}
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, quantization_config=quantization, **options)
