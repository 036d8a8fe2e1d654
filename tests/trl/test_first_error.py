"""First-error credit under TRL: the tokens before the error, of the error and after it have advantages of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fapo.config.reader import from_dict
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import ConfigError
from fapo.rewards.first_error import Parts, first_error_advantages
from fapo.trl.arguments import grpo_config
from fapo.trl.token_advantages import token_advantages
from fapo.trl.train import train
from fapo.trl.trainer import Trainer
from tests.support.trl_runs import GROUP, assert_four_train_as_one, rows, settings

FIRST_ERROR = {"reward": {"kind": "first_error"}, "judge": {"kind": "oracle"}, "optim.steps": 2}


class Letters:
    """Tokenizer with a token for each character; 0 is special."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(token) for token in tokens if token)


def test_each_token_has_the_advantage_of_its_part() -> None:
    thinking = "<think>hm</think> "
    texts = [f"{thinking}ab\n\ncd\n\nef", f"{thinking}ab\n\ncd", "xy", "éz"]
    parts = [
        Parts("ab\n\ncd\n\nef", 4, 8, 0.5, -1.0),
        Parts("ab\n\ncd", 0, 4, 0.0, -2.0),
        Parts("xy", 0, 2, 9.0, 2.0),
        Parts("elsewhere", 3, 4, 1.0, -0.5),
    ]
    longest = max(map(len, texts)) + 1
    ids = torch.tensor([[*map(ord, text), *[0] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * (len(text) + 1) + [0] * (longest - len(text) - 1) for text in texts])
    batch = {"completion_ids": ids, "completion_mask": mask, "advantages": torch.zeros(len(texts))}
    found = [
        row[: int(sum(m))] for row, m in zip(token_advantages(parts, batch, Letters()).tolist(), mask, strict=True)
    ]
    assert found[0] == [0.5] * (len(thinking) + 4) + [-1.0] * 4 + [0.0] * 3, "the last one ends the sequence"
    assert found[1] == [0.0] * len(thinking) + [-2.0] * 4 + [0.0] * 3
    assert found[2] == [2.0] * 3
    assert found[3] == [-0.5] * 3


@pytest.mark.slow
def test_trl_trains_on_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[str, list[float]] = {}
    compute_loss = Trainer._compute_loss

    def seen(self: Trainer, model: Any, inputs: Any) -> Any:
        columns = (inputs[key] for key in ("completion_ids", "completion_mask", "advantages"))
        for ids, mask, advantages in zip(*columns, strict=True):
            length = int(mask.sum())
            text = self.processing_class.decode(ids[:length], skip_special_tokens=True)
            trained.setdefault(text, advantages[:length].tolist())
            tokens[text] = [self.processing_class.decode(token, skip_special_tokens=True) for token in ids[:length]]
        return compute_loss(self, model, inputs)

    tokens: dict[str, list[str]] = {}
    monkeypatch.setattr(Trainer, "_compute_loss", seen)
    folder = train(from_dict(settings(tmp_path, BASE_FOLDER / "policy", **FIRST_ERROR, **{"rollout.num_prompts": 24})))
    found = [row for row in rows(folder, "rollouts") if row["split"] == "train"]
    assert {row["status"] for row in found} == {"ok"}, "wrong rollouts are judged, too"
    num_parts = 0
    for start in range(0, len(found), GROUP):
        group = found[start : start + GROUP]
        begins = [bool(row["flawed"] and row["error_step"]) for row in group]
        (before,), (error,) = first_error_advantages([[row["reward"] for row in group]], [begins])
        assert [row["advantage"] for row in group] == pytest.approx(error.tolist(), abs=1e-5)
        for row, a, b in zip(group, before, error, strict=True):
            if [other["response"] for other in found].count(row["response"]) > 1:
                continue  # the same text in two groups
            advantages, pieces = trained[row["response"]], tokens[row["response"]]
            expected = [b] * len(pieces)
            if row["flawed"]:
                lines = row["response"].splitlines(keepends=True)
                ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
                places = [len("".join(lines[: row["error_step"] + i])) for i in (0, 1)]
                num_before, num_to_end = (sum(end <= place for end in ends[:-1]) for place in places)
                if len(lines) == row["error_step"] + 1:
                    num_to_end = len(pieces)
                each = a / max(row["error_step"], 1)
                expected = [each] * num_before + [b] * (num_to_end - num_before) + [0.0] * (len(pieces) - num_to_end)
                num_parts += num_before > 0
            assert advantages == pytest.approx(expected, abs=1e-5)
    assert num_parts > 10


@pytest.mark.slow
def test_four_processes_train_as_one(tmp_path: Path) -> None:
    """A process has 6 rollouts of a batch, so that groups of 4 are split."""
    assert_four_train_as_one(tmp_path, BASE_FOLDER / "policy", 6, **FIRST_ERROR)


def test_a_fused_loss_is_refused(tmp_path: Path) -> None:
    table = settings(tmp_path, tmp_path, **FIRST_ERROR, trl={"use_liger_kernel": True})
    with pytest.raises(ConfigError, match="use_liger_kernel has one advantage"):
        grpo_config(from_dict(table))
