"""The trainer computes the same loss and gradient as TRL's with less work, and judges while it generates."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, MaxLengthCriteria
from trl import GRPOTrainer

from fapo.config.reader import from_dict
from fapo.data.miniature.sets import SOURCES
from fapo.inference.models import model_folder
from fapo.rewards import verify as answers
from fapo.rewards.from_config import make_scorer
from fapo.training.datasets import load_sets
from fapo.trl.arguments import grpo_config
from fapo.trl.judge_while_generating import SequenceEnds, judge_ahead
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.shared_prompts import read_prompts
from fapo.trl.trainer import Trainer
from fapo.trl.zero_advantage import CHUNK, split_batch
from tests.support import parity
from tests.support.chat_server import ChatServer, Reply, chat_server
from tests.support.processes import wait_for

pytestmark = pytest.mark.slow


def settings(output: Path, policy: Path) -> dict[str, Any]:
    return {
        "name": "run",
        "task": "policy",
        "output": str(output),
        "model": {"path": str(policy)},
        "data": {"train": "miniature:train", "limit": 128, "validation": {"easy": "miniature:validation"}},
        "rollout": {"max_tokens": 64, "num_prompts": 96, "group_size": 4},
        "reward": {"kind": "fapo"},
        "judge": {"kind": "oracle"},
        "optim": {"steps": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        "validation": {"every": 1, "save_every": 2, "limit": 16},
    }


class _Recorder:
    """Stand-in for the recorder of a run."""

    def __init__(self, config: Any) -> None:
        self.config, self.evaluating, self.batches, self.parts = config, None, {"train": []}, ()

    def write(self) -> None: ...


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, dict[str, Any]]:
    """Return a trainer of the miniature's base policy and a batch that it has generated and scored."""
    policy = model_folder("miniature:policy")
    config = from_dict(settings(tmp_path_factory.mktemp("run"), policy))
    examples = load_sets(config)["train"]
    rows = [
        {"prompt": e.prompt, "id": e.problem.id, "problem": e.problem.text, "reference": e.problem.reference}
        | {"source": e.problem.source}
        for e in examples
    ]
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    recorder = _Recorder(config)
    reward = FlawedAwareReward(make_scorer(config), lambda scored, _: recorder.batches["train"].extend(scored))
    arguments = grpo_config(config)
    arguments.eval_strategy = "no"
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
    )
    trainer.recorder = recorder
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    torch.manual_seed(1)
    drawn = [rows[i] for i in range(96) for _ in range(4)]
    assert rows[0]["source"] in SOURCES
    return trainer, trainer._generate_and_score_completions(drawn)


