"""What verl's replay buffer, in our version, writes to the run folder, and when it stops the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fapo.config.reader import from_dict, to_dict
from fapo.data.jsonl import read_jsonl
from fapo.errors import ConfigError, JudgeDownError, UnscoredError
from fapo.judge.canaries import MIN_CANARIES
from fapo.rewards.advantages import group_advantages
from fapo.rewards.policy import fapo_reward
from fapo.training import run_lock
from fapo.types import Problem, Reward, Rollout, ScoredRollout, Verdict
from fapo.verl.payload import Parcel
from fapo.verl.recorder import RecordingBuffer
from fapo.verl.timing import Pending, exposed_seconds
from fapo.verl.train import prepare

GROUP = 4
SOUND, FLAWED = Verdict.from_step(None, "fine"), Verdict.from_step(1, "bad")
FAILED, NONSENSE = Verdict("failed", reason="no answer"), Verdict("unparsable", reason="no box")


def buffer(folder: Path, **changed: Any) -> RecordingBuffer:
    """As verl's trainer makes it."""
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
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text(json.dumps(to_dict(from_dict(table))), encoding="utf-8")
    return again(folder)


def again(folder: Path) -> RecordingBuffer:
    """The same for a run folder that is there."""
    return RecordingBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs={"config": str(folder / "run/config.json")},
    )


def parcel(verdict: Verdict | None, split: str = "train", problem: str = "p") -> Parcel:
    """A rollout with this verdict; None: a wrong one."""
    value = fapo_reward(verdict is not None, verdict.flawed if verdict else None)
    reward = Reward(value, {"outcome": 1.0 if verdict else -1.0})
    return Parcel(
        split, ScoredRollout(Rollout(Problem(problem, "", "1"), "x", 5), verdict is not None, verdict, reward)
    )


def rows(folder: Path, name: str = "rollouts") -> list[dict[str, Any]]:
    return list(read_jsonl(folder / f"run/{name}.jsonl"))


def test_groups_come_together_with_their_advantages_even_where_verl_lost_a_rollout(tmp_path: Path) -> None:
    verdicts = [SOUND, None, FLAWED, None, NONSENSE, FLAWED, None]
    groups = ["b", "a", "b", "b", "a", "a", "b"]  # of "a" one is missing
    parcels = [parcel(verdict, problem=group) for verdict, group in zip(verdicts, groups, strict=True)]
    found = buffer(tmp_path)._record(1, "train", parcels, groups)
    written = rows(tmp_path)
    assert [row["problem_id"] for row in written] == [*"aaabbbb"]
    expected = [*group_advantages([[-1.0, np.nan, 0.0]])[0], *group_advantages([[1.0, 0.0, -1.0, -1.0]])[0]]
    assert [row["advantage"] for row in written] == pytest.approx(expected, abs=1e-6)
    assert [row["reward"] for row in written] == [-1.0, None, 0.0, 1.0, 0.0, -1.0, -1.0]
    assert [row["status"] for row in written[:3]] == ["skipped", "unparsable", "ok"]
    assert found["rollout/accuracy"] == 4 / 7
    assert found["rollout/unscored_rate"] == 1 / 7
    assert found["rollout/fp_ratio"] == 2 / 3
    assert found["advantage/flawed"] == pytest.approx(expected[4]), "of whole groups only"


def test_the_weighted_rho_is_that_of_the_other_engine(tmp_path: Path) -> None:
    verdicts = [SOUND, SOUND, FLAWED, None, SOUND, FLAWED, FLAWED, None]
    found = buffer(tmp_path)._record(1, "train", [parcel(verdict) for verdict in verdicts], [*"aaaabbbb"])
    assert found["rollout/flawed_rho"] == pytest.approx((1 * 2 + 2 * 1) / (1 * 1 + 2 * 1))


def test_canaries_are_watched_and_may_stop_the_run(tmp_path: Path) -> None:
    own = buffer(tmp_path, canary_min_f1=0.8)
    for step, said in enumerate([FLAWED] * (MIN_CANARIES // 2 - 1)):
        results = ((said, 1), (SOUND, None))
        found = own._record(step, "train", [replace(parcel(SOUND), canaries=results)], ["a"])
        own._check([])
    assert found["canary/f1"] == 1.0
    missed = ((SOUND, 1),) * MIN_CANARIES
    assert own._record(99, "train", [replace(parcel(SOUND), canaries=missed)], ["a"])["canary/f1"] < 0.8
    with pytest.raises(JudgeDownError, match="not to be trusted"):
        own._check([])


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
def test_where_the_time_goes(metrics: list[tuple[float, float]], timing: dict[str, float], expected: Any) -> None:
    exposed = exposed_seconds([{"generate_sequences": a, "compute_score": b} for a, b in metrics])
    found = Pending(1, {}, exposed, timing).times()
    assert (tuple(found.values()) or None) == expected
    assert not found or [*found] == ["time/rollout", "time/score", "time/update"]


HOLD = """
import sys, time
from pathlib import Path
from fapo.training.run_lock import take
take(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("part", ["run", "run/checkpoints"])
def test_a_second_training_in_the_folder_is_refused(part: str, tmp_path: Path) -> None:
    """By whoever starts verl, before anything is written; by verl's trainer, whoever has started it."""
    own = buffer(tmp_path)
    _release(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", HOLD, str(tmp_path / part)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "taken\n"
        with pytest.raises(ConfigError, match="another process is training here"):
            if part == "run":
                prepare(own.config, resume=True)
            else:
                again(tmp_path)
        holder.kill()
    assert not (tmp_path / "run/data").exists()
    again(tmp_path)


def _release(folder: Path) -> None:
    """As if the process had ended."""
    for taken in [path for path in run_lock._taken if path.is_relative_to(folder.resolve())]:
        os.close(run_lock._taken.pop(taken))


def test_each_validation_set_is_measured_by_its_name(tmp_path: Path) -> None:
    parcels = [parcel(SOUND, "easy"), parcel(FLAWED, "hard"), parcel(FLAWED, "easy"), parcel(None, "hard")]
    buffer(tmp_path)._validation(3, parcels, ["a", "b", "c", "d"])
    (row,) = rows(tmp_path, "metrics")
    assert (row["step"], row["kind"]) == (3, "validation")
    assert (row["easy/accuracy"], row["easy/fp_ratio"]) == (1.0, 0.5)
    assert (row["hard/accuracy"], row["hard/fp_ratio"]) == (0.5, 1.0)
    assert all(row["advantage"] is None for row in rows(tmp_path)), "no groups of one"


@pytest.mark.parametrize("verdict", [FAILED, NONSENSE])
@pytest.mark.parametrize("on_unscored", ["mask", "correctness_only", "raise"])
def test_a_rollout_without_a_verdict(on_unscored: str, verdict: Verdict, tmp_path: Path) -> None:
    own = buffer(tmp_path, reward={"on_unscored": on_unscored})
    own._check([parcel(SOUND), parcel(None)])
    if on_unscored == "raise":
        with pytest.raises(UnscoredError, match=f"problem p: {verdict.reason}; set reward.on_unscored"):
            own._check([parcel(SOUND), parcel(verdict)])
    else:
        own._check([parcel(SOUND), parcel(verdict)])


def test_a_judge_that_is_down_stops_the_run_also_in_small_batches(tmp_path: Path) -> None:
    own = buffer(tmp_path, kind="local", model="miniature:genrm", max_failure_rate=0.5)
    own._check([parcel(FAILED)] * 5)
    with pytest.raises(JudgeDownError, match="6 of the last 9 requests failed"):
        own._check([parcel(FAILED), *[parcel(SOUND)] * 3])
