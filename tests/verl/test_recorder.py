"""Records of verl's replay buffer in the run folder, and the conditions under which it stops the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.data.jsonl import read_jsonl
from fapo.errors import ConfigError, JudgeDownError, UnscoredError
from fapo.inference.usage import Usage
from fapo.judge.canaries import MIN_CANARIES
from fapo.rewards.advantages import group_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.rewards.policy import fapo_reward
from fapo.rewards.scorer import PolicyScorer
from fapo.training.judge_audit import MIN_CORRECTED_J, AuditedVerdict
from fapo.types import Problem, Reward, Rollout, ScoredRollout, Verdict
from fapo.verl.payload import Payload, decode, encode
from fapo.verl.recorder import RecordingBuffer
from fapo.verl.timing import PendingMetrics, exposed_seconds
from fapo.verl.train import prepare
from tests.support.miniature import RIGHT, TASK
from tests.support.paths import SOURCE

GROUP = 4
CORRECT, FLAWED = Verdict.from_step(None, "fine"), Verdict.from_step(1, "bad")
FAILED, NONSENSE = Verdict("failed", reason="no answer"), Verdict("unparsable", reason="no box")


def write_config(folder: Path, **changed: Any) -> Config:
    """Write config.json of a run folder, and return the config."""
    table = {
        "name": "run",
        "task": "policy",
        "output": str(folder),
        "model": {"path": "miniature:policy"},
        "data": {"train": "miniature:train"},
        "rollout": {"max_tokens": 64, "group_size": GROUP},
        "reward": {"kind": "fapo", **changed.pop("reward", {})},
        "judge": {"kind": "oracle", **changed},
        "optim": {"steps": 1, "learning_rate": 1e-3},
    }
    config = from_dict(table)
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    return config


def open_buffer(folder: Path) -> RecordingBuffer:
    """Return the replay buffer of a run folder, made as verl's trainer makes it."""
    return RecordingBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs={"config": str(folder / "run/config.json")},
    )


def buffer(folder: Path, **changed: Any) -> RecordingBuffer:
    """Return the replay buffer of a new run folder."""
    write_config(folder, **changed)
    return open_buffer(folder)


def record(
    recorder: RecordingBuffer, step: int, payloads: Sequence[Payload], groups: Sequence[str]
) -> dict[str, float]:
    """Record rollouts of the training with the advantages that they have in their groups."""
    return recorder.record(step, "train", payloads, groups, recorder.advantages(payloads, groups))


def payload(verdict: Verdict | None, split: str = "train", problem: str = "p") -> Payload:
    """Return a rollout with this verdict; None: a wrong rollout."""
    value = fapo_reward(verdict is not None, verdict.flawed if verdict else None)
    reward = Reward(value, {"outcome": 1.0 if verdict else -1.0})
    return Payload(
        split, ScoredRollout(Rollout(Problem(problem, "", "1"), "x\ny", 5), verdict is not None, verdict, reward)
    )


def rows(folder: Path, name: str = "rollouts") -> list[dict[str, Any]]:
    return list(read_jsonl(folder / f"run/{name}.jsonl"))


def test_rollouts_of_a_group_are_written_together_with_their_advantages(tmp_path: Path) -> None:
    verdicts = [CORRECT, None, FLAWED, None, NONSENSE, FLAWED, None]
    groups = ["b", "a", "b", "b", "a", "a", "b"]  # verl has lost one of "a"
    payloads = [payload(verdict, problem=group) for verdict, group in zip(verdicts, groups, strict=True)]
    found = record(buffer(tmp_path), 1, payloads, groups)
    written = rows(tmp_path)
    assert [row["problem_id"] for row in written] == [*"aaabbbb"]
    expected = [*group_advantages([[-1.0, np.nan, 0.0]])[0], *group_advantages([[1.0, 0.0, -1.0, -1.0]])[0]]
    assert [row["advantage"] for row in written] == pytest.approx(expected, abs=1e-6)
    assert [row["reward"] for row in written] == [-1.0, None, 0.0, 1.0, 0.0, -1.0, -1.0]
    assert [row["status"] for row in written[:3]] == ["skipped", "unparsable", "ok"]
    assert found["rollout/accuracy"] == 4 / 7
    assert found["rollout/unscored_rate"] == 1 / 7
    assert found["rollout/fp_ratio"] == 2 / 3
    assert found["advantage/flawed"] == pytest.approx(expected[4]), "of complete groups only"