def losses(trainer: Trainer, inputs: dict[str, Any], compute: Any) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Return the loss and its gradients, and the metrics that were logged with them."""
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    loss = compute(trainer, trainer.model, inputs)
    loss.backward()
    found = [loss.detach(), *(p.grad.clone() for p in trainer.model.parameters())]
    return found, {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()}


def test_the_loss_of_a_validation_is_on_the_device_of_the_process_since_nccl_gathers_no_other() -> None:
    place = torch.device("meta")
    process = SimpleNamespace(_prepare_inputs=lambda inputs: inputs, accelerator=SimpleNamespace(device=place))
    loss, *_ = Trainer.prediction_step(process, None, None)  # type: ignore[arg-type]
    assert (loss.device, loss.shape) == (place, ())


@pytest.mark.parametrize("masked", [False, True], ids=["all tokens", "masked truncated completions"])
def test_the_loss_its_gradient_and_its_metrics_are_those_of_all_rollouts(batch, masked: bool) -> None:
    trainer, inputs = batch
    if masked:
        truncated = torch.arange(len(inputs["advantages"])) % 3 == 0
        inputs = {**inputs, "completion_mask": inputs["completion_mask"] * ~truncated[:, None]}
    with torch.no_grad():  # logits of another policy, so that some tokens are clipped
        noise = torch.randn(inputs["completion_ids"].shape, generator=torch.Generator().manual_seed(0))
        logps = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            inputs["completion_ids"].shape[1],
        )[0]
    inputs = {**inputs, "old_per_token_logps": logps + 0.3 * noise}
    (stock, their_metrics), (ours, our_metrics) = (
        losses(trainer, inputs, compute) for compute in (GRPOTrainer._compute_loss, Trainer._compute_loss)
    )
    for one, other in zip(stock, ours, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert max(gradient.abs().max() for gradient in stock[1:]) > 1e-4, "there is something to learn"
    assert their_metrics["entropy"] > 0.1
    assert their_metrics["clip_ratio/region_mean"] > 0.1
    assert our_metrics == pytest.approx(their_metrics, rel=1e-4)


@pytest.mark.parametrize("dual", [None, 10.0])
def test_the_dual_clip_is_that_of_verl(dual: float | None, batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/verl/test_overrides.py has the other half."""
    trainer, inputs = batch
    monkeypatch.setattr(trainer.args, "delta", dual)
    ratios, advantages = map(torch.tensor, zip(*parity.CLIPPED, strict=True))
    rows = range(len(ratios))
    inputs = {key: value[rows] if value.dim() else value for key, value in inputs.items() if torch.is_tensor(value)}
    mask = torch.zeros_like(inputs["completion_mask"])
    mask[:, 0] = 1  # one token of each rollout
    ids = [
        torch.cat([inputs[f"prompt_{key}"], value], 1)
        for key, value in (("ids", inputs["completion_ids"]), ("mask", mask))
    ]
    with torch.no_grad():
        logps = trainer._get_per_token_logps_and_entropies(trainer.model, *ids, mask.shape[1])[0]
    for row, (ratio, advantage) in enumerate(parity.CLIPPED):
        one = {key: value[[row]] if value.dim() else value for key, value in inputs.items()}
        one |= {"advantages": advantages[[row]], "completion_mask": mask[[row]], "num_items_in_batch": torch.tensor(1)}
        one["old_per_token_logps"] = logps[[row]] - ratios[row].log()
        expected = parity.clipped_loss(ratio, advantage, 0.2, 0.28, dual)
        assert trainer._compute_loss(trainer.model, one).item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def masks(inputs: dict[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return advantages and masked rollouts by the name of the case."""
    advantages = inputs["advantages"]
    idle, none = torch.zeros_like(advantages), torch.zeros(len(advantages), dtype=torch.bool)
    first = none.clone()
    first[0] = True
    return {
        "no advantages": (idle, none),
        "no advantages, first rollout masked": (idle, first),
        "all with an advantage masked": (advantages, advantages != 0),
        "all masked": (advantages, ~none),
        "no advantages, all masked": (idle, ~none),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no advantages",
        "no advantages, first rollout masked",
        "all with an advantage masked",
        "all masked",
        "no advantages, all masked",
    ],
)
def test_a_batch_that_teaches_nothing_has_trls_loss_and_metrics(batch, case: str) -> None:
    trainer, inputs = batch
    advantages, masked = masks(inputs)[case]
    inputs = {
        **inputs,
        "advantages": advantages,
        "completion_mask": inputs["completion_mask"] * ~masked[:, None],
    }
    (stock, their_metrics), (ours, our_metrics) = (
        losses(trainer, inputs, compute) for compute in (GRPOTrainer._compute_loss, Trainer._compute_loss)
    )
    assert stock[0].item() == ours[0].item() == 0
    assert not any(gradient.any() for gradient in ours[1:])
    assert (their_metrics["entropy"] > 0.1) == (not masked.all())
    assert our_metrics == pytest.approx(their_metrics, rel=1e-4, nan_ok=True)


def test_less_work_is_done(batch) -> None:
    _, inputs = batch
    parts = list(split_batch(inputs))
    assert sum(len(part["advantages"]) for part, _ in parts) == len(inputs["advantages"]), "metrics are of all"
    assert [needs_gradient for _, needs_gradient in parts] == sorted((n for _, n in parts), reverse=True)
    learning = [part for part, needs_gradient in parts if needs_gradient]
    used = sum(len(part["advantages"]) for part in learning)
    assert 0 < used == int((inputs["advantages"] != 0).sum()) < len(inputs["advantages"])
    padded = sum(part["prompt_ids"].numel() + part["completion_ids"].numel() for part in learning)
    assert padded < 0.8 * used * (inputs["prompt_ids"].shape[1] + inputs["completion_ids"].shape[1])
    for part, _ in parts:
        assert len(part["advantages"]) <= CHUNK
        assert part["prompt_mask"].sum(1).max() == part["prompt_ids"].shape[1]
        assert part["completion_mask"].sum(1).max() == part["completion_ids"].shape[1]


def test_prompts_are_read_once(batch) -> None:
    trainer, inputs = batch
    num_tokens: list[int] = []
    hook = trainer.model.model.register_forward_pre_hook(
        lambda _, __, given: num_tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    trainer._compute_loss(trainer.model, inputs)
    hook.remove()
    prompts, length = inputs["prompt_ids"].unique(dim=0).shape
    assert num_tokens[0] == prompts * (length - 1)
    completions = sum(part["completion_ids"].numel() for part, _ in split_batch(inputs))
    assert sum(num_tokens[1:]) == completions + len(inputs["prompt_ids"]), "and the last token of each prompt"


def test_a_model_that_draws_random_numbers_reads_prompt_and_completion_at_once(
    batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, inputs = batch
    assert read_prompts(trainer.model, inputs)
    one_of_each = {key: inputs[key][::4] for key in ("prompt_ids", "prompt_mask")}
    assert not read_prompts(trainer.model, one_of_each), "there is nothing to share"
    monkeypatch.setattr(trainer.model.config, "attention_dropout", 0.1)
    assert not read_prompts(trainer.model, inputs)


# --- rollouts that are judged as soon as they end ------------------------------------------------------------------


def test_each_sequence_is_reported_once_when_it_ends() -> None:
    end, other = 3, 2
    written = [[5, end, 0, 0], [5, 6, 7, 8], [end, end, 5, end], [5, 6, other, 0]]  # one reaches the limit
    reported: list[tuple[int, list[int], list[int]]] = []
    criterion, prompt = SequenceEnds([end, other], lambda *found: reported.append(found)), torch.full((4, 2), end)
    for num in range(1, 5):
        ids = torch.cat([prompt, torch.tensor(written)[:, :num]], 1)
        assert not criterion(ids, None).any()
        assert [row for row, *_ in reported] == [2, 0, 3][: min(num, 3)]
    assert reported == [(2, [end, end], [end]), (0, [end, end], [5, end]), (3, [end, end], [5, 6, other])]


def served(tmp_path: Path, server: ChatServer, batch_size: int, **judge: Any) -> tuple[Trainer, list[Any]]:
    """Return a trainer of the miniature's base policy with a served judge, and rows of prompts."""
    judge = {"kind": "served", "urls": [server.url], "model": "judge", "template": "compact", **judge}
    config = from_dict(settings(tmp_path, model_folder("miniature:policy")) | {"judge": judge})
    examples = load_sets(config)["train"][:batch_size]
    recorder = _Recorder(config)
    reward = FlawedAwareReward(make_scorer(config), lambda scored, _: recorder.batches["train"].extend(scored))
    rows = [
        {"prompt": e.prompt, "id": e.problem.id, "problem": e.problem.text, "reference": e.problem.reference}
        for e in examples
    ]
    arguments = grpo_config(config)
    arguments.eval_strategy = "no"
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(config.model.path, padding_side="left"),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
    )
    trainer.recorder = recorder
    judge_ahead(trainer)
    trainer.model.train()
    torch.manual_seed(1)
    return trainer, [row for row in rows for _ in range(4)]


def test_the_judge_is_asked_while_rollouts_are_being_written(tmp_path: Path) -> None:
    """The model waits at its 20th token, which short rollouts do not reach, until the judge has a request."""
    asked, forwards, still_writing = threading.Event(), [], []

    def arrival(body: dict[str, Any], index: int) -> Reply:
        asked.set()
        return Reply("\\boxed{-1}")

    def wait(*_: Any) -> None:
        forwards.append(_)
        if len(forwards) == 20:
            still_writing.append(asked.wait(600))

    with chat_server(arrival) as server:
        trainer, rows = served(tmp_path, server, 24)
        hook = trainer.model.register_forward_pre_hook(wait)
        trainer._generate_and_score_completions(rows)
        hook.remove()
        right = {(s.rollout.problem.id, s.rollout.response) for s in trainer.recorder.batches["train"] if s.correct}
        assert len(server.requests) == len(right) > 10
    assert still_writing == [True]
    assert len(forwards) > 20


def test_thinking_that_trl_sets_apart_is_not_asked_about(tmp_path: Path) -> None:
    """The tokenizer says that the calculation is thinking; TRL hands over the boxed answer."""
    thinking = {"open_pattern": r"(?=\d+[-+*]\d)", "close_pattern": r"(?=\\boxed)", "content": "text"}
    content = {"close_pattern": r"<\|end\|>", "content": "text"}
    with chat_server(Reply("\\boxed{-1}")) as server:
        trainer, rows = served(tmp_path, server, 24)
        fields = {"reasoning_content": thinking, "content": content}
        trainer.processing_class.response_template = {"start_anchor": "<|assistant|>", "fields": fields}
        trainer._generate_and_score_completions(rows)
        scored = trainer.recorder.batches["train"]
        right = {(s.rollout.problem.id, s.rollout.response) for s in scored if s.correct}
        assert len(server.requests) == len(right) > 10
    assert all(s.rollout.response.startswith("\\boxed") for s in scored if s.correct)
    assert all(s.verdict for s in scored if s.correct)


def test_generation_keeps_what_others_have_changed(tmp_path: Path) -> None:
    """Another replacement of `generate`, with a criterion of its own, is used and is there afterwards."""
    calls: list[int] = []

    with chat_server(Reply("\\boxed{-1}")) as server:
        trainer, rows = served(tmp_path, server, 4)
        generate = trainer.model.generate

        def limited(*args: Any, stopping_criteria: Any = None, **kwargs: Any) -> Any:
            calls.append(len(stopping_criteria))
            return generate(*args, stopping_criteria=[*stopping_criteria, MaxLengthCriteria(1000)], **kwargs)

        trainer.model.generate = limited
        trainer._generate_and_score_completions(rows)
    assert calls == [1]
    assert trainer.model.generate is limited


def test_an_interruption_of_generation_ends_the_judging(tmp_path: Path) -> None:
    forwards: list[Any] = []

    def interrupt(*_: Any) -> None:
        forwards.append(_)
        if len(forwards) == 20:  # short rollouts have ended
            wait_for(lambda: server.under_way > 0)
            raise KeyboardInterrupt

    with chat_server(Reply("\\boxed{-1}", delay=600)) as server:
        trainer, rows = served(tmp_path, server, 24)
        before = trainer.model.generate
        hook = trainer.model.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer._generate_and_score_completions(rows)
        hook.remove()
        assert trainer.model.generate is before, "the method is again what it was"
        wait_for(lambda: server.under_way == 0 and server.hang_ups > 0)
    answers.shutdown()  # otherwise workers that were stopped during a check would be started again one by one


def test_a_masked_rollout_is_no_warning_in_a_run_and_remains_one_in_a_trainer_of_trl(
    batch: tuple[Trainer, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, _ = batch
    monkeypatch.setattr(trainer, "reward_funcs", [lambda completions, **_: [None] * len(completions)])
    call: Any = ([{"reference": "4"}] * 2, ["2+2?"] * 2, ["4"] * 2, [[1]] * 2)
    warnings = []
    for kind in (GRPOTrainer, Trainer, GRPOTrainer):
        caplog.clear()
        assert kind._calculate_rewards(trainer, *call).isnan().all()
        warnings.append("All reward functions returned None" in caplog.text)
    assert warnings == [True, False, True]
