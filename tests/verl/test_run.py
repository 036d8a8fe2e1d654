"""Complete runs of verl's program in the miniature: FAPO with the GenRM as judge, resumed and asynchronous runs."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from fapo.data.jsonl import read_jsonl
from fapo.rewards.advantages import group_advantages
from fapo.rewards.consistency_filter import filtered_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.rewards.first_error import first_error_advantages
from fapo.rewards.policy import corrected_reward, fapo_reward
from fapo.training.judge_audit import MIN_AUDITED, AuditWindow, audited_verdicts, conservative_rates
from tests.support.verl_runs import GENRM, GROUP, PROMPTS, Row, logged, rows, run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two steps, then two more with --resume, and keep the files of both parts."""
    folder = tmp_path_factory.mktemp("verl")
    run(folder)
    for name in ("metrics", "rollouts"):
        (folder / f"{name}-2.jsonl").write_bytes((folder / f"run/{name}.jsonl").read_bytes())
    (folder / "verl-2.jsonl").write_bytes((folder / "verl.jsonl").read_bytes())
    run(folder, "--resume", steps=4)
    return folder


def steps_logged(folder: Path) -> list[Row]:
    before = [row["data"] for row in read_jsonl(folder / "verl-2.jsonl") if "actor/grad_norm" in row["data"]]
    return [*before, *logged(folder)]


def test_rollouts_come_from_the_weights_in_training(first: Path) -> None:
    steps = steps_logged(first)
    assert [row["training/global_step"] for row in steps] == [1, 2, 3, 4]
    assert all(math.isfinite(row["actor/grad_norm"]) and math.isfinite(row["actor/pg_loss"]) for row in steps)
    assert any(row["actor/grad_norm"] > 0 for row in steps)
    assert all(row["training/rollout_actor_probs_pearson_corr"] > 0.999 for row in steps)