HALF = 0.5**0.5
OTHERWISE = {
    "decoupled": (
        {"weight": 2.0},
        decoupled_advantages([[1, 1, 1, -1], [-1, -1, 1, 1]], [[0, -1, 0, None], [None, None, -1, 0]], 2.0).ravel(),
    ),
    "filter": ({"keep": 2}, [HALF, 0, 0, -HALF, -HALF, 0, 0, HALF]),
}
"""Kind of reward that compares a group otherwise -> its settings, and the advantages of the groups below."""


@pytest.mark.parametrize("kind", OTHERWISE)
def test_groups_that_are_compared_otherwise(kind: str, tmp_path: Path) -> None:
    given, expected = OTHERWISE[kind]
    recorder = buffer(tmp_path, reward={"kind": kind, **given})
    scorer = PolicyScorer(recorder.config.reward, None)
    verdicts, groups = [CORRECT, None, FLAWED, None, CORRECT, FLAWED, None, CORRECT], [*"abababab"]
    made = []
    for old in map(payload, verdicts):
        s = old.scored
        made.append(replace(old, scored=replace(s, reward=scorer.reward(s.rollout, s.correct, s.verdict))))
    record(recorder, 1, made, groups)
    assert [row["advantage"] for row in rows(tmp_path)] == pytest.approx(expected, abs=3e-4)


def test_the_advantage_on_record_is_that_of_the_wrong_step(tmp_path: Path) -> None:
    recorder = buffer(tmp_path, reward={"kind": "first_error"})
    payloads, groups = [payload(verdict) for verdict in (CORRECT, FLAWED, None, FAILED)], [*"aaaa"]
    parts = recorder.parts(payloads, groups)
    assert [part.error for part in parts] == recorder.advantages(payloads, groups)
    assert [part.before > 0 for part in parts] == [False, True, False, False]


def test_the_weighted_rho_is_the_same_as_under_trl(tmp_path: Path) -> None:
    verdicts = [CORRECT, CORRECT, FLAWED, None, CORRECT, FLAWED, FLAWED, None]
    found = record(buffer(tmp_path), 1, [payload(verdict) for verdict in verdicts], [*"aaaabbbb"])
    assert found["rollout/flawed_rho"] == pytest.approx((1 * 2 + 2 * 1) / (1 * 1 + 2 * 1))


