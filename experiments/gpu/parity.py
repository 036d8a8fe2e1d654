"""Exactness on the card: rewards, advantages, masked rows, loss and gradient against independent references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer

from experiments.gpu import common
from experiments.gpu.common import device
from fapo.config import Config, from_dict
from fapo.data.miniature.sets import base_model
from fapo.judge.oracle import oracle
from fapo.rewards import PolicyScorer, fapo_reward, group_advantages
from fapo.rewards.from_config import make_scorer
from fapo.training.datasets import TRAIN, load_sets
from fapo.trl import FlawedAwareReward
from fapo.trl.arguments import grpo_config
from fapo.trl.trainer import Trainer
from fapo.types import Judge, Problem, Rollout, ScoredRollout, Verdict

MAX_DIFFERENCE = 1e-5
"""Largest difference of advantages and of float32 losses that counts as equal."""
MAX_GRADIENT_ERROR = 1e-3
"""Largest relative error of a float32 gradient that counts as equal."""


class Recorder:
    """The part of a run's recorder that the trainer calls; it keeps what was scored."""

    def __init__(self, config: Config) -> None:
        """Start without rollouts."""
        self.config, self.evaluating, self.parts = config, None, ()
        self.measured: dict[str, float] = {}
        self.scored: list[ScoredRollout] = []

    def record(self, scored: Sequence[ScoredRollout], _: Any) -> None:
        """Keep a batch."""
        self.scored.extend(scored)

    def write(self) -> None:
        """Write nothing."""

    def summary(self, _: str) -> dict[str, float]:
        """Return no metrics."""
        return {}


def row_of(problem: Problem, prompt: Any) -> dict[str, Any]:
    """Return a problem as a row of the trainer's data set."""
    fields = {"id": problem.id, "problem": problem.text, "reference": problem.reference, "source": problem.source}
    return {"prompt": prompt, **fields}


def sometimes_silent(judge: Judge) -> Judge:
    """Return the judge with every seventh verdict missing."""

    async def silent(rollouts: Sequence[Rollout]) -> list[Verdict]:
        verdicts = await judge(rollouts)
        return [v if i % 7 else Verdict("failed", reason="silent") for i, v in enumerate(verdicts)]

    return silent


