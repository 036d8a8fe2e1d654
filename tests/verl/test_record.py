"""What verl's replay buffer, in our version, writes to the run folder, and when it stops the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fapo.config import from_dict, to_dict
from fapo.data import read_jsonl
from fapo.judge import JudgeDownError
from fapo.rewards import fapo_reward, group_advantages
from fapo.scoring import Scored, UnscoredError
from fapo.types import Problem, Reward, Rollout, Verdict
from fapo.verl.parcel import Parcel
from fapo.verl.record import RecordingBuffer

GROUP = 4
SOUND, FLAWED = Verdict("ok", None, "fine"), Verdict("ok", 1, "bad")
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
    file = folder / "run/config.json"
    file.write_text(json.dumps(to_dict(from_dict(table))), encoding="utf-8")
    return RecordingBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs={"config": str(file)},
    )


def parcel(verdict: Verdict | None, split: str = "train", problem: str = "p") -> Parcel:
    """A rollout with this verdict; None: a wrong one."""
    value = fapo_reward(verdict is not None, verdict.flawed if verdict else None)
    reward = Reward(value, {"outcome": 1.0 if verdict else -1.0})
    return Parcel(split, Scored(Rollout(Problem(problem, "", "1"), "x", 5), verdict is not None, verdict, reward))


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
    assert found["rollout/unscored_share"] == 1 / 7
    assert found["rollout/fp_ratio"] == 2 / 3
    assert found["advantage/flawed"] == pytest.approx(expected[4]), "of whole groups only"


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
    own = buffer(tmp_path, max_failed_share=0.5)
    own._check([parcel(FAILED)] * 5)
    with pytest.raises(JudgeDownError, match="6 of 9 judgements failed"):
        own._check([parcel(FAILED), *[parcel(SOUND)] * 3])