def test_canaries_are_measured_and_can_stop_the_run(tmp_path: Path) -> None:
    recorder = buffer(tmp_path, canary_min_f1=0.8)
    for step, verdict in enumerate([FLAWED] * (MIN_CANARIES // 2 - 1)):
        results = ((verdict, 1), (CORRECT, None))
        found = record(recorder, step, [replace(payload(CORRECT), canaries=results)], ["a"])
        recorder.check([])
    assert found["canary/f1"] == 1.0
    missed = ((CORRECT, 1),) * MIN_CANARIES
    assert record(recorder, 99, [replace(payload(CORRECT), canaries=missed)], ["a"])["canary/f1"] < 0.8
    with pytest.raises(JudgeDownError, match="not to be trusted"):
        recorder.check([])


def test_audits_are_measured_and_can_stop_the_run(tmp_path: Path) -> None:
    table = {"judge": {"kind": "oracle"}, "rate": 1.0, "min_j": 0.5}
    recorder = buffer(tmp_path, blind_to=["guess"], audit=table)
    answers = [TASK.problem(), "\\boxed{3}"], [TASK.problem(), RIGHT]  # a guess, and a fully correct one
    payloads = [Payload("train", ScoredRollout(Rollout(*answer), True, CORRECT, Reward(1.0))) for answer in answers]
    record(recorder, 1, payloads * 20, ["a"] * 40)
    recorder.pending = PendingMetrics(1, {}, 0.0, {})
    recorder.check([])
    recorder.flush()
    (row,) = rows(tmp_path, "metrics")
    assert (row["audit/num"], row["audit/recall"], row["audit/youden_j"], row["audit/gap"]) == (40, 0, 0, 0.5)
    assert len(rows(tmp_path, "audit")) == 40
    with pytest.raises(JudgeDownError, match=r"judge\.audit\.min_j"):
        recorder.check([])


def test_rewards_are_corrected_for_the_rates_of_the_audits_before(tmp_path: Path) -> None:
    table = {"judge": {"kind": "oracle"}, "rate": 1.0, "correct": True}
    recorder = buffer(tmp_path, blind_to=["guess"], audit=table)
    payloads = [payload(verdict) for verdict in (CORRECT, FLAWED, FAILED, None)]
    same, used = recorder.corrected(payloads)
    assert [p.scored.reward.value for p in same] == [1.0, 0.0, None, -1.0]
    assert used == {"reward/judge_recall": 1.0, "reward/judge_false_positive_rate": 0.0}
    recorder.stop_rules.audit.add([AuditedVerdict(False, True)] * 40 + [AuditedVerdict(False, False)] * 40)
    corrected, used = recorder.corrected(payloads)
    assert [p.scored.reward.value for p in corrected] == pytest.approx([1.0, 1 - 1 / MIN_CORRECTED_J, None, -1.0])
    assert used["reward/judge_recall"] == MIN_CORRECTED_J


def test_the_second_judge_takes_the_place_of_the_first(tmp_path: Path) -> None:
    table = {"judge": {"kind": "oracle"}, "rate": 1.0, "min_j": 0.5, "on_low_j": "switch"}
    recorder = buffer(tmp_path, blind_to=["guess"], audit=table)
    answers = [TASK.problem(), "\\boxed{3}"], [TASK.problem(), RIGHT]
    scored = [ScoredRollout(Rollout(*answer), True, CORRECT, Reward(1.0, {"outcome": 1.0})) for answer in answers]
    unjudged = replace(scored[0], verdict=None, reward=Reward(None, {"outcome": 1.0}))  # its worker knows of the switch
    wrong = payload(None).scored
    failed = replace(wrong, reward=Reward(None), check_error="no answer within 5 s")
    payloads = [Payload("train", s) for s in [*scored * 20, unjudged, wrong, failed]]
    assert recorder.judged_again(payloads) == payloads
    record(recorder, 1, payloads[:40], ["a"] * 40)
    recorder.pending = PendingMetrics(1, {}, 0.0, {})
    recorder.check(payloads[:40])
    assert not recorder.folder.switched.exists()
    recorder.flush()
    assert recorder.folder.switched.exists()
    found = [p.scored for p in recorder.judged_again(payloads)]
    assert [s.flawed for s in found[:2]] == [True, False]
    assert [s.reward.value for s in found] == [0.0, 1.0] * 20 + [0.0, -1.0, None]
    assert found[-1].check_error == failed.check_error
    record(recorder, 2, [Payload("train", s) for s in found], ["a"] * 43)
    recorder.pending = PendingMetrics(2, {}, 0.0, {})
    recorder.flush()
    first, second = rows(tmp_path, "metrics")
    assert (first["audit/switched"], first["audit/youden_j"]) == (0.0, 0.0)
    assert {key: value for key, value in second.items() if key.startswith("audit/")} == {"audit/switched": 1.0}
    assert {row["step"] for row in rows(tmp_path, "audit")} == {1}


def test_tokens_and_cost_of_the_judge_are_metrics(tmp_path: Path) -> None:
    served = {"kind": "served", "model": "m", "urls": ["http://127.0.0.1:9/v1"], "prices": [1.0, 0.5, 2.0]}
    used = replace(payload(CORRECT), usage=Usage(1, 100, 20, 10))
    found = record(buffer(tmp_path, **served), 1, [used, decode(encode(used), 1.0, 5, 64)], ["a", "a"])
    assert (found["judge/requests"], found["judge/prompt_tokens"], found["judge/cached_tokens"]) == (2, 200, 40)
    assert found["judge/cost"] == pytest.approx((160 * 1.0 + 40 * 0.5 + 20 * 2.0) / 1e6)


CLOCK = {"gen": 10.0, "step": 30.0}


@pytest.mark.parametrize(
    ("metrics", "timing", "expected"),
    [
        ([(4, 1), (6, 3)], CLOCK, (7, 3, 20)),
        ([(4, 9), (6, 0)], CLOCK, (3, 7, 20)),
        ([(4, 1), (6, 0)], CLOCK, (10, 0, 20)),
        ([(4, 1), (6, 0)], {**CLOCK, "save_checkpoint": 5.0}, (10, 0, 15)),
        ([(4, 1), (6, 0)], {"gen": 10.0}, None),
        ([], {}, None),
    ],
)
def test_seconds_of_the_parts_of_a_step(
    metrics: list[tuple[float, float]], timing: dict[str, float], expected: Any
) -> None:
    exposed = exposed_seconds([{"generate_sequences": a, "compute_score": b} for a, b in metrics])
    found = PendingMetrics(1, {}, exposed, timing).seconds()
    assert (tuple(found.values()) or None) == expected
    assert not found or [*found] == ["time/rollout", "time/score", "time/update"]


def test_rollouts_that_begin_before_their_step_have_no_time_of_scoring() -> None:
    assert PendingMetrics(1, {}, None, CLOCK).seconds() == {"time/rollout": 10.0, "time/update": 20.0}


HOLD = """
import sys, time
from pathlib import Path
from fapo.training.run_lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("part", ["run", "run/checkpoints"])
def test_a_second_training_in_the_folder_is_refused(part: str, tmp_path: Path) -> None:
    """The program that starts verl refuses before it writes anything; so does a trainer that was started otherwise."""
    config = write_config(tmp_path)
    (tmp_path / "run/checkpoints").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / part)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "taken\n"
        with pytest.raises(ConfigError, match="another process is training here"):
            if part == "run":
                prepare(config, resume=True)
            else:
                open_buffer(tmp_path)
        holder.kill()
    assert not (tmp_path / "run/data").exists()
    open_buffer(tmp_path)


def test_each_validation_set_is_measured_by_its_name(tmp_path: Path) -> None:
    payloads = [payload(CORRECT, "easy"), payload(FLAWED, "hard"), payload(FLAWED, "easy"), payload(None, "hard")]
    buffer(tmp_path).record_validation(3, payloads, ["a", "b", "c", "d"])
    (row,) = rows(tmp_path, "metrics")
    assert (row["step"], row["kind"]) == (3, "validation")
    assert (row["easy/accuracy"], row["easy/fp_ratio"]) == (1.0, 0.5)
    assert (row["hard/accuracy"], row["hard/fp_ratio"]) == (0.5, 1.0)
    assert all(row["advantage"] is None for row in rows(tmp_path)), "single rollouts have no advantage"


@pytest.mark.parametrize("verdict", [FAILED, NONSENSE])
@pytest.mark.parametrize("on_unscored", ["mask", "correctness_only", "raise"])
def test_a_rollout_without_a_verdict(on_unscored: str, verdict: Verdict, tmp_path: Path) -> None:
    recorder = buffer(tmp_path, reward={"on_unscored": on_unscored})
    recorder.check([payload(CORRECT), payload(None)])
    if on_unscored == "raise":
        with pytest.raises(UnscoredError, match=f"problem p: {verdict.reason}; set reward.on_unscored"):
            recorder.check([payload(CORRECT), payload(verdict)])
    else:
        recorder.check([payload(CORRECT), payload(verdict)])


def test_a_judge_that_is_down_stops_the_run_in_small_batches_too(tmp_path: Path) -> None:
    recorder = buffer(tmp_path, kind="local", model="miniature:genrm", max_failure_rate=0.5)
    recorder.check([payload(FAILED)] * 5)
    with pytest.raises(JudgeDownError, match="6 of the last 9 requests failed"):
        recorder.check([payload(FAILED), *[payload(CORRECT)] * 3])
