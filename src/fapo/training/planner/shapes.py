"""Shapes of the models that `fapo plan` knows or reads from a config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fapo.errors import ConfigError

BF16_BYTES = 2
"""Bytes of a bfloat16 number."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a number in NF4, with its part of the 8-bit scale of 64 numbers and of the float32 scale of 256 of those."""


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a dense decoder with grouped-query attention and a gated MLP, as in Qwen, Llama and Mistral."""

    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the MLP."""
    num_layers: int
    """Number of layers."""
    num_heads: int
    """Number of query heads."""
    num_kv_heads: int
    """Number of key-value heads."""
    head_dim: int
    """Width of one head."""
    vocab_size: int
    """Rows of the embedding table."""
    tied_embeddings: bool
    """Whether the output layer uses the embedding table."""

    @property
    def num_params(self) -> int:
        """Number of parameters without biases and head norms, which are below 0.01 %."""
        norms = (2 * self.num_layers + 1) * self.hidden_size
        tables = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layer_params + norms + tables

    @property
    def num_layer_params(self) -> int:
        """Number of parameters in the matrices of all layers."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def num_matmul_params(self) -> int:
        """Number of parameters that each token is multiplied with: all but an input table that is only looked up."""
        return self.num_params - (0 if self.tied_embeddings else self.vocab_size * self.hidden_size)

    def num_lora_params(self, rank: int, target_modules: tuple[str, ...]) -> int:
        """Return the number of parameters of an adapter: rank (inputs + outputs) of each adapted layer.

        Args:
            rank: Rank of the adapter.
            target_modules: Last parts of the names of the adapted layers, or "all-linear" alone.

        Returns:
            Number of trained parameters.

        Raises:
            ConfigError: If a name is not one of the layers of this kind of model.
        """
        queries, keys, mlp = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.intermediate_size
        outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": queries}
        outputs |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), mlp)  # the other side is the hidden size
        names = tuple(outputs) if target_modules == ("all-linear",) else target_modules
        if unknown := [name for name in names if name not in outputs]:
            raise ConfigError(
                f"model.lora.target_modules: {', '.join(unknown)}: the sizes are known for {', '.join(outputs)} only"
            )
        return self.num_layers * rank * sum(self.hidden_size + outputs[name] for name in names)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the bfloat16 KV cache for one token: 2 L K D x 2."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * BF16_BYTES


_QWEN2_7B = ModelShape(3584, 18944, 28, 28, 4, 128, 152064, False)
_QWEN2_1B = ModelShape(1536, 8960, 28, 12, 2, 128, 151936, True)
_QWEN3_4B = ModelShape(2560, 9728, 36, 32, 8, 128, 151936, True)
KNOWN_SHAPES = {
    "Qwen2.5-Math-7B": _QWEN2_7B,
    "Qwen2.5-7B": _QWEN2_7B,
    "Qwen2.5-Math-1.5B": _QWEN2_1B,
    "Qwen2.5-Math-1.5B-Instruct": _QWEN2_1B,
    "Qwen2.5-32B": ModelShape(5120, 27648, 64, 40, 8, 128, 152064, False),
    "Qwen3-4B": _QWEN3_4B,
    "Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "FAPO-GenRM-4B": _QWEN3_4B,
    "smollm2": ModelShape(576, 1536, 30, 9, 3, 64, 49152, True),
}
"""Models of the shipped configs, by the last part of their names; the numbers come from their config.json files."""
WITHOUT_GATE = ("gpt_neox", "phi", "starcoder2")
"""Types of models with the fields of a `ModelShape` and with two matrices in the MLP in place of three."""


def find_shape(name: str, option: str) -> ModelShape:
    """Find the shape of a model in its config.json or in `KNOWN_SHAPES`.

    Args:
        name: Folder with config.json or with an adapter, "miniature:NAME", or a name with a known last part.
        option: Setting to name in an error message.

    Returns:
        Dimensions of the model.

    Raises:
        ConfigError: The model is not known, or its config.json describes another architecture.
    """
    from fapo.inference.adapters import adapter_base
    from fapo.inference.models import model_folder  # here, because it makes `fapo --help` slower

    name = adapter_base(name) or name
    shape = KNOWN_SHAPES.get(name.rstrip("/").rpartition("/")[2])
    if shape and not Path(name).is_dir():
        return shape
    file = Path(model_folder(name)) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"{option}: the shape of {name!r} is not known; give a folder with its config.json, or one of "
            f"{', '.join(KNOWN_SHAPES)}"
        )
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        hidden, heads = table["hidden_size"], table["num_attention_heads"]
        for key, value in table.items():
            if ("expert" in key and value) or (key == "model_type" and value in WITHOUT_GATE):
                raise ValueError(f"{key} = {value}")
        return ModelShape(
            hidden_size=hidden,
            intermediate_size=table["intermediate_size"],
            num_layers=table["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=table.get("num_key_value_heads") or heads,
            head_dim=table.get("head_dim") or hidden // heads,
            vocab_size=table["vocab_size"],
            tied_embeddings=bool(table.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{option}: {file} does not describe a dense decoder with a gated MLP: {error!r}") from None
