"""Arithmetic of what a run needs: memory, tokens, FLOPs, memory traffic of decoding, judge replicas.

Times of decoding are lower bounds: they follow from memory bandwidth alone and know no queue.
Notation: N parameters, L layers, H query heads, K key-value heads, D width of a head, t tokens, c tokens of context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapo.errors import ConfigError
from fapo.training.planner.assumptions import PlanAssumptions
from fapo.training.planner.shapes import BF16_BYTES, NF4_BYTES, ModelShape, find_shape

if TYPE_CHECKING:
    from fapo.config.schema import Config

GIB = 2**30
"""Bytes of a GiB."""
FORWARD_PASSES = 5
"""Cost of an update in forward passes: old log-probabilities, forward, recomputation, backward (counts twice).

With an adapter backward counts once, because the frozen weights have no gradient.
"""
ROLLOUT_MEMORY_RATE = 0.5
"""Fraction of a GPU's memory for a rollout server, on a GPU that it has in common with the trainer."""
JUDGE_MEMORY_RATE = 0.9
"""Fraction of a GPU's memory for a judge replica."""
MAX_SEQUENCES = 256
"""Maximum number of sequences that a server decodes at the same time."""
JUDGE_PROMPT_TOKENS = 600
"""Tokens of a judge prompt without the solution: instruction, question, reference answer and step tags."""


def size_server(shape: ModelShape, memory: float, context: float) -> tuple[int, int]:
    """Size the smallest server with enough memory: its weights take at most half of it.

    Args:
        shape: Model that is served, in bfloat16, on 1, 2, 4, ... GPUs.
        memory: Memory that the server may use, in GiB a GPU.
        context: Mean context in tokens while a sequence is decoded.

    Returns:
        Number of GPUs, and number of sequences that are decoded at the same time.
    """
    weights = shape.num_params * BF16_BYTES / GIB
    gpus = 2 ** max(0, math.ceil(math.log2(2 * weights / memory)))
    fitting = int((memory * gpus - weights) * GIB / (max(1.0, context) * shape.kv_bytes))
    return gpus, max(1, min(MAX_SEQUENCES, fitting))


def forward_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """Return the FLOPs of a forward pass: t (2 N + 4 L H D c). N leaves out embeddings that are only looked up.

    Args:
        shape: Model.
        tokens: Number of tokens t.
        context: Mean number of tokens c that each token attends to.

    Returns:
        Floating-point operations.
    """
    return tokens * (2 * shape.num_matmul_params + 4 * shape.num_layers * shape.num_heads * shape.head_dim * context)


def decoding_seconds(shape: ModelShape, bandwidth: float, iterations: float, tokens: float, context: float) -> float:
    """Return a lower bound of the time to decode: (iterations x weights + t c x KV bytes) / bandwidth.

    An iteration reads the weights once and adds a token to each running sequence, which reads its own cache.

    Args:
        shape: Model that is served.
        bandwidth: Memory bandwidth of the server's GPUs together, in bytes a second.
        iterations: Number of decoding iterations.
        tokens: Number of tokens t that the server writes.
        context: Mean number of tokens c in the cache of a sequence.

    Returns:
        Seconds of one server.
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
    """Compute what a run needs; a step is one generation batch.

    Args:
        config: Run.
        assumed: Quantities that the config does not contain.

    Returns:
        Memory, tokens, FLOPs, times and judge replicas.

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
    lora = config.model.lora
    passes = FORWARD_PASSES - bool(lora)
    flops = passes * forward_flops(shape, rollouts * sequence, sequence / 2)
    update = flops / (gpus * assumed.gpu_tflops * 1e12 * assumed.utilisation)
    number = BF16_BYTES if config.model.dtype == "bfloat16" else 4
    trained, trained_number, formula = shape.num_params, number, f"N x {number} bytes / GPUs"
    weights, weights_formula = float(shape.num_params * number), f"N x {number} bytes / GPUs"
    if lora:  # adapters are in float32
        trained, trained_number = shape.num_lora_params(lora.rank, lora.target_modules), 4
        formula = "A x 4 bytes / GPUs"
        if lora.quantization:
            weights -= shape.num_layer_params * (number - NF4_BYTES)
            weights_formula = f"({NF4_BYTES:.3g} bytes for matrices of layers, {number} for others) / GPUs"
    state = trained * trained_number / gpus / GIB
    origin = "as measured" if assumed.rollout_seconds else "lower bound: bytes read / bandwidth"
    return [
        Quantity("policy parameters", shape.num_params, "", "N, from its config.json"),
        *([Quantity("adapter parameters", trained, "", "A = rank x (inputs + outputs) of each layer")] if lora else []),
        Quantity("training weights", weights / gpus / GIB, "GiB a GPU", weights_formula),
        Quantity("training gradients", state, "GiB a GPU", formula),
        Quantity("training optimizer", 2 * state, "GiB a GPU", f"AdamW: 2 {formula}"),
        *_server("rollout", shape, size, slots),
        Quantity("rollouts", rollouts, "a step", "num_prompts x group_size"),
        Quantity("written tokens", rollouts * response, "a step", "rollouts x response"),
        Quantity("trained tokens", rollouts * sequence, "a step", "rollouts x (prompt + response)"),
        Quantity("update FLOPs", flops, "a step", f"{passes} t (2 N + 4 L H D c)"),
        Quantity("update time", update, "s a step", "FLOPs / (GPUs x peak x utilisation)"),
        Quantity("update GPU-hours", steps * gpus * update / 3600, "a run", "steps x GPUs x update time"),
        Quantity("rollout time", rollout, "s a step", origin),
        Quantity("rollout GPU-hours", steps * gpus * rollout / 3600, "a run", "steps x GPUs x rollout time"),
        *plan_judge(config, assumed, rollout),
    ]