def test_rollouts_have_verdicts_rewards_and_advantages(first: Path) -> None:
    found = [row for row in rows(first, "rollouts") if row["split"] == "train"]
    assert [row["step"] for row in found] == [step for step in (1, 2, 3, 4) for _ in range(PROMPTS * GROUP)]
    for row in found:
        judged = row["status"] != "skipped"
        assert judged == row["correct"]
        assert bool(row["critique"]) == judged
        assert row["reward"] == fapo_reward(row["correct"], row["flawed"])
        assert row["reward"] in (1.0, 0.0, -1.0, None)
        assert 0 < row["num_tokens"] <= 64
        assert row["truth"] is not None
    groups = defaultdict(list)
    for i, row in enumerate(found):
        groups[i // GROUP].append(row)
    for group in groups.values():
        assert len({row["problem_id"] for row in group}) == 1
        values = np.array([[np.nan if row["reward"] is None else row["reward"] for row in group]], dtype=float)
        np.testing.assert_allclose([row["advantage"] for row in group], group_advantages(values)[0], atol=1e-5)


def test_metrics_are_those_of_trl_and_reach_the_loggers_of_verl(first: Path) -> None:
    found = rows(first, "metrics")
    assert [(row["kind"], row["step"]) for row in found] == [
        *(("validation", 0), ("train", 1), ("train", 2), ("validation", 2), ("train", 3), ("train", 4)),
        ("validation", 4),
    ]
    train = [row for row in found if row["kind"] == "train"]
    assert all({"rollout/accuracy", "rollout/unscored_rate", "advantage/wrong"} <= row.keys() for row in train)
    judged = [row for row in train if "rollout/fp_ratio" in row]
    assert judged
    assert all(0 <= row["rollout/fp_ratio"] <= 1 and "rollout/rho" in row for row in judged)
    for ours, theirs in zip(train, steps_logged(first), strict=True):
        assert theirs["rollout/accuracy"] == pytest.approx(ours["rollout/accuracy"])
        own = [row for row in rows(first, "rollouts") if (row["step"], row["split"]) == (ours["step"], "train")]
        rewards = [row["reward"] for row in own]
        if None in rewards:
            assert theirs["critic/score/mean"] is None, "NaN, in JSON"
        else:
            assert theirs["critic/score/mean"] == pytest.approx(np.mean(rewards), abs=1e-5)
    assert all("rollout/flawed_rho" in row for row in judged)
    for row in train:
        assert min(row["time/rollout"], row["time/update"]) > 0 <= row["time/score"]
    logs = [row["data"] for file in ("verl-2", "verl") for row in read_jsonl(first / f"{file}.jsonl")]
    logs = [row for row in logs if "val-aux/validation/accuracy" in row]
    for row, theirs in zip((row for row in found if row["kind"] == "validation"), logs, strict=True):
        for key in ("validation/accuracy", "validation/fp_ratio", "harder/fp_ratio"):
            assert theirs.get(f"val-aux/{key}") == row.get(key)
    for row in (row for row in found if row["kind"] == "validation"):
        assert {f"{name}/{key}" for name in ("validation", "harder") for key in ("accuracy", "length")} <= row.keys()
    assert any("validation/fp_ratio" in row or "harder/fp_ratio" in row for row in found)


@pytest.mark.parametrize("kind", ["decoupled", "filter"])
def test_verl_trains_on_the_advantages_of_groups_on_record(kind: str, tmp_path: Path) -> None:
    judge = "judge.kind=oracle", "judge.false_negative_rate=0.5"
    setting = {"decoupled": "reward.weight=2", "filter": "reward.keep=2"}[kind]
    run(tmp_path, "reward.penalty=", f"reward.kind={kind}", setting, *judge, "data.validation=", steps=2)
    found = rows(tmp_path, "rollouts")
    for start in range(0, len(found), GROUP):
        group = found[start : start + GROUP]
        outcome = [1.0 if row["correct"] else -1.0 for row in group]
        if kind == "filter":
            sound = [row["correct"] and not row["flawed"] for row in group]
            expected = filtered_advantages([outcome], [sound], [[not row["correct"] for row in group]], 2)[0]
        else:
            process = [-float(row["flawed"]) if row["correct"] else None for row in group]
            expected = decoupled_advantages([outcome], [process], 2.0)[0]
        np.testing.assert_allclose([row["advantage"] for row in group], expected, atol=1e-5)
    assert {row["flawed"] for row in found if row["correct"]} == {True, False}
    for step, theirs in enumerate(logged(tmp_path), 1):
        own = [row["advantage"] for row in found if row["step"] == step]
        assert theirs["critic/advantages/max"] == pytest.approx(max(own), abs=1e-4)
        assert theirs["critic/advantages/min"] == pytest.approx(min(own), abs=1e-4)
        assert theirs["actor/grad_norm"] > 0


def test_verl_trains_on_the_parts_of_rollouts_around_their_first_error(tmp_path: Path) -> None:
    run(tmp_path, "reward.penalty=2", "reward.kind=first_error", "judge.kind=oracle", "data.validation=", steps=2)
    found = rows(tmp_path, "rollouts")
    best, worst = {1: -math.inf, 2: -math.inf}, {1: math.inf, 2: math.inf}
    for start in range(0, len(found), GROUP):
        group = found[start : start + GROUP]
        begins = [bool(row["flawed"] and row["error_step"]) for row in group]
        (before,), (error,) = first_error_advantages([[row["reward"] for row in group]], [begins])
        np.testing.assert_allclose([row["advantage"] for row in group], error, atol=1e-5)
        step = group[0]["step"]
        of_steps = [a / max(row["error_step"] or 1, 1) for a, row in zip(before, group, strict=True)]
        best[step] = max([best[step], *of_steps, *error])
        worst[step] = min([worst[step], *error])
    assert {row["status"] for row in found} == {"ok"}, "wrong rollouts are judged, too"
    assert any(row["flawed"] and row["error_step"] and not row["correct"] for row in found)
    for step, theirs in enumerate(logged(tmp_path), 1):
        assert theirs["critic/advantages/max"] == pytest.approx(best[step], abs=1e-4)
        assert theirs["critic/advantages/min"] == pytest.approx(worst[step], abs=1e-4)
        assert theirs["actor/grad_norm"] > 0


def test_verl_trains_on_the_rewards_corrected_for_an_audit(tmp_path: Path) -> None:
    judge = "judge.kind=oracle", "judge.false_negative_rate=0.6"
    audit = "judge.audit.judge.kind=oracle", "judge.audit.rate=1", "judge.audit.correct=true"
    run(tmp_path, *judge, *audit, "data.validation=", "rollout.num_prompts=32", steps=2)
    found, metrics = rows(tmp_path, "rollouts"), rows(tmp_path, "metrics")
    used = [(row["reward/judge_recall"], row["reward/judge_false_positive_rate"]) for row in metrics]
    assert used[0] == (1.0, 0.0)
    window = AuditWindow()
    window.add(audited_verdicts(row for row in rows(tmp_path, "audit") if row["step"] == 1))
    assert window.counts().n >= MIN_AUDITED
    assert used[1] == pytest.approx(conservative_rates(window.counts()))
    assert used[1][0] < 0.9, "the judge passes three flaws of five"
    for row in found:
        assert row["reward"] == pytest.approx(
            corrected_reward(row["correct"], row["flawed"], 1.0, *used[row["step"] - 1])
        )
    assert min(row["reward"] for row in found if row["correct"] and row["step"] == 2) < 0
    for step, theirs in enumerate(logged(tmp_path), 1):
        own = [row for row in found if row["step"] == step]
        assert theirs["critic/score/mean"] == pytest.approx(np.mean([row["reward"] for row in own]), abs=1e-5)
        assert theirs["critic/advantages/max"] == pytest.approx(max(row["advantage"] for row in own), abs=1e-4)


def test_verl_continues_with_the_second_judge_also_when_it_is_resumed(tmp_path: Path) -> None:
    judge = "judge.kind=oracle", 'judge.blind_to=["slip","skip","guess","cancellation","format"]'
    audit = (
        "judge.audit.judge.kind=oracle",
        "judge.audit.rate=1",
        "judge.audit.min_j=0.5",
        "judge.audit.on_low_j=switch",
    )
    changed = *judge, *audit, "rollout.num_prompts=32", "validation.every=1"
    run(tmp_path, *changed, steps=2)
    run(tmp_path, *changed, "--resume", steps=3)
    metrics = {row["step"]: row for row in rows(tmp_path, "metrics") if row["kind"] == "train"}
    assert {step: row["audit/switched"] for step, row in metrics.items()} == {1: 0.0, 2: 1.0, 3: 1.0}
    assert metrics[1]["audit/youden_j"] == 0.0
    assert {row["step"] for row in rows(tmp_path, "audit")} == {1}
    found = rows(tmp_path, "rollouts")
    for row in found:
        is_second = row["step"] >= (2 if row["split"] == "train" else 1)  # a validation follows the audit of its step
        if row["correct"]:
            assert row["flawed"] == (is_second and row["truth"]["error_step"] is not None)
            assert row["reward"] == fapo_reward(True, row["flawed"])
    assert any(row["flawed"] for row in found if row["step"] == 3)
    for theirs in logged(tmp_path):
        own = [row for row in found if row["step"] == theirs["training/global_step"] and row["split"] == "train"]
        assert theirs["critic/score/mean"] == pytest.approx(np.mean([row["reward"] for row in own]), abs=1e-5)
        assert theirs["critic/advantages/max"] == pytest.approx(max(row["advantage"] for row in own), abs=1e-4)


def test_a_resumed_run_continues_from_its_checkpoint(first: Path) -> None:
    for name in ("metrics", "rollouts"):
        before = list(read_jsonl(first / f"{name}-2.jsonl"))
        assert rows(first, name)[: len(before)] == before
        assert len(rows(first, name)) > len(before)
    kept = {path.parent.name for path in (first / "run/checkpoints").glob("global_step_*/actor")}
    assert {"global_step_3", "global_step_4"} <= kept
    assert (first / "run/checkpoints/latest_checkpointed_iteration.txt").read_text() == "4"


def test_without_new_weights_the_rollouts_are_off_policy(tmp_path: Path) -> None:
    run(
        tmp_path,
        "judge.kind=oracle",
        "data.validation=",
        "optim.learning_rate=3e-2",
        steps=3,
        env={"FAPO_TEST_NO_WEIGHT_SYNC": "1"},
    )
    assert logged(tmp_path)[-1]["training/rollout_actor_probs_pearson_corr"] < 0.99


def test_rollouts_that_begin_while_weights_are_updated(tmp_path: Path) -> None:
    """verl's colocate_async: the same record, rollouts of earlier weights among others, and a run that resumes."""
    changed = "judge.kind=oracle", "optim.learning_rate=3e-3"
    table = {"trainer.v1.trainer_mode": "colocate_async"}
    run(tmp_path, *changed, steps=2, verl=table, env={"FAPO_TEST_PACE": "0.2 1 2"})
    (tmp_path / "verl-2.jsonl").write_bytes((tmp_path / "verl.jsonl").read_bytes())
    run(tmp_path, *changed, "--resume", steps=4, verl=table, env={"FAPO_TEST_PACE": "0.2 1 2"})
    found = rows(tmp_path, "rollouts")
    train = [row for row in found if row["split"] == "train"]
    assert Counter(row["step"] for row in train) == dict.fromkeys((1, 2, 3, 4), PROMPTS * GROUP)
    for start in range(0, len(train), GROUP):
        group = train[start : start + GROUP]
        assert len({row["problem_id"] for row in group}) == 1
        values = np.array([[np.nan if row["reward"] is None else row["reward"] for row in group]], dtype=float)
        np.testing.assert_allclose([row["advantage"] for row in group], group_advantages(values)[0], atol=1e-5)
    metrics = rows(tmp_path, "metrics")
    assert [(row["kind"], row["step"]) for row in metrics] == [
        *(("validation", 0), ("train", 1), ("train", 2), ("validation", 2), ("train", 3), ("train", 4)),
        ("validation", 4),
    ]
    for row in (row for row in metrics if row["kind"] == "train"):
        assert min(row["time/rollout"], row["time/update"]) > 0
        assert "time/score" not in row
    steps = steps_logged(tmp_path)
    assert [row["training/global_step"] for row in steps] == [1, 2, 3, 4]
    fits = [row["training/rollout_actor_probs_pearson_corr"] for row in steps]
    assert fits[0] > 0.999 > 0.99 > min(fits[1:]) > 0.3, "later batches have rollouts of earlier weights"


def test_an_adapter_is_trained_and_resumed(tmp_path: Path) -> None:
    """The weights for the rollouts are merged: the rollouts of these tests have no adapters, as those of vLLM have."""
    changed = "judge.kind=oracle", "data.validation=", "model.lora.rank=4", "optim.learning_rate=1e-2"
    table = {"actor_rollout_ref.model.lora.merge": True}
    run(tmp_path, *changed, verl=table)
    (tmp_path / "verl-2.jsonl").write_bytes((tmp_path / "verl.jsonl").read_bytes())
    run(tmp_path, *changed, "--resume", steps=3, verl=table)
    steps = steps_logged(tmp_path)
    assert [row["training/global_step"] for row in steps] == [1, 2, 3]
    assert any(row["actor/grad_norm"] > 0 for row in steps)
    assert all(row["training/rollout_actor_probs_pearson_corr"] > 0.99 for row in steps)
    for step in (2, 3):
        folder = tmp_path / f"run/checkpoints/global_step_{step}/actor"
        found = json.loads((folder / "lora_train_meta.json").read_text(encoding="utf-8"))
        assert (found["r"], found["lora_alpha"]) == (4, 32)


def test_a_judge_that_is_down_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the judge is down"):
        run(
            tmp_path,
            "judge.kind=served",
            "judge.model=m",
            'judge.urls=["http://127.0.0.1:9/v1"]',
            "judge.timeout=1",
            "judge.deadline=3",
            "data.validation=",
            "judge.max_failure_rate=0.2",
            "rollout.num_prompts=16",
        )
    assert not list((tmp_path / "run/checkpoints").glob("global_step_*"))


def test_an_error_in_the_reward_function_stops_the_run(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(AssertionError, match=r"DataError: \S*notes.txt: no response cache"):
        run(tmp_path, f'judge.cache="{notes}"', "data.validation=")
    assert not list((tmp_path / "run/checkpoints").glob("global_step_*"))


def test_a_genrm_is_trained_by_the_labels_of_its_data(tmp_path: Path) -> None:
    run(tmp_path, "data.validation=", "rollout.max_tokens=80", base=GENRM, steps=1)
    (metrics,) = rows(tmp_path, "metrics")
    assert {"precision", "recall", "tokens"} <= metrics.keys()
    found = rows(tmp_path, "rollouts")
    assert len(found) == PROMPTS * GROUP
    for row in found:
        assert row["critique"] == row["response"]
        assert row["critique_tokens"] == row["num_tokens"]
        right = row["status"] == "ok" and (row["error_step"] is None) == (row["truth"]["error_step"] is None)
        assert row["correct"] == right
        assert row["reward"] == pytest.approx(sum(row["parts"].values()))
        assert -1 <= row["reward"] <= 1
    assert math.isfinite(logged(tmp_path)[0]["actor/grad_norm"])