def reference_loss(
    model: Any, inputs: Mapping[str, torch.Tensor], old: torch.Tensor | None, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clipped token-mean loss, written out.

    Args:
        model: Model that computes the log-probabilities.
        inputs: Batch of the trainer: prompt_ids, completion_ids, their masks, advantages [num_rollouts],
            num_items_in_batch.
        old: Log-probabilities of the policy that wrote the rollouts [num_rollouts, tokens]; None: the model's own.
        rows: Indices of the rollouts to sum over.

    Returns:
        The loss, and the log-probabilities [rows, tokens].
    """
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)[rows]
    seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)[rows]
    num = inputs["completion_ids"].shape[1]
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=seen, position_ids=positions).logits[:, -num - 1 : -1]
    logps = logits.log_softmax(-1).gather(2, ids[:, -num:, None]).squeeze(2)
    mask, advantages = inputs["completion_mask"][rows], inputs["advantages"][rows][:, None].to(logps.dtype)
    ratio = (logps - (logps.detach() if old is None else old[rows].to(logps.dtype))).exp()
    gained = torch.min(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(gained * mask).sum() / inputs["num_items_in_batch"].to(logps.dtype), logps.detach()


def parity(tiny: bool) -> dict[str, Any]:
    """Return the differences between rewards, advantages, loss and gradient on the card and their references."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return _parity(*((4, 4) if tiny else (96, 4)))
    finally:
        torch.set_float32_matmul_precision(before)


def _parity(num_prompts: int, group: int) -> dict[str, Any]:
    """Return the differences on one batch of rollouts."""
    config = from_dict(
        {
            "name": "parity",
            "task": "policy",
            "output": "/tmp/parity",
            "model": {"path": "miniature:policy"},
            "data": {"train": "miniature:train", "limit": num_prompts},
            "rollout": {"max_tokens": 64, "num_prompts": num_prompts, "group_size": group},
            "reward": {"kind": "fapo"},
            "judge": {"kind": "oracle"},
            "optim": {"steps": 1, "learning_rate": 1e-4, "warmup_steps": 0},
            "trl": {"save_strategy": "no"},
        }
    )
    rows = [row_of(example.problem, example.prompt) for example in load_sets(config)[TRAIN]]
    recorder = Recorder(config)
    scorer = make_scorer(config, judge=sometimes_silent(oracle()))
    assert isinstance(scorer, PolicyScorer)
    model, tokenizer = common.load(base_model("miniature:policy"))
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=FlawedAwareReward(scorer, recorder.record),
        args=grpo_config(config),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.recorder, trainer.current_gradient_accumulation_steps = recorder, 1
    trainer.model.train()
    torch.manual_seed(1)
    inputs = trainer._generate_and_score_completions([row for row in rows for _ in range(group)])
    result = _rewards_and_advantages(recorder.scored, inputs, group) | _loss_and_gradient(trainer, inputs)
    fp32 = [result["trl_fp32"], result["fapo_fp32"]]
    result["ok"] = bool(
        result["rewards_equal"]
        and result["advantages_max_difference"] < MAX_DIFFERENCE
        and result["largest_advantage_of_unscored"] == 0
        and all(side["loss_difference"] < MAX_DIFFERENCE for side in fp32)
        and all(side["gradient_relative"] < MAX_GRADIENT_ERROR for side in fp32)
    )
    return result


def _rewards_and_advantages(
    scored: Sequence[ScoredRollout], inputs: Mapping[str, torch.Tensor], group: int
) -> dict[str, Any]:
    """Compare rewards and advantages of a batch with those of the pure functions."""
    expected = [None if s.correct and s.flawed is None else fapo_reward(s.correct, s.flawed) for s in scored]
    ours = group_advantages([expected[i : i + group] for i in range(0, len(expected), group)]).reshape(-1)
    advantages = inputs["advantages"].detach().double().cpu()
    masked = torch.tensor([value is None for value in expected])
    return {
        "device": str(device()),
        "rollouts": len(scored),
        "right": sum(s.correct for s in scored),
        "flawed": sum(bool(s.flawed) for s in scored),
        "unscored": int(masked.sum()),
        "rewards_equal": [s.reward.value for s in scored] == expected,
        "advantages_max_difference": float((advantages - torch.tensor(ours)).abs().max()),
        "largest_advantage_of_unscored": float(advantages[masked].abs().max()) if masked.any() else 0.0,
    }


def _loss_and_gradient(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Compare the losses of TRL and of our trainer with a 64-bit reference on the processor."""
    on_cpu = {key: value.detach().cpu() for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    used, every = on_cpu["advantages"].nonzero().flatten(), torch.arange(len(on_cpu["advantages"]))
    exact = common.load(base_model("miniature:policy"))[0].to("cpu").double()
    with torch.no_grad():
        _, logps = reference_loss(exact, on_cpu, None, every)
    # old log-probabilities apart from the new ones, so that some ratios are clipped
    noise = torch.randn(logps.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    old = (logps + 0.3 * noise * on_cpu["completion_mask"]).float()
    inputs["old_per_token_logps"] = old.to(device())
    loss, _ = reference_loss(exact, on_cpu, old, used)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in exact.parameters()])

    def measure(compute: Callable[..., torch.Tensor], bfloat16: bool) -> dict[str, float]:
        trainer.model.zero_grad()
        with torch.autocast(device().type, torch.bfloat16, enabled=bfloat16):
            value = compute(trainer, trainer.model, inputs)
        value.backward()
        found = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).double().cpu()
        return {
            "loss_difference": abs(float(value.detach()) - float(loss.detach())),
            "gradient_relative": float((found - gradient).norm() / gradient.norm()),
            "gradient_cosine": float(torch.dot(found, gradient) / (found.norm() * gradient.norm())),
        }

    result: dict[str, Any] = {
        "reference_loss": float(loss.detach()),
        "reference_gradient_norm": float(gradient.norm()),
    }
    for name, compute in (("trl", GRPOTrainer._compute_loss), ("fapo", Trainer._compute_loss)):
        for precision, bfloat16 in (("fp32", False), ("bf16", True)):
            result[f"{name}_{precision}"] = measure(compute, bfloat16)
    return result