def plan_judge(config: Config, assumed: PlanAssumptions, seconds: float) -> list[Quantity]:
    """Compute what the judge needs.

    Args:
        config: Run.
        assumed: Quantities that the config does not contain.
        seconds: Seconds in which the rollouts of a step are generated.

    Returns:
        Memory, tokens, times and replicas of the judge; empty if no judge writes critiques.

    Raises:
        ConfigError: The shape of the judge is not known.
    """
    judge = config.judge
    if judge is None or judge.kind == "oracle" or judge.kind == "prm" or judge.kind == "cascade":
        return []
    if config.task != "policy":
        return []
    rate = 1.0 if config.judges_all else assumed.accuracy
    critiques = round(rate * config.rollout.num_prompts * config.rollout.group_size) * judge.votes
    critique, prompt = assumed.mean_critique(config), JUDGE_PROMPT_TOKENS + assumed.mean_response(config)
    name, option = {
        "local": (judge.model, "judge.model"),
        "adapter": (config.model.path, "model.path"),
        "served": (assumed.judge_model, "--judge-model"),
    }[judge.kind]
    is_adapter = judge.kind == "adapter"  # it has no server: the policy waits while its weights judge
    shape, context, written = find_shape(name, option), prompt + critique / 2, critiques * critique
    size, slots = size_server(shape, JUDGE_MEMORY_RATE * assumed.gpu_memory, context)
    reading = forward_flops(shape, critiques * prompt, prompt / 2) / (size * assumed.gpu_tflops * 1e12)
    writing = decoding_seconds(shape, size * assumed.gpu_bandwidth * 1e12, written / slots, written, context)
    alone = reading / assumed.utilisation + writing
    if assumed.judge_tokens_per_second:
        alone = written / assumed.judge_tokens_per_second
    speed, hours = written / alone if alone else 0.0, config.optim.steps * size * alone / 3600
    replicas = "judge time / rollout time, rounded up"
    origin = "of one replica, as measured" if assumed.judge_tokens_per_second else "upper bound of one replica"
    return [
        Quantity("judge parameters", shape.num_params, "", "N, from its config.json"),
        *([] if is_adapter else _server("judge", shape, size, slots)),
        Quantity("critiques", critiques, "a step", "rollouts x accuracy x votes"),
        Quantity("critique tokens", written, "a step", "critiques x critique"),
        Quantity(
            "judge prompt tokens", critiques * prompt, "a step", f"critiques x ({JUDGE_PROMPT_TOKENS} + response)"
        ),
        Quantity("judge speed", speed, "tokens/s", origin),
        Quantity("judge time", alone, "s a step", "critique tokens / judge speed: one replica alone"),
        Quantity("judge GPU-hours", hours, "a run", "steps x judge time x its GPUs, without waiting"),
        *([] if is_adapter else [Quantity("judge replicas", math.ceil(alone / seconds), "", replicas)]),
    ]


def _server(role: str, shape: ModelShape, gpus: int, sequences: int) -> list[Quantity]:
    """Return what one server needs."""
    weights = shape.num_params * BF16_BYTES / gpus / GIB
    return [
        Quantity(f"{role} server", gpus, "GPU" if gpus == 1 else "GPUs", "weights take at most half of its memory"),
        Quantity(f"{role} weights", weights, "GiB a GPU", "N x 2 bytes / GPUs of the server"),
        Quantity(f"{role} KV cache", shape.kv_bytes, "bytes a token", "2 L K D x 2 bytes"),
        Quantity(f"{role} slots", sequences, "a server", "sequences of mean length that fit beside the weights"),
    ]
