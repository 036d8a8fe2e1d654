"""The numbers of a transformer on which memory and speed depend, from its config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.errors import ConfigError
from fapo.models import model_folder

BF16 = 2
"""Bytes of a number in bfloat16."""


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped attention and a gated MLP (Qwen, Llama, Mistral)."""

    hidden_size: int
    """Width."""
    intermediate_size: int
    """Width of the MLP."""
    num_hidden_layers: int
    """Layers."""
    num_attention_heads: int
    """Heads of the queries ..."""
    num_key_value_heads: int
    """... and of keys and values."""
    head_dim: int
    """Width of a head."""
    vocab_size: int
    """Tokens it knows."""
    tie_word_embeddings: bool
    """Whether the last layer is the first one again."""

    @property
    def num_params(self) -> int:
        """Weights; norms of the heads and biases, less than 0.01 %, are left out."""
        hidden, heads = self.hidden_size, 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        layer = hidden * self.head_dim * heads + 3 * hidden * self.intermediate_size + 2 * hidden
        embeddings = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes that the cache holds for one token, in bfloat16."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * BF16


_QWEN_7B = Shape(3584, 18944, 28, 28, 4, 128, 152064, False)
_QWEN3_4B = Shape(2560, 9728, 36, 32, 8, 128, 151936, True)
KNOWN = {
    "Qwen2.5-Math-7B": _QWEN_7B,
    "Qwen2.5-7B": _QWEN_7B,
    "Qwen2.5-32B": Shape(5120, 27648, 64, 40, 8, 128, 152064, False),
    "Qwen3-4B": _QWEN3_4B,
    "Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "FAPO-GenRM-4B": _QWEN3_4B,
}
"""The models of the shipped configs, by the last part of their names, from the config.json of each."""


def find_shape(name: str, option: str) -> Shape:
    """The shape of a model: from the config.json in its folder, else a known one. Raises ConfigError with a remedy."""
    last = name.rstrip("/").rpartition("/")[2]
    file = Path(name)
    if file.suffix != ".json" and not file.is_dir() and last in KNOWN:
        return KNOWN[last]
    if file.suffix != ".json":
        file = Path(model_folder(name)) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"{option}: the shape of {name!r} is not known here; give a folder with its config.json, or one of "
            f"{', '.join(KNOWN)}"
        )
    try:
        return read_shape(json.loads(file.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{option}: {file} is not the config.json of a decoder with a gated MLP: {error}") from None


def read_shape(table: dict[str, Any]) -> Shape:
    """The shape that a config.json tells. Raises KeyError for one without the usual numbers."""
    hidden, heads = table["hidden_size"], table["num_attention_heads"]
    return Shape(
        hidden,
        table["intermediate_size"],
        table["num_hidden_layers"],
        heads,
        table.get("num_key_value_heads") or heads,
        table.get("head_dim") or hidden // heads,
        table["vocab_size"],
        bool(table.get("tie_word_embeddings", False)),
    )
