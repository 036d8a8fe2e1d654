"""A config and what is assumed or measured -> a plan."""

from __future__ import annotations

from dataclasses import dataclass

from fapo.config import Config
from fapo.plan.layout import Layout, layout_of
from fapo.plan.memory import GIB, Memory, serving_memory, training_memory, waiting_memory
from fapo.plan.options import PlanOptions
from fapo.plan.pool import Pool
from fapo.plan.shapes import BF16, Shape, find_shape
from fapo.plan.step import Speeds, Step, smallest_pool, with_replicas
from fapo.plan.workload import Workload, assumed, drawn, mean_context, read_run

PASSES = 5
"""Passes over the model for each token of the update: old log-probabilities, forward, forward again for gradient
checkpointing, and backward, which is two; each is 2 FLOP a weight."""


@dataclass(frozen=True)
class Plan:
    """What a run takes."""

    name: str
    """The config's name."""
    steps: int
    """Steps of the run."""
    gpus: int
    """GPUs of the policy."""
    judge_gpus: int
    """GPUs of one replica of the judge."""
    goal: float
    """Share of a step by which judging may lengthen it."""
    work: Workload
    """What a step has to write."""
    speeds: Speeds
    """How fast it does."""
    pools: tuple[Step, ...]
    """A step with several sizes of the judge's pool; one with a single replica, if there is no judge."""
    replicas: int
    """Servers of the judge, whose hours and memory are told: the fewest that keep to the goal, or come as near."""
    reached: bool
    """Whether they keep to the goal."""
    memory: tuple[Memory, ...]
    """By role."""

    @property
    def chosen(self) -> Step:
        """The step with so many."""
        return next(step for step in self.pools if step.replicas == self.replicas)

    @property
    def judge(self) -> bool:
        """Whether anything is judged."""
        return self.work.judge_tokens > 0

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.steps * self.chosen.total / 3600

    @property
    def policy_gpu_hours(self) -> float:
        """Of the policy's GPUs."""
        return self.hours * self.gpus

    @property
    def judge_gpu_hours(self) -> float:
        """Of the judge's GPUs."""
        return self.hours * self.replicas * self.judge_gpus if self.judge else 0.0


def make_plan(config: Config, options: PlanOptions) -> Plan:
    """Simulate a step with 1, 2, 4, ... replicas of the judge, and with as few as keep to the goal.

    Raises ValueError for an option that cannot be, and ConfigError for a model whose shape is not known, a layout that
    cannot be, or a run without a record.
    """
    options.check()
    measured = read_run(options.measured) if options.measured else None
    layout = layout_of(config, options.gpus or (1 if measured else None))
    policy = find_shape(options.shape or config.model.path, "--shape")
    judge = find_shape(_judge_name(config, options), "--judge-shape")
    if measured:
        work = drawn(config, measured, options)
        places = len(work.responses)
        own = Pool(1, places, *measured.judge), 0.0
        theirs = own if measured.judge_alone else estimated_judge(work, judge, options, config)
        speeds = Speeds(Pool(1, places, *measured.rollout), *theirs, update_seconds=measured.update_seconds)
    else:
        work = assumed(config, options)
        speeds = estimated(work, policy, judge, layout, options, config)
    replicas, reached = smallest_pool(work, speeds, options.goal, options.replicas if work.judge_tokens else 1)
    sizes = {2**i for i in range(options.replicas.bit_length()) if 2**i <= options.replicas} | {options.replicas}
    shown = sorted(sizes | {replicas}) if work.judge_tokens else [1]
    return Plan(
        config.name,
        config.optim.steps,
        layout.gpus,
        options.judge_gpus,
        options.goal,
        work,
        speeds,
        tuple(with_replicas(work, speeds, size) for size in shown),
        replicas,
        reached,
        memory_of(config, options, layout, policy, judge, speeds, replicas),
    )


def _judge_name(config: Config, options: PlanOptions) -> str:
    local = config.judge is not None and config.judge.kind == "local"
    default = options.judge_shape == PlanOptions.judge_shape
    return config.judge.model if config.judge and local and default else options.judge_shape


def estimated(
    work: Workload, policy: Shape, judge: Shape, layout: Layout, options: PlanOptions, config: Config
) -> Speeds:
    """Speeds from shapes and a GPU's data sheet. Training is bound by FLOP/s; attention's own are left out."""
    context = mean_context(work.question, work.responses)
    share = layout.memory_share * options.gpu_memory
    pool, read_share = estimated_judge(work, judge, options, config)
    return Speeds(
        Pool(layout.servers, *_server(policy, layout.rollout_gpus, share, layout.slots, context, options)),
        pool,
        read_share,
        update_seconds=2 * PASSES * policy.num_params / (layout.gpus * _flops(options)),
    )


def estimated_judge(work: Workload, judge: Shape, options: PlanOptions, config: Config) -> tuple[Pool, float]:
    """One replica of the judge, and the price of a token that it reads; reading is bound by FLOP/s."""
    written = [tokens for critiques in work.critiques for tokens in critiques]
    context = mean_context(round(work.read_tokens / max(1, len(written))), written)
    room = options.memory_share * options.gpu_memory
    slots, step, sequence = _server(judge, options.judge_gpus, room, options.judge_slots, context, options)
    reading = 2 * judge.num_params / (options.judge_gpus * _flops(options))
    limit = config.judge.concurrency if config.judge and config.judge.kind == "served" else None
    return Pool(1, slots, step, sequence, limit), reading / (step / slots + sequence)


def _server(
    shape: Shape, gpus: int, memory: float, slots: int, context: float, options: PlanOptions
) -> tuple[int, float, float]:
    """Slots, step_seconds and sequence_seconds of a server that may take `memory` GiB of each of its GPUs.

    It writes a token of each sequence in the time it takes to read its weights, and each sequence's cache, from memory.
    """
    bandwidth = gpus * options.gpu_bandwidth * 1e12 * options.decode_share
    room = gpus * memory * GIB - shape.num_params * BF16
    if room <= 0:
        raise ValueError(f"the weights of a server alone are more than {gpus} x {memory:.0f} GiB; give it more GPUs")
    slots = max(1, min(slots, int(room / (max(1.0, context) * shape.kv_bytes))))
    return slots, shape.num_params * BF16 / bandwidth, context * shape.kv_bytes / bandwidth


def _flops(options: PlanOptions) -> float:
    return options.gpu_flops * 1e12 * options.flops_share


def memory_of(
    config: Config, options: PlanOptions, layout: Layout, policy: Shape, judge: Shape, speeds: Speeds, replicas: int
) -> tuple[Memory, ...]:
    """The table of memory: training, rollouts on the same GPUs, the judge."""
    limit = layout.prompt_limit + config.rollout.max_tokens
    share = config.rollout.num_prompts * config.rollout.group_size // config.optim.updates_per_batch
    micro = config.optim.micro_batch_size or max(1, share // layout.gpus)
    dtype = config.model.dtype
    found = [
        training_memory(policy, layout, dtype, micro, limit),
        serving_memory(
            "rollouts",
            policy,
            layout.gpus,
            layout.rollout_gpus,
            layout.memory_share * options.gpu_memory,
            speeds.policy.slots,
            limit,
            waiting_memory(policy, layout, dtype),
        ),
    ]
    if config.judge and config.judge.kind != "oracle":
        prompt = layout.prompt_limit + options.judge_prompt + config.rollout.max_tokens
        each, room = options.judge_gpus, options.memory_share * options.gpu_memory
        limit = prompt + config.judge.max_tokens
        found.append(serving_memory("judge", judge, replicas * each, each, room, options.judge_slots, limit))
    return tuple(found)
